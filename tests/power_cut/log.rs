//! What disks were told, in order, and what they may hold when the power goes. Pure but for reading and writing files.
//!
//! ```text
//! record:  kind u32 (0 write, 1 flush) · disk u32 · offset u64 · length u64 · the bytes written      little-endian
//! ```
//!
//! A record is there before the kernel is told that the write or flush is done. So whoever sees a promise kept and then asks for the
//! log's length knows: what the promise stands on is in the log before that.

use std::{
    fs::File,
    io::{self, Write},
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
};

use crate::dice::Dice;

const HEAD: usize = 24;
const WRITE: u32 = 0;
const FLUSH: u32 = 1;

/// What a drive may write by halves. Most write 4096 bytes at once.
const SECTOR: usize = 512;
/// The superblock lies below. Nothing makes up for one that is torn, and ext4 counts on drives that do not tear it.
const NEVER_TORN: u64 = 4096;

/// The end of the log, to which records are written.
pub struct Writer(File);

impl Writer {
    pub fn create(path: &Path) -> io::Result<Writer> {
        Ok(Writer(File::create(path)?))
    }

    pub fn write(&mut self, disk: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.record(WRITE, disk, offset, bytes)
    }

    pub fn flush(&mut self, disk: usize) -> io::Result<()> {
        self.record(FLUSH, disk, 0, &[])
    }

    fn record(&mut self, kind: u32, disk: usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut record = Vec::with_capacity(HEAD + bytes.len());
        record.extend(kind.to_le_bytes());
        record.extend(u32::try_from(disk).unwrap().to_le_bytes());
        record.extend(offset.to_le_bytes());
        record.extend((bytes.len() as u64).to_le_bytes());
        record.extend(bytes);
        self.0.write_all(&record)
    }
}

/// A log that is read.
pub struct Log {
    bytes: Vec<u8>,
    pub entries: Vec<Entry>,
}

pub struct Entry {
    /// The log's length with this record.
    pub end: u64,
    pub disk: usize,
    pub what: What,
}

pub enum What {
    Flush,
    Write { offset: u64, bytes: Range<usize> },
}

impl Log {
    /// Reads all records that are whole.
    pub fn read(path: &Path) -> io::Result<Log> {
        let bytes = std::fs::read(path)?;
        let mut entries = Vec::new();
        let mut at = 0;
        while let Some(head) = bytes.get(at..at + HEAD) {
            let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
            let u64_at = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
            let body = at + HEAD..at + HEAD + usize::try_from(u64_at(16)).unwrap();
            if body.end > bytes.len() {
                break;
            }
            at = body.end;
            let what = match u32_at(0) {
                FLUSH => What::Flush,
                WRITE => What::Write { offset: u64_at(8), bytes: body },
                kind => panic!("a record of kind {kind}"),
            };
            entries.push(Entry { end: at as u64, disk: u32_at(4) as usize, what });
        }
        Ok(Log { bytes, entries })
    }
}

/// When the power goes, and what became of that which no flush had asked for yet.
#[derive(Clone, Debug)]
pub struct Cut {
    /// The log's length at that moment.
    pub at: u64,
    pub unflushed: Unflushed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unflushed {
    /// None of it landed.
    Lost,
    /// All of it did.
    Landed,
    /// Each write landed or not, and one of them in part. Which, this seed says.
    Torn(u64),
}

impl Unflushed {
    /// One of the three; the seed is taken from `dice`.
    pub fn any(dice: &mut Dice) -> Unflushed {
        match dice.roll(8) {
            0..=3 => Unflushed::Lost,
            4 => Unflushed::Landed,
            _ => Unflushed::Torn(dice.roll(u64::MAX)),
        }
    }
}

/// The disks as they were at some moment, which only moves on.
pub struct Disks {
    /// What is on them for sure.
    flushed: Vec<Vec<u8>>,
    /// Writes since the last flush of each, as places in the log.
    pending: Vec<Vec<usize>>,
    next: usize,
}

impl Disks {
    /// As they were before the log.
    pub fn new(before: Vec<Vec<u8>>) -> Disks {
        let pending = before.iter().map(|_| Vec::new()).collect();
        Disks { flushed: before, pending, next: 0 }
    }

    /// What each of them holds after `cut`, which does not lie before an earlier one.
    pub fn after(&mut self, log: &Log, cut: &Cut) -> Vec<Vec<u8>> {
        self.advance(log, cut.at);
        let mut dice = Dice::new(if let Unflushed::Torn(seed) = cut.unflushed { seed } else { 0 });
        let mut images = self.flushed.clone();
        for (image, pending) in images.iter_mut().zip(&self.pending) {
            match cut.unflushed {
                Unflushed::Lost => {}
                Unflushed::Landed => pending.iter().for_each(|entry| apply(log, *entry, image, |_| true)),
                Unflushed::Torn(_) => tear(log, pending, image, &mut dice),
            }
        }
        images
    }

