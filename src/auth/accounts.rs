//! Names and ids of the host's users and groups, through NSS.
//!
//! A name service may hang for as long as its network does: lookups run on their own threads, few at a time, with a
//! deadline, and answers (also "nobody") are kept for a minute. A lookup that failed is never kept, and never admits.

use std::{
    collections::HashMap,
    ffi::CString,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use nix::unistd::{Gid, Group, Uid, User};
use tokio::sync::Semaphore;

use super::principals::{self, KnownNames};
use crate::{config::Principal, sys::identity::Identity};

/// How long an answer is kept: a new member of a group may have to wait as long.
const ANSWER_LASTS: Duration = Duration::from_secs(60);
/// How long one lookup may take. A hung name service costs a caller this much, not for ever.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(5);
/// Lookups at once: a hung name service holds this many threads and no more.
const LOOKUPS_AT_ONCE: usize = 8;
/// Answers kept. Beyond it the kept ones are dropped: asking again is cheap.
const ANSWERS_KEPT: usize = 4096;

/// What can be looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Question {
    UserName(u32),
    UserId(String),
    GroupId(String),
}

#[derive(Clone, Debug)]
enum Answer {
    Nobody,
    Name(String),
    Id(u32),
}

/// Why nothing is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The name service did not answer in time.
    #[error("the name service did not answer within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// The name service failed.
    #[error("the name service failed: {0}")]
    Failed(String),
}

/// The host's accounts. Cheap to clone; clones share what is known.
#[derive(Clone)]
pub struct Accounts {
    known: Arc<Mutex<HashMap<Question, (Answer, Instant)>>>,
    lookups: Arc<Semaphore>,
}

impl Default for Accounts {
    fn default() -> Accounts {
        Accounts { known: Arc::default(), lookups: Arc::new(Semaphore::new(LOOKUPS_AT_ONCE)) }
    }
}

impl Accounts {
    /// The name of a user, for people to read; `None` when there is none or it cannot be had now.
    pub async fn user_name(&self, uid: u32) -> Option<String> {
        match self.ask(Question::UserName(uid)).await {
            Ok(Answer::Name(name)) => Some(name),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(scorpio_uid = uid, %error, "a user's name is not known");
                None
            }
        }
    }

    /// Whether `list` admits `identity`. Names that cannot be looked up admit nobody.
    pub async fn admit(&self, list: &[Principal], identity: &Identity) -> bool {
        let mut names = KnownNames::default();
        for principal in list {
            match principal {
                Principal::Everybody => return true,
                Principal::User(name) if !principals::is_id(name) => {
                    self.learn(Question::UserId(name.clone()), name, &mut names.users).await;
                }
                Principal::Group(name) if !principals::is_id(name) => {
                    self.learn(Question::GroupId(name.clone()), name, &mut names.groups).await;
                }
                Principal::User(_) | Principal::Group(_) => {}
            }
        }
        principals::admits(list, identity, &names)
    }

    /// The ids that `uid` would have after a login; `None` when there is no such account.
    pub async fn identity(&self, uid: u32) -> Result<Option<Identity>, LookupError> {
        self.on_thread(move || account_identity(uid)).await
    }

    /// The ids that the account named or numbered `user` would have after a login; `None` when there is no such account.
    /// Text made of digits is a number.
    pub async fn account(&self, user: &str) -> Result<Option<Identity>, LookupError> {
        let user = user.to_owned();
        self.on_thread(move || {
            if principals::is_id(&user) {
                return user.parse().map_or(Ok(None), account_identity);
            }
            let found = User::from_name(&user)?;
            found.map_or(Ok(None), |found| account_identity(found.uid.as_raw()))
        })
        .await
    }

    async fn learn(
        &self,
        question: Question,
        name: &str,
        known: &mut std::collections::BTreeMap<String, u32>,
    ) {
        match self.ask(question).await {
            Ok(Answer::Id(id)) => {
                known.insert(name.to_owned(), id);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(name, %error, "a name in an access list cannot be looked up and admits nobody now");
            }
        }
    }

    async fn ask(&self, question: Question) -> Result<Answer, LookupError> {
        if let Some(answer) = self.recall(&question) {
            return Ok(answer);
        }
        let asked = question.clone();
        let answer = self.on_thread(move || look_up(&asked)).await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= ANSWERS_KEPT {
            known.clear();
        }
        known.insert(question, (answer.clone(), Instant::now()));
        Ok(answer)
    }

    fn recall(&self, question: &Question) -> Option<Answer> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get(question)
            .filter(|(_, when)| when.elapsed() < ANSWER_LASTS)
            .map(|(answer, _)| answer.clone())
    }

    /// Runs a lookup on a thread of its own. The permit goes with the thread, not with the waiting caller: a thread
    /// that hangs keeps its place.
    async fn on_thread<T: Send + 'static>(
        &self,
        lookup: impl FnOnce() -> nix::Result<T> + Send + 'static,
    ) -> Result<T, LookupError> {
        let lookups = Arc::clone(&self.lookups);
        let answer = async move {
            let permit =
                lookups.acquire_owned().await.map_err(|error| LookupError::Failed(error.to_string()))?;
            let looked_up = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                lookup()
            });
            match looked_up.await {
                Ok(answer) => answer.map_err(|errno| LookupError::Failed(errno.to_string())),
                Err(error) => Err(LookupError::Failed(error.to_string())),
            }
        };
        tokio::time::timeout(LOOKUP_DEADLINE, answer)
            .await
            .unwrap_or(Err(LookupError::TimedOut(LOOKUP_DEADLINE)))
    }
}

