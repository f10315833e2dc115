//! The handshake: what the kernel offers → what is agreed on, or why not. Pure; and the record of it that a successor
//! of this process needs.

use zerocopy::IntoBytes;

use super::{
    Features, Negotiated,
    abi::{InitOut, MAJOR, MINOR, MINOR_MIN, flag},
    decode::{MAX_ANSWER, Offer},
};
use crate::config::Replay;

/// Requests that the kernel may have in flight on its own account (readahead). At its default of 12 a dozen waiting
/// readaheads of one user stop those of everybody else.
const MAX_BACKGROUND: u16 = u16::MAX;

/// The least the kernel allows. Nothing is written, so it only keeps the read buffers at 8 KiB.
const MAX_WRITE: u32 = 4096;

/// Times are whole seconds.
const TIME_GRANULARITY_NS: u32 = 1_000_000_000;

/// Pages of the longest read or listing, where pages have 4 KiB.
const MAX_PAGES: u32 = 256;

/// Without these a request would be answered in a way the kernel does not understand.
const NEEDED: [(u64, &str); 3] = [
    (flag::NO_OPEN_SUPPORT, "files without an open request (FUSE_NO_OPEN_SUPPORT, Linux 3.16 or newer)"),
    (
        flag::NO_OPENDIR_SUPPORT,
        "directories without an open request (FUSE_NO_OPENDIR_SUPPORT, Linux 5.1 or newer)",
    ),
    (flag::MAX_PAGES, "large reads (FUSE_MAX_PAGES, Linux 4.20 or newer)"),
];

/// These make it faster or safer and are used where they are offered.
const WANTED: u64 = flag::ASYNC_READ
    | flag::PARALLEL_DIROPS
    | flag::DO_READDIRPLUS
    | flag::READDIRPLUS_AUTO
    | flag::CACHE_SYMLINKS
    | flag::EXPLICIT_INVAL_DATA
    | flag::INIT_EXT
    | flag::NO_EXPORT_SUPPORT
    | flag::HAS_RESEND;

/// The answer to `offer`, or what the kernel's FUSE lacks.
pub(crate) fn negotiate(
    offer: &Offer,
    features: Features,
    page_size: usize,
) -> Result<(Negotiated, InitOut), String> {
    if offer.major != MAJOR || offer.minor < MINOR_MIN {
        return Err(format!(
            "speaks protocol {}.{}; at least {MAJOR}.{MINOR_MIN} is needed (Linux 5.4 or newer)",
            offer.major, offer.minor
        ));
    }
    if let Some((_, what)) = NEEDED.iter().find(|(flag, _)| offer.flags & flag == 0) {
        return Err(format!("does not offer {what}"));
    }
    if features.idmap && offer.flags & flag::ALLOW_IDMAP == 0 {
        return Err("does not offer idmapped mounts (FUSE_ALLOW_IDMAP, Linux 6.12 or newer)".into());
    }
    let needed = NEEDED.iter().fold(0, |all, (flag, _)| all | flag);
    let idmap = if features.idmap { flag::ALLOW_IDMAP } else { 0 };
    let unwanted = if features.replay == Replay::Slots { flag::HAS_RESEND } else { 0 };
    let flags = offer.flags & (WANTED | needed | idmap) & !unwanted;
    let agreed = Negotiated { minor: offer.minor.min(MINOR), flags, generation: features.generation };
    let answer = init_out(offer, &agreed, page_size);
    Ok((agreed, answer))
}

fn init_out(offer: &Offer, agreed: &Negotiated, page_size: usize) -> InitOut {
    InitOut {
        major: MAJOR,
        minor: agreed.minor,
        max_readahead: offer.max_readahead,
        flags: low(agreed.flags),
        max_background: MAX_BACKGROUND,
        congestion_threshold: MAX_BACKGROUND, // the kernel skips readahead above it
        max_write: MAX_WRITE,
        time_gran: TIME_GRANULARITY_NS,
        max_pages: max_pages(page_size),
        map_alignment: 0,
        flags2: low(agreed.flags >> 32),
        max_stack_depth: 0,
        request_timeout: 0,
        unused: [0; 11],
    }
}

