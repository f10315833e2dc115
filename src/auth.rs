//! Who may do what: [`Caller`], [`Action`], and the trait that decides.
//!
//! - [`polkit`]: polkit over the system bus
//! - [`fixed`]: the lists of `[auth]` in the configuration
//! - [`principals`]: whether a list of users and groups admits somebody
//! - [`accounts`]: names and ids of the host's users and groups
//! - [`memory`]: remembers consent for a few seconds, refusals never
//! - [`vault`]: what users log in to origins with
//!
//! Everywhere here uid 0 may do everything and is never asked about: `doctor` must work when the policy does not.

pub mod accounts;
pub mod fixed;
pub mod memory;
pub mod polkit;
pub mod principals;
pub mod vault;

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    config::{AuthConfig, AuthMode},
    sys::peer::Peer,
};

use accounts::Accounts;
use memory::{Granted, Remembering};

/// Who is at the other end of a connection, as the kernel attests it.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Ids, process and its pidfd, fixed when the connection was made.
    pub peer: Arc<Peer>,
    /// What this connection was lately allowed; shared by all its calls, gone with it.
    pub granted: Arc<Granted>,
}

impl Caller {
    /// The caller behind a new connection: nothing is granted yet.
    pub fn new(peer: Peer) -> Caller {
        Caller { peer: Arc::new(peer), granted: Arc::default() }
    }

    /// The user id all rights are judged by.
    pub fn uid(&self) -> u32 {
        self.peer.identity.uid
    }
}

/// What a caller may be asked to have the right for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Have workspaces of one's own.
    Mount,
    /// See and end the workspaces of others.
    ManageOthers,
    /// Hand a workspace over to another user.
    ///
    /// A right of its own, which owners do not have: what one user wrote becomes another's, counts against their limit,
    /// and is trusted by tools that judge files by their owner.
    Give,
    /// Change how the service works while it runs.
    Administer,
}

impl Action {
    /// The action's id in polkit.
    pub fn polkit_id(self) -> &'static str {
        match self {
            Action::Mount => "org.scorpio.mount",
            Action::ManageOthers => "org.scorpio.manage-others",
            Action::Give => "org.scorpio.give",
            Action::Administer => "org.scorpio.administer",
        }
    }
}

/// A refusal, or why nobody could be asked.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// The policy says no.
    #[error("you are not authorised to {} ({})", describe(*action), action.polkit_id())]
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
        Action::Give => "give workspaces to other users",
        Action::Administer => "administer the service",
    }
}

/// Decides. Called for every control call that needs a right; may take milliseconds.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// `Ok` when `caller` may do `action`.
    async fn authorize(&self, caller: &Caller, action: Action) -> Result<(), Refusal>;

    /// How `health` names it: `polkit` or `static`.
    fn name(&self) -> &'static str;
}

/// The authorizer that the configuration asks for. With `auto`, polkit where its name is owned or can be started on
/// the system bus at this moment, else the lists.
pub async fn choose(config: &AuthConfig, accounts: &Accounts) -> Arc<dyn Authorizer> {
    let lists = || Arc::new(fixed::Fixed::new(config, accounts.clone())) as Arc<dyn Authorizer>;
    let ask_polkit = || Arc::new(Remembering::new(polkit::Polkit::on_system_bus())) as Arc<dyn Authorizer>;
    match config.mode {
        AuthMode::Static => lists(),
        AuthMode::Polkit => ask_polkit(),
        AuthMode::Auto => match polkit::is_available().await {
            Ok(()) => ask_polkit(),
            Err(reason) => {
                tracing::info!(reason, "polkit cannot be asked; the lists of [auth] decide");
                lists()
            }
        },
    }
}
