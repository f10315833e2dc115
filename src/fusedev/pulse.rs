//! Whether workers get on: since when each has been at the message it is at.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// What a worker that is at nothing has for a time.
const IDLE: u64 = u64::MAX;

/// Since when each worker is busy, in milliseconds from `begun`.
#[derive(Debug)]
pub(crate) struct Pulse {
    begun: Instant,
    since: Vec<AtomicU64>,
}

/// A worker is at a message until this is dropped.
#[derive(Debug)]
pub(crate) struct Busy<'a>(Option<&'a AtomicU64>);

impl Pulse {
    /// Of so many workers, all idle.
    pub(crate) fn of(workers: usize) -> Pulse {
        Pulse { begun: Instant::now(), since: (0..workers).map(|_| AtomicU64::new(IDLE)).collect() }
    }

    /// Worker `number` takes up a message.
    pub(crate) fn busy(&self, number: usize) -> Busy<'_> {
        let since = self.since.get(number);
        if let Some(since) = since {
            since.store(self.millis(Instant::now()), Relaxed);
        }
        Busy(since)
    }

    /// How long the worker is busy by `now` that is busy for longest.
    pub(crate) fn longest(&self, now: Instant) -> Duration {
        let since = self.since.iter().map(|since| since.load(Relaxed)).min().unwrap_or(IDLE);
        // A worker that is idle began in the far future.
        Duration::from_millis(self.millis(now).saturating_sub(since))
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.begun).as_millis()).unwrap_or(IDLE)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if let Some(since) = self.0 {
            since.store(IDLE, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worker_that_is_longest_at_a_message_is_told() {
        let pulse = Pulse::of(3);
        let after = |seconds| pulse.begun + Duration::from_secs(seconds);
        assert_eq!(pulse.longest(after(100)), Duration::ZERO);
        let first = pulse.busy(0);
        let second = pulse.busy(2);
        // They began at about 0.
        let longest = pulse.longest(after(10));
        assert!(longest > Duration::from_secs(9) && longest <= Duration::from_secs(10), "{longest:?}");
        drop(first);
        assert!(pulse.longest(after(10)) > Duration::from_secs(9));
        drop(second);
        assert_eq!(pulse.longest(after(10)), Duration::ZERO);
    }
}
