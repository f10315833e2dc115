//! Environment variables → [`Assignment`]s: `SCORPIO_SECTION__KEY`, `SCORPIO_ORIGIN__NAME__KEY`, and the directories
//! that systemd makes for a unit.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use super::{ConfigError, Source, document::Assignment, keys, value::Found};

const PREFIX: &str = "SCORPIO_";
const BETWEEN: &str = "__";

/// What systemd sets for `StateDirectory=` and the like, and the key it is the default of.
const FROM_SYSTEMD: [(&str, &str); 3] = [
    ("STATE_DIRECTORY", "state_dir"),
    ("CACHE_DIRECTORY", "cache_dir"),
    ("RUNTIME_DIRECTORY", "runtime_dir"),
];

/// What systemd sets where the unit has `LoadCredential=` and the like.
pub(super) const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// The variables that concern us, by strength.
#[derive(Debug, Default)]
pub(super) struct Variables {
    /// Weaker than any file.
    pub(super) defaults: Vec<Assignment>,
    /// Stronger than any file.
    pub(super) overrides: Vec<Assignment>,
    /// Where the credentials are that systemd hands to the service.
    pub(super) credentials: Option<PathBuf>,
}

/// `$RUNTIME_DIRECTORY`: the first of the directories that systemd keeps for us until the next boot.
pub(super) fn runtime_directory() -> Option<PathBuf> {
    let value = std::env::var_os("RUNTIME_DIRECTORY")?;
    let first = value.to_str()?.split(':').next().map(PathBuf::from);
    first.filter(|path| path.is_absolute())
}

/// `$JOURNAL_STREAM`: device and inode of the journal's end of our standard error, where systemd connected the two.
pub fn journal_stream() -> Option<OsString> {
    std::env::var_os("JOURNAL_STREAM")
}

/// Whether `$NOTIFY_SOCKET` is set: a service manager started us, listens, and may keep descriptors.
pub fn has_service_manager() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some_and(|value| !value.is_empty())
}

/// `$FDSTORE`: how many descriptors the service manager keeps for us (systemd 254 or newer says so).
pub fn descriptor_store_room() -> Option<usize> {
    std::env::var("FDSTORE").ok()?.parse().ok()
}

/// Whether `$NO_COLOR` is set and not empty: the user wants no colours from any program.
pub fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Picks and sorts the variables that concern us.
pub(super) fn read(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Variables, ConfigError> {
    let mut variables = Variables::default();
    for (name, value) in environment {
        let Some(name) = name.to_str() else { continue };
        if let Some((_, key)) = FROM_SYSTEMD.iter().find(|(variable, _)| *variable == name) {
            variables.defaults.push(directory(name, key, &value)?);
        } else if name == CREDENTIALS_DIRECTORY {
            variables.credentials = Some(PathBuf::from(value)).filter(|path| path.is_absolute());
        } else if let Some(path) = path(name)? {
            let value = Found::Untyped(text(name, &value)?);
            variables.overrides.push(Assignment { path, value, at: Source::Variable(name.to_owned()) });
        }
    }
    variables.overrides.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(variables)
}

/// systemd joins several directories by colons; the first is ours.
fn directory(name: &str, key: &str, value: &OsStr) -> Result<Assignment, ConfigError> {
    let first = text(name, value)?.split(':').next().unwrap_or_default().to_owned();
    Ok(Assignment {
        path: vec!["daemon".to_owned(), key.to_owned()],
        value: Found::Text(first),
        at: Source::Variable(name.to_owned()),
    })
}

fn text(name: &str, value: &OsStr) -> Result<String, ConfigError> {
    let refused = || ConfigError::Variable { name: name.to_owned(), reason: "is not UTF-8 text".to_owned() };
    value.to_str().map(str::to_owned).ok_or_else(refused)
}

/// The key that a variable names. `SCORPIO_SOCKET` and the like are other programs' business, but a section's name with
/// one underscore after it is a setting mistyped, and would be passed over in silence.
fn path(name: &str) -> Result<Option<Vec<String>>, ConfigError> {
    let Some(rest) = name.strip_prefix(PREFIX) else { return Ok(None) };
    let refused = |reason: String| Err(ConfigError::Variable { name: name.to_owned(), reason });
    if let Some((section, key)) = rest.split_once(BETWEEN) {
        if name.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return refused(format!("is not in capitals; write {}", name.to_ascii_uppercase()));
        }
        return Ok(Some(split(section, key)));
    }
    match rest.split_once('_') {
        Some((section, key)) if keys::sections().contains(&section.to_ascii_lowercase().as_str()) => {
            refused(format!("is no setting; two underscores part section and key: {PREFIX}{section}__{key}"))
        }
        _ => Ok(None),
    }
}

fn split(section: &str, key: &str) -> Vec<String> {
    let (section, key) = (section.to_ascii_lowercase(), key.to_ascii_lowercase());
    match key.rsplit_once(BETWEEN) {
        Some((name, key)) if section == "origin" => vec![section, name.to_owned(), key.to_owned()],
        _ => vec![section, key],
    }
}
