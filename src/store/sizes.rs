//! Sizes of the blobs of a directory: one is waited for, the others come with it or behind it.
//!
//! An answer comes when a whole batch has it, and a sibling may hang. So the wanted one goes alone, unless sizes are cheap
//! and few; and who finds it in a batch of somebody else waits a moment only before asking for it alone.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    ObjectStore, Shared,
    flights::{Ticket, Waiting, What},
    landed, not_stored,
    source::Source,
};
use crate::{
    cache::Put,
    origin::{FetchError, Want},
    types::{Oid, OriginName},
};

/// So many sizes come together with the wanted one from an origin that tells them cheaply: one trip and one transaction
/// instead of two of each for nearly every directory, and no longer to wait than some hundred microseconds.
const QUICK_SIZES: usize = 256;

/// How long the wanted size waits for its siblings where sizes are cheap; then one of them hangs.
const QUICK_PATIENCE: Duration = Duration::from_millis(100);

/// The same where each size is a request of its own, and may be the content: less would ask twice for what is only slow.
const DEAR_PATIENCE: Duration = Duration::from_secs(1);

/// Sizes in one request to an origin that may have to send the content for each: as many contents are in memory at once.
const DEAR_BATCH: usize = 16;

/// Batches of siblings' sizes under way at once, of one origin. Nobody waits for them as such, and who does for one of them
/// soon asks for it alone; without a bound, a look into many directories would leave more behind than all others wait for.
pub(super) const BATCHES_BEHIND: usize = 4;

/// Whether somebody waits for sizes.
#[derive(Clone, Copy)]
enum Pace {
    /// For one of them, and perhaps until then and no longer.
    Awaited(Option<Instant>),
    /// For none that is known of.
    Behind,
}

/// A size that this call has to bring.
type SizeFlight = (Want, Ticket);

/// Who asks for which size of a directory.
struct Plan {
    /// The flight of the wanted one, unless its size is known.
    waiting: Option<Waiting>,
    /// The wanted one, if nobody is on the way for it.
    wanted: Vec<SizeFlight>,
    /// All others that are neither known nor under way.
    others: Vec<SizeFlight>,
}

impl ObjectStore {
    /// Learns sizes in bulk: returns as soon as that of `wants[first]` is known (or known not to come); the others
    /// follow in the background, in batches, or come with it when they are few and the origin tells sizes cheaply.
    /// Failures of the others are not reported. A size that is known or already asked for is not asked for again, but
    /// for one that its siblings keep waiting: once more alone. With `first` out of range nothing is waited for.
    pub async fn fetch_sizes(
        &self,
        origin: &OriginName,
        wants: Vec<Want>,
        first: usize,
    ) -> Result<(), FetchError> {
        let source = self.shared.source(origin)?;
        let _user = source.user();
        let asked = wants.get(first).cloned();
        if let Some(asked) = &asked {
            self.shared.let_ahead_land(&source, What::SizeAhead, asked.oid).await;
        }
        let Plan { waiting, mut wanted, mut others } = self.shared.plan_sizes(&source, wants, first)?;
        let is_cheap = source.origin.sizes_are_cheap();
        if is_cheap && others.len() < QUICK_SIZES {
            wanted.append(&mut others);
        }
        let is_alone = wanted.len() == 1;
        for (batch, pace) in [(wanted, Pace::Awaited(self.until)), (others, Pace::Behind)] {
            if !batch.is_empty() {
                self.bring_sizes(&source, batch, pace);
            }
        }
        match (waiting, asked) {
            (Some(waiting), Some(asked)) if !is_alone => self.size_landed(&source, waiting, asked).await,
            (Some(waiting), _) => landed(&source, waiting).await,
            (None, _) => Ok(()),
        }
    }

