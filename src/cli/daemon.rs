//! [`Daemon`]: the control socket as verbs see it, with errors that a person can use.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

use super::{exit::Exit, failure::Failure};
use crate::{
    api::{
        self, ListWorkspaces, Nothing, WatchWorkspaces, WorkspacePage, WorkspaceRef, WorkspaceView, method,
    },
    client::{Client, ClientError, Export, ExportFormat, Watch},
};

/// How long one call may take: mounting waits for an origin and for the kernel, each with a bound of its own in the
/// daemon, and the daemon's sentence about which of them it was is better than ours.
const PATIENCE: Duration = Duration::from_secs(180);

/// The daemon behind a socket.
pub(crate) struct Daemon {
    client: Client,
}

impl Daemon {
    /// Connects at the first call.
    pub(crate) fn new(socket: &Path) -> Daemon {
        Daemon { client: Client::new(socket, PATIENCE) }
    }

    /// Asks one question.
    pub(crate) async fn call<P: Serialize + Sync, R: DeserializeOwned>(
        &self,
        method: &str,
        params: &P,
    ) -> Result<R, Failure> {
        self.client.call(method, params).await.map_err(failure)
    }

    /// Asks a question without parameters.
    pub(crate) async fn ask<R: DeserializeOwned>(&self, method: &str) -> Result<R, Failure> {
        self.call(method, &Nothing {}).await
    }

    /// One workspace by its id.
    pub(crate) async fn workspace(&self, id: &str) -> Result<WorkspaceView, Failure> {
        self.call(method::WORKSPACE_GET, &WorkspaceRef { id: id.to_owned() }).await
    }

    /// All workspaces of the caller, or of all users, that have all `labels`.
    pub(crate) async fn workspaces(
        &self,
        all: bool,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<WorkspaceView>, Failure> {
        let mut found: Vec<WorkspaceView> = Vec::new();
        let mut after = None;
        loop {
            let question = ListWorkspaces { all, labels: labels.clone(), after: after.clone(), limit: None };
            let page: WorkspacePage = self.call(method::WORKSPACE_LIST, &question).await?;
            found.extend(page.workspaces);
            match page.next {
                None => return Ok(found),
                // A list that does not go on would be read for ever.
                next if next == after => {
                    return Err(Failure::new(Exit::Failed, "the daemon repeats itself; its list has no end"));
                }
                next => after = next,
            }
        }
    }

    /// Follows workspaces.
    pub(crate) async fn watch(&self, what: &WatchWorkspaces) -> Result<Watch, Failure> {
        self.client.watch(what).await.map_err(failure)
    }

    /// The changes of a workspace.
    pub(crate) async fn export(&self, id: &str, format: ExportFormat) -> Result<Export, Failure> {
        self.client.export(id, format).await.map_err(failure)
    }
}

/// What went wrong, in words for a person.
pub(crate) fn failure(error: ClientError) -> Failure {
    let unreachable = |hint: &str| Failure::new(Exit::Unreachable, error.to_string()).try_this(hint);
    match error {
        ClientError::Refused { message, data: Some(data), .. } => Failure::refused(&message, *data),
        ClientError::Refused { data: None, .. } | ClientError::Protocol { .. } => {
            Failure::new(Exit::Failed, error.to_string())
                .try_this("scorpioctl and scorpiod may be of different versions; see: scorpioctl doctor")
        }
        ClientError::NoSocket { .. } | ClientError::NotListening { .. } | ClientError::Connect { .. } => {
            unreachable(
                "see whether it runs: systemctl status scorpio.socket scorpio.service; then: scorpioctl doctor",
            )
        }
        ClientError::NotPermitted { .. } => unreachable("ask an administrator for the right to use Scorpio"),
        ClientError::TooManyConnections => unreachable("try again in a moment; end other scorpioctl watch"),
        ClientError::Lost { .. } => unreachable(
            "it may be restarting; look with scorpioctl list at what was done before you try again",
        ),
        ClientError::TimedOut { .. } => {
            unreachable("look with scorpioctl list at what was done; then: scorpioctl doctor")
        }
    }
}

/// In words, for sentences and columns.
pub(crate) fn state_word(state: api::WorkspaceState) -> &'static str {
    match state {
        api::WorkspaceState::Mounting => "mounting",
        api::WorkspaceState::Mounted => "mounted",
        api::WorkspaceState::Unmounted => "unmounted",
        api::WorkspaceState::Displaced => "displaced",
        api::WorkspaceState::Failed => "failed",
        api::WorkspaceState::Removing => "removing",
    }
}
