//! The record of a workspace as bytes: one header line with format name, version, CRC-32 and length, then JSON.
//!
//! ```text
//! scorpio-workspace 1 <crc32 of the body, 8 hex digits> <bytes of the body>\n
//! { "id": … }\n
//! ```
//!
//! A record is either read as a whole or refused with a reason; one of a newer version is refused, never guessed at.
//! Does not know where the bytes lie.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt::Write as _,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::{Options, state::Phase};
use crate::{
    engine::PointIdentity,
    origin::Snapshot,
    sys::identity::Identity,
    types::{OriginName, RepoPath, WorkspaceId},
};

/// Version that is written, and the newest that is read.
pub(super) const VERSION: u32 = 1;
/// Longest record: paths, labels and the kernel's 65,536 groups at ten digits each fit.
pub(super) const MAX_BYTES: usize = 1 << 20;

const FORMAT: &str = "scorpio-workspace";

/// Everything that is kept of a workspace.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub(super) id: WorkspaceId,
    pub(super) owner: Identity,
    pub(super) origin: OriginName,
    pub(super) snapshot: Snapshot,
    pub(super) rev: Option<String>,
    /// The root's one time, so that files look as old after a reboot as before it.
    pub(super) root_mtime: i64,
    pub(super) mount_point: PathBuf,
    /// The mount as it last stood.
    pub(super) stood: Option<Stood>,
    pub(super) phase: Phase,
    pub(super) options: Options,
    /// Whole seconds.
    pub(super) created: SystemTime,
    /// Whole seconds.
    pub(super) expires: Option<SystemTime>,
    pub(super) works: Works,
}

/// A mount that stood once.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stood {
    /// What it covered, where that is known; `dev` means nothing in another boot.
    pub(super) point: Option<PointIdentity>,
    pub(super) mount_id: u64,
    pub(super) boot_id: String,
}

/// Numbers of work directories.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Works {
    /// Of the next one.
    pub(super) next: u32,
    /// Of the first one of boot `boot_id`: nothing can use those below it any more.
    pub(super) since: u32,
    pub(super) boot_id: String,
}

/// Why bytes are no record that can be used. The file stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRecord {
    #[error("its record is no workspace record")]
    Foreign,
    #[error("its record has version {0}, and this release reads versions up to {VERSION}")]
    Newer(u32),
    #[error("its record is cut off or has been extended")]
    Length,
    #[error("its record is damaged: the checksum does not fit")]
    Checksum,
    #[error("its record cannot be understood: {0}")]
    Content(String),
    #[error("its record is that of workspace {0}")]
    SomebodyElses(WorkspaceId),
    #[error("its record cannot be read: {0}")]
    Unreadable(String),
}

/// The bytes of a record.
pub(super) fn encode(record: &Record) -> Vec<u8> {
    let mut body =
        serde_json::to_vec_pretty(&V1::from(record)).expect("strings, numbers and lists become JSON");
    body.push(b'\n');
    let header = format!("{FORMAT} {VERSION} {:08x} {}\n", crc32fast::hash(&body), body.len());
    [header.into_bytes(), body].concat()
}

/// The record in `bytes`, which must be whole and sound.
pub(super) fn decode(bytes: &[u8]) -> Result<Record, BadRecord> {
    let end = bytes.iter().take(128).position(|byte| *byte == b'\n').ok_or(BadRecord::Foreign)?;
    let header = std::str::from_utf8(&bytes[..end]).map_err(|_| BadRecord::Foreign)?;
    let body = &bytes[end + 1..];
    let fields: Vec<&str> = header.split(' ').collect();
    let [FORMAT, version, crc, length] = fields[..] else { return Err(BadRecord::Foreign) };
    let version = version.parse().map_err(|_| BadRecord::Foreign)?;
    if version > VERSION {
        return Err(BadRecord::Newer(version));
    }
    if version == 0 {
        return Err(BadRecord::Foreign);
    }
    if length != body.len().to_string() {
        return Err(BadRecord::Length);
    }
    if crc != format!("{:08x}", crc32fast::hash(body)) {
        return Err(BadRecord::Checksum);
    }
    let v1: V1 = serde_json::from_slice(body).map_err(|error| BadRecord::Content(error.to_string()))?;
    v1.try_into().map_err(BadRecord::Content)
}

