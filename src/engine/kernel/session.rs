//! One FUSE session: device, mount and workers, made, gone on with, and ended together.
//!
//! It is mounted read-only at `fs/<name>`, where only root can go, so that mounters can clone lowers from it. This
//! process never walks into it: a thread of ours that waited for our own answer could not be killed.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::fs::OFlags;
use tokio::sync::Notify;

use super::{
    heirs::Heir,
    places::{self, PlaceError},
    testament::Testament,
};
use crate::{
    config::Replay,
    engine::{
        SessionReport,
        handover::{Keepsake, SessionKeeper},
        serve::{Served, Turns},
    },
    fusedev::{self, Features, Session, SessionError, SessionLimits},
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

/// What all sessions of the engine have in common.
#[derive(Clone)]
pub(super) struct Common {
    /// The directory `fs`.
    pub(super) below: PathBuf,
    pub(super) limits: SessionLimits,
    pub(super) fetches_per_user: usize,
    pub(super) replay: Replay,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) keeper: Arc<dyn SessionKeeper>,
    pub(super) boot_id: String,
    /// The node table that ids come from.
    pub(super) table: [u8; 16],
    /// Told when the kernel ends a session.
    pub(super) ended: Arc<Notify>,
}

/// What one of them is made for.
pub(super) struct Blueprint {
    pub(super) name: String,
    pub(super) features: Features,
    /// Whom its files belong to.
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// A session that is served. Ended when dropped: its workers are joined, its mount is detached, its keeper forgets it,
/// and when no overlay stands on it any more the kernel frees it; overlays that do get ENOTCONN.
pub(super) struct MountedSession {
    name: String,
    path: PathBuf,
    // Dropped before what it stands by.
    session: Session,
    turns: Turns,
    device: Option<DeviceNumber>,
    standing: Mutex<Option<Standing>>,
}

/// The session's mount, and what the keeper holds; both go when dropped.
struct Standing {
    path: PathBuf,
    name: String,
    keeper: Arc<dyn SessionKeeper>,
    left: bool,
}

impl MountedSession {
    /// Mounts a session and starts serving it. Waits for the kernel's first message, which it sends at once.
    pub(super) fn open(
        blueprint: Blueprint,
        served: Served,
        common: &Common,
    ) -> Result<MountedSession, OpenError> {
        let device = fusedev::open_device().map_err(OpenError::Device)?;
        let duplicate = device.try_clone().map_err(OpenError::Device)?;
        let standing = Standing::of(&blueprint.name, common);
        let path = standing.path.clone();
        places::make_directory(&path)?;
        let mount_id = attach(&path, device.as_raw_fd()).map_err(OpenError::Mount)?;
        let (turns, fs, runtime) = (served.turns().clone(), Arc::new(served), common.runtime.clone());
        let session = Session::start(device, fs, blueprint.features, common.limits, runtime)?;
        let number = device_of(mount_id);
        if let Some(number) = number {
            widen_read_ahead(number);
            keep(&blueprint, &session, number, &duplicate, common);
        }
        tracing::info!(session = blueprint.name, connection = number.map(|n| n.minor), "serving a session");
        tell_of_its_end(&session, common);
        let standing = Mutex::new(Some(standing));
        Ok(MountedSession { name: blueprint.name, path, session, turns, device: number, standing })
    }

    /// Goes on with a session of an earlier process, which is mounted where it was.
    pub(super) fn resume(heir: Heir, served: Served, common: &Common) -> Result<MountedSession, OpenError> {
        let Heir { testament, device, slots } = heir;
        let standing = Standing::of(&testament.name, common);
        let path = standing.path.clone();
        let (turns, fs, runtime) = (served.turns().clone(), Arc::new(served), common.runtime.clone());
        let session = Session::resume(device, testament.negotiated, slots, fs, common.limits, runtime)?;
        let number = testament.device;
        tracing::info!(session = testament.name, connection = number.minor, "going on with a session");
        tell_of_its_end(&session, common);
        let standing = Mutex::new(Some(standing));
        Ok(MountedSession { name: testament.name, path, session, turns, device: Some(number), standing })
    }

