//! Counters of a session: one atomic each, so that they are exact however many threads count.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{
    SessionStats,
    policy::{TABLE, UNKNOWN},
};

/// All of them start at 0 and only grow.
#[derive(Debug)]
pub(crate) struct Counters {
    by_row: [AtomicU64; TABLE.len()],
    unknown: AtomicU64,
    refused: AtomicU64,
    interrupted: AtomicU64,
    malformed: AtomicU64,
    faults: AtomicU64,
}

impl Counters {
    pub(crate) fn new() -> Counters {
        Counters {
            by_row: [const { AtomicU64::new(0) }; TABLE.len()],
            unknown: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            interrupted: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
            faults: AtomicU64::new(0),
        }
    }

    /// A message was read from the device; counted before anything looks into it.
    pub(crate) fn read(&self, message: &[u8]) {
        let opcode = super::decode::header(message).map(|header| header.opcode);
        let row = TABLE.iter().position(|row| Some(row.opcode) == opcode);
        row.map_or(&self.unknown, |row| &self.by_row[row]).fetch_add(1, Relaxed);
    }

    /// A question was answered EIO because a bound or its deadline was reached.
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// A question was dropped because its asker was interrupted.
    pub(crate) fn interrupted(&self) {
        self.interrupted.fetch_add(1, Relaxed);
    }

    /// A message was not understood.
    pub(crate) fn malformed(&self) {
        self.malformed.fetch_add(1, Relaxed);
    }

    /// The file system panicked or gave an answer that cannot be passed on.
    pub(crate) fn fault(&self) {
        self.faults.fetch_add(1, Relaxed);
    }

    /// Their values now, with `parked` questions waiting.
    pub(crate) fn snapshot(&self, parked: u64) -> SessionStats {
        let known = TABLE.iter().zip(&self.by_row).map(|(row, count)| (row.name, count.load(Relaxed)));
        let all = known.chain([(UNKNOWN.name, self.unknown.load(Relaxed))]);
        let by_opcode: BTreeMap<_, _> = all.filter(|(_, count)| *count > 0).collect();
        SessionStats {
            // Not a counter of its own: between the two additions somebody would see them differ.
            reads: by_opcode.values().sum(),
            by_opcode,
            parked,
            refused: self.refused.load(Relaxed),
            interrupted: self.interrupted.load(Relaxed),
            malformed: self.malformed.load(Relaxed),
            faults: self.faults.load(Relaxed),
        }
    }
}
