//! [`Export`]: the changes of a workspace as a reader.

use std::{
    future::Future as _,
    io,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http_body_util::Full;
use hyper::{
    Request, StatusCode,
    body::{Body, Incoming},
    header,
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    time::{Instant, Sleep},
};

use super::{
    ClientError, ExportFormat, RemoteError,
    http::{self, Connection},
};

/// The bytes of an export. Reading to the end without an error means that it is whole.
pub struct Export {
    body: Incoming,
    rest: Bytes,
    timeout: Duration,
    patience: Pin<Box<Sleep>>,
    _connection: Connection,
}

pub(super) async fn begin(
    socket: &Path,
    id: &str,
    format: ExportFormat,
    timeout: Duration,
) -> Result<Export, ClientError> {
    let format = match format {
        ExportFormat::Tar => "tar",
        ExportFormat::Patch => "patch",
    };
    let mut connection = Connection::open(socket).await?;
    let request = Request::get(format!("/export/{id}?format={format}"))
        .header(header::HOST, "localhost")
        .body(Full::new(Bytes::new()));
    let response = connection
        .send(request)
        .await?
        .ok_or_else(|| ClientError::Lost { reason: "the daemon closed a new connection".to_owned() })?;
    let status = response.status();
    if status != StatusCode::OK {
        let body = http::whole(response).await?;
        return Err(match serde_json::from_slice::<RemoteError>(&body) {
            Ok(error) => error.into_error(),
            Err(_) => http::refusal(status, &body),
        });
    }
    let patience = Box::pin(tokio::time::sleep(timeout));
    Ok(Export { body: response.into_body(), rest: Bytes::new(), timeout, patience, _connection: connection })
}

impl AsyncRead for Export {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.rest.is_empty() {
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => this.rest = frame.into_data().unwrap_or_default(),
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, error)));
                }
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    std::task::ready!(this.patience.as_mut().poll(cx));
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
        this.patience.as_mut().reset(Instant::now() + this.timeout);
        let bytes = this.rest.len().min(buffer.remaining());
        buffer.put_slice(&this.rest[..bytes]);
        this.rest.advance(bytes);
        Poll::Ready(Ok(()))
    }
}
