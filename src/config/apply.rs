//! Assignments, weakest first → [`Config`].

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

use super::{
    Config, ConfigError, Places, Source, SourceFile,
    document::{self, Assignment},
    environment,
    keys::{KEYS, Key, ORIGIN_KEYS, OriginDraft, Surroundings, sections},
    value::Found,
};
use crate::types::OriginName;

/// Every origin costs descriptors and a task; more than this many on one host is a generated mistake.
const MAX_ORIGINS: usize = 256;

impl Config {
    /// The configuration that `files`, weakest first, and `environment` make together.
    pub fn load(
        files: &[SourceFile],
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Config, ConfigError> {
        let variables = environment::read(environment)?;
        let mut draft = Draft::default();
        variables.defaults.iter().try_for_each(|assignment| draft.assign(assignment))?;
        for file in files {
            document::read(file)?.iter().try_for_each(|assignment| draft.assign(assignment))?;
        }
        variables.overrides.iter().try_for_each(|assignment| draft.assign(assignment))?;
        draft.finish(variables.credentials)
    }
}

#[derive(Default)]
struct Draft {
    config: Config,
    /// With the place that named each first.
    origins: BTreeMap<OriginName, (OriginDraft, Source)>,
}

impl Draft {
    fn assign(&mut self, assignment: &Assignment) -> Result<(), ConfigError> {
        let names: Vec<_> = assignment.path.iter().map(String::as_str).collect();
        match names.as_slice() {
            ["origin", name, key @ ..] => self.assign_origin(assignment, name, key),
            [section] => assign_section(assignment, section),
            [section, _] => self.assign_key(assignment, section),
            _ => Err(assignment.refuse("is no known key".to_owned())),
        }
    }

    fn assign_key(&mut self, assignment: &Assignment, section: &str) -> Result<(), ConfigError> {
        let name = assignment.key();
        let key = KEYS.iter().find(|key| key.name == name).ok_or_else(|| unknown_key(assignment, section))?;
        assignment.put(key, &mut self.config)?;
        self.config.set_by.insert(name, assignment.at.clone());
        Ok(())
    }

    fn assign_origin(
        &mut self,
        assignment: &Assignment,
        name: &str,
        key: &[&str],
    ) -> Result<(), ConfigError> {
        let name: OriginName = name.parse().map_err(|error| assignment.refuse(format!("{error}")))?;
        if name.user().is_some() {
            return Err(assignment.refuse("an origin's name has no `+`".to_owned()));
        }
        if self.origins.len() == MAX_ORIGINS && !self.origins.contains_key(&name) {
            return Err(assignment.refuse(format!("is one origin more than the {MAX_ORIGINS} allowed")));
        }
        let fresh = || (OriginDraft::new(), assignment.at.clone());
        let (draft, _) = self.origins.entry(name).or_insert_with(fresh);
        let [key] = key else {
            let is_table = assignment.value == Found::Table;
            return if is_table { Ok(()) } else { Err(assignment.expected_table()) };
        };
        let known = ORIGIN_KEYS.iter().find(|known| known.name == *key);
        let known = known.ok_or_else(|| {
            let names: Vec<_> = ORIGIN_KEYS.iter().map(|key| key.name).collect();
            assignment.refuse(format!("is no known key; an origin has {}", names.join(", ")))
        })?;
        assignment.put(known, draft)?;
        self.config.set_by.insert(assignment.key(), assignment.at.clone());
        Ok(())
    }

    fn finish(self, credentials: Option<PathBuf>) -> Result<Config, ConfigError> {
        let Draft { mut config, origins } = self;
        let around = Surroundings { credentials, inline_max_bytes: config.cache.inline_max_bytes };
        if !config.set_by.contains_key("daemon.upper_root") {
            config.daemon.upper_root = config.daemon.state_dir.join(Places::UPPERS);
        }
        for (name, (draft, at)) in origins {
            let origin = draft.finish(&around).map_err(|(key, reason)| ConfigError::Key {
                at,
                key: format!("origin.{name}.{key}"),
                reason,
            })?;
            config.origins.insert(name, origin);
        }
        Ok(config)
    }
}

fn assign_section(assignment: &Assignment, section: &str) -> Result<(), ConfigError> {
    let known = sections();
    if !known.contains(&section) {
        return Err(
            assignment.refuse(format!("is no known section; there are [{}.NAME]", known.join("], [")))
        );
    }
    if assignment.value == Found::Table { Ok(()) } else { Err(assignment.expected_table()) }
}

fn unknown_key(assignment: &Assignment, section: &str) -> ConfigError {
    let prefix = format!("{section}.");
    let names: Vec<_> = KEYS.iter().filter_map(|key| key.name.strip_prefix(&prefix)).collect();
    if names.is_empty() {
        let known = sections();
        return assignment.refuse(format!("is in no known section; there are [{}.NAME]", known.join("], [")));
    }
    assignment.refuse(format!("is no known key; [{section}] has {}", names.join(", ")))
}

impl Assignment {
    fn key(&self) -> String {
        self.path.join(".")
    }

    fn put<T>(&self, key: &Key<T>, to: &mut T) -> Result<(), ConfigError> {
        (key.slot)(to).put(&self.value).map_err(|reason| self.refuse(reason))
    }

    fn expected_table(&self) -> ConfigError {
        let key = self.key();
        let name = if key == "origin" { "origin.NAME" } else { &key };
        self.refuse(format!("expected a table [{name}], found {}", self.value))
    }

    fn refuse(&self, reason: String) -> ConfigError {
        let key: String = self.key().escape_debug().take(200).collect();
        ConfigError::Key { at: self.at.clone(), key, reason }
    }
}
