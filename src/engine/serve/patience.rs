//! How long look-ups and listings wait for sizes: not so long that they end in an error, and not again for each name or
//! page of a listing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::types::OriginName;

/// How long one of them waits at most: it can do without, and whoever stats or opens a file waits for its size as for all
/// else.
const LONGEST: Duration = Duration::from_secs(5);

/// For so long none of them waits for an origin that did not tell a size in time. A listing of many pages, or one that looks
/// every name up, would else wait once for each of them.
const RESPITE: Duration = Duration::from_secs(10);

/// What they have waited for in vain. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    longest: Duration,
    slow: Arc<Mutex<HashMap<OriginName, Instant>>>,
}

impl Patience {
    /// For questions that may take `deadline`: so much less that they end with the names at least.
    pub(super) fn within(deadline: Duration) -> Patience {
        Patience { longest: (deadline / 2).min(LONGEST), slow: Arc::default() }
    }

    /// How long to wait for sizes of `origin`; `None` for not at all.
    pub(super) fn with(&self, origin: &OriginName, now: Instant) -> Option<Duration> {
        let slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        let is_slow = slow.get(origin).is_some_and(|since| now.saturating_duration_since(*since) < RESPITE);
        (!is_slow).then_some(self.longest)
    }

    /// Sizes of `origin` did not come in time.
    pub(super) fn is_over(&self, origin: OriginName, now: Instant) {
        let mut slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        slow.retain(|_, since| now.saturating_duration_since(*since) < RESPITE);
        slow.insert(origin, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_waits_for_half_of_what_it_may_and_for_a_slow_origin_not_again() {
        let (slow, quick): (OriginName, OriginName) = ("slow".parse().unwrap(), "quick".parse().unwrap());
        let now = Instant::now();
        assert_eq!(Patience::within(Duration::from_secs(60)).with(&slow, now), Some(LONGEST));
        let patience = Patience::within(Duration::from_secs(2));
        assert_eq!(patience.with(&slow, now), Some(Duration::from_secs(1)));
        patience.is_over(slow.clone(), now);
        assert_eq!(patience.with(&slow, now), None);
        assert_eq!(patience.with(&quick, now), Some(Duration::from_secs(1)));
        assert_eq!(patience.with(&slow, now + RESPITE), Some(Duration::from_secs(1)));
        patience.is_over(quick, now + RESPITE);
        assert_eq!(patience.slow.lock().unwrap().len(), 1, "old ones are forgotten");
    }
}
