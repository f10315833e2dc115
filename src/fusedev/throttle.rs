//! How often the same thing is said in the journal. Knows neither what nor where; the time is given to it.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Lets one event in `every` through and counts the others.
#[derive(Debug)]
pub(crate) struct Throttle {
    every: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    unsaid: u64,
}

impl Throttle {
    pub(crate) fn new(every: Duration) -> Throttle {
        Throttle { every, state: Mutex::default() }
    }

    /// How many events were held back before this one, if this one may be said.
    pub(crate) fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < self.every) {
            state.unsaid += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_in_a_while_is_said_and_says_how_many_were_not() {
        let throttle = Throttle::new(Duration::from_secs(5));
        let start = Instant::now();
        let after = |seconds| throttle.admit(start + Duration::from_secs(seconds));
        assert_eq!(after(0), Some(0));
        assert_eq!(after(1), None);
        assert_eq!(after(4), None);
        assert_eq!(after(5), Some(2));
        assert_eq!(after(9), None);
        assert_eq!(after(60), Some(1));
    }
}
