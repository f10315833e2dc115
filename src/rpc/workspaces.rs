//! Handlers of `workspace.*`. Each checks that the caller may, and hands on.

use std::sync::Arc;

use super::{
    failure::Failure,
    module::{Call, Host},
    requests, views,
};
use crate::{
    antares::{Gift, Scope, Workspace, WorkspaceError},
    api::{
        CreateWorkspace, Done, GiveWorkspace, ListWorkspaces, MountWorkspace, RemoveWorkspace,
        UnmountWorkspace, WorkspacePage, WorkspaceRef, WorkspaceView,
    },
    auth::Action,
    sys::identity::Identity,
    telemetry::event,
    types::{OriginName, WorkspaceId},
};

/// Workspaces in a page unless asked otherwise.
const PAGE: u32 = 200;
/// Workspaces in a page at most.
const PAGE_MAX: u32 = 1000;

pub(super) async fn create(
    host: Arc<Host>,
    call: Call,
    params: CreateWorkspace,
) -> Result<WorkspaceView, Failure> {
    let mut request = requests::create(params)?;
    host.authorize(&call.caller, Action::Mount).await?;
    host.require_our_file_system(&call.caller).await?;
    require_origin(&host, call.identity(), &request.origin).await?;
    request.origin = host.view_of(&request.origin, call.caller.uid());
    // Not run to its end for a caller who is gone: dropping this future undoes what was done.
    let mut waited_for = WaitedFor { until_done: false };
    let made = host.services.workspaces.create(call.identity(), request).await;
    waited_for.until_done = true;
    let made = made?;
    Ok(show(&host, made).await)
}

/// Says in the journal when a creation is dropped before it is done.
struct WaitedFor {
    until_done: bool,
}

impl Drop for WaitedFor {
    fn drop(&mut self) {
        if !self.until_done {
            tracing::info!("nobody waits for the workspace being made any more; it is undone");
        }
    }
}

pub(super) async fn require_origin(
    host: &Host,
    owner: &Identity,
    origin: &OriginName,
) -> Result<(), Failure> {
    if host.may_mount(owner, origin).await {
        return Ok(());
    }
    tracing::info!(message_id = event::REFUSED, scorpio_origin = %origin, "refused: there is no such origin for this user");
    Err(WorkspaceError::NoSuchOrigin(origin.configured()).into())
}

pub(super) async fn list(
    host: Arc<Host>,
    call: Call,
    params: ListWorkspaces,
) -> Result<WorkspacePage, Failure> {
    let limit = match params.limit {
        None => PAGE,
        Some(limit @ 1..=PAGE_MAX) => limit,
        Some(_) => return Err(Failure::BadParameter(format!("`limit`: between 1 and {PAGE_MAX}"))),
    };
    let after = params.after.as_deref().map(requests::workspace_id).transpose()?;
    let scope = if params.all {
        host.authorize(&call.caller, Action::ManageOthers).await?;
        Scope::Everybody
    } else {
        Scope::User(call.caller.uid())
    };
    let mut matching = host
        .services
        .workspaces
        .list(&scope)
        .into_iter()
        .filter(|workspace| after.as_ref().is_none_or(|after| workspace.id > *after))
        .filter(|workspace| params.labels.iter().all(|(key, value)| has_label(workspace, key, value)))
        .peekable();
    let mut workspaces = Vec::new();
    let mut bytes = 0;
    while let Some(workspace) = matching.next() {
        let view = views::workspace(workspace, &host.services.accounts).await;
        bytes += serde_json::to_vec(&view).map_or(0, |json| json.len());
        workspaces.push(view);
        // A page ends early rather than outgrow an answer: paths and labels may be long.
        let full = workspaces.len() >= limit as usize || bytes >= host.limits.response_bytes / 2;
        if full && matching.peek().is_some() {
            let next = workspaces.last().map(|view| view.id.clone());
            return Ok(WorkspacePage { workspaces, next });
        }
    }
    Ok(WorkspacePage { workspaces, next: None })
}

fn has_label(workspace: &Workspace, key: &str, value: &str) -> bool {
    workspace.options.labels.get(key).is_some_and(|have| have == value)
}

