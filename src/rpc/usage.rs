//! `workspace.usage`: how much lies in uppers, counted when it is asked for.
//!
//! Counting reads as many directories as users have made, so it is bounded all around: a page's time, one call of a user at
//! a time, few of all users, on threads that may wait; and nobody counts for a caller who has gone.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use super::{
    Services,
    failure::Failure,
    module::{Call, Host},
    requests, views,
};
use crate::{
    antares::{Budget, Scope, Usage, Workspace, WorkspaceError},
    api::{CacheUsage, MeasureWorkspaces, UsagePage},
    auth::Action,
    types::WorkspaceId,
};

/// Calls that count at once: more would only make a disk seek.
const AT_ONCE: usize = 2;
/// Workspaces in a page unless asked otherwise.
const PAGE: u32 = 100;
/// Workspaces in a page at most: with the longest paths they fit into an answer.
const PAGE_MAX: u32 = 200;

/// Who may count now. A user's calls wait for one another first, so that nobody waits for more than one call of each other.
pub(super) struct Turns {
    users: Mutex<HashMap<u32, Arc<tokio::sync::Mutex<()>>>>,
    all: Arc<Semaphore>,
}

struct Turn {
    _of_user: OwnedMutexGuard<()>,
    _of_all: OwnedSemaphorePermit,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns { users: Mutex::default(), all: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Turns {
    async fn take(&self, uid: u32) -> Turn {
        let of_user = self.of(uid).lock_owned().await;
        let of_all = Arc::clone(&self.all).acquire_owned().await.expect("this semaphore is never closed");
        Turn { _of_user: of_user, _of_all: of_all }
    }

    fn of(&self, uid: u32) -> Arc<tokio::sync::Mutex<()>> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(users.entry(uid).or_default())
    }
}

/// Ends the counting when nobody waits for it any more.
struct WaitedFor(Budget);

impl Drop for WaitedFor {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

/// What was counted, in the order of ids, and whether there is more.
struct Counted {
    of: Vec<(Workspace, Usage)>,
    more: bool,
}

pub(super) async fn usage(
    host: Arc<Host>,
    call: Call,
    params: MeasureWorkspaces,
) -> Result<UsagePage, Failure> {
    let limit = match params.limit {
        None => PAGE,
        Some(limit @ 1..=PAGE_MAX) => limit,
        Some(_) => return Err(Failure::BadParameter(format!("`limit`: between 1 and {PAGE_MAX}"))),
    };
    let after = params.after.as_deref().map(requests::workspace_id).transpose()?;
    let (scope, wanted) = selected(&host, &call, &params, after.as_ref()).await?;
    // Content that several origins have is counted once: see `counters`.
    let with_cache = call.identity().is_root() && params.after.is_none();
    let _turn = host.measuring.take(call.caller.uid()).await;
    let budget = Budget::until(Instant::now() + host.limits.counting_time);
    let _waited_for = WaitedFor(budget.clone());
    let counting = host.ask(move |services| {
        let counted = count(services, &scope, wanted, limit as usize, &budget)?;
        Ok::<_, Failure>((counted, with_cache.then(|| cache(services)).transpose()?))
    });
    let (Counted { of, more }, cache) = counting.await??;
    let next = of.last().filter(|_| more).map(|(workspace, _)| workspace.id.to_string());
    let mut workspaces = Vec::with_capacity(of.len());
    for (workspace, usage) in of {
        workspaces.push(views::usage(&workspace, usage, &host.services.accounts).await);
    }
    Ok(UsagePage { workspaces, next, cache })
}

/// The workspaces that are asked about, ordered by id.
async fn selected(
    host: &Host,
    call: &Call,
    params: &MeasureWorkspaces,
    after: Option<&WorkspaceId>,
) -> Result<(Scope, Vec<Workspace>), Failure> {
    if let Some(id) = &params.id {
        let id = requests::workspace_id(id)?;
        let scope = host.scope_of(&call.caller, &id).await?;
        let workspace = host.services.workspaces.get(&scope, &id)?;
        return Ok((scope, vec![workspace]));
    }
    let scope = if params.all {
        host.authorize(&call.caller, Action::ManageOthers).await?;
        Scope::Everybody
    } else {
        Scope::User(call.caller.uid())
    };
    let mut all = host.services.workspaces.list(&scope);
    all.retain(|workspace| after.is_none_or(|after| workspace.id > *after));
    Ok((scope, all))
}

fn count(
    services: &Services,
    scope: &Scope,
    wanted: Vec<Workspace>,
    limit: usize,
    budget: &Budget,
) -> Result<Counted, WorkspaceError> {
    let mut of = Vec::new();
    for workspace in wanted {
        if of.len() == limit {
            return Ok(Counted { of, more: true });
        }
        match services.workspaces.measure(scope, &workspace.id, budget) {
            // The time was too short for this one: it gets all of it on the next page.
            Ok(usage) if usage.partial.is_some() && budget.is_spent() && !of.is_empty() => {
                return Ok(Counted { of, more: true });
            }
            Ok(usage) => of.push((workspace, usage)),
            // Taken away meanwhile.
            Err(WorkspaceError::NoSuchWorkspace(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Counted { of, more: false })
}

fn cache(services: &Services) -> Result<CacheUsage, Failure> {
    let stats = services.gauges.cache().map_err(Failure::Internal)?;
    Ok(CacheUsage {
        blob_bytes: stats.blob_bytes,
        database_bytes: stats.database_bytes,
        database_limit_bytes: services.gauges.cache_limit_bytes(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_users_calls_wait_for_one_another_and_let_others_pass() {
        let turns = Arc::new(Turns::default());
        let first = turns.take(1000).await;
        let waiting: Vec<_> = (0..5)
            .map(|_| {
                let turns = Arc::clone(&turns);
                tokio::spawn(async move { drop(turns.take(1000).await) })
            })
            .collect();
        tokio::task::yield_now().await;
        // One of the two is free for somebody else.
        let other = turns.take(1001).await;
        assert_eq!(turns.all.available_permits(), 0);
        assert!(waiting.iter().all(|call| !call.is_finished()));
        drop((first, other));
        for call in waiting {
            call.await.unwrap();
        }
        drop(turns.take(1002).await);
        assert_eq!(turns.users.lock().unwrap().len(), 1, "who waits for nothing is forgotten");
    }
}
