//! What callers send. Every member has a name, and one that is not known is refused.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// No parameters.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

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

/// Hand a workspace over to another user.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GiveWorkspace {
    /// Its id.
    pub id: String,
    /// Who gets it: the name of an account of this host, or its uid as text.
    pub user: String,
}

/// Whose uppers to measure.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MeasureWorkspaces {
    /// Only this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Those of all users; needs the right to manage others' workspaces.
    #[serde(default)]
    pub all: bool,
    /// Only ids after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most so many: 1 to 200, 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// What to watch.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WatchWorkspaces {
    /// Only this one: the subscription ends when it is gone. All of the caller's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// Keep what the caller reads an origin with.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreCredential {
    /// Name of an origin.
    pub origin: String,
    /// The token: printable ASCII without spaces, at most 8192 bytes. Never shown again.
    pub secret: String,
}

impl std::fmt::Debug for StoreCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreCredential").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// Forget what the caller read an origin with.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForgetCredential {
    /// Name of an origin.
    pub origin: String,
}

/// Have the journal told more, or less, for a while.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetLogLevel {
    /// `error`, `warn`, `info`, `debug`, `trace`, or filters such as `info,scorpio::fusedev=debug`; the configuration's
    /// again when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// For so many seconds, then the configuration's again: 1 to 86400, 600 when absent. Only with a level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_s: Option<u64>,
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
