//! Ending a workspace's mount by its id, wherever its directory has been renamed to.
//!
//! A mount that several directories show (a peer group within this namespace) is ended in all of them: what counts is
//! that the superblock lets go of its upper directory.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::OFlags;

use super::{
    holders, layer,
    protocol::{AbandonOrder, Failure, Reply, UnmountOrder},
};
use crate::{
    engine::kernel::survey,
    sys::{
        mount::{self, Unmount},
        mountinfo::{self, MountEntry},
    },
};

/// How often to look again when the path of a mount has changed between reading and opening it.
const ATTEMPTS: usize = 16;
/// How often to look again when another mount lies over it.
const COVERED_ATTEMPTS: usize = 5;
/// Mounts of one superblock that are ended in one go; a user cannot make any, so a handful would do.
const MAX_PEERS: usize = 64;

/// Carries out an order to unmount.
pub(super) fn unmount(order: &UnmountOrder) -> Result<Reply, Failure> {
    let how = if order.lazy { Unmount::Lazily } else { Unmount::IfUnused };
    let Some(named) = entry_with(&order.workspace, |entry| entry.mount_id == order.mount_id)? else {
        return Ok(Reply::Done);
    };
    let device = named.device;
    end(&order.workspace, named, how)?;
    for _ in 0..MAX_PEERS {
        match entry_with(&order.workspace, |entry| entry.device == device)? {
            Some(peer) => end(&order.workspace, peer, how)?,
            None => return Ok(Reply::Done),
        }
    }
    Err(still_there("ending all mounts of the workspace"))
}

/// Carries out an order to end all that nobody uses, with one look at mountinfo.
pub(super) fn sweep(layers: &Path) -> Result<Reply, Failure> {
    let table = mountinfo::read(mountinfo::Whose::Own).map_err(Failure::at("reading mountinfo"))?;
    for entry in table.iter().filter(|entry| survey::own_workspace_of(entry, layers).is_some()) {
        // What is in use, has moved, or lies under something else gets an order of its own, which says what is wrong.
        let _ = try_end(entry, Unmount::IfUnused);
    }
    Ok(Reply::Done)
}

/// Carries out an order to remove what a mounter left that died on its way.
pub(super) fn abandon(order: &AbandonOrder) -> Result<Reply, Failure> {
    clear_layer(&order.layers, &layer::of_lower(&order.workspace))?;
    clear_layer(&order.layers, &layer::of_upper(&order.workspace))?;
    for _ in 0..MAX_PEERS {
        match entry_with(&order.workspace, |_| true)? {
            Some(left) => end(&order.workspace, left, Unmount::Lazily)?,
            None => return Ok(Reply::Done),
        }
    }
    Err(still_there("ending all mounts of the workspace"))
}

/// Removes `layers/<name>` and what is mounted on it.
pub(super) fn clear_layer(layers: &Path, name: &str) -> Result<(), Failure> {
    let path = layers.join(name);
    // Nearly always there is nothing, and a look at mountinfo takes the longer the more workspaces there are. Removing a
    // directory asks nothing of what is mounted on it: that one is busy.
    if remove_if_there(&path).is_ok() {
        return Ok(());
    }
    let table = mountinfo::read(mountinfo::Whose::Own).map_err(Failure::at("reading mountinfo"))?;
    for _ in table.iter().filter(|entry| entry.mount_point == path) {
        mount::unmount(&path, Unmount::Lazily)?;
    }
    remove_if_there(&path).map_err(Failure::at("removing the directory of an earlier lower"))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn entry_with(workspace: &str, wanted: impl Fn(&MountEntry) -> bool) -> Result<Option<MountEntry>, Failure> {
    let source = survey::source_of(workspace);
    let table = mountinfo::read(mountinfo::Whose::Own).map_err(Failure::at("reading mountinfo"))?;
    let ours = |entry: &MountEntry| entry.fs_type == "overlay" && entry.source == source;
    Ok(table.into_iter().find(|entry| ours(entry) && wanted(entry)))
}

/// Ends the mount `entry`. One that vanishes meanwhile is ended.
fn end(workspace: &str, mut entry: MountEntry, how: Unmount) -> Result<(), Failure> {
    for attempt in 0..ATTEMPTS {
        match try_end(&entry, how) {
            Ok(Tried::Ended) => return Ok(()),
            Ok(Tried::Moved) => {}
            // By a mount that was made for the same directory at the same moment and is just being taken back, perhaps.
            Ok(Tried::Covered) if attempt < COVERED_ATTEMPTS => std::thread::sleep(Duration::from_millis(20)),
            Ok(Tried::Covered) => return Err(covered(&entry.mount_point)),
            // The kernel also says "busy" of a mount whose last user is just going (its clean-up runs late).
            Err(failure) if failure.errno() == Some(libc::EBUSY) && attempt < 2 => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(failure) if failure.errno() == Some(libc::EBUSY) => {
                let holders = holders::of(&entry.mount_point);
                return Err(Failure::Busy { path: entry.mount_point, holders });
            }
            Err(failure) => return Err(failure),
        }
        match entry_with(workspace, |now| now.mount_id == entry.mount_id)? {
            Some(now) => entry = now,
            None => return Ok(()),
        }
    }
    Err(still_there("following a mount whose path keeps changing"))
}

enum Tried {
    Ended,
    /// Its path is another one by now.
    Moved,
    /// Another mount lies over it.
    Covered,
}

fn try_end(entry: &MountEntry, how: Unmount) -> Result<Tried, Failure> {
    let (Some(parent), Some(name)) = (entry.mount_point.parent(), entry.mount_point.file_name()) else {
        return Err(still_there("finding the directory above the mount"));
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let Ok(parent) = mount::open_beneath_no_links(rustix::fs::CWD, parent, flags) else {
        return Ok(Tried::Moved);
    };
    let Some(top) = open_name(parent.as_fd(), Path::new(name)) else { return Ok(Tried::Moved) };
    let top_id = mount::mount_id(top.as_fd()).map_err(Failure::at("finding a mount's id"))?;
    if top_id != entry.mount_id {
        return look_closer(entry, top_id);
    }
    match how {
        Unmount::Lazily => mount::detach(top.as_fd())?,
        Unmount::IfUnused => {
            drop(top); // it would keep the mount busy
            let path: PathBuf = mount::proc_path(parent.as_fd()).join(name);
            mount::unmount(&path, how)?;
        }
    }
    Ok(Tried::Ended)
}

/// `O_PATH` of the last name leads to the uppermost mount there without asking its file system anything.
fn open_name(parent: BorrowedFd<'_>, name: &Path) -> Option<OwnedFd> {
    mount::open_beneath_no_links(parent, name, OFlags::PATH).ok()
}

/// Another mount is met at the path: it lies over ours, or ours has moved on.
fn look_closer(entry: &MountEntry, top_id: u64) -> Result<Tried, Failure> {
    let table = mountinfo::read(mountinfo::Whose::Own).map_err(Failure::at("reading mountinfo"))?;
    let covering =
        table.iter().any(|other| other.mount_id == top_id && other.mount_point == entry.mount_point);
    Ok(if covering { Tried::Covered } else { Tried::Moved })
}

fn covered(path: &Path) -> Failure {
    let error = io::Error::new(io::ErrorKind::ResourceBusy, "another file system is mounted over it");
    Failure::at(format!("unmounting {}", path.display()))(error)
}

fn still_there(step: &str) -> Failure {
    Failure::at(step)(io::Error::new(io::ErrorKind::ResourceBusy, "it is still there"))
}
