//! Making a workspace's mount.
//!
//! ```text
//! open and check the point      as the user
//! clone the lower, map owners   attached nowhere
//! attach it in layers/<id>      overlayfs takes layers by path on every kernel, by descriptor only on the newest
//! the same for the upper        in layers/<id>-upper, if it is to be seen with other ids than it is stored with
//! make the overlay              attached nowhere; keeps private copies of its layers
//! detach the layers
//! attach the overlay            at the descriptor of the first step
//! ```
//!
//! Killed anywhere before the last step, it leaves at most the layers, which [`super::unmount::abandon`] removes.

use std::{
    fmt::Write as _,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use super::{
    hooks::{Hooks, Step},
    layer::{self, Layer},
    point,
    protocol::{Failure, MountOrder, Owner, Reply, UpperOrder},
    upper::{self, Directories},
};
use crate::{
    engine::{PointFault, kernel::survey},
    sys::{
        mount::{self, FsContext, MountFlags},
        mountinfo, userns,
    },
};

/// Carries out an order to mount.
pub(super) fn mount(order: &MountOrder, hooks: Hooks) -> Result<Reply, Failure> {
    let map = order.map_owner.then(|| owner_map(&order.owner)).transpose()?;
    let upper_map = upper::map_of(order.owners)?;
    let point = point::open(&order.point, &order.owner, order.expect)?;
    hooks.reached(Step::Opened);
    let lower = clone_lower(&order.lower, map.as_ref())?;
    hooks.reached(Step::Cloned);
    let layer = Layer::attach(&order.layers, &layer::of_lower(&order.workspace), &lower)?;
    drop(lower);
    let directories = Directories::attach(order, upper_map.as_ref())?;
    hooks.reached(Step::Attached);
    let overlay = make_overlay(&order.workspace, &layer.path, &directories.upper, hooks)?;
    hooks.reached(Step::Created);
    layer.remove()?;
    directories.remove()?;
    hooks.reached(Step::Detached);
    let mount_id = mount::mount_id(overlay.as_fd()).map_err(Failure::at("finding the new mount's id"))?;
    mount::attach(overlay.as_fd(), point.fd.as_fd())?;
    if let Err(failure) = check_place(mount_id, &point) {
        take_back(overlay.as_fd(), mount_id)?;
        return Err(failure);
    }
    hooks.reached(Step::Placed);
    Ok(Reply::Mounted { mount_id, dev: point.dev, ino: point.ino })
}

/// Tries, on the session mounted at `session`, all that mapping owners needs.
pub(super) fn probe(session: &Path) -> Result<Reply, Failure> {
    const NOBODY: u32 = 65534;
    let map = owner_map(&Owner { uid: NOBODY, gid: NOBODY, groups: Vec::new() })?;
    clone_lower(session, Some(&map)).map(|_| Reply::Done)
}

fn owner_map(owner: &Owner) -> Result<OwnedFd, Failure> {
    userns::mapping_root_to(owner.uid, owner.gid).map_err(Failure::at("making a user namespace"))
}

fn clone_lower(lower: &Path, map: Option<&OwnedFd>) -> Result<OwnedFd, Failure> {
    let clone = mount::clone_tree(lower)?;
    mount::set_attributes(clone.as_fd(), MountFlags::SEALED, map.map(AsFd::as_fd))?;
    Ok(clone)
}

/// How the lower layers are named to overlayfs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Naming {
    /// `lowerdir+=a`, `lowerdir+=b`: kernel ≥ 6.8.
    OneByOne,
    /// `lowerdir=a:b`.
    Joined,
}

fn make_overlay(workspace: &str, lower: &Path, upper: &UpperOrder, hooks: Hooks) -> Result<OwnedFd, Failure> {
    if hooks.lower_by_string() {
        return configure_overlay(workspace, lower, upper, Naming::Joined);
    }
    match configure_overlay(workspace, lower, upper, Naming::OneByOne) {
        // An older kernel says so at the parameter or only when the file system is made. Where the cause is another
        // one, the second attempt fails in the same way and tells it.
        Err(failure) if failure.errno() == Some(libc::EINVAL) => {
            configure_overlay(workspace, lower, upper, Naming::Joined)
        }
        result => result,
    }
}

