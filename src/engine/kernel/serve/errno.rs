//! What a process in a mount is told when there is no answer. The only place where that is decided.
//!
//! A failure is never "no such file": the kernel and build tools would believe it. It is never ENOSYS either, which the
//! kernel remembers for the life of the session.

use crate::{dicfuse::Stop, origin::FetchError};

/// The error number for a question that the tree cannot answer.
pub(super) fn of_stop(stop: &Stop) -> i32 {
    match stop {
        // Of a root that was dropped: what holds it is stale.
        Stop::NoNode(_) => libc::ESTALE,
        // The kernel knows what is a directory; asking otherwise is not a user's fault.
        Stop::WrongKind(_) => libc::EIO,
        // Needs are fetched, not refused; one that comes here all the same has no answer.
        Stop::Need(_) => libc::EIO,
        Stop::BadTree { .. } | Stop::BadContent { .. } | Stop::Cache(_) | Stop::Nodes(_) => libc::EIO,
    }
}

/// The error number for an object that did not come.
pub(super) fn of_fetch(error: &FetchError) -> i32 {
    match error {
        FetchError::Absent { .. }
        | FetchError::Unreachable { .. }
        | FetchError::TimedOut { .. }
        | FetchError::Mismatch { .. }
        | FetchError::Moved { .. }
        | FetchError::Denied { .. }
        | FetchError::NotStored { .. } => libc::EIO,
    }
}
