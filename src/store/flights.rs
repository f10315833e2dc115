//! One flight per object, however many wait for it. Knows neither origins nor the cache.
//!
//! Whoever asks first gets a [`Ticket`] and brings the object; all others wait on the same flight. A flight is over,
//! and forgotten, before its outcome is told: who asks after that starts anew, so a failure is no answer to anybody
//! who came later. A ticket that is dropped (a panic, the runtime's end) ends its flight as [`Outcome::Lost`].

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::{
    origin::FetchError,
    types::{Oid, OriginName},
};

/// What is fetched of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum What {
    Tree,
    Blob,
    Size,
    /// The same, on a flight of its own.
    SizeAlone,
    /// A tree that nobody has asked for yet.
    TreeAhead,
    /// A size that nobody has asked for yet.
    SizeAhead,
}

/// What one flight brings.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Cargo {
    pub(super) origin: OriginName,
    pub(super) what: What,
    pub(super) oid: Oid,
}

/// How a flight ended.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// With this result.
    Landed(Result<(), FetchError>),
    /// Without one.
    Lost,
}

/// All flights under way. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Flights {
    board: Arc<Mutex<HashMap<Cargo, Waiting>>>,
}

/// A place on a flight.
#[derive(Clone)]
pub(super) struct Waiting(watch::Receiver<Option<Outcome>>);

/// The duty to bring the cargo.
pub(super) struct Ticket {
    cargo: Cargo,
    flights: Flights,
    outcome: watch::Sender<Option<Outcome>>,
}

impl Flights {
    /// Joins the flight of `cargo`; who is the first also gets the ticket.
    pub(super) fn join(&self, cargo: Cargo) -> (Waiting, Option<Ticket>) {
        match self.board().entry(cargo) {
            Entry::Occupied(flight) => (flight.get().clone(), None),
            Entry::Vacant(vacant) => {
                let (outcome, waiting) = watch::channel(None);
                let waiting = Waiting(waiting);
                let ticket = Ticket { cargo: vacant.key().clone(), flights: self.clone(), outcome };
                vacant.insert(waiting.clone());
                (waiting, Some(ticket))
            }
        }
    }

    /// Whether there is such a flight now.
    pub(super) fn is_under_way(&self, cargo: &Cargo) -> bool {
        self.board().contains_key(cargo)
    }

    /// A place on the flight of `cargo`, if there is such a flight now.
    pub(super) fn find(&self, cargo: &Cargo) -> Option<Waiting> {
        self.board().get(cargo).cloned()
    }

    fn board(&self) -> MutexGuard<'_, HashMap<Cargo, Waiting>> {
        // Nothing that can panic runs under this lock; were it poisoned, the map would still be whole.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// The outcome, when it is there.
    pub(super) async fn outcome(mut self) -> Outcome {
        match self.0.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            _ => Outcome::Lost,
        }
    }
}

impl Ticket {
    /// Ends the flight: forgotten first, then told.
    pub(super) fn land(self, result: Result<(), FetchError>) {
        self.flights.board().remove(&self.cargo);
        self.outcome.send_replace(Some(Outcome::Landed(result)));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.outcome.borrow().is_none() {
            self.flights.board().remove(&self.cargo);
            self.outcome.send_replace(Some(Outcome::Lost));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn cargo() -> Cargo {
        Cargo { origin: "o".parse().unwrap(), what: What::Blob, oid: Oid::EMPTY_TREE }
    }

    fn told(waiting: &Waiting) -> Option<Outcome> {
        waiting.clone().outcome().now_or_never()
    }

    #[test]
    fn a_second_caller_shares_the_flight_until_it_lands() {
        let flights = Flights::default();
        let (first, ticket) = flights.join(cargo());
        let (second, none) = flights.join(cargo());
        assert!(none.is_none());
        assert!(told(&first).is_none());
        ticket.unwrap().land(Ok(()));
        for waiting in [first, second] {
            assert!(matches!(told(&waiting), Some(Outcome::Landed(Ok(())))));
        }
        assert!(flights.join(cargo()).1.is_some(), "the flight was not forgotten");
    }

    #[test]
    fn a_dropped_ticket_is_told_and_forgotten() {
        let flights = Flights::default();
        let (waiting, ticket) = flights.join(cargo());
        drop(ticket);
        assert!(matches!(told(&waiting), Some(Outcome::Lost)));
        assert!(flights.join(cargo()).1.is_some());
    }

    #[test]
    fn a_flight_of_another_kind_or_origin_is_another_flight() {
        let flights = Flights::default();
        let _held = flights.join(cargo());
        assert!(flights.join(Cargo { what: What::Size, ..cargo() }).1.is_some());
        assert!(flights.join(Cargo { origin: "p".parse().unwrap(), ..cargo() }).1.is_some());
    }
}
