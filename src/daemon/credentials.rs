//! `credential.*`: the vault, and the origin asked whether it takes what goes in.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    auth::vault::{Secret, Vault},
    origin::{
        FetchError, ResolveError,
        mega::{self, CredentialError, CredentialSource},
    },
    rpc::{self, Credentials},
    store::ObjectStore,
    types::{OriginName, RepoPath},
};

/// What one user reads an origin with.
pub struct UserCredential {
    name: String,
    vault: Arc<Vault>,
    origin: OriginName,
    uid: u32,
}

impl UserCredential {
    /// What `vault` keeps for the user whose view of an origin `view` is; `None` for an origin of all.
    pub fn of(view: &OriginName, vault: Arc<Vault>) -> Option<UserCredential> {
        let (origin, uid) = (view.configured(), view.user()?);
        Some(UserCredential { name: format!("login of user {uid}"), vault, origin, uid })
    }
}

impl CredentialSource for UserCredential {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&self) -> Result<mega::Secret, CredentialError> {
        match self.vault.get(&self.origin, self.uid) {
            Ok(Some(secret)) => mega::Secret::new(secret.expose().as_bytes()),
            Ok(None) => Err(CredentialError::NotGiven),
            Err(error) => Err(CredentialError::Unreadable { reason: error.to_string() }),
        }
    }
}

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
    async fn store(
        &self,
        origin: &OriginName,
        uid: u32,
        secret: Secret,
    ) -> Result<bool, rpc::CredentialError> {
        let _one_at_a_time = self.trying.lock().await;
        // What is stored and cannot be read is no reason to refuse a new one.
        let before = self.vault.get(origin, uid).ok().flatten();
        self.replace(origin, uid, Some(&secret))?;
        match self.attempt(&origin.of_user(uid)).await {
            Ok(()) => Ok(true),
            Err(FetchError::Denied { origin: named, reason }) => {
                self.replace(origin, uid, before.as_ref())?;
                Err(rpc::CredentialError::Refused(FetchError::Denied { origin: named, reason }))
            }
            Err(error) => {
                tracing::info!(scorpio_origin = %origin, scorpio_uid = uid, %error, "a credential could not be tried");
                Ok(false)
            }
        }
    }

    fn forget(&self, origin: &OriginName, uid: u32) -> Result<bool, rpc::CredentialError> {
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
    fn replace(
        &self,
        origin: &OriginName,
        uid: u32,
        secret: Option<&Secret>,
    ) -> Result<(), rpc::CredentialError> {
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
