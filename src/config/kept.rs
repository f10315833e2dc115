//! The configuration in force, kept for a successor whose own will not do.
//!
//! ```text
//! RUNTIME_DIRECTORY/in-force.toml    from when a daemon comes up until one is stopped; loads to the same again
//! ```
//!
//! A restart must go unnoticed in the mounts, also when somebody mistyped a key: a daemon that does not start leaves nobody
//! to serve them. After a stop nothing is mounted, and a wrong configuration is refused.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use super::{Config, ConfigError, environment, sources};
use crate::sys::durable;

const NAME: &str = "in-force.toml";

/// Where one is kept.
#[derive(Clone, Debug)]
pub struct Kept {
    runtime_dir: PathBuf,
}

impl Kept {
    /// Of this service. Nothing where no service manager would start a successor.
    pub fn here() -> Option<Kept> {
        let runtime_dir = environment::runtime_directory().filter(|_| environment::has_service_manager())?;
        Some(Kept::within(&runtime_dir))
    }

    /// Of the service whose runtime directory that is.
    pub fn within(runtime_dir: &Path) -> Kept {
        Kept { runtime_dir: runtime_dir.to_owned() }
    }

    /// From now on a successor may go on with `config`.
    pub fn keep(&self, config: &Config) -> io::Result<()> {
        let dir = durable::open_dir(&self.runtime_dir)?;
        durable::write(dir.as_fd(), NAME, config.show().as_bytes())
    }

    /// What is kept. All of it is in the file, so that no variable for a setting, which may be the wrong one, is read again.
    pub fn load(&self) -> Option<Result<Config, ConfigError>> {
        self.load_with(std::env::vars_os())
    }

    fn load_with(
        &self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Option<Result<Config, ConfigError>> {
        let file = match sources::read_file(&self.runtime_dir.join(NAME)) {
            Err(ConfigError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return None;
            }
            read => read,
        };
        let credentials = environment
            .into_iter()
            .filter(|(name, _)| name == OsStr::new(environment::CREDENTIALS_DIRECTORY));
        Some(file.and_then(|file| Config::load(&[file], credentials)))
    }

    /// No successor is left anything.
    pub fn forget(&self) -> io::Result<()> {
        let dir = durable::open_dir(&self.runtime_dir)?;
        durable::remove(dir.as_fd(), NAME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SourceFile;

    fn config(text: &str) -> Config {
        let file = SourceFile { path: "/etc/s.toml".into(), text: text.to_owned() };
        Config::load(&[file], [("STATE_DIRECTORY".into(), "/srv/state".into())]).unwrap()
    }

    #[test]
    fn what_was_kept_is_there_until_it_is_forgotten_and_wrong_variables_do_not_matter() {
        let place = tempfile::tempdir().unwrap();
        let kept = Kept::within(place.path());
        assert!(kept.load().is_none());
        kept.keep(&config("limits.connections = 7")).unwrap();
        let origin = "origin.m = { kind = 'mega', url = 'https://m.test', credential = 'token' }";
        let in_force = config(&format!("limits.connections = 9\n{origin}"));
        kept.keep(&in_force).unwrap();
        let wrong = [("SCORPIO_LIMITS__CONNECTIONS", "many"), ("CREDENTIALS_DIRECTORY", "/run/credentials")];
        let loaded = kept.load_with(wrong.map(|(name, value)| (name.into(), value.into()))).unwrap().unwrap();
        assert_eq!((loaded.limits.connections, loaded.daemon.state_dir.clone()), (9, "/srv/state".into()));
        assert_eq!(loaded.origins.len(), 1);
        assert!(format!("{:?}", loaded.origins).contains("/run/credentials/token"), "{:?}", loaded.origins);
        kept.forget().unwrap();
        kept.forget().unwrap();
        assert!(kept.load().is_none());
    }

    #[test]
    fn half_of_it_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        let kept = Kept::within(place.path());
        std::fs::write(kept.runtime_dir.join(NAME), "[limits]\nconnections = ").unwrap();
        assert!(kept.load().unwrap().is_err());
    }
}
