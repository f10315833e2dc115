//! How many processes in a row took sessions over and did not come up.
//!
//! What somebody waits for in a session may be the very thing that ends the daemon: each successor is asked it again and
//! ends too, or hangs, and whoever waits cannot even be killed. So after [`TRIES`] of them the sessions are let go: those
//! who wait get an error, and the workspaces are mounted again.
//!
//! ```text
//! RUNTIME_DIR/starts    one byte for each start that took sessions over since the last one that came up
//! ```

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// Starts that may fail before sessions are let go. One may be bad luck, such as a disk that was full for a moment; and it
/// must be fewer than the unit's StartLimitBurst=, beyond which nobody starts the daemon any more.
pub const TRIES: u64 = 3;

/// The tally of one runtime directory.
#[derive(Debug)]
pub struct Tally {
    path: PathBuf,
}

impl Tally {
    /// That of `runtime_dir`.
    pub fn of(runtime_dir: &Path) -> Tally {
        Tally { path: runtime_dir.join("starts") }
    }

    /// Notes that a start takes sessions over; how many did so before it and never came up. What cannot be noted counts
    /// as none: then the sessions are gone on with.
    pub fn begin(&self) -> u64 {
        let noted = self.note();
        noted.unwrap_or_else(|error| {
            tracing::warn!(path = %self.path.display(), %error, "starts cannot be counted");
            0
        })
    }

    fn note(&self) -> io::Result<u64> {
        let mut file = OpenOptions::new().append(true).create(true).open(&self.path)?;
        let before = file.metadata()?.len();
        file.write_all(b".")?;
        Ok(before)
    }

    /// This process came up, or took nothing over.
    pub fn clear(&self) {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "the tally of starts stays");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_count_until_one_comes_up() {
        let place = tempfile::tempdir().unwrap();
        let told = |count: usize| (0..count).map(|_| Tally::of(place.path()).begin()).collect::<Vec<_>>();
        assert_eq!(told(4), [0, 1, 2, 3]);
        Tally::of(place.path()).clear();
        assert_eq!(told(2), [0, 1]);
        Tally::of(place.path()).clear();
        Tally::of(place.path()).clear();
    }

    #[test]
    fn what_cannot_be_counted_counts_as_none() {
        let tally = Tally::of(Path::new("/nonexistent"));
        assert_eq!((tally.begin(), tally.begin()), (0, 0));
    }

    #[test]
    fn sessions_are_let_go_before_the_unit_fails() {
        let unit = include_str!("../../systemd/scorpio.service");
        let burst = unit.lines().find_map(|line| line.strip_prefix("StartLimitBurst=")).unwrap();
        // So many fail, one lets go, and it may fail once more.
        assert!(TRIES + 1 < burst.parse::<u64>().unwrap());
    }
}
