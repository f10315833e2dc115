//! [`Fixed`]: the lists of `[auth]` decide. For hosts without polkit.

use async_trait::async_trait;

use super::{Action, Authorizer, Caller, Refusal, accounts::Accounts};
use crate::config::{AuthConfig, Principal};

/// Who may do what, from the configuration.
pub struct Fixed {
    mount: Vec<Principal>,
    manage_others: Vec<Principal>,
    give: Vec<Principal>,
    accounts: Accounts,
}

impl Fixed {
    /// The lists of `config`, their names looked up in `accounts`.
    pub fn new(config: &AuthConfig, accounts: Accounts) -> Fixed {
        let (mount, manage_others) = (config.mount.clone(), config.manage_others.clone());
        Fixed { mount, manage_others, give: config.give.clone(), accounts }
    }
}

#[async_trait]
impl Authorizer for Fixed {
    async fn authorize(&self, caller: &Caller, action: Action) -> Result<(), Refusal> {
        let identity = &caller.peer.identity;
        let list = match action {
            Action::Mount => &self.mount,
            Action::ManageOthers => &self.manage_others,
            Action::Give => &self.give,
            // There is no list: root alone.
            Action::Administer => &Vec::new(),
        };
        if identity.is_root() || self.accounts.admit(list, identity).await {
            return Ok(());
        }
        Err(Refusal::Denied { action })
    }

    fn name(&self) -> &'static str {
        "static"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::AuthMode,
        sys::{identity::Identity, peer::Peer},
    };

    #[tokio::test]
    async fn each_action_has_its_own_list_and_root_needs_none() {
        let config = AuthConfig {
            mode: AuthMode::Static,
            mount: vec![Principal::Group("500".to_owned())],
            manage_others: vec![Principal::User("7".to_owned())],
            give: vec![Principal::User("9".to_owned())],
        };
        let fixed = Fixed::new(&config, Accounts::default());
        let denied = |action| Err(Refusal::Denied { action });
        for (uid, groups, mount, manage, give) in [
            (0, vec![], Ok(()), Ok(()), Ok(())),
            (7, vec![], denied(Action::Mount), Ok(()), denied(Action::Give)),
            (8, vec![500], Ok(()), denied(Action::ManageOthers), denied(Action::Give)),
            (9, vec![], denied(Action::Mount), denied(Action::ManageOthers), Ok(())),
        ] {
            let caller =
                Caller::new(Peer { identity: Identity { uid, gid: 100, groups }, pid: 1, pidfd: None });
            assert_eq!(fixed.authorize(&caller, Action::Mount).await, mount, "{uid}");
            assert_eq!(fixed.authorize(&caller, Action::ManageOthers).await, manage, "{uid}");
            assert_eq!(fixed.authorize(&caller, Action::Give).await, give, "{uid}");
            let administers = if uid == 0 { Ok(()) } else { denied(Action::Administer) };
            assert_eq!(fixed.authorize(&caller, Action::Administer).await, administers, "{uid}");
        }
    }
}
