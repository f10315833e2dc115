//! The table of questions that wait: how many, whose, and who may answer them. Knows neither device nor file system.
//!
//! A question is answered by whoever takes it out of the table (its own task, the deadline inside that task, or an
//! INTERRUPT), so it is answered once in all races.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::task::AbortHandle;

use super::{Answer, asker::User, slots::Ticket};

/// Why a question may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// As many as may wait already do.
    #[error("{0} questions wait already")]
    Full(usize),
    /// This user's share is used up.
    #[error("{0} questions of this user wait already")]
    Share(usize),
    /// The same request came twice, and the first one still waits. Its answer serves both.
    #[error("the question waits already")]
    Twice,
    /// The session is over.
    #[error("the session is over")]
    Closed,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Park {
    most: usize,
    most_per_user: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    closed: bool,
    by_unique: HashMap<u64, Parked>,
    by_user: HashMap<User, usize>,
}

#[derive(Debug)]
struct Parked {
    user: User,
    /// Missing only between [`Park::admit`] and [`Park::attach`].
    task: Option<AbortHandle>,
    /// Where it is kept for a successor.
    ticket: Option<Ticket>,
    /// What its asker gets when it is interrupted.
    hasty: Option<Answer>,
}

/// A question that was taken out. To be dropped once it is answered: then it is not kept any more.
#[derive(Debug)]
#[must_use]
pub(crate) struct Taken(#[expect(dead_code, reason = "held to be dropped")] Option<Ticket>);

impl Park {
    /// An empty table for `most` questions, of them `most_per_user` of one user.
    pub(crate) fn new(most: usize, most_per_user: usize) -> Park {
        Park { most, most_per_user, waiting: Mutex::default() }
    }

    /// Lets the question `unique` of `user` wait; `hasty` is what it is answered with when it is interrupted, if not EINTR.
    /// An interrupt may come as soon as this returns.
    pub(crate) fn admit(&self, unique: u64, user: User, hasty: Option<Answer>) -> Result<(), Refusal> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(Refusal::Closed);
        }
        if waiting.by_unique.contains_key(&unique) {
            return Err(Refusal::Twice);
        }
        if waiting.by_unique.len() >= self.most {
            return Err(Refusal::Full(self.most));
        }
        let of_user = waiting.by_user.get(&user).copied().unwrap_or(0);
        if of_user >= self.most_per_user {
            return Err(Refusal::Share(self.most_per_user));
        }
        waiting.by_user.insert(user, of_user + 1);
        waiting.by_unique.insert(unique, Parked { user, task: None, ticket: None, hasty });
        Ok(())
    }

    /// Says which task works on `unique`; when it was taken meanwhile, the task is not wanted any more.
    pub(crate) fn attach(&self, unique: u64, task: AbortHandle) {
        if let Some(parked) = self.lock().by_unique.get_mut(&unique) {
            parked.task = Some(task);
            return;
        }
        task.abort();
    }

    /// Says where `unique` is kept; when that was taken meanwhile, it need not be.
    pub(crate) fn keep(&self, unique: u64, ticket: Option<Ticket>) {
        let mut waiting = self.lock();
        let closed = waiting.closed;
        match waiting.by_unique.get_mut(&unique) {
            Some(parked) => parked.ticket = ticket,
            None if closed => ticket.into_iter().for_each(Ticket::leave),
            None => drop(ticket),
        }
    }

    /// Takes `unique` out, for exactly one caller, who has to answer it.
    pub(crate) fn take(&self, unique: u64) -> Option<Taken> {
        self.lock().take(unique).map(|parked| Taken(parked.ticket))
    }

    /// As [`Park::take`], and drops its task. With it the answer for whoever was interrupted.
    pub(crate) fn interrupt(&self, unique: u64) -> Option<(Taken, Answer)> {
        let parked = self.lock().take(unique)?;
        if let Some(task) = parked.task {
            task.abort();
        }
        Some((Taken(parked.ticket), parked.hasty.unwrap_or(Answer::Errno(libc::EINTR))))
    }

    /// Drops all tasks; nobody answers their questions any more, unless a successor does. Admits nothing from now on.
    pub(crate) fn close(&self) {
        let all = {
            let mut waiting = self.lock();
            waiting.closed = true;
            waiting.by_user.clear();
            std::mem::take(&mut waiting.by_unique)
        };
        for parked in all.into_values() {
            parked.ticket.into_iter().for_each(Ticket::leave);
            parked.task.into_iter().for_each(|task| task.abort());
        }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().by_unique.len()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Every change below leaves the table whole before anything that could panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn take(&mut self, unique: u64) -> Option<Parked> {
        let parked = self.by_unique.remove(&unique)?;
        if let Entry::Occupied(mut of_user) = self.by_user.entry(parked.user) {
            *of_user.get_mut() -= 1;
            if *of_user.get() == 0 {
                of_user.remove();
            }
        }
        Some(parked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: User = User::Uid(1000);
    const BOB: User = User::Uid(1001);

    #[test]
    fn a_user_is_refused_at_the_share_and_others_are_not() {
        let park = Park::new(4, 2);
        assert_eq!(park.admit(2, ALICE, None), Ok(()));
        assert_eq!(park.admit(4, ALICE, None), Ok(()));
        assert_eq!(park.admit(6, ALICE, None), Err(Refusal::Share(2)));
        assert_eq!(park.admit(8, BOB, None), Ok(()));
        assert_eq!(park.admit(10, User::Unknown, None), Ok(()));
        assert_eq!(park.len(), 4);
    }

    #[test]
    fn everybody_is_refused_at_the_bound() {
        let park = Park::new(1, 8);
        assert_eq!(park.admit(2, ALICE, None), Ok(()));
        assert_eq!(park.admit(4, BOB, None), Err(Refusal::Full(1)));
        assert!(park.take(2).is_some());
        assert_eq!(park.admit(6, BOB, None), Ok(()));
    }

    #[test]
    fn a_question_is_taken_once_and_frees_the_share_of_its_user() {
        let park = Park::new(4, 1);
        park.admit(2, ALICE, None).unwrap();
        assert!(park.take(2).is_some());
        assert!(park.take(2).is_none());
        assert!(park.interrupt(2).is_none());
        assert_eq!(park.admit(4, ALICE, None), Ok(()));
        assert_eq!(park.lock().by_user.len(), 1);
        assert!(park.take(4).is_some());
        assert_eq!(park.lock().by_user.len(), 0, "users that wait for nothing are forgotten");
    }

    #[test]
    fn the_same_request_does_not_wait_twice() {
        let park = Park::new(4, 4);
        park.admit(2, ALICE, None).unwrap();
        assert_eq!(park.admit(2, ALICE, None), Err(Refusal::Twice));
        assert_eq!(park.len(), 1);
    }

    #[test]
    fn a_closed_table_admits_nothing() {
        let park = Park::new(4, 4);
        park.admit(2, ALICE, None).unwrap();
        park.close();
        assert_eq!(park.len(), 0);
        assert!(park.take(2).is_none());
        assert_eq!(park.admit(4, ALICE, None), Err(Refusal::Closed));
    }

    #[tokio::test]
    async fn an_interrupt_before_the_task_is_known_still_ends_the_task() {
        let park = Park::new(4, 4);
        park.admit(2, ALICE, None).unwrap();
        let (_taken, answer) = park.interrupt(2).unwrap();
        assert_eq!(answer, Answer::Errno(libc::EINTR));
        let task = tokio::spawn(std::future::pending::<()>());
        park.attach(2, task.abort_handle());
        assert!(task.await.unwrap_err().is_cancelled());
    }

    #[tokio::test]
    async fn an_interrupt_ends_the_task() {
        let park = Park::new(4, 4);
        park.admit(2, ALICE, Some(Answer::NoEntry)).unwrap();
        let task = tokio::spawn(std::future::pending::<()>());
        park.attach(2, task.abort_handle());
        assert!(park.interrupt(2).is_some_and(|(_, answer)| answer == Answer::NoEntry));
        assert!(task.await.unwrap_err().is_cancelled());
    }
}
