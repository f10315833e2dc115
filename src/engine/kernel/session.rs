//! One FUSE session: device, mount and workers, made and ended together.
//!
//! It is mounted read-only at `fs/<name>`, where only root can go, so that mounters can clone lowers from it. This
//! process never walks into it: a thread of ours that waited for our own answer could not be killed.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd},
    path::PathBuf,
    sync::Arc,
};

use rustix::fs::OFlags;

use super::places::{self, PlaceError};
use crate::{
    engine::SessionReport,
    fusedev::{self, Features, FileSystem, Session, SessionError, SessionLimits},
    sys::{
        mount::{self, FsContext, MountCallError, MountFlags, Unmount},
        mountinfo::{self, DeviceNumber, Whose},
    },
};

/// Read-ahead of a session, in KiB: a sequential read of 1 GiB takes 1,025 READs instead of 8,192 at the default of
/// 128. The kernel asks for no more than this at once.
const READ_AHEAD_KB: u32 = 1024;

/// Why a session cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The device cannot be opened.
    #[error("cannot open /dev/fuse: {0}")]
    Device(#[source] std::io::Error),
    /// Its directory cannot be made.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// It cannot be mounted.
    #[error("cannot mount the session: {0}")]
    Mount(MountCallError),
    /// The kernel and we did not agree.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// How a session is made.
pub(super) struct Blueprint {
    pub(super) name: String,
    /// The directory `fs`.
    pub(super) below: PathBuf,
    pub(super) features: Features,
    pub(super) limits: SessionLimits,
}

/// A session that is served. Ended when dropped: its mount is detached, its workers are joined, and when no overlay
/// stands on it any more the kernel frees it; overlays that do get ENOTCONN.
pub(super) struct MountedSession {
    name: String,
    session: Session,
    device: Option<DeviceNumber>,
    mount: SessionMount,
}

/// The session's mount; detached when dropped.
struct SessionMount {
    path: PathBuf,
}

impl MountedSession {
    /// Mounts a session and starts serving it. Waits for the kernel's first message, which it sends at once.
    pub(super) fn open(
        blueprint: Blueprint,
        fs: Arc<dyn FileSystem>,
        runtime: tokio::runtime::Handle,
    ) -> Result<MountedSession, OpenError> {
        let device = fusedev::open_device().map_err(OpenError::Device)?;
        let path = blueprint.below.join(&blueprint.name);
        places::make_directory(&path)?;
        let (mount, mount_id) = SessionMount::attach(path, device.as_raw_fd()).map_err(OpenError::Mount)?;
        let session = Session::start(device, fs, blueprint.features, blueprint.limits, runtime)?;
        let number = device_of(mount_id);
        if let Some(number) = number {
            widen_read_ahead(number);
        }
        tracing::info!(session = blueprint.name, connection = number.map(|n| n.minor), "serving a session");
        Ok(MountedSession { name: blueprint.name, session, device: number, mount })
    }

    /// Where it is mounted.
    pub(super) fn path(&self) -> &std::path::Path {
        &self.mount.path
    }

    /// Whether the kernel has ended it (an administrator may abort a connection).
    pub(super) fn is_over(&self) -> bool {
        self.session.is_over()
    }

    pub(super) fn report(&self) -> SessionReport {
        let connection = self.device.map_or(0, |device| device.minor);
        SessionReport { name: self.name.clone(), connection, stats: self.session.stats() }
    }
}

impl SessionMount {
    fn attach(path: PathBuf, device: i32) -> Result<(SessionMount, u64), MountCallError> {
        let context = FsContext::open("fuse")?;
        context.set("source", "scorpio")?;
        context.set("subtype", "scorpio")?;
        context.set("fd", device.to_string().as_str())?;
        context.set("rootmode", "40755")?; // a directory, rwxr-xr-x, in octal
        context.set("user_id", "0")?;
        context.set("group_id", "0")?;
        context.set_flag("ro")?;
        // Overlays read with the rights of whoever asks: the kernel judges by mode and owner, and lets everybody ask.
        context.set_flag("allow_other")?;
        context.set_flag("default_permissions")?;
        let mount = context.mount(MountFlags::SEALED)?;
        let failed =
            |doing: &str, source| MountCallError { doing: doing.to_owned(), log: String::new(), source };
        let target = mount::open_beneath_no_links(rustix::fs::CWD, &path, OFlags::PATH | OFlags::DIRECTORY)
            .map_err(|errno| failed("opening the session's directory", errno.into()))?;
        mount::attach(mount.as_fd(), target.as_fd())?;
        let attached = SessionMount { path };
        let id = mount::mount_id(mount.as_fd())
            .map_err(|source| failed("finding the session's mount id", source))?;
        Ok((attached, id))
    }
}

impl Drop for SessionMount {
    fn drop(&mut self) {
        // Neither call asks the file system anything.
        let ended = mount::unmount(&self.path, Unmount::Lazily);
        let removed = fs::remove_dir(&self.path);
        let missing =
            |error: &std::io::Error| matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT));
        if let Err(error) = ended
            && !missing(&error.source)
        {
            tracing::warn!(path = %self.path.display(), %error, "a session stays mounted");
        } else if let Err(error) = removed
            && !missing(&error)
        {
            tracing::warn!(path = %self.path.display(), %error, "a session's directory stays");
        }
    }
}

fn device_of(mount_id: u64) -> Option<DeviceNumber> {
    let entries = match mountinfo::read(Whose::Own) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(%error, "cannot read mountinfo: the session's connection is unknown");
            return None;
        }
    };
    entries.iter().find(|entry| entry.mount_id == mount_id).map(|entry| entry.device)
}

/// Some sandboxes show sysfs read-only: then large reads are slower, and nothing else.
fn widen_read_ahead(device: DeviceNumber) {
    let path = format!("/sys/class/bdi/{device}/read_ahead_kb");
    if let Err(error) = fs::write(&path, READ_AHEAD_KB.to_string()) {
        tracing::info!(path, %error, "read-ahead stays at its default: large files are read more slowly");
    }
}
