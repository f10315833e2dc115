//! [`Failure`]: what goes wrong in a call, and what the caller is told. The only place that chooses error codes.

use std::path::Path;

use jsonrpsee::types::{ErrorObjectOwned, error::INVALID_PARAMS_CODE};

use crate::{
    antares::WorkspaceError,
    api::{ErrorData, ErrorKind},
    auth::{Action, Refusal},
    engine::{MountError, PointFault, UnmountError},
    origin::{FetchError, ResolveError},
    types::OriginName,
};

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The parameters do not have the shape of the method's.
    #[error("invalid parameters: {0}")]
    Shape(String),
    /// A parameter has the right shape and makes no sense.
    #[error("{0}")]
    BadParameter(String),
    /// The workspaces said no.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// The policy said no, or nothing.
    #[error("{refusal}")]
    Refused {
        /// For which action.
        action: Action,
        /// What it said.
        refusal: Refusal,
    },
    /// Who is to get a workspace may not see what it stands on.
    #[error("user {user} may not mount origin `{origin}`, which the workspace stands on")]
    NotForRecipient {
        /// Who.
        user: String,
        /// Which one.
        origin: OriginName,
    },
    /// The caller's paths are not ours.
    #[error(
        "the calling process sees another file system than this host's (a container, a mount namespace or a chroot)"
    )]
    Elsewhere,
    /// Nobody can say any more where the caller was.
    #[error("the process that made this connection has ended, so that its mount namespace cannot be checked")]
    CallerEnded,
    /// Too much at once.
    #[error("user {uid} has {limit} calls being worked on, and no more are allowed at once")]
    TooManyCalls {
        /// Whose.
        uid: u32,
        /// How many may be.
        limit: usize,
    },
    /// Too much of all users together.
    #[error("the service works on as many calls as it takes at once")]
    TooManyCallsOfAll,
    /// The origin is not read with its users' credentials.
    #[error("origin `{0}` is not read with credentials of its users")]
    NoLogin(OriginName),
    /// A credential was refused when it was tried.
    #[error("the credential is not kept: {0}")]
    Credential(FetchError),
    /// Something that should not happen.
    #[error("{0}")]
    Internal(String),
}

/// What a caller is told beside the message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Explained {
    pub(crate) kind: ErrorKind,
    pub(crate) hint: Option<&'static str>,
    pub(crate) path: Option<String>,
    pub(crate) action: Option<&'static str>,
    pub(crate) retryable: bool,
}

impl Explained {
    fn of(kind: ErrorKind) -> Explained {
        Explained { kind, hint: None, path: None, action: None, retryable: false }
    }

    fn hint(self, hint: &'static str) -> Explained {
        Explained { hint: Some(hint), ..self }
    }

    fn at(self, path: &Path) -> Explained {
        Explained { path: Some(path.to_string_lossy().into_owned()), ..self }
    }

    fn retryable(self) -> Explained {
        Explained { retryable: true, ..self }
    }
}

impl Failure {
    /// What kind it is and what to do about it.
    pub(crate) fn explain(&self) -> Explained {
        match self {
            Failure::Shape(_) => Explained::of(ErrorKind::BadParameter)
                .hint("`rpc.discover` lists each method's parameters; they are passed by name"),
            Failure::BadParameter(_) => Explained::of(ErrorKind::BadParameter),
            Failure::Workspace(error) => of_workspace(error),
            Failure::Refused { action, refusal } => {
                let explained =
                    Explained { action: Some(action.polkit_id()), ..Explained::of(ErrorKind::NotAuthorised) };
                match refusal {
                    Refusal::Denied { .. } => {
                        explained.hint("ask the administrator of this host, who decides by polkit or [auth]")
                    }
                    Refusal::Unavailable { .. } => {
                        explained.hint("see `journalctl -u scorpio -u polkit`").retryable()
                    }
                }
            }
            Failure::NotForRecipient { .. } => Explained::of(ErrorKind::NoSuchOrigin)
                .hint("add them to the origin's `allow` first, if they may see it"),
            Failure::Elsewhere => Explained::of(ErrorKind::ForeignNamespace)
                .hint("call from the host itself; mounts made here would not be seen where you are"),
            Failure::CallerEnded => Explained::of(ErrorKind::ForeignNamespace)
                .hint("make the call from the process that connects")
                .retryable(),
            Failure::TooManyCallsOfAll => {
                Explained::of(ErrorKind::LimitReached).hint("try again in a moment").retryable()
            }
            Failure::TooManyCalls { .. } => {
                Explained::of(ErrorKind::LimitReached).hint("wait for some of them").retryable()
            }
            Failure::NoLogin(_) => Explained::of(ErrorKind::WrongState)
                .hint("it needs no login: mount it; `scorpioctl origins` shows which origins need one"),
            Failure::Credential(error) => of_fetch(error),
            Failure::Internal(_) => internal(),
        }
    }

    /// The JSON-RPC error for it.
    pub(crate) fn to_error(&self, request_id: &str) -> ErrorObjectOwned {
        let Explained { kind, hint, path, action, retryable } = self.explain();
        let code = match self {
            // JSON-RPC has a code of its own for these.
            Failure::Shape(_) => INVALID_PARAMS_CODE,
            _ => kind.code(),
        };
        let data = ErrorData {
            kind,
            hint: hint.map(str::to_owned),
            path,
            action: action.map(str::to_owned),
            request_id: request_id.to_owned(),
            retryable,
        };
        ErrorObjectOwned::owned(code, self.to_string(), Some(data))
    }
}

