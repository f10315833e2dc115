//! The configuration that is read at the start and at each reload, and what becomes of a wrong one.
//!
//! ```text
//! start    right → in force, kept        wrong → the kept one is in force, said; none kept → the daemon does not start
//! reload   right → taken up, kept        wrong → what was in force stays, said
//! stop     nothing is kept               a restart and a crash leave what is kept
//! ```

use std::{path::PathBuf, sync::Arc};

use crate::{
    config::{Config, ConfigError, Kept, Live},
    telemetry::event,
};

/// Where the configuration comes from, and whether what stands there is wrong.
pub struct Configuration {
    /// The file that the command line names.
    file: Option<PathBuf>,
    /// Nothing where there will be no successor.
    kept: Option<Kept>,
    /// Why what was read last is not in force.
    wrong: Option<ConfigError>,
    /// The same, for whoever asks how the daemon is.
    is_wrong: Live<bool>,
}

impl Configuration {
    /// What the daemon starts with.
    pub fn at_start(
        file: Option<PathBuf>,
        kept: Option<Kept>,
    ) -> Result<(Config, Configuration), ConfigError> {
        let read = Config::load_from_system(file.as_deref());
        let (config, wrong) = match read {
            Ok(config) => (config, None),
            Err(error) => match kept.as_ref().and_then(Kept::load) {
                // Of two that will not do, the one that somebody can mend is named.
                None | Some(Err(_)) => return Err(error),
                Some(Ok(config)) => (config, Some(error)),
            },
        };
        let is_wrong = Live::new(wrong.is_some());
        Ok((config, Configuration { file, kept, wrong, is_wrong }))
    }

    /// Whether what was read last is wrong, and something else in force; as it changes.
    pub fn is_wrong(&self) -> Live<bool> {
        self.is_wrong.clone()
    }

    /// The daemon has come up with `config`.
    pub fn came_up(&self, config: &Config) {
        match &self.wrong {
            Some(error) => tracing::error!(
                message_id = event::RELOAD_REFUSED,
                "the configuration is wrong, and the one that was in force before the restart stays so: {error}"
            ),
            None => self.keep(config),
        }
    }

    /// What is to be taken up; nothing if it is wrong.
    pub fn reload(&mut self) -> Option<Config> {
        let read = Config::load_from_system(self.file.as_deref());
        self.is_wrong.put(Arc::new(read.is_err()));
        match read {
            Ok(wanted) => {
                self.keep(&wanted);
                Some(wanted)
            }
            Err(error) => {
                tracing::error!(
                    message_id = event::RELOAD_REFUSED,
                    "the configuration is not reloaded, and what was in force stays so: {error}"
                );
                None
            }
        }
    }

    /// `status` with what somebody who restarts the daemon must know.
    pub fn status(&self, status: String) -> String {
        match *self.is_wrong.now() {
            false => status,
            true => format!("{status}; the configuration is wrong, and the one before it is in force"),
        }
    }

    /// The daemon is stopped, and leaves nothing that a successor would have to go on with.
    pub fn forget(&self) {
        let Some(kept) = &self.kept else { return };
        if let Err(error) = kept.forget() {
            tracing::warn!(%error, "the configuration that was in force stays in the runtime directory");
        }
    }

    fn keep(&self, config: &Config) {
        let Some(kept) = &self.kept else { return };
        if let Err(error) = kept.keep(config) {
            tracing::warn!(%error, "the configuration in force cannot be kept for the next start");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_wrong_configuration_is_passed_over_where_one_was_in_force_and_refused_elsewhere() {
        let place = tempfile::tempdir().unwrap();
        let (file, kept) = (place.path().join("s.toml"), Kept::within(place.path()));
        let start = |kept: Option<&Kept>| Configuration::at_start(Some(file.clone()), kept.cloned());
        let write = |text: &str| fs::write(&file, text).unwrap();
        write("limits.connections = 'many'");
        assert!(start(Some(&kept)).is_err());
        write("limits.connections = 7");
        let (config, first) = start(Some(&kept)).unwrap();
        first.came_up(&config);
        assert_eq!((config.limits.connections, first.status("up".to_owned())), (7, "up".to_owned()));

        write("limits.connections = 'many'");
        assert!(start(None).is_err());
        let (config, mut second) = start(Some(&kept)).unwrap();
        second.came_up(&config);
        assert_eq!((config.limits.connections, *second.is_wrong().now()), (7, true));
        assert_eq!(
            second.status("up".to_owned()),
            "up; the configuration is wrong, and the one before it is in force"
        );
        assert!(second.reload().is_none());
        write("limits.connections = 8");
        assert_eq!(second.reload().unwrap().limits.connections, 8);
        assert!(!*second.is_wrong().now());

        write("limits.connections = 'many'");
        assert_eq!(start(Some(&kept)).unwrap().0.limits.connections, 8);
        second.forget();
        assert!(start(Some(&kept)).is_err());
    }
}