fn configure_overlay(
    workspace: &str,
    lower: &Path,
    upper: &UpperOrder,
    naming: Naming,
) -> Result<OwnedFd, Failure> {
    let context = FsContext::open("overlay")?;
    let mut names = Names::default();
    context.set("source", survey::source_of(workspace).as_os_str())?;
    match upper {
        UpperOrder::Writable { upper, work, volatile } => {
            set_lowers(&context, naming, &[names.of(lower)?])?;
            context.set("upperdir", names.of(upper)?.as_path())?;
            context.set("workdir", names.of(work)?.as_path())?;
            // Without these, chmod of a large file copies it and mv of a directory fails with EXDEV.
            context.set("metacopy", "on")?;
            context.set("redirect_dir", "on")?;
            if *volatile {
                context.set_flag("volatile")?;
            }
        }
        UpperOrder::ReadOnly { empty } => {
            // Uppermost, so that the mount's root has its owner and mode.
            let lowers = [names.of(empty)?, names.of(lower)?];
            set_lowers(&context, naming, &lowers)?;
        }
    }
    // One st_dev for the whole mount.
    context.set("xino", "on")?;
    // The engine keeps one mount per upper by its own means; an index would also refuse a second one that is wanted.
    context.set("index", "off")?;
    let flags = match upper {
        UpperOrder::Writable { .. } => MountFlags::TAME,
        UpperOrder::ReadOnly { .. } => MountFlags::SEALED,
    };
    Ok(context.mount(flags)?)
}

fn set_lowers(context: &FsContext, naming: Naming, lowers: &[PathBuf]) -> Result<(), Failure> {
    match naming {
        Naming::OneByOne => {
            for lower in lowers {
                context.set("lowerdir+", lower.as_path())?;
            }
        }
        Naming::Joined => {
            let mut joined = String::new();
            for (index, lower) in lowers.iter().enumerate() {
                let separator = if index == 0 { "" } else { ":" };
                // Names holds no byte outside ASCII.
                let _ = write!(joined, "{separator}{}", lower.display());
            }
            context.set("lowerdir", joined.as_str())?;
        }
    }
    Ok(())
}

/// Directories under names that no parameter parser reads anything into.
///
/// A path with anything unusual in it goes by way of a descriptor, kept open as long as this lives.
#[derive(Default)]
pub(super) struct Names {
    open: Vec<OwnedFd>,
}

impl Names {
    /// A plain name for `path`.
    pub(super) fn of(&mut self, path: &Path) -> Result<PathBuf, Failure> {
        if survey::is_plain(path) {
            return Ok(path.to_owned());
        }
        // The administrator's own path: its symlinks may be followed.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, rustix::fs::Mode::empty())
            .map_err(Failure::at(format!("opening {}", path.display())))?;
        let name = mount::proc_path(fd.as_fd());
        self.open.push(fd);
        Ok(name)
    }
}

/// The mount must have become a child of the one its point lies in: if two were made for one directory at once, the
/// second stands on the first instead.
fn check_place(mount_id: u64, point: &point::OpenPoint) -> Result<(), Failure> {
    let table = mountinfo::read(mountinfo::Whose::Own).map_err(Failure::at("reading mountinfo"))?;
    let entry = |id| table.iter().find(|entry| entry.mount_id == id);
    match entry(mount_id) {
        Some(entry) if entry.parent_id == point.inside => Ok(()),
        None if entry(point.inside).is_none() => {
            let gone = io::Error::new(io::ErrorKind::NotFound, "the mount is not visible from here");
            Err(Failure::at("finding the new mount")(gone))
        }
        // On another one, or taken away already together with that.
        _ => Err(Failure::point(PointFault::Busy, "something was mounted there meanwhile")),
    }
}

/// Mounts that may lie over ours when it has to go: a few of the same user's, made at the same moment.
const STACKED: usize = 16;

/// Ends our own mount. What lies over it ends first: it was made for the same directory, and has to go as well.
fn take_back(overlay: BorrowedFd<'_>, mount_id: u64) -> Result<(), Failure> {
    for _ in 0..=STACKED {
        match mount::detach(overlay) {
            // EINVAL: it is attached nowhere any more, or what lay over it went at this moment.
            Err(error) if error.source.raw_os_error() != Some(libc::EINVAL) => return Err(error.into()),
            _ => {}
        }
        let table = mountinfo::read(mountinfo::Whose::Own).map_err(Failure::at("reading mountinfo"))?;
        if table.iter().all(|entry| entry.mount_id != mount_id) {
            return Ok(());
        }
    }
    let busy = io::Error::new(io::ErrorKind::ResourceBusy, "it is still there");
    Err(Failure::at("taking a mount back")(busy))
}
