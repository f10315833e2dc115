//! One row per bad configuration, with the exact sentence an administrator gets; and what wins over what.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use scorpio::config::{AuthMode, Config, ConfigError, LowerKind, OriginKind, Principal, Source, SourceFile};

fn file(text: &str) -> Vec<SourceFile> {
    vec![SourceFile { path: "/etc/scorpio/scorpio.toml".into(), text: text.to_owned() }]
}

fn environment(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
}

fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::load(&file(text), environment(variables))
}

#[test]
fn each_bad_file_gets_one_sentence_with_line_key_and_what_would_be_right() {
    let many_origins: String = (0..257).map(|n| format!("[origin.o{n}]\n")).collect();
    let rows: &[(&str, &str)] = &[
        // not TOML
        ("[limits", ":1: is not valid TOML: unclosed table, expected `]`"),
        ("\n\na = = 1", ":3: is not valid TOML: extra `=`, expected nothing"),
        ("[limits]\nconnections = 1\nconnections = 2", ":3: is not valid TOML: duplicate key"),
        // unknown names
        (
            "[limit]",
            ":1: limit: is no known section; there are [daemon], [cache], [fetch], [engine], [limits], [auth], [origin.NAME]",
        ),
        (
            "x = 1",
            ":1: x: is no known section; there are [daemon], [cache], [fetch], [engine], [limits], [auth], [origin.NAME]",
        ),
        (
            "[auth]\nallow = []",
            ":2: auth.allow: is no known key; [auth] has mode, mount, manage_others, give",
        ),
        (
            "[origin.linux]\nhost = 'x'",
            ":2: origin.linux.host: is no known key; an origin has kind, path, read_as, url, credential, read_with, ca_file, proxy, imports, allow",
        ),
        (
            "[daemon.socket]\npath = '/x'",
            ":1: daemon.socket: expected an absolute path without `..`, found a table",
        ),
        // tables
        ("limits = 3", ":1: limits: expected a table [limits], found 3"),
        ("origin = 'linux'", ":1: origin: expected a table [origin.NAME], found \"linux\""),
        ("[[origin]]\nname = 'linux'", ":1: origin: expected a table [origin.NAME], found [a table]"),
        ("[origin]\nlinux = '/srv'", ":2: origin.linux: expected a table [origin.linux], found \"/srv\""),
        // whole numbers
        (
            "[daemon]\n[limits]\n\n\n\n\nworkspaces_per_user = \"many\"",
            ":7: limits.workspaces_per_user: expected a whole number from 1 to 65536, found \"many\"",
        ),
        (
            "limits.workspaces_per_user = 0",
            ":1: limits.workspaces_per_user: expected a whole number from 1 to 65536, found 0",
        ),
        (
            "limits.workspaces_per_host = 65537",
            ":1: limits.workspaces_per_host: expected a whole number from 1 to 65536, found 65537",
        ),
        (
            "limits.connections_per_user = 4097",
            ":1: limits.connections_per_user: expected a whole number from 1 to 4096, found 4097",
        ),
        (
            "limits.connections = -1",
            ":1: limits.connections: expected a whole number from 1 to 65536, found -1",
        ),
        ("fetch.parked = 0", ":1: fetch.parked: expected a whole number from 1 to 65536, found 0"),
        (
            "fetch.requests_per_user = 0",
            ":1: fetch.requests_per_user: expected a whole number from 1 to 1024, found 0",
        ),
        (
            "limits.calls_per_user = 4097",
            ":1: limits.calls_per_user: expected a whole number from 1 to 4096, found 4097",
        ),
        (
            "fetch.parked_per_user = 65537",
            ":1: fetch.parked_per_user: expected a whole number from 1 to 65536, found 65537",
        ),
        ("fetch.requests = 1025", ":1: fetch.requests: expected a whole number from 1 to 1024, found 1025"),
        ("engine.workers = 65", ":1: engine.workers: expected a whole number from 1 to 64, found 65"),
        ("engine.workers = 2.5", ":1: engine.workers: expected a whole number from 1 to 64, found 2.5"),
        ("engine.workers = true", ":1: engine.workers: expected a whole number from 1 to 64, found true"),
        (
            "engine.workers = 99999999999999999999999999999999999999999999",
            ":1: engine.workers: expected a whole number from 1 to 64, found 99999999999999999999999999999999999999999999",
        ),
        // sizes
        (
            "cache.map_bytes = 4096",
            ":1: cache.map_bytes: expected a size from \"64MiB\" to \"16TiB\", found 4096",
        ),
        (
            "cache.map_bytes = \"17TiB\"",
            ":1: cache.map_bytes: expected a size from \"64MiB\" to \"16TiB\", found \"17TiB\"",
        ),
        (
            "cache.map_bytes = \"64GB\"",
            ":1: cache.map_bytes: expected a size from \"64MiB\" to \"16TiB\", found \"64GB\"",
        ),
        (
            "cache.inline_max_bytes = \"2MiB\"",
            ":1: cache.inline_max_bytes: expected a size from \"0B\" to \"1MiB\", found \"2MiB\"",
        ),
        (
            "cache.node_map_bytes = 1",
            ":1: cache.node_map_bytes: expected a size from \"16MiB\" to \"1TiB\", found 1",
        ),
        (
            "fetch.flight_bytes = 0",
            ":1: fetch.flight_bytes: expected a size from \"1MiB\" to \"64GiB\", found 0",
        ),
        // times
        ("fetch.deadline = 60", ":1: fetch.deadline: expected a time from \"1s\" to \"1h\", found 60"),
        (
            "fetch.deadline = \"2h\"",
            ":1: fetch.deadline: expected a time from \"1s\" to \"1h\", found \"2h\"",
        ),
        (
            "fetch.deadline = \"forever\"",
            ":1: fetch.deadline: expected a time from \"1s\" to \"1h\", found \"forever\"",
        ),
        (
            "engine.entry_ttl = \"x\"",
            ":1: engine.entry_ttl: expected a time from \"0s\" to \"forever\", found \"x\"",
        ),
        (
            "engine.mount_timeout = \"0s\"",
            ":1: engine.mount_timeout: expected a time from \"1s\" to \"10m\", found \"0s\"",
        ),
        (
            "limits.max_ttl = \"1s\"",
            ":1: limits.max_ttl: expected a time from \"1m\" to \"3650d\", found \"1s\"",
        ),
        // words
        (
            "engine.lower = \"owner\"",
            ":1: engine.lower: expected \"auto\" or \"shared\" or \"per-owner\", found \"owner\"",
        ),
        (
            "auth.mode = \"none\"",
            ":1: auth.mode: expected \"auto\" or \"polkit\" or \"static\", found \"none\"",
        ),
        ("[origin.x]\nkind = \"svn\"", ":2: origin.x.kind: expected \"git\" or \"mega\", found \"svn\""),
        // paths
        (
            "daemon.socket = \"s.sock\"",
            ":1: daemon.socket: expected an absolute path without `..`, found \"s.sock\"",
        ),
        (
            "daemon.state_dir = \"\"",
            ":1: daemon.state_dir: expected an absolute path without `..`, found \"\"",
        ),
        (
            "daemon.cache_dir = \"/var/../etc\"",
            ":1: daemon.cache_dir: expected an absolute path without `..`, found \"/var/../etc\"",
        ),
        (
            "daemon.runtime_dir = \"/a\\u0000b\"",
            ":1: daemon.runtime_dir: expected an absolute path without `..`, found \"/a\\0b\"",
        ),
        ("daemon.upper_root = 1", ":1: daemon.upper_root: expected an absolute path without `..`, found 1"),
        (
            "[origin.x]\nkind = \"git\"\npath = \"src\"",
            ":3: origin.x.path: expected an absolute path without `..`, found \"src\"",
        ),
        // who
        (
            "auth.mount = \"alice\"",
            ":1: auth.mount: expected a list of users (\"alice\"), groups (\"@devs\") or \"*\", found \"alice\"",
        ),
        (
            "auth.manage_others = [\"a b\"]",
            ":1: auth.manage_others: expected a list of users (\"alice\"), groups (\"@devs\") or \"*\", found [\"a b\"]",
        ),
        (
            "[origin.x]\nallow = [1000]",
            ":2: origin.x.allow: expected a list of users (\"alice\"), groups (\"@devs\") or \"*\", found [1000]",
        ),
        (
            "[origin.x]\nread_as = \"\"",
            ":2: origin.x.read_as: expected the name or number of an account, found \"\"",
        ),
        // level
        (
            "daemon.log_level = \"a=b=c\"",
            ":1: daemon.log_level: expected error, warn, info, debug, trace or filters such as \"info,scorpio::fusedev=debug\", found \"a=b=c\"",
        ),
        // origins
        (
            "\n[origin.x]\nkind = \"git\"",
            ":2: origin.x.path: is missing; expected the absolute path of a repository",
        ),
        ("[origin.x]\npath = \"/srv/x\"", ":1: origin.x.kind: is missing; expected \"git\" or \"mega\""),
        ("[origin.x]\nkind = \"mega\"", ":1: origin.x.url: is missing; expected the URL of a Mega server"),
        (
            "[origin.x]\nkind = \"mega\"\nurl = \"https://h\"\npath = \"/srv/x\"",
            ":1: origin.x.path: is a key of kind \"git\", and the origin is \"mega\"",
        ),
        (
            "[origin.x]\nkind = \"mega\"\nurl = \"https://h\"\nread_as = \"git\"",
            ":1: origin.x.read_as: is a key of kind \"git\", and the origin is \"mega\"",
        ),
        (
            "[origin.x]\nkind = \"git\"\npath = \"/srv/x\"\ncredential = \"t\"",
            ":1: origin.x.credential: is a key of kind \"mega\", and the origin is \"git\"",
        ),
        (
            "[origin.x]\nkind = \"git\"\npath = \"/srv/x\"\nimports = \"/t\"",
            ":1: origin.x.imports: is a key of kind \"mega\", and the origin is \"git\"",
        ),
        (
            "[origin.x]\nkind = \"mega\"\nurl = \"http://h\"\ncredential = \"t\"",
            ":1: origin.x.credential: would cross the network in the clear: `url` is not https",
        ),
        (
            "[origin.x]\nurl = \"https://alice:hunter2@h\"",
            ":2: origin.x.url: expected an http:// or https:// URL without user, query and fragment, found a URL with a user",
        ),
        (
            "[origin.x]\nurl = \"ftp://h\"",
            ":2: origin.x.url: expected an http:// or https:// URL without user, query and fragment, found \"ftp://h\"",
        ),
        (
            "[origin.x]\nproxy = \"http://h?x\"",
            ":2: origin.x.proxy: expected an http:// or https:// URL without user, query and fragment, found \"http://h?x\"",
        ),
        (
            "[origin.x]\ncredential = \"../shadow\"",
            ":2: origin.x.credential: expected a credential's name: 1 to 255 of A-Z, a-z, 0-9, `-`, `_`, `.`, found \"../shadow\"",
        ),
        (
            "[origin.x]\nca_file = \"ca.pem\"",
            ":2: origin.x.ca_file: expected an absolute path without `..`, found \"ca.pem\"",
        ),
        (
            "[origin.x]\nimports = \"/\"",
            ":2: origin.x.imports: expected the path of a directory inside the repository, such as \"/third-party\", found \"/\"",
        ),
        (
            "[origin.Linux]\nkind = \"git\"",
            ":1: origin.Linux: `Linux` is no origin name: 1 to 64 of a-z, 0-9, `-`, `_`, `.`, starting with a letter or digit",
        ),
        (&many_origins, ":257: origin.o256: is one origin more than the 256 allowed"),
        // the first mistake of a file is the one that is told
        (
            "[limits]\nconnections = 0\n[auth]\nmode = 1",
            ":2: limits.connections: expected a whole number from 1 to 65536, found 0",
        ),
    ];
    for (text, expected) in rows {
        let error = load(text, &[]).map(|_| ()).expect_err(text).to_string();
        assert_eq!(error, format!("/etc/scorpio/scorpio.toml{expected}"), "{text}");
    }
}