    /// What it is called.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where it is mounted.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Device number of its superblock, if that could be found out.
    pub(super) fn device(&self) -> Option<DeviceNumber> {
        self.device
    }

    /// Whether the kernel has ended it (an administrator may abort a connection).
    pub(super) fn is_over(&self) -> bool {
        self.session.is_over()
    }

    /// Whether its mount is where it was, so that lowers can be cloned from it; somebody may have unmounted it while
    /// overlays keep it alive.
    pub(super) fn is_in_place(&self) -> bool {
        let own = |entry: &mountinfo::MountEntry| {
            entry.mount_point == self.path && Some(entry.device) == self.device
        };
        // What cannot be seen is taken to be there: the mount that needs it says what is wrong.
        self.device.is_none() || mountinfo::read(Whose::Own).map_or(true, |table| table.iter().any(own))
    }

    pub(super) fn report(&self) -> SessionReport {
        let connection = self.device.map_or(0, |device| device.minor);
        let (stats, queued, busy) = (self.session.stats(), self.turns.waited(), self.session.longest_busy());
        SessionReport { name: self.name.clone(), connection, stats, queued, busy }
    }

    /// Takes its mount away and has it forgotten, so that another session can have its name, whoever still holds this
    /// one.
    pub(super) fn retire(&self) {
        drop(self.take_standing());
    }

    /// Its mount and what the keeper holds stay when it is dropped.
    pub(super) fn leave(&self) {
        if let Some(mut standing) = self.take_standing() {
            standing.left = true;
        }
    }

    fn take_standing(&self) -> Option<Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn tell_of_its_end(session: &Session, common: &Common) {
    let (mut over, ended) = (session.over(), Arc::clone(&common.ended));
    common.runtime.spawn(async move {
        // An error says that it was ended by us.
        if over.wait_for(|over| *over).await.is_ok() {
            ended.notify_one();
        }
    });
}

/// Before anything stands on the session. Where it fails, a restart ends the session as if there were no keeper.
fn keep(blueprint: &Blueprint, session: &Session, device: DeviceNumber, fd: &OwnedFd, common: &Common) {
    let testament = Testament {
        name: blueprint.name.clone(),
        idmap: blueprint.features.idmap,
        uid: blueprint.uid,
        gid: blueprint.gid,
        device,
        boot_id: common.boot_id.clone(),
        table: common.table,
        negotiated: session.negotiated().clone(),
        slots: session.slots().map(|slots| *slots.id()),
    };
    let name = &testament.name;
    if !session.can_be_resumed() {
        tracing::info!(
            session = name,
            "unanswered requests are not kept: a restart interrupts what is being read"
        );
        return;
    }
    let record = testament.encode();
    let slots = session.slots().map(AsFd::as_fd);
    let keepsake = Keepsake { device: fd.as_fd(), record: record.as_bytes(), slots };
    if let Err(error) = common.keeper.keep(name, &keepsake) {
        tracing::warn!(session = name, %error, "a session cannot be kept: a restart will interrupt it");
    }
}

impl Standing {
    fn of(name: &str, common: &Common) -> Standing {
        let (path, keeper) = (common.below.join(name), Arc::clone(&common.keeper));
        Standing { path, name: name.to_owned(), keeper, left: false }
    }
}

/// Mounts the session at `path`; the mount's id.
fn attach(path: &Path, device: i32) -> Result<u64, MountCallError> {
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
    let failed = |doing: &str, source| MountCallError { doing: doing.to_owned(), log: String::new(), source };
    let target = mount::open_beneath_no_links(rustix::fs::CWD, path, OFlags::PATH | OFlags::DIRECTORY)
        .map_err(|errno| failed("opening the session's directory", errno.into()))?;
    mount::attach(mount.as_fd(), target.as_fd())?;
    mount::mount_id(mount.as_fd()).map_err(|source| failed("finding the session's mount id", source))
}

impl Drop for Standing {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        if let Err(error) = self.keeper.forget(&self.name) {
            tracing::warn!(session = self.name, %error, "an ended session may still be kept");
        }
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
