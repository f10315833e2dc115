//! What lies in an overlay's upper directory.
//!
//! The upper's owner changes it through the mount while we read it, so every step is relative to a directory
//! descriptor and follows no symlink. overlayfs marks what it did with `trusted.overlay.*` attributes, which only root can
//! read or set.
//!
//! - [`ids`]: files are stored with the ids of the workspace's first owner and told with those its owner sees

mod ids;

use std::{
    ffi::{CString, OsStr},
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::Path,
};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat};

use crate::{sys::idmap::Owners, types::FileName};

/// A redirect is a path; the kernel stores no longer one.
const MAX_ATTRIBUTE: usize = 4096 + 256;

/// An open directory of an upper.
#[derive(Debug)]
pub struct UpperDir {
    fd: OwnedFd,
    owners: Option<Owners>,
}

/// One entry of an upper, as overlayfs means it.
#[derive(Debug)]
pub enum UpperEntry {
    /// The name is deleted from the merged directory.
    Whiteout,
    /// A file with its own content.
    File(Stat),
    /// A file whose content is still the lower's; only its metadata changed, or it was renamed.
    Metacopy {
        /// Mode, owner, times and size.
        stat: Stat,
        /// Where its content lies in the lower, when not at the same path.
        redirect: Option<Redirect>,
    },
    /// A directory.
    Directory {
        /// Mode, owner, times.
        stat: Stat,
        /// Nothing of the lower shows through.
        opaque: bool,
        /// The lower directory it shows, when not the one at the same path.
        redirect: Option<Redirect>,
    },
    /// A symlink and its target.
    Symlink(Stat, Vec<u8>),
    /// A fifo, socket or device, which git cannot hold.
    Special(Stat),
}

/// `trusted.overlay.redirect`: where in the lower something was before it was renamed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// From the top of the lower.
    Absolute(Vec<u8>),
    /// Another name in the same lower directory.
    Sibling(Vec<u8>),
}

