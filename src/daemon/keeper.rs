//! The service manager as keeper of FUSE sessions: what it passed to this process, and what it is given for the next.
//!
//! Each session is stored as two descriptors under `session-<name>`: its device, and a sealed memory file with its
//! record. They are told apart by what they are; the manager keeps no order.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use rustix::fs::{FileType, fstat};

use crate::{
    engine::handover::{Inherited, SessionKeeper},
    sys::fdstore,
};

const PREFIX: &str = "session-";

/// Longest record that is read; the engine's have some 250 bytes.
const MAX_RECORD: usize = 4096;

/// Descriptors stored for each session.
const PER_SESSION: usize = 2;

/// `FileDescriptorStoreMax=` of the unit, where the manager does not say how much room there is (before systemd 254).
const ROOM: usize = 4096;

/// Stores sessions with the service manager.
#[derive(Debug)]
pub struct ManagerKeeper {
    room: usize,
    kept: Mutex<BTreeSet<String>>,
}

impl ManagerKeeper {
    /// With `room` for so many descriptors, if the manager says so.
    pub fn new(room: Option<usize>) -> ManagerKeeper {
        ManagerKeeper { room: room.unwrap_or(ROOM), kept: Mutex::default() }
    }

    /// Those it holds already, from the process before.
    pub fn holding(self, inherited: &[Inherited]) -> ManagerKeeper {
        let names = inherited.iter().map(|session| session.name.clone()).collect();
        ManagerKeeper { kept: Mutex::new(names), ..self }
    }

    fn locked<T>(&self, work: impl FnOnce(&mut BTreeSet<String>) -> T) -> T {
        work(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl SessionKeeper for ManagerKeeper {
    fn keep(&self, name: &str, device: BorrowedFd<'_>, record: &[u8]) -> io::Result<()> {
        // The manager drops what does not fit, and tells nobody.
        let fits = self.locked(|kept| {
            kept.insert(name.to_owned());
            let fits = kept.len() * PER_SESSION <= self.room;
            if !fits {
                kept.remove(name);
            }
            fits
        });
        if !fits {
            let room = self.room;
            return Err(io::Error::other(format!(
                "the service manager keeps {room} descriptors, and no more"
            )));
        }
        let memory = fdstore::memory_file("scorpio-session", record)?;
        fdstore::store(&format!("{PREFIX}{name}"), &[device, memory.as_fd()])
    }

    fn forget(&self, name: &str) -> io::Result<()> {
        self.locked(|kept| kept.remove(name));
        fdstore::forget(&format!("{PREFIX}{name}"))
    }
}

/// Takes the sessions out of what the manager passed; the rest comes back. Of a session that is not there as a whole the
/// manager forgets what it has.
pub fn take_sessions(
    passed: Vec<(String, OwnedFd)>,
    keeper: &dyn SessionKeeper,
) -> (Vec<Inherited>, Vec<(String, OwnedFd)>) {
    let mut parts: BTreeMap<String, Vec<OwnedFd>> = BTreeMap::new();
    let mut rest = Vec::new();
    for (name, fd) in passed {
        match name.strip_prefix(PREFIX) {
            Some(session) => parts.entry(session.to_owned()).or_default().push(fd),
            None => rest.push((name, fd)),
        }
    }
    let mut inherited = Vec::new();
    for (name, fds) in parts {
        match assemble(fds) {
            Ok((device, record)) => inherited.push(Inherited { name, device, record }),
            Err(reason) => {
                tracing::warn!(session = name, reason, "what is left of a session is of no use");
                if let Err(error) = keeper.forget(&name) {
                    tracing::warn!(session = name, %error, "it stays in the descriptor store");
                }
            }
        }
    }
    (inherited, rest)
}

/// The device and the record among `fds`.
fn assemble(fds: Vec<OwnedFd>) -> Result<(OwnedFd, Vec<u8>), &'static str> {
    let (mut devices, mut records) = (Vec::new(), Vec::new());
    for fd in fds {
        match fstat(&fd).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::CharacterDevice) => devices.push(fd),
            Ok(FileType::RegularFile) => records.push(fd),
            _ => return Err("a descriptor is neither a device nor a record"),
        }
    }
    let [record] = &records[..] else { return Err("there is not one record") };
    let content = fdstore::read_memory_file(record, MAX_RECORD).map_err(|_| "its record cannot be read")?;
    let device = devices.pop().ok_or("its device is gone: the kernel has ended it")?;
    if devices.is_empty() { Ok((device, content)) } else { Err("there is more than one device") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::handover::NoKeeper;

    fn device() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    fn record() -> OwnedFd {
        fdstore::memory_file("test", b"record").unwrap()
    }

    fn names(passed: Vec<(&str, OwnedFd)>) -> (Vec<String>, Vec<String>) {
        let passed = passed.into_iter().map(|(name, fd)| (name.to_owned(), fd)).collect();
        let (inherited, rest) = take_sessions(passed, &NoKeeper);
        assert!(inherited.iter().all(|session| session.record == b"record"));
        (
            inherited.into_iter().map(|session| session.name).collect(),
            rest.into_iter().map(|(name, _)| name).collect(),
        )
    }

    #[test]
    fn a_session_is_a_device_and_a_record_in_any_order() {
        let passed = vec![
            ("session-shared", record()),
            ("control", device()),
            ("session-owner-1", device()),
            ("session-shared", device()),
            ("session-owner-1", record()),
        ];
        assert_eq!(names(passed), (vec!["owner-1".to_owned(), "shared".into()], vec!["control".to_owned()]));
    }

    #[test]
    fn a_session_that_is_not_whole_is_not_taken() {
        let long = fdstore::memory_file("test", &[0; MAX_RECORD + 1]).unwrap();
        let socket = || OwnedFd::from(std::os::unix::net::UnixDatagram::unbound().unwrap());
        for parts in [
            vec![device()],
            vec![record()],
            vec![device(), long],
            vec![device(), device(), record()],
            vec![device(), record(), record()],
            vec![device(), record(), socket()],
        ] {
            let passed = parts.into_iter().map(|fd| ("session-shared", fd)).collect();
            assert_eq!(names(passed), (vec![], vec![]));
        }
    }

    #[test]
    fn what_would_overflow_the_store_is_refused() {
        // Without a manager, storing does nothing and succeeds.
        let keeper = ManagerKeeper::new(Some(5));
        let keep = |name: &str| keeper.keep(name, device().as_fd(), b"record").is_ok();
        assert!(keep("a") && keep("b") && keep("b") && !keep("c"));
        keeper.forget("a").unwrap();
        assert!(keep("c"));
    }
}
