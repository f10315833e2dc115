//! What differs between two configurations, and which of it a running daemon can take up.

use std::collections::BTreeSet;

use super::{
    Config, OriginConfig,
    keys::{KEYS, Key, ORIGIN_KEYS, OriginDraft},
};

/// Keys, and sections by their dot, that take effect without a restart. All others are built into what is running.
const LIVE: &[&str] = &[
    "daemon.log_level",
    "limits.workspaces_per_user",
    "limits.workspaces_per_host",
    "limits.max_ttl",
    "auth.",
    "origin.",
];

/// Whether a reload takes the key up; an origin's needs a further look, for workspaces may stand on it.
pub fn is_live(key: &str) -> bool {
    LIVE.iter().any(|live| if live.ends_with('.') { key.starts_with(live) } else { key == *live })
}

impl Config {
    /// Dotted keys whose values differ in `other`, in the order in which they are shown. An origin that only one of them
    /// has is named as a whole: `origin.NAME`.
    pub fn changes(&self, other: &Config) -> Vec<String> {
        let (mut one, mut two) = (self.clone(), other.clone());
        let differs = |key: &&Key<Config>| (key.slot)(&mut one).show() != (key.slot)(&mut two).show();
        let mut changed: Vec<String> = KEYS.iter().filter(differs).map(|key| key.name.to_owned()).collect();
        let names: BTreeSet<_> = self.origins.keys().chain(other.origins.keys()).collect();
        for name in names {
            match (self.origins.get(name), other.origins.get(name)) {
                (Some(one), Some(two)) => {
                    let keys = origin_changes(one, two);
                    changed.extend(keys.into_iter().map(|key| format!("origin.{name}.{key}")));
                }
                _ => changed.push(format!("origin.{name}")),
            }
        }
        changed
    }
}

fn origin_changes(one: &OriginConfig, other: &OriginConfig) -> Vec<&'static str> {
    let (mut one, mut other) = (OriginDraft::from(one), OriginDraft::from(other));
    let keys = ORIGIN_KEYS.iter();
    keys.filter(|key| (key.slot)(&mut one).show() != (key.slot)(&mut other).show())
        .map(|key| key.name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::SourceFile;
    use super::*;

    fn config(text: &str) -> Config {
        let file = SourceFile { path: "s.toml".into(), text: text.to_owned() };
        Config::load(&[file], []).unwrap()
    }

    #[test]
    fn what_differs_is_named_key_by_key_and_what_is_equal_is_not() {
        let one = config(
            "engine.workers = 2\nauth.mount = ['a']\n[origin.gone]\nkind = 'git'\npath = '/a'\n[origin.kept]\nkind = 'git'\npath = '/b'",
        );
        let two = config(
            "engine.workers = 3\nauth.mount = ['b']\nlimits.max_ttl = '90d'\n[origin.kept]\nkind = 'git'\npath = '/c'\nallow = ['a']\n[origin.new]\nkind = 'git'\npath = '/d'",
        );
        let changed = one.changes(&two);
        assert_eq!(
            changed,
            [
                "engine.workers",
                "auth.mount",
                "origin.gone",
                "origin.kept.path",
                "origin.kept.allow",
                "origin.new"
            ]
        );
        let at_the_next_start: Vec<_> = changed.iter().filter(|key| !is_live(key)).collect();
        assert_eq!(at_the_next_start, ["engine.workers"]);
        assert_eq!(one.changes(&one), Vec::<String>::new());
    }

    #[test]
    fn every_live_key_is_one_of_the_configuration() {
        for live in LIVE.iter().filter(|live| !live.ends_with('.')) {
            assert!(KEYS.iter().any(|key| key.name == *live), "{live}");
        }
    }
}
