//! The control socket: JSON-RPC 2.0 over HTTP/1.1 and WebSocket on a Unix socket, and a streaming export.
//!
//! A connection's way: [`accept`] takes it in (or turns it away with 503), [`slots`] counts it against its user,
//! [`connection`] serves HTTP on it through a [`stream`] that cannot be held up for ever, [`http`] routes a request and
//! bounds its body, [`module`] finds the method, opens a span with a request id and parses the parameters, a handler
//! ([`workspaces`], [`usage`], [`drain`], [`credentials`], [`orphans`], [`host`], [`watch`]) authorises and delegates, [`failure`] turns what went wrong into
//! an error of the contract. [`export`] is the one route that is not JSON-RPC.
//!
//! - [`backends`]: what handlers call: workspaces, counters, export; traits with one implementation here
//!
//! Everything a caller can make us hold is bounded by [`RpcLimits`].

mod accept;
pub mod backends;
mod connection;
mod credentials;
mod drain;
pub mod export;
mod failure;
mod hangup;
mod host;
mod http;
mod meter;
mod module;
mod orphans;
mod requests;
mod slots;
mod stream;
mod usage;
mod views;
mod watch;
mod workspaces;

use std::{path::Path, sync::Arc, time::Duration};

pub use accept::serve;
pub use backends::{
    CredentialError, Credentials, ExportFormat, ExportPart, Exporter, Gauges, HostGauges, LogLevels,
    Workspaces,
};

use crate::{
    auth::{Authorizer, accounts::Accounts},
    config::{Limits, Live, Origins},
};

/// What the control socket offers its callers.
pub struct Services {
    /// Workspaces and orphans.
    pub workspaces: Arc<dyn Workspaces>,
    /// Counters, and what is wrong.
    pub gauges: Arc<dyn Gauges>,
    /// Writes a workspace's changes out; 404 on its route when there is none.
    pub exporter: Option<Arc<dyn Exporter>>,
    /// What users log in to origins with.
    pub credentials: Arc<dyn Credentials>,
    /// Origins and who may mount them.
    pub origins: Live<Origins>,
    /// Whether what is configured is wrong, and something else in force.
    pub configuration_is_wrong: Live<bool>,
    /// Who may do what.
    pub authorizer: Live<dyn Authorizer>,
    /// How much the journal is told.
    pub log_levels: Arc<dyn LogLevels>,
    /// Names of users and groups.
    pub accounts: Accounts,
}

/// What callers may take of the socket, and how long they may take over it.
#[derive(Clone, Copy, Debug)]
pub struct RpcLimits {
    /// Connections of all users.
    pub connections: usize,
    /// Connections of one user; root is exempt.
    pub connections_per_user: usize,
    /// Connections for root beyond the others: `doctor` must get through while others use up theirs.
    pub connections_for_root: usize,
    /// Calls being worked on at once, of one user. Beyond it a call is refused, not queued.
    pub calls_per_user: usize,
    /// Subscriptions on one connection.
    pub subscriptions_per_connection: u32,
    /// Calls in one batch.
    pub batch: u32,
    /// How long one call may count what was written in workspaces.
    pub counting_time: Duration,
    /// Bytes of a request's body.
    pub request_bytes: usize,
    /// Bytes of an answer.
    pub response_bytes: usize,
    /// Bytes of a request's head, and of what is read ahead.
    pub head_bytes: usize,
    /// How long a request's head may take; also how long a connection may be idle.
    pub head_timeout: Duration,
    /// How long a request's body may take.
    pub body_timeout: Duration,
    /// How long a caller may leave an answer unread.
    pub write_timeout: Duration,
    /// How often a WebSocket is pinged; one that has not answered for twice as long is closed.
    pub ping_interval: Duration,
    /// How long calls may go on once the server is to stop.
    pub stop_grace: Duration,
    /// Pause after a failed accept: out of descriptors, a listener stays ready and would spin.
    pub accept_pause: Duration,
}

impl Default for RpcLimits {
    fn default() -> RpcLimits {
        RpcLimits {
            connections: 512,
            connections_per_user: 32,
            connections_for_root: 16,
            calls_per_user: 64,
            subscriptions_per_connection: 8,
            batch: 16,
            // Some million files whose inodes are in memory. A client has patience for many times that, and waits for
            // calls of other users besides.
            counting_time: Duration::from_secs(5),
            request_bytes: 256 << 10,
            response_bytes: 4 << 20,
            head_bytes: 64 << 10,
            head_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(60),
            ping_interval: Duration::from_secs(30),
            stop_grace: Duration::from_secs(2),
            accept_pause: Duration::from_millis(100),
        }
    }
}

impl From<&Limits> for RpcLimits {
    fn from(limits: &Limits) -> RpcLimits {
        RpcLimits {
            connections: limits.connections,
            connections_per_user: limits.connections_per_user,
            calls_per_user: limits.calls_per_user,
            ..RpcLimits::default()
        }
    }
}

/// Binds the control socket at `path`, for everybody to connect to: callers are judged by their credentials, not by
/// the file's mode. A socket that a former daemon left behind is replaced; one that is being listened on is not.
pub fn bind(path: &Path) -> std::io::Result<tokio::net::UnixListener> {
    use std::os::unix::{fs::PermissionsExt, net::UnixStream};
    match UnixStream::connect(path) {
        Ok(_) => return Err(std::io::Error::from(std::io::ErrorKind::AddrInUse)),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
        Err(_) => {} // nothing there, or no socket: bind says what is wrong
    }
    let listener = tokio::net::UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}
