//! [`ConfigError`]: one sentence that names where, which key, why, and what would be right.

use std::{io, path::PathBuf};

use super::sources::Source;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that must be there cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is absurdly large.
    #[error("{}: is larger than {limit} bytes, which no configuration is", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// How large it may be.
        limit: u64,
    },
    /// A text is not TOML.
    #[error("{at}: is not valid TOML: {reason}")]
    Syntax {
        /// File and line.
        at: Source,
        /// What the parser said.
        reason: String,
    },
    /// A key, or its value, will not do.
    #[error("{at}: {key}: {reason}")]
    Key {
        /// File and line, or variable.
        at: Source,
        /// The key with its sections, joined by dots.
        key: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A variable begins like a setting but is none.
    #[error("${name}: {reason}")]
    Variable {
        /// The variable.
        name: String,
        /// What is wrong and what would be right.
        reason: String,
    },
}
