//! What an HTTP request is for, and how much of a body is taken.
//!
//! `POST /` is JSON-RPC, `GET /` with an upgrade is JSON-RPC over a WebSocket, `GET /export/<id>` streams a workspace's
//! changes; nothing else is here. The body is taken in whole before JSON-RPC sees it: over size is 413, over time 408,
//! with a sentence as text and the connection closed.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Incoming},
    header,
};
use jsonrpsee::{
    core::BoxError,
    server::{HttpBody, TowerService},
};
use tower::{Service, layer::util::Identity};

use super::{RpcLimits, export, module::Host, stream::Upgraded};
use crate::auth::Caller;

/// How many times the allowed body is read and dropped, so that a client that only listens when it has sent all gets
/// to hear why it is refused.
const DRAINED_TIMES: usize = 16;

/// jsonrpsee's side of a connection.
pub(super) type Rpc = TowerService<Identity, Identity>;

/// Routes the requests of one connection.
pub(super) struct Router {
    pub(super) host: Arc<Host>,
    pub(super) caller: Caller,
    pub(super) rpc: Rpc,
    pub(super) upgraded: Upgraded,
}

impl Router {
    pub(super) async fn route(&self, request: Request<Incoming>) -> Result<Response<HttpBody>, BoxError> {
        let path = request.uri().path();
        match (request.method(), path) {
            (&Method::POST, "/") => self.call(request).await,
            (&Method::GET, "/") if wants_websocket(&request) => {
                self.upgraded.set();
                self.pass(request.map(HttpBody::new)).await
            }
            (_, "/") => Ok(not_allowed("POST")),
            (&Method::GET, _) if path.starts_with(export::PATH) => {
                Ok(export::respond(&self.host, &self.caller, request.uri()).await)
            }
            (_, _) if path.starts_with(export::PATH) => Ok(not_allowed("GET")),
            _ => Ok(text(StatusCode::NOT_FOUND, "there is nothing here; JSON-RPC is at /\n")),
        }
    }

    async fn call(&self, request: Request<Incoming>) -> Result<Response<HttpBody>, BoxError> {
        let (parts, body) = request.into_parts();
        match collect(body, &self.host.limits).await {
            Ok(bytes) => self.pass(Request::from_parts(parts, HttpBody::new(Full::new(bytes)))).await,
            Err(fault) => {
                tracing::debug!(scorpio_uid = self.caller.uid(), ?fault, "a request's body was refused");
                Ok(closing(refuse_body(&fault, &self.host.limits)))
            }
        }
    }

    async fn pass(&self, mut request: Request<HttpBody>) -> Result<Response<HttpBody>, BoxError> {
        request.extensions_mut().insert(self.caller.clone());
        self.rpc.clone().call(request).await
    }
}

fn wants_websocket(request: &Request<Incoming>) -> bool {
    let has = |name, wanted: &str| {
        let values = request.headers().get_all(name);
        values
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(wanted)))
    };
    has(header::UPGRADE, "websocket") && has(header::CONNECTION, "upgrade")
}

/// Why a body was not taken.
#[derive(Debug, PartialEq, Eq)]
enum BodyFault {
    TooLarge,
    TooSlow,
    Broken,
}

async fn collect(body: Incoming, limits: &RpcLimits) -> Result<Bytes, BodyFault> {
    let limit = limits.request_bytes;
    if body.size_hint().lower() > (limit * DRAINED_TIMES) as u64 {
        return Err(BodyFault::TooLarge);
    }
    let taken = tokio::time::timeout(limits.body_timeout, take(body, limit)).await;
    taken.unwrap_or(Err(BodyFault::TooSlow))
}

async fn take(mut body: Incoming, limit: usize) -> Result<Bytes, BodyFault> {
    let mut taken = BytesMut::new();
    let mut seen = 0;
    while let Some(frame) = body.frame().await {
        let data = frame.map_err(|_| BodyFault::Broken)?.into_data().unwrap_or_default();
        seen += data.len();
        if seen > limit * DRAINED_TIMES {
            break;
        }
        if seen <= limit {
            taken.extend_from_slice(&data);
        }
    }
    if seen > limit { Err(BodyFault::TooLarge) } else { Ok(taken.freeze()) }
}

fn refuse_body(fault: &BodyFault, limits: &RpcLimits) -> Response<HttpBody> {
    let seconds = |time: Duration| humantime::format_duration(time).to_string();
    match fault {
        BodyFault::TooLarge => text(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("a request may have {} bytes\n", limits.request_bytes),
        ),
        BodyFault::TooSlow => text(
            StatusCode::REQUEST_TIMEOUT,
            format!("the request's body did not arrive within {}\n", seconds(limits.body_timeout)),
        ),
        BodyFault::Broken => text(StatusCode::BAD_REQUEST, "the request's body broke off\n"),
    }
}

/// A sentence as an answer.
pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<HttpBody> {
    let mut response = Response::new(HttpBody::new(Full::new(body.into())));
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

fn not_allowed(allowed: &'static str) -> Response<HttpBody> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("use {allowed}\n"));
    response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(allowed));
    response
}

fn closing(mut response: Response<HttpBody>) -> Response<HttpBody> {
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    response
}
