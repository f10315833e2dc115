//! [`GuardedStream`]: a connection that cannot be held up for ever by a caller who does not read.
//!
//! hyper and the WebSocket layer bound neither how long a write may wait nor how much they read meanwhile. Here a
//! write that has waited for the time allowed fails, and while one waits nothing more is read: a caller who sends
//! requests without reading answers fills its own socket buffer and not our memory.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
    time::Sleep,
};

use super::meter::Meter;

/// A socket, and what lives exactly as long as it does.
pub(crate) struct GuardedStream<K> {
    socket: UnixStream,
    write_timeout: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    given_up: bool,
    reader: Option<Waker>,
    upgraded: Upgraded,
    meter: Option<Meter>,
    _kept: K,
}

/// Tells a stream that it now carries a WebSocket, whose messages are metered. Clones tell the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Upgraded(Arc<AtomicBool>);

impl Upgraded {
    /// From the next read on.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<K> GuardedStream<K> {
    /// Guards `socket`; `kept` is dropped with it.
    pub(crate) fn new(
        socket: UnixStream,
        write_timeout: Duration,
        upgraded: Upgraded,
        kept: K,
    ) -> GuardedStream<K> {
        GuardedStream {
            socket,
            write_timeout,
            stalled: None,
            given_up: false,
            reader: None,
            upgraded,
            meter: None,
            _kept: kept,
        }
    }

    fn poll_meter(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.meter.is_none() && self.upgraded.0.load(Ordering::Relaxed) {
            self.meter = Some(Meter::new());
        }
        self.meter.as_mut().map_or(Poll::Ready(()), |meter| meter.poll_ready(cx))
    }

    /// Notes how a write went, and lets one fail that has waited for too long.
    fn watch_write<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.stalled.take().is_some() {
                self.wake_reader();
            }
            return written;
        }
        let timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        std::task::ready!(stalled.as_mut().poll(cx));
        self.given_up = true;
        // Who reads may be another task, and would wait for a caller that has been given up.
        self.wake_reader();
        Poll::Ready(Err(not_reading()))
    }

    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

fn not_reading() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the caller does not read its answers")
}

impl<K: Unpin> AsyncRead for GuardedStream<K> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.given_up {
            return Poll::Ready(Err(not_reading()));
        }
        // Kept even where the socket would wake the reader: a writer that gives up has to, and nothing else may come.
        this.reader = Some(cx.waker().clone());
        if this.stalled.is_some() {
            return Poll::Pending;
        }
        std::task::ready!(this.poll_meter(cx));
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.socket).poll_read(cx, buffer);
        if let Some(meter) = &mut this.meter {
            meter.took(buffer.filled().len() - before);
        }
        read
    }
}

impl<K: Unpin> AsyncWrite for GuardedStream<K> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write(cx, bytes);
        this.watch_write(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write_vectored(cx, parts);
        this.watch_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn fill(stream: &mut GuardedStream<()>) -> io::Error {
        loop {
            if let Err(error) = stream.write_all(&[0; 65536]).await {
                return error;
            }
        }
    }

    #[tokio::test]
    async fn a_write_nobody_takes_fails_in_time() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let patience = Duration::from_millis(50);
        let mut stream = GuardedStream::new(ours, patience, Upgraded::default(), ());
        let begun = tokio::time::Instant::now();
        assert_eq!(fill(&mut stream).await.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= patience);
        assert_eq!(stream.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn nothing_is_read_from_a_caller_who_does_not_read() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut stream = GuardedStream::new(ours, Duration::from_secs(60), Upgraded::default(), ());
        theirs.write_all(b"more").await.unwrap();
        assert!(tokio::time::timeout(Duration::ZERO, fill(&mut stream)).await.is_err());
        let mut buffer = [0; 4];
        assert!(futures_util::poll!(std::pin::pin!(stream.read_exact(&mut buffer))).is_pending());
        let mut sink = vec![0; 1 << 20];
        let _ = theirs.read(&mut sink).await.unwrap();
        let _ = stream.write(b"x").await.unwrap();
        stream.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"more");
    }
}
