//! The tests' Mega server as a program: for shell tests, and for benchmarks beside other clients.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "mod.rs"]
mod mega_server;

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;
use mega_server::{MegaServer, faults::Rule};

/// A Mega server for tests. Serves git repositories over the HTTP interface of Mega, and misbehaves when told to.
///
/// Prints its URL as the first line of its output once it answers, and runs until it is killed.
#[derive(Parser)]
#[command(name = "mega-server", after_long_help = CONTROL)]
struct Options {
    /// The git repository served as the monorepo, bare or with a work tree.
    repository: PathBuf,
    /// The revision served first.
    #[arg(long, default_value = "refs/heads/main")]
    rev: String,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Mounts branch `main` of a repository at `/third-party/NAME`. Can be repeated.
    #[arg(long, value_name = "NAME=DIR")]
    import: Vec<String>,
    /// Serves the tree at this path in reverse order, as real servers do with trees that they made. Can be repeated.
    #[arg(long, value_name = "PATH")]
    disorder: Vec<String>,
    /// Lets only requests with this token read below a path. Can be repeated; two tokens for one path are two options.
    #[arg(long, value_name = "PATH=TOKEN")]
    restrict: Vec<String>,
    /// Answers every request so many milliseconds later.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    delay: u64,
    /// Misbehaves from the start, as by `POST /control/fault`. Can be repeated.
    #[arg(long, value_name = "JSON")]
    fault: Vec<String>,
}

const CONTROL: &str = r#"Control endpoints, on the same port:
  POST   /control/fault     {"act": ACT, "endpoint": KIND, "target": PATH-OR-ID, "after": N, "times": N}
                            adds a rule; all but "act" may be left out
  DELETE /control/fault     forgets all rules
  POST   /control/push      {"rev": REV} or {"rev": REV, "import": NAME}: moves a head
  POST   /control/token     {"token": TOKEN, "expired": true|false}
  POST   /control/restrict  {"below": PATH, "tokens": [TOKEN, ...]}
  POST   /control/cl        {"link": LINK, "base": REV, "tip": REV}: opens a change list
  GET    /control/counts    requests by kind, method and token; most at once; connections
  GET    /control/requests  every request so far
  DELETE /control/counts    counts from zero again

ACT is one of
  {"delay": MS}  {"status": CODE}  {"retry-after": [CODE, SECONDS]}  {"drip": MS}
  {"push": REV}  {"push-import": [NAME, REV]}  {"redirect-to": URL}
  "drop"  "black-hole"  "truncate"  "wrong-bytes"  "empty"  "garbage"  "redirect"  "endless"  "huge"
KIND is one of
  status  latest-commit  tree  content-hash  dir-hash  commit-info  path-can-clone  file-tree  file-blob
  cl-files-list  cl-update-status  cl-detail  unknown

Example: the third blob from now on is cut off
  curl --data '{"act": "truncate", "endpoint": "file-blob", "after": 2, "times": 1}' http://HOST/control/fault"#;

fn main() {
    let options = Options::parse();
    let server = MegaServer::start_at(&options.repository, &options.rev, options.listen);
    for (name, repository) in options.import.iter().map(|pair| halves(pair)) {
        server.import(name, repository.as_ref());
    }
    let disordered: Vec<&str> = options.disorder.iter().map(String::as_str).collect();
    if !disordered.is_empty() {
        server.disorder(&disordered);
    }
    for (path, token) in options.restrict.iter().map(|pair| halves(pair)) {
        server.restrict(path, &[token]);
    }
    if options.delay > 0 {
        server.misbehave(Rule::new(mega_server::faults::Act::Delay(options.delay)));
    }
    for rule in &options.fault {
        server.misbehave(serde_json::from_str(rule).unwrap_or_else(|why| panic!("--fault {rule}: {why}")));
    }
    println!("{}", server.url());
    loop {
        std::thread::park();
    }
}

fn halves(pair: &str) -> (&str, &str) {
    pair.split_once('=').unwrap_or_else(|| panic!("`{pair}` is two things with a `=` between them"))
}
