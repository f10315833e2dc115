//! The service manager as keeper of FUSE sessions: what it passed to this process, and what it is given for the next.
//!
//! Each session is stored as two or three descriptors under `session-<name>`: its device, a sealed memory file with its
//! record, and where the kernel does not ask again a writable one with its unanswered requests. They are told apart by
//! what they are; the manager keeps no order.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use rustix::fs::{FileType, fstat};

use crate::{
    engine::handover::{Inherited, Keepsake, SessionKeeper},
    sys::{fdstore, shared},
    telemetry::event,
};

const PREFIX: &str = "session-";

/// Longest record that is read; the engine's have some 250 bytes.
const MAX_RECORD: usize = 4096;

/// Descriptors stored for a session without slots; with them there is one more.
const PER_SESSION: usize = 2;

/// `FileDescriptorStoreMax=` of the unit, where the manager does not say how much room there is (before systemd 254).
const ROOM: usize = 4096;

/// Stores sessions with the service manager.
#[derive(Debug)]
pub struct ManagerKeeper {
    room: usize,
    /// How many descriptors of each session.
    kept: Mutex<BTreeMap<String, usize>>,
}

impl ManagerKeeper {
    /// With `room` for so many descriptors, if the manager says so.
    pub fn new(room: Option<usize>) -> ManagerKeeper {
        ManagerKeeper { room: room.unwrap_or(ROOM), kept: Mutex::default() }
    }

    /// Those it holds already, from the process before.
    pub fn holding(self, inherited: &[Inherited]) -> ManagerKeeper {
        let count = |session: &Inherited| PER_SESSION + usize::from(session.slots.is_some());
        let kept = inherited.iter().map(|session| (session.name.clone(), count(session))).collect();
        ManagerKeeper { kept: Mutex::new(kept), ..self }
    }

    fn locked<T>(&self, work: impl FnOnce(&mut BTreeMap<String, usize>) -> T) -> T {
        work(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl SessionKeeper for ManagerKeeper {
    fn keep(&self, name: &str, session: &Keepsake<'_>) -> io::Result<()> {
        // The manager drops what does not fit, and tells nobody.
        let fits = self.locked(|kept| {
            kept.insert(name.to_owned(), PER_SESSION + usize::from(session.slots.is_some()));
            let fits = kept.values().sum::<usize>() <= self.room;
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
        let memory = fdstore::memory_file("scorpio-session", session.record)?;
        let mut descriptors = vec![session.device, memory.as_fd()];
        descriptors.extend(session.slots);
        fdstore::store(&format!("{PREFIX}{name}"), &descriptors)
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
            Ok((device, record, slots)) => inherited.push(Inherited { name, device, record, slots }),
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

/// Lets go of all `sessions`, `because` of what came before: those who wait in them get an error, once nobody else holds
/// the devices either.
pub fn let_go(sessions: Vec<Inherited>, keeper: &dyn SessionKeeper, because: &str) {
    for session in sessions {
        tracing::error!(
            message_id = event::SESSION_ENDED,
            session = session.name,
            because,
            "a session is let go: {because}; its workspaces are mounted again"
        );
        if let Err(error) = keeper.forget(&session.name) {
            tracing::warn!(session = session.name, %error, "it stays in the descriptor store");
        }
    }
}

/// The device, the record and the slots among `fds`.
fn assemble(fds: Vec<OwnedFd>) -> Result<(OwnedFd, Vec<u8>, Option<OwnedFd>), &'static str> {
    let (mut devices, mut records, mut slots) = (Vec::new(), Vec::new(), Vec::new());
    for fd in fds {
        match fstat(&fd).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::CharacterDevice) => devices.push(fd),
            Ok(FileType::RegularFile) if shared::length_of_writable(&fd).is_some() => slots.push(fd),
            Ok(FileType::RegularFile) => records.push(fd),
            _ => return Err("a descriptor is neither a device nor a record"),
        }
    }
    let [record] = &records[..] else { return Err("there is not one record") };
    let content = fdstore::read_memory_file(record, MAX_RECORD).map_err(|_| "its record cannot be read")?;
    let device = devices.pop().ok_or("its device is gone: the kernel has ended it")?;
    match (devices.is_empty(), slots.len()) {
        (true, 0 | 1) => Ok((device, content, slots.pop())),
        _ => Err("there is more than one device, or memory of requests"),
    }
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

    fn slots() -> OwnedFd {
        shared::writable_memory_file("test", 4096).unwrap()
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
    fn slots_are_told_from_the_record_in_any_order() {
        for parts in [vec![device(), record(), slots()], vec![slots(), record(), device()]] {
            let passed = parts.into_iter().map(|fd| ("session-shared".to_owned(), fd)).collect();
            let (inherited, _) = take_sessions(passed, &NoKeeper);
            let [session] = &inherited[..] else { panic!("{inherited:?}") };
            assert_eq!(session.record, b"record");
            assert_eq!(shared::length_of_writable(session.slots.as_ref().unwrap()), Some(4096));
        }
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
            vec![device(), slots()],
            vec![device(), record(), slots(), slots()],
        ] {
            let passed = parts.into_iter().map(|fd| ("session-shared", fd)).collect();
            assert_eq!(names(passed), (vec![], vec![]));
        }
    }

    #[test]
    fn what_would_overflow_the_store_is_refused() {
        // Without a manager, storing does nothing and succeeds.
        let keeper = ManagerKeeper::new(Some(5));
        let (device, slots) = (device(), slots());
        let keep = |name: &str, slots| {
            keeper.keep(name, &Keepsake { device: device.as_fd(), record: b"record", slots }).is_ok()
        };
        assert!(keep("a", None) && keep("b", None) && keep("b", None) && !keep("c", None));
        keeper.forget("a").unwrap();
        assert!(keep("c", Some(slots.as_fd())), "two and three");
        keeper.forget("b").unwrap();
        assert!(!keep("d", Some(slots.as_fd())) && keep("d", None));
    }
}
