//! [`Hangup`]: learns that a caller has closed its end, whatever else is being waited for.
//!
//! A caller that only says it will send no more (`shutdown(SHUT_WR)`, what `nc -N` does) still wants its answer; one
//! that is gone does not. End-of-file looks the same for both, POLLHUP comes for the second alone.

use std::{
    io,
    os::{fd::AsFd, unix::net::UnixStream as StdUnixStream},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::{io::Interest, net::UnixStream};

/// Watches one connection, by a descriptor of its own that nobody reads from.
pub(crate) struct Hangup(UnixStream);

impl Hangup {
    /// Watches `socket`.
    pub(crate) fn of(socket: &UnixStream) -> io::Result<Hangup> {
        let own = StdUnixStream::from(socket.as_fd().try_clone_to_owned()?);
        Ok(Hangup(UnixStream::from_std(own)?))
    }

    /// Returns when the peer's end is closed.
    pub(crate) async fn wait(&self) {
        // An error means that the runtime is shutting down: as good as gone.
        while self.0.readable().await.is_ok() {
            if hung_up(&self.0) {
                return;
            }
            // Sleep until the next event rather than until there is nothing to read: that is not ours to do.
            let _ = self
                .0
                .try_io(Interest::READABLE, || -> io::Result<()> { Err(io::ErrorKind::WouldBlock.into()) });
        }
    }

    /// Ends the connection in both directions: every read and write on it returns.
    pub(crate) fn cut(&self) {
        if let Err(error) = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both) {
            tracing::debug!(%error, "a connection was gone before it was cut");
        }
    }
}

fn hung_up(socket: &UnixStream) -> bool {
    let mut polled = [PollFd::new(socket, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let ready = poll(&mut polled, Some(&now));
    ready.is_ok() && polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_half_closed_connection_is_not_gone_and_a_closed_one_is() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let hangup = Hangup::of(&ours).unwrap();
        theirs.write_all(b"unread").await.unwrap();
        theirs.shutdown().await.unwrap();
        let mut wait = std::pin::pin!(hangup.wait());
        for _ in 0..10 {
            assert!(futures_util::poll!(&mut wait).is_pending());
            tokio::task::yield_now().await;
        }
        drop(theirs);
        wait.await;
    }
}
