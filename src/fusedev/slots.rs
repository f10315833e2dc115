//! [`Slots`]: requests that were read and not answered, in a memory file that outlives the process. A successor answers
//! them where the kernel cannot ask again (`FUSE_NOTIFY_RESEND`, Linux 6.9).
//!
//! ```text
//!   header │ landing 0 │ landing 1 │ … │ place 0 │ place 1 │ …
//!    4 KiB     8 KiB       8 KiB          512 B     512 B
//!
//!   kernel ──read──► landing ──served at once──────────► reply, landing cleared
//!                       └──waits──► place, landing cleared ──► reply, place cleared
//! ```
//!
//! A worker reads the device into its landing: the kernel has copied the request there before it looks whether the
//! process was killed. A request that waits gets a place, so that the landing is free for the next one. Empty is what
//! begins with four zero bytes, where a request has its length. Every step comes after the one that makes it safe: a place
//! is filled before its landing is cleared, and nothing is cleared before the reply was written. So a process that is
//! killed leaves every unanswered request at least once; one that was answered meanwhile is unknown to the kernel
//! (ENOENT), which never uses a `unique` again.

use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::{
    fs::{SeekFrom, seek},
    io::{Errno, pread, pwrite},
    rand::{GetRandomFlags, getrandom},
};

use super::device::READ_BUFFER;
use crate::sys::shared::{Mapped, length_of_writable, writable_memory_file};

/// Tells a memory file from others.
const MAGIC: [u8; 8] = *b"SCOSLOTS";

/// Of everything in this file. One of another version is not gone on with.
const VERSION: u32 = 1;

/// Room for the header, so that what follows lies on whole pages.
const HEADER: u64 = 4096;

/// Bytes of the header that mean something: magic, version, places, id, CRC-32 of all before; little-endian.
const HEADER_USED: usize = 36;

/// As many workers as the configuration allows. Memory is only taken for those that there are.
const LANDINGS: u64 = 64;

/// Bytes of a place. The longest request that waits is a LOOKUP: a header of 40 bytes and a name, which no common file
/// system lets be longer than 255.
pub(super) const PLACE: usize = 512;

/// Places besides those for waiting requests: an answer that is being written still has its own.
const SPARE: u32 = 64;

/// More are a damaged header: the configuration allows 65,536 requests to wait.
const MAX_PLACES: u32 = (1 << 16) + SPARE;

/// Tells the memory of one session from that of every other: replayed in another connection, an answer could meet a
/// question that it does not belong to.
pub type SlotsId = [u8; 16];

/// Why a memory file is not gone on with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotsError {
    /// It is none, or damaged.
    #[error("the memory of its unanswered requests is damaged")]
    Damaged,
    /// Another version wrote it.
    #[error("the memory of its unanswered requests is of version {0}, and this is {VERSION}")]
    Version(u32),
    /// It is of another session.
    #[error("the memory of unanswered requests is of another session")]
    Foreign,
}

/// The memory file and which of its places are free.
#[derive(Debug)]
pub struct Slots {
    file: OwnedFd,
    id: SlotsId,
    places: u32,
    free: Mutex<Vec<u32>>,
}

/// Why a request may not wait.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlaceError {
    #[error("a request of {0} bytes does not fit into {PLACE}")]
    TooLong(usize),
    #[error("all {0} places are taken")]
    Full(u32),
    #[error("its place cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// What an earlier process left.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Requests that waited, with their places.
    pub(super) waiting: Vec<(Vec<u8>, Ticket)>,
    /// Requests that were being served, with their landings.
    pub(super) landed: Vec<(Vec<u8>, u32)>,
}

/// A request's place; free again when dropped, which is to come after its answer.
#[derive(Debug)]
pub(super) struct Ticket {
    slots: Arc<Slots>,
    place: u32,
    left: bool,
}

