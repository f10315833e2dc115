//! What holds where nobody says otherwise.

use std::{path::PathBuf, time::Duration};

use super::{
    AuthConfig, AuthMode, CacheConfig, EngineConfig, FetchConfig, Limits, LowerKind, MegaServer, Places,
    Principal, Replay,
};

use crate::types::RepoPath;

const KIB: u32 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DAY: Duration = Duration::from_secs(86_400);

impl Default for Places {
    fn default() -> Places {
        let state_dir = PathBuf::from("/var/lib/scorpio");
        Places {
            socket: "/run/scorpio/scorpio.sock".into(),
            upper_root: state_dir.join(Places::UPPERS),
            state_dir,
            cache_dir: "/var/cache/scorpio".into(),
            runtime_dir: "/run/scorpio/daemon".into(),
            log_level: "info".to_owned(),
        }
    }
}

impl Places {
    /// Where uppers lie below the state directory unless the configuration says otherwise.
    pub(super) const UPPERS: &'static str = "workspaces";
}

impl Default for CacheConfig {
    fn default() -> CacheConfig {
        CacheConfig { map_bytes: 64 * GIB, inline_max_bytes: 64 * KIB, node_map_bytes: 4 * GIB }
    }
}

impl Default for FetchConfig {
    fn default() -> FetchConfig {
        FetchConfig {
            deadline: Duration::from_secs(60),
            parked: 4096,
            parked_per_user: 1024,
            requests: 16,
            requests_per_user: 16,
            flight_bytes: 256 * MIB,
        }
    }
}

impl Default for EngineConfig {
    fn default() -> EngineConfig {
        EngineConfig {
            lower: LowerKind::Auto,
            replay: Replay::Auto,
            workers: 2,
            entry_ttl: Duration::MAX,
            mount_timeout: Duration::from_secs(30),
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            workspaces_per_user: 64,
            workspaces_per_host: 1024,
            connections_per_user: 32,
            connections: 512,
            calls_per_user: 64,
            max_ttl: 90 * DAY,
        }
    }
}

impl Default for AuthConfig {
    fn default() -> AuthConfig {
        AuthConfig {
            mode: AuthMode::Auto,
            mount: vec![Principal::Group("scorpio".to_owned())],
            manage_others: Vec::new(),
            give: Vec::new(),
        }
    }
}

impl MegaServer {
    /// Where a server shows repositories of their own unless it is configured otherwise.
    pub(super) fn imports() -> RepoPath {
        "/third-party".parse().expect("the constant is a path")
    }
}
