//! The one table of keys. Parsing, `config show` and the reference all follow it, so a key added here is complete.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use super::{
    AuthMode, Config, CredentialFile, LowerKind, MegaServer, OriginConfig, OriginKind, Principal, ReadWith,
    Replay,
    slot::{Choose, Slot},
    value,
};
use crate::types::RepoPath;

/// A key of `T`.
pub(super) struct Key<T> {
    /// With its section, joined by a dot; for an origin's keys the key alone.
    pub(super) name: &'static str,
    /// What it decides, as the end of a sentence.
    pub(super) meaning: &'static str,
    /// Where its value lives, and what it may be.
    pub(super) slot: fn(&mut T) -> Slot<'_>,
}

/// An origin while its table is being read.
#[derive(Clone, Debug)]
pub(super) struct OriginDraft {
    kind: DraftKind,
    path: Option<PathBuf>,
    read_as: Option<String>,
    url: Option<String>,
    credential: Option<String>,
    read_with: Option<ReadWith>,
    ca_file: Option<PathBuf>,
    proxy: Option<String>,
    imports: Option<RepoPath>,
    allow: Vec<Principal>,
}

/// What an origin takes from elsewhere than its table.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    /// `$CREDENTIALS_DIRECTORY`.
    pub(super) credentials: Option<PathBuf>,
    /// `cache.inline_max_bytes`.
    pub(super) inline_max_bytes: u32,
}

/// The keys of an origin's kind that others do not have, and what it is called.
const GIT: (&str, &[&str]) = ("git", &["path", "read_as"]);
const MEGA: (&str, &[&str]) = ("mega", &["url", "credential", "read_with", "ca_file", "proxy", "imports"]);

#[derive(Clone, Copy, Debug)]
enum DraftKind {
    Missing,
    Git,
    Mega,
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
        name: "fetch.requests_per_user",
        meaning: "Of them, what the questions of one user may have under way; that user's further questions wait, and those of others go past them.",
        slot: |config| Slot::Whole(&mut config.fetch.requests_per_user, 1..=1024),
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
        name: "engine.replay",
        meaning: "How unanswered requests outlive the daemon: the kernel asks again (6.9 and later), or they are kept in memory that systemd holds; `auto` takes what the kernel can.",
        slot: |config| Slot::Choice(&mut config.engine.replay),
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
        name: "limits.calls_per_user",
        meaning: "Calls of one user that are worked on at once; one more is refused.",
        slot: |config| Slot::Whole(&mut config.limits.calls_per_user, 1..=4096),
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
    Key {
        name: "auth.give",
        meaning: "Static policy: who may give workspaces of their own to other users; root always may.",
        slot: |config| Slot::Principals(&mut config.auth.give),
    },
];

