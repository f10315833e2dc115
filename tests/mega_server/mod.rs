//! A Mega server for tests: speaks the part of Mega's HTTP interface that a file system needs, as the recorded samples in
//! `tests/fixtures/mega` do, serves real git repositories, and misbehaves on demand.
//!
//! - [`MegaServer`]: the server as a test uses it; `program.rs` is the same as a program of its own
//! - [`http`]: connections; sends answers well or badly
//! - [`requests`]: what is asked; [`answers`]: how answers are worded
//! - [`listings`], [`files`], [`change_lists`]: the endpoints
//! - [`namespace`]: the monorepo and the import repositories in it; [`repository`]: git; [`tree`]: trees as bytes
//! - [`access`]: what only some tokens may read
//! - [`faults`], [`counts`], [`control`]: what tests do to it, see of it, and how scripts do both
//! - [`tunnel`]: a proxy on the way to it
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)] // each test binary uses a part

mod access;
mod answers;
mod change_lists;
mod control;
mod counts;
pub mod faults;
mod files;
mod http;
mod listings;
mod namespace;
mod repository;
mod requests;
mod tree;
pub mod tunnel;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use hyper::Method;
use scorpio::types::Oid;
use tokio::{runtime::Runtime, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use self::{
    access::Access,
    answers::Answer,
    change_lists::ChangeLists,
    counts::Counts,
    faults::{Act, Faults, Rule},
    namespace::{Names, Namespace},
    requests::Asked,
};
pub use self::{counts::Seen, requests::Endpoint};

/// A free port, for nobody but this host.
const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Threads that answer: more requests than these wait their turn.
const ANSWERING: usize = 16;

/// A running server. It stops when dropped.
pub struct MegaServer {
    core: Arc<Core>,
    address: SocketAddr,
    runtime: Option<Runtime>,
    listening: Mutex<Option<JoinHandle<std::convert::Infallible>>>,
    tls: Option<TlsAcceptor>,
}

struct Core {
    namespace: Namespace,
    access: Access,
    faults: Faults,
    counts: Counts,
    change_lists: ChangeLists,
    connections: AtomicU64,
}

impl MegaServer {
    /// Serves branch `main` of a repository at a free port.
    pub fn start(repository: &Path) -> MegaServer {
        MegaServer::start_at(repository, "refs/heads/main", LOCAL)
    }

    /// The same over https, with a certificate and its key (PEM files).
    pub fn start_with_tls(repository: &Path, certificate: &Path, key: &Path) -> MegaServer {
        MegaServer::start_as(repository, "refs/heads/main", LOCAL, Some(http::tls(certificate, key)))
    }

    pub fn start_at(repository: &Path, rev: &str, address: SocketAddr) -> MegaServer {
        MegaServer::start_as(repository, rev, address, None)
    }

    fn start_as(repository: &Path, rev: &str, address: SocketAddr, tls: Option<TlsAcceptor>) -> MegaServer {
        let core = Core {
            namespace: Namespace::new(repository, rev),
            access: Access::default(),
            faults: Faults::default(),
            counts: Counts::default(),
            change_lists: ChangeLists::default(),
            connections: AtomicU64::new(0),
        };
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(2).max_blocking_threads(ANSWERING).thread_name("mega-server").enable_all();
        let runtime = runtime.build().unwrap();
        let mut server = MegaServer {
            core: Arc::new(core),
            address,
            runtime: Some(runtime),
            listening: Mutex::default(),
            tls,
        };
        server.address = server.listen();
        server
    }

    /// `http://127.0.0.1:<port>`, or with https.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all connections and refuses new ones.
    pub fn stop(&self) {
        let Some(listening) = self.listening.lock().unwrap().take() else { return };
        listening.abort();
        while !listening.is_finished() {
            std::thread::yield_now();
        }
    }

    /// Accepts connections again, at the same port.
    pub fn resume(&self) {
        self.listen();
    }

    fn listen(&self) -> SocketAddr {
        let runtime = self.runtime.as_ref().expect("it runs until dropped");
        let (sender, bound) = std::sync::mpsc::channel();
        let (core, address, tls) = (self.core.clone(), self.address, self.tls.clone());
        let task = runtime.spawn(async move {
            let listener = http::listen(address).await.expect("the port is free");
            sender.send(listener.local_addr().unwrap()).unwrap();
            http::serve(core, listener, tls).await
        });
        *self.listening.lock().unwrap() = Some(task);
        bound.recv().expect("it listens")
    }

    /// The monorepo's head becomes what `rev` is in its repository now. Returns the head's id.
    pub fn push(&self, rev: &str) -> Oid {
        self.core.namespace.push(rev)
    }

    /// Mounts a repository at `/third-party/<name>`. Returns the monorepo's new head.
    pub fn import(&self, name: &str, repository: &Path) -> Oid {
        self.core.namespace.push_import(name, Some(repository), "refs/heads/main")
    }

    /// The import repository's head becomes what `rev` is in it now. Returns the monorepo's new head.
    pub fn push_import(&self, name: &str, rev: &str) -> Oid {
        self.core.namespace.push_import(name, None, rev)
    }

    /// Serves the trees at these paths in reverse order, under the ids that their bytes then have.
    pub fn disorder(&self, paths: &[&str]) -> Oid {
        self.core.namespace.disorder(paths.iter().map(|path| names(path)))
    }

    /// The monorepo's head.
    pub fn head(&self) -> Oid {
        self.core.namespace.head().oid
    }

    /// The head's tree.
    pub fn head_tree(&self) -> Oid {
        self.core.namespace.head().tree
    }

    /// Opens a change list from one commit to another.
    pub fn open_cl(&self, link: &str, base: &str, tip: &str) {
        self.core.change_lists.open(link, base, tip);
    }

    /// Lets only these tokens read what lies below a path, and the blobs that lie there now.
    pub fn restrict(&self, below: &str, tokens: &[&str]) {
        self.core.access.restrict(&self.core.namespace, names(below), tokens);
    }

    /// Makes a token valid that may read nothing private.
    pub fn know(&self, token: &str) {
        self.core.access.know(token);
    }

    /// Refuses a token from now on, or no longer.
    pub fn expire(&self, token: &str, expired: bool) {
        self.core.access.expire(token, expired);
    }

    /// Adds a rule; the ones before it stay.
    pub fn misbehave(&self, rule: Rule) {
        self.core.faults.add(rule);
    }

    /// Forgets all rules. Requests in a black hole stay there.
    pub fn behave(&self) {
        self.core.faults.clear();
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.core.counts.seen()
    }

    /// How many requests so far are like this.
    pub fn count(&self, like: impl Fn(&Seen) -> bool) -> usize {
        self.seen().iter().filter(|seen| like(seen)).count()
    }

    /// How many requests for this path or blob came to this endpoint.
    pub fn asked(&self, endpoint: Endpoint, target: &str) -> usize {
        self.count(|seen| seen.endpoint == endpoint && seen.target == target)
    }

    pub fn most_at_once(&self) -> usize {
        self.core.counts.most_at_once()
    }

    pub fn in_flight(&self) -> usize {
        self.core.counts.in_flight()
    }

    pub fn connections(&self) -> u64 {
        self.core.connections.load(Ordering::SeqCst)
    }

    /// Counts from zero again.
    pub fn forget(&self) {
        self.core.counts.forget();
    }
}

impl Drop for MegaServer {
    fn drop(&mut self) {
        self.stop();
        // Not waiting: it may be dropped in an asynchronous test.
        self.runtime.take().expect("dropped once").shutdown_background();
    }
}

impl Core {
    fn answer(&self, asked: &Asked) -> Answer {
        if asked.method != Method::GET && asked.method != Method::HEAD {
            return Answer {
                headers: vec![("allow", "GET,HEAD".to_owned())],
                ..Answer::new(405, "text/plain", "")
            };
        }
        if let Some(refusal) = self.access.refusal(asked) {
            return refusal;
        }
        let space = &self.namespace;
        let answer = match asked.endpoint {
            Endpoint::Status => Ok(Answer::bare(&"http ready")),
            Endpoint::LatestCommit => files::latest_commit(space, asked),
            Endpoint::Tree => listings::tree(space, asked),
            Endpoint::ContentHash => listings::content_hash(space, asked),
            Endpoint::DirHash => listings::dir_hash(space, asked),
            Endpoint::CommitInfo => listings::commit_info(space, asked),
            Endpoint::PathCanClone => listings::path_can_clone(space, asked),
            Endpoint::FileTree => files::tree(space, asked),
            Endpoint::FileBlob => files::blob(space, asked),
            Endpoint::ClFilesList => self.change_lists.files_list(space, asked),
            Endpoint::ClUpdateStatus => self.change_lists.update_status(space, asked),
            Endpoint::ClDetail => Ok(Answer::login_first()),
            Endpoint::Unknown => Ok(Answer::error(404, "Operation not supported")),
        };
        answer.unwrap_or_else(|namespace::NoAnswer::Internal| Answer::internal())
    }

    /// Does the pushes among these acts.
    fn pushed(&self, acts: &[Act]) {
        for act in acts {
            match act {
                Act::Push(rev) => drop(self.namespace.push(rev)),
                Act::PushImport(name, rev) => drop(self.namespace.push_import(name, None, rev)),
                _ => {}
            }
        }
    }
}

/// The names of a path.
fn names(path: &str) -> Names {
    path.split('/').filter(|name| !name.is_empty()).map(|name| name.as_bytes().to_vec()).collect()
}
