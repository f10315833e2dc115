//! Exit codes: the one place that decides them. Scripts rely on the numbers.

use crate::api::ErrorKind;

/// How `scorpioctl` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Ok,
    /// 1: it failed for a reason that has no code of its own.
    Failed,
    /// 2: the command line makes no sense.
    Usage,
    /// 3: no such origin, revision, path or workspace.
    NotFound,
    /// 4: not authorised.
    NotAuthorised,
    /// 5: the daemon cannot be reached, or is stopping.
    Unreachable,
    /// 6: in use, unsaved, in the wrong state, or at a limit.
    Conflict,
    /// 7: the origin cannot be reached.
    OriginUnreachable,
    /// 8: only a part came through.
    Partial,
    /// 130: interrupted by Ctrl-C, as shells count it (128 + SIGINT).
    Interrupted,
    /// 141: the reader of our output went away, as shells count it (128 + SIGPIPE).
    BrokenPipe,
}

/// All of them with their meaning, for the manual and the help text.
pub const MEANINGS: &[(Exit, &str)] = &[
    (Exit::Ok, "done"),
    (Exit::Failed, "failed"),
    (Exit::Usage, "the command line makes no sense"),
    (Exit::NotFound, "no such origin, revision, path or workspace"),
    (Exit::NotAuthorised, "not authorised"),
    (Exit::Unreachable, "the daemon cannot be reached"),
    (Exit::Conflict, "in use, unsaved, in the wrong state, or at a limit"),
    (Exit::OriginUnreachable, "the origin cannot be reached"),
    (Exit::Partial, "only a part came through"),
    (Exit::Interrupted, "interrupted"),
    (Exit::BrokenPipe, "the reader of the output went away"),
];

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NotFound => 3,
            Exit::NotAuthorised => 4,
            Exit::Unreachable => 5,
            Exit::Conflict => 6,
            Exit::OriginUnreachable => 7,
            Exit::Partial => 8,
            Exit::Interrupted => 130,
            Exit::BrokenPipe => 141,
        }
    }
}

impl From<ErrorKind> for Exit {
    fn from(kind: ErrorKind) -> Exit {
        match kind {
            ErrorKind::BadParameter => Exit::Usage,
            ErrorKind::BadMountPoint | ErrorKind::ForeignNamespace | ErrorKind::Internal => Exit::Failed,
            ErrorKind::NoSuchOrigin
            | ErrorKind::NoSuchRevision
            | ErrorKind::NoSuchPath
            | ErrorKind::NoSuchWorkspace => Exit::NotFound,
            ErrorKind::NotAuthorised | ErrorKind::OriginDenied => Exit::NotAuthorised,
            ErrorKind::LimitReached
            | ErrorKind::Busy
            | ErrorKind::UnsavedChanges
            | ErrorKind::WrongState
            | ErrorKind::Draining => Exit::Conflict,
            ErrorKind::OriginUnavailable => Exit::OriginUnreachable,
            ErrorKind::Stopping => Exit::Unreachable,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_has_its_code() {
        let rows = [
            (ErrorKind::BadParameter, 2),
            (ErrorKind::BadMountPoint, 1),
            (ErrorKind::NoSuchOrigin, 3),
            (ErrorKind::NoSuchRevision, 3),
            (ErrorKind::NoSuchPath, 3),
            (ErrorKind::NoSuchWorkspace, 3),
            (ErrorKind::NotAuthorised, 4),
            (ErrorKind::LimitReached, 6),
            (ErrorKind::Busy, 6),
            (ErrorKind::UnsavedChanges, 6),
            (ErrorKind::WrongState, 6),
            (ErrorKind::OriginUnavailable, 7),
            (ErrorKind::ForeignNamespace, 1),
            (ErrorKind::Stopping, 5),
            (ErrorKind::Internal, 1),
            (ErrorKind::OriginDenied, 4),
            (ErrorKind::Draining, 6),
        ];
        let codes: Vec<_> = rows.iter().map(|(kind, _)| kind.code()).collect();
        assert_eq!(codes, (1001..=1017).collect::<Vec<_>>(), "a kind of error has no row");
        for (kind, code) in rows {
            assert_eq!(Exit::from(kind).code(), code, "{kind:?}");
        }
    }

    #[test]
    fn codes_are_distinct_and_all_explained() {
        let codes: Vec<_> = MEANINGS.iter().map(|(exit, _)| exit.code()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 8, 130, 141]);
    }
}