/// Version 1.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct V1 {
    id: String,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    origin: String,
    commit: String,
    path: Bytes,
    tree: String,
    rev: Option<String>,
    root_mtime_s: i64,
    mount_point: Bytes,
    stood: Option<V1Stood>,
    phase: V1Phase,
    reason: Option<String>,
    ephemeral: bool,
    read_only: bool,
    labels: BTreeMap<String, String>,
    ttl_s: Option<u64>,
    mode: Option<u32>,
    created_s: u64,
    expires_s: Option<u64>,
    works: V1Works,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct V1Stood {
    point: Option<V1Point>,
    mount_id: u64,
    boot_id: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct V1Point {
    dev: u64,
    ino: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct V1Works {
    next: u32,
    since: u32,
    boot_id: String,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum V1Phase {
    Creating,
    Mounting,
    Mounted,
    Unmounted,
    Displaced,
    Failed,
}

/// Bytes of a path: text where they are UTF-8, so that people can read a record.
#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Bytes {
    Text(String),
    Hex { hex: String },
}

impl Bytes {
    fn new(bytes: &[u8]) -> Bytes {
        let hex = |bytes: &[u8]| {
            bytes.iter().fold(String::new(), |mut text, byte| {
                write!(text, "{byte:02x}").expect("writing to a String does not fail");
                text
            })
        };
        std::str::from_utf8(bytes)
            .map_or_else(|_| Bytes::Hex { hex: hex(bytes) }, |text| Bytes::Text(text.into()))
    }

    fn into_bytes(self) -> Result<Vec<u8>, String> {
        let hex = match self {
            Bytes::Text(text) => return Ok(text.into_bytes()),
            Bytes::Hex { hex } => hex,
        };
        let byte = |pair: &[u8]| {
            let digits = std::str::from_utf8(pair).ok().filter(|digits| digits.len() == 2)?;
            u8::from_str_radix(digits, 16).ok()
        };
        let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(byte).collect();
        bytes.ok_or_else(|| "a path is neither text nor pairs of hexadecimal digits".to_owned())
    }
}

impl From<&Record> for V1 {
    fn from(record: &Record) -> V1 {
        let (phase, reason) = match &record.phase {
            Phase::Creating => (V1Phase::Creating, None),
            Phase::Mounting => (V1Phase::Mounting, None),
            Phase::Mounted => (V1Phase::Mounted, None),
            Phase::Unmounted => (V1Phase::Unmounted, None),
            Phase::Displaced { reason } => (V1Phase::Displaced, Some(reason.clone())),
            Phase::Failed { reason } => (V1Phase::Failed, Some(reason.clone())),
        };
        V1 {
            id: record.id.to_string(),
            uid: record.owner.uid,
            gid: record.owner.gid,
            groups: record.owner.groups.clone(),
            origin: record.origin.to_string(),
            commit: record.snapshot.commit.to_string(),
            path: Bytes::new(&record.snapshot.path.to_bytes()),
            tree: record.snapshot.tree.to_string(),
            rev: record.rev.clone(),
            root_mtime_s: record.root_mtime,
            mount_point: Bytes::new(record.mount_point.as_os_str().as_bytes()),
            stood: record.stood.as_ref().map(V1Stood::from),
            phase,
            reason,
            ephemeral: record.options.ephemeral,
            read_only: record.options.read_only,
            labels: record.options.labels.clone(),
            ttl_s: record.options.ttl.map(|ttl| ttl.as_secs()),
            mode: record.options.mode,
            created_s: seconds(record.created),
            expires_s: record.expires.map(seconds),
            works: V1Works {
                next: record.works.next,
                since: record.works.since,
                boot_id: record.works.boot_id.clone(),
            },
        }
    }
}

impl TryFrom<V1> for Record {
    type Error = String;

    fn try_from(v1: V1) -> Result<Record, String> {
        let reason = v1.reason.unwrap_or_default();
        Ok(Record {
            id: parse(&v1.id)?,
            owner: Identity { uid: v1.uid, gid: v1.gid, groups: v1.groups },
            origin: parse(&v1.origin)?,
            snapshot: Snapshot {
                commit: parse(&v1.commit)?,
                path: RepoPath::parse(&v1.path.into_bytes()?).map_err(|error| error.to_string())?,
                tree: parse(&v1.tree)?,
            },
            rev: v1.rev,
            root_mtime: v1.root_mtime_s,
            mount_point: OsString::from_vec(v1.mount_point.into_bytes()?).into(),
            stood: v1.stood.map(Stood::from),
            phase: match v1.phase {
                V1Phase::Creating => Phase::Creating,
                V1Phase::Mounting => Phase::Mounting,
                V1Phase::Mounted => Phase::Mounted,
                V1Phase::Unmounted => Phase::Unmounted,
                V1Phase::Displaced => Phase::Displaced { reason },
                V1Phase::Failed => Phase::Failed { reason },
            },
            options: Options {
                ephemeral: v1.ephemeral,
                read_only: v1.read_only,
                labels: v1.labels,
                ttl: v1.ttl_s.map(Duration::from_secs),
                mode: v1.mode,
            },
            created: moment(v1.created_s)?,
            expires: v1.expires_s.map(moment).transpose()?,
            works: Works { next: v1.works.next, since: v1.works.since, boot_id: v1.works.boot_id },
        })
    }
}

impl From<&Stood> for V1Stood {
    fn from(stood: &Stood) -> V1Stood {
        let Stood { point, mount_id, boot_id } = stood;
        let point = point.map(|point| V1Point { dev: point.dev, ino: point.ino });
        V1Stood { point, mount_id: *mount_id, boot_id: boot_id.clone() }
    }
}

impl From<V1Stood> for Stood {
    fn from(v1: V1Stood) -> Stood {
        let point = v1.point.map(|point| PointIdentity { dev: point.dev, ino: point.ino });
        Stood { point, mount_id: v1.mount_id, boot_id: v1.boot_id }
    }
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// Whole seconds since 1970; a clock before that counts as 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn moment(seconds: u64) -> Result<SystemTime, String> {
    UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .ok_or_else(|| format!("{seconds} seconds after 1970 is no time"))
}

#[cfg(test)]
pub(super) mod tests;
