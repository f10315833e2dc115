//! Handlers of `credential.*`: what callers read origins with. A secret goes in and never comes out.

use std::sync::Arc;

use super::{
    backends::CredentialError,
    failure::Failure,
    module::{Call, Host},
    requests,
    workspaces::require_origin,
};
use crate::{
    api::{ForgetCredential, ForgottenCredential, StoreCredential, StoredCredential},
    auth::{Action, vault::Secret},
    config::ReadWith,
    types::OriginName,
};

pub(super) async fn store(
    host: Arc<Host>,
    call: Call,
    params: StoreCredential,
) -> Result<StoredCredential, Failure> {
    let origin = requests::origin(&params.origin)?;
    let secret = Secret::new(&params.secret)
        .map_err(|error| Failure::BadParameter(format!("`secret` is no token: {error}")))?;
    host.authorize(&call.caller, Action::Mount).await?;
    require_login(&host, &call, &origin).await?;
    let uid = call.caller.uid();
    let tried = host.services.credentials.store(&origin, uid, secret).await.map_err(failure)?;
    tracing::info!(scorpio_origin = %origin, tried, "a user logged in to an origin");
    Ok(StoredCredential { tried })
}

pub(super) async fn forget(
    host: Arc<Host>,
    call: Call,
    params: ForgetCredential,
) -> Result<ForgottenCredential, Failure> {
    let origin = requests::origin(&params.origin)?;
    // Whoever lost the right to mount it may still take the secret away.
    let uid = call.caller.uid();
    let asked = origin.clone();
    let forgotten =
        host.ask(move |services| services.credentials.forget(&asked, uid)).await?.map_err(failure)?;
    if forgotten {
        tracing::info!(scorpio_origin = %origin, "a user logged out of an origin");
    }
    Ok(ForgottenCredential { forgotten })
}

async fn require_login(host: &Host, call: &Call, origin: &OriginName) -> Result<(), Failure> {
    require_origin(host, call.identity(), origin).await?;
    match host.services.origins.now().get(origin).map(crate::config::OriginConfig::read_with) {
        Some(ReadWith::User) => Ok(()),
        Some(ReadWith::Service) | None => Err(Failure::NoLogin(origin.clone())),
    }
}

fn failure(error: CredentialError) -> Failure {
    match error {
        CredentialError::Refused(error) => Failure::Credential(error),
        CredentialError::Vault(error) => Failure::Internal(error.to_string()),
        broken @ CredentialError::Broken(_) => Failure::Internal(broken.to_string()),
    }
}