#[test]
fn each_bad_variable_is_named() {
    let rows: &[(&str, &str, &str)] = &[
        (
            "SCORPIO_LIMITS__WORKSPACES_PER_USER",
            "many",
            "$SCORPIO_LIMITS__WORKSPACES_PER_USER: limits.workspaces_per_user: expected a whole number from 1 to 65536, found \"many\"",
        ),
        (
            "SCORPIO_LIMITS__WORKSPACE",
            "3",
            "$SCORPIO_LIMITS__WORKSPACE: limits.workspace: is no known key; [limits] has workspaces_per_user, workspaces_per_host, connections_per_user, connections, calls_per_user, max_ttl",
        ),
        (
            "SCORPIO_LIMIT__CONNECTIONS",
            "3",
            "$SCORPIO_LIMIT__CONNECTIONS: limit.connections: is in no known section; there are [daemon], [cache], [fetch], [engine], [limits], [auth], [origin.NAME]",
        ),
        (
            "SCORPIO_LIMITS_CONNECTIONS",
            "3",
            "$SCORPIO_LIMITS_CONNECTIONS: is no setting; two underscores part section and key: SCORPIO_LIMITS__CONNECTIONS",
        ),
        (
            "SCORPIO_limits__connections",
            "3",
            "$SCORPIO_limits__connections: is not in capitals; write SCORPIO_LIMITS__CONNECTIONS",
        ),
        (
            "SCORPIO_ORIGIN__LINUX__PATH",
            "linux",
            "$SCORPIO_ORIGIN__LINUX__PATH: origin.linux.path: expected an absolute path without `..`, found \"linux\"",
        ),
        (
            "SCORPIO_ORIGIN__LINUX",
            "/srv",
            "$SCORPIO_ORIGIN__LINUX: origin.linux: expected a table [origin.linux], found \"/srv\"",
        ),
        (
            "STATE_DIRECTORY",
            "relative",
            "$STATE_DIRECTORY: daemon.state_dir: expected an absolute path without `..`, found \"relative\"",
        ),
    ];
    for (name, value, expected) in rows {
        let error = load("", &[(name, value)]).map(|_| ()).expect_err(name).to_string();
        assert_eq!(&error, expected);
    }
}

