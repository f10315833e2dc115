//! Handlers of `orphan.*`. All of them need the right to manage the workspaces of others.

use std::sync::Arc;

use super::{
    failure::Failure,
    module::{Call, Host},
    requests, views, workspaces,
};
use crate::{
    api::{AdoptOrphan, Done, Nothing, OrphanView, WorkspaceRef, WorkspaceView},
    auth::Action,
};

pub(super) async fn list(host: Arc<Host>, call: Call, _: Nothing) -> Result<Vec<OrphanView>, Failure> {
    host.authorize(&call.caller, Action::ManageOthers).await?;
    let orphans = host.ask(|services| services.workspaces.orphans()).await??;
    Ok(orphans.into_iter().map(views::orphan).collect())
}

pub(super) async fn adopt(
    host: Arc<Host>,
    call: Call,
    params: AdoptOrphan,
) -> Result<WorkspaceView, Failure> {
    let id = requests::workspace_id(&params.id)?;
    let mut request = requests::create(params.workspace)?;
    host.authorize(&call.caller, Action::ManageOthers).await?;
    host.require_our_file_system(&call.caller).await?;
    let owner = host.services.accounts.identity(params.uid).await;
    let owner = owner
        .map_err(|error| Failure::Internal(error.to_string()))?
        .ok_or_else(|| Failure::BadParameter(format!("`uid`: there is no user {}", params.uid)))?;
    // The one who gets it must be allowed to see what it stands on.
    workspaces::require_origin(&host, &owner, &request.origin).await?;
    request.origin = host.view_of(&request.origin, owner.uid);
    let workspaces = Arc::clone(&host.services.workspaces);
    let adopted = host.finish(&call, async move { workspaces.adopt(&id, &owner, request).await }).await?;
    Ok(views::workspace(adopted, &host.services.accounts).await)
}

pub(super) async fn discard(host: Arc<Host>, call: Call, params: WorkspaceRef) -> Result<Done, Failure> {
    let id = requests::workspace_id(&params.id)?;
    host.authorize(&call.caller, Action::ManageOthers).await?;
    tracing::info!(scorpio_workspace = %id, "an orphan is deleted");
    let workspaces = Arc::clone(&host.services.workspaces);
    host.finish(&call, async move { workspaces.discard(&id).await }).await?;
    Ok(Done {})
}
