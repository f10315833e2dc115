//! What callers are told. New members may come; a reader ignores those it does not know.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Nothing to say but that it is done.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Done {}

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

/// Whether a workspace stays as it is, whatever becomes of its origin's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PinState {
    /// Its directories are being listed; one that moves on before it is listed is lost to the workspace.
    Walking,
    /// All directories are listed.
    Yes,
    /// Some directories had moved on before they were listed: reading them fails.
    Broken,
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
    /// Uid that the owner's files have on disk, where ids on disk are others than those in the mount: it was given away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_uid: Option<u32>,
    /// Gid that they have on disk, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_gid: Option<u32>,
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
    /// Whether all its directories are listed; only of an origin that tells of its head alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<PinState>,
    /// Directories listed so far, each different one once; with `pinned`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned_trees: Option<u64>,
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

/// How much was written in a workspace.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct UsageView {
    /// Id of the workspace.
    pub id: String,
    /// Uid of its owner.
    pub uid: u32,
    /// Its owner's name, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where it is mounted, or was.
    pub mount_point: String,
    /// Bytes that its upper takes on disk.
    pub bytes: u64,
    /// Inodes that its upper takes: files, directories, deletions, and the upper itself.
    pub inodes: u64,
    /// Why there may be more than that; absent when all was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<String>,
}

/// A part of what uppers take.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct UsagePage {
    /// Ordered by id; as many as could be counted in the time of a call.
    pub workspaces: Vec<UsageView>,
    /// Pass as `after` for the next part; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// What all share; for root only, and with the first part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheUsage>,
}

/// What the object cache takes.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct CacheUsage {
    /// Bytes of blob content held.
    pub blob_bytes: u64,
    /// Bytes of the database in use.
    pub database_bytes: u64,
    /// How large the database may become: `cache.map_bytes`.
    pub database_limit_bytes: u64,
}

/// Whether users get new mounts on this host.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct DrainView {
    /// They do not.
    pub draining: bool,
    /// Since when, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Who wanted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_uid: Option<u32>,
    /// That user's name, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_user: Option<String>,
    /// Workspaces that are mounted now, or being mounted.
    pub mounted: u64,
}

/// What a watcher is told.
#[allow(clippy::large_enum_variant)] // nearly all of them are the large one
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
    /// `git` or `mega`.
    pub kind: String,
    /// Whose credential it is read with.
    pub read_with: ReadWith,
    /// Whether the caller has logged in to it; absent unless `read_with` is `user`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logged_in: Option<bool>,
}

/// Whose credential an origin is read with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadWith {
    /// The service's own, or none.
    Service,
    /// That of each user: `credential.store`.
    User,
}

/// A credential was kept.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StoredCredential {
    /// Whether the origin took it when it was tried. False when the origin could not be asked now.
    pub tried: bool,
}

/// Whether a credential was there to forget.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ForgottenCredential {
    /// There was one.
    pub forgotten: bool,
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
    /// Whether users get no new mounts: an administrator drains the host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// Since when, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained_since: Option<String>,
    /// What is wrong, in sentences; empty when nothing is.
    pub problems: Vec<String>,
}

/// How much the journal is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLevelView {
    /// What is logged now.
    pub level: String,
    /// What the configuration says.
    pub configured: String,
    /// When the configuration's holds again, RFC 3339; absent while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<String>,
}

/// Counters since the daemon started. Names end in their unit.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Counters {
    /// By session (`shared`, `owner-<uid>`).
    pub sessions: BTreeMap<String, SessionCounters>,
    /// By origin; only those the caller may mount.
    pub origins: BTreeMap<String, OriginCounters>,
    /// The object cache; for root only, because content that several origins have is counted once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheCounters>,
    /// The tree.
    pub tree: TreeCounters,
    /// The control socket.
    #[serde(default)]
    pub calls: CallCounters,
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
    /// Fetches that waited because their user had as many under way as may be.
    #[serde(default)]
    pub queued: u64,
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

/// Calls of the control socket.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct CallCounters {
    /// Being worked on now, of all users.
    pub under_way: u64,
    /// Refused because their user, or the host, had too many under way.
    pub turned_away: u64,
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
    /// May give workspaces to others.
    #[serde(default)]
    pub may_give: bool,
}