/// As many pages as the longest answer has; 256 of 4 KiB.
fn max_pages(page_size: usize) -> u16 {
    let page = u32::try_from(page_size).unwrap_or(u32::MAX).max(MAX_ANSWER / MAX_PAGES);
    u16::try_from((MAX_ANSWER / page).max(1)).expect("256 at most")
}

fn low(flags: u64) -> u32 {
    u32::try_from(flags & u64::from(u32::MAX)).expect("32 bits are left")
}

/// The first four bytes of a record.
const MAGIC: [u8; 4] = *b"SFUS";

/// Version of the record and of everything that the kernel remembers of a session's answers (which opcodes got
/// ENOSYS, that node ids are permanent and of which generation, that handles are 0). A process with another one must not
/// go on with it. How long an answer is valid is not part of it: the kernel keeps that with each name and file.
const CONTRACT: u32 = 2;

/// The contract under which all node ids were of generation 0; otherwise it was this one.
const WITHOUT_GENERATION: u32 = 1;

/// Bytes of a record: magic, contract, minor, flags, generation, checksum of all before.
const RECORD: usize = 28;

/// Bytes of one without generation.
const RECORD_WITHOUT_GENERATION: usize = 24;

/// Why bytes are no record of a negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NegotiatedError {
    /// Wrong length, mark or checksum.
    #[error("the record of the FUSE session is damaged")]
    Damaged,
    /// It was written by a version whose answers differ, and which the kernel remembers.
    #[error("the FUSE session was made under contract {0}, and this is {CONTRACT}")]
    Contract(u32),
}

impl Negotiated {
    /// The record that [`Negotiated::from_bytes`] reads.
    pub fn to_bytes(&self) -> [u8; RECORD] {
        let mut record = [0; RECORD];
        record[..4].copy_from_slice(&MAGIC);
        record[4..8].copy_from_slice(&CONTRACT.to_le_bytes());
        record[8..12].copy_from_slice(&self.minor.to_le_bytes());
        record[12..20].copy_from_slice(&self.flags.to_le_bytes());
        record[20..24].copy_from_slice(&self.generation.to_le_bytes());
        let sum = crc32fast::hash(&record[..24]);
        record[24..].copy_from_slice(&sum.to_le_bytes());
        record
    }

    /// Reads a record back.
    pub fn from_bytes(record: &[u8]) -> Result<Negotiated, NegotiatedError> {
        if !matches!(record.len(), RECORD | RECORD_WITHOUT_GENERATION) {
            return Err(NegotiatedError::Damaged);
        }
        let word =
            |at: usize| u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
        let end = record.len() - size_of::<u32>();
        if record[..4] != MAGIC || word(end) != crc32fast::hash(&record[..end]) {
            return Err(NegotiatedError::Damaged);
        }
        let generation = match (word(4), record.len()) {
            (CONTRACT, RECORD) => word(20),
            (WITHOUT_GENERATION, RECORD_WITHOUT_GENERATION) => 0,
            (contract, _) => return Err(NegotiatedError::Contract(contract)),
        };
        let flags = u64::from(word(12)) | u64::from(word(16)) << 32;
        Ok(Negotiated { minor: word(8), flags, generation })
    }

    /// Whether the kernel can send unanswered requests again.
    pub(crate) fn has_resend(&self) -> bool {
        self.flags & flag::HAS_RESEND != 0
    }
}

impl InitOut {
    /// As bytes of a reply.
    pub(crate) fn to_reply(self) -> super::encode::Reply {
        super::encode::Reply::body(bytes::Bytes::copy_from_slice(self.as_bytes()))
    }
}

#[cfg(test)]
#[path = "init_tests.rs"]
mod tests;
