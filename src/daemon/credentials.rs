//! `credential.*`: the vault, and the origin asked whether it takes what goes in.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    auth::vault::{Secret, Vault},
    origin::{FetchError, ResolveError},
    rpc::{CredentialError, Credentials},
    store::ObjectStore,
    types::{OriginName, RepoPath},
};

/// Logins of this host's users.
pub struct Logins {
    /// Where secrets are kept.
    pub vault: Arc<Vault>,
    /// Asks origins.
    pub store: ObjectStore,
    /// Held while a credential is tried: two at once would undo each other.
    pub trying: tokio::sync::Mutex<()>,
}

#[async_trait]
impl Credentials for Logins {
    async fn store(&self, origin: &OriginName, uid: u32, secret: Secret) -> Result<bool, CredentialError> {
        let _one_at_a_time = self.trying.lock().await;
        // What is stored and cannot be read is no reason to refuse a new one.
        let before = self.vault.get(origin, uid).ok().flatten();
        self.replace(origin, uid, Some(&secret))?;
        match self.attempt(&origin.of_user(uid)).await {
            Ok(()) => Ok(true),
            Err(FetchError::Denied { origin: named, reason }) => {
                self.replace(origin, uid, before.as_ref())?;
                Err(CredentialError::Refused(FetchError::Denied { origin: named, reason }))
            }
            Err(error) => {
                tracing::info!(scorpio_origin = %origin, scorpio_uid = uid, %error, "a credential could not be tried");
                Ok(false)
            }
        }
    }

    fn forget(&self, origin: &OriginName, uid: u32) -> Result<bool, CredentialError> {
        let forgotten = self.vault.forget(origin, uid)?;
        self.store.reopen(&origin.of_user(uid));
        Ok(forgotten)
    }

    fn is_held(&self, origin: &OriginName, uid: u32) -> bool {
        // A damaged one is held: logging in again replaces it, and the journal names it when it is used.
        self.vault.get(origin, uid).map_or(true, |secret| secret.is_some())
    }
}

impl Logins {
    fn replace(&self, origin: &OriginName, uid: u32, secret: Option<&Secret>) -> Result<(), CredentialError> {
        match secret {
            Some(secret) => self.vault.store(origin, uid, secret)?,
            None => drop(self.vault.forget(origin, uid)?),
        }
        self.store.reopen(&origin.of_user(uid));
        Ok(())
    }

    /// Asks for the head: nothing is cheaper, and everything else needs it.
    async fn attempt(&self, view: &OriginName) -> Result<(), FetchError> {
        let origin = self.store.origin(view).ok_or_else(|| FetchError::Unreachable {
            origin: view.clone(),
            reason: "it is not configured on this host".to_owned(),
        })?;
        match origin.resolve(None, &RepoPath::root()).await {
            Err(ResolveError::Fetch(error)) => Err(error),
            _ => Ok(()),
        }
    }
}
