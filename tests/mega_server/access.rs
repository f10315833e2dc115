//! Parts of the namespace that only some tokens may read.
//!
//! The real server asks for no login on these endpoints; a gateway before it does, in the server's own words.

use std::{
    collections::{BTreeSet, HashSet},
    sync::RwLock,
};

use scorpio::types::Oid;

use super::{
    answers::Answer,
    namespace::{Names, Namespace},
    requests::{Asked, Endpoint},
};

#[derive(Default)]
pub struct Access(RwLock<Inner>);

#[derive(Default)]
struct Inner {
    private: Vec<Private>,
    known: BTreeSet<String>,
    expired: BTreeSet<String>,
}

struct Private {
    below: Names,
    blobs: HashSet<Oid>,
    tokens: BTreeSet<String>,
}

impl Access {
    /// What lies below `below` may be read with these tokens alone, and so may the blobs that lie there now.
    pub fn restrict(&self, namespace: &Namespace, below: Names, tokens: &[&str]) {
        let blobs = namespace.blobs_below(&below).into_iter().collect();
        let tokens: BTreeSet<String> = tokens.iter().map(|token| (*token).to_owned()).collect();
        let mut inner = self.0.write().unwrap();
        inner.known.extend(tokens.iter().cloned());
        inner.private.push(Private { below, blobs, tokens });
    }

    /// A token that may read nothing private.
    pub fn know(&self, token: &str) {
        self.0.write().unwrap().known.insert(token.to_owned());
    }

    /// From now on a token is refused, or no longer.
    pub fn expire(&self, token: &str, expired: bool) {
        let mut inner = self.0.write().unwrap();
        match expired {
            true => inner.expired.insert(token.to_owned()),
            false => inner.expired.remove(token),
        };
    }

    /// The refusal, where there is one.
    pub fn refusal(&self, asked: &Asked) -> Option<Answer> {
        let inner = self.0.read().unwrap();
        let concerned: Vec<_> = inner.private.iter().filter(|private| private.concerns(asked)).collect();
        if concerned.is_empty() {
            return None;
        }
        let valid = asked
            .token
            .as_ref()
            .filter(|token| inner.known.contains(*token) && !inner.expired.contains(*token));
        let Some(token) = valid else { return Some(Answer::login_first()) };
        let may = concerned.iter().any(|private| private.tokens.contains(token));
        (!may).then(|| Answer::error(403, "Forbidden: no access to this path"))
    }
}

impl Private {
    fn concerns(&self, asked: &Asked) -> bool {
        match asked.endpoint {
            Endpoint::Status | Endpoint::Unknown => false,
            Endpoint::FileBlob => {
                asked.target.parse().is_ok_and(|oid| self.blobs.contains(&oid)) || self.below.is_empty()
            }
            _ => asked.names.starts_with(&self.below),
        }
    }
}
