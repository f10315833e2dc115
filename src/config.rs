//! `scorpio.toml` → [`Config`]: defaults, file, drop-ins, `SCORPIO_…` environment; one error that names file, key and
//! reason. The only module that reads the environment.
//!
//! - `keys`: the one table of keys; parsing, [`Config::show`] and the reference in `docs/CONFIGURATION.md` follow it
//! - `defaults`: the value of every key that nobody sets
//! - `sources`: where settings come from, and which of them wins
//! - `document`, `environment`: a TOML text, the variables → assignments
//! - `slot`: what may stand at a key
//! - `value`: what was written, before a key says what it must be
//! - `apply`: assignments → configuration
//! - `kept`: the configuration in force, for a successor whose own will not do
//! - `show`: configuration → text; `manual`: the keys → a manual page
//! - `changes`: what differs, and what of it a running daemon takes up; `live`: where it puts that
//! - `error`: the one error

mod apply;
mod changes;
mod defaults;
mod document;
mod environment;
mod error;
mod kept;
mod keys;
mod live;
mod manual;
mod show;
mod slot;
mod sources;
mod value;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use crate::types::{OriginName, RepoPath};

pub use changes::is_live;
pub use environment::{descriptor_store_room, has_service_manager, journal_stream, no_color};
pub use error::ConfigError;
pub use kept::Kept;
pub use live::Live;
pub use manual::manual;
pub use show::reference;
pub use sources::{DEFAULT_FILE, Source, SourceFile};
pub use value::is_private;

/// Everything an administrator can decide. Every field has a default; `[origin.NAME]` tables are what a host needs.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `[daemon]`: where things are.
    pub daemon: Places,
    /// `[cache]`: the shared object cache.
    pub cache: CacheConfig,
    /// `[fetch]`: waiting for origins.
    pub fetch: FetchConfig,
    /// `[engine]`: how workspaces are mounted.
    pub engine: EngineConfig,
    /// `[limits]`: what users may take.
    pub limits: Limits,
    /// `[auth]`: who may do what.
    pub auth: AuthConfig,
    /// `[origin.NAME]`: where history lives.
    pub origins: Origins,
    /// Who set what: by dotted key; keys with their default are absent.
    pub set_by: BTreeMap<String, Source>,
}

/// Directories and the socket.
#[derive(Clone, Debug)]
pub struct Places {
    /// The control socket; ignored when systemd hands one over. `/run/scorpio/scorpio.sock`.
    pub socket: PathBuf,
    /// Durable: workspace records. `$STATE_DIRECTORY` or `/var/lib/scorpio`.
    pub state_dir: PathBuf,
    /// May be lost: objects. `$CACHE_DIRECTORY` or `/var/cache/scorpio`.
    pub cache_dir: PathBuf,
    /// Outlives the process, not the boot: node table, FUSE sessions. `$RUNTIME_DIRECTORY` or `/run/scorpio/daemon`.
    pub runtime_dir: PathBuf,
    /// Where uppers lie; `<state_dir>/workspaces` unless set. They deserve a file system of their own.
    pub upper_root: PathBuf,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a list of filters such as `info,scorpio::fusedev=debug`.
    pub log_level: String,
}

/// `[cache]`
#[derive(Clone, Copy, Debug)]
pub struct CacheConfig {
    /// Address space for the object database: 64 GiB.
    pub map_bytes: u64,
    /// Blobs up to this size live in the database: 64 KiB.
    pub inline_max_bytes: u32,
    /// Address space for the node table: 4 GiB.
    pub node_map_bytes: u64,
}

/// `[fetch]`
#[derive(Clone, Copy, Debug)]
pub struct FetchConfig {
    /// How long a process in a mount waits for an origin before it gets EIO: 60 s.
    pub deadline: Duration,
    /// Questions waiting at once, of all users: 4096.
    pub parked: usize,
    /// Of them, one user's: 1024.
    pub parked_per_user: usize,
    /// Requests to one origin at once: 16.
    pub requests: usize,
    /// What one user may have fetched from one origin at once; more of it waits: 16.
    pub requests_per_user: usize,
    /// Bytes of blobs in memory on their way to the cache: 256 MiB.
    pub flight_bytes: u64,
}

/// How the lower is owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LowerKind {
    /// Shared where the kernel can (≥ 6.12), else per owner.
    Auto,
    /// One session for all users, idmapped clones.
    Shared,
    /// One session per owner.
    PerOwner,
}

/// How the next process gets the requests that this one has read and not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// The kernel asks again where it can (≥ 6.9), else from slots.
    Auto,
    /// The kernel asks again; where it cannot, a restart interrupts.
    Resend,
    /// They are kept in a memory file.
    Slots,
}

