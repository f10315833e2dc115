//! Every request that reached the server, whatever became of it.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde::Serialize;

use super::requests::{Asked, Endpoint};

/// Requests kept one by one; later ones are only summed up.
const KEPT: usize = 2_000_000;

/// One request.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    pub method: String,
    pub endpoint: Endpoint,
    pub target: String,
    pub token: Option<String>,
    pub uri: String,
    pub proxied: bool,
}

/// Endpoint, method and token.
type Kind = (Endpoint, String, Option<String>);

#[derive(Default)]
pub struct Counts {
    seen: Mutex<Vec<Seen>>,
    sums: Mutex<BTreeMap<Kind, u64>>,
    now: AtomicUsize,
    most: AtomicUsize,
}

/// Requests of one kind.
#[derive(Serialize)]
pub struct Sum {
    endpoint: Endpoint,
    method: String,
    token: Option<String>,
    requests: u64,
}

/// Lives as long as a request is being answered.
pub struct InFlight<'counts>(&'counts Counts);

impl Counts {
    pub fn note(&self, asked: &Asked) {
        let key = (asked.endpoint, asked.method.to_string(), asked.token.clone());
        *self.sums.lock().unwrap().entry(key).or_default() += 1;
        let mut seen = self.seen.lock().unwrap();
        if seen.len() < KEPT {
            seen.push(Seen {
                method: asked.method.to_string(),
                endpoint: asked.endpoint,
                target: asked.target.clone(),
                token: asked.token.clone(),
                uri: asked.uri.clone(),
                proxied: asked.proxied,
            });
        }
    }

    pub fn enter(&self) -> InFlight<'_> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        InFlight(self)
    }

    /// The most requests that were being answered at one time.
    pub fn most_at_once(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    /// Requests that are being answered.
    pub fn in_flight(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn sums(&self) -> Vec<Sum> {
        let sums = self.sums.lock().unwrap();
        let sum = |((endpoint, method, token), requests): (&Kind, &u64)| Sum {
            endpoint: *endpoint,
            method: method.clone(),
            token: token.clone(),
            requests: *requests,
        };
        sums.iter().map(sum).collect()
    }

    /// From now on only what comes from now on counts.
    pub fn forget(&self) {
        self.seen.lock().unwrap().clear();
        self.sums.lock().unwrap().clear();
        self.most.store(self.now.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}
