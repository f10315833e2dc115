//! What a process leaves to its successor, so that workspaces do not notice that the daemon was restarted or killed.
//!
//! ```text
//!  first process                        keeper (service manager)             successor
//!  ─────────────                        ────────────────────────             ─────────
//!  mount a session, answer INIT
//!  record + device (+ slots) ─ keep ──► holds them
//!  overlays are made on it                  │
//!  killed, or Leave::Everything             │ connection lives on,
//!                                           │ questions wait in it
//!                                           └── Inherited ─────────► record fits? mount still there?
//!                                                                      yes: resume: no INIT, unanswered
//!                                                                           questions come again, or lie
//!                                                                           in the slots
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
    /// The memory of its unanswered requests, if one was kept with it; judged by the engine.
    pub slots: Option<OwnedFd>,
}

/// A session as it is handed to its keeper.
#[derive(Clone, Copy, Debug)]
pub struct Keepsake<'a> {
    /// Its device.
    pub device: BorrowedFd<'a>,
    /// Its record.
    pub record: &'a [u8],
    /// The memory of its unanswered requests, which goes on changing; where the kernel can ask again there is none.
    pub slots: Option<BorrowedFd<'a>>,
}

/// Holds sessions for the next process.
pub trait SessionKeeper: Send + Sync + 'static {
    /// Holds duplicates of what is in `session` under `name`. Called once per session, before anything stands on it.
    fn keep(&self, name: &str, session: &Keepsake<'_>) -> io::Result<()>;

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
    fn keep(&self, _name: &str, _session: &Keepsake<'_>) -> io::Result<()> {
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
