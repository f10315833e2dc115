//! The record of a session that is kept with its device: bytes, and whether a successor may go on with it. Pure.
//!
//! One line: `scorpio-session <version> <name> <idmap|plain> <uid> <gid> <major>:<minor> <boot id> <node table, hex>
//! <handshake, hex> [<slots, hex>] <CRC-32 of all before, hex>`. The slots' id makes it version 2; without one it is
//! version 1, which releases that know no slots go on with too.

use std::path::Path;

use crate::{
    fusedev::{Negotiated, NegotiatedError, SlotsError, SlotsId},
    sys::mountinfo::{DeviceNumber, MountEntry},
};

/// Of the line above. A record of another one is not gone on with.
const VERSION: &str = "1";

/// With the id of slots.
const VERSION_WITH_SLOTS: &str = "2";

/// The longest record that is read; ours have some 250 bytes.
pub(super) const MAX_RECORD: usize = 4096;

/// All that a successor must know of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Testament {
    pub(super) name: String,
    /// Whether owners are mapped by the mounts that stand on it.
    pub(super) idmap: bool,
    /// Whom its files belong to.
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Device number of its superblock, which names its connection.
    pub(super) device: DeviceNumber,
    pub(super) boot_id: String,
    /// The node table that its ids come from.
    pub(super) table: [u8; 16],
    pub(super) negotiated: Negotiated,
    /// The memory of its unanswered requests, if the kernel does not ask again.
    pub(super) slots: Option<SlotsId>,
}

/// Why a session is not gone on with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error("its record is damaged, or of another version")]
    Record,
    #[error(transparent)]
    Handshake(#[from] NegotiatedError),
    #[error("its record names another session")]
    Name,
    #[error("it is of another boot")]
    Boot,
    #[error("the node table that its ids come from is lost")]
    Table,
    #[error(
        "this kernel cannot ask again what was asked before (Linux 6.9 or newer can), and it was not kept"
    )]
    NoReplay,
    #[error("the memory of its unanswered requests is not there")]
    NoSlots,
    #[error(transparent)]
    Slots(#[from] SlotsError),
    #[error("its mount is not there any more")]
    Mount,
    #[error("the kernel has ended it")]
    Over,
    #[error("its device is of another connection")]
    Connection,
}

/// What a record is held against.
pub(super) struct Here<'a> {
    pub(super) boot_id: &'a str,
    pub(super) table: [u8; 16],
    /// The directory in which sessions are mounted.
    pub(super) sessions: &'a Path,
    pub(super) mounts: &'a [MountEntry],
}

impl Testament {
    pub(super) fn encode(&self) -> String {
        let kind = if self.idmap { "idmap" } else { "plain" };
        let Testament { name, uid, gid, device, boot_id, .. } = self;
        let (table, negotiated) = (hex(&self.table), hex(&self.negotiated.to_bytes()));
        let (version, slots) = match &self.slots {
            Some(id) => (VERSION_WITH_SLOTS, format!(" {}", hex(id))),
            None => (VERSION, String::new()),
        };
        let text = format!(
            "scorpio-session {version} {name} {kind} {uid} {gid} {device} {boot_id} {table} {negotiated}{slots}"
        );
        format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()))
    }

    fn decode(bytes: &[u8]) -> Result<Testament, Unfit> {
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_RECORD);
        let text = text.and_then(|text| text.strip_suffix('\n')).ok_or(Unfit::Record)?;
        let (text, sum) = text.rsplit_once(' ').ok_or(Unfit::Record)?;
        if sum != format!("{:08x}", crc32fast::hash(text.as_bytes())) {
            return Err(Unfit::Record);
        }
        let words: Vec<&str> = text.split(' ').collect();
        let [mark, version, name, kind, uid, gid, device, boot_id, table, negotiated, ref slots @ ..] =
            words[..]
        else {
            return Err(Unfit::Record);
        };
        let slots = match (mark, version, slots) {
            ("scorpio-session", VERSION, []) => None,
            ("scorpio-session", VERSION_WITH_SLOTS, [id]) => Some(id_of(id).ok_or(Unfit::Record)?),
            _ => return Err(Unfit::Record),
        };
        let number = |text: &str| text.parse().map_err(|_| Unfit::Record);
        Ok(Testament {
            name: name.to_owned(),
            idmap: kind == "idmap",
            uid: number(uid)?,
            gid: number(gid)?,
            device: parse_device(device).ok_or(Unfit::Record)?,
            boot_id: boot_id.to_owned(),
            table: id_of(table).ok_or(Unfit::Record)?,
            negotiated: Negotiated::from_bytes(&unhex(negotiated).ok_or(Unfit::Record)?)?,
            slots,
        })
    }

    /// The record of the session kept as `name`, if it fits what is `here`.
    pub(super) fn open(record: &[u8], name: &str, here: &Here<'_>) -> Result<Testament, Unfit> {
        let testament = Testament::decode(record)?;
        let checks = [
            (testament.name == name && is_plain(name), Unfit::Name),
            (testament.boot_id == here.boot_id, Unfit::Boot),
            (testament.table == here.table, Unfit::Table),
            (testament.negotiated.has_resend() || testament.slots.is_some(), Unfit::NoReplay),
            (testament.is_mounted(here), Unfit::Mount),
        ];
        match checks.into_iter().find(|(fits, _)| !fits) {
            Some((_, unfit)) => Err(unfit),
            None => Ok(testament),
        }
    }

    /// Whether it is mounted once, where it was, in a directory whose mounts spread nowhere.
    fn is_mounted(&self, here: &Here<'_>) -> bool {
        let at =
            |path: &Path| here.mounts.iter().filter(|entry| entry.mount_point == path).collect::<Vec<_>>();
        let path = here.sessions.join(&self.name);
        match (&at(here.sessions)[..], &at(&path)[..]) {
            ([around], [own]) => {
                own.fs_type == "fuse.scorpio" && own.device == self.device && own.parent_id == around.mount_id
            }
            _ => false,
        }
    }
}

