//! [`Budget`]: how many entries of one kind the journal is told, and how many it was not. Knows neither events nor
//! subscribers; the time is given to it.
//!
//! A kind is what happened and to whom, so that nobody's noise takes the place of what happens to others. Each has a number
//! of entries at once and regains one after each while; what is beyond is counted until it is swept.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tracing::{Level, callsite::Identifier};

/// Kinds remembered. Users can make up neither what happens nor uids in great numbers; where they are as many, those who
/// come later share one account for each thing that happens.
const MAX_KINDS: usize = 4096;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum What {
    /// An event of this class.
    Class(&'static str),
    /// One without a class: where in the sources it comes from.
    Place(Identifier),
}

/// To whom it happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    /// A user.
    User(u64),
    /// An origin, where no user is named.
    Origin(Box<str>),
    /// Nobody in particular.
    Nobody,
}

/// Entries that have an account together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) what: What,
    pub(super) whose: Whose,
}

/// How much of a kind is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowance {
    /// Entries at once.
    pub(super) burst: u32,
    /// One more after each such time.
    pub(super) every: Duration,
}

/// One of the entries that were not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) level: Level,
    /// The name of its class, else its place.
    pub(super) name: String,
    pub(super) message: String,
}

/// Entries that were not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unsaid {
    pub(super) whose: Whose,
    pub(super) count: u64,
    /// The first of them.
    pub(super) sample: Sample,
}

/// The accounts of all kinds.
#[derive(Debug, Default)]
pub(super) struct Budget {
    accounts: HashMap<Kind, Account>,
}

#[derive(Debug)]
struct Account {
    allowance: Allowance,
    left: u32,
    /// Up to when what was regained is counted in `left`.
    filled: Instant,
    unsaid: u64,
    sample: Option<Sample>,
}

impl Budget {
    /// Whether one more of `kind` may be written; else it is counted, and `sample` describes the first.
    pub(super) fn admit(
        &mut self,
        kind: Kind,
        allowance: Allowance,
        now: Instant,
        sample: impl FnOnce() -> Sample,
    ) -> bool {
        let kind = self.known(kind, now);
        let account = self.accounts.entry(kind).or_insert_with(|| Account::new(allowance, now));
        let may = account.take(now);
        if !may {
            account.unsaid += 1;
            account.sample.get_or_insert_with(sample);
        }
        may
    }

    /// What was not written since the last time, and forgets accounts that are as good as new.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<Unsaid> {
        let mut unsaid = Vec::new();
        for (kind, account) in &mut self.accounts {
            let count = std::mem::take(&mut account.unsaid);
            if let Some(sample) = account.sample.take() {
                unsaid.push(Unsaid { whose: kind.whose.clone(), count, sample });
            }
        }
        self.forget_the_full(now);
        unsaid
    }

    /// `kind`, or the one that it shares an account with.
    fn known(&mut self, kind: Kind, now: Instant) -> Kind {
        if self.accounts.len() < MAX_KINDS || self.accounts.contains_key(&kind) {
            return kind;
        }
        self.forget_the_full(now);
        if self.accounts.len() < MAX_KINDS { kind } else { Kind { whose: Whose::Nobody, ..kind } }
    }

    fn forget_the_full(&mut self, now: Instant) {
        self.accounts.retain(|_, account| !account.is_as_new(now));
    }
}

impl Account {
    fn new(allowance: Allowance, now: Instant) -> Account {
        Account { allowance, left: allowance.burst, filled: now, unsaid: 0, sample: None }
    }

    fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }

    fn fill(&mut self, now: Instant) {
        let Allowance { burst, every } = self.allowance;
        let whiles = now.saturating_duration_since(self.filled).as_nanos() / every.as_nanos().max(1);
        let gained = u32::try_from(whiles).unwrap_or(u32::MAX);
        if gained >= burst - self.left {
            (self.left, self.filled) = (burst, now);
        } else {
            self.left += gained;
            self.filled += every * gained;
        }
    }

    fn is_as_new(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.left == self.allowance.burst && self.unsaid == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: Allowance = Allowance { burst: 20, every: Duration::from_secs(10) };

    fn kind(class: &'static str, uid: u64) -> Kind {
        Kind { what: What::Class(class), whose: Whose::User(uid) }
    }

    fn sample(message: &str) -> Sample {
        Sample { level: Level::INFO, name: "REFUSED".to_owned(), message: message.to_owned() }
    }

    fn admitted(budget: &mut Budget, kind: &Kind, times: usize, now: Instant) -> usize {
        (0..times).filter(|n| budget.admit(kind.clone(), SOME, now, || sample(&n.to_string()))).count()
    }

    #[test]
    fn of_ten_thousand_twenty_are_written_and_the_rest_is_told_as_a_number() {
        let (mut budget, now) = (Budget::default(), Instant::now());
        let (refused, others) = (kind("refused", 1000), kind("refused", 1001));
        assert_eq!(admitted(&mut budget, &refused, 10_000, now), 20);
        assert_eq!(admitted(&mut budget, &others, 20, now), 20, "another user's are written");
        assert_eq!(
            admitted(&mut budget, &kind("limit", 1000), 20, now),
            20,
            "so is what else happens to this one"
        );
        let unsaid = Unsaid { whose: Whose::User(1000), count: 9_980, sample: sample("20") };
        assert_eq!(budget.sweep(now), [unsaid]);
        assert_eq!(budget.sweep(now), []);
    }

    #[test]
    fn an_account_regains_one_after_each_while_and_no_more_than_it_had() {
        let (mut budget, start) = (Budget::default(), Instant::now());
        let refused = kind("refused", 1000);
        let after = |whiles: f64| start + SOME.every.mul_f64(whiles);
        assert_eq!(admitted(&mut budget, &refused, 30, start), 20);
        assert_eq!(admitted(&mut budget, &refused, 5, after(0.9)), 0);
        assert_eq!(admitted(&mut budget, &refused, 5, after(1.5)), 1);
        assert_eq!(
            admitted(&mut budget, &refused, 5, after(1.9)),
            0,
            "half a while is not lost, nor counted twice"
        );
        assert_eq!(admitted(&mut budget, &refused, 5, after(2.0)), 1);
        assert_eq!(budget.sweep(after(2.0))[0].count, 10 + 5 + 4 + 5 + 4);
        assert_eq!(admitted(&mut budget, &refused, 30, after(1000.0)), 20);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_who_comes_late_shares_an_account() {
        let (mut budget, start) = (Budget::default(), Instant::now());
        let many = MAX_KINDS as u64 + 100;
        let written =
            (0..many).filter(|uid| admitted(&mut budget, &kind("refused", *uid), 1, start) == 1).count();
        assert_eq!(written, MAX_KINDS + 20);
        assert_eq!(budget.accounts.len(), MAX_KINDS + 1);
        let unsaid = budget.sweep(start);
        assert_eq!((unsaid[0].whose.clone(), unsaid[0].count), (Whose::Nobody, 80));
        assert_eq!(budget.sweep(start + SOME.every * 20), []);
        assert_eq!(budget.accounts.len(), 0);
    }
}
