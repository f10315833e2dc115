//! The file `boot` beside the node table: which boot and version the table belongs to, read before the table is touched.
//!
//! A damaged LMDB file can kill the process that opens it, so whether a table is opened or thrown away is decided by
//! this file alone. A table made anew within one boot gets another *generation*, whose ids and root numbers overlap with
//! no former one's: a session of the lost table gets "no such node" for its ids, never somebody else's file.

use std::{fs, io, path::Path};

use super::record::VERSION;

/// Its name in the table's directory.
pub(super) const FILE: &str = "boot";

/// What the file says: `scorpio-nodes <version> <generation> <making|ready> <boot id> <CRC-32 of all before, hex>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    /// Version of the table's records.
    pub version: u32,
    /// Which of the tables of this boot.
    pub generation: u8,
    /// Whether the table was ever complete. Only then can ids have been given.
    pub ready: bool,
    /// The boot it belongs to.
    pub boot_id: String,
}

/// What was found in the table's directory.
#[derive(Debug)]
pub(super) enum Found {
    /// No file.
    Nothing,
    /// A file that makes no sense.
    Garbage,
    /// What it says.
    Marker(Marker),
}

/// What to do with the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Open it.
    Keep(u8),
    /// Delete it unopened and make this generation.
    Fresh(u8),
    /// All generations of this boot were thrown away.
    Exhausted,
}

/// A garbled marker hides how many generations there were; half of them are jumped over.
const AFTER_GARBAGE: u8 = 128;

/// Decides; `data` says whether the table's file is there.
pub(super) fn plan(found: &Found, data: bool, boot_id: &str) -> Plan {
    let marker = match found {
        Found::Nothing => return Plan::Fresh(0),
        Found::Garbage => return Plan::Fresh(AFTER_GARBAGE),
        Found::Marker(marker) => marker,
    };
    if marker.boot_id != boot_id {
        return Plan::Fresh(0);
    }
    match marker.ready {
        true if data && marker.version == u32::from(VERSION) => Plan::Keep(marker.generation),
        true => succeed(marker.generation),
        false => Plan::Fresh(marker.generation),
    }
}

/// The plan after a table of `generation` turned out to be unusable.
pub(super) fn succeed(generation: u8) -> Plan {
    generation.checked_add(1).map_or(Plan::Exhausted, Plan::Fresh)
}

impl Marker {
    fn encode(&self) -> String {
        let state = if self.ready { "ready" } else { "making" };
        let text = format!("scorpio-nodes {} {} {state} {}", self.version, self.generation, self.boot_id);
        format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()))
    }

    fn decode(bytes: &[u8]) -> Option<Marker> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut words = text.split(' ').skip(1);
        let marker = Marker {
            version: words.next()?.parse().ok()?,
            generation: words.next()?.parse().ok()?,
            ready: words.next()? == "ready",
            boot_id: words.next()?.to_owned(),
        };
        (marker.encode() == text).then_some(marker)
    }

    /// Reads the file of `dir`.
    pub(super) fn read(dir: &Path) -> io::Result<Found> {
        match fs::read(dir.join(FILE)) {
            Ok(bytes) => Ok(Marker::decode(&bytes).map_or(Found::Garbage, Found::Marker)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Replaces the file of `dir` in one step. Not synced: a power cut ends the boot, and the table with it.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let new = dir.join(format!("{FILE}.new"));
        fs::write(&new, self.encode())?;
        fs::rename(&new, dir.join(FILE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(generation: u8, ready: bool) -> Marker {
        Marker { version: u32::from(VERSION), generation, ready, boot_id: "b1".into() }
    }

    #[test]
    fn the_marker_has_these_bytes() {
        let text = "scorpio-nodes 1 3 ready b1";
        let sealed = format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()));
        assert_eq!(marker(3, true).encode(), sealed);
        assert_eq!(Marker::decode(sealed.as_bytes()), Some(marker(3, true)));
        for cut in 0..sealed.len() {
            assert_eq!(Marker::decode(&sealed.as_bytes()[..cut]), None, "{cut}");
        }
        assert_eq!(Marker::decode(sealed.replace("b1", "b2").as_bytes()), None);
    }

    #[test]
    fn a_table_is_kept_only_when_it_is_complete_and_of_this_boot_and_version() {
        let other_version = Marker { version: 2, ..marker(3, true) };
        for (found, data, boot, expected) in [
            (Found::Marker(marker(3, true)), true, "b1", Plan::Keep(3)),
            (Found::Marker(marker(3, true)), true, "b2", Plan::Fresh(0)),
            (Found::Marker(marker(3, false)), true, "b2", Plan::Fresh(0)),
            (Found::Marker(marker(3, true)), false, "b1", Plan::Fresh(4)),
            (Found::Marker(other_version), true, "b1", Plan::Fresh(4)),
            (Found::Marker(marker(3, false)), true, "b1", Plan::Fresh(3)),
            (Found::Marker(marker(255, true)), false, "b1", Plan::Exhausted),
            (Found::Nothing, true, "b1", Plan::Fresh(0)),
            (Found::Garbage, true, "b1", Plan::Fresh(128)),
        ] {
            assert_eq!(plan(&found, data, boot), expected, "{found:?} {data} {boot}");
        }
    }
}
