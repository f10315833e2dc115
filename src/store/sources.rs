//! [`Sources`]: the origins behind the store, those of single users opened when they are first asked for.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use super::source::Source;
use crate::{origin::Origin, types::OriginName};

/// Opens an origin that was not there at the start; `None` for one that there is not. Must not wait.
pub type Opener = Box<dyn Fn(&OriginName) -> Option<Arc<dyn Origin>> + Send + Sync>;

/// Origins by name. One that was opened stays until it is closed: there are as many as users have logins.
pub(super) struct Sources {
    known: RwLock<BTreeMap<OriginName, Arc<Source>>>,
    open: Opener,
}

impl Sources {
    pub(super) fn new(origins: BTreeMap<OriginName, Arc<dyn Origin>>, open: Opener) -> Sources {
        let source = |(name, origin): (OriginName, _)| (name.clone(), Arc::new(Source::new(name, origin)));
        Sources { known: RwLock::new(origins.into_iter().map(source).collect()), open }
    }

    pub(super) fn get(&self, name: &OriginName) -> Option<Arc<Source>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        known.or_else(|| self.open(name))
    }

    fn open(&self, name: &OriginName) -> Option<Arc<Source>> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have been quicker; two sources of one origin would fetch an object twice.
        if let Some(source) = known.get(name) {
            return Some(source.clone());
        }
        let source = Arc::new(Source::new(name.clone(), (self.open)(name)?));
        known.insert(name.clone(), source.clone());
        Some(source)
    }

    /// Forgets one that was opened: the next request opens it anew. Requests under way end as they would.
    pub(super) fn close(&self, name: &OriginName) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    pub(super) fn all(&self) -> Vec<Arc<Source>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
