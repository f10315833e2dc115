//! [`Turns`]: so that nobody's fetches keep those of others waiting. Each user may have so many under way from one origin;
//! one more waits until one of that user's own has ended, while those of others go past it.
//!
//! Of one origin, because a user who waits for one that is gone goes on reading from the others. A fetch that waits is not
//! an error, unless its question's deadline passes meanwhile.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{fusedev::User, types::OriginName};

/// Who fetches from where.
type Whose = (OriginName, User);

/// What users have under way. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Turns {
    most: usize,
    lines: Arc<Mutex<HashMap<Whose, Line>>>,
    waited: Arc<AtomicU64>,
}

/// The fetches of one user from one origin.
#[derive(Debug)]
struct Line {
    turns: Arc<Semaphore>,
    /// Those under way and those that wait. A line of nobody is forgotten.
    people: usize,
}

/// Leave to fetch, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _permit: OwnedSemaphorePermit,
    // Behind the permit, so that a line is not forgotten with a turn that is not given back.
    _place: Place,
}

/// A place in a line.
#[derive(Debug)]
struct Place {
    whose: Whose,
    lines: Arc<Mutex<HashMap<Whose, Line>>>,
}

impl Turns {
    /// Lets each user fetch `most` things at once from one origin.
    pub(crate) fn new(most: usize) -> Turns {
        let most = most.clamp(1, Semaphore::MAX_PERMITS);
        Turns { most, lines: Arc::default(), waited: Arc::default() }
    }

    /// How many fetches had to wait so far.
    pub(crate) fn waited(&self) -> u64 {
        self.waited.load(Relaxed)
    }

    /// Waits until `user` may fetch one thing more from `origin`: in the order in which that user's asked.
    pub(super) async fn take(&self, origin: OriginName, user: User) -> Turn {
        let (turns, place) = self.line_up((origin, user));
        let permit = match Arc::clone(&turns).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.waited.fetch_add(1, Relaxed);
                turns.acquire_owned().await.expect("the semaphore is never closed")
            }
        };
        Turn { _permit: permit, _place: place }
    }

    fn line_up(&self, whose: Whose) -> (Arc<Semaphore>, Place) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = lines
            .entry(whose.clone())
            .or_insert_with(|| Line { turns: Arc::new(Semaphore::new(self.most)), people: 0 });
        line.people += 1;
        (Arc::clone(&line.turns), Place { whose, lines: Arc::clone(&self.lines) })
    }

    /// How many lines there are.
    #[cfg(test)]
    fn lines(&self) -> usize {
        self.lines.lock().unwrap().len()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(line) = lines.get_mut(&self.whose) else { return };
        line.people -= 1;
        if line.people == 0 {
            lines.remove(&self.whose);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const ALICE: User = User::Uid(1000);
    const BOB: User = User::Uid(1001);

    fn origin(name: &str) -> OriginName {
        name.parse().unwrap()
    }

    fn now(turns: &Turns, name: &str, user: User) -> Option<Turn> {
        turns.take(origin(name), user).now_or_never()
    }

    #[test]
    fn a_user_waits_for_that_users_own_fetches_and_for_no_others() {
        let turns = Turns::new(2);
        let first = now(&turns, "o", ALICE).unwrap();
        let second = now(&turns, "o", ALICE).unwrap();
        assert!(now(&turns, "o", ALICE).is_none());
        let bobs = now(&turns, "o", BOB).unwrap();
        let elsewhere = now(&turns, "p", ALICE).unwrap();
        assert_eq!(turns.waited(), 1);
        drop(first);
        let third = now(&turns, "o", ALICE).unwrap();
        drop((second, third, bobs, elsewhere));
        assert_eq!(turns.lines(), 0, "who fetches nothing is forgotten");
    }

    #[test]
    fn who_waits_longest_is_next_and_who_leaves_is_passed_over() {
        let turns = Turns::new(1);
        let held = now(&turns, "o", ALICE).unwrap();
        let mut one = Box::pin(turns.take(origin("o"), ALICE));
        let mut two = Box::pin(turns.take(origin("o"), ALICE));
        let mut three = Box::pin(turns.take(origin("o"), ALICE));
        for waiting in [&mut one, &mut two, &mut three] {
            assert!(waiting.now_or_never().is_none());
        }
        drop(one);
        drop(held);
        assert!((&mut three).now_or_never().is_none(), "the second was there before");
        assert!(now(&turns, "o", ALICE).is_none(), "nobody jumps the line");
        let second = (&mut two).now_or_never().unwrap();
        drop(second);
        drop((&mut three).now_or_never().unwrap());
        drop((two, three));
        assert_eq!(turns.lines(), 0);
    }

    #[test]
    fn a_bound_of_nothing_still_lets_one_pass() {
        let turns = Turns::new(0);
        assert!(now(&turns, "o", ALICE).is_some());
    }
}
