//! A small file system in memory with names that misbehave on purpose.

use bytes::Bytes;
use scorpio::fusedev::{Answer, Answered, Asker, DirBuffer, FileAttr, FileSystem, Question, Usage};
use tokio::sync::watch;

pub(crate) const MANY: u64 = 10;
pub(crate) const EMPTY: u64 = 11;
pub(crate) const BIG: u64 = 12;
pub(crate) const LINK: u64 = 13;
/// Reads of it wait for the gate.
pub(crate) const SLOW: u64 = 14;
/// Reads of it give one byte too many.
pub(crate) const LONG: u64 = 15;
/// Reads of it panic.
pub(crate) const PANIC: u64 = 16;
/// Waiting for it panics.
pub(crate) const LATE_PANIC: u64 = 17;
/// Every `wait-…` name of `/`, found once the gate is open.
pub(crate) const WAIT: u64 = 18;
/// `unsized-0`, `unsized-1` and so on, whose sizes are there once the gate is open.
pub(crate) const UNSIZED: std::ops::Range<u64> = 100..110;
const FIRST_OF_MANY: u64 = 1000;

pub(crate) const FILES: u64 = 10_000;
pub(crate) const BIG_SIZE: u64 = 300 << 20;
pub(crate) const SMALL_SIZE: u64 = 9000;
pub(crate) const TARGET: &str = "many/f00001";

/// What bytes `node` has at `offset`.
pub(crate) fn content(node: u64, offset: u64, length: usize) -> Vec<u8> {
    let word = |index: u64| (index ^ node << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    let skip = (offset % 8) as usize;
    let mut bytes = Vec::with_capacity(length + 16);
    let mut index = offset / 8;
    while bytes.len() < length + skip {
        bytes.extend_from_slice(&word(index));
        index += 1;
    }
    bytes.drain(..skip);
    bytes.truncate(length);
    bytes
}

pub(crate) struct Tree {
    gate: watch::Sender<bool>,
}

impl Tree {
    /// Whoever waits goes on once `open` is true.
    pub(crate) fn new(open: bool) -> Tree {
        Tree { gate: watch::Sender::new(open) }
    }

    pub(crate) fn set_open(&self, open: bool) {
        self.gate.send_replace(open);
    }

    fn behind_gate(&self, answer: Answer) -> Answered {
        if *self.gate.borrow() {
            return Answered::Now(answer);
        }
        let mut gate = self.gate.subscribe();
        Answered::Later(Box::pin(async move {
            gate.wait_for(|open| *open).await.expect("the tree outlives its session");
            answer
        }))
    }

    fn lookup(&self, parent: u64, name: &[u8]) -> Answered {
        let name = std::str::from_utf8(name).unwrap_or("");
        let found = match (parent, name) {
            (1, "many") => MANY,
            (1, "empty") => EMPTY,
            (1, "big") => BIG,
            (1, "link") => LINK,
            (1, "slow") => SLOW,
            (1, "long") => LONG,
            (1, "panic") => PANIC,
            (1, "late-panic") => LATE_PANIC,
            (1, name) if name.starts_with("wait-") => return self.behind_gate(Answer::Entry(attr(WAIT))),
            (1, name) if name.starts_with("unsized-") => {
                let node = UNSIZED.start + name["unsized-".len()..].parse::<u64>().unwrap();
                let found = FileAttr { size: 0, ..attr(node) };
                return Answered::Now(Answer::Unsized(found));
            }
            (1, _) => return Answered::Now(Answer::Errno(libc::ENOENT)),
            (MANY, name) => match name.strip_prefix('f').and_then(|number| number.parse::<u64>().ok()) {
                Some(number) if number < FILES && name.len() == 6 => FIRST_OF_MANY + number,
                _ => return Answered::Now(Answer::NoEntry),
            },
            _ => return Answered::Now(Answer::NoEntry),
        };
        Answered::Now(Answer::Entry(attr(found)))
    }

    fn read(&self, node: u64, offset: u64, size: u32) -> Answered {
        let length = u64::from(size).min(size_of_node(node).saturating_sub(offset)) as usize;
        let data = |length| Answer::Data(content(node, offset, length).into());
        match node {
            SLOW => self.behind_gate(data(length)),
            LONG => Answered::Now(data(size as usize + 1)),
            PANIC => panic!("on purpose"),
            LATE_PANIC => Answered::Later(Box::pin(async { panic!("on purpose, later") })),
            _ => Answered::Now(data(length)),
        }
    }
}

fn size_of_node(node: u64) -> u64 {
    match node {
        BIG => BIG_SIZE,
        LINK => TARGET.len() as u64,
        1 | MANY | EMPTY => 0,
        _ => SMALL_SIZE,
    }
}

fn attr(node: u64) -> FileAttr {
    let mode = match node {
        1 | MANY | EMPTY => 0o040_755,
        LINK => 0o120_777,
        _ => 0o100_644,
    };
    FileAttr { ino: node, size: size_of_node(node), mtime: 1_700_000_000, mode, nlink: 1, uid: 0, gid: 0 }
}

fn entries(node: u64) -> Vec<(String, u64)> {
    match node {
        1 => [("many", MANY), ("empty", EMPTY), ("big", BIG), ("link", LINK)]
            .map(|(name, node)| (name.to_owned(), node))
            .to_vec(),
        MANY => (0..FILES).map(|number| (format!("f{number:05}"), FIRST_OF_MANY + number)).collect(),
        _ => Vec::new(),
    }
}

fn listing(node: u64, offset: u64, size: u32, plus: bool) -> Answer {
    let mut buffer = DirBuffer::new(size, plus);
    let all = entries(node);
    for (number, (name, child)) in all.iter().enumerate().skip(offset as usize) {
        // Every third entry is a plain name, as if its size were not known yet.
        let known = (number % 3 != 0).then(|| attr(*child));
        if !buffer.push(*child, number as u64 + 1, attr(*child).mode, name.as_bytes(), known) {
            break;
        }
    }
    Answer::Listing(buffer)
}

impl FileSystem for Tree {
    fn ask(&self, question: Question<'_>, _asker: &Asker) -> Answered {
        Answered::Now(match question {
            Question::Lookup { parent, name } => return self.lookup(parent, name),
            Question::Read { node, offset, size } => return self.read(node, offset, size),
            Question::GetAttr { node } if UNSIZED.contains(&node) && !*self.gate.borrow() => {
                Answer::Errno(libc::EIO)
            }
            Question::GetAttr { node } => Answer::Attr(attr(node)),
            Question::ReadLink { .. } => Answer::Data(Bytes::from_static(TARGET.as_bytes())),
            Question::ReadDir { node, offset, size, plus } => listing(node, offset, size, plus),
            Question::StatFs => Answer::StatFs(Usage { bytes: BIG_SIZE, files: FILES }),
        })
    }
}
