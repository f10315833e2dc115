//! [`Live`]: a part of the configuration that a reload replaces while others use it.

use std::sync::{Arc, PoisonError, RwLock};

/// A value that is replaced as a whole. Clones are the same value.
#[derive(Debug)]
pub struct Live<T: ?Sized>(Arc<RwLock<Arc<T>>>);

impl<T> Live<T> {
    /// What holds until it is replaced.
    pub fn new(value: T) -> Live<T> {
        Live::from(Arc::new(value))
    }

    /// From now on this holds.
    pub fn replace(&self, value: T) {
        self.put(Arc::new(value));
    }
}

impl<T: ?Sized> Live<T> {
    /// As it is now; whoever holds it does not notice that it is replaced.
    pub fn now(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on this holds.
    pub fn put(&self, value: Arc<T>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

impl<T: ?Sized> From<Arc<T>> for Live<T> {
    fn from(value: Arc<T>) -> Live<T> {
        Live(Arc::new(RwLock::new(value)))
    }
}

impl<T: ?Sized> Clone for Live<T> {
    fn clone(&self) -> Live<T> {
        Live(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_see_what_replaced_it_and_holders_keep_what_they_had() {
        let live = Live::new(1);
        let (clone, held) = (live.clone(), live.now());
        live.replace(2);
        assert_eq!((*clone.now(), *held), (2, 1));
    }
}
