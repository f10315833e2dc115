//! [`Sources`]: the origins behind the store, those of single users opened when they are first asked for.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use super::{boundaries::Boundaries, source::Source};
use crate::{origin::Origin, types::OriginName};

/// Opens an origin that was not there at the start; `None` for one that there is not. Must not wait.
pub type Opener = Box<dyn Fn(&OriginName) -> Option<Arc<dyn Origin>> + Send + Sync>;

/// Origins by name. One that was opened stays until it is closed: there are as many as users have logins.
pub(super) struct Sources {
    known: RwLock<BTreeMap<OriginName, Arc<Source>>>,
    open: Opener,
    /// Where boundaries are kept.
    state_dir: PathBuf,
}

impl Sources {
    pub(super) fn new(
        origins: BTreeMap<OriginName, Arc<dyn Origin>>,
        open: Opener,
        state_dir: &Path,
    ) -> Sources {
        let source = |(name, origin): (OriginName, _)| (name.clone(), source(state_dir, name, origin));
        let known = RwLock::new(origins.into_iter().map(source).collect());
        Sources { known, open, state_dir: state_dir.to_owned() }
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
        let source = source(&self.state_dir, name.clone(), (self.open)(name)?);
        known.insert(name.clone(), source.clone());
        Some(source)
    }

    /// Forgets one that was opened: the next request opens it anew. Requests under way end as they would.
    pub(super) fn close(&self, name: &OriginName) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Puts `origin` in the place of the one of its name, if there is one.
    pub(super) fn put(&self, origin: Arc<dyn Origin>) {
        let name = origin.name().clone();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let source = match known.get(&name) {
            Some(before) => Arc::new(before.renewed(origin)),
            None => source(&self.state_dir, name.clone(), origin),
        };
        known.insert(name, source);
    }

    /// Forgets the origin of this name and all views of it.
    pub(super) fn close_all(&self, configured: &OriginName) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|name, _| name.configured() != *configured);
    }

    pub(super) fn all(&self) -> Vec<Arc<Source>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

fn source(state_dir: &Path, name: OriginName, origin: Arc<dyn Origin>) -> Arc<Source> {
    let boundaries = Boundaries::open(state_dir, &name);
    Arc::new(Source::new(name, origin, boundaries))
}
