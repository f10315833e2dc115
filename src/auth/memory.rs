//! [`Remembering`]: an authorizer that asks another one and remembers its consent for a few seconds.
//!
//! Consent is remembered per connection and action, in the [`Caller`] itself, so that it goes when the connection does.
//! A refusal is never remembered: who was just put into the group must not wait.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;

use super::{Action, Authorizer, Caller, Refusal};

/// How long consent holds: `list` and what follows it in a script ask once. A right that was taken away is gone after
/// as long.
pub const CONSENT_LASTS: Duration = Duration::from_secs(5);

/// When which action was last allowed on a connection.
#[derive(Debug, Default)]
pub struct Granted(Mutex<Vec<(Action, Instant)>>);

impl Granted {
    fn holds(&self, action: Action, lasts: Duration) -> bool {
        let granted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        granted.iter().any(|(which, when)| *which == action && when.elapsed() < lasts)
    }

    fn note(&self, action: Action) {
        let mut granted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        granted.retain(|(which, _)| *which != action);
        granted.push((action, Instant::now()));
    }
}

/// Asks `A` at most once per [`CONSENT_LASTS`], connection and action that it allows.
pub struct Remembering<A> {
    inner: A,
    lasts: Duration,
}

impl<A: Authorizer> Remembering<A> {
    /// Wraps `inner`.
    pub fn new(inner: A) -> Remembering<A> {
        Remembering::lasting(inner, CONSENT_LASTS)
    }

    /// Wraps `inner`; consent holds for `lasts`.
    pub fn lasting(inner: A, lasts: Duration) -> Remembering<A> {
        Remembering { inner, lasts }
    }
}

#[async_trait]
impl<A: Authorizer> Authorizer for Remembering<A> {
    async fn authorize(&self, caller: &Caller, action: Action) -> Result<(), Refusal> {
        if caller.granted.holds(action, self.lasts) {
            return Ok(());
        }
        self.inner.authorize(caller, action).await?;
        caller.granted.note(action);
        Ok(())
    }

    fn name(&self) -> &'static str {
        self.inner.name()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

    use super::*;
    use crate::sys::{identity::Identity, peer::Peer};

    #[derive(Default)]
    struct Counting {
        asked: AtomicU32,
        says_no: AtomicBool,
    }

    #[async_trait]
    impl Authorizer for Counting {
        async fn authorize(&self, _caller: &Caller, action: Action) -> Result<(), Refusal> {
            self.asked.fetch_add(1, SeqCst);
            if self.says_no.load(SeqCst) { Err(Refusal::Denied { action }) } else { Ok(()) }
        }

        fn name(&self) -> &'static str {
            "counting"
        }
    }

    fn caller() -> Caller {
        let identity = Identity { uid: 1000, gid: 1000, groups: vec![] };
        Caller::new(Peer { identity, pid: 1, pidfd: None })
    }

    #[tokio::test]
    async fn consent_is_remembered_per_connection_and_action() {
        let auth = Remembering::lasting(Counting::default(), Duration::from_secs(3600));
        let one = caller();
        for _ in 0..3 {
            auth.authorize(&one, Action::Mount).await.unwrap();
        }
        assert_eq!(auth.inner.asked.load(SeqCst), 1);
        auth.authorize(&one, Action::ManageOthers).await.unwrap();
        auth.authorize(&caller(), Action::Mount).await.unwrap();
        assert_eq!(auth.inner.asked.load(SeqCst), 3);
    }

    #[tokio::test]
    async fn refusals_and_stale_consent_are_asked_again() {
        let auth = Remembering::lasting(Counting::default(), Duration::ZERO);
        let one = caller();
        auth.inner.says_no.store(true, SeqCst);
        for _ in 0..2 {
            assert_eq!(
                auth.authorize(&one, Action::Mount).await,
                Err(Refusal::Denied { action: Action::Mount })
            );
        }
        auth.inner.says_no.store(false, SeqCst);
        for _ in 0..2 {
            auth.authorize(&one, Action::Mount).await.unwrap();
        }
        assert_eq!(auth.inner.asked.load(SeqCst), 4);
    }
}
