//! The mount API that works on descriptors: configure a file system, mount it detached, attach it where a descriptor
//! points. Every descriptor is close-on-exec.
//!
//! - [`FsContext`]: from a file system's name to a detached mount
//! - [`clone_tree`], [`set_attributes`], [`attach`]: a part of a tree as a mount of its own
//! - [`open_beneath_no_links`], [`mount_id`]: finding things without trusting a path
//! - [`detach`]: the end
//!
//! What the kernel logged to a context is part of the error: its errno alone (EINVAL for anything) tells nobody what
//! to do.
#![allow(unsafe_code)] // mount_setattr has no safe wrapper

use std::{
    fmt, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags},
    path::Arg,
};

/// A step the kernel refused.
#[derive(Debug)]
pub struct MountCallError {
    /// What was attempted, on what.
    pub doing: String,
    /// What the kernel logged about it; empty for most.
    pub log: String,
    /// Its error.
    pub source: io::Error,
}

/// A file system being configured.
#[derive(Debug)]
pub struct FsContext {
    fd: OwnedFd,
    fs: &'static str,
}

/// Flags of one mount; they do not touch its superblock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountFlags {
    /// Nothing can be written through it.
    pub read_only: bool,
    /// Setuid bits and file capabilities mean nothing.
    pub no_suid: bool,
    /// Device nodes cannot be opened.
    pub no_dev: bool,
}

/// What [`unmount`] may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmount {
    /// Only if nobody uses it.
    IfUnused,
    /// Out of the name space at once, for good when its last user is gone.
    Lazily,
}

/// The longest value that [`FsContext::set`] takes: the kernel copies at most 256 bytes with the final NUL.
pub const MAX_VALUE: usize = 255;

impl FsContext {
    /// Starts to configure a file system of this type.
    pub fn open(fs: &'static str) -> Result<FsContext, MountCallError> {
        let fd = rustix::mount::fsopen(fs, FsOpenFlags::FSOPEN_CLOEXEC)
            .map_err(failed(|| format!("opening {fs}")))?;
        Ok(FsContext { fd, fs })
    }

    /// Sets a parameter with a value, of at most [`MAX_VALUE`] bytes.
    pub fn set(&self, key: &str, value: impl Arg + Copy + fmt::Debug) -> Result<(), MountCallError> {
        let result = rustix::mount::fsconfig_set_string(&self.fd, key, value);
        self.explain(result, || format!("setting {key}={value:?} for {}", self.fs))
    }

    /// Sets a parameter without a value.
    pub fn set_flag(&self, key: &str) -> Result<(), MountCallError> {
        let result = rustix::mount::fsconfig_set_flag(&self.fd, key);
        self.explain(result, || format!("setting {key} for {}", self.fs))
    }

    /// Makes the file system, and a mount of it that is attached nowhere.
    pub fn mount(self, flags: MountFlags) -> Result<OwnedFd, MountCallError> {
        let created = rustix::mount::fsconfig_create(&self.fd);
        self.explain(created, || format!("creating {}", self.fs))?;
        let attributes = MountAttrFlags::from_bits_retain(flags.bits());
        let mounted = rustix::mount::fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, attributes);
        self.explain(mounted, || format!("mounting {}", self.fs))
    }

    fn explain<T>(
        &self,
        result: rustix::io::Result<T>,
        doing: impl FnOnce() -> String,
    ) -> Result<T, MountCallError> {
        result.map_err(|error| MountCallError { doing: doing(), log: self.log(), source: error.into() })
    }

    /// What the kernel had to say: lines that begin with `e `, `w ` or `i `, one per read.
    fn log(&self) -> String {
        const MAX_LINES: usize = 8; // the kernel keeps as many
        let mut lines = Vec::new();
        let mut buffer = [0_u8; 1024];
        while lines.len() < MAX_LINES {
            match rustix::io::read(&self.fd, &mut buffer) {
                Ok(count) if count > 0 => {
                    lines.push(String::from_utf8_lossy(&buffer[..count]).trim().to_owned());
                }
                _ => break, // ENODATA: no more
            }
        }
        let text = |line: &String| line.split_once(' ').map_or(line.clone(), |(_, text)| text.to_owned());
        lines.iter().map(text).collect::<Vec<_>>().join("; ")
    }
}

impl MountFlags {
    /// Read-only, nosuid, nodev.
    pub const SEALED: MountFlags = MountFlags { read_only: true, no_suid: true, no_dev: true };
    /// nosuid, nodev.
    pub const TAME: MountFlags = MountFlags { read_only: false, no_suid: true, no_dev: true };

    fn bits(self) -> u32 {
        let flag = |on: bool, flag: MountAttrFlags| if on { flag } else { MountAttrFlags::empty() };
        let read_only = flag(self.read_only, MountAttrFlags::MOUNT_ATTR_RDONLY);
        let no_suid = flag(self.no_suid, MountAttrFlags::MOUNT_ATTR_NOSUID);
        (read_only | no_suid | flag(self.no_dev, MountAttrFlags::MOUNT_ATTR_NODEV)).bits()
    }
}

/// A copy of the mount at `path`, showing the tree from there on, attached nowhere.
pub fn clone_tree(path: &Path) -> Result<OwnedFd, MountCallError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    rustix::mount::open_tree(rustix::fs::CWD, path, flags)
        .map_err(failed(|| format!("cloning {}", path.display())))
}