/// A name that is one plain component of a path and one word of a line.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

pub(super) fn parse_device(text: &str) -> Option<DeviceNumber> {
    let (major, minor) = text.split_once(':')?;
    Some(DeviceNumber { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn id_of(text: &str) -> Option<[u8; 16]> {
    unhex(text)?.try_into().ok()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mountinfo;

    const RESEND: u64 = 1 << 39;

    fn sample() -> Testament {
        Testament {
            name: "owner-1000".into(),
            idmap: false,
            uid: 1000,
            gid: 100,
            device: DeviceNumber { major: 0, minor: 52 },
            boot_id: "b1".into(),
            table: [7; 16],
            negotiated: Negotiated { minor: 44, flags: RESEND | 1, generation: 9 },
            slots: None,
        }
    }

    const TABLE: &str = "30 1 8:1 /run/fs /run/fs rw - ext4 /dev/sda1 rw\n\
        31 30 0:52 / /run/fs/owner-1000 ro - fuse.scorpio scorpio ro\n";

    fn open(record: &str, table: &str, change: impl FnOnce(&mut Here<'_>)) -> Result<Testament, Unfit> {
        let mounts: Vec<_> = mountinfo::parse(table.as_bytes()).map(Result::unwrap).collect();
        let mut here =
            Here { boot_id: "b1", table: [7; 16], sessions: Path::new("/run/fs"), mounts: &mounts };
        change(&mut here);
        Testament::open(record.as_bytes(), "owner-1000", &here)
    }

    #[test]
    fn a_record_has_these_bytes_and_reads_back() {
        let record = sample().encode();
        let text = format!(
            "scorpio-session 1 owner-1000 plain 1000 100 0:52 b1 {} {}",
            "07".repeat(16),
            hex(&sample().negotiated.to_bytes())
        );
        assert_eq!(record, format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes())));
        assert_eq!(open(&record, TABLE, |_| {}), Ok(sample()));
        let shared = Testament { idmap: true, ..sample() };
        assert_eq!(open(&shared.encode(), TABLE, |_| {}), Ok(shared));
    }

    #[test]
    fn a_record_with_slots_is_version_2_and_reads_back() {
        let old_kernel = Negotiated { minor: 38, flags: 1, generation: 9 };
        let kept = Testament { negotiated: old_kernel, slots: Some([9; 16]), ..sample() };
        let record = kept.encode();
        let text = format!(
            "scorpio-session 2 owner-1000 plain 1000 100 0:52 b1 {} {} {}",
            "07".repeat(16),
            hex(&kept.negotiated.to_bytes()),
            "09".repeat(16)
        );
        assert_eq!(record, format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes())));
        assert_eq!(open(&record, TABLE, |_| {}), Ok(kept));
        for wrong in
            [text.replace("session 2", "session 1"), text.replace(" 0909", " 09"), format!("{text} 09")]
        {
            let sealed = format!("{wrong} {:08x}\n", crc32fast::hash(wrong.as_bytes()));
            assert_eq!(open(&sealed, TABLE, |_| {}), Err(Unfit::Record), "{wrong}");
        }
    }

    #[test]
    fn no_damaged_record_is_taken() {
        let record = sample().encode();
        for cut in 0..record.len() {
            assert_eq!(open(&record[..cut], TABLE, |_| {}), Err(Unfit::Record), "{cut}");
        }
        for at in 0..record.len() - 1 {
            let mut bytes = record.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(flipped) = String::from_utf8(bytes) else { continue };
            assert_eq!(open(&flipped, TABLE, |_| {}), Err(Unfit::Record), "{at}");
        }
    }

    #[test]
    fn a_successor_that_does_not_fit_refuses() {
        let refusal = |record: &Testament| open(&record.encode(), TABLE, |_| {}).unwrap_err();
        let text = sample().encode().replace("scorpio-session 1", "scorpio-session 3");
        let text = text.rsplit_once(' ').unwrap().0;
        let newer = format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()));
        assert_eq!(open(&newer, TABLE, |_| {}), Err(Unfit::Record));
        assert_eq!(refusal(&Testament { name: "owner-1001".into(), ..sample() }), Unfit::Name);
        assert_eq!(refusal(&Testament { boot_id: "b2".into(), ..sample() }), Unfit::Boot);
        assert_eq!(refusal(&Testament { table: [8; 16], ..sample() }), Unfit::Table);
        let old_kernel = Negotiated { minor: 38, flags: 1, generation: 9 };
        assert_eq!(refusal(&Testament { negotiated: old_kernel, ..sample() }), Unfit::NoReplay);
        let elsewhere = DeviceNumber { major: 0, minor: 53 };
        assert_eq!(refusal(&Testament { device: elsewhere, ..sample() }), Unfit::Mount);
    }

    #[test]
    fn a_mount_that_is_not_alone_in_its_place_is_refused() {
        let record = sample().encode();
        let own = TABLE.lines().nth(1).unwrap();
        let twice = format!("{TABLE}{}\n", own.replacen("31 30", "32 31", 1));
        let uncovered = format!("{own}\n");
        let foreign = TABLE.replace("fuse.scorpio", "fuse.other");
        let outside = TABLE.replace("31 30", "31 1");
        for table in [&twice, &uncovered, &foreign, &outside, &String::new()] {
            assert_eq!(open(&record, table, |_| {}), Err(Unfit::Mount), "{table}");
        }
    }
}
