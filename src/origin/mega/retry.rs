//! What is asked again, and when: a decision without a clock, a network or a die of its own.

use std::time::Duration;

/// Attempts at one question, the first included. A server that is down for longer is not helped by more.
pub(super) const ATTEMPTS_MAX: u32 = 3;

/// Attempts when the server says 500: it says so for names it does not know, too, and then always will.
const FAULT_ATTEMPTS_MAX: u32 = 2;

/// The wait before the second attempt, on average; it doubles from there.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// How one attempt went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With an answer, be it that there is no such thing.
    Answered,
    /// Never connected, or broke off in the middle.
    Broken,
    /// 429, 502, 503, 504: not now; perhaps the server says when.
    Busy { retry_after: Option<Duration> },
    /// 500.
    Fault,
    /// The same would come again: a refusal, a bound that was passed, no time left.
    Final,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// This is the answer.
    Stop,
    /// Ask again after this.
    Again { after: Duration },
}

/// What follows on `outcome` of the `attempt`-th attempt (from 1), with `left` of the time for it; `dice` is random.
pub(super) fn plan(outcome: Outcome, attempt: u32, left: Duration, dice: u64) -> Step {
    let attempts = match outcome {
        Outcome::Answered | Outcome::Final => return Step::Stop,
        Outcome::Fault => FAULT_ATTEMPTS_MAX,
        Outcome::Broken | Outcome::Busy { .. } => ATTEMPTS_MAX,
    };
    if attempt >= attempts {
        return Step::Stop;
    }
    let own = jittered(FIRST_WAIT * 2_u32.pow(attempt - 1), dice);
    let after = match outcome {
        Outcome::Busy { retry_after: Some(asked) } => asked.saturating_add(own),
        _ => own,
    };
    // Waiting for an attempt that could not be made any more only delays the bad news.
    if after < left { Step::Again { after } } else { Step::Stop }
}

/// From half of `wait` to one and a half, so that many clients of one server do not come back together.
fn jittered(wait: Duration, dice: u64) -> Duration {
    let permille = 500 + u32::try_from(dice % 1001).unwrap_or(0);
    wait * permille / 1000
}

/// `Retry-After:` in seconds; its other form, a date, is for people.
pub(super) fn retry_after(header: &str) -> Option<Duration> {
    header.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn again(millis: u64) -> Step {
        Step::Again { after: Duration::from_millis(millis) }
    }

    #[test]
    fn each_outcome_has_its_number_of_attempts() {
        let busy = Outcome::Busy { retry_after: None };
        for (outcome, steps) in [
            (Outcome::Answered, [Step::Stop, Step::Stop, Step::Stop]),
            (Outcome::Final, [Step::Stop, Step::Stop, Step::Stop]),
            (Outcome::Fault, [again(100), Step::Stop, Step::Stop]),
            (Outcome::Broken, [again(100), again(200), Step::Stop]),
            (busy, [again(100), again(200), Step::Stop]),
        ] {
            let planned = [1, 2, 3].map(|attempt| plan(outcome, attempt, MINUTE, 500));
            assert_eq!(planned, steps, "{outcome:?}");
        }
    }

    #[test]
    fn the_wait_is_spread_around_its_mean() {
        let waits = [0, 500, 1000, 1001].map(|dice| plan(Outcome::Broken, 1, MINUTE, dice));
        assert_eq!(waits, [again(50), again(100), again(150), again(50)]);
        assert_eq!(plan(Outcome::Broken, 2, MINUTE, 1000), again(300));
    }

    #[test]
    fn the_server_says_when_unless_that_is_too_late() {
        let busy = |seconds| Outcome::Busy { retry_after: Some(Duration::from_secs(seconds)) };
        assert_eq!(plan(busy(2), 1, MINUTE, 500), again(2100));
        assert_eq!(plan(busy(60), 1, MINUTE, 500), Step::Stop);
        assert_eq!(plan(busy(u64::MAX), 1, MINUTE, 500), Step::Stop);
        assert_eq!(plan(Outcome::Broken, 1, Duration::from_millis(100), 500), Step::Stop);
        assert_eq!(plan(Outcome::Broken, 1, Duration::ZERO, 0), Step::Stop);
    }

    #[test]
    fn only_seconds_are_understood() {
        assert_eq!(retry_after(" 7 "), Some(Duration::from_secs(7)));
        for text in ["", "-1", "soon", "Wed, 21 Oct 2026 07:28:00 GMT", "1.5"] {
            assert_eq!(retry_after(text), None, "{text}");
        }
    }
}
