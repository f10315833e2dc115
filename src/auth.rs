//! Who may do what: [`Caller`], [`Action`], and the trait that decides.
//!
//! - [`polkit`]: polkit over the system bus
//! - [`fixed`]: the lists of `[auth]` in the configuration

use async_trait::async_trait;

use crate::sys::peer::Peer;

/// Who is at the other end of a connection, as the kernel attests it.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Ids, process and its pidfd, fixed when the connection was made.
    pub peer: std::sync::Arc<Peer>,
}

/// What a caller may be asked to have the right for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Have workspaces of one's own.
    Mount,
    /// See and end the workspaces of others.
    ManageOthers,
}

impl Action {
    /// The action's id in polkit.
    pub fn polkit_id(self) -> &'static str {
        match self {
            Action::Mount => "org.scorpio.mount",
            Action::ManageOthers => "org.scorpio.manage-others",
        }
    }
}

/// A refusal, or why nobody could be asked.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// The policy says no.
    #[error("you are not authorised to {}", describe(*action))]
    Denied {
        /// For what.
        action: Action,
    },
    /// The policy could not be asked, so the answer is no.
    #[error("the authorisation service cannot be asked: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
}

fn describe(action: Action) -> &'static str {
    match action {
        Action::Mount => "mount workspaces",
        Action::ManageOthers => "manage the workspaces of others",
    }
}

/// Decides. Called for every control call that needs a right; may take milliseconds.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// `Ok` when `caller` may do `action`.
    async fn authorize(&self, caller: &Caller, action: Action) -> Result<(), Refusal>;
}
