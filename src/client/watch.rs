//! [`Watch`]: what workspaces do, event by event.

use std::{path::Path, time::Duration};

use jsonrpsee::{
    client_transport::ws::{Url, WsHandshakeError, WsTransportClientBuilder},
    core::{
        client::{Client, ClientBuilder, Error, Subscription, SubscriptionClientT},
        traits::ToRpcParams,
    },
};
use serde_json::value::RawValue;

use super::{ClientError, RemoteError, http};
use crate::api::{WatchWorkspaces, WorkspaceEvent, method};

/// Events kept for a reader that is busy; beyond it the subscription is given up and the reader told so.
const EVENTS_KEPT: usize = 1024;

/// A subscription. Ended by dropping it.
pub struct Watch {
    events: Subscription<WorkspaceEvent>,
    over: bool,
    /// Keeps the connection.
    _client: Client,
}

struct Named<'a>(&'a WatchWorkspaces);

impl ToRpcParams for Named<'_> {
    fn to_rpc_params(self) -> Result<Option<Box<RawValue>>, serde_json::Error> {
        serde_json::value::to_raw_value(self.0).map(Some)
    }
}

pub(super) async fn begin(
    socket: &Path,
    params: &WatchWorkspaces,
    timeout: Duration,
) -> Result<Watch, ClientError> {
    let stream = http::connect(socket).await?;
    let address =
        Url::parse("ws://localhost/").map_err(|error| ClientError::Protocol { reason: error.to_string() })?;
    let (sender, receiver) = WsTransportClientBuilder::default()
        .build_with_stream(address, stream)
        .await
        .map_err(handshake_failed)?;
    let client = ClientBuilder::default()
        .request_timeout(timeout)
        .max_buffer_capacity_per_subscription(EVENTS_KEPT)
        .build_with_tokio(sender, receiver);
    let events = client
        .subscribe(method::WORKSPACE_WATCH, Named(params), method::WORKSPACE_UNWATCH)
        .await
        .map_err(subscribe_failed)?;
    Ok(Watch { events, over: false, _client: client })
}

fn handshake_failed(error: WsHandshakeError) -> ClientError {
    match error {
        WsHandshakeError::Rejected { status_code: 503 } => ClientError::TooManyConnections,
        other => ClientError::lost(&other),
    }
}

fn subscribe_failed(error: Error) -> ClientError {
    match error {
        Error::Call(error) => {
            let data = error.data().and_then(|data| serde_json::from_str(data.get()).ok());
            RemoteError { code: error.code(), message: error.message().to_owned(), data }.into_error()
        }
        Error::ParseError(error) => ClientError::Protocol { reason: error.to_string() },
        other => ClientError::Lost { reason: other.to_string() },
    }
}

impl Watch {
    /// The next event; `None` after [`WorkspaceEvent::End`]. A connection that ends without one was lost.
    pub async fn next(&mut self) -> Option<Result<WorkspaceEvent, ClientError>> {
        if self.over {
            return None;
        }
        let event = match self.events.next().await {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(ClientError::Protocol { reason: format!("an event: {error}") }),
            None => Err(ClientError::Lost { reason: "events ended without an end".to_owned() }),
        };
        self.over = matches!(event, Ok(WorkspaceEvent::End { .. }) | Err(_));
        Some(event)
    }
}
