//! The record of a workspace as bytes: one header line with format name, version, CRC-32 and length, then JSON.
//!
//! ```text
//! scorpio-workspace <version> <crc32 of the body, 8 hex digits> <bytes of the body>\n
//! { "id": … }\n
//! ```
//!
//! Version 2 has the ids that files are stored with, which version 1 takes to be the owner's. A record is written in the
//! oldest version that can say it, so that a release before this one goes on with workspaces that were never given away.
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
    sys::{
        identity::Identity,
        idmap::{Ids, Owners},
    },
    types::{OriginName, RepoPath, WorkspaceId},
};

/// The newest version that is written and read.
pub(super) const VERSION: u32 = 2;
/// The version without [`Record::stored`], which then is the owner's.
const WITHOUT_STORED: u32 = 1;
/// Longest record: paths, labels and the kernel's 65,536 groups at ten digits each fit.
pub(super) const MAX_BYTES: usize = 1 << 20;

const FORMAT: &str = "scorpio-workspace";

/// Everything that is kept of a workspace.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub(super) id: WorkspaceId,
    pub(super) owner: Identity,
    /// The ids that the owner's files have in the upper: those of the first owner, whoever it was given to since.
    pub(super) stored: Ids,
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
        serde_json::to_vec_pretty(&Body::from(record)).expect("strings, numbers and lists become JSON");
    body.push(b'\n');
    let version = if record.stored == Ids::from(&record.owner) { WITHOUT_STORED } else { VERSION };
    let header = format!("{FORMAT} {version} {:08x} {}\n", crc32fast::hash(&body), body.len());
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
    let body: Body = serde_json::from_slice(body).map_err(|error| BadRecord::Content(error.to_string()))?;
    if body.stored.is_some() != (version != WITHOUT_STORED) {
        return Err(BadRecord::Content(format!("these are not the members of version {version}")));
    }
    body.try_into().map_err(BadRecord::Content)
}

/// Both versions.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    id: String,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    /// From version 2 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stored: Option<BodyIds>,
    origin: String,
    commit: String,
    path: Bytes,
    tree: String,
    rev: Option<String>,
    root_mtime_s: i64,
    mount_point: Bytes,
    stood: Option<BodyStood>,
    phase: BodyPhase,
    reason: Option<String>,
    ephemeral: bool,
    read_only: bool,
    labels: BTreeMap<String, String>,
    ttl_s: Option<u64>,
    mode: Option<u32>,
    created_s: u64,
    expires_s: Option<u64>,
    works: BodyWorks,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BodyIds {
    uid: u32,
    gid: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BodyStood {
    point: Option<BodyPoint>,
    mount_id: u64,
    boot_id: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BodyPoint {
    dev: u64,
    ino: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BodyWorks {
    next: u32,
    since: u32,
    boot_id: String,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum BodyPhase {
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

impl From<&Record> for Body {
    fn from(record: &Record) -> Body {
        let (phase, reason) = match &record.phase {
            Phase::Creating => (BodyPhase::Creating, None),
            Phase::Mounting => (BodyPhase::Mounting, None),
            Phase::Mounted => (BodyPhase::Mounted, None),
            Phase::Unmounted => (BodyPhase::Unmounted, None),
            Phase::Displaced { reason } => (BodyPhase::Displaced, Some(reason.clone())),
            Phase::Failed { reason } => (BodyPhase::Failed, Some(reason.clone())),
        };
        Body {
            id: record.id.to_string(),
            uid: record.owner.uid,
            gid: record.owner.gid,
            groups: record.owner.groups.clone(),
            stored: (record.stored != Ids::from(&record.owner))
                .then_some(BodyIds { uid: record.stored.uid, gid: record.stored.gid }),
            origin: record.origin.to_string(),
            commit: record.snapshot.commit.to_string(),
            path: Bytes::new(&record.snapshot.path.to_bytes()),
            tree: record.snapshot.tree.to_string(),
            rev: record.rev.clone(),
            root_mtime_s: record.root_mtime,
            mount_point: Bytes::new(record.mount_point.as_os_str().as_bytes()),
            stood: record.stood.as_ref().map(BodyStood::from),
            phase,
            reason,
            ephemeral: record.options.ephemeral,
            read_only: record.options.read_only,
            labels: record.options.labels.clone(),
            ttl_s: record.options.ttl.map(|ttl| ttl.as_secs()),
            mode: record.options.mode,
            created_s: seconds(record.created),
            expires_s: record.expires.map(seconds),
            works: BodyWorks {
                next: record.works.next,
                since: record.works.since,
                boot_id: record.works.boot_id.clone(),
            },
        }
    }
}

impl TryFrom<Body> for Record {
    type Error = String;

    fn try_from(body: Body) -> Result<Record, String> {
        let reason = body.reason.unwrap_or_default();
        let owner = Identity { uid: body.uid, gid: body.gid, groups: body.groups };
        let stored = body.stored.map_or(Ids::from(&owner), |ids| Ids { uid: ids.uid, gid: ids.gid });
        Owners::new(stored, Ids::from(&owner)).map_err(|error| error.to_string())?;
        Ok(Record {
            id: parse(&body.id)?,
            owner,
            stored,
            origin: parse(&body.origin)?,
            snapshot: Snapshot {
                commit: parse(&body.commit)?,
                path: RepoPath::parse(&body.path.into_bytes()?).map_err(|error| error.to_string())?,
                tree: parse(&body.tree)?,
            },
            rev: body.rev,
            root_mtime: body.root_mtime_s,
            mount_point: OsString::from_vec(body.mount_point.into_bytes()?).into(),
            stood: body.stood.map(Stood::from),
            phase: match body.phase {
                BodyPhase::Creating => Phase::Creating,
                BodyPhase::Mounting => Phase::Mounting,
                BodyPhase::Mounted => Phase::Mounted,
                BodyPhase::Unmounted => Phase::Unmounted,
                BodyPhase::Displaced => Phase::Displaced { reason },
                BodyPhase::Failed => Phase::Failed { reason },
            },
            options: Options {
                ephemeral: body.ephemeral,
                read_only: body.read_only,
                labels: body.labels,
                ttl: body.ttl_s.map(Duration::from_secs),
                mode: body.mode,
            },
            created: moment(body.created_s)?,
            expires: body.expires_s.map(moment).transpose()?,
            works: Works { next: body.works.next, since: body.works.since, boot_id: body.works.boot_id },
        })
    }
}

impl From<&Stood> for BodyStood {
    fn from(stood: &Stood) -> BodyStood {
        let Stood { point, mount_id, boot_id } = stood;
        let point = point.map(|point| BodyPoint { dev: point.dev, ino: point.ino });
        BodyStood { point, mount_id: *mount_id, boot_id: boot_id.clone() }
    }
}

impl From<BodyStood> for Stood {
    fn from(body: BodyStood) -> Stood {
        let point = body.point.map(|point| PointIdentity { dev: point.dev, ino: point.ino });
        Stood { point, mount_id: body.mount_id, boot_id: body.boot_id }
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
