//! [`Meter`]: how fast a WebSocket's messages are taken.
//!
//! jsonrpsee starts a task for each message it reads, before anything else looks at it, and so reads on while those
//! wait for their turn. HTTP takes one request after the other and needs none of this.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

/// Bytes taken at once: some thousand of the smallest messages, whose tasks take some megabytes until they have run.
const AT_ONCE: u32 = 64 << 10;
/// Bytes taken per second from then on: the largest message that is allowed. A watcher sends next to nothing.
const PER_SECOND: u32 = 256 << 10;
/// How long an empty meter waits.
const REST: Duration = Duration::from_millis(20);

/// Fills with time, empties with bytes.
pub(super) struct Meter {
    allowance: f64,
    filled: Instant,
    rest: Option<Pin<Box<Sleep>>>,
}

impl Meter {
    pub(super) fn new() -> Meter {
        Meter { allowance: f64::from(AT_ONCE), filled: Instant::now(), rest: None }
    }

    /// Ready when something may be read.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(rest) = &mut self.rest {
                std::task::ready!(rest.as_mut().poll(cx));
                self.rest = None;
            }
            self.fill(Instant::now());
            if self.allowance > 0.0 {
                return Poll::Ready(());
            }
            self.rest = Some(Box::pin(tokio::time::sleep(REST)));
        }
    }

    /// Notes what was read; it may be more than was left.
    pub(super) fn took(&mut self, bytes: usize) {
        self.allowance -= f64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    fn fill(&mut self, now: Instant) {
        let gained = now.duration_since(self.filled).as_secs_f64() * f64::from(PER_SECOND);
        self.allowance = (self.allowance + gained).min(f64::from(AT_ONCE));
        self.filled = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emptied_meter_fills_with_time_and_not_beyond_its_size() {
        let mut meter = Meter::new();
        let begun = meter.filled;
        meter.took(AT_ONCE as usize + PER_SECOND as usize);
        meter.fill(begun + Duration::from_secs(1));
        assert!(meter.allowance <= 0.0);
        meter.fill(begun + Duration::from_millis(1_125));
        assert_eq!(meter.allowance.round(), f64::from(PER_SECOND) / 8.0);
        meter.fill(begun + Duration::from_secs(100));
        assert_eq!(meter.allowance, f64::from(AT_ONCE));
    }
}