#[test]
fn a_variable_that_is_not_text_is_named() {
    use std::os::unix::ffi::OsStringExt as _;
    let variable = (OsString::from("SCORPIO_DAEMON__SOCKET"), OsString::from_vec(vec![b'/', 0xff]));
    let error = Config::load(&[], [variable]).unwrap_err().to_string();
    assert_eq!(error, "$SCORPIO_DAEMON__SOCKET: is not UTF-8 text");
}

#[test]
fn without_any_source_everything_has_its_default() {
    let config = Config::load(&[], []).unwrap();
    assert_eq!(config.daemon.socket, PathBuf::from("/run/scorpio/scorpio.sock"));
    assert_eq!(config.daemon.upper_root, PathBuf::from("/var/lib/scorpio/workspaces"));
    assert_eq!(config.cache.map_bytes, 64 << 30);
    assert_eq!(config.engine.entry_ttl, Duration::MAX);
    assert_eq!(config.limits.max_ttl, Duration::from_secs(90 * 86_400));
    assert_eq!(config.auth.mount, [Principal::Group("scorpio".into())]);
    assert!(config.origins.is_empty() && config.set_by.is_empty());
}

#[test]
fn later_sources_win_key_by_key() {
    let files = [
        SourceFile {
            path: "/a.toml".into(),
            text: "[limits]\nconnections = 1\nworkspaces_per_user = 1\nworkspaces_per_host = 1\n\
                   [origin.linux]\nkind = 'git'\npath = '/srv/linux'\nallow = ['alice', '@devs']"
                .into(),
        },
        SourceFile {
            path: "/a.toml.d/b.toml".into(),
            text: "limits = { connections = 2, workspaces_per_user = 2 }\norigin.linux.read_as = 'git'"
                .into(),
        },
    ];
    let variables = environment(&[
        ("SCORPIO_LIMITS__CONNECTIONS", "3"),
        ("SCORPIO_ORIGIN__LINUX__PATH", "/srv/other"),
        ("SCORPIO_SOCKET", "of another program"),
    ]);
    let config = Config::load(&files, variables).unwrap();
    let limits = config.limits;
    assert_eq!((limits.connections, limits.workspaces_per_user, limits.workspaces_per_host), (3, 2, 1));
    let origin = &config.origins[&"linux".parse().unwrap()];
    let OriginKind::Git { path, read_as } = &origin.kind else { panic!("{origin:?}") };
    assert_eq!((path.to_str(), read_as.as_deref()), (Some("/srv/other"), Some("git")));
    assert_eq!(origin.allow, [Principal::User("alice".into()), Principal::Group("devs".into())]);
    let source = |key: &str| config.set_by.get(key).unwrap_or(&Source::Default).to_string();
    assert_eq!(source("limits.connections"), "$SCORPIO_LIMITS__CONNECTIONS");
    assert_eq!(source("limits.workspaces_per_user"), "/a.toml.d/b.toml:1");
    assert_eq!(source("origin.linux.read_as"), "/a.toml.d/b.toml:2");
    assert_eq!(source("limits.workspaces_per_host"), "/a.toml:4");
}

