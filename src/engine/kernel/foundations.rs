//! What each workspace's mount stands on, kept in the runtime directory: it outlives the process, and not the boot.
//!
//! ```text
//! mounts/<workspace>    "scorpio-mount 1 <session> <major>:<minor> <root> <CRC-32>"   written before the mount is made
//! mounts/pinned-<root>  "scorpio-pin 1 <CRC-32>"                                     a root under a mount ended lazily
//! ```
//!
//! An entry is about the latest mount of its workspace, because a second one is only made when mountinfo shows none. So
//! a successor that goes on with the session under the same connection number knows that the mount it finds is alive.

use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use super::{places, testament::parse_device};
use crate::{
    sys::{durable, mountinfo::DeviceNumber},
    types::{RootId, WorkspaceId},
};

const PINNED: &str = "pinned-";
const MOUNT: &str = "scorpio-mount 1";
const PIN: &str = "scorpio-pin 1";

/// The longest entry that is read; ours have some 120 bytes.
const MAX_ENTRY: usize = 1024;

/// What a mount stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Foundation {
    pub(super) session: String,
    pub(super) device: DeviceNumber,
    pub(super) root: RootId,
}

/// The directory of entries.
#[derive(Debug)]
pub(super) struct Foundations {
    dir: OwnedFd,
}

/// All that is recorded.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    pub(super) mounts: Vec<(WorkspaceId, Foundation)>,
    pub(super) pinned: HashSet<RootId>,
}

impl Foundations {
    /// Opens the directory at `path`, made if it is not there.
    pub(super) fn open(path: &Path) -> Result<Foundations, places::PlaceError> {
        places::make_directory(path)?;
        let dir = durable::open_dir(path).map_err(|source| places::PlaceError::Directory {
            doing: "open",
            path: path.to_owned(),
            source,
        })?;
        Ok(Foundations { dir })
    }

    /// Records what the mount of `workspace` that is about to be made stands on.
    pub(super) fn record(&self, workspace: &WorkspaceId, foundation: &Foundation) -> io::Result<()> {
        durable::write(self.dir.as_fd(), workspace.as_str(), foundation.encode().as_bytes())
    }

    /// The mount of `workspace` is gone.
    pub(super) fn remove(&self, workspace: &WorkspaceId) {
        if let Err(error) = durable::remove(self.dir.as_fd(), workspace.as_str()) {
            // It is replaced before the next mount is made.
            tracing::warn!(scorpio_workspace = %workspace, %error, "the note of what a mount stood on stays");
        }
    }

    /// Somebody may still work on `root`, unseen.
    pub(super) fn pin(&self, root: RootId) {
        if let Err(error) = durable::write(self.dir.as_fd(), &pin_name(root), seal(PIN).as_bytes()) {
            tracing::warn!(%root, %error, "a successor will not know that a root may be in use");
        }
    }

    /// Everything that reads back. What does not is removed: the mount it was about counts as dead.
    pub(super) fn all(&self) -> io::Result<Recorded> {
        let mut recorded = Recorded::default();
        for name in self.names()? {
            if !self.take_up(&name, &mut recorded) {
                tracing::warn!(name, "a note of what a mount stands on makes no sense and is removed");
                durable::remove(self.dir.as_fd(), &name)?;
            }
        }
        Ok(recorded)
    }

    /// Removes all: nothing stands on any session.
    pub(super) fn clear(&self) -> io::Result<()> {
        self.names()?.iter().try_for_each(|name| durable::remove(self.dir.as_fd(), name))
    }

    fn take_up(&self, name: &str, recorded: &mut Recorded) -> bool {
        let Ok(bytes) = durable::read(self.dir.as_fd(), name, MAX_ENTRY) else { return false };
        if let Some(root) = name.strip_prefix(PINNED) {
            let root = root.parse().ok().filter(|_| bytes == seal(PIN).as_bytes());
            return root.map(|root| recorded.pinned.insert(root)).is_some();
        }
        match (name.parse(), Foundation::decode(&bytes)) {
            (Ok(workspace), Some(foundation)) => {
                recorded.mounts.push((workspace, foundation));
                true
            }
            _ => false,
        }
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.dir)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }
}

impl Foundation {
    fn encode(&self) -> String {
        seal(&format!("{MOUNT} {} {} {}", self.session, self.device, self.root))
    }

    fn decode(bytes: &[u8]) -> Option<Foundation> {
        let text = std::str::from_utf8(bytes).ok()?;
        let words: Vec<&str> = text.strip_prefix(MOUNT)?.split(' ').collect();
        let ["", session, device, root, _sum] = words[..] else { return None };
        let (device, root) = (parse_device(device)?, root.parse().ok()?);
        let foundation = Foundation { session: session.to_owned(), device, root };
        (foundation.encode() == text).then_some(foundation)
    }
}

fn pin_name(root: RootId) -> String {
    format!("{PINNED}{root}")
}

fn seal(text: &str) -> String {
    format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Oid;

    fn root(number: u32) -> RootId {
        RootId { number, tree: Oid::EMPTY_TREE }
    }

    fn sample() -> Foundation {
        let device = DeviceNumber { major: 0, minor: 52 };
        Foundation { session: "shared".into(), device, root: root(3) }
    }

    #[test]
    fn an_entry_has_these_bytes_and_no_others_read_back() {
        let bytes = sample().encode();
        let text = format!("scorpio-mount 1 shared 0:52 3-{}", Oid::EMPTY_TREE);
        assert_eq!(bytes, format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes())));
        assert_eq!(Foundation::decode(bytes.as_bytes()), Some(sample()));
        for cut in 0..bytes.len() {
            assert_eq!(Foundation::decode(&bytes.as_bytes()[..cut]), None, "{cut}");
        }
        assert_eq!(Foundation::decode(bytes.replace("0:52", "0:53").as_bytes()), None);
    }

    #[test]
    fn what_was_recorded_is_found_by_the_next_process_and_garbage_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mounts");
        let workspace: WorkspaceId = "abcdefghijkm".parse().unwrap();
        let first = Foundations::open(&path).unwrap();
        first.record(&workspace, &Foundation { root: root(2), ..sample() }).unwrap();
        first.record(&workspace, &sample()).unwrap();
        first.pin(root(9));
        for (name, content) in
            [("abcdefghijkn", "garbage"), ("other", "x"), ("pinned-x", "x"), (".abc.tmp", "half")]
        {
            std::fs::write(path.join(name), content).unwrap();
        }
        let second = Foundations::open(&path).unwrap();
        let recorded = second.all().unwrap();
        assert_eq!(recorded.mounts, [(workspace.clone(), sample())]);
        assert_eq!(recorded.pinned, HashSet::from([root(9)]));
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 2);
        second.remove(&workspace);
        second.remove(&workspace);
        assert!(second.all().unwrap().mounts.is_empty());
        second.clear().unwrap();
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
    }
}
