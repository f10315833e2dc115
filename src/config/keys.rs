//! The one table of keys. Parsing, `config show` and the reference all follow it, so a key added here is complete.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use super::{
    AuthMode, Config, LowerKind, OriginConfig, OriginKind, Principal,
    value::{self, Found},
};

/// A key of `T`.
pub(super) struct Key<T> {
    /// With its section, joined by a dot; for an origin's keys the key alone.
    pub(super) name: &'static str,
    /// What it decides, as the end of a sentence.
    pub(super) meaning: &'static str,
    /// Where its value lives, and what it may be.
    pub(super) slot: fn(&mut T) -> Slot<'_>,
}

/// The place of a value, and what may be put there.
pub(super) enum Slot<'a> {
    Whole(&'a mut usize, RangeInclusive<usize>),
    Bytes(&'a mut u64, RangeInclusive<u64>),
    SmallBytes(&'a mut u32, RangeInclusive<u32>),
    Time(&'a mut Duration, RangeInclusive<Duration>),
    Place(&'a mut PathBuf),
    Filter(&'a mut String),
    Choice(&'a mut dyn Choose),
    Principals(&'a mut Vec<Principal>),
    Account(&'a mut Option<String>),
}

/// One of a few words.
pub(super) trait Choose {
    fn words(&self) -> &'static [&'static str];
    /// The word in force; `None` when none was chosen.
    fn word(&self) -> Option<&'static str>;
    /// `index` is one of [`Choose::words`].
    fn choose(&mut self, index: usize);
}

/// An origin while its table is being read.
#[derive(Clone, Debug)]
pub(super) struct OriginDraft {
    kind: DraftKind,
    pub(super) path: PathBuf,
    read_as: Option<String>,
    allow: Vec<Principal>,
}

#[derive(Clone, Copy, Debug)]
enum DraftKind {
    Missing,
    Git,
}

const KIB: u32 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

const fn seconds(range: RangeInclusive<u64>) -> RangeInclusive<Duration> {
    Duration::from_secs(*range.start())..=Duration::from_secs(*range.end())
}

/// The keys of the sections, in the order in which they are shown.
pub(super) const KEYS: &[Key<Config>] = &[
    Key {
        name: "daemon.socket",
        meaning: "The control socket; ignored when systemd hands one over.",
        slot: |config| Slot::Place(&mut config.daemon.socket),
    },
    Key {
        name: "daemon.state_dir",
        meaning: "Durable: the records of the workspaces. `$STATE_DIRECTORY` is its default under systemd.",
        slot: |config| Slot::Place(&mut config.daemon.state_dir),
    },
    Key {
        name: "daemon.cache_dir",
        meaning: "May be lost at any time: objects. `$CACHE_DIRECTORY` is its default under systemd.",
        slot: |config| Slot::Place(&mut config.daemon.cache_dir),
    },
    Key {
        name: "daemon.runtime_dir",
        meaning: "Outlives the daemon, not the boot. `$RUNTIME_DIRECTORY` is its default under systemd.",
        slot: |config| Slot::Place(&mut config.daemon.runtime_dir),
    },
    Key {
        name: "daemon.upper_root",
        meaning: "Where users' changes lie; `workspaces` in `daemon.state_dir` unless set. Deserves a file system of its own.",
        slot: |config| Slot::Place(&mut config.daemon.upper_root),
    },
    Key {
        name: "daemon.log_level",
        meaning: "How much the journal is told.",
        slot: |config| Slot::Filter(&mut config.daemon.log_level),
    },
    Key {
        name: "cache.map_bytes",
        meaning: "Address space, not memory, for the object database.",
        slot: |config| Slot::Bytes(&mut config.cache.map_bytes, 64 * MIB..=16 * TIB),
    },
    Key {
        name: "cache.inline_max_bytes",
        meaning: "Blobs up to this size live in the object database, larger ones in files.",
        slot: |config| Slot::SmallBytes(&mut config.cache.inline_max_bytes, 0..=1024 * KIB),
    },
    Key {
        name: "cache.node_map_bytes",
        meaning: "Address space, not memory, for the node table.",
        slot: |config| Slot::Bytes(&mut config.cache.node_map_bytes, 16 * MIB..=TIB),
    },
    Key {
        name: "fetch.deadline",
        meaning: "How long a process in a mount waits for an origin before it gets EIO.",
        slot: |config| Slot::Time(&mut config.fetch.deadline, seconds(1..=HOUR)),
    },
    Key {
        name: "fetch.parked",
        meaning: "Questions of all users that may wait for origins at once; beyond it: EIO.",
        slot: |config| Slot::Whole(&mut config.fetch.parked, 1..=65_536),
    },
    Key {
        name: "fetch.parked_per_user",
        meaning: "Questions of one user that may wait for origins at once; beyond it: EIO.",
        slot: |config| Slot::Whole(&mut config.fetch.parked_per_user, 1..=65_536),
    },
    Key {
        name: "fetch.requests",
        meaning: "Requests sent to one origin at once.",
        slot: |config| Slot::Whole(&mut config.fetch.requests, 1..=1024),
    },
    Key {
        name: "fetch.flight_bytes",
        meaning: "Memory for blobs on their way to the cache.",
        slot: |config| Slot::Bytes(&mut config.fetch.flight_bytes, MIB..=64 * GIB),
    },
    Key {
        name: "engine.lower",
        meaning: "One FUSE session for all users (kernel 6.12 and later), or one for each; `auto` takes what the kernel can.",
        slot: |config| Slot::Choice(&mut config.engine.lower),
    },
    Key {
        name: "engine.workers",
        meaning: "Threads that read the FUSE device, for each session.",
        slot: |config| Slot::Whole(&mut config.engine.workers, 1..=64),
    },
    Key {
        name: "engine.entry_ttl",
        meaning: "How long the kernel trusts names and attributes; less than for ever is for tests alone.",
        slot: |config| Slot::Time(&mut config.engine.entry_ttl, Duration::ZERO..=Duration::MAX),
    },
    Key {
        name: "engine.mount_timeout",
        meaning: "How long making or ending one mount may take.",
        slot: |config| Slot::Time(&mut config.engine.mount_timeout, seconds(1..=600)),
    },
    Key {
        name: "limits.workspaces_per_user",
        meaning: "Workspaces that one user may have.",
        slot: |config| Slot::Whole(&mut config.limits.workspaces_per_user, 1..=65_536),
    },
    Key {
        name: "limits.workspaces_per_host",
        meaning: "Workspaces of all users.",
        slot: |config| Slot::Whole(&mut config.limits.workspaces_per_host, 1..=65_536),
    },
    Key {
        name: "limits.connections_per_user",
        meaning: "Connections to the control socket that one user may hold; root is exempt.",
        slot: |config| Slot::Whole(&mut config.limits.connections_per_user, 1..=4096),
    },
    Key {
        name: "limits.connections",
        meaning: "Connections to the control socket of all users.",
        slot: |config| Slot::Whole(&mut config.limits.connections, 1..=65_536),
    },
    Key {
        name: "limits.max_ttl",
        meaning: "The longest `--ttl` that a user may ask for.",
        slot: |config| Slot::Time(&mut config.limits.max_ttl, seconds(60..=3650 * DAY)),
    },
    Key {
        name: "auth.mode",
        meaning: "Who decides: polkit, the two lists below, or `auto`: polkit where it answers, else the lists.",
        slot: |config| Slot::Choice(&mut config.auth.mode),
    },
    Key {
        name: "auth.mount",
        meaning: "Static policy: who may have workspaces.",
        slot: |config| Slot::Principals(&mut config.auth.mount),
    },
    Key {
        name: "auth.manage_others",
        meaning: "Static policy: who may see and end the workspaces of others; root always may.",
        slot: |config| Slot::Principals(&mut config.auth.manage_others),
    },
];

/// The keys of `[origin.NAME]`.
pub(super) const ORIGIN_KEYS: &[Key<OriginDraft>] = &[
    Key {
        name: "kind",
        meaning: "What the origin is; `git`: a SHA-1 repository on this host. Required.",
        slot: |origin| Slot::Choice(&mut origin.kind),
    },
    Key {
        name: "path",
        meaning: "A work tree, a linked work tree or a bare repository. Required.",
        slot: |origin| Slot::Place(&mut origin.path),
    },
    Key {
        name: "read_as",
        meaning: "The account with whose rights it is read; the owner of `path` unless set.",
        slot: |origin| Slot::Account(&mut origin.read_as),
    },
    Key { name: "allow", meaning: "Who may mount it.", slot: |origin| Slot::Principals(&mut origin.allow) },
];

/// Names of all sections.
pub(super) fn sections() -> Vec<&'static str> {
    let mut sections: Vec<_> = KEYS.iter().filter_map(|key| Some(key.name.split_once('.')?.0)).collect();
    sections.dedup();
    sections.push("origin");
    sections
}

impl OriginDraft {
    /// As at the head of its table.
    pub(super) fn new() -> OriginDraft {
        OriginDraft {
            kind: DraftKind::Missing,
            path: PathBuf::new(),
            read_as: None,
            allow: vec![Principal::Everybody],
        }
    }

    /// The whole origin, or the key that is missing and what it would be.
    pub(super) fn finish(self) -> Result<OriginConfig, (&'static str, &'static str)> {
        if self.path.as_os_str().is_empty() {
            return Err(("path", "is missing; expected the absolute path of a repository"));
        }
        let kind = match self.kind {
            DraftKind::Missing => return Err(("kind", "is missing; expected \"git\"")),
            DraftKind::Git => OriginKind::Git { path: self.path, read_as: self.read_as },
        };
        Ok(OriginConfig { allow: self.allow, kind })
    }
}

impl From<&OriginConfig> for OriginDraft {
    fn from(origin: &OriginConfig) -> OriginDraft {
        let OriginKind::Git { path, read_as } = &origin.kind;
        OriginDraft {
            kind: DraftKind::Git,
            path: path.clone(),
            read_as: read_as.clone(),
            allow: origin.allow.clone(),
        }
    }
}

impl Choose for DraftKind {
    fn words(&self) -> &'static [&'static str] {
        &["git"]
    }
    fn word(&self) -> Option<&'static str> {
        match self {
            DraftKind::Missing => None,
            DraftKind::Git => Some("git"),
        }
    }
    fn choose(&mut self, _index: usize) {
        *self = DraftKind::Git;
    }
}

impl Choose for LowerKind {
    fn words(&self) -> &'static [&'static str] {
        &["auto", "shared", "per-owner"]
    }
    fn word(&self) -> Option<&'static str> {
        Some(match self {
            LowerKind::Auto => "auto",
            LowerKind::Shared => "shared",
            LowerKind::PerOwner => "per-owner",
        })
    }
    fn choose(&mut self, index: usize) {
        *self = [LowerKind::Auto, LowerKind::Shared, LowerKind::PerOwner][index];
    }
}

impl Choose for AuthMode {
    fn words(&self) -> &'static [&'static str] {
        &["auto", "polkit", "static"]
    }
    fn word(&self) -> Option<&'static str> {
        Some(match self {
            AuthMode::Auto => "auto",
            AuthMode::Polkit => "polkit",
            AuthMode::Static => "static",
        })
    }
    fn choose(&mut self, index: usize) {
        *self = [AuthMode::Auto, AuthMode::Polkit, AuthMode::Static][index];
    }
}