impl UpperDir {
    /// Opens the top of an upper, whose files are told with the ids that they are stored with.
    pub fn open(path: &Path) -> io::Result<UpperDir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(UpperDir { fd: fs::open(path, flags, Mode::empty())?, owners: None })
    }

    /// The same, but its files are told with the ids that are seen in the mount.
    pub fn shown_to(self, owners: Owners) -> UpperDir {
        UpperDir { owners: Some(owners), ..self }
    }

    /// Names in this directory, sorted. Names that git cannot hold do not occur on a Linux file system.
    pub fn names(&self) -> io::Result<Vec<FileName>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.fd)? {
            let entry = entry?;
            // Only `.` and `..` fail the check.
            names.extend(FileName::new(entry.file_name().to_bytes()).ok());
        }
        names.sort();
        Ok(names)
    }

    /// A directory below this one.
    pub fn open_dir(&self, name: &FileName) -> io::Result<UpperDir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(UpperDir { fd: fs::openat(&self.fd, os(name), flags, Mode::empty())?, owners: self.owners })
    }

    /// A regular file in this directory, for reading.
    pub fn open_file(&self, name: &FileName) -> io::Result<File> {
        // Were the name a fifo by now, opening it must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(fs::openat(&self.fd, os(name), flags, Mode::empty())?);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::other("it is not a regular file any more"))
        }
    }

    /// What overlayfs means by the entry `name`; `None` when it is gone by now.
    pub fn entry(&self, name: &FileName) -> io::Result<Option<UpperEntry>> {
        match self.classify(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            classified => classified.map(Some),
        }
    }

    fn classify(&self, name: &FileName) -> io::Result<UpperEntry> {
        let stat = self.seen(fs::statat(&self.fd, os(name), AtFlags::SYMLINK_NOFOLLOW)?);
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice if stat.st_rdev == 0 => UpperEntry::Whiteout,
            FileType::RegularFile => self.classify_file(name, stat)?,
            FileType::Directory => {
                let dir = self.open_dir(name)?;
                let opaque = attribute(&dir.fd, "trusted.overlay.opaque")?.is_some_and(|value| value == b"y");
                UpperEntry::Directory { stat, opaque, redirect: redirect(&dir.fd)? }
            }
            FileType::Symlink => {
                let target = fs::readlinkat(&self.fd, os(name), Vec::new())?;
                UpperEntry::Symlink(stat, target.into_bytes())
            }
            _ => UpperEntry::Special(stat),
        })
    }

    fn classify_file(&self, name: &FileName, stat: Stat) -> io::Result<UpperEntry> {
        let file = self.open_file(name)?;
        if attribute(&file, "trusted.overlay.whiteout")?.is_some() {
            return Ok(UpperEntry::Whiteout);
        }
        if attribute(&file, "trusted.overlay.metacopy")?.is_none() {
            return Ok(UpperEntry::File(stat));
        }
        Ok(UpperEntry::Metacopy { stat, redirect: redirect(&file)? })
    }

    /// All extended attributes of the entry `name` (of the directory itself when `None`), sorted by name. Symlinks and
    /// special files have none that matter.
    pub fn attributes(&self, name: Option<&FileName>) -> io::Result<Vec<(CString, Vec<u8>)>> {
        let stored = match name {
            None => attributes(&self.fd),
            Some(name) => {
                let stat = fs::statat(&self.fd, os(name), AtFlags::SYMLINK_NOFOLLOW)?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::RegularFile => attributes(&self.open_file(name)?),
                    FileType::Directory => attributes(&self.open_dir(name)?.fd),
                    _ => Ok(Vec::new()),
                }
            }
        };
        let Some(owners) = &self.owners else { return stored };
        let seen = |(name, value): (CString, Vec<u8>)| {
            let value = ids::seen_attribute(name.as_bytes(), value, owners);
            (name, value)
        };
        Ok(stored?.into_iter().map(seen).collect())
    }

    /// The directory's own metadata.
    pub fn stat(&self) -> io::Result<Stat> {
        Ok(self.seen(fs::fstat(&self.fd)?))
    }

    fn seen(&self, stat: Stat) -> Stat {
        self.owners.map_or(stat, |owners| ids::seen(stat, &owners))
    }
}

/// A name for the kernel.
fn os(name: &FileName) -> &OsStr {
    OsStr::from_bytes(name.as_bytes())
}

fn redirect(fd: &impl AsFd) -> io::Result<Option<Redirect>> {
    let value = attribute(fd, "trusted.overlay.redirect")?;
    Ok(value.map(|path| match path.first() {
        Some(b'/') => Redirect::Absolute(path),
        _ => Redirect::Sibling(path),
    }))
}

fn attribute(fd: &impl AsFd, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; MAX_ATTRIBUTE];
    match fs::fgetxattr(fd, name, value.as_mut_slice()) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// XATTR_LIST_MAX and XATTR_SIZE_MAX: the kernel gives no longer ones.
const MAX_LIST: usize = 64 * 1024;

fn attributes(fd: &impl AsFd) -> io::Result<Vec<(CString, Vec<u8>)>> {
    let mut list = vec![0_u8; MAX_LIST];
    let length = match fs::flistxattr(fd, list.as_mut_slice()) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; MAX_LIST];
        match fs::fgetxattr(fd, OsStr::from_bytes(name), value.as_mut_slice()) {
            Ok(length) => value.truncate(length),
            // Removed since it was listed.
            Err(rustix::io::Errno::NODATA) => continue,
            Err(error) => return Err(error.into()),
        }
        let name = CString::new(name).expect("names were split at NUL");
        found.push((name, value));
    }
    found.sort();
    Ok(found)
}

/// A name as an `OsString`, for error texts and archives.
pub fn os_path(path: &[u8]) -> std::path::PathBuf {
    std::ffi::OsString::from_vec(path.to_vec()).into()
}
