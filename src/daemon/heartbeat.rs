//! How many daemons in a row fed the watchdog no more and were ended by it.
//!
//! What somebody waits for in a session may be the very thing that makes the daemon hang. Its successor is asked it again
//! and hangs too: it comes up each time, so no start fails and no start limit is reached, and whoever waits does so for
//! ever. So after [`HANGS`] of them the sessions are let go, as after starts that fail (see [`super::tally`]).
//!
//! ```text
//! RUNTIME_DIR/fed     nanoseconds of CLOCK_MONOTONIC when the daemon began or the watchdog was last fed; not after an
//!                     orderly end
//! RUNTIME_DIR/hung    one byte for each daemon in a row that hung
//! ```

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// Daemons that may hang before sessions are let go: some five minutes of the unit's watchdog. Fewer could be a host
/// whose disk stands still for a while, and letting go breaks what is open in every mount.
pub const HANGS: u64 = 5;

/// The heartbeat of one runtime directory.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    fed: PathBuf,
    hung: PathBuf,
}

impl Heartbeat {
    /// That of `runtime_dir`.
    pub fn of(runtime_dir: &Path) -> Heartbeat {
        Heartbeat { fed: runtime_dir.join("fed"), hung: runtime_dir.join("hung") }
    }

    /// The watchdog was fed.
    pub fn beat(&self) -> io::Result<()> {
        self.beat_at(now())
    }

    fn beat_at(&self, at: Duration) -> io::Result<()> {
        // One write of a few bytes: a successor reads all of it or nothing.
        fs::write(&self.fed, at.as_nanos().to_string())
    }

    /// This daemon ends in order, however long it takes.
    pub fn rest(&self) -> io::Result<()> {
        remove(&self.fed)
    }

    /// Notes that a daemon begins; how many before it, up to the last one, ended after they had not fed the watchdog for
    /// `patience`, which is what the watchdog has. What cannot be told counts as none: then the sessions are gone on with.
    pub fn begin(&self, patience: Duration) -> u64 {
        let noted = self.note(now(), patience);
        noted.unwrap_or_else(|error| {
            tracing::warn!(path = %self.hung.display(), %error, "daemons that hung cannot be counted");
            0
        })
    }

    fn note(&self, now: Duration, patience: Duration) -> io::Result<u64> {
        let fed = match fs::read_to_string(&self.fed) {
            Ok(text) => text.parse().ok().map(Duration::from_nanos),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        // One that never comes to feed it hung since then.
        self.beat_at(now)?;
        if fed.is_none_or(|fed| now.saturating_sub(fed) < patience) {
            remove(&self.hung)?;
            return Ok(0);
        }
        let mut file = OpenOptions::new().append(true).create(true).open(&self.hung)?;
        file.write_all(b".")?;
        Ok(file.metadata()?.len())
    }
}

/// Since the boot, without the time that the host was suspended: then nobody is fed, and the watchdog does not wait either.
fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// How many had hung, for each daemon of a row: the one before it was fed so many seconds before, or never, or ended in
    /// order.
    fn told(ends: &[Option<u64>]) -> Vec<u64> {
        let place = tempfile::tempdir().unwrap();
        let heart = Heartbeat::of(place.path());
        let now = Duration::from_secs(10_000);
        let mut told = Vec::new();
        for fed in ends {
            match fed {
                Some(ago) => heart.beat_at(now - Duration::from_secs(*ago)).unwrap(),
                None => heart.rest().unwrap(),
            }
            told.push(heart.note(now, PATIENCE).unwrap());
        }
        told
    }

    #[test]
    fn those_that_hung_one_after_the_other_count() {
        assert_eq!(told(&[None, Some(60), Some(75), Some(61)]), [0, 1, 2, 3]);
    }

    #[test]
    fn one_that_crashed_or_ended_in_order_breaks_the_row() {
        assert_eq!(told(&[Some(70), Some(59), Some(70), None, Some(70)]), [1, 0, 1, 0, 1]);
    }

    #[test]
    fn what_cannot_be_counted_counts_as_none() {
        let heart = Heartbeat::of(Path::new("/dev/null"));
        assert!(heart.beat().is_err());
        assert_eq!(heart.begin(PATIENCE), 0);
    }

    #[test]
    fn a_beat_is_now() {
        let place = tempfile::tempdir().unwrap();
        let heart = Heartbeat::of(place.path());
        heart.beat().unwrap();
        assert_eq!((heart.begin(PATIENCE), heart.begin(Duration::ZERO)), (0, 1));
        heart.rest().unwrap();
        assert_eq!(heart.begin(Duration::ZERO), 0);
    }
}
