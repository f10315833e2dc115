//! `GET /export/<workspace id>?format=tar|patch`: a workspace's changes as a stream.
//!
//! What goes wrong before the first byte is an HTTP status with an error of the contract as JSON. What goes wrong
//! later breaks the connection off without the last chunk, so that a reader cannot take a part for the whole.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response, StatusCode, Uri,
    body::{Body, Frame},
    header,
};
use jsonrpsee::server::HttpBody;
use tokio::sync::mpsc;
use tracing::Instrument;

use super::{
    backends::{ExportFormat, ExportPart},
    failure::Failure,
    http,
    module::{Call, Host},
    requests,
};
use crate::{api::ErrorKind, auth::Caller};

/// Where exports are.
pub const PATH: &str = "/export/";

/// Name of the call in the journal.
const NAME: &str = "export";

pub(super) async fn respond(host: &Arc<Host>, caller: &Caller, uri: &Uri) -> Response<HttpBody> {
    let mut extensions = jsonrpsee::Extensions::new();
    extensions.insert(caller.clone());
    let call = match Call::begin(NAME, &extensions) {
        Ok(call) => call,
        Err(error) => return http::text(StatusCode::INTERNAL_SERVER_ERROR, error.message().to_owned()),
    };
    let call = match host.admit(call.clone()) {
        Ok(admitted) => admitted,
        Err(failure) => return refuse(&call, failure),
    };
    let span = call.span();
    async move {
        match start(host, &call, uri).await {
            Ok((parts, format)) => stream(parts, format, call),
            Err(failure) => refuse(&call, failure),
        }
    }
    .instrument(span)
    .await
}

async fn start(
    host: &Host,
    call: &Call,
    uri: &Uri,
) -> Result<(mpsc::Receiver<ExportPart>, ExportFormat), Failure> {
    let id = requests::workspace_id(uri.path().strip_prefix(PATH).unwrap_or_default())?;
    let format = format(uri.query())?;
    let scope = host.scope_of(&call.caller, &id).await?;
    let Some(exporter) = &host.services.exporter else {
        return Err(Failure::Internal("this daemon cannot export".to_owned()));
    };
    tracing::info!(scorpio_workspace = %id, ?format, "export");
    Ok((exporter.export(&scope, &id, format)?, format))
}

fn format(query: Option<&str>) -> Result<ExportFormat, Failure> {
    match query {
        None | Some("" | "format=tar") => Ok(ExportFormat::Tar),
        Some("format=patch") => Ok(ExportFormat::Patch),
        Some(_) => Err(Failure::BadParameter("the query is `format=tar` or `format=patch`".to_owned())),
    }
}

fn stream(parts: mpsc::Receiver<ExportPart>, format: ExportFormat, call: Call) -> Response<HttpBody> {
    let media = match format {
        ExportFormat::Tar => "application/x-tar",
        ExportFormat::Patch => "text/x-diff",
    };
    let span = tracing::Span::current();
    let mut response = Response::new(HttpBody::new(Parts { parts, over: false, call, span }));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(media));
    response
}

/// When to try again what was refused for a reason that passes, in seconds: as for connections. Calls last from
/// milliseconds to minutes, and one that comes too early is refused cheaply.
const RETRY_AFTER: &str = "1";

/// The error of the contract as an answer of its own.
fn refuse(call: &Call, failure: Failure) -> Response<HttpBody> {
    let explained = failure.explain();
    let status = status(explained.kind);
    let Err(error) = call.finish::<()>(Err(failure)) else {
        return http::text(StatusCode::INTERNAL_SERVER_ERROR, "");
    };
    let body = serde_json::to_vec(&error).unwrap_or_default();
    let mut response = Response::new(HttpBody::new(Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    if explained.retryable
        && matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
    {
        response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static(RETRY_AFTER));
    }
    response
}

fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::BadParameter | ErrorKind::BadMountPoint => StatusCode::BAD_REQUEST,
        ErrorKind::NoSuchOrigin
        | ErrorKind::NoSuchRevision
        | ErrorKind::NoSuchPath
        | ErrorKind::NoSuchWorkspace => StatusCode::NOT_FOUND,
        ErrorKind::NotAuthorised | ErrorKind::ForeignNamespace => StatusCode::FORBIDDEN,
        ErrorKind::LimitReached => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Busy | ErrorKind::UnsavedChanges | ErrorKind::WrongState => StatusCode::CONFLICT,
        ErrorKind::OriginUnavailable | ErrorKind::OriginDenied => StatusCode::BAD_GATEWAY,
        ErrorKind::Stopping | ErrorKind::Draining => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The parts of an export as a body. Holds the call, and so its place among the user's calls, until it is over.
struct Parts {
    parts: mpsc::Receiver<ExportPart>,
    over: bool,
    call: Call,
    span: tracing::Span,
}

/// The exporter stopped in the middle.
#[derive(Debug, thiserror::Error)]
#[error("the export broke off")]
struct BrokeOff;

impl Body for Parts {
    type Data = Bytes;
    type Error = BrokeOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokeOff>>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(None);
        }
        let part = std::task::ready!(this.parts.poll_recv(cx));
        Poll::Ready(match part {
            Some(ExportPart::Data(bytes)) => Some(Ok(Frame::data(bytes))),
            Some(ExportPart::Done) => {
                this.over = true;
                None
            }
            None => {
                this.over = true;
                let (uid, request) = (this.call.caller.uid(), &*this.call.request_id);
                this.span.in_scope(|| {
                    tracing::warn!(scorpio_uid = uid, scorpio_request_id = request, "an export broke off");
                });
                Some(Err(BrokeOff))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_one_of_two() {
        for (query, expected) in [
            (None, Some(ExportFormat::Tar)),
            (Some(""), Some(ExportFormat::Tar)),
            (Some("format=tar"), Some(ExportFormat::Tar)),
            (Some("format=patch"), Some(ExportFormat::Patch)),
            (Some("format=zip"), None),
            (Some("format=tar&x=y"), None),
            (Some("Format=tar"), None),
        ] {
            assert_eq!(format(query).ok(), expected, "{query:?}");
        }
    }
}
