//! One connection, from accept to its last byte.
//!
//! ```text
//!   HTTP/1.1 ──upgrade──► WebSocket ──► (socket dropped)
//!      │ caller gone: calls in work are dropped
//!      │ stopping: the request in work is answered, then closed
//!      │ grace is over: cut
//! ```
//!
//! After an upgrade the socket belongs to jsonrpsee's tasks; this one stays until they have let go of it, so that who
//! has waited for all connections knows that nothing of them is left.

use std::{convert::Infallible, sync::Arc};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::UnixStream,
    sync::{oneshot, watch},
};

use super::{RpcLimits, hangup::Hangup, http::Router, slots::Slot, stream::GuardedStream};

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Not stopping.
    Serving,
    /// Requests in work are answered, no further ones are taken.
    Ending,
    /// Nothing is waited for any more.
    Cut,
}

/// Serves `socket` until it is closed by either side, or cut. `hangup` watches it; `slot` is given back when the last byte is
/// done with.
pub(super) async fn serve(
    socket: UnixStream,
    hangup: Hangup,
    slot: Slot,
    router: Router,
    limits: &RpcLimits,
    mut phase: watch::Receiver<Phase>,
) {
    let (held, mut released) = oneshot::channel::<Infallible>();
    let stream = GuardedStream::new(socket, limits.write_timeout, router.upgraded.clone(), (slot, held));
    let router = Arc::new(router);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let router = Arc::clone(&router);
        // The error is made a plain one here: a boxed one would have to be `From` for any lifetime.
        async move { router.route(request).await.map_err(|error| std::io::Error::other(error.to_string())) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(limits.head_bytes)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = Box::pin(connection);
    let mut seen = Phase::Serving;
    loop {
        tokio::select! {
            served = &mut connection => {
                if let Err(error) = served {
                    tracing::debug!(%error, "a connection ended");
                }
                break;
            }
            () = hangup.wait() => break,
            next = next_phase(&mut phase, seen) => {
                seen = next;
                if seen == Phase::Cut {
                    break;
                }
                connection.as_mut().graceful_shutdown();
            }
        }
    }
    drop(connection);
    tokio::select! {
        _ = &mut released => return,
        () = cut(&mut phase) => hangup.cut(),
    }
    let _ = released.await;
}

async fn next_phase(phase: &mut watch::Receiver<Phase>, seen: Phase) -> Phase {
    // Without a sender the server is gone, and nothing is waited for.
    phase.wait_for(|phase| *phase > seen).await.map_or(Phase::Cut, |phase| *phase)
}

async fn cut(phase: &mut watch::Receiver<Phase>) {
    let _ = phase.wait_for(|phase| *phase == Phase::Cut).await;
}
