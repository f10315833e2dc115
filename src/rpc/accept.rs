//! The accept loop: takes connections in, turns away those beyond the bounds, and stops them all.

use std::{io, sync::Arc, time::Duration};

use jsonrpsee::server::{BatchRequestConfig, Methods, PingConfig, ServerBuilder, ServerConfig, stop_channel};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::{
    RpcLimits, Services,
    connection::{self, Phase},
    hangup::Hangup,
    http::Router,
    module::{self, Host},
    slots::{Full, SlotLimits, Slots},
    stream::Upgraded,
};
use crate::{auth::Caller, sys::peer::Peer};

/// Connections that are told why they are turned away, at once. Those beyond are closed without waiting for them.
const TURNED_AWAY_AT_ONCE: usize = 64;
/// How long one that is turned away may take to read the reason.
const TURNED_AWAY_WITHIN: Duration = Duration::from_secs(1);
/// Messages on their way to one WebSocket. With events of some hundred bytes a reader may pause for a moment; what is
/// beyond waits in the workspaces' own bounded channel, and is lost there with notice.
const MESSAGES_QUEUED: u32 = 64;
/// Failed accepts are told at most so often.
const WARN_EVERY: Duration = Duration::from_secs(10);
/// How long subscriptions may take to say goodbye.
const GOODBYES_WITHIN: Duration = Duration::from_millis(500);
/// How long cut connections may take to be gone. They wait for nobody.
const CUT_WITHIN: Duration = Duration::from_secs(1);

const TURNED_AWAY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
    content-type: text/plain; charset=utf-8\r\ncontent-length: 45\r\n\r\n\
    too many connections; close some or try again";

/// Serves the control socket until `stop`, then lets calls in work end within [`RpcLimits::stop_grace`].
///
/// When it returns, nothing of any connection is left. Must run on a multi-thread runtime.
pub async fn serve(
    listener: UnixListener,
    services: Services,
    limits: RpcLimits,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), jsonrpsee::core::RegisterMethodError> {
    let (stopping, stopping_seen) = watch::channel(false);
    let (phase, phase_seen) = watch::channel(Phase::Serving);
    let (stop_handle, server_handle) = stop_channel();
    let host = Arc::new(Host::new(services, limits, stopping_seen));
    let methods = Methods::from(module::build(Arc::clone(&host))?);
    let rpc = ServerBuilder::default().set_config(rpc_config(&limits)).to_service_builder();
    let mut door = Door {
        listener,
        limits,
        slots: Slots::new(SlotLimits {
            per_user: limits.connections_per_user,
            total: limits.connections,
            for_root: limits.connections_for_root,
        }),
        turned_away: Arc::new(Semaphore::new(TURNED_AWAY_AT_ONCE)),
        connections: JoinSet::new(),
        waiting: None,
        warned: None,
    };
    let open = |host: &Arc<Host>, caller| Router {
        host: Arc::clone(host),
        caller,
        rpc: rpc.clone().build(methods.clone(), stop_handle.clone()),
        upgraded: Upgraded::default(),
    };
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            next = next(&door.listener, &mut door.waiting, limits.accept_pause) => match next {
                Ok(socket) => door.take_in(socket, &phase_seen, |caller| open(&host, caller)),
                Err(error) => door.pause(&error).await,
            },
            Some(_) = door.connections.join_next(), if !door.connections.is_empty() => {}
        }
    }
    let deadline = Instant::now() + limits.stop_grace;
    let Door { listener, mut connections, .. } = door;
    drop(listener);
    let _ = phase.send(Phase::Ending);
    let _ = stopping.send(true);
    let goodbyes = host.watchers.acquire_many(host.watchers_max);
    let _ = timeout(GOODBYES_WITHIN.min(limits.stop_grace), goodbyes).await;
    // Only now: it closes WebSockets, and what subscriptions have still to say would not be sent.
    let _ = server_handle.stop();
    if timeout_at(deadline, join_all(&mut connections)).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "connections are cut: their calls did not end in time"
        );
        let _ = phase.send(Phase::Cut);
        if timeout(CUT_WITHIN, join_all(&mut connections)).await.is_err() {
            connections.shutdown().await;
        }
    }
    Ok(())
}

