//! What a process inherits from the one that started it.
#![allow(unsafe_code)] // close_range has no safe wrapper: it closes what others may own

use std::io;

/// Closes every descriptor but the three standard ones. For the start of a short-lived program: libraries in the process
/// that started it may have opened files without close-on-exec (LMDB does).
pub fn close_inherited() -> io::Result<()> {
    const FIRST: libc::c_uint = 3;
    // SAFETY: touches no memory. Whoever calls this at the start of `main` has opened nothing above the standard
    // descriptors, so none that is closed here has an owner in this process.
    let result = unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, 0) };
    if result == 0 { Ok(()) } else { close_one_by_one(FIRST) }
}

/// For kernels before 5.9.
fn close_one_by_one(first: libc::c_uint) -> io::Result<()> {
    let open: Vec<_> = std::fs::read_dir("/proc/self/fd")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|fd| u32::try_from(*fd).is_ok_and(|fd| fd >= first))
        .collect();
    for fd in open {
        // SAFETY: as above. The descriptor that the directory was read through is among them and closed already;
        // closing a number that is not open does nothing.
        unsafe { libc::close(fd) };
    }
    Ok(())
}