/// The keys of `[origin.NAME]`.
pub(super) const ORIGIN_KEYS: &[Key<OriginDraft>] = &[
    Key {
        name: "kind",
        meaning: "What the origin is; `git`: a SHA-1 repository on this host; `mega`: a Mega server. Required.",
        slot: |origin| Slot::Choice(&mut origin.kind),
    },
    Key {
        name: "path",
        meaning: "`git`: a work tree, a linked work tree or a bare repository. Required.",
        slot: |origin| Slot::File(&mut origin.path),
    },
    Key {
        name: "read_as",
        meaning: "`git`: the account with whose rights it is read; the owner of `path` unless set.",
        slot: |origin| Slot::Account(&mut origin.read_as),
    },
    Key {
        name: "url",
        meaning: "`mega`: where the server is. Required.",
        slot: |origin| Slot::Server(&mut origin.url),
    },
    Key {
        name: "credential",
        meaning: "`mega`: the credential of the service (`LoadCredential=`) that holds the token it is asked with; none is sent unless set. Wants an https:// URL, or a server on this host.",
        slot: |origin| Slot::Credential(&mut origin.credential),
    },
    Key {
        name: "read_with",
        meaning: "`mega`: whose credential it is asked with: that of the `service`, or that of each `user` (`scorpioctl login NAME`).",
        slot: |origin| Slot::Choice(&mut origin.read_with),
    },
    Key {
        name: "ca_file",
        meaning: "`mega`: certificates (PEM) that are trusted instead of the system's.",
        slot: |origin| Slot::File(&mut origin.ca_file),
    },
    Key {
        name: "proxy",
        meaning: "`mega`: the proxy to ask through; variables such as `$https_proxy` are not heeded.",
        slot: |origin| Slot::Server(&mut origin.proxy),
    },
    Key {
        name: "imports",
        meaning: "`mega`: the directory below which the server shows repositories of their own; `/third-party` unless set.",
        slot: |origin| Slot::Inside(&mut origin.imports),
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
            path: None,
            read_as: None,
            url: None,
            credential: None,
            read_with: None,
            ca_file: None,
            proxy: None,
            imports: None,
            allow: vec![Principal::Everybody],
        }
    }

    /// The whole origin, or the key that is missing or too much and why.
    pub(super) fn finish(mut self, around: &Surroundings) -> Result<OriginConfig, (&'static str, String)> {
        let kind = match self.kind {
            DraftKind::Missing => {
                return Err(("kind", "is missing; expected \"git\" or \"mega\"".to_owned()));
            }
            DraftKind::Git => {
                self.refuse_keys_of(MEGA, GIT.0)?;
                let path = self.path.ok_or_else(|| {
                    ("path", "is missing; expected the absolute path of a repository".to_owned())
                })?;
                OriginKind::Git { path, read_as: self.read_as }
            }
            DraftKind::Mega => {
                self.refuse_keys_of(GIT, MEGA.0)?;
                let read_with = self.read_with.unwrap_or(ReadWith::Service);
                if read_with == ReadWith::User && self.credential.is_some() {
                    let reason = "is the service's, and `read_with` is \"user\": leave one of them out";
                    return Err(("credential", reason.to_owned()));
                }
                let missing = || ("url", "is missing; expected the URL of a Mega server".to_owned());
                let is_private = self
                    .url
                    .as_ref()
                    .is_none_or(|url| url::Url::parse(url).is_ok_and(|url| value::is_private(&url)));
                if self.credential.is_some() && !is_private {
                    let reason = "would cross the network in the clear: `url` is not https";
                    return Err(("credential", reason.to_owned()));
                }
                OriginKind::Mega(MegaServer {
                    url: self.url.ok_or_else(missing)?,
                    credential: self.credential.map(|name| around.credential(name)),
                    read_with,
                    ca_file: self.ca_file,
                    proxy: self.proxy,
                    imports: self.imports.unwrap_or_else(MegaServer::imports),
                    small_blob_bytes: around.inline_max_bytes,
                })
            }
        };
        Ok(OriginConfig { allow: self.allow, kind })
    }

    /// A key without effect would pass for a setting.
    fn refuse_keys_of(
        &mut self,
        (other, keys): (&'static str, &'static [&'static str]),
        own: &str,
    ) -> Result<(), (&'static str, String)> {
        let set =
            ORIGIN_KEYS.iter().find(|key| keys.contains(&key.name) && (key.slot)(self).show().is_some());
        match set {
            Some(key) => {
                Err((key.name, format!("is a key of kind \"{other}\", and the origin is \"{own}\"")))
            }
            None => Ok(()),
        }
    }
}

impl Surroundings {
    fn credential(&self, name: String) -> CredentialFile {
        let path = self.credentials.as_ref().map(|directory| directory.join(&name));
        CredentialFile { name, path }
    }
}

impl From<&OriginConfig> for OriginDraft {
    fn from(origin: &OriginConfig) -> OriginDraft {
        let draft = OriginDraft { allow: origin.allow.clone(), ..OriginDraft::new() };
        match origin.kind.clone() {
            OriginKind::Git { path, read_as } => {
                OriginDraft { kind: DraftKind::Git, path: Some(path), read_as, ..draft }
            }
            OriginKind::Mega(server) => OriginDraft {
                kind: DraftKind::Mega,
                url: Some(server.url),
                credential: server.credential.map(|credential| credential.name),
                read_with: Some(server.read_with),
                ca_file: server.ca_file,
                proxy: server.proxy,
                imports: Some(server.imports),
                ..draft
            },
        }
    }
}

impl Choose for DraftKind {
    fn words(&self) -> &'static [&'static str] {
        &[GIT.0, MEGA.0]
    }
    fn word(&self) -> Option<&'static str> {
        match self {
            DraftKind::Missing => None,
            DraftKind::Git => Some(GIT.0),
            DraftKind::Mega => Some(MEGA.0),
        }
    }
    fn choose(&mut self, index: usize) {
        *self = [DraftKind::Git, DraftKind::Mega][index];
    }
}

impl Choose for Option<ReadWith> {
    fn words(&self) -> &'static [&'static str] {
        &["service", "user"]
    }
    fn word(&self) -> Option<&'static str> {
        self.map(|read_with| match read_with {
            ReadWith::Service => "service",
            ReadWith::User => "user",
        })
    }
    fn choose(&mut self, index: usize) {
        *self = Some([ReadWith::Service, ReadWith::User][index]);
    }
}

impl Choose for Replay {
    fn words(&self) -> &'static [&'static str] {
        &["auto", "resend", "slots"]
    }
    fn word(&self) -> Option<&'static str> {
        Some(match self {
            Replay::Auto => "auto",
            Replay::Resend => "resend",
            Replay::Slots => "slots",
        })
    }
    fn choose(&mut self, index: usize) {
        *self = [Replay::Auto, Replay::Resend, Replay::Slots][index];
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
