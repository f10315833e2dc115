//! [`Slots`]: how many of a thing each user, and all users together, hold at once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::api::CallCounters;

/// Bounds on a thing that users hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotLimits {
    /// One user's; root has no bound of its own.
    pub(crate) per_user: usize,
    /// All users'.
    pub(crate) total: usize,
    /// Beyond `total`, for root alone.
    pub(crate) for_root: usize,
}

/// Counts what is held. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    limits: SlotLimits,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    /// Only users who hold something.
    by_user: HashMap<u32, usize>,
    refused: u64,
}

/// Which bound was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    User,
    Host,
}

/// One held; given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    uid: u32,
    held: Arc<Mutex<Held>>,
}

impl Slots {
    pub(crate) fn new(limits: SlotLimits) -> Slots {
        Slots { limits, held: Arc::default() }
    }

    /// Takes one for `uid`, or says which bound forbids it.
    pub(crate) fn take(&self, uid: u32) -> Result<Slot, Full> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let of_user = held.by_user.get(&uid).copied().unwrap_or(0);
        if let Some(full) = self.full(uid, of_user, held.total) {
            held.refused += 1;
            return Err(full);
        }
        held.total += 1;
        held.by_user.insert(uid, of_user + 1);
        Ok(Slot { uid, held: Arc::clone(&self.held) })
    }

    /// Which bound one more of `uid` would break.
    fn full(&self, uid: u32, of_user: usize, total: usize) -> Option<Full> {
        if uid != 0 && of_user >= self.limits.per_user {
            return Some(Full::User);
        }
        let reserve = if uid == 0 { self.limits.for_root } else { 0 };
        (total >= self.limits.total + reserve).then_some(Full::Host)
    }

    /// How many are held in all, and how many were refused.
    pub(crate) fn counters(&self) -> CallCounters {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        CallCounters { under_way: u64::try_from(held.total).unwrap_or(u64::MAX), turned_away: held.refused }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.total -= 1;
        if let Some(count) = held.by_user.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                held.by_user.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_take_what_others_need() {
        let slots = Slots::new(SlotLimits { per_user: 2, total: 3, for_root: 1 });
        let alice = [slots.take(1000).unwrap(), slots.take(1000).unwrap()];
        assert_eq!(slots.take(1000).unwrap_err(), Full::User);
        let bob = slots.take(1001).unwrap();
        assert_eq!(slots.take(1001).unwrap_err(), Full::Host);
        let root = slots.take(0).unwrap();
        assert_eq!(slots.take(0).unwrap_err(), Full::Host);
        drop((alice, bob, root));
        let CallCounters { under_way, turned_away } = slots.counters();
        assert_eq!((under_way, turned_away), (0, 3));
        assert!(slots.held.lock().unwrap().by_user.is_empty());
    }

    #[test]
    fn root_is_not_counted_against_a_users_bound() {
        let slots = Slots::new(SlotLimits { per_user: 1, total: 4, for_root: 0 });
        let _four: Vec<_> = (0..4).map(|_| slots.take(0).unwrap()).collect();
        assert_eq!(slots.take(0).unwrap_err(), Full::Host);
    }
}
