//! Boundaries of one origin: ids that stand for a tree without being its id, each with the tree it was first found to
//! stand for. The first word holds for ever, so that a mount never shows two states of one directory.
//!
//! It is kept apart from the cache, which may be lost: what was mounted stands on it.
//!
//! ```text
//! STATE/boundaries/ORIGIN   "scorpio boundaries 1\n" · (id that stands · id of the tree)* · crc32 of all before it u32
//! ```
//!
//! A file that is damaged is left as it is, and from then on no boundary of the origin can be crossed: to fix them anew
//! might put another tree under a living mount, which is for an operator to decide.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use crate::{
    sys::durable,
    types::{Oid, OriginName},
};

/// Boundaries kept of one origin: 640 KiB of file, written whole for each new one. Every release of a repository shown in a
/// monorepo is one more, once somebody has looked into it.
const MAX: usize = 16_384;

const MAGIC: &[u8] = b"scorpio boundaries 1\n";
const PAIR: usize = 2 * Oid::LEN;
const CRC: usize = 4;

/// Why a boundary cannot be fixed.
#[derive(Debug, thiserror::Error)]
pub(super) enum BoundaryError {
    #[error("it was another tree when it was first found")]
    Taken,
    #[error("a boundary leads to another boundary")]
    Chain,
    #[error("{MAX} boundaries of this origin are recorded, and there may be no more; see {}", path.display())]
    Full { path: PathBuf },
    #[error("the record of boundaries {} is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("the record of boundaries {} cannot be written: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// The boundaries of one origin, in memory and on disk.
pub(super) struct Boundaries {
    dir: PathBuf,
    name: String,
    /// What holds, or why nothing can be known.
    fixed: RwLock<Result<Arc<Fixed>, String>>,
    /// Held by who writes the file.
    writing: Mutex<()>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Fixed {
    trees: BTreeMap<Oid, Oid>,
    /// All trees that something stands for.
    behind: BTreeSet<Oid>,
}

impl Boundaries {
    /// Those recorded below `state_dir`.
    pub(super) fn open(state_dir: &Path, origin: &OriginName) -> Boundaries {
        let (dir, name) = (state_dir.join("boundaries"), origin.as_str().to_owned());
        let fixed = read(&dir, &name).map(Arc::new);
        if let Err(reason) = &fixed {
            tracing::warn!(scorpio_origin = %origin, path = %dir.join(&name).display(), reason, "the record of boundaries is damaged: directories behind one cannot be listed anew (see OPERATIONS)");
        }
        Boundaries { dir, name, fixed: RwLock::new(fixed), writing: Mutex::default() }
    }

    /// The tree that `oid` stands for; itself, if no boundary is known there.
    pub(super) fn stands_for(&self, oid: Oid) -> Oid {
        let fixed = self.fixed.read().unwrap_or_else(PoisonError::into_inner);
        fixed.as_ref().ok().and_then(|fixed| fixed.trees.get(&oid).copied()).unwrap_or(oid)
    }

    /// Records that `oid` stands for `tree`, unless it is known to stand for another. Waits for the disk.
    pub(super) fn fix(&self, oid: Oid, tree: Oid) -> Result<(), BoundaryError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.dir.join(&self.name);
        let before = self.fixed.read().unwrap_or_else(PoisonError::into_inner).clone();
        let before = before.map_err(|reason| BoundaryError::Damaged { path: path.clone(), reason })?;
        match before.trees.get(&oid) {
            Some(known) if *known == tree => return Ok(()),
            Some(_) => return Err(BoundaryError::Taken),
            // It is the tree of a boundary itself, and now the server has another one there.
            None if before.behind.contains(&oid) => return Err(BoundaryError::Taken),
            None if before.trees.contains_key(&tree) => return Err(BoundaryError::Chain),
            None if before.trees.len() >= MAX => return Err(BoundaryError::Full { path }),
            None => {}
        }
        let mut fixed = Fixed::clone(&before);
        fixed.trees.insert(oid, tree);
        fixed.behind.insert(tree);
        write(&self.dir, &self.name, &fixed.encode()).map_err(|source| BoundaryError::Io { path, source })?;
        *self.fixed.write().unwrap_or_else(PoisonError::into_inner) = Ok(Arc::new(fixed));
        Ok(())
    }
}

impl Fixed {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for (oid, tree) in &self.trees {
            bytes.extend(oid.as_bytes());
            bytes.extend(tree.as_bytes());
        }
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Fixed, &'static str> {
        let (content, crc) = bytes.split_last_chunk::<CRC>().ok_or("it is too short")?;
        let pairs = content.strip_prefix(MAGIC).ok_or("it does not begin as one")?;
        if crc32fast::hash(content) != u32::from_le_bytes(*crc) {
            return Err("its checksum is wrong");
        }
        let (pairs, rest) = pairs.as_chunks::<PAIR>();
        let oid = |bytes: &[u8]| Oid::from_slice(bytes).expect("half of a pair is as long as an id");
        let pairs = pairs.iter().map(|pair| (oid(&pair[..Oid::LEN]), oid(&pair[Oid::LEN..])));
        let trees: BTreeMap<Oid, Oid> = pairs.collect();
        let fixed = Fixed { behind: trees.values().copied().collect(), trees };
        // Anything that was not written like this (twice the same id, an incomplete pair) was not written by us.
        if rest.is_empty() && fixed.encode() == bytes { Ok(fixed) } else { Err("it makes no sense") }
    }
}

