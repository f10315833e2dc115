//! A FUSE server of a few files, the disks: loop devices stand on them. Every write and flush is logged before it is answered.
//!
//! The kernel passes a flush of the device on as FSYNC of its file, and, as the device has no FUA, waits with a flush for
//! what must be on the disk. Files are opened for direct I/O, so that no page of them waits anywhere.
//!
//! It has one thread and never looks at what lies on the disks: who waits for its own answer cannot be ended.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::{fd::AsRawFd, unix::fs::FileExt},
    path::Path,
};

use nix::mount::{MsFlags, mount};

use crate::log::Writer;

mod op {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
}

/// ASYNC_READ, BIG_WRITES, MAX_PAGES.
const FLAGS: u32 = 1 | 1 << 5 | 1 << 22;
const DIRECT_IO: u32 = 1;
const LARGEST: u32 = 1 << 20;
/// Node of the directory; the disks' follow.
const TOP: u64 = 1;
/// Nothing changes but content.
const FOR_EVER: u64 = 1 << 30;

struct Disk {
    name: String,
    file: File,
    size: u64,
}

struct Server {
    disks: Vec<Disk>,
    log: Writer,
}

enum Reply {
    None,
    Errno(i32),
    Data(Vec<u8>),
}

/// Serves the files `disk-<name>` of `memory` as `<name>` at `at` until that is unmounted; logs to `memory/log`.
pub fn serve(at: &Path, memory: &Path, names: &[&str]) -> io::Result<()> {
    let disk = |name: &&str| {
        let file = OpenOptions::new().read(true).write(true).open(memory.join(format!("disk-{name}")))?;
        let size = file.metadata()?.len();
        Ok(Disk { name: (*name).to_owned(), file, size })
    };
    let disks = names.iter().map(disk).collect::<io::Result<_>>()?;
    let mut server = Server { disks, log: Writer::create(&memory.join("log"))? };
    let mut device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    mount(Some("disks"), at, Some("fuse"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options.as_str()))?;
    let mut buffer = vec![0; LARGEST as usize + 4096];
    loop {
        let length = match device.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::ENOENT)) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        let message = &buffer[..length];
        let (errno, data) = match server.answer(message)? {
            Reply::None => continue,
            Reply::Errno(errno) => (-errno, Vec::new()),
            Reply::Data(data) => (0, data),
        };
        let mut reply = Vec::with_capacity(16 + data.len());
        reply.extend(u32::try_from(16 + data.len()).unwrap().to_ne_bytes());
        reply.extend(errno.to_ne_bytes());
        reply.extend(&message[8..16]);
        reply.extend(data);
        match device.write(&reply) {
            // Whoever asked was killed meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            written => assert_eq!(written?, reply.len()),
        }
    }
}

impl Server {
    fn answer(&mut self, message: &[u8]) -> io::Result<Reply> {
        let (opcode, node, body) = (u32_at(message, 4), u64_at(message, 16), &message[40..]);
        Ok(match opcode {
            op::INIT => Reply::Data(init(body)),
            op::LOOKUP => self.look_up(body),
            op::GETATTR => {
                Reply::Data([FOR_EVER.to_ne_bytes().as_slice(), &[0; 8], &self.attributes(node)].concat())
            }
            // A handle of 0, and how it is opened.
            op::OPEN => Reply::Data([[0; 8].as_slice(), &DIRECT_IO.to_ne_bytes(), &[0; 4]].concat()),
            op::READ => {
                let mut data = vec![0; u32_at(body, 16) as usize];
                let length = self.disk(node).file.read_at(&mut data, u64_at(body, 8))?;
                data.truncate(length);
                Reply::Data(data)
            }
            op::WRITE => {
                let (offset, length) = (u64_at(body, 8), u32_at(body, 16));
                let data = &body[40..40 + length as usize];
                self.disk(node).file.write_all_at(data, offset)?;
                self.log.write(number(node), offset, data)?;
                Reply::Data([length.to_ne_bytes(), [0; 4]].concat())
            }
            op::FSYNC => {
                self.log.flush(number(node))?;
                Reply::Data(Vec::new())
            }
            op::RELEASE | op::FLUSH | op::DESTROY => Reply::Data(Vec::new()),
            op::FORGET | op::BATCH_FORGET | op::INTERRUPT => Reply::None,
            _ => Reply::Errno(libc::ENOSYS),
        })
    }

    fn look_up(&self, body: &[u8]) -> Reply {
        let name = body.strip_suffix(&[0]).unwrap_or(body);
        let Some(number) = self.disks.iter().position(|disk| disk.name.as_bytes() == name) else {
            return Reply::Errno(libc::ENOENT);
        };
        let node = number as u64 + TOP + 1;
        let mut data = Vec::new();
        for word in [node, 0, FOR_EVER, FOR_EVER, 0] {
            data.extend(word.to_ne_bytes());
        }
        data.extend(self.attributes(node));
        Reply::Data(data)
    }

    fn attributes(&self, node: u64) -> Vec<u8> {
        let (mode, size) = if node == TOP { (0o040_755_u32, 0) } else { (0o100_600, self.disk(node).size) };
        let mut data = Vec::new();
        for word in [node, size, size / 512, 0, 0, 0] {
            data.extend(word.to_ne_bytes());
        }
        // Nanoseconds of the times, mode, links, owner, group, device, block size, flags.
        for word in [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0] {
            data.extend(word.to_ne_bytes());
        }
        data
    }

    fn disk(&self, node: u64) -> &Disk {
        &self.disks[number(node)]
    }
}

fn number(node: u64) -> usize {
    usize::try_from(node - TOP - 1).unwrap()
}

fn init(body: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    for word in [7, 31, 0, u32_at(body, 12) & FLAGS] {
        data.extend(word.to_ne_bytes());
    }
    // Requests in the background, and of them those from which on it counts as congested.
    data.extend([16_u16, 12].into_iter().flat_map(u16::to_ne_bytes));
    // Largest write, granularity of times; then pages of a request.
    data.extend([LARGEST, 1].into_iter().flat_map(u32::to_ne_bytes));
    data.extend([256_u16, 0].into_iter().flat_map(u16::to_ne_bytes));
    data.resize(64, 0);
    data
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}
