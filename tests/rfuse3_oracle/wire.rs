//! The same requests put to both without a kernel: ours as messages over a socket pair, theirs as calls. What ours
//! wrote must be what theirs means, byte for byte, also for requests that no kernel sends.

use std::{
    ffi::OsStr,
    os::fd::OwnedFd,
    os::unix::ffi::OsStrExt,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::StreamExt;
use nix::sys::socket::{setsockopt, sockopt::SndBufForce};
use rfuse3::raw::{Filesystem, Request, reply::FileAttr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use scorpio::{
    engine::rfuse3::Rfuse3,
    fusedev::{Session, UNKNOWN_SIZE},
};

use super::servers::{LIMITS, World};

const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const READLINK: u32 = 5;
const READ: u32 = 15;
const STATFS: u32 = 17;
const INIT: u32 = 26;
const READDIR: u32 = 28;
const READDIRPLUS: u32 = 44;

/// The longest answer has 1 MiB and a header.
const ROOM: usize = 2 << 20;

/// Bytes of an entry's attributes in an answer.
const ENTRY_OUT: usize = 128;

/// The kernel's side of our session.
struct Kernel {
    device: OwnedFd,
    /// Room for the longest answer.
    buffer: Mutex<Vec<u8>>,
    /// Number of the next request.
    unique: AtomicU64,
}

/// A request: opcode, node and what follows.
#[derive(Debug, Clone)]
enum Ask {
    Lookup(u64, Vec<u8>),
    GetAttr(u64),
    ReadLink(u64),
    Read(u64, u64, u32),
    ReadDir(u64, u64, u32, bool),
    StatFs(u64),
}

/// Errno and body.
type Answer = (i32, Vec<u8>);

impl Kernel {
    fn send(&self, opcode: u32, node: u64, body: &[u8]) -> Answer {
        let mut bytes = u32::try_from(40 + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(opcode.to_ne_bytes());
        bytes.extend(self.unique.fetch_add(2, Relaxed).to_ne_bytes());
        bytes.extend(node.to_ne_bytes());
        bytes.extend([0; 16]);
        bytes.extend(body);
        rustix::io::write(&self.device, &bytes).unwrap();
        let mut buffer = self.buffer.lock().unwrap();
        let length = rustix::io::read(&self.device, &mut buffer[..]).unwrap();
        let errno = i32::from_ne_bytes(buffer[4..8].try_into().unwrap());
        (-errno, buffer[16..length].to_vec())
    }

    fn ask(&self, ask: &Ask) -> Answer {
        let range = |offset: u64, size: u32| {
            let words = [0u64, offset, u64::from(size), 0, 0];
            words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>()
        };
        match ask {
            Ask::Lookup(parent, name) => self.send(LOOKUP, *parent, &[name, &b"\0"[..]].concat()),
            Ask::GetAttr(node) => self.send(GETATTR, *node, &[0; 16]),
            Ask::ReadLink(node) => self.send(READLINK, *node, &[]),
            Ask::Read(node, offset, size) => self.send(READ, *node, &range(*offset, *size)),
            Ask::ReadDir(node, offset, size, false) => self.send(READDIR, *node, &range(*offset, *size)),
            Ask::ReadDir(node, offset, size, true) => self.send(READDIRPLUS, *node, &range(*offset, *size)),
            Ask::StatFs(node) => self.send(STATFS, *node, &[]),
        }
    }
}

/// What `rfuse3` writes for the answers of its `Filesystem`.
async fn theirs(fs: &Rfuse3, ask: &Ask) -> Answer {
    let request = Request::default();
    let answered: rfuse3::Result<Vec<u8>> = async {
        Ok(match ask {
            Ask::Lookup(parent, name) => {
                let found = fs.lookup(request, *parent, OsStr::from_bytes(name)).await?;
                entry(&found.attr, found.generation, found.ttl, found.ttl)
            }
            Ask::GetAttr(node) => {
                let found = fs.getattr(request, *node, None, 0).await?;
                let mut bytes = found.ttl.as_secs().to_ne_bytes().to_vec();
                bytes.extend(found.ttl.subsec_nanos().to_ne_bytes());
                bytes.extend([0; 4]);
                bytes.extend(attributes(&found.attr));
                bytes
            }
            Ask::ReadLink(node) => fs.readlink(request, *node).await?.data.to_vec(),
            Ask::Read(node, offset, size) => fs.read(request, *node, 0, *offset, *size).await?.data.to_vec(),
            Ask::ReadDir(node, offset, size, false) => {
                let listing = fs.readdir(request, *node, 0, offset.cast_signed()).await?;
                let mut room = Room(Vec::new(), *size);
                let mut entries = pin!(listing.entries);
                while let Some(found) = entries.next().await {
                    let found = found?;
                    let kind = found.kind.const_into_mode_t() >> 12;
                    if !room.push(&[], found.inode, found.offset, kind, &found.name) {
                        break;
                    }
                }
                room.0
            }
            Ask::ReadDir(node, offset, size, true) => {
                let listing = fs.readdirplus(request, *node, 0, *offset, 0).await?;
                let mut room = Room(Vec::new(), *size);
                let mut entries = pin!(listing.entries);
                while let Some(found) = entries.next().await {
                    let found = found?;
                    let before = entry(&found.attr, found.generation, found.entry_ttl, found.attr_ttl);
                    let kind = found.kind.const_into_mode_t() >> 12;
                    if !room.push(&before, found.inode, found.offset, kind, &found.name) {
                        break;
                    }
                }
                room.0
            }
            Ask::StatFs(node) => {
                let usage = fs.statfs(request, *node).await?;
                let blocks = [usage.blocks, usage.bfree, usage.bavail, usage.files, usage.ffree];
                let mut bytes: Vec<u8> = blocks.iter().flat_map(|word| word.to_ne_bytes()).collect();
                let words = [usage.bsize, usage.namelen, usage.frsize, 0, 0, 0, 0, 0, 0, 0];
                bytes.extend(words.iter().flat_map(|word: &u32| word.to_ne_bytes()));
                bytes
            }
        })
    }
    .await;
    answered.map_or_else(|errno| (-i32::from(errno), Vec::new()), |bytes| (0, bytes))
}

/// A listing's answer and the room it has.
struct Room(Vec<u8>, u32);

impl Room {
    fn push(&mut self, before: &[u8], ino: u64, next: i64, kind: u32, name: &OsStr) -> bool {
        if self.0.len() + before.len() + 24 + name.len() > self.1 as usize {
            return false;
        }
        self.0.extend(before);
        self.0.extend(ino.to_ne_bytes());
        self.0.extend(next.to_ne_bytes());
        self.0.extend(u32::try_from(name.len()).unwrap().to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(name.as_bytes());
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        true
    }
}

fn entry(attr: &FileAttr, generation: u64, name_ttl: Duration, attr_ttl: Duration) -> Vec<u8> {
    let words = [attr.ino, generation, name_ttl.as_secs(), attr_ttl.as_secs()];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    bytes.extend(name_ttl.subsec_nanos().to_ne_bytes());
    bytes.extend(attr_ttl.subsec_nanos().to_ne_bytes());
    // An entry without a node has no attributes, whatever is in their place.
    bytes.extend(if attr.ino == 0 { vec![0; 88] } else { attributes(attr) });
    assert_eq!(bytes.len(), ENTRY_OUT);
    bytes
}

fn attributes(attr: &FileAttr) -> Vec<u8> {
    let times = [attr.atime, attr.mtime, attr.ctime];
    let mut bytes = Vec::new();
    for word in [attr.ino, attr.size, attr.blocks] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(times.iter().flat_map(|time| time.sec.to_ne_bytes()));
    bytes.extend(times.iter().flat_map(|time| time.nsec.to_ne_bytes()));
    let mode = attr.kind.const_into_mode_t() | u32::from(attr.perm);
    for word in [mode, attr.nlink, attr.uid, attr.gid, attr.rdev, attr.blksize, 0] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes
}

fn session(world: &World) -> (Kernel, Session) {
    let (kernel, device) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    setsockopt(&device, SndBufForce, &(2 * ROOM)).unwrap();
    let kernel = Kernel { device: kernel, buffer: Mutex::new(vec![0; ROOM]), unique: AtomicU64::new(2) };
    let mut init = [7u32, 45, 131_072, u32::MAX, 0].map(u32::to_ne_bytes).concat();
    init.resize(64, 0);
    let (served, features) = (Arc::new(world.served()), world.features());
    let runtime = tokio::runtime::Handle::current();
    let starting = std::thread::spawn(move || Session::start(device, served, features, LIMITS, runtime));
    assert_eq!(kernel.send(INIT, 0, &init).0, 0);
    (kernel, starting.join().unwrap().unwrap())
}

/// Puts requests about everything in the tree, and about what is not there, to both.
pub(crate) async fn compare(world: &World) {
    let (kernel, session) = session(world);
    let fs = Rfuse3::new(world.served(), LIMITS);
    let top = kernel.ask(&Ask::Lookup(1, world.root.id.to_string().into_bytes())).1;
    let top = u64::from_ne_bytes(top[..8].try_into().unwrap());
    let mut asks = vec![Ask::Lookup(1, world.root.id.to_string().into_bytes()), Ask::StatFs(1)];
    for stranger in [0, 1, 2, 3, u64::from(u32::MAX), 1 << 47, 1 << 48, u64::MAX] {
        asks.extend(about(stranger));
    }
    collect(&kernel, top, &mut asks);
    let (mut failures, mut unsizeds) = (0, 0);
    for ask in &asks {
        // The first answer may have come while sizes were still being learnt: both are asked when they are known.
        kernel.ask(ask);
        let (mut ours, theirs) = (kernel.ask(ask), theirs(&fs, ask).await);
        unsizeds += usize::from(expire_if_unsized(ask, &mut ours.1));
        assert_eq!(ours.0, theirs.0, "{ask:?}");
        assert!(ours.1 == theirs.1, "{ask:?}\n  ours   {:02x?}\n  theirs {:02x?}", ours.1, theirs.1);
        failures += usize::from(ours.0 != 0);
    }
    println!("{} requests, {failures} of them failures, the same bytes", asks.len());
    assert!(asks.len() > 15_000 && failures > 1_000 && unsizeds > 0);
    let stats = session.stats();
    assert_eq!((stats.malformed, stats.faults), (0, 0));
}

/// `rfuse3` has one validity for a name and its attributes. Ours differ where the size is unknown: the name lasts. Takes
/// that back, and says whether it was there.
fn expire_if_unsized(ask: &Ask, bytes: &mut [u8]) -> bool {
    let is_unsized = matches!(ask, Ask::Lookup(..))
        && bytes.get(48..56).is_some_and(|size| size == UNKNOWN_SIZE.to_ne_bytes());
    if is_unsized {
        assert_ne!(bytes[16..24], [0; 8], "{ask:?}: the name lasts");
        bytes[16..24].fill(0);
        bytes[32..36].fill(0);
    }
    is_unsized
}

/// Every request about one node, whatever it is.
fn about(node: u64) -> Vec<Ask> {
    let mut asks = vec![Ask::GetAttr(node), Ask::ReadLink(node), Ask::StatFs(node)];
    for name in [&b"absent"[..], b"good", b"\xff\n", b".", b"..", &[b'x'; 255], &[b'x'; 256], &[b'x'; 4000]] {
        asks.push(Ask::Lookup(node, name.to_vec()));
    }
    for offset in [0, 1, 4095, 4096, 65_536, 3_000_000, 3_000_001, 1 << 40, u64::MAX] {
        for size in [0, 1, 4096, 131_072, 1 << 20] {
            asks.push(Ask::Read(node, offset, size));
        }
    }
    for plus in [false, true] {
        for offset in [0, 1, 2, 3, 7, 500, 9_990, 10_002, 1 << 40, i64::MAX.cast_unsigned()] {
            for size in [0, 8, 24, 32, 152, 160, 288, 1024, 4096, 32_768] {
                asks.push(Ask::ReadDir(node, offset, size, plus));
            }
        }
    }
    asks
}

/// Requests about all that is in `dir` and below; of a large directory's entries, some.
fn collect(kernel: &Kernel, dir: u64, asks: &mut Vec<Ask>) {
    asks.extend(about(dir));
    let mut entries = Vec::new();
    let mut offset = 0;
    loop {
        let (errno, body) = kernel.ask(&Ask::ReadDir(dir, offset, 32_768, false));
        if errno != 0 || body.is_empty() {
            break;
        }
        let mut at = 0;
        while at < body.len() {
            let word = |from: usize| u64::from_ne_bytes(body[at + from..at + from + 8].try_into().unwrap());
            let (length, kind) = (word(16) & 0xffff_ffff, word(16) >> 32);
            let length = usize::try_from(length).unwrap();
            entries.push((word(0), kind, body[at + 24..at + 24 + length].to_vec()));
            offset = word(8);
            at = (at + 24 + length).next_multiple_of(8);
        }
    }
    let step = if entries.len() < 1000 { 1 } else { 997 };
    for (number, (node, kind, name)) in entries.into_iter().enumerate() {
        asks.push(Ask::Lookup(dir, name.clone()));
        if name == b"." || name == b".." || number % step != 0 {
            continue;
        }
        match kind {
            4 => collect(kernel, node, asks),
            _ => asks.extend(about(node)),
        }
    }
}