#[test]
fn directories_of_systemd_are_defaults_that_files_override() {
    let systemd = [
        ("STATE_DIRECTORY", "/var/lib/a:/var/lib/b"),
        ("CACHE_DIRECTORY", "/c"),
        ("RUNTIME_DIRECTORY", "/r"),
    ];
    let config = load("", &systemd).unwrap();
    let places = config.daemon;
    assert_eq!(places.state_dir, PathBuf::from("/var/lib/a"));
    assert_eq!(places.upper_root, PathBuf::from("/var/lib/a/workspaces"));
    assert_eq!((places.cache_dir, places.runtime_dir), (PathBuf::from("/c"), PathBuf::from("/r")));
    let config = load("daemon.state_dir = '/mine'", &systemd).unwrap();
    assert_eq!(config.daemon.upper_root, PathBuf::from("/mine/workspaces"));
}

#[test]
fn variables_are_toml_where_they_parse_and_text_where_the_key_wants_text() {
    let config = load(
        "",
        &[
            ("SCORPIO_LIMITS__MAX_TTL", "2h"),
            ("SCORPIO_FETCH__DEADLINE", "\"90s\""),
            ("SCORPIO_CACHE__MAP_BYTES", "1GiB"),
            ("SCORPIO_CACHE__INLINE_MAX_BYTES", "4096"),
            ("SCORPIO_ENGINE__LOWER", "per-owner"),
            ("SCORPIO_AUTH__MODE", "static"),
            ("SCORPIO_AUTH__MOUNT", "[\"alice\", \"*\"]"),
            ("SCORPIO_DAEMON__LOG_LEVEL", "info,scorpio::fusedev=debug"),
            ("SCORPIO_ORIGIN__A__KIND", "git"),
            ("SCORPIO_ORIGIN__A__PATH", "/srv/a"),
            ("SCORPIO_ORIGIN__A__READ_AS", "1000"),
        ],
    )
    .unwrap();
    assert_eq!(config.limits.max_ttl, Duration::from_secs(7200));
    assert_eq!(config.fetch.deadline, Duration::from_secs(90));
    assert_eq!((config.cache.map_bytes, config.cache.inline_max_bytes), (1 << 30, 4096));
    assert_eq!((config.engine.lower, config.auth.mode), (LowerKind::PerOwner, AuthMode::Static));
    assert_eq!(config.auth.mount, [Principal::User("alice".into()), Principal::Everybody]);
    assert_eq!(config.daemon.log_level, "info,scorpio::fusedev=debug");
    let a = &config.origins[&"a".parse().unwrap()];
    let OriginKind::Git { read_as, .. } = &a.kind else { panic!("{a:?}") };
    assert_eq!(read_as.as_deref(), Some("1000"));
}

