//! One HTTP connection over the socket.

use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
    header,
};
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, task::JoinHandle};

use super::ClientError;

/// Bytes of an answer that are taken: the daemon's own bound and room for an envelope.
const ANSWER_MAX: usize = 5 << 20;

/// An open connection; closed when dropped.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // With it goes the socket, and the daemon learns that nobody waits any more.
        self.driver.abort();
    }
}

pub(super) async fn connect(socket: &Path) -> Result<UnixStream, ClientError> {
    UnixStream::connect(socket).await.map_err(|error| ClientError::connecting(socket.to_owned(), error))
}

impl Connection {
    pub(super) async fn open(socket: &Path) -> Result<Connection, ClientError> {
        let stream = connect(socket).await?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| ClientError::lost(&error))?;
        // An error of the connection is seen by the request that it breaks.
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Connection { sender, driver })
    }

    /// Posts one JSON-RPC request; `None` when the connection had been closed before it was sent.
    pub(super) async fn post(&mut self, body: Bytes) -> Result<Option<Bytes>, ClientError> {
        let request = Request::post("/")
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body));
        let Some(response) = self.send(request).await? else {
            return Ok(None);
        };
        let status = response.status();
        let body = whole(response).await?;
        match status {
            StatusCode::OK => Ok(Some(body)),
            status => Err(refusal(status, &body)),
        }
    }

    pub(super) async fn send(
        &mut self,
        request: hyper::http::Result<Request<Full<Bytes>>>,
    ) -> Result<Option<Response<Incoming>>, ClientError> {
        let request = request.map_err(|error| ClientError::Protocol { reason: error.to_string() })?;
        if self.sender.ready().await.is_err() {
            return Ok(None);
        }
        match self.sender.try_send_request(request).await {
            Ok(response) => Ok(Some(response)),
            Err(mut error) => match error.take_message() {
                Some(_unsent) => Ok(None),
                None => Err(ClientError::lost(error.error())),
            },
        }
    }
}

pub(super) async fn whole(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
    body.map(http_body_util::Collected::to_bytes)
        .map_err(|error| ClientError::Lost { reason: error.to_string() })
}

/// An answer that is no JSON-RPC answer: a sentence as text.
pub(super) fn refusal(status: StatusCode, body: &[u8]) -> ClientError {
    if status == StatusCode::SERVICE_UNAVAILABLE {
        return ClientError::TooManyConnections;
    }
    let said: String = String::from_utf8_lossy(body).trim().chars().take(200).collect();
    ClientError::Protocol { reason: format!("HTTP status {status}: {said}") }
}
