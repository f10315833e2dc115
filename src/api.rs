//! The contract of the control socket: methods, parameters, results, errors. Shared by server and clients.
//!
//! JSON-RPC 2.0; parameters are one object by name, unknown members are refused. Times are RFC 3339, durations seconds,
//! ids text.
//!
//! - [`params`]: what callers send
//! - [`views`]: what they are told
//! - [`errors`]: kinds of failure and their codes
//! - [`document`]: the same as an OpenRPC document

pub mod document;
pub mod errors;
pub mod params;
pub mod views;

pub use errors::{ErrorData, ErrorKind};
pub use params::{
    AdoptOrphan, CreateWorkspace, ForgetCredential, GiveWorkspace, ListWorkspaces, MeasureWorkspaces,
    MountWorkspace, Nothing, RemoveWorkspace, SetLogLevel, StoreCredential, UnmountWorkspace,
    WatchWorkspaces, WorkspaceRef,
};
pub use views::{
    CacheCounters, CacheUsage, CallCounters, Counters, Done, DrainView, ForgottenCredential, Health,
    LogLevelView, OriginCounters, OriginView, OrphanView, PinState, ReadWith, SessionCounters,
    StoredCredential, TreeCounters, UsagePage, UsageView, WhoAmI, WorkspaceEvent, WorkspacePage,
    WorkspaceState, WorkspaceView,
};

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
    /// [`super::GiveWorkspace`] → [`super::WorkspaceView`]; needs the right to give
    pub const WORKSPACE_GIVE: &str = "workspace.give";
    /// [`super::MeasureWorkspaces`] → [`super::UsagePage`]
    pub const WORKSPACE_USAGE: &str = "workspace.usage";
    /// [`super::WatchWorkspaces`] → subscription of [`super::WorkspaceEvent`]
    pub const WORKSPACE_WATCH: &str = "workspace.watch";
    /// Ends a [`WORKSPACE_WATCH`].
    pub const WORKSPACE_UNWATCH: &str = "workspace.unwatch";
    /// Name of the notifications of [`WORKSPACE_WATCH`].
    pub const WORKSPACE_EVENT: &str = "workspace.event";
    /// [`super::Nothing`] → list of [`super::OriginView`]
    pub const ORIGIN_LIST: &str = "origin.list";
    /// [`super::StoreCredential`] → [`super::StoredCredential`]
    pub const CREDENTIAL_STORE: &str = "credential.store";
    /// [`super::ForgetCredential`] → [`super::ForgottenCredential`]
    pub const CREDENTIAL_FORGET: &str = "credential.forget";
    /// [`super::Nothing`] → list of [`super::OrphanView`]; needs the right to manage others' workspaces
    pub const ORPHAN_LIST: &str = "orphan.list";
    /// [`super::AdoptOrphan`] → [`super::WorkspaceView`]; needs the right to manage others' workspaces
    pub const ORPHAN_ADOPT: &str = "orphan.adopt";
    /// [`super::WorkspaceRef`] → [`super::Done`]; needs the right to manage others' workspaces
    pub const ORPHAN_DISCARD: &str = "orphan.discard";
    /// [`super::Nothing`] → [`super::DrainView`]; needs the right to manage others' workspaces
    pub const DRAIN_BEGIN: &str = "drain.begin";
    /// [`super::Nothing`] → [`super::DrainView`]; needs the right to manage others' workspaces
    pub const DRAIN_END: &str = "drain.end";
    /// [`super::Nothing`] → [`super::Health`]
    pub const HEALTH: &str = "health";
    /// [`super::Nothing`] → [`super::Counters`]
    pub const COUNTERS: &str = "counters";
    /// [`super::SetLogLevel`] → [`super::LogLevelView`]; needs the right to administer the service
    pub const LOG_SET_LEVEL: &str = "log.set_level";
    /// [`super::Nothing`] → [`super::WhoAmI`]
    pub const WHO_AM_I: &str = "whoami";
    /// [`super::Nothing`] → the OpenRPC document of this contract
    pub const DISCOVER: &str = "rpc.discover";
}