/// What is recorded; nothing, if there is no record.
fn read(dir: &Path, name: &str) -> Result<Fixed, String> {
    let max = MAGIC.len() + MAX * PAIR + CRC;
    let bytes = durable::open_dir(dir).and_then(|dir| durable::read(dir.as_fd(), name, max));
    match bytes {
        Ok(bytes) => Fixed::decode(&bytes).map_err(str::to_owned),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(Fixed::default()),
        Err(why) => Err(why.to_string()),
    }
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    durable::make_dirs(dir)?;
    durable::write(durable::open_dir(dir)?.as_fd(), name, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oid(number: u8) -> Oid {
        Oid::from_bytes([number; 20])
    }

    fn open(dir: &Path) -> Boundaries {
        Boundaries::open(dir, &"mega+1000".parse().unwrap())
    }

    #[test]
    fn record_bytes_are_pinned() {
        let fixed = Fixed { trees: BTreeMap::from([(oid(1), oid(2))]), behind: BTreeSet::from([oid(2)]) };
        let content = [MAGIC, &[1; 20], &[2; 20]].concat();
        assert_eq!(fixed.encode(), [content.as_slice(), &crc32fast::hash(&content).to_le_bytes()].concat());
        assert_eq!(Fixed::decode(&fixed.encode()), Ok(fixed));
    }

    #[test]
    fn the_first_word_on_a_boundary_holds_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let boundaries = open(dir.path());
        assert_eq!(boundaries.stands_for(oid(1)), oid(1));
        boundaries.fix(oid(1), oid(2)).unwrap();
        boundaries.fix(oid(1), oid(2)).unwrap();
        assert!(matches!(boundaries.fix(oid(1), oid(3)), Err(BoundaryError::Taken)));
        assert!(matches!(boundaries.fix(oid(2), oid(3)), Err(BoundaryError::Taken)));
        assert!(matches!(boundaries.fix(oid(4), oid(1)), Err(BoundaryError::Chain)));
        boundaries.fix(oid(5), oid(2)).unwrap();
        for boundaries in [boundaries, open(dir.path())] {
            let trees = [1, 2, 4, 5].map(|number| boundaries.stands_for(oid(number)));
            assert_eq!(trees, [oid(2), oid(2), oid(4), oid(2)]);
        }
    }

    #[test]
    fn answers_that_come_at_once_agree() {
        let dir = tempfile::tempdir().unwrap();
        let boundaries = open(dir.path());
        let fix = &|tree: u8| boundaries.fix(oid(1), oid(tree)).is_ok();
        let fixed: Vec<bool> = std::thread::scope(|scope| {
            let threads: Vec<_> = (10..18).map(|tree| scope.spawn(move || fix(tree))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(fixed.iter().filter(|is_first| **is_first).count(), 1);
        let winner = 10 + u8::try_from(fixed.iter().position(|is_first| *is_first).unwrap()).unwrap();
        assert_eq!(boundaries.stands_for(oid(1)), oid(winner));
        assert_eq!(open(dir.path()).stands_for(oid(1)), oid(winner));
    }

    #[test]
    fn a_damaged_record_is_left_alone_and_fixes_nothing_anew() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).fix(oid(1), oid(2)).unwrap();
        let path = dir.path().join("boundaries/mega+1000");
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            let boundaries = open(dir.path());
            for number in [1, 9] {
                let fixed = boundaries.fix(oid(number), oid(3));
                assert!(matches!(fixed, Err(BoundaryError::Damaged { .. })), "byte {at}: {fixed:?}");
            }
            assert_eq!(std::fs::read(&path).unwrap(), bad);
        }
        std::fs::write(&path, &good[..good.len() - PAIR - CRC]).unwrap();
        assert!(open(dir.path()).fix(oid(1), oid(3)).is_err(), "cut short");
        std::fs::write(&path, good).unwrap();
        assert_eq!(open(dir.path()).stands_for(oid(1)), oid(2));
    }

    #[test]
    fn there_may_be_so_many_boundaries_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let numbered = |number: usize| {
            let mut bytes = [0; 20];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            Oid::from_bytes(bytes)
        };
        let trees: BTreeMap<Oid, Oid> = (0..MAX).map(|number| (numbered(number), oid(0xee))).collect();
        let full = Fixed { behind: trees.values().copied().collect(), trees };
        write(&dir.path().join("boundaries"), "mega+1000", &full.encode()).unwrap();
        let boundaries = open(dir.path());
        assert_eq!(boundaries.stands_for(numbered(MAX - 1)), oid(0xee));
        assert!(matches!(boundaries.fix(numbered(MAX), oid(1)), Err(BoundaryError::Full { .. })));
        boundaries.fix(numbered(7), oid(0xee)).unwrap();
    }
}