/// The connection that waits, after a pause, or a new one. Cancelled, it loses none.
async fn next(
    listener: &UnixListener,
    waiting: &mut Option<UnixStream>,
    pause: Duration,
) -> io::Result<UnixStream> {
    if waiting.is_some() {
        tokio::time::sleep(pause).await;
    }
    match waiting.take() {
        Some(socket) => Ok(socket),
        None => Ok(listener.accept().await?.0),
    }
}

async fn join_all(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}

fn rpc_config(limits: &RpcLimits) -> ServerConfig {
    let bytes = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let ping = PingConfig::new()
        .ping_interval(limits.ping_interval)
        .inactive_limit(limits.ping_interval * 2)
        .max_failures(1);
    ServerConfig::builder()
        // Counts requests, not connections: ours are counted at the door.
        .max_connections(u32::MAX)
        .max_request_body_size(bytes(limits.request_bytes))
        .max_response_body_size(bytes(limits.response_bytes))
        .max_subscriptions_per_connection(limits.subscriptions_per_connection)
        .set_batch_request_config(BatchRequestConfig::Limit(limits.batch))
        .set_message_buffer_capacity(MESSAGES_QUEUED)
        .enable_ws_ping(ping)
        .build()
}

/// Where connections come in.
struct Door {
    listener: UnixListener,
    limits: RpcLimits,
    slots: Slots,
    turned_away: Arc<Semaphore>,
    connections: JoinSet<()>,
    /// One that was accepted and could not be taken in yet: there were descriptors for it, but not for all it takes.
    waiting: Option<UnixStream>,
    warned: Option<Instant>,
}

impl Door {
    fn take_in(
        &mut self,
        socket: UnixStream,
        phase: &watch::Receiver<Phase>,
        open: impl FnOnce(Caller) -> Router,
    ) {
        let known = Peer::of(&socket).and_then(|peer| Ok((peer, Hangup::of(&socket)?)));
        let (peer, hangup) = match known {
            Ok(known) => known,
            Err(error) if is_shortage(&error) => {
                self.complain(&error);
                self.waiting = Some(socket);
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "a caller was gone before it could be asked who it is");
                return;
            }
        };
        let uid = peer.identity.uid;
        match self.slots.take(uid) {
            Ok(slot) => {
                let router = open(Caller::new(peer));
                let (limits, phase) = (self.limits, phase.clone());
                self.connections.spawn(async move {
                    connection::serve(socket, hangup, slot, router, &limits, phase).await;
                });
            }
            Err(full) => self.turn_away(socket, uid, full),
        }
    }

    fn turn_away(&mut self, socket: UnixStream, uid: u32, full: Full) {
        let whose = match full {
            Full::User => "this user's",
            Full::Host => "all users'",
        };
        if self.may_warn() {
            tracing::warn!(scorpio_uid = uid, whose, "a connection is turned away: there are too many");
        }
        match Arc::clone(&self.turned_away).try_acquire_owned() {
            Ok(permit) => {
                self.connections.spawn(async move {
                    let _permit = permit;
                    // Whoever does not want to hear it need not.
                    let _ = timeout(TURNED_AWAY_WITHIN, say_and_close(socket)).await;
                });
            }
            Err(_) => {
                let _ = socket.try_write(TURNED_AWAY);
            }
        }
    }

    /// Out of descriptors or memory the listener stays ready: without a pause this would spin and help nobody.
    async fn pause(&mut self, error: &io::Error) {
        self.complain(error);
        tokio::time::sleep(self.limits.accept_pause).await;
    }

    fn complain(&mut self, error: &io::Error) {
        if self.may_warn() {
            tracing::warn!(%error, errno = error.raw_os_error(), "connections cannot be accepted");
        }
    }

    fn may_warn(&mut self) -> bool {
        let now = Instant::now();
        let may = self.warned.is_none_or(|warned| now.duration_since(warned) >= WARN_EVERY);
        if may {
            self.warned = Some(now);
        }
        may
    }
}

/// Whether it is not the caller's fault, and passes.
fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS | libc::ENOSPC)
    )
}

/// Says why, and waits until the caller has read it: closing with its request unread would take the answer away.
async fn say_and_close(mut socket: UnixStream) -> io::Result<()> {
    socket.write_all(TURNED_AWAY).await?;
    socket.shutdown().await?;
    let mut dropped = [0; 4096];
    while socket.read(&mut dropped).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_length_of_the_refusal_is_the_one_it_names() {
        let text = std::str::from_utf8(super::TURNED_AWAY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
    }
}
