//! Small files that are there whole or not at all, whatever moment the machine stops: written beside their place,
//! synced, renamed into it, and the directory synced. Reads are bounded and follow no symlink.
//!
//! Everything is relative to a directory descriptor. One writer per directory at a time: the name of the temporary file
//! is fixed, so that what a crash leaves behind is one file, and the next write replaces it.

use std::{
    fs::DirBuilder,
    io::{self, Read, Write},
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, fstat, fsync, open, openat, renameat, unlinkat},
    io::Errno,
};

/// Opens a directory for the functions below; a symlink is refused.
pub fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, DIRECTORY, Mode::empty())?)
}

/// Opens the directory `name` of `dir`; a symlink is refused.
pub fn open_dir_at(dir: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    Ok(openat(dir, plain(name)?, DIRECTORY, Mode::empty())?)
}

/// Makes the directory `path` for its owner alone if it is not there, and before it those above that are missing. Its name
/// is durable when this returns, also where a process that was killed has made it and not synced.
pub fn make_dirs(path: &Path) -> io::Result<()> {
    let make = || DirBuilder::new().mode(0o700).create(path);
    let made = match (make(), path.parent()) {
        (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
            make_dirs(parent)?;
            make()
        }
        (made, _) => made,
    };
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => Err(error),
        Ok(()) | Err(_) => sync_name(path),
    }
}

/// Makes the name of what lies at `path` durable: syncs the directory that it is in.
pub fn sync_name(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    // A relative name of one component has an empty parent.
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let dir = open(parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    match fsync(dir) {
        // A file system that has nothing to sync: one that the kernel makes up, or that cannot be written to.
        Ok(()) | Err(Errno::INVAL | Errno::ROFS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Makes `name` hold exactly `bytes`, readable by the owner alone. On an error it holds what it held before, or, when
/// only the last sync failed, perhaps already `bytes`.
pub fn write(dir: BorrowedFd<'_>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temp = format!(".{}.tmp", plain(name)?);
    unlink_if_there(dir, &temp)?;
    let placed = fill(dir, &temp, bytes).and_then(|()| Ok(renameat(dir, &temp, dir, name)?));
    if let Err(error) = placed {
        // The first error is the one to tell; a temporary file that stays is replaced by the next write.
        let _ = unlink_if_there(dir, &temp);
        return Err(error);
    }
    Ok(fsync(dir)?)
}

/// All bytes of `name`, which must be a regular file of at most `max` bytes.
pub fn read(dir: BorrowedFd<'_>, name: &str, max: usize) -> io::Result<Vec<u8>> {
    // NONBLOCK: opening a FIFO that somebody put there must not wait for a writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(dir, plain(name)?, flags, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    std::fs::File::from(file).take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("longer than {max} bytes")));
    }
    Ok(bytes)
}

/// Takes `name` away for good; one that is not there is fine.
pub fn remove(dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    unlink_if_there(dir, plain(name)?)?;
    Ok(fsync(dir)?)
}

fn fill(dir: BorrowedFd<'_>, temp: &str, bytes: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(openat(dir, temp, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(bytes)?;
    file.sync_all()
}

fn unlink_if_there(dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn plain(name: &str) -> io::Result<&str> {
    match name {
        "" | "." | ".." => Err(io::ErrorKind::InvalidInput.into()),
        _ if name.contains(['/', '\0']) => Err(io::ErrorKind::InvalidInput.into()),
        _ => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::fd::AsFd, os::unix::fs::symlink};

    use super::*;

    fn scratch() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let fd = open_dir(dir.path()).unwrap();
        (dir, fd)
    }

    #[test]
    fn a_write_replaces_the_file_and_leaves_nothing_beside_it() {
        let (dir, fd) = scratch();
        fs::write(dir.path().join(".record.tmp"), "left by a crash").unwrap();
        write(fd.as_fd(), "record", b"one").unwrap();
        write(fd.as_fd(), "record", b"two").unwrap();
        assert_eq!(read(fd.as_fd(), "record", 3).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        remove(fd.as_fd(), "record").unwrap();
        remove(fd.as_fd(), "record").unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn directories_are_made_with_those_above_them_and_taken_as_they_are() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, _) = scratch();
        let path = dir.path().join("a/b/c");
        make_dirs(&path).unwrap();
        make_dirs(&path).unwrap();
        for made in ["a", "a/b", "a/b/c"] {
            let mode = fs::metadata(dir.path().join(made)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{made}");
        }
        symlink("a/b", dir.path().join("link")).unwrap();
        make_dirs(&dir.path().join("link/d")).unwrap();
        assert!(dir.path().join("a/b/d").is_dir());
        fs::write(dir.path().join("file"), "").unwrap();
        assert_eq!(make_dirs(&dir.path().join("file")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(make_dirs(&dir.path().join("file/e")).unwrap_err().kind(), io::ErrorKind::NotADirectory);
        make_dirs(Path::new("/")).unwrap();
    }

    #[test]
    fn a_failed_write_keeps_the_old_content() {
        let (dir, fd) = scratch();
        write(fd.as_fd(), "record", b"old").unwrap();
        fs::create_dir(dir.path().join(".record.tmp")).unwrap();
        assert!(write(fd.as_fd(), "record", b"new").is_err());
        assert_eq!(read(fd.as_fd(), "record", 10).unwrap(), b"old");
    }

    #[test]
    fn reads_are_bounded_and_take_regular_files_only() {
        let (dir, fd) = scratch();
        fs::write(dir.path().join("long"), "1234").unwrap();
        symlink("long", dir.path().join("link")).unwrap();
        fs::create_dir(dir.path().join("dir")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(fd.as_fd(), "long", 4).unwrap(), b"1234");
        assert_eq!(read(fd.as_fd(), "long", 3).unwrap_err().kind(), io::ErrorKind::InvalidData);
        for hostile in ["link", "dir", "fifo", "missing", "../x", "..", ""] {
            assert!(read(fd.as_fd(), hostile, 100).is_err(), "{hostile}");
        }
    }

    #[test]
    fn a_symlink_in_the_place_of_a_file_is_replaced_and_not_followed() {
        let (dir, fd) = scratch();
        fs::write(dir.path().join("victim"), "safe").unwrap();
        symlink("victim", dir.path().join("record")).unwrap();
        symlink("victim", dir.path().join(".record.tmp")).unwrap();
        write(fd.as_fd(), "record", b"new").unwrap();
        assert_eq!(fs::read(dir.path().join("victim")).unwrap(), b"safe");
        assert_eq!(read(fd.as_fd(), "record", 10).unwrap(), b"new");
        symlink(dir.path(), dir.path().join("elsewhere")).unwrap();
        assert!(open_dir(&dir.path().join("elsewhere")).is_err());
        assert!(open_dir_at(fd.as_fd(), "elsewhere").is_err());
    }
}