impl Slot<'_> {
    /// Takes `found` if it is what the key expects; says why not otherwise.
    pub(super) fn put(self, found: &Found) -> Result<(), String> {
        let reason = format!("expected {}, found {found}", self.expects());
        self.take(found).ok_or(reason)
    }

    fn take(self, found: &Found) -> Option<()> {
        match self {
            Slot::Whole(to, range) => {
                let Found::Whole(number) = found.typed() else { return None };
                *to = usize::try_from(number).ok().filter(|number| range.contains(number))?;
            }
            Slot::Bytes(to, range) => *to = value::size(found).filter(|size| range.contains(size))?,
            Slot::SmallBytes(to, range) => {
                let size = u32::try_from(value::size(found)?).ok();
                *to = size.filter(|size| range.contains(size))?;
            }
            Slot::Time(to, range) => *to = value::duration(found).filter(|time| range.contains(time))?,
            Slot::Place(to) => *to = found.text().filter(|text| is_place(text))?.into(),
            Slot::Filter(to) => *to = found.text().filter(|text| is_filter(text))?,
            Slot::Choice(to) => {
                let word = found.text()?;
                to.choose(to.words().iter().position(|known| *known == word)?);
            }
            Slot::Principals(to) => {
                let Found::List(items) = found.typed() else { return None };
                let who = items.iter().map(|item| value::principal(&item.text()?));
                *to = who.collect::<Option<_>>()?;
            }
            Slot::Account(to) => *to = Some(found.text().filter(|text| value::is_account(text))?),
        }
        Some(())
    }

    /// What may stand here, as in "expected …".
    pub(super) fn expects(&self) -> String {
        match self {
            Slot::Whole(_, range) => format!("a whole number from {} to {}", range.start(), range.end()),
            Slot::Bytes(_, range) => expected_size(*range.start(), *range.end()),
            Slot::SmallBytes(_, range) => expected_size((*range.start()).into(), (*range.end()).into()),
            Slot::Time(_, range) => {
                let (least, most) =
                    (value::duration_text(*range.start()), value::duration_text(*range.end()));
                format!("a time from \"{least}\" to \"{most}\"")
            }
            Slot::Place(_) => "an absolute path without `..`".to_owned(),
            Slot::Filter(_) => "error, warn, info, debug, trace or filters such as \
                                \"info,scorpio::fusedev=debug\""
                .to_owned(),
            Slot::Choice(to) => {
                let words: Vec<_> = to.words().iter().map(|word| format!("\"{word}\"")).collect();
                words.join(" or ")
            }
            Slot::Principals(_) => "a list of users (\"alice\"), groups (\"@devs\") or \"*\"".to_owned(),
            Slot::Account(_) => "the name or number of an account".to_owned(),
        }
    }

    /// The value as it is written in TOML; `None` when there is none.
    pub(super) fn show(&self) -> Option<String> {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        match self {
            Slot::Whole(number, _) => Some(number.to_string()),
            Slot::Bytes(size, _) => Some(quoted(&value::size_text(**size))),
            Slot::SmallBytes(size, _) => Some(quoted(&value::size_text((**size).into()))),
            Slot::Time(time, _) => Some(quoted(&value::duration_text(**time))),
            Slot::Place(path) => {
                Some(path.display().to_string()).filter(|path| !path.is_empty()).map(|path| quoted(&path))
            }
            Slot::Filter(text) => Some(quoted(text)),
            Slot::Choice(choice) => choice.word().map(quoted),
            Slot::Principals(who) => {
                let who: Vec<_> = who.iter().map(|one| quoted(&one.to_string())).collect();
                Some(format!("[{}]", who.join(", ")))
            }
            Slot::Account(name) => name.as_deref().map(quoted),
        }
    }
}

fn expected_size(least: u64, most: u64) -> String {
    format!("a size from \"{}\" to \"{}\"", value::size_text(least), value::size_text(most))
}

/// A path that means the same wherever the daemon stands and whatever links are swapped above it.
fn is_place(text: &str) -> bool {
    let up = text.split('/').any(|name| name == "..");
    text.starts_with('/') && !up && !text.contains(['\0', '\n'])
}

fn is_filter(text: &str) -> bool {
    !text.trim().is_empty() && tracing_subscriber::EnvFilter::try_new(text).is_ok()
}
