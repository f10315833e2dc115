//! Talking to the service manager: ready, status, watchdog. Without one, all of it does nothing.

use std::path::PathBuf;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// Says that the socket is served and every workspace is as far up as it will come.
pub fn ready(status: &str) {
    tell(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(status)]);
}

/// Says that the daemon is on its way out.
pub fn stopping() {
    tell(&[sd_notify::NotifyState::Stopping]);
}

fn tell(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot talk to the service manager");
    }
}

/// Feeds the watchdog for as long as the control socket answers; never returns.
///
/// The probe is an ordinary call on the socket, so what is shown alive is what users need: the accept loop, the runtime
/// and the dispatcher. When it hangs, the manager aborts and restarts the daemon.
pub async fn feed_watchdog(socket: PathBuf) {
    let Some(interval) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = tokio::time::interval(interval / 3);
    loop {
        ticks.tick().await;
        match tokio::time::timeout(interval / 3, probe(&socket)).await {
            Ok(Ok(())) => tell(&[sd_notify::NotifyState::Watchdog]),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the control socket does not answer; the watchdog goes hungry");
            }
            Err(_) => {
                tracing::warn!("the control socket is slow to answer; the watchdog goes hungry");
            }
        }
    }
}

async fn probe(socket: &std::path::Path) -> std::io::Result<()> {
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
