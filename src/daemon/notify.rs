//! Talking to the service manager: ready, status, watchdog. Without one, all of it does nothing.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::heartbeat::Heartbeat;
use crate::engine::{OverlayEngine, SessionReport};

/// Says that the socket is served and every workspace is as far up as it will come.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Says that the configuration is being read again; [`ready`] says when that is done.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => {
            tracing::warn!(%error, "the clock cannot be read; the service manager is not told of a reload");
        }
    }
}

/// Says that the daemon is on its way out.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot talk to the service manager");
    }
}

/// How long the service manager waits to be told that the daemon is well; nothing where it does not wait.
pub fn watchdog_patience() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// Feeds the watchdog for as long as users are served; never returns.
///
/// What is shown alive is what they need. The socket is asked an ordinary question, which takes the accept loop, the
/// runtime and the dispatcher. The FUSE workers are looked at from the side, for to ask them would be to touch a mount: one
/// that is at the same message for half the watchdog's time, or dead, keeps somebody waiting who cannot be killed. When
/// either hangs, the manager aborts the daemon, and its successor is asked again what was not answered.
pub async fn feed_watchdog(socket: PathBuf, engine: Arc<dyn OverlayEngine>, heartbeat: Heartbeat) {
    let Some(interval) = watchdog_patience() else { return };
    let mut ticks = tokio::time::interval(interval / 3);
    loop {
        ticks.tick().await;
        match is_well(&socket, &engine, interval).await {
            Ok(()) => {
                tell(&[NotifyState::Watchdog]);
                if let Err(error) = heartbeat.beat() {
                    tracing::warn!(%error, "a successor cannot be told that this daemon is well");
                }
            }
            Err(reason) => tracing::warn!(reason, "users are not served; the watchdog goes hungry"),
        }
    }
}

async fn is_well(socket: &Path, engine: &Arc<dyn OverlayEngine>, interval: Duration) -> Result<(), String> {
    let engine = Arc::clone(engine);
    // Waits while a session is being made.
    let sessions = tokio::task::spawn_blocking(move || engine.sessions());
    match tokio::time::timeout(interval / 3, sessions).await {
        Ok(Ok(sessions)) => workers_get_on(&sessions, interval / 2)?,
        Ok(Err(error)) => return Err(format!("the FUSE sessions cannot be looked at: {error}")),
        Err(_) => return Err("the FUSE sessions cannot be looked at: somebody holds them".to_owned()),
    }
    match tokio::time::timeout(interval / 3, probe(socket)).await {
        Ok(answered) => answered.map_err(|error| format!("the control socket does not answer: {error}")),
        Err(_) => Err("the control socket is slow to answer".to_owned()),
    }
}

fn workers_get_on(sessions: &[SessionReport], longest: Duration) -> Result<(), String> {
    match sessions.iter().find(|session| session.busy > longest) {
        None => Ok(()),
        Some(SessionReport { name, busy: Duration::MAX, .. }) => {
            Err(format!("a FUSE worker of session {name} has died"))
        }
        Some(SessionReport { name, busy, .. }) => {
            Err(format!("a FUSE worker of session {name} is at one message for {} s", busy.as_secs()))
        }
    }
}

async fn probe(socket: &Path) -> std::io::Result<()> {
    const CALL: &str = r#"{"jsonrpc":"2.0","id":0,"method":"whoami","params":{}}"#;
    let mut stream = UnixStream::connect(socket).await?;
    let request = format!(
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{CALL}",
        CALL.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer).await?;
    if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(std::io::Error::other("unexpected answer")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fusedev::SessionStats;

    fn session(name: &str, busy: Duration) -> SessionReport {
        SessionReport {
            name: name.to_owned(),
            connection: 1,
            stats: SessionStats::default(),
            queued: 0,
            busy,
        }
    }

    #[test]
    fn one_worker_that_hangs_or_is_dead_is_enough() {
        let seconds = Duration::from_secs;
        let judge = |sessions: &[SessionReport]| workers_get_on(sessions, seconds(30));
        assert_eq!(judge(&[]), Ok(()));
        assert_eq!(judge(&[session("shared", seconds(0)), session("owner-0", seconds(30))]), Ok(()));
        let hangs = judge(&[session("shared", seconds(0)), session("owner-0", seconds(31))]);
        assert_eq!(hangs.unwrap_err(), "a FUSE worker of session owner-0 is at one message for 31 s");
        let dead = judge(&[session("shared", Duration::MAX)]);
        assert_eq!(dead.unwrap_err(), "a FUSE worker of session shared has died");
    }
}
