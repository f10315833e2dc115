//! The journal's view of questions that failed: every cause is said, and said again only now and then.

use std::{
    collections::HashMap,
    error::Error,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The same text is logged once in this time. An origin that is gone fails thousands of questions a second.
const QUIET: Duration = Duration::from_secs(10);
/// Texts remembered; a caller can make up names, so there must be a bound. Beyond it new ones wait for room.
const MAX_TEXTS: usize = 64;

/// What was said lately.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    said: Mutex<HashMap<String, Said>>,
}

#[derive(Debug)]
struct Said {
    at: Instant,
    unsaid: u64,
}

impl Complaints {
    /// Logs `cause`, unless it was logged just now.
    pub(super) fn log(&self, cause: &dyn Error) {
        let text = cause.to_string();
        if let Some(repeated) = self.due(&text, Instant::now()) {
            tracing::warn!(cause = text, repeated, "a question of the kernel failed");
        }
    }

    /// Whether to say `text` now, and how often it was not said before.
    fn due(&self, text: &str, now: Instant) -> Option<u64> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = said.get_mut(text) {
            if now.duration_since(before.at) < QUIET {
                before.unsaid += 1;
                return None;
            }
            before.at = now;
            return Some(std::mem::take(&mut before.unsaid));
        }
        if said.len() >= MAX_TEXTS {
            said.retain(|_, before| now.duration_since(before.at) < QUIET);
        }
        if said.len() >= MAX_TEXTS {
            return None;
        }
        said.insert(text.to_owned(), Said { at: now, unsaid: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once_in_a_while_with_a_count() {
        let (complaints, start) = (Complaints::default(), Instant::now());
        assert_eq!(complaints.due("gone", start), Some(0));
        assert_eq!(complaints.due("gone", start + QUIET / 2), None);
        assert_eq!(complaints.due("gone", start + QUIET / 2), None);
        assert_eq!(complaints.due("slow", start + QUIET / 2), Some(0));
        assert_eq!(complaints.due("gone", start + QUIET), Some(2));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (complaints, start) = (Complaints::default(), Instant::now());
        let said = |at| (0..1000).filter(|n| complaints.due(&format!("{n}"), at).is_some()).count();
        assert_eq!(said(start), MAX_TEXTS);
        assert_eq!(said(start + QUIET), MAX_TEXTS);
    }
}
