//! [`Repeats`]: reads that the kernel asks again although they failed just now.
//!
//! A read goes out as read-ahead first. When that fails, the kernel asks for the same page once more before it tells the
//! program, which then would wait for twice the deadline. So a read that failed after a long wait fails at once when the
//! same thread asks for the same file right after it. One that failed quickly is simply asked again.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long after the failure a read is a repetition: the kernel takes microseconds, a thread on a loaded machine its
/// time. Reads that waited less are not remembered, so what is remembered is never older than what it cost to learn.
const WINDOW: Duration = Duration::from_secs(1);
/// Failures remembered, as many as may wait at once by default. Beyond it a read waits twice.
const MAX: usize = 4096;

/// Who reads what: a node and a thread.
type Reading = (u64, u32);

/// Reads that failed a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    failed: Mutex<HashMap<Reading, Instant>>,
}

impl Repeats {
    /// The read of `node` by thread `pid` failed at `now` after it had `waited`. To be told before the kernel is.
    pub(crate) fn note(&self, node: u64, pid: u32, waited: Duration, now: Instant) {
        if waited < WINDOW {
            return;
        }
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.len() >= MAX {
            failed.retain(|_, at| now.saturating_duration_since(*at) < WINDOW);
        }
        if failed.len() < MAX {
            failed.insert((node, pid), now);
        }
    }

    /// Whether that read failed just now.
    pub(crate) fn is_one(&self, node: u64, pid: u32, now: Instant) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get(&(node, pid)).is_some_and(|at| now.saturating_duration_since(*at) < WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_waited_in_vain_is_remembered_for_a_moment() {
        let (repeats, now) = (Repeats::default(), Instant::now());
        repeats.note(7, 100, WINDOW, now);
        assert!(repeats.is_one(7, 100, now));
        assert!(!repeats.is_one(7, 101, now), "another thread asks for itself");
        assert!(!repeats.is_one(8, 100, now), "another file is another question");
        assert!(!repeats.is_one(7, 100, now + WINDOW));
    }

    #[test]
    fn a_read_that_failed_quickly_is_asked_again() {
        let (repeats, now) = (Repeats::default(), Instant::now());
        repeats.note(7, 100, WINDOW / 2, now);
        assert!(!repeats.is_one(7, 100, now));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (repeats, now) = (Repeats::default(), Instant::now());
        (0..=MAX as u64).for_each(|node| repeats.note(node, 1, WINDOW, now));
        assert!(repeats.is_one(0, 1, now) && !repeats.is_one(MAX as u64, 1, now));
        repeats.note(MAX as u64, 1, WINDOW, now + WINDOW);
        assert!(repeats.is_one(MAX as u64, 1, now + WINDOW), "the old ones made room");
    }
}
