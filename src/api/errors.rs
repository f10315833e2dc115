//! What kinds of failure there are, with their stable codes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What kind of failure it was. The name is stable and so is its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ErrorKind {
    /// 1001: a parameter makes no sense.
    BadParameter,
    /// 1002: the mount point will not do.
    BadMountPoint,
    /// 1003: no such origin, or not for this caller.
    NoSuchOrigin,
    /// 1004: no such revision.
    NoSuchRevision,
    /// 1005: no such path in the origin, or not a directory.
    NoSuchPath,
    /// 1006: no such workspace, or not this caller's.
    NoSuchWorkspace,
    /// 1007: the policy says no.
    NotAuthorised,
    /// 1008: a limit is reached.
    LimitReached,
    /// 1009: processes use the mount.
    Busy,
    /// 1010: there are changes that nobody said may go.
    UnsavedChanges,
    /// 1011: not in this state.
    WrongState,
    /// 1012: the origin cannot be reached, or answers nonsense.
    OriginUnavailable,
    /// 1013: the caller is in another mount namespace.
    ForeignNamespace,
    /// 1014: the daemon is stopping.
    Stopping,
    /// 1015: something is wrong on this host; the journal has the details.
    Internal,
    /// 1016: the origin refuses the credential or account it is read with, or there is none.
    OriginDenied,
    /// 1017: an administrator drains this host: it takes no new mounts.
    Draining,
}

impl ErrorKind {
    /// All of them, by code.
    pub const ALL: [ErrorKind; 17] = [
        ErrorKind::BadParameter,
        ErrorKind::BadMountPoint,
        ErrorKind::NoSuchOrigin,
        ErrorKind::NoSuchRevision,
        ErrorKind::NoSuchPath,
        ErrorKind::NoSuchWorkspace,
        ErrorKind::NotAuthorised,
        ErrorKind::LimitReached,
        ErrorKind::Busy,
        ErrorKind::UnsavedChanges,
        ErrorKind::WrongState,
        ErrorKind::OriginUnavailable,
        ErrorKind::ForeignNamespace,
        ErrorKind::Stopping,
        ErrorKind::Internal,
        ErrorKind::OriginDenied,
        ErrorKind::Draining,
    ];

    /// What it means, for documents.
    pub fn meaning(self) -> &'static str {
        match self {
            ErrorKind::BadParameter => "a parameter makes no sense",
            ErrorKind::BadMountPoint => "the mount point will not do",
            ErrorKind::NoSuchOrigin => "no such origin, or not for this caller",
            ErrorKind::NoSuchRevision => "no such revision",
            ErrorKind::NoSuchPath => "no such path in the origin, or not a directory",
            ErrorKind::NoSuchWorkspace => "no such workspace, or not this caller's",
            ErrorKind::NotAuthorised => "the policy says no",
            ErrorKind::LimitReached => "a limit is reached",
            ErrorKind::Busy => "processes use the mount",
            ErrorKind::UnsavedChanges => "there are changes that nobody said may go",
            ErrorKind::WrongState => "not in this state",
            ErrorKind::OriginUnavailable => "the origin cannot be reached, or answers nonsense",
            ErrorKind::ForeignNamespace => "the caller is in another mount namespace",
            ErrorKind::Stopping => "the daemon is stopping",
            ErrorKind::Internal => "something is wrong on this host; the journal has the details",
            ErrorKind::OriginDenied => {
                "the origin refuses the credential or account it is read with, or there is none"
            }
            ErrorKind::Draining => "an administrator drains this host: it takes no new mounts",
        }
    }

    /// The JSON-RPC error code.
    pub fn code(self) -> i32 {
        match self {
            ErrorKind::BadParameter => 1001,
            ErrorKind::BadMountPoint => 1002,
            ErrorKind::NoSuchOrigin => 1003,
            ErrorKind::NoSuchRevision => 1004,
            ErrorKind::NoSuchPath => 1005,
            ErrorKind::NoSuchWorkspace => 1006,
            ErrorKind::NotAuthorised => 1007,
            ErrorKind::LimitReached => 1008,
            ErrorKind::Busy => 1009,
            ErrorKind::UnsavedChanges => 1010,
            ErrorKind::WrongState => 1011,
            ErrorKind::OriginUnavailable => 1012,
            ErrorKind::ForeignNamespace => 1013,
            ErrorKind::Stopping => 1014,
            ErrorKind::Internal => 1015,
            ErrorKind::OriginDenied => 1016,
            ErrorKind::Draining => 1017,
        }
    }
}

/// The `data` of an error.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ErrorData {
    /// What kind of failure.
    pub kind: ErrorKind,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The path it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The right that is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Finds the request in the journal (`SCORPIO_REQUEST_ID`).
    pub request_id: String,
    /// Whether the same call may work later.
    pub retryable: bool,
}