/// `[engine]`
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// `auto`, `shared` or `per-owner`.
    pub lower: LowerKind,
    /// `auto`, `resend` or `slots`.
    pub replay: Replay,
    /// Threads reading the FUSE device, per session: 2.
    pub workers: usize,
    /// How long the kernel may trust names and attributes: for ever ([`Duration::MAX`]), unless a test shows that the
    /// counters count.
    pub entry_ttl: Duration,
    /// How long making or ending one mount may take: 30 s.
    pub mount_timeout: Duration,
}

/// `[limits]`
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Workspaces of one user: 64.
    pub workspaces_per_user: usize,
    /// Workspaces of all users: 1024.
    pub workspaces_per_host: usize,
    /// Connections to the socket of one user: 32 (root is exempt).
    pub connections_per_user: usize,
    /// Connections of all users: 512.
    pub connections: usize,
    /// Calls of one user being worked on at once: 64.
    pub calls_per_user: usize,
    /// Longest `--ttl`: 90 days.
    pub max_ttl: Duration,
}

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// polkit where it answers on the system bus, else `static`.
    Auto,
    /// polkit, and a refusal where it is absent (root excepted).
    Polkit,
    /// The lists below.
    Static,
}

/// `[auth]`. In the lists, `alice` is a user, `@devs` a group, `*` everybody.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// `auto`, `polkit` or `static`.
    pub mode: AuthMode,
    /// Static policy: who may have workspaces. `["@scorpio"]`.
    pub mount: Vec<Principal>,
    /// Static policy: who may manage the workspaces of others. `[]`; root always may.
    pub manage_others: Vec<Principal>,
    /// Static policy: who may give workspaces to other users. `[]`; root always may.
    pub give: Vec<Principal>,
}

/// A user, a group, or everybody, as written in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// `*`
    Everybody,
    /// `alice` or `1000`
    User(String),
    /// `@devs` or `@1000`
    Group(String),
}

/// Origins by name.
pub type Origins = BTreeMap<OriginName, OriginConfig>;

/// `[origin.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct OriginConfig {
    /// Who may mount it: `["*"]` unless set.
    pub allow: Vec<Principal>,
    /// What it is and where.
    pub kind: OriginKind,
}

/// Whose credential an origin is read with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadWith {
    /// The service's own, or none.
    Service,
    /// That of each user, kept by `scorpioctl login`.
    User,
}

impl OriginConfig {
    /// Whose credential it is read with.
    pub fn read_with(&self) -> ReadWith {
        match &self.kind {
            OriginKind::Git { .. } => ReadWith::Service,
            OriginKind::Mega(server) => server.read_with,
        }
    }
}

impl OriginKind {
    /// Whether such an origin tells of its head alone, so that what is mounted of it is to be listed soon.
    pub fn trees_pass(&self) -> bool {
        match self {
            OriginKind::Git { .. } => false,
            OriginKind::Mega(_) => true,
        }
    }

    /// As `kind` has it.
    pub fn name(&self) -> &'static str {
        match self {
            OriginKind::Git { .. } => "git",
            OriginKind::Mega(_) => "mega",
        }
    }
}

/// What an origin is.
#[derive(Clone, Debug, PartialEq)]
pub enum OriginKind {
    /// `kind = "git"`: a repository on this host.
    Git {
        /// `path`: a work tree, a bare repository or a linked work tree.
        path: PathBuf,
        /// `read_as`: the account whose rights it is read with; the owner of the directory unless set.
        read_as: Option<String>,
    },
    /// `kind = "mega"`: a Mega server.
    Mega(MegaServer),
}

/// A Mega server.
#[derive(Clone, Debug, PartialEq)]
pub struct MegaServer {
    /// `url`: `https://HOST[:PORT][/PREFIX]`.
    pub url: String,
    /// `credential`: the token it is asked with.
    pub credential: Option<CredentialFile>,
    /// `read_with`: whose credential it is asked with.
    pub read_with: ReadWith,
    /// `ca_file`: certificates that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// `proxy`: `http://HOST:PORT`.
    pub proxy: Option<String>,
    /// `imports`: the directory below which it shows repositories of their own: `/third-party`.
    pub imports: RepoPath,
    /// `cache.inline_max_bytes`, up to which a blob's content is kept when its size is asked for.
    pub small_blob_bytes: u32,
}

/// A credential that systemd hands to the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialFile {
    /// Its name, as in `LoadCredential=NAME:…`.
    pub name: String,
    /// Where it is: `$CREDENTIALS_DIRECTORY/NAME`; nowhere when systemd gave us none.
    pub path: Option<PathBuf>,
}
