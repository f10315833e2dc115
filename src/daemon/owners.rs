//! Workspaces of users whose accounts are gone: told once, after the start.
//!
//! They are kept and go on as before, because a number needs no account here (a container's users have none). But nobody asks
//! for them any more, and whoever gets the number next gets them too, so an administrator should look.

use std::collections::BTreeMap;

use crate::{
    antares::{Antares, Scope},
    auth::accounts::Accounts,
};

/// Says in the journal which numbers have workspaces and no account. A name service that does not answer says nothing.
pub async fn tell_without_account(antares: Antares, accounts: Accounts) {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for workspace in antares.list(&Scope::Everybody) {
        *counts.entry(workspace.owner.uid).or_default() += 1;
    }
    for (uid, count) in counts {
        match accounts.identity(uid).await {
            Ok(None) => tracing::warn!(
                scorpio_uid = uid,
                count,
                "these workspaces belong to a number that no account has; give them to somebody or remove them before \
                 the number is given again"
            ),
            Ok(Some(_)) => {}
            Err(error) => {
                tracing::debug!(scorpio_uid = uid, %error, "whether there is an account is not known");
            }
        }
    }
}
