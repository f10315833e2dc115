//! What a mounter's answer, or its silence, means to whoever asked for the operation.

use std::{io, path::PathBuf};

use super::{launch::LaunchError, mounter::protocol::Reply};
use crate::{
    engine::{Holder, MountError, MountSpec, Mounted, PointIdentity, UnmountError},
    types::WorkspaceId,
};

/// The mount, or why there is none.
pub(super) fn mounted(reply: Result<Reply, LaunchError>, spec: &MountSpec) -> Result<Mounted, MountError> {
    let path = || spec.point.path.clone();
    match reply {
        Ok(Reply::Mounted { mount_id, dev, ino }) => {
            Ok(Mounted { mount_id, point: PointIdentity { dev, ino } })
        }
        Ok(Reply::Point { fault, reason }) => Err(MountError::Point { path: path(), fault, reason }),
        Ok(Reply::Failed { step, errno, message }) => {
            Err(kernel_error(&spec.workspace, &step, io_error(errno, message)))
        }
        Ok(other @ (Reply::Done | Reply::Held | Reply::Busy { .. })) => {
            let wrong = io::Error::other(format!("it answered {other:?}"));
            Err(kernel_error(&spec.workspace, "asking the mounter", wrong))
        }
        Err(LaunchError::TimedOut { .. } | LaunchError::Abandoned) => {
            Err(MountError::TimedOut { workspace: spec.workspace.clone(), path: path() })
        }
        Err(error) => Err(kernel_error(&spec.workspace, "running the mounter", io::Error::other(error))),
    }
}

/// Of what is mounted at `path`: that it is not any more, or why it still is.
pub(super) fn unmounted(reply: Result<Reply, LaunchError>, path: PathBuf) -> Result<(), UnmountError> {
    match reply {
        Ok(Reply::Done) => Ok(()),
        Ok(Reply::Busy { path, holders }) => {
            let holders =
                holders.into_iter().map(|holder| Holder { pid: holder.pid, name: holder.name }).collect();
            Err(UnmountError::Busy { path, holders })
        }
        Ok(Reply::Failed { errno, message, .. }) => {
            Err(UnmountError::Kernel { path, source: io_error(errno, message) })
        }
        Ok(other @ (Reply::Mounted { .. } | Reply::Held | Reply::Point { .. })) => {
            Err(UnmountError::Kernel {
                path,
                source: io::Error::other(format!("the mounter answered {other:?}")),
            })
        }
        Err(LaunchError::TimedOut { .. } | LaunchError::Abandoned) => Err(UnmountError::TimedOut { path }),
        Err(error) => Err(UnmountError::Kernel { path, source: io::Error::other(error) }),
    }
}

/// The answer to a question, or the step that failed.
pub(super) fn answer(reply: Result<Reply, LaunchError>) -> io::Result<Reply> {
    match reply {
        Ok(Reply::Failed { step, errno, message }) => {
            let kind = io_error(errno, String::new()).kind();
            Err(io::Error::new(kind, format!("{step}: {message}")))
        }
        Ok(reply) => Ok(reply),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// A `step` on the way to a mount of `workspace` failed.
pub(super) fn kernel_error(workspace: &WorkspaceId, step: &str, source: io::Error) -> MountError {
    MountError::Kernel { workspace: workspace.clone(), step: step.to_owned(), source }
}

fn io_error(errno: Option<i32>, message: String) -> io::Error {
    errno.map_or_else(|| io::Error::other(message), io::Error::from_raw_os_error)
}
