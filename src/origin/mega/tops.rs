//! [`Tops`]: the top trees of commits that were the head when somebody asked: a server tells them at no other time.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use crate::types::Oid;

/// Commits that are remembered: a day of heads that somebody mounted, and 40 bytes each.
const TOPS_MAX: usize = 1024;

/// Commit → tree, the oldest forgotten first. Not kept over a restart.
#[derive(Debug, Default)]
pub(super) struct Tops(Mutex<VecDeque<(Oid, Oid)>>);

impl Tops {
    /// The top of `commit` is `tree`.
    pub(super) fn remember(&self, commit: Oid, tree: Oid) {
        let mut tops = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tops.retain(|(known, _)| *known != commit);
        tops.push_back((commit, tree));
        if tops.len() > TOPS_MAX {
            tops.pop_front();
        }
    }

    /// The top of `commit`, if it was the head once when it was asked for.
    pub(super) fn find(&self, commit: Oid) -> Option<Oid> {
        let tops = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tops.iter().find(|(known, _)| *known == commit).map(|(_, tree)| *tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered() {
        let id = |number: usize| {
            let mut bytes = [0; Oid::LEN];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            Oid::from_bytes(bytes)
        };
        let tops = Tops::default();
        (0..TOPS_MAX).for_each(|number| tops.remember(id(number), id(number + 1)));
        tops.remember(id(0), id(7));
        assert_eq!((tops.find(id(0)), tops.find(id(1))), (Some(id(7)), Some(id(2))));
        tops.remember(id(TOPS_MAX), id(9));
        assert_eq!((tops.find(id(0)), tops.find(id(1))), (Some(id(7)), None));
        assert_eq!(tops.find(id(TOPS_MAX)), Some(id(9)));
    }
}
