//! The contract of the control socket: methods, parameters, results, errors. Shared by server and clients.
//!
//! JSON-RPC 2.0; parameters are one object by name, unknown members are refused. Times are RFC 3339, durations seconds,
//! ids text.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Names of the methods.
pub mod method {
    /// [`super::CreateWorkspace`] → [`super::WorkspaceView`]
    pub const WORKSPACE_CREATE: &str = "workspace.create";
    /// [`super::ListWorkspaces`] → [`super::WorkspacePage`]
    pub const WORKSPACE_LIST: &str = "workspace.list";
    /// [`super::WorkspaceRef`] → [`super::WorkspaceView`]
    pub const WORKSPACE_GET: &str = "workspace.get";
    /// [`super::MountWorkspace`] → [`super::WorkspaceView`]
    pub const WORKSPACE_MOUNT: &str = "workspace.mount";
    /// [`super::UnmountWorkspace`] → [`super::Done`]
    pub const WORKSPACE_UNMOUNT: &str = "workspace.unmount";
    /// [`super::RemoveWorkspace`] → [`super::Done`]
    pub const WORKSPACE_REMOVE: &str = "workspace.remove";
    /// [`super::WatchWorkspaces`] → subscription of [`super::WorkspaceEvent`]
    pub const WORKSPACE_WATCH: &str = "workspace.watch";
    /// Ends a [`WORKSPACE_WATCH`].
    pub const WORKSPACE_UNWATCH: &str = "workspace.unwatch";
    /// Name of the notifications of [`WORKSPACE_WATCH`].
    pub const WORKSPACE_EVENT: &str = "workspace.event";
    /// [`super::Nothing`] → list of [`super::OriginView`]
    pub const ORIGIN_LIST: &str = "origin.list";
    /// [`super::Nothing`] → list of [`super::OrphanView`]; needs the right to manage others' workspaces
    pub const ORPHAN_LIST: &str = "orphan.list";
    /// [`super::AdoptOrphan`] → [`super::WorkspaceView`]; needs the right to manage others' workspaces
    pub const ORPHAN_ADOPT: &str = "orphan.adopt";
    /// [`super::WorkspaceRef`] → [`super::Done`]; needs the right to manage others' workspaces
    pub const ORPHAN_DISCARD: &str = "orphan.discard";
    /// [`super::Nothing`] → [`super::Health`]
    pub const HEALTH: &str = "health";
    /// [`super::Nothing`] → [`super::Counters`]
    pub const COUNTERS: &str = "counters";
    /// [`super::Nothing`] → [`super::WhoAmI`]
    pub const WHO_AM_I: &str = "whoami";
    /// [`super::Nothing`] → the OpenRPC document of this contract
    pub const DISCOVER: &str = "rpc.discover";
}

/// No parameters.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// Nothing to say but that it is done.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Done {}

/// Make a workspace and mount it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateWorkspace {
    /// Name of an origin.
    pub origin: String,
    /// Directory in it, from the top.
    #[serde(default)]
    pub path: String,
    /// Branch, tag or commit; the origin's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rev: Option<String>,
    /// Absolute path of an empty directory of the caller's, without symlinks.
    pub mount_point: String,
    /// Throw away at unmount or restart.
    #[serde(default)]
    pub ephemeral: bool,
    /// Refuse writes.
    #[serde(default)]
    pub read_only: bool,
    /// Marks to find it by.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Ends by itself after so many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
    /// Permission bits of the mount's root, octal text such as "0755"; "0700" when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// One workspace.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceRef {
    /// Its id.
    pub id: String,
}

/// Which workspaces to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListWorkspaces {
    /// Those of all users; needs the right to manage others' workspaces.
    #[serde(default)]
    pub all: bool,
    /// Only those with all these labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Only ids after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most so many: 1 to 1000, 200 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A part of a list.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WorkspacePage {
    /// Ordered by id.
    pub workspaces: Vec<WorkspaceView>,
    /// Pass as `after` for the next part; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Mount a workspace again.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MountWorkspace {
    /// Its id.
    pub id: String,
    /// Elsewhere than before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_point: Option<String>,
}

