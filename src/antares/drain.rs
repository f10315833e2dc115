//! Draining: no user gets a new mount, until an administrator says otherwise.
//!
//! A file in the state directory says so, so that it outlives the daemon and the boot. That it is there is what counts; what
//! stands in it tells since when and by whom:
//!
//! ```text
//! scorpio-drain 1 <uid> <seconds since 1970> <CRC-32>
//! ```
//!
//! Mounts that stand are left alone. They come back after a restart, too: only what users ask for is refused. A mount that
//! is being made when draining begins is refused at its last step, or it was announced before; so whoever lists workspaces
//! afterwards sees all that there will be.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{Draining, WorkspaceError, inner::Inner, record::seconds, table::lock};
use crate::{sys::durable, telemetry::event};

const NAME: &str = "drain";
const FORMAT: &str = "scorpio-drain 1";
/// The longest file that is read; ours have some 50 bytes.
const MAX_BYTES: usize = 256;

/// Whether the host is being drained.
pub(super) struct Drain {
    dir: OwnedFd,
    path: PathBuf,
    now: Mutex<Option<Draining>>,
    /// Held while the file is changed, which may wait for the disk.
    changing: Mutex<()>,
}

impl Drain {
    /// Finds out what an earlier daemon left.
    pub(super) fn open(state_dir: &Path) -> Result<Drain, WorkspaceError> {
        let path = state_dir.to_owned();
        let dir = durable::open_dir(state_dir).map_err(|source| WorkspaceError::Disk {
            action: "open",
            path,
            source,
        })?;
        let left = match durable::read(dir.as_fd(), NAME, MAX_BYTES) {
            Ok(bytes) => Some(decode(&bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            // Whatever is wrong with it, somebody wanted no more mounts.
            Err(_) => Some(Draining::default()),
        };
        if let Some(Draining { by, .. }) = left {
            tracing::info!(message_id = event::DRAIN_BEGUN, by_uid = by, "this host is still being drained");
        }
        Ok(Drain { dir, path: state_dir.join(NAME), now: Mutex::new(left), changing: Mutex::default() })
    }

    /// Since when and by whom, if it is. Never waits for the disk.
    pub(super) fn now(&self) -> Option<Draining> {
        *lock(&self.now)
    }

    /// Begins, unless it has begun; whether it has begun now.
    fn begin(&self, by: u32) -> Result<(Draining, bool), WorkspaceError> {
        let _alone = lock(&self.changing);
        if let Some(draining) = self.now() {
            return Ok((draining, false));
        }
        let since = UNIX_EPOCH + Duration::from_secs(seconds(SystemTime::now()));
        let draining = Draining { since: Some(since), by: Some(by) };
        let written = durable::write(self.dir.as_fd(), NAME, encode(by, seconds(since)).as_bytes());
        written.map_err(|source| self.failed("write", source))?;
        *lock(&self.now) = Some(draining);
        Ok((draining, true))
    }

    /// Ends it; whether it was.
    fn end(&self) -> Result<bool, WorkspaceError> {
        let _alone = lock(&self.changing);
        durable::remove(self.dir.as_fd(), NAME).map_err(|source| self.failed("remove", source))?;
        Ok(lock(&self.now).take().is_some())
    }

    fn failed(&self, action: &'static str, source: std::io::Error) -> WorkspaceError {
        WorkspaceError::Disk { action, path: self.path.clone(), source }
    }
}

impl Inner {
    /// What a user asks for is refused while the host is being drained.
    pub(super) fn refuse_when_draining(&self) -> Result<(), WorkspaceError> {
        if self.drain.now().is_some() { Err(WorkspaceError::Draining) } else { Ok(()) }
    }
}

/// See [`super::Antares::begin_drain`].
pub(super) async fn begin(inner: Arc<Inner>, by: u32) -> Result<Draining, WorkspaceError> {
    let (draining, is_new) = super::inner::blocking(move || inner.drain.begin(by)).await?;
    if is_new {
        tracing::info!(message_id = event::DRAIN_BEGUN, by_uid = by, "no new mounts are taken");
    }
    Ok(draining)
}

/// See [`super::Antares::end_drain`].
pub(super) async fn end(inner: Arc<Inner>, by: u32) -> Result<(), WorkspaceError> {
    if super::inner::blocking(move || inner.drain.end()).await? {
        tracing::info!(message_id = event::DRAIN_ENDED, by_uid = by, "mounts are taken again");
    }
    Ok(())
}

fn encode(by: u32, since: u64) -> String {
    let text = format!("{FORMAT} {by} {since}");
    format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()))
}

/// What the file says; nothing of it where it does not read back.
fn decode(bytes: &[u8]) -> Draining {
    let read = || {
        let text = std::str::from_utf8(bytes).ok()?;
        let words: Vec<&str> = text.strip_prefix(FORMAT)?.split(' ').collect();
        let ["", by, since, _sum] = words[..] else { return None };
        let (by, since) = (by.parse().ok()?, since.parse().ok()?);
        let time = UNIX_EPOCH.checked_add(Duration::from_secs(since))?;
        (encode(by, since) == text).then_some(Draining { since: Some(time), by: Some(by) })
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_these_bytes_and_any_other_says_that_it_is_draining_all_the_same() {
        let bytes = encode(1000, 1_700_000_000);
        let text = "scorpio-drain 1 1000 1700000000";
        assert_eq!(bytes, format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes())));
        let since = Some(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        assert_eq!(decode(bytes.as_bytes()), Draining { since, by: Some(1000) });
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes.as_bytes()[..cut]), Draining::default(), "{cut}");
        }
        assert_eq!(decode(bytes.replace("1000", "1001").as_bytes()), Draining::default());
        let huge = encode(0, u64::MAX);
        assert_eq!(decode(huge.as_bytes()), Draining::default());
    }

    #[test]
    fn an_empty_file_and_a_directory_in_its_place_drain_too() {
        for make in [|path: &Path| std::fs::write(path, ""), |path: &Path| std::fs::create_dir(path)] {
            let dir = tempfile::tempdir().unwrap();
            make(&dir.path().join(NAME)).unwrap();
            assert_eq!(Drain::open(dir.path()).unwrap().now(), Some(Draining::default()));
        }
    }
}