fn look_up(question: &Question) -> nix::Result<Answer> {
    Ok(match question {
        Question::UserName(uid) => {
            User::from_uid(Uid::from_raw(*uid))?.map_or(Answer::Nobody, |user| Answer::Name(user.name))
        }
        Question::UserId(name) => {
            User::from_name(name)?.map_or(Answer::Nobody, |user| Answer::Id(user.uid.as_raw()))
        }
        Question::GroupId(name) => {
            Group::from_name(name)?.map_or(Answer::Nobody, |group| Answer::Id(group.gid.as_raw()))
        }
    })
}

fn account_identity(uid: u32) -> nix::Result<Option<Identity>> {
    let Some(user) = User::from_uid(Uid::from_raw(uid))? else {
        return Ok(None);
    };
    let name = CString::new(user.name).map_err(|_| nix::errno::Errno::EINVAL)?;
    let groups = nix::unistd::getgrouplist(&name, user.gid)?;
    let groups = groups.into_iter().map(Gid::as_raw).collect();
    Ok(Some(Identity { uid, gid: user.gid.as_raw(), groups }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn roots_account_is_known_and_a_made_up_one_is_not() {
        let accounts = Accounts::default();
        assert_eq!(accounts.user_name(0).await.as_deref(), Some("root"));
        assert_eq!(accounts.user_name(3_999_999_999).await, None);
        assert_eq!(accounts.identity(3_999_999_999).await, Ok(None));
        assert_eq!(accounts.identity(0).await.unwrap().unwrap().gid, 0);
        for (user, known) in [
            ("root", true),
            ("0", true),
            ("no-such-user", false),
            ("3999999999", false),
            ("99999999999", false),
            ("", false),
            ("ro\0ot", false),
        ] {
            let account = accounts.account(user).await.unwrap();
            assert_eq!(account.map(|identity| identity.uid), known.then_some(0), "{user:?}");
        }
        let nobody = Identity { uid: 61_001, gid: 61_001, groups: vec![0] };
        assert!(accounts.admit(&[Principal::Group("root".to_owned())], &nobody).await);
        assert!(!accounts.admit(&[Principal::User("root".to_owned())], &nobody).await);
        assert!(!accounts.admit(&[Principal::User("no-such-user".to_owned())], &nobody).await);
    }

    #[tokio::test]
    async fn hung_lookups_hold_a_bounded_number_of_threads() {
        let accounts = Accounts::default();
        let (release, hung) = std::sync::mpsc::channel::<()>();
        let hung = Arc::new(Mutex::new(hung));
        let waiting: Vec<_> = (0..LOOKUPS_AT_ONCE)
            .map(|_| {
                let (accounts, hung) = (accounts.clone(), Arc::clone(&hung));
                tokio::spawn(async move {
                    accounts.on_thread(move || hung.lock().unwrap().recv().map_err(|_| nix::Error::EIO)).await
                })
            })
            .collect();
        while accounts.lookups.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        for lookup in waiting {
            lookup.abort();
        }
        assert_eq!(accounts.lookups.available_permits(), 0, "a caller that left does not free the thread");
        drop(release);
        let all = u32::try_from(LOOKUPS_AT_ONCE).unwrap();
        drop(accounts.lookups.acquire_many(all).await.unwrap());
    }
}