/// Unmount a workspace; a durable one is kept.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnmountWorkspace {
    /// Its id.
    pub id: String,
    /// Even if processes use it: out of sight now, gone when they are.
    #[serde(default)]
    pub lazy: bool,
}

/// Take a workspace away for good.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveWorkspace {
    /// Its id.
    pub id: String,
    /// Even if it holds changes.
    #[serde(default)]
    pub discard: bool,
    /// Even if processes use it.
    #[serde(default)]
    pub lazy: bool,
}

/// What to watch.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WatchWorkspaces {
    /// Only this one: the subscription ends when it is gone. All of the caller's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// Take an orphaned upper up again.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdoptOrphan {
    /// Its id, from `orphan.list`.
    pub id: String,
    /// Uid of the user who gets it.
    pub uid: u32,
    /// What it stood on, and where it goes.
    pub workspace: CreateWorkspace,
}

/// Where a workspace stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkspaceState {
    /// Being mounted.
    Mounting,
    /// There, and usable.
    Mounted,
    /// Kept, not mounted.
    Unmounted,
    /// Kept; its mount point is not the directory it was.
    Displaced,
    /// Kept; could not be mounted again.
    Failed,
    /// Being taken away.
    Removing,
}

/// A workspace.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WorkspaceView {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub state: WorkspaceState,
    /// Why, for `displaced` and `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Uid of its owner.
    pub uid: u32,
    /// Its owner's name, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Name of its origin.
    pub origin: String,
    /// Directory in the origin.
    pub path: String,
    /// The revision as it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rev: Option<String>,
    /// The commit it stands on.
    pub commit: String,
    /// The tree it stands on.
    pub tree: String,
    /// Where it is mounted, or was.
    pub mount_point: String,
    /// Thrown away at unmount.
    pub ephemeral: bool,
    /// Refuses writes.
    pub read_only: bool,
    /// Marks.
    pub labels: BTreeMap<String, String>,
    /// When it was made, RFC 3339.
    pub created: String,
    /// When it ends by itself, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// What a watcher is told.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum WorkspaceEvent {
    /// As it is now; sent once at the start for each and then at every change.
    State {
        /// The workspace.
        workspace: WorkspaceView,
    },
    /// It is gone.
    Gone {
        /// Its id.
        id: String,
    },
    /// Events were lost because they were not read; list again.
    Lagged {
        /// How many.
        missed: u64,
    },
    /// The last event: the subscription is over.
    End {
        /// Why: `gone`, `stopping`.
        reason: String,
    },
}

/// An origin that the caller may mount.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OriginView {
    /// Its name.
    pub name: String,
    /// `git`.
    pub kind: String,
}

/// An upper without a record.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OrphanView {
    /// Its id.
    pub id: String,
    /// Where it lies.
    pub path: String,
    /// Owner of what lies there.
    pub uid: u32,
    /// Why it is an orphan.
    pub reason: String,
}

/// How the daemon is. Never touches a mount.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// Version of the daemon.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// How the lower is owned: `shared` or `per-owner`.
    pub lower: String,
    /// Who decides: `polkit` or `static`.
    pub authorizer: String,
    /// Workspaces by state.
    pub workspaces: BTreeMap<String, u64>,
    /// What is wrong, in sentences; empty when nothing is.
    pub problems: Vec<String>,
}

/// Counters since the daemon started. Names end in their unit.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Counters {
    /// By session (`shared`, `owner-<uid>`).
    pub sessions: BTreeMap<String, SessionCounters>,
    /// By origin; only those the caller may mount.
    pub origins: BTreeMap<String, OriginCounters>,
    /// The object cache.
    pub cache: CacheCounters,
    /// The tree.
    pub tree: TreeCounters,
    /// The daemon's anonymous memory in bytes (RssAnon).
    pub rss_anon_bytes: u64,
}