/// Gives a mount more flags, makes it private, and shows its owners through a user namespace's map if there is one.
/// With a map, the mount must not be attached yet.
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    flags: MountFlags,
    map: Option<BorrowedFd<'_>>,
) -> Result<(), MountCallError> {
    let idmap = map.map_or(0, |_| u64::from(MountAttrFlags::MOUNT_ATTR_IDMAP.bits()));
    let raw_fd = map.map_or(0, |fd| fd.as_raw_fd());
    let attributes = libc::mount_attr {
        attr_set: u64::from(flags.bits()) | idmap,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: u64::from(raw_fd.unsigned_abs()), // a descriptor is never negative
    };
    // SAFETY: the descriptors are open for the call (borrowed), the path is an empty C string, and the last two
    // arguments are the address and size of a live structure that the kernel only reads.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        return Ok(());
    }
    let doing = if map.is_some() { "mapping the owners of a mount" } else { "setting the flags of a mount" };
    Err(MountCallError { doing: doing.to_owned(), log: String::new(), source: io::Error::last_os_error() })
}

/// Attaches a detached mount to the directory that `target` is open on.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), MountCallError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", target, "", flags).map_err(failed(|| "attaching a mount".to_owned()))
}

/// Ends the mount that `path` leads to. The last name may not be a symlink.
pub fn unmount(path: &Path, how: Unmount) -> Result<(), MountCallError> {
    let lazy = if how == Unmount::Lazily { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    rustix::mount::unmount(path, UnmountFlags::NOFOLLOW | lazy)
        .map_err(failed(|| format!("unmounting {}", path.display())))
}

/// Detaches the uppermost mount at what `fd` is open on: the mount of `fd` itself, unless another one lies over it. EINVAL
/// when it is attached nowhere.
pub fn detach(fd: BorrowedFd<'_>) -> Result<(), MountCallError> {
    rustix::mount::unmount(proc_path(fd), UnmountFlags::DETACH)
        .map_err(failed(|| "detaching a mount".to_owned()))
}

/// Opens `path` without following any symlink, as a handle that grants nothing but being found again.
pub fn open_beneath_no_links(at: BorrowedFd<'_>, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(at, path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Id of the mount that `fd` is open on; asks no file system but proc.
pub fn mount_id(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "fdinfo names no mount id"))
}

/// A path that leads to what `fd` is open on, for as long as it is open.
pub fn proc_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Makes `dir` a mount of its own, on itself, whose mounts stay in this mount namespace. The directory is opened
/// without following symlinks.
pub fn make_private_mount(dir: &Path) -> Result<(), MountCallError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let target = open_beneath_no_links(rustix::fs::CWD, dir, flags)
        .map_err(failed(|| format!("opening {}", dir.display())))?;
    let clone = clone_tree(dir)?;
    set_attributes(clone.as_fd(), MountFlags::TAME, None)?;
    attach(clone.as_fd(), target.as_fd())?;
    // Attaching below a shared mount makes the new one shared too.
    set_attributes(clone.as_fd(), MountFlags::TAME, None)
}

fn failed(doing: impl FnOnce() -> String) -> impl FnOnce(rustix::io::Errno) -> MountCallError {
    move |error| MountCallError { doing: doing(), log: String::new(), source: error.into() }
}

impl MountCallError {
    /// What was attempted, with the kernel's own explanation.
    pub fn step(&self) -> String {
        if self.log.is_empty() { self.doing.clone() } else { format!("{} ({})", self.doing, self.log) }
    }
}

impl fmt::Display for MountCallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step(), self.source)
    }
}

impl std::error::Error for MountCallError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        None // Display tells it
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::mountinfo::{self, Whose};

    #[test]
    fn the_kernels_own_explanation_is_in_the_error() {
        let context = FsContext::open("overlay").unwrap();
        let error = context.set("no_such_parameter", "x").unwrap_err();
        assert_eq!(error.source.raw_os_error(), Some(libc::EINVAL));
        assert!(error.log.contains("no_such_parameter"), "{error}");
    }

    #[test]
    fn an_unknown_file_system_is_an_error() {
        assert_eq!(FsContext::open("nonesuch").unwrap_err().source.raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn a_mount_attached_by_descriptor_is_found_and_detached_by_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let target = open_beneath_no_links(rustix::fs::CWD, dir.path(), flags).unwrap();
        let context = FsContext::open("tmpfs").unwrap();
        context.set("source", "a,b c").unwrap();
        let mount = context.mount(MountFlags::TAME).unwrap();
        attach(mount.as_fd(), target.as_fd()).unwrap();
        let id = mount_id(mount.as_fd()).unwrap();
        let entry =
            mountinfo::read(Whose::Own).unwrap().into_iter().find(|entry| entry.mount_id == id).unwrap();
        assert_eq!(entry.source, "a,b c");
        assert_eq!(entry.mount_point, dir.path());
        assert!(entry.options.to_str().unwrap().contains("nosuid,nodev"));
        detach(mount.as_fd()).unwrap();
        assert!(mountinfo::read(Whose::Own).unwrap().iter().all(|entry| entry.mount_id != id));
    }

    #[test]
    fn a_private_mount_shares_nothing() {
        let dir = tempfile::tempdir().unwrap();
        make_private_mount(dir.path()).unwrap();
        let entries = mountinfo::read(Whose::Own).unwrap();
        let entry = entries.iter().find(|entry| entry.mount_point == dir.path()).unwrap();
        assert_eq!(entry.propagation, mountinfo::Propagation::default());
        unmount(dir.path(), Unmount::IfUnused).unwrap();
    }
}
