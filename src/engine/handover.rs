//! What a process leaves to its successor, so that workspaces do not notice that the daemon was restarted or killed.
//!
//! ```text
//!  first process                        keeper (service manager)             successor
//!  ─────────────                        ────────────────────────             ─────────
//!  mount a session, answer INIT
//!  record + device ──────── keep ─────► holds both
//!  overlays are made on it                  │
//!  killed, or Leave::Everything             │ connection lives on,
//!                                           │ questions wait in it
//!                                           └── Inherited ─────────► record fits? mount still there?
//!                                                                      yes: resume: no INIT, unanswered
//!                                                                           questions come again
//!                                                                      no:  forget, detach, mount anew
//! ```
//!
//! An overlay stands on a session's superblock, so it lives as long as the session's connection; that lives as long as
//! anybody holds the device. Which overlay stands on which session is kept in the runtime directory.

use std::{
    fmt, io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::Arc,
};

/// A session that an earlier process served.
#[derive(Debug)]
pub struct Inherited {
    /// What it was kept under.
    pub name: String,
    /// Its device.
    pub device: OwnedFd,
    /// The record that was kept with it; judged by the engine.
    pub record: Vec<u8>,
}

/// Holds sessions for the next process.
pub trait SessionKeeper: Send + Sync + 'static {
    /// Holds a duplicate of `device`, and `record`, under `name`. Called once per session, before anything stands on it.
    fn keep(&self, name: &str, device: BorrowedFd<'_>, record: &[u8]) -> io::Result<()>;

    /// Lets go of what is held under `name`, which may be nothing.
    fn forget(&self, name: &str) -> io::Result<()>;
}

/// What a process gets from the one before, and leaves to the next.
pub struct Handover {
    /// Sessions to go on with.
    pub inherited: Vec<Inherited>,
    /// Who holds them from now on.
    pub keeper: Arc<dyn SessionKeeper>,
}

/// Without a service manager: sessions end with the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoKeeper;

impl SessionKeeper for NoKeeper {
    fn keep(&self, _name: &str, _device: BorrowedFd<'_>, _record: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn forget(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }
}

impl Default for Handover {
    fn default() -> Handover {
        Handover { inherited: Vec::new(), keeper: Arc::new(NoKeeper) }
    }
}

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handover").field("inherited", &self.inherited).finish_non_exhaustive()
    }
}