#[test]
fn a_mega_server_is_read_with_its_credential_and_shown_as_it_was_written() {
    let text = "[cache]\ninline_max_bytes = 1000\n[origin.mega]\nkind = 'mega'\nurl = 'https://h:8443/p'\ncredential = 'tok.en'\nca_file = '/ca.pem'\nproxy = 'http://p:3128'\nallow = ['@devs']\n";
    let config = load(text, &[("CREDENTIALS_DIRECTORY", "/run/credentials/scorpio.service")]).unwrap();
    let OriginKind::Mega(server) = &config.origins[&"mega".parse().unwrap()].kind else {
        panic!("{config:?}")
    };
    let credential = server.credential.as_ref().unwrap();
    assert_eq!(credential.name, "tok.en");
    assert_eq!(credential.path.as_deref(), Some(Path::new("/run/credentials/scorpio.service/tok.en")));
    assert_eq!((server.url.as_str(), server.proxy.as_deref()), ("https://h:8443/p", Some("http://p:3128")));
    assert_eq!((server.ca_file.as_deref(), server.small_blob_bytes), (Some(Path::new("/ca.pem")), 1000));
    assert_eq!(server.imports.to_string(), "/third-party");
    let shown = config.show();
    for line in
        ["url = \"https://h:8443/p\"  # /etc/scorpio/scorpio.toml:5", "imports = \"/third-party\"  # default"]
    {
        assert!(shown.lines().any(|shown| shown == line), "{line}\n--\n{shown}");
    }
    assert!(!shown.contains("read_as"), "{shown}");
    // Without systemd the credential has a name and is nowhere.
    let config = load(&shown, &[]).unwrap();
    let OriginKind::Mega(server) = &config.origins[&"mega".parse().unwrap()].kind else {
        panic!("{config:?}")
    };
    assert_eq!(server.credential.as_ref().map(|credential| credential.path.clone()), Some(None));
    assert!(load("[origin.m]\nkind = 'mega'\nurl = 'http://[::1]:8000'\ncredential = 't'", &[]).is_ok());
}

