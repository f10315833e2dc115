//! Why a repository, or an object in it, could not be read; and what that means to who asked for it.

use std::{io, path::Path, path::PathBuf};

use crate::{
    origin::FetchError,
    types::{Oid, OriginName},
};

/// Why a path is no repository that can be read, or a file of one could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Nothing is there.
    #[error("there is nothing at {path:?}")]
    Missing {
        /// What was looked for.
        path: PathBuf,
    },
    /// The file system refused the reader.
    #[error("{path:?} may not be read")]
    Denied {
        /// What was to be read.
        path: PathBuf,
    },
    /// Reading failed, or the file is not what git puts there.
    #[error("{path:?} cannot be read: {reason}")]
    Unreadable {
        /// What was to be read.
        path: PathBuf,
        /// What came of it.
        reason: String,
    },
    /// A directory or file is there, but it is no git repository.
    #[error("{path:?} is not a git repository: {reason}")]
    NotARepository {
        /// Where a repository was expected.
        path: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },
    /// A repository in a format that is not read here.
    #[error(
        "the repository {path:?} has {what}, which is not supported; SHA-1 objects and reference files are"
    )]
    Format {
        /// The repository.
        path: PathBuf,
        /// What about it.
        what: String,
    },
    /// The rights of the account it is to be read with cannot be taken on.
    #[error("cannot act as uid {uid} to read {path:?}: {reason}")]
    Reader {
        /// The repository.
        path: PathBuf,
        /// Whose rights.
        uid: u32,
        /// What the kernel said.
        reason: String,
    },
    /// The threads that read it cannot be started.
    #[error("cannot start the threads that read {path:?}: {reason}")]
    Threads {
        /// The repository.
        path: PathBuf,
        /// What the kernel said.
        reason: String,
    },
    /// More requests wait for this repository than it is given room for, or it is being closed.
    #[error("{path:?} was not asked: {reason}")]
    Busy {
        /// The repository.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

impl OpenError {
    /// What a failed system call on `path` means.
    pub(super) fn from_io(path: &Path, error: &io::Error) -> OpenError {
        let path = path.to_owned();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => OpenError::Missing { path },
            io::ErrorKind::PermissionDenied => OpenError::Denied { path },
            _ => OpenError::Unreadable { path, reason: error.to_string() },
        }
    }

    /// `path` was read, and is not what git puts there.
    pub(super) fn unreadable(path: &Path, reason: impl Into<String>) -> OpenError {
        OpenError::Unreadable { path: path.to_owned(), reason: reason.into() }
    }

    /// As seen by who asked the origin for something.
    pub(super) fn into_fetch_error(self, origin: &OriginName, reader_uid: u32) -> FetchError {
        let origin = origin.clone();
        match self {
            OpenError::Denied { .. } => {
                FetchError::Denied { origin, reason: format!("{self} by uid {reader_uid}") }
            }
            _ => FetchError::Unreachable { origin, reason: self.to_string() },
        }
    }
}

/// Why one object could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ReadError {
    /// Every place was looked into, and it is in none.
    Absent,
    /// A place it may be in could not be looked into.
    Repository(OpenError),
    /// What is stored under its id cannot be that object.
    Damaged(String),
}

impl From<OpenError> for ReadError {
    fn from(error: OpenError) -> ReadError {
        ReadError::Repository(error)
    }
}

impl ReadError {
    /// As seen by who asked the origin for `oid`.
    pub(super) fn into_fetch_error(self, origin: &OriginName, reader_uid: u32, oid: Oid) -> FetchError {
        match self {
            ReadError::Absent => FetchError::Absent { origin: origin.clone(), oid },
            ReadError::Repository(error) => error.into_fetch_error(origin, reader_uid),
            ReadError::Damaged(reason) => FetchError::Mismatch { origin: origin.clone(), oid, reason },
        }
    }
}
