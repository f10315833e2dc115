//! [`MegaOptions`]: which server, and how it is asked.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::CredentialSource;
use crate::types::RepoPath;

/// A server and how it is asked. [`MegaOptions::new`] fills in what nobody sets.
#[derive(Clone)]
pub struct MegaOptions {
    /// `https://HOST[:PORT][/PREFIX]`; what the API's own paths are appended to.
    pub url: String,
    /// Sent with every request.
    pub credential: Option<Arc<dyn CredentialSource>>,
    /// Certificates (PEM) that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// `http://HOST:PORT` of a proxy; none is used otherwise, whatever the environment says.
    pub proxy: Option<String>,
    /// The directory below which the server shows repositories of their own.
    pub imports: RepoPath,
    /// Blobs up to this size are handed out with their size, since they had to be sent to learn it.
    pub small_blob_bytes: u32,
    /// Requests under way at once.
    pub requests: usize,
    /// How long one question may take, waits and repetitions included.
    pub patience: Duration,
}

impl MegaOptions {
    /// The directory below which a server shows repositories unless it is configured otherwise.
    pub const IMPORTS: &'static str = "/third-party";

    /// The server at `url`, asked without a credential.
    pub fn new(url: &str) -> MegaOptions {
        MegaOptions {
            url: url.to_owned(),
            credential: None,
            ca_file: None,
            proxy: None,
            imports: MegaOptions::IMPORTS.parse().expect("the constant is a path"),
            small_blob_bytes: 64 << 10,
            requests: 16,
            patience: Duration::from_secs(60),
        }
    }
}

/// Why there is no such origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No address of a server.
    #[error("`{url}` is no http or https URL: {reason}")]
    Url {
        /// What was configured.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The credential would cross the network in the clear.
    #[error("`{url}` is not https: credential `{credential}` is not sent there")]
    InTheClear {
        /// What was configured.
        url: String,
        /// The credential's name.
        credential: String,
    },
    /// Nothing to check the server's certificate against.
    #[error("certificates cannot be read from {from}: {reason}")]
    Certificates {
        /// The file, or what stands for the system's.
        from: String,
        /// What is wrong.
        reason: String,
    },
    /// The client could not be made.
    #[error("no HTTP client: {reason}")]
    Client {
        /// What it said.
        reason: String,
    },
}