    /// Waits for a size that comes with others, unless these take long: then it gets a flight of its own.
    async fn size_landed(
        &self,
        source: &Arc<Source>,
        waiting: Waiting,
        want: Want,
    ) -> Result<(), FetchError> {
        let patience = if source.origin.sizes_are_cheap() { QUICK_PATIENCE } else { DEAR_PATIENCE };
        match tokio::time::timeout(patience, landed(source, waiting)).await {
            // It may have been the whole batch that took too long.
            Err(_) | Ok(Err(FetchError::TimedOut { .. })) => {}
            Ok(result) => return result,
        }
        let take_off = |ticket: Ticket| {
            self.bring_sizes(source, vec![(want.clone(), ticket)], Pace::Awaited(self.until));
        };
        self.fly(source, What::SizeAlone, want.oid, take_off).await
    }

    fn bring_sizes(&self, source: &Arc<Source>, batch: Vec<SizeFlight>, pace: Pace) {
        let (shared, source) = (self.shared.clone(), source.clone());
        tokio::spawn(async move { shared.bring_sizes(&source, batch, pace).await });
    }
}

impl Shared {
    fn plan_sizes(&self, source: &Source, wants: Vec<Want>, first: usize) -> Result<Plan, FetchError> {
        let oids: Vec<Oid> = wants.iter().map(|want| want.oid).collect();
        let known = self.cache.sizes(&source.name, &oids);
        let known =
            known.map_err(|why| not_stored(oids.get(first).copied().unwrap_or(Oid::EMPTY_TREE), &why))?;
        let mut plan = Plan { waiting: None, wanted: Vec::new(), others: Vec::new() };
        // The wanted one boards first: named twice in the list, it must not wait for the batch of its other self.
        let mut unknown: Vec<(usize, Want)> =
            wants.into_iter().enumerate().filter(|(index, _)| known[*index].is_none()).collect();
        unknown.sort_by_key(|(index, _)| *index != first);
        for (index, want) in unknown {
            let (waiting, ticket) = self.join(source, What::Size, want.oid);
            let flight = ticket.map(|ticket| (want, ticket));
            if index == first {
                plan.waiting = Some(waiting);
                plan.wanted.extend(flight);
            } else {
                plan.others.extend(flight);
            }
        }
        Ok(plan)
    }

    async fn bring_sizes(&self, source: &Source, flights: Vec<SizeFlight>, pace: Pace) {
        let batch = if source.origin.sizes_are_cheap() { self.batch } else { self.batch.min(DEAR_BATCH) };
        let mut flights = flights.into_iter();
        loop {
            let batch: Vec<SizeFlight> = flights.by_ref().take(batch).collect();
            if batch.is_empty() {
                return;
            }
            let (until, _turn) = match pace {
                Pace::Awaited(until) => (until, None),
                Pace::Behind => (None, source.behind.acquire().await.ok()),
            };
            self.bring_batch(source, batch, until).await;
        }
    }

    async fn bring_batch(&self, source: &Source, batch: Vec<SizeFlight>, until: Option<Instant>) {
        // A flight that ended between the look and the joining has brought its size already.
        let is_known = |want: &Want| self.is_here(&source.name, What::Size, want.oid) == Ok(true);
        let (known, asked): (Vec<_>, Vec<_>) = batch.into_iter().partition(|(want, _)| is_known(want));
        known.into_iter().for_each(|(_, ticket)| ticket.land(Ok(())));
        if asked.is_empty() {
            return;
        }
        let (wants, tickets): (Vec<Want>, Vec<Ticket>) = asked.into_iter().unzip();
        let answers = source.sizes(&wants, until).await;
        let (puts, results): (Vec<Put>, Vec<Result<(), FetchError>>) = sorted(answers);
        let kept = if puts.is_empty() { Ok(()) } else { self.keep(source, wants[0].oid, puts).await };
        for (ticket, result) in tickets.into_iter().zip(results) {
            ticket.land(result.and_then(|()| kept.clone()));
        }
    }
}

/// What is to be kept, and for each answer whether it came.
fn sorted(answers: Vec<Result<Put, FetchError>>) -> (Vec<Put>, Vec<Result<(), FetchError>>) {
    let mut puts = Vec::with_capacity(answers.len());
    let results = answers.into_iter().map(|answer| answer.map(|put| puts.push(put))).collect();
    (puts, results)
}
