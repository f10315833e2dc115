//! The HTTP client: TLS, proxy, redirects, connections. Reads no environment.

use std::{path::Path, sync::Arc, time::Duration};

use reqwest::{Client, ClientBuilder, Proxy, redirect};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::pem::PemObject as _};

use super::{MegaOptions, OpenError, address::plain_url};

/// A host that is there answers within milliseconds, one behind a bad link within a second or two.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an unused connection is kept: below the minute after which many servers and proxies close theirs.
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);

/// Hops within one server; its API has none.
const REDIRECTS_MAX: usize = 3;

/// A client as `options` want it.
pub(super) fn build(options: &MegaOptions) -> Result<Client, OpenError> {
    let builder = Client::builder()
        .user_agent(concat!("scorpio/", env!("CARGO_PKG_VERSION")))
        .tls_backend_preconfigured(tls(options.ca_file.as_deref())?)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(options.patience)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(options.requests)
        .redirect(redirect::Policy::custom(same_origin))
        .referer(false)
        .retry(reqwest::retry::never())
        .http1_only()
        .tcp_nodelay(true);
    let refused = |error: reqwest::Error| OpenError::Client { reason: super::transport::chain(&error) };
    proxied(builder, options.proxy.as_deref())?.build().map_err(refused)
}

/// The one proxy that is configured, or none.
fn proxied(builder: ClientBuilder, proxy: Option<&str>) -> Result<ClientBuilder, OpenError> {
    let Some(proxy) = proxy else { return Ok(builder.no_proxy()) };
    let url = plain_url(proxy)?;
    let refused = |error: reqwest::Error| OpenError::Url {
        url: proxy.to_owned(),
        reason: super::transport::chain(&error),
    };
    Ok(builder.proxy(Proxy::all(url).map_err(refused)?))
}

/// Only to where the credential may go: same scheme, host and port. Else the redirect itself is the answer.
fn same_origin(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let is_same = attempt.previous().first().is_some_and(|first| first.origin() == attempt.url().origin());
    if is_same && attempt.previous().len() <= REDIRECTS_MAX { attempt.follow() } else { attempt.stop() }
}

fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, OpenError> {
    let roots = match ca_file {
        Some(path) => from_file(path)?,
        None => from_system(),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| OpenError::Client { reason: error.to_string() })?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn from_file(path: &Path) -> Result<RootCertStore, OpenError> {
    let refused = |reason: String| OpenError::Certificates { from: path.display().to_string(), reason };
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| refused(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let certificate = certificate.map_err(|error| refused(error.to_string()))?;
        roots.add(certificate).map_err(|error| refused(error.to_string()))?;
    }
    if roots.is_empty() { Err(refused("it holds no certificate".to_owned())) } else { Ok(roots) }
}

/// None at all is no error: a server without TLS needs none, and one with it will be refused with the reason.
fn from_system() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "a certificate of the system cannot be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    roots
}