/// A FUSE session.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct SessionCounters {
    /// Messages read from the device.
    pub requests: u64,
    /// Of them by opcode.
    pub by_opcode: BTreeMap<String, u64>,
    /// Waiting for an origin now.
    pub parked: u64,
    /// Answered EIO at a bound or deadline.
    pub refused: u64,
    /// Given up because the asker was interrupted.
    pub interrupted: u64,
}

/// An origin.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct OriginCounters {
    /// Objects asked for.
    pub fetched: u64,
    /// Bytes received.
    pub bytes: u64,
    /// Objects that did not come, or came wrong.
    pub failed: u64,
}

/// The object cache.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct CacheCounters {
    /// Trees held.
    pub trees: u64,
    /// Blobs held.
    pub blobs: u64,
    /// Bytes of blob content held.
    pub blob_bytes: u64,
    /// Bytes of the database in use.
    pub database_bytes: u64,
}

/// The tree.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct TreeCounters {
    /// Roots served.
    pub roots: u64,
    /// Directories listed so far.
    pub directories: u64,
    /// Node ids given so far.
    pub nodes: u64,
}

/// Who the daemon takes the caller for.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WhoAmI {
    /// User id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Process id.
    pub pid: u32,
    /// Name, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// May have workspaces.
    pub may_mount: bool,
    /// May manage those of others.
    pub may_manage_others: bool,
}

/// What kind of failure it was. The name is stable and so is its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ErrorKind {
    /// 1001: a parameter makes no sense.
    BadParameter,
    /// 1002: the mount point will not do.
    BadMountPoint,
    /// 1003: no such origin, or not for this caller.
    NoSuchOrigin,
    /// 1004: no such revision.
    NoSuchRevision,
    /// 1005: no such path in the origin, or not a directory.
    NoSuchPath,
    /// 1006: no such workspace, or not this caller's.
    NoSuchWorkspace,
    /// 1007: the policy says no.
    NotAuthorised,
    /// 1008: a limit is reached.
    LimitReached,
    /// 1009: processes use the mount.
    Busy,
    /// 1010: there are changes that nobody said may go.
    UnsavedChanges,
    /// 1011: not in this state.
    WrongState,
    /// 1012: the origin cannot be reached, or answers nonsense.
    OriginUnavailable,
    /// 1013: the caller is in another mount namespace.
    ForeignNamespace,
    /// 1014: the daemon is stopping.
    Stopping,
    /// 1015: something is wrong on this host; the journal has the details.
    Internal,
}

impl ErrorKind {
    /// The JSON-RPC error code.
    pub fn code(self) -> i32 {
        match self {
            ErrorKind::BadParameter => 1001,
            ErrorKind::BadMountPoint => 1002,
            ErrorKind::NoSuchOrigin => 1003,
            ErrorKind::NoSuchRevision => 1004,
            ErrorKind::NoSuchPath => 1005,
            ErrorKind::NoSuchWorkspace => 1006,
            ErrorKind::NotAuthorised => 1007,
            ErrorKind::LimitReached => 1008,
            ErrorKind::Busy => 1009,
            ErrorKind::UnsavedChanges => 1010,
            ErrorKind::WrongState => 1011,
            ErrorKind::OriginUnavailable => 1012,
            ErrorKind::ForeignNamespace => 1013,
            ErrorKind::Stopping => 1014,
            ErrorKind::Internal => 1015,
        }
    }
}

/// The `data` of an error.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ErrorData {
    /// What kind of failure.
    pub kind: ErrorKind,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The path it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The right that is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Finds the request in the journal (`SCORPIO_REQUEST_ID`).
    pub request_id: String,
    /// Whether the same call may work later.
    pub retryable: bool,
}