#[test]
fn what_is_shown_says_who_set_it_and_loads_to_the_same() {
    let text = "[limits]\nconnections = 7\n[origin.\"a.b\"]\nkind = 'git'\npath = '/srv/quo\"te'\n";
    let config = load(text, &[("SCORPIO_FETCH__REQUESTS", "4")]).unwrap();
    let shown = config.show();
    for line in [
        "connections = 7  # /etc/scorpio/scorpio.toml:2",
        "requests = 4  # $SCORPIO_FETCH__REQUESTS",
        "workspaces_per_user = 64  # default",
        "entry_ttl = \"forever\"  # default",
        "[origin.\"a.b\"]",
        "path = '/srv/quo\"te'  # /etc/scorpio/scorpio.toml:5",
        "allow = [\"*\"]  # default",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}\n--\n{shown}");
    }
    let again = load(&shown, &[]).unwrap().show();
    let without_sources = |text: &str| {
        text.lines().map(|line| line.split("  # ").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(without_sources(&again), without_sources(&shown));
}

#[test]
fn the_documentation_has_a_line_for_every_key() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/CONFIGURATION.md");
    let document = std::fs::read_to_string(path).unwrap();
    let documented: Vec<_> = document.lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(
        documented,
        scorpio::config::reference(),
        "docs/CONFIGURATION.md is not what the table of keys says"
    );
}