fn internal() -> Explained {
    Explained::of(ErrorKind::Internal).hint("the journal has the details: journalctl -u scorpio")
}

fn of_workspace(error: &WorkspaceError) -> Explained {
    match error {
        WorkspaceError::NoSuchOrigin(_) => {
            Explained::of(ErrorKind::NoSuchOrigin).hint("`scorpioctl origins` lists those you may mount")
        }
        WorkspaceError::Resolve(error) => of_resolve(error),
        WorkspaceError::NoSuchWorkspace(_) => {
            Explained::of(ErrorKind::NoSuchWorkspace).hint("`scorpioctl list` shows yours")
        }
        WorkspaceError::Limit { .. } => Explained::of(ErrorKind::LimitReached)
            .hint("remove workspaces that are no longer needed, or have [limits] raised")
            .retryable(),
        WorkspaceError::BadOption(_) => Explained::of(ErrorKind::BadParameter),
        // Its message ends in what to do.
        WorkspaceError::WrongState { .. } => Explained::of(ErrorKind::WrongState),
        WorkspaceError::UnsavedChanges(_) => Explained::of(ErrorKind::UnsavedChanges)
            .hint("save them with `scorpioctl export`, or say --discard"),
        WorkspaceError::Held(_) => Explained::of(ErrorKind::Busy)
            .hint("end that process: `lsns -t mnt` lists mount namespaces and who made them")
            .retryable(),
        WorkspaceError::Mount(error) => of_mount(error),
        WorkspaceError::Unmount(error) => of_unmount(error),
        WorkspaceError::Disk { path, .. } => internal().at(path),
        WorkspaceError::Tree(_) => internal(),
        WorkspaceError::Stopping => {
            Explained::of(ErrorKind::Stopping).hint("try again when the service is back").retryable()
        }
        WorkspaceError::Draining => Explained::of(ErrorKind::Draining)
            .hint("mount it on another host, or ask the administrator; what you have stays as it is")
            .retryable(),
    }
}

fn of_resolve(error: &ResolveError) -> Explained {
    match error {
        ResolveError::NoSuchRevision { .. } => Explained::of(ErrorKind::NoSuchRevision),
        ResolveError::PastTop { .. } => Explained::of(ErrorKind::NoSuchRevision).hint(
            "mount a directory below `/`, of which every commit can be had, or leave out the revision; workspaces on that \
             commit are not affected",
        ),
        ResolveError::Ambiguous { .. } => {
            Explained::of(ErrorKind::NoSuchRevision).hint("write more of the commit id")
        }
        ResolveError::NoSuchPath { .. } => Explained::of(ErrorKind::NoSuchPath),
        ResolveError::NotADirectory { .. } => {
            Explained::of(ErrorKind::NoSuchPath).hint("mount the directory that holds it")
        }
        ResolveError::Fetch(error) => of_fetch(error),
    }
}

fn of_fetch(error: &FetchError) -> Explained {
    match error {
        FetchError::Unreachable { .. } | FetchError::TimedOut { .. } => {
            Explained::of(ErrorKind::OriginUnavailable).retryable()
        }
        FetchError::Absent { .. } | FetchError::Mismatch { .. } => {
            Explained::of(ErrorKind::OriginUnavailable).hint("the origin is damaged: `git fsck` it")
        }
        FetchError::Moved { .. } => Explained::of(ErrorKind::OriginUnavailable)
            .hint("mount it anew to have it as it is now; what you wrote can be exported"),
        FetchError::Denied { .. } => Explained::of(ErrorKind::OriginDenied).hint(
            "log in with `scorpioctl login`, or have the administrator see to the origin's `credential` or `read_as`",
        ),
        FetchError::NotStored { .. } => internal().retryable(),
    }
}

fn of_mount(error: &MountError) -> Explained {
    match error {
        MountError::Point { path, fault, .. } => {
            Explained::of(ErrorKind::BadMountPoint).hint(about_point(*fault)).at(path)
        }
        MountError::Kernel { .. } | MountError::Session { .. } => internal(),
        MountError::TimedOut { path, .. } => internal().at(path).retryable(),
    }
}

fn about_point(fault: PointFault) -> &'static str {
    match fault {
        PointFault::Relative | PointFault::Malformed => {
            "pass an absolute path without `.`, `..` and control characters"
        }
        PointFault::Missing => "make the directory first: mkdir",
        PointFault::NotADirectory => "pass an empty directory",
        PointFault::Symlink => "pass the path that the symlink leads to: realpath",
        PointFault::Denied => "you must be able to enter and list the directory",
        PointFault::NotOwned => "pass a directory that belongs to you",
        PointFault::NotEmpty => "pass an empty directory",
        PointFault::Busy => "unmount what is there first, or pass another directory",
        PointFault::Filesystem => "pass a directory on an ordinary file system",
        PointFault::Nested => "pass a directory outside of other workspaces",
        PointFault::Displaced => "the directory was replaced; mount elsewhere with a new mount point",
    }
}

fn of_unmount(error: &UnmountError) -> Explained {
    match error {
        UnmountError::Busy { path, .. } => Explained::of(ErrorKind::Busy)
            .hint("end those processes; `unmount --lazy` takes it out of sight now, gone when they are")
            .at(path)
            .retryable(),
        UnmountError::Kernel { path, .. } => internal().at(path),
        UnmountError::TimedOut { path } => internal().at(path).retryable(),
    }
}