    fn advance(&mut self, log: &Log, at: u64) {
        while let Some(entry) = log.entries.get(self.next).filter(|entry| entry.end <= at) {
            let pending = &mut self.pending[entry.disk];
            match entry.what {
                What::Write { .. } => pending.push(self.next),
                What::Flush => {
                    let image = &mut self.flushed[entry.disk];
                    pending.drain(..).for_each(|entry| apply(log, entry, image, |_| true));
                }
            }
            self.next += 1;
        }
    }
}

/// A part of `pending`, in the order in which it was written: two writes of one place were not under way at once, and the
/// later one is then what the drive has. Where they do not overlap, the order in which they land is nothing that anybody sees.
fn tear(log: &Log, pending: &[usize], image: &mut [u8], dice: &mut Dice) {
    let share = 1 + dice.roll(7);
    let torn = dice.roll(pending.len().max(1) as u64);
    for (number, entry) in pending.iter().enumerate() {
        let whole = dice.roll(8) < share;
        if number as u64 == torn {
            apply(log, *entry, image, |offset| if offset < NEVER_TORN { whole } else { dice.roll(2) == 0 });
        } else if whole {
            apply(log, *entry, image, |_| true);
        }
    }
}

/// Writes those sectors of a write to `image` that `lands` says land.
fn apply(log: &Log, entry: usize, image: &mut [u8], mut lands: impl FnMut(u64) -> bool) {
    let What::Write { offset, bytes } = &log.entries[entry].what else { return };
    let at = usize::try_from(*offset).unwrap();
    for (number, sector) in log.bytes[bytes.clone()].chunks(SECTOR).enumerate() {
        let begin = at + number * SECTOR;
        if lands(begin as u64) {
            image[begin..begin + sector.len()].copy_from_slice(sector);
        }
    }
}

/// Writes `image` to a file with holes where it is zero.
pub fn save(image: &[u8], path: &Path) -> io::Result<()> {
    const STEP: usize = 1 << 16;
    static ZEROES: [u8; STEP] = [0; STEP];
    let file = File::create(path)?;
    file.set_len(image.len() as u64)?;
    for (number, step) in image.chunks(STEP).enumerate() {
        if step != &ZEROES[..step.len()] {
            file.write_all_at(step, (number * STEP) as u64)?;
        }
    }
    Ok(())
}

#[test]
fn a_cut_leaves_what_was_flushed_and_any_part_of_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut writer = Writer::create(&path).unwrap();
    writer.write(0, 8192, &[1; 512]).unwrap();
    writer.write(1, 8192, &[2; 512]).unwrap();
    writer.flush(0).unwrap();
    for sector in 0..64 {
        writer.write(0, 16384 + sector * 512, &[3; 512]).unwrap();
    }
    writer.write(0, 8192, &[4; 1024]).unwrap();
    let log = Log::read(&path).unwrap();
    assert_eq!(log.entries.len(), 68);
    let end = log.entries[67].end;
    assert_eq!(end, std::fs::metadata(&path).unwrap().len());
    let after = |at, unflushed| {
        let mut disks = Disks::new(vec![vec![0; 65536], vec![0; 65536]]);
        disks.after(&log, &Cut { at, unflushed })
    };
    // Before the flush of disk 0 nothing is sure, after it what was written to that disk.
    let images = after(log.entries[1].end, Unflushed::Lost);
    assert_eq!((images[0][8192], images[1][8192]), (0, 0));
    let images = after(end, Unflushed::Lost);
    assert_eq!((images[0][8192], images[0][16384], images[1][8192]), (1, 0, 0));
    let images = after(end, Unflushed::Landed);
    assert_eq!((images[0][8192], images[0][8704], images[0][16384], images[1][8192]), (4, 4, 3, 2));
    let landed = |seed| {
        let image = &after(end, Unflushed::Torn(seed))[0];
        assert!(matches!(image[8192], 1 | 4), "what was flushed is not undone");
        (0..64).filter(|sector| image[16384 + sector * 512] == 3).count()
    };
    let counts: Vec<_> = (0..20).map(landed).collect();
    assert!(counts.iter().any(|count| (1..64).contains(count)), "{counts:?}");
    assert_eq!(landed(7), landed(7), "a seed says what lands");
}