pub(super) async fn get(host: Arc<Host>, call: Call, params: WorkspaceRef) -> Result<WorkspaceView, Failure> {
    let id = requests::workspace_id(&params.id)?;
    let scope = host.scope_of(&call.caller, &id).await?;
    let workspace = host.services.workspaces.get(&scope, &id)?;
    Ok(show(&host, workspace).await)
}

pub(super) async fn mount(
    host: Arc<Host>,
    call: Call,
    params: MountWorkspace,
) -> Result<WorkspaceView, Failure> {
    let id = requests::workspace_id(&params.id)?;
    let at = params.mount_point.map(requests::mount_point).transpose()?;
    host.authorize(&call.caller, Action::Mount).await?;
    host.require_our_file_system(&call.caller).await?;
    let scope = host.scope_of(&call.caller, &id).await?;
    require_still_allowed(&host, &call, &scope, &id).await?;
    let workspaces = Arc::clone(&host.services.workspaces);
    let mounted = host.finish(&call, async move { workspaces.mount(&scope, &id, at).await }).await?;
    Ok(show(&host, mounted).await)
}

/// A right that was taken away holds for workspaces of before too: they are not mounted again. The owner is judged by what
/// the caller's process has, or, where somebody else mounts for them, by what their account has now.
async fn require_still_allowed(
    host: &Host,
    call: &Call,
    scope: &Scope,
    id: &WorkspaceId,
) -> Result<(), Failure> {
    let workspace = host.services.workspaces.get(scope, id)?;
    let uid = workspace.owner.uid;
    let now = if uid == call.caller.uid() {
        Some(call.identity().clone())
    } else {
        let account = host.services.accounts.identity(uid).await;
        account.map_err(|error| Failure::Internal(error.to_string()))?
    };
    // An account that is gone has what it had.
    require_origin(host, now.as_ref().unwrap_or(&workspace.owner), &workspace.origin).await
}

pub(super) async fn unmount(host: Arc<Host>, call: Call, params: UnmountWorkspace) -> Result<Done, Failure> {
    let id = requests::workspace_id(&params.id)?;
    let scope = host.scope_of(&call.caller, &id).await?;
    let workspaces = Arc::clone(&host.services.workspaces);
    host.finish(&call, async move { workspaces.unmount(&scope, &id, params.lazy).await }).await?;
    Ok(Done {})
}

pub(super) async fn remove(host: Arc<Host>, call: Call, params: RemoveWorkspace) -> Result<Done, Failure> {
    let id = requests::workspace_id(&params.id)?;
    let scope = host.scope_of(&call.caller, &id).await?;
    let workspaces = Arc::clone(&host.services.workspaces);
    let work = async move { workspaces.remove(&scope, &id, params.discard, params.lazy).await };
    host.finish(&call, work).await?;
    Ok(Done {})
}

pub(super) async fn give(
    host: Arc<Host>,
    call: Call,
    params: GiveWorkspace,
) -> Result<WorkspaceView, Failure> {
    let id = requests::workspace_id(&params.id)?;
    let user = requests::user(params.user)?;
    host.authorize(&call.caller, Action::Give).await?;
    let scope = host.scope_of(&call.caller, &id).await?;
    let origin = host.services.workspaces.get(&scope, &id)?.origin.configured();
    let account = host.services.accounts.account(&user).await;
    let to = account
        .map_err(|error| Failure::Internal(error.to_string()))?
        .ok_or_else(|| Failure::BadParameter(format!("`user`: there is no user {user}")))?;
    // What the workspace stands on would be open to them by it.
    if !host.may_mount(&to, &origin).await {
        return Err(Failure::NotForRecipient { user, origin });
    }
    let (workspaces, gift) = (Arc::clone(&host.services.workspaces), Gift { to, by: call.caller.uid() });
    let given = host.finish(&call, async move { workspaces.give(&scope, &id, gift).await }).await?;
    Ok(show(&host, given).await)
}

async fn show(host: &Host, workspace: Workspace) -> WorkspaceView {
    views::workspace(workspace, &host.services.accounts).await
}
