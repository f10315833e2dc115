//! Tasks that touch a mount and therefore run in a process of their own: this test binary, started again.

#![allow(unsafe_code)] // mmap, ioctl and poll as a program would call them

use std::{
    fs::File,
    io::Read,
    os::{fd::AsRawFd, unix::fs::FileExt},
};

use rustix::fs::{AtFlags, SeekFrom, StatxFlags};

use crate::{
    mount::{Ended, Process, spawn},
    tree::{BIG, BIG_SIZE, content},
};

/// Starts `task` on `path`.
pub(crate) fn start(task: &str, path: &str) -> Process {
    let me = std::env::current_exe().unwrap();
    let quoted = format!("SCORPIO_FUSEDEV_TASK={task}:{path}");
    let args =
        [&quoted, me.to_str().unwrap(), "--exact", "child::child_task", "--nocapture", "--test-threads=1"];
    spawn("/usr/bin/env", &args, 0)
}

pub(crate) fn check(task: &str, path: &str) {
    let Ended { status, out, err } = start(task, path).end();
    let out = String::from_utf8_lossy(&out);
    assert!(status.success() && out.contains("1 passed"), "{task}: {status}\n{out}\n{err}");
}

/// Not a test by itself: does what the environment says.
#[test]
fn child_task() {
    let Ok(task) = std::env::var("SCORPIO_FUSEDEV_TASK") else { return };
    let (task, path) = task.split_once(':').unwrap();
    match task {
        "sequential" => sequential(path),
        "random" => random(path),
        "mmap" => mapped(path),
        "syscalls" => (0..3).for_each(|_| syscalls(path)),
        other => panic!("no task {other}"),
    }
}

fn sequential(path: &str) {
    let mut file = File::open(path).unwrap();
    let mut buffer = vec![0; 1 << 20];
    for offset in (0..BIG_SIZE).step_by(buffer.len()) {
        file.read_exact(&mut buffer).unwrap();
        assert!(buffer == content(BIG, offset, buffer.len()), "at {offset}");
    }
    assert_eq!(file.read(&mut buffer).unwrap(), 0, "the file ends");
}

/// Places all over the file, in no order.
fn places(count: u64) -> impl Iterator<Item = (u64, usize)> {
    (0..count).map(|n| n.wrapping_mul(0x2545_f491_4f6c_dd1d)).map(|n| {
        let length = 1 + (n >> 50);
        ((n >> 8) % (BIG_SIZE - length), length as usize)
    })
}

fn random(path: &str) {
    let file = File::open(path).unwrap();
    for (offset, length) in places(2000) {
        let mut buffer = vec![0; length];
        file.read_exact_at(&mut buffer, offset).unwrap();
        assert!(buffer == content(BIG, offset, length), "at {offset}");
    }
}

fn mapped(path: &str) {
    let file = File::open(path).unwrap();
    let length = BIG_SIZE as usize;
    // SAFETY: a new private, read-only mapping; the result is checked, and the file never changes.
    let bytes = unsafe {
        let at =
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0);
        assert_ne!(at, libc::MAP_FAILED);
        std::slice::from_raw_parts(at.cast::<u8>(), length)
    };
    for (offset, length) in places(2000) {
        let at = offset as usize;
        assert!(bytes[at..at + length] == content(BIG, offset, length), "at {offset}");
    }
    assert_eq!(bytes[length - 8..], content(BIG, BIG_SIZE - 8, 8));
}

/// Everything that a program may do to a file without writing.
fn syscalls(path: &str) {
    let file = File::open(path).unwrap();
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Data(0)), Ok(0));
    let size = file.metadata().unwrap().len();
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Hole(0)), Ok(size), "there is no hole");
    let mut value = [0u8; 64];
    let unsupported = rustix::io::Errno::OPNOTSUPP;
    assert_eq!(rustix::fs::fgetxattr(&file, "user.x", &mut value[..]), Err(unsupported));
    assert_eq!(rustix::fs::flistxattr(&file, &mut value[..]), Err(unsupported));
    file.sync_all().unwrap();
    rustix::fs::statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::BTIME).unwrap();
    let mut flags = 0i32;
    // SAFETY: FS_IOC_GETFLAGS writes one int into `flags`.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) };
    assert_eq!((done, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::ENOTTY)));
    let mut poll = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd.
    assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 1000) }, 1);
    assert_eq!(poll.revents, libc::POLLIN);
    let directory = std::path::Path::new(path).parent().unwrap();
    assert!(std::fs::read_dir(directory).unwrap().count() > 0);
    File::open(directory).unwrap().sync_all().unwrap();
}
