//! Descriptors from and for the service manager: the sockets it listens on for us, and those it keeps while we restart.
//!
//! systemd answers nothing: a store that is full drops descriptors in silence, so whoever stores counts. A stored
//! descriptor that reports an error or hang-up (a FUSE device whose mount is gone) leaves the store by itself.
#![allow(unsafe_code)] // descriptors arrive as numbers

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

use sd_notify::NotifyState;

/// Longest name that systemd takes (FDNAME_MAX).
const MAX_NAME: usize = 255;

/// Takes over all descriptors the manager passed to this process, with their names, close-on-exec. Empty without a manager
/// and at every call but the first: each descriptor has one owner.
pub fn receive() -> io::Result<Vec<(String, OwnedFd)>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let own = |(fd, name)| {
        // SAFETY: the manager passed `fd` to this process (LISTEN_PID was checked), nothing else in the program takes
        // passed descriptors, and the flag above lets this run once; so the descriptor is open and owned by nobody else.
        (name, unsafe { OwnedFd::from_raw_fd(fd) })
    };
    Ok(sd_notify::listen_fds_with_names()?.map(own).collect())
}

/// Gives the manager copies of `fds` to keep under `name`, to be passed to the next process of this service.
pub fn store(name: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    check(name)?;
    sd_notify::notify_with_fds(&[NotifyState::FdStore, NotifyState::FdName(name)], fds)
}

/// Lets the manager forget what it keeps under `name`.
pub fn forget(name: &str) -> io::Result<()> {
    check(name)?;
    sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)])
}

fn check(name: &str) -> io::Result<()> {
    let fine = !name.is_empty()
        && name.len() <= MAX_NAME
        && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    if fine {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "no name for a stored descriptor"))
    }
}

/// A memory file with `content`, sealed against change, to keep beside a stored descriptor.
pub fn memory_file(name: &str, content: &[u8]) -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut written = 0;
    while written < content.len() {
        written += rustix::io::pwrite(&fd, &content[written..], written as u64)?;
    }
    fcntl_add_seals(&fd, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

/// The content of a memory file of at most `limit` bytes.
pub fn read_memory_file(fd: impl AsFd, limit: usize) -> io::Result<Vec<u8>> {
    let size = usize::try_from(rustix::fs::fstat(&fd)?.st_size).unwrap_or(usize::MAX);
    if size > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a stored memory file is too long"));
    }
    let mut content = vec![0; size];
    let mut read = 0;
    while read < size {
        match rustix::io::pread(&fd, &mut content[read..], read as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => read += more,
        }
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_file_keeps_its_content() {
        let fd = memory_file("test", b"state").unwrap();
        assert_eq!(read_memory_file(&fd, 5).unwrap(), b"state");
        assert!(read_memory_file(&fd, 4).is_err());
        assert!(rustix::io::pwrite(&fd, b"x", 0).is_err(), "it is sealed");
    }

    #[test]
    fn names_that_systemd_refuses_are_refused_here() {
        for name in ["", "a:b", "a b", "é", &"x".repeat(256)] {
            assert!(store(name, &[]).is_err(), "{name}");
        }
        assert!(receive().unwrap().is_empty());
    }
}
