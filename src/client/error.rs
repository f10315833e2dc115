//! [`ClientError`]: the daemon cannot be reached, does not speak our language, or says no.

use std::{io, path::PathBuf, time::Duration};

use crate::api::{ErrorData, ErrorKind};

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no socket: the service is not installed or its socket unit is not active.
    #[error("there is no socket {}", socket.display())]
    NoSocket {
        /// Where it should be.
        socket: PathBuf,
    },
    /// The socket is there and nobody listens.
    #[error("nobody listens on {}", socket.display())]
    NotListening {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket is not for this user.
    #[error("you may not connect to {}", socket.display())]
    NotPermitted {
        /// The socket.
        socket: PathBuf,
    },
    /// Connecting failed in another way.
    #[error("cannot connect to {}: {source}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Too many connections.
    #[error("the daemon has too many connections")]
    TooManyConnections,
    /// The connection broke off.
    #[error("the connection to the daemon was lost: {reason}")]
    Lost {
        /// How.
        reason: String,
    },
    /// No answer in time.
    #[error("`{what}` was not answered within {}", humantime::format_duration(*after))]
    TimedOut {
        /// What was asked.
        what: String,
        /// How long was waited.
        after: Duration,
    },
    /// The other end does not speak this contract.
    #[error("the daemon is not understood: {reason}")]
    Protocol {
        /// What it said.
        reason: String,
    },
    /// The daemon says no.
    #[error("{message}")]
    Refused {
        /// The code.
        code: i32,
        /// The sentence.
        message: String,
        /// The rest, where the error is one of the contract.
        data: Option<Box<ErrorData>>,
    },
}

impl ClientError {
    /// Whether nobody could be talked to at all.
    pub fn is_unreachable(&self) -> bool {
        match self {
            ClientError::NoSocket { .. }
            | ClientError::NotListening { .. }
            | ClientError::NotPermitted { .. }
            | ClientError::Connect { .. }
            | ClientError::TooManyConnections
            | ClientError::Lost { .. }
            | ClientError::TimedOut { .. } => true,
            ClientError::Protocol { .. } | ClientError::Refused { .. } => false,
        }
    }

    /// The kind of failure, when the daemon named one.
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            ClientError::Refused { data: Some(data), .. } => Some(data.kind),
            _ => None,
        }
    }

    pub(super) fn connecting(socket: PathBuf, source: io::Error) -> ClientError {
        match source.kind() {
            io::ErrorKind::NotFound => ClientError::NoSocket { socket },
            io::ErrorKind::ConnectionRefused => ClientError::NotListening { socket },
            io::ErrorKind::PermissionDenied => ClientError::NotPermitted { socket },
            _ => ClientError::Connect { socket, source },
        }
    }

    pub(super) fn lost(error: &(dyn std::error::Error + 'static)) -> ClientError {
        // hyper says "connection error" and keeps what happened in its source.
        let reason = error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
        ClientError::Lost { reason }
    }
}
