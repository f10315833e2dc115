//! `credential.*`: the vault, and the origin asked whether it takes what goes in.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    auth::vault::{Secret, Vault},
    origin::{
        FetchError, Origin, ResolveError,
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
            Ok(None) => Err(CredentialError::NotLoggedIn { origin: self.origin.clone() }),
            Err(error) => Err(CredentialError::Unreadable { reason: error.to_string() }),
        }
    }
}

/// Opens one user's view of an origin with a credential that is not kept yet. Runs on a thread that may block.
pub type Probe =
    dyn Fn(&OriginName, Arc<dyn CredentialSource>) -> Result<Arc<dyn Origin>, String> + Send + Sync;

/// Logins of this host's users.
pub struct Logins {
    /// Where secrets are kept.
    pub vault: Arc<Vault>,
    /// Reads with them.
    pub store: ObjectStore,
    /// Tries them.
    pub probe: Arc<Probe>,
}

/// A credential that somebody offers.
struct Offered {
    name: String,
    secret: Secret,
}

impl CredentialSource for Offered {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&self) -> Result<mega::Secret, CredentialError> {
        mega::Secret::new(self.secret.expose().as_bytes())
    }
}

#[async_trait]
impl Credentials for Logins {
    async fn store(
        &self,
        origin: &OriginName,
        uid: u32,
        secret: Secret,
    ) -> Result<bool, rpc::CredentialError> {
        let view = origin.of_user(uid);
        // Tried before it is kept: one that is refused, or a caller who goes away, leaves what was there.
        let tried = match self.attempt(&view, uid, secret.clone()).await {
            Ok(()) => true,
            Err(error @ FetchError::Denied { .. }) => return Err(rpc::CredentialError::Refused(error)),
            Err(error) => {
                tracing::info!(scorpio_origin = %origin, scorpio_uid = uid, %error, "a credential could not be tried");
                false
            }
        };
        let (vault, kept_for) = (Arc::clone(&self.vault), origin.clone());
        let kept = tokio::task::spawn_blocking(move || vault.store(&kept_for, uid, &secret)).await;
        kept.map_err(|broken| rpc::CredentialError::Broken(broken.to_string()))??;
        self.store.reopen(&view);
        Ok(tried)
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
    /// Asks for the head: nothing is cheaper, and everything else needs it.
    async fn attempt(&self, view: &OriginName, uid: u32, secret: Secret) -> Result<(), FetchError> {
        let unreachable = |reason| FetchError::Unreachable { origin: view.clone(), reason };
        let offered = Arc::new(Offered { name: format!("login of user {uid}"), secret });
        let (probe, asked) = (self.probe.clone(), view.clone());
        let opened = tokio::task::spawn_blocking(move || probe(&asked, offered)).await;
        let origin = opened.unwrap_or_else(|panicked| Err(panicked.to_string())).map_err(unreachable)?;
        match origin.resolve(None, &RepoPath::root()).await {
            Err(ResolveError::Fetch(error)) => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_never_logged_in_is_told_how_to() {
        let dir = tempfile::tempdir().unwrap();
        let (vault, mega) = (Arc::new(Vault::new(dir.path())), "mega".parse::<OriginName>().unwrap());
        let credential = UserCredential::of(&mega.of_user(1000), vault.clone()).unwrap();
        let told = credential.read().unwrap_err().to_string();
        assert_eq!(told, "there is none; log in with `scorpioctl login mega`");
        vault.store(&mega, 1000, &Secret::new("token").unwrap()).unwrap();
        assert!(credential.read().is_ok());
        assert!(UserCredential::of(&mega, vault).is_none(), "an origin of all has no login");
    }
}
