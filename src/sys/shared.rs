//! A memory file that is written to, so that what a process was about survives it; and a part of it as memory, for a
//! system call to write into.
//!
//! Files made here are sealed against change of length: a mapped page that is cut off would kill the process that looks
//! at it. Whoever else has the file must not write to it while a part is mapped.
#![allow(unsafe_code)] // mapping memory

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    ptr::NonNull,
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};

/// What is sealed.
const LENGTH: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// A memory file of `length` bytes, all zero. Memory is only taken for what is written.
pub fn writable_memory_file(name: &str, length: u64) -> io::Result<OwnedFd> {
    let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&fd, length)?;
    fcntl_add_seals(&fd, LENGTH | SealFlags::SEAL)?;
    Ok(fd)
}

/// The length of `fd` if it is a memory file whose length cannot change and whose content can.
pub fn length_of_writable(fd: impl AsFd) -> Option<u64> {
    let seals = fcntl_get_seals(&fd).ok()?;
    let fixed = seals.contains(LENGTH) && !seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE);
    fixed.then(|| fstat(&fd).ok().and_then(|stat| stat.st_size.try_into().ok()))?
}

/// A part of a memory file, as memory. Unmapped when dropped; the file keeps its content.
#[derive(Debug)]
pub struct Mapped {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: it is the only reference to its mapping, and memory is mapped for all threads of the process.
unsafe impl Send for Mapped {}

impl Mapped {
    /// Maps `length` bytes of `file` from `offset` on, whole pages that lie within the file. The pages are there at once
    /// and, where the limits allow it, never leave: the kernel can write to them whatever happens to this process.
    pub fn new(file: &OwnedFd, offset: u64, length: usize) -> io::Result<Mapped> {
        let end = offset.checked_add(length as u64);
        if end.is_none_or(|end| length_of_writable(file).is_none_or(|there| there < end)) || length == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "no part of a memory file of fixed length",
            ));
        }
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        // SAFETY: no address is asked for, so no mapping that is in use is touched; a wrong offset or descriptor is an error.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, file.as_raw_fd(), offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        let mapped = Mapped { start, length };
        // SAFETY: exactly the pages that were mapped. Without the right to it they could only be written to swap.
        let _ = unsafe { libc::mlock(start.as_ptr().cast(), length) };
        Ok(mapped)
    }

    /// The memory.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `length` bytes from `start` are mapped readable and writable until this is dropped, which the borrow
        // outlasts not; the file cannot shrink, so they stay valid; nothing else in this process has a reference to them,
        // and no other process writes to them (the module's rule).
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped, once, and no reference into it outlives this.
        if unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) } != 0 {
            tracing::error!(error = %io::Error::last_os_error(), "memory stays mapped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fdstore::memory_file;

    #[test]
    fn what_is_mapped_is_in_the_file_and_outlives_the_mapping() {
        let file = writable_memory_file("test", 3 * 4096).unwrap();
        let mut mapped = Mapped::new(&file, 4096, 4096).unwrap();
        mapped.bytes()[..3].copy_from_slice(b"abc");
        rustix::io::pwrite(&file, b"x", 4097).unwrap();
        assert_eq!(&mapped.bytes()[..4], b"axc\0");
        drop(mapped);
        let mut content = [0; 3];
        rustix::io::pread(&file, &mut content, 4096).unwrap();
        assert_eq!(&content, b"axc");
    }

    #[test]
    fn its_length_is_fixed_and_nothing_else_is_mapped() {
        let file = writable_memory_file("test", 8192).unwrap();
        assert_eq!(length_of_writable(&file), Some(8192));
        assert!(ftruncate(&file, 0).is_err() && ftruncate(&file, 16384).is_err());
        for (offset, length) in [(4096, 8192), (8192, 1), (0, 0), (u64::MAX, 4096)] {
            assert!(Mapped::new(&file, offset, length).is_err(), "{offset} {length}");
        }
        let record = memory_file("test", &[1; 4096]).unwrap();
        assert_eq!(length_of_writable(&record), None, "a sealed record");
        let plain = OwnedFd::from(tempfile::tempfile().unwrap());
        assert_eq!(length_of_writable(&plain), None, "a file on a disk");
        assert!(Mapped::new(&record, 0, 4096).is_err() && Mapped::new(&plain, 0, 4096).is_err());
    }
}
