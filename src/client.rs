//! A client of the control socket: calls over HTTP, watching over a WebSocket, exports as a stream.
//!
//! - [`export`](Export): a workspace's changes as a reader
//! - [`watch`](Watch): what workspaces do
//!
//! Knows the contract ([`crate::api`]) and nothing of the daemon behind it. Every wait is bounded by the timeout that
//! the caller gives.

mod error;
mod export;
mod http;
mod watch;

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use error::ClientError;
pub use export::Export;
pub use watch::Watch;

use crate::api::{ErrorData, WatchWorkspaces};

/// How an export is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// A tar archive.
    Tar,
    /// A git patch.
    Patch,
}

/// A client. One connection is kept for calls; each [`Watch`] and [`Export`] has one of its own.
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
    kept: tokio::sync::Mutex<Option<http::Connection>>,
    next_id: AtomicU64,
}

#[derive(Serialize)]
struct Request<'a, P> {
    jsonrpc: &'static str,
    id: u64,
    method: &'a str,
    params: &'a P,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "R: Deserialize<'de>"))]
struct Response<R> {
    id: Option<u64>,
    // A result may be `null`; only a missing one is none.
    #[serde(default, deserialize_with = "present")]
    result: Option<R>,
    error: Option<RemoteError>,
}

fn present<'de, R: Deserialize<'de>, D: serde::Deserializer<'de>>(from: D) -> Result<Option<R>, D::Error> {
    R::deserialize(from).map(Some)
}

/// An error as it stands in an answer.
#[derive(Deserialize)]
struct RemoteError {
    code: i32,
    message: String,
    #[serde(default)]
    data: Option<serde_json::Value>,
}

impl RemoteError {
    fn into_error(self) -> ClientError {
        // JSON-RPC's own errors come without data, or with a sentence.
        let data = self.data.and_then(|data| serde_json::from_value::<ErrorData>(data).ok()).map(Box::new);
        ClientError::Refused { code: self.code, message: self.message, data }
    }
}

impl Client {
    /// A client of the daemon behind `socket`, connected at the first call. No call takes longer than `timeout`.
    pub fn new(socket: impl Into<PathBuf>, timeout: Duration) -> Client {
        Client {
            socket: socket.into(),
            timeout,
            kept: tokio::sync::Mutex::new(None),
            next_id: AtomicU64::new(1),
        }
    }

    /// The socket it talks to.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Calls `method` with `params`.
    ///
    /// Dropping the future closes the connection, which gives the call up on the daemon's side too.
    pub async fn call<P: Serialize + Sync, R: DeserializeOwned>(
        &self,
        method: &str,
        params: &P,
    ) -> Result<R, ClientError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let request = serde_json::to_vec(&Request { jsonrpc: "2.0", id, method, params })
            .map_err(|error| ClientError::Protocol { reason: format!("the request is no JSON: {error}") })?;
        let exchanged = tokio::time::timeout(self.timeout, self.exchange(request)).await;
        let body = exchanged.map_err(|_| self.timed_out(method))??;
        let answer: Response<R> = serde_json::from_slice(&body).map_err(|error| ClientError::Protocol {
            reason: format!("the answer to `{method}` is not what the contract says: {error}"),
        })?;
        match (answer.result, answer.error) {
            (_, Some(error)) => Err(error.into_error()),
            (Some(result), None) if answer.id == Some(id) => Ok(result),
            _ => Err(ClientError::Protocol { reason: format!("there is no answer to `{method}`") }),
        }
    }

    /// Follows workspaces: what there is, what changes, and the end.
    pub async fn watch(&self, params: &WatchWorkspaces) -> Result<Watch, ClientError> {
        let begun =
            tokio::time::timeout(self.timeout, watch::begin(&self.socket, params, self.timeout)).await;
        begun.map_err(|_| self.timed_out(crate::api::method::WORKSPACE_WATCH))?
    }

    /// Streams the changes of a workspace. The timeout is for the beginning; then for each piece.
    pub async fn export(&self, id: &str, format: ExportFormat) -> Result<Export, ClientError> {
        let begun =
            tokio::time::timeout(self.timeout, export::begin(&self.socket, id, format, self.timeout)).await;
        begun.map_err(|_| self.timed_out("export"))?
    }

    fn timed_out(&self, what: &str) -> ClientError {
        ClientError::TimedOut { what: what.to_owned(), after: self.timeout }
    }

    /// Sends on the kept connection, or on a new one when the daemon has closed that in the meantime.
    async fn exchange(&self, request: Vec<u8>) -> Result<bytes::Bytes, ClientError> {
        let request = bytes::Bytes::from(request);
        let mut kept = self.kept.lock().await;
        if let Some(mut connection) = kept.take()
            && let Some(answer) = connection.post(request.clone()).await?
        {
            *kept = Some(connection);
            return Ok(answer);
        }
        let mut connection = http::Connection::open(&self.socket).await?;
        let answer = connection.post(request).await?;
        *kept = Some(connection);
        answer.ok_or_else(|| ClientError::Lost { reason: "the daemon closed a new connection".to_owned() })
    }
}