impl Slots {
    /// Memory for `waiting` requests that wait.
    pub(super) fn create(waiting: usize) -> io::Result<Slots> {
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX).min(MAX_PLACES - SPARE);
        let places = waiting + SPARE;
        let mut id = SlotsId::default();
        getrandom(&mut id, GetRandomFlags::empty())?;
        let file = writable_memory_file("scorpio-requests", length(places))?;
        pwrite(&file, &header(places, &id), 0)?;
        // The lowest places first, so that few pages are touched.
        Ok(Slots { file, id, places, free: Mutex::new((0..places).rev().collect()) })
    }

    /// The memory of the session that was made with `id`.
    pub fn open(file: OwnedFd, id: &SlotsId) -> Result<Slots, SlotsError> {
        let length_there = length_of_writable(&file).ok_or(SlotsError::Damaged)?;
        let mut bytes = [0; HEADER_USED];
        let read = pread(&file, &mut bytes, 0).map_err(|_| SlotsError::Damaged)?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if read != HEADER_USED || bytes[..8] != MAGIC {
            return Err(SlotsError::Damaged);
        }
        if word(8) != VERSION {
            return Err(SlotsError::Version(word(8)));
        }
        let places = word(12);
        if bytes != header(places, id) {
            let own: SlotsId = bytes[16..32].try_into().map_err(|_| SlotsError::Damaged)?;
            let whole = bytes == header(places, &own);
            return Err(if whole { SlotsError::Foreign } else { SlotsError::Damaged });
        }
        if !(1..=MAX_PLACES).contains(&places) || length_there != length(places) {
            return Err(SlotsError::Damaged);
        }
        Ok(Slots { file, id: *id, places, free: Mutex::default() })
    }

    /// Which session's it is.
    pub fn id(&self) -> &SlotsId {
        &self.id
    }

    /// Where worker `number` reads to; empty.
    pub(super) fn landing(&self, number: usize) -> io::Result<Mapped> {
        let number = u64::try_from(number).ok().filter(|number| *number < LANDINGS);
        let number = number.ok_or_else(|| io::Error::other("more workers than landings"))?;
        let mut landing = Mapped::new(&self.file, landing_at(number), READ_BUFFER)?;
        clear(landing.bytes());
        Ok(landing)
    }

    /// Gives `request` a place.
    pub(super) fn keep(self: &Arc<Slots>, request: &[u8]) -> Result<Ticket, PlaceError> {
        if request.len() > PLACE {
            return Err(PlaceError::TooLong(request.len()));
        }
        let place = self.free().pop().ok_or(PlaceError::Full(self.places))?;
        let ticket = Ticket { slots: Arc::clone(self), place, left: false };
        let at = place_at(place);
        // Its length last: what is torn is empty.
        self.write(&request[LENGTH.min(request.len())..], at + LENGTH as u64)?;
        self.write(&request[..LENGTH.min(request.len())], at)?;
        Ok(ticket)
    }

    /// Everything that is not empty; the other places are free. Only once, before anything is kept.
    pub(super) fn left(self: &Arc<Slots>) -> io::Result<Left> {
        let mut left = Left::default();
        let mut next = HEADER;
        while let Some(page) = self.next_page(next)? {
            let mut bytes = [0; PAGE];
            pread(&self.file, &mut bytes, page)?;
            match part_at(page) {
                Part::Landing(number) if !is_empty(&bytes) => {
                    left.landed.push((self.landed(page)?, number));
                }
                Part::Landing(_) | Part::RestOfLanding => {}
                Part::Places(first) => {
                    let places = (first..self.places).zip(bytes.chunks(PLACE));
                    for (place, bytes) in places.filter(|(_, bytes)| !is_empty(bytes)) {
                        let ticket = Ticket { slots: Arc::clone(self), place, left: false };
                        left.waiting.push((cut(bytes), ticket));
                    }
                }
            }
            next = page + PAGE as u64;
        }
        let taken: HashSet<u32> = left.waiting.iter().map(|(_, ticket)| ticket.place).collect();
        *self.free() = (0..self.places).rev().filter(|place| !taken.contains(place)).collect();
        Ok(left)
    }

    /// The first page from `offset` on that was ever written to.
    fn next_page(&self, offset: u64) -> io::Result<Option<u64>> {
        match seek(&self.file, SeekFrom::Data(offset)) {
            Ok(found) => Ok(Some(found - found % PAGE as u64)),
            Err(Errno::NXIO) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn landed(&self, at: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; READ_BUFFER];
        let read = pread(&self.file, &mut bytes, at)?;
        Ok(cut(&bytes[..read]))
    }

    /// Empties a landing that nobody reads to.
    pub(super) fn clear_landing(&self, number: u32) -> io::Result<()> {
        self.write(&[0; LENGTH], landing_at(number.into()))
    }

    fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        match pwrite(&self.file, bytes, at)? {
            written if written == bytes.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Slots {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Ticket {
    /// The request stays in its place, for a successor.
    pub(super) fn leave(mut self) {
        self.left = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        match self.slots.write(&[0; LENGTH], place_at(self.place)) {
            Ok(()) => self.slots.free().push(self.place),
            // A successor asks for it again, and the kernel does not know it any more.
            Err(error) => tracing::warn!(%error, "an answered FUSE request stays in its place"),
        }
    }
}

/// Empties the landing `bytes`.
pub(super) fn clear(bytes: &mut [u8]) {
    bytes[..LENGTH].fill(0);
}

/// Bytes of the length at the head of every request.
const LENGTH: usize = 4;

/// What is looked at in one go; landings begin, and places lie, on such pages.
const PAGE: usize = 4096;

fn header(places: u32, id: &SlotsId) -> [u8; HEADER_USED] {
    let mut bytes = [0; HEADER_USED];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&places.to_le_bytes());
    bytes[16..32].copy_from_slice(id);
    let sum = crc32fast::hash(&bytes[..32]);
    bytes[32..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn landing_at(number: u64) -> u64 {
    HEADER + number * READ_BUFFER as u64
}

fn place_at(place: u32) -> u64 {
    landing_at(LANDINGS) + u64::from(place) * PLACE as u64
}

/// Whole pages.
fn length(places: u32) -> u64 {
    place_at(places).next_multiple_of(PAGE as u64)
}

/// What a page behind the header has.
enum Part {
    /// This landing begins here.
    Landing(u32),
    /// The second half of one.
    RestOfLanding,
    /// Places from this one on.
    Places(u32),
}

fn part_at(page: u64) -> Part {
    let number =
        |bytes: u64, each: usize| u32::try_from(bytes / each as u64).expect("as many as fit into the file");
    match page.checked_sub(landing_at(LANDINGS)) {
        Some(behind) => Part::Places(number(behind, PLACE)),
        None if (page - HEADER).is_multiple_of(READ_BUFFER as u64) => {
            Part::Landing(number(page - HEADER, READ_BUFFER))
        }
        None => Part::RestOfLanding,
    }
}

fn is_empty(bytes: &[u8]) -> bool {
    bytes[..LENGTH].iter().all(|byte| *byte == 0)
}

/// As much of `bytes` as the request at their head says that it has.
fn cut(bytes: &[u8]) -> Vec<u8> {
    let says = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let length = usize::try_from(says).unwrap_or(usize::MAX).min(bytes.len());
    bytes[..length].to_vec()
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
