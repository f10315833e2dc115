//! What the engine asks of a mounter and what it answers: one JSON value each way.
//!
//! Both ends are the same binary, so there are no versions. Paths travel as byte arrays: they need not be UTF-8.

use std::{
    ffi::OsString,
    io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    engine::PointFault,
    sys::{
        identity::Identity,
        idmap::{Ids, NoId, Owners},
        mount::MountCallError,
    },
};

/// Largest request and reply: all of a user's groups (65,536 of up to 11 characters) and a dozen paths as arrays of
/// numbers fit with room to spare.
pub(crate) const MAX_MESSAGE: u64 = 4 << 20;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Process id of the daemon: a mounter that outlived it does nothing.
    pub(crate) parent: u32,
    pub(crate) verb: Verb,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Verb {
    Mount(Box<MountOrder>),
    Unmount(UnmountOrder),
    Abandon(AbandonOrder),
    /// Ends those workspaces with these layers that nobody uses.
    Sweep {
        #[serde(with = "path_bytes")]
        layers: PathBuf,
    },
    /// Tries whether owners of the session mounted at this path can be mapped.
    Probe {
        #[serde(with = "path_bytes")]
        session: PathBuf,
    },
    /// Tries whether what lies in this directory can be shown with these owners.
    Show {
        #[serde(with = "path_bytes")]
        dir: PathBuf,
        owners: OwnersOrder,
    },
    /// Asks whether an overlay stands on this upper, visible or not.
    Held {
        #[serde(with = "path_bytes")]
        upper: PathBuf,
        /// A directory on another mount than the upper's.
        #[serde(with = "path_bytes")]
        layers: PathBuf,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MountOrder {
    /// Becomes the mount's source, `scorpio:<workspace>`.
    pub(crate) workspace: String,
    pub(crate) owner: Owner,
    #[serde(with = "path_bytes")]
    pub(crate) point: PathBuf,
    /// Device and inode number that the mount point must have.
    pub(crate) expect: Option<(u64, u64)>,
    /// The tree to show.
    #[serde(with = "path_bytes")]
    pub(crate) lower: PathBuf,
    /// Whether what belongs to 0:0 in the tree is to be shown as the owner's.
    pub(crate) map_owner: bool,
    /// Private directory in which the lower is attached while the overlay is made.
    #[serde(with = "path_bytes")]
    pub(crate) layers: PathBuf,
    /// How what lies in the upper is to be shown.
    pub(crate) owners: OwnersOrder,
    pub(crate) upper: UpperOrder,
}

/// [`Owners`] on the wire: user and group.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct OwnersOrder {
    pub(crate) stored: (u32, u32),
    pub(crate) seen: (u32, u32),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum UpperOrder {
    Writable {
        #[serde(with = "path_bytes")]
        upper: PathBuf,
        #[serde(with = "path_bytes")]
        work: PathBuf,
        volatile: bool,
    },
    ReadOnly {
        #[serde(with = "path_bytes")]
        empty: PathBuf,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct UnmountOrder {
    pub(crate) workspace: String,
    pub(crate) mount_id: u64,
    pub(crate) lazy: bool,
}

/// Ends whatever a mounter left that was killed on the way to a mount.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AbandonOrder {
    pub(crate) workspace: String,
    #[serde(with = "path_bytes")]
    pub(crate) layers: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Mounted {
        mount_id: u64,
        dev: u64,
        ino: u64,
    },
    Done,
    /// Something stands on the upper.
    Held,
    Point {
        #[serde(with = "PointFaultName")]
        fault: PointFault,
        reason: String,
    },
    Busy {
        #[serde(with = "path_bytes")]
        path: PathBuf,
        holders: Vec<HolderReply>,
    },
    Failed {
        step: String,
        errno: Option<i32>,
        message: String,
    },
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HolderReply {
    pub(crate) pid: u32,
    pub(crate) name: String,
}

/// Why a verb was not carried out.
#[derive(Debug)]
pub(crate) enum Failure {
    Point { fault: PointFault, reason: String },
    Busy { path: PathBuf, holders: Vec<HolderReply> },
    Step { step: String, source: io::Error },
}

impl Failure {
    pub(crate) fn point(fault: PointFault, reason: impl Into<String>) -> Failure {
        Failure::Point { fault, reason: reason.into() }
    }

    /// For `map_err`: an I/O error of a step.
    pub(crate) fn at<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> Failure {
        move |error| Failure::Step { step: step.into(), source: error.into() }
    }

    /// The kernel's error number, if it was the kernel that refused.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Failure::Step { source, .. } => source.raw_os_error(),
            Failure::Point { .. } | Failure::Busy { .. } => None,
        }
    }
}

impl From<MountCallError> for Failure {
    fn from(error: MountCallError) -> Failure {
        Failure::Step { step: error.step(), source: error.source }
    }
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Reply {
        match failure {
            Failure::Point { fault, reason } => Reply::Point { fault, reason },
            Failure::Busy { path, holders } => Reply::Busy { path, holders },
            Failure::Step { step, source } => {
                Reply::Failed { step, errno: source.raw_os_error(), message: source.to_string() }
            }
        }
    }
}

impl From<&Identity> for Owner {
    fn from(identity: &Identity) -> Owner {
        Owner { uid: identity.uid, gid: identity.gid, groups: identity.groups.clone() }
    }
}

impl From<&Owner> for Identity {
    fn from(owner: &Owner) -> Identity {
        Identity { uid: owner.uid, gid: owner.gid, groups: owner.groups.clone() }
    }
}

impl From<&Owners> for OwnersOrder {
    fn from(owners: &Owners) -> OwnersOrder {
        let pair = |ids: Ids| (ids.uid, ids.gid);
        OwnersOrder { stored: pair(owners.stored()), seen: pair(owners.seen()) }
    }
}

impl TryFrom<OwnersOrder> for Owners {
    type Error = NoId;

    fn try_from(order: OwnersOrder) -> Result<Owners, NoId> {
        let ids = |(uid, gid)| Ids { uid, gid };
        Owners::new(ids(order.stored), ids(order.seen))
    }
}

/// Names of [`PointFault`]s on the wire.
#[derive(Serialize, Deserialize)]
#[serde(remote = "PointFault")]
enum PointFaultName {
    Relative,
    Malformed,
    Missing,
    NotADirectory,
    Symlink,
    Denied,
    NotOwned,
    NotEmpty,
    Busy,
    Filesystem,
    Nested,
    Displaced,
}

mod path_bytes {
    use super::{
        Deserialize, Deserializer, OsStrExt, OsString, OsStringExt, Path, PathBuf, Serialize, Serializer,
    };

    pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        path.as_os_str().as_bytes().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        Ok(OsString::from_vec(Vec::deserialize(deserializer)?).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_are_no_text_travel_unchanged() {
        let path = PathBuf::from(OsString::from_vec(b"/\xff\n\"\\x".to_vec()));
        let request = Request { parent: 1, verb: Verb::Probe { session: path.clone() } };
        let text = serde_json::to_vec(&request).unwrap();
        let Request { verb: Verb::Probe { session }, .. } = serde_json::from_slice(&text).unwrap() else {
            panic!("another verb came back")
        };
        assert_eq!(session, path);
    }

    #[test]
    fn a_fault_keeps_its_name() {
        let reply: Reply = Failure::point(PointFault::NotEmpty, "it has entries").into();
        let text = serde_json::to_string(&reply).unwrap();
        assert_eq!(text, r#"{"Point":{"fault":"NotEmpty","reason":"it has entries"}}"#);
    }
}
