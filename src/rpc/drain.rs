//! Handlers of `drain.*`: no new mounts on this host. Both need the right to manage the workspaces of others.

use std::sync::Arc;

use super::{
    failure::Failure,
    module::{Call, Host},
    views,
};
use crate::{
    antares::{Draining, Scope, State},
    api::{DrainView, Nothing},
    auth::Action,
};

pub(super) async fn begin(host: Arc<Host>, call: Call, _: Nothing) -> Result<DrainView, Failure> {
    host.authorize(&call.caller, Action::ManageOthers).await?;
    let (workspaces, by) = (Arc::clone(&host.services.workspaces), call.caller.uid());
    let draining = host.finish(&call, async move { workspaces.begin_drain(by).await }).await?;
    Ok(show(&host, Some(draining)).await)
}

pub(super) async fn end(host: Arc<Host>, call: Call, _: Nothing) -> Result<DrainView, Failure> {
    host.authorize(&call.caller, Action::ManageOthers).await?;
    let (workspaces, by) = (Arc::clone(&host.services.workspaces), call.caller.uid());
    host.finish(&call, async move { workspaces.end_drain(by).await }).await?;
    Ok(show(&host, None).await)
}

async fn show(host: &Host, draining: Option<Draining>) -> DrainView {
    let by_uid = draining.and_then(|draining| draining.by);
    let by_user = match by_uid {
        Some(uid) => host.services.accounts.user_name(uid).await,
        None => None,
    };
    let all = host.services.workspaces.list(&Scope::Everybody);
    let there = all.iter().filter(|workspace| matches!(workspace.state, State::Mounted | State::Mounting));
    DrainView {
        draining: draining.is_some(),
        since: draining.and_then(|draining| draining.since).map(views::rfc3339),
        by_uid,
        by_user,
        mounted: there.count() as u64,
    }
}
