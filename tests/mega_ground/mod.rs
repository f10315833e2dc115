//! A repository, a Mega server that serves it, and an origin that reads it there.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)] // each test binary uses a part

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use scorpio::{
    origin::{
        Hint, Want,
        mega::{MegaOptions, MegaOrigin},
    },
    types::{Oid, RepoPath},
};

use super::{
    mega_server::MegaServer,
    origin_fixture::{self, name, oid},
};

/// Long enough for anything that is answered, on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Ground {
    pub server: MegaServer,
    /// The monorepo, with a work tree.
    pub mono: PathBuf,
    pub dir: tempfile::TempDir,
}

impl Ground {
    /// The repository is what `script` leaves in its work tree.
    pub fn new(script: &str) -> Ground {
        let dir = origin_fixture::open_dir();
        let mono = dir.path().join("mono");
        init(&mono, script);
        Ground { server: MegaServer::start(&mono), mono, dir }
    }

    /// Mounts what `script` leaves at `/third-party/<name>`. Returns the repository.
    pub fn import(&self, name: &str, script: &str) -> PathBuf {
        let repository = self.dir.path().join(name);
        init(&repository, script);
        self.server.import(name, &repository);
        repository
    }

    /// Commits what `script` changes, without telling the server.
    pub fn commit(&self, script: &str) {
        commit(&self.mono, script);
    }

    /// Commits what `script` changes, and pushes it.
    pub fn push(&self, script: &str) -> Oid {
        self.commit(script);
        self.server.push("main")
    }

    pub fn origin(&self) -> MegaOrigin {
        self.origin_with(|_| {})
    }

    pub fn origin_with(&self, set: impl FnOnce(&mut MegaOptions)) -> MegaOrigin {
        let mut options = MegaOptions::new(&self.server.url());
        options.patience = PATIENCE;
        set(&mut options);
        MegaOrigin::new(name("mega"), options).unwrap()
    }

    /// What git has at a path of the monorepo's last commit, wanted as of the server's head.
    pub fn want(&self, path: &str) -> Want {
        want_of(&self.mono, path, "", self.server.head())
    }

    /// What git has at a path of an import repository.
    pub fn want_in(&self, name: &str, path: &str) -> Want {
        let below = format!("third-party/{name}");
        want_of(&self.dir.path().join(name), path, &below, self.server.head())
    }
}

fn want_of(repository: &Path, path: &str, below: &str, commit: Oid) -> Want {
    let oid = oid(repository, &format!("HEAD:{path}"));
    let path = [below, path].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
    Want { oid, hint: Hint { commit, path: RepoPath::parse(path.as_bytes()).unwrap() } }
}

fn init(dir: &Path, script: &str) {
    std::fs::create_dir_all(dir).unwrap();
    origin_fixture::git(dir, &["init", "-q", "-b", "main"]);
    commit(dir, script);
}

/// Commits what a shell script changes in a work tree.
pub fn commit(dir: &Path, script: &str) {
    let script = format!("{script}\ngit add -A && git commit -q --allow-empty -m commit");
    let git = origin_fixture::command(dir);
    let mut sh = Command::new("sh");
    sh.args(["-ec", &script]).current_dir(dir).env_clear();
    sh.envs(git.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let output = sh.output().unwrap();
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
}
