//! Opening and reading files of a repository whose owner may be hostile.
//!
//! Whoever owns a repository can put a FIFO, a device or an endless sparse file where git has a line of text. So only
//! regular files are read, opening never waits for a peer, and what git keeps small is read up to a bound.

use std::{
    fs::{File, OpenOptions},
    io::Read as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use super::error::OpenError;

/// Opens a regular file; symlinks are followed with the rights of the reader.
pub(super) fn open_regular(path: &Path) -> Result<File, OpenError> {
    // Without O_NONBLOCK a FIFO would hold the thread until somebody writes to it.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.map_err(|error| OpenError::from_io(path, &error))?;
    let metadata = file.metadata().map_err(|error| OpenError::from_io(path, &error))?;
    if metadata.is_file() {
        return Ok(file);
    }
    Err(OpenError::unreadable(path, "it is not a regular file"))
}

/// The whole of a file of at most `max` bytes; `None` when it is not there.
pub(super) fn read_small(path: &Path, max: u64) -> Result<Option<Vec<u8>>, OpenError> {
    let file = match open_regular(path) {
        Err(OpenError::Missing { .. }) => return Ok(None),
        other => other?,
    };
    let mut bytes = Vec::new();
    let read = file.take(max + 1).read_to_end(&mut bytes);
    let read = read.map_err(|error| OpenError::from_io(path, &error))?;
    if read as u64 > max {
        return Err(OpenError::unreadable(path, format!("it is longer than {max} bytes")));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_small_regular_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("fits"), b"12345").unwrap();
        std::fs::write(at("long"), b"123456").unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("/dev/zero", at("endless")).unwrap();
        assert_eq!(read_small(&at("fits"), 5).unwrap().unwrap(), b"12345");
        assert_eq!(read_small(&at("absent"), 5), Ok(None));
        assert_eq!(read_small(&at("fits/below"), 5), Ok(None));
        for (name, reason) in [
            ("long", "it is longer than 5 bytes"),
            ("fifo", "it is not a regular file"),
            ("endless", "it is not a regular file"),
            ("", "it is not a regular file"),
        ] {
            assert_eq!(read_small(&at(name), 5), Err(OpenError::unreadable(&at(name), reason)), "{name}");
        }
    }
}
