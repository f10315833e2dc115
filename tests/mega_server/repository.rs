//! A git repository read through stock `git cat-file --batch`: a few long-lived processes, no git code of ours.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Mutex,
};

use bytes::Bytes;
use scorpio::types::Oid;

use super::tree::Entry;

/// Trees kept parsed. A million files have some 80,000 directories; beyond that all are forgotten and read again.
const TREES_KEPT: usize = 100_000;

pub struct Repository {
    path: PathBuf,
    idle: Mutex<Vec<Reader>>,
    trees: Mutex<HashMap<Oid, Tree>>,
}

/// A tree as its bytes and as what they say.
#[derive(Clone)]
pub struct Tree {
    pub body: Bytes,
    pub entries: std::sync::Arc<[Entry]>,
}

/// What the server tells about a commit.
#[derive(Clone)]
pub struct Commit {
    pub oid: Oid,
    pub tree: Oid,
    pub date: String,
    pub subject: String,
    pub author: String,
    pub committer: String,
}

/// One `git cat-file --batch`.
struct Reader {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Repository {
    pub fn new(path: &Path) -> Repository {
        Repository { path: path.to_owned(), idle: Mutex::default(), trees: Mutex::default() }
    }

    /// What stock git prints, without the last line's end; `None` when it fails.
    pub fn git(&self, args: &[&str]) -> Option<String> {
        let output = self.command().args(args).output().expect("git can be run");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// The id of a revision.
    pub fn rev(&self, rev: &str) -> Option<Oid> {
        self.git(&["rev-parse", "--verify", "--quiet", "--end-of-options", rev])?.parse().ok()
    }

    /// An object with its kind in git's word.
    pub fn object(&self, oid: Oid) -> Option<(String, Bytes)> {
        let idle = self.idle.lock().unwrap().pop();
        let mut reader = idle.unwrap_or_else(|| Reader::new(self.command()));
        let object = reader.read(oid);
        self.idle.lock().unwrap().push(reader);
        object
    }

    pub fn tree(&self, oid: Oid) -> Option<Tree> {
        if oid == Oid::EMPTY_TREE {
            return Some(Tree::new(Bytes::new()));
        }
        if let Some(tree) = self.trees.lock().unwrap().get(&oid) {
            return Some(tree.clone());
        }
        let (_, body) = self.object(oid).filter(|(kind, _)| kind == "tree")?;
        let tree = Tree::new(body);
        let mut trees = self.trees.lock().unwrap();
        if trees.len() >= TREES_KEPT {
            trees.clear();
        }
        trees.insert(oid, tree.clone());
        Some(tree)
    }

    pub fn commit(&self, oid: Oid) -> Option<Commit> {
        let (_, body) = self.object(oid).filter(|(kind, _)| kind == "commit")?;
        Commit::parse(oid, &String::from_utf8_lossy(&body))
    }

    fn command(&self) -> Command {
        let mut command = Command::new("git");
        // The server's own repository, whoever owns it.
        command.args(["-c", "safe.directory=*", "-C"]).arg(&self.path).stderr(Stdio::null());
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        command.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "safe.directory");
        command.env("GIT_CONFIG_VALUE_0", "*");
        command
    }
}

impl Tree {
    pub fn new(body: Bytes) -> Tree {
        let entries = super::tree::parse(&body).into();
        Tree { body, entries }
    }
}

impl Commit {
    pub fn parse(oid: Oid, text: &str) -> Option<Commit> {
        let (head, message) = text.split_once("\n\n").unwrap_or((text, ""));
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let person = |name: &str| field(name)?.split_once(" <").map(|(person, _)| person.to_owned());
        Some(Commit {
            oid,
            tree: field("tree")?.parse().ok()?,
            date: field("committer")?.rsplit(' ').nth(1)?.to_owned(),
            subject: message.lines().next().unwrap_or("").to_owned(),
            author: person("author")?,
            committer: person("committer")?,
        })
    }
}

impl Reader {
    fn new(mut command: Command) -> Reader {
        command.args(["cat-file", "--batch"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("git can be run");
        let stdin = child.stdin.take().expect("it is piped");
        let stdout = BufReader::with_capacity(1 << 16, child.stdout.take().expect("it is piped"));
        Reader { child, stdin, stdout }
    }

    fn read(&mut self, oid: Oid) -> Option<(String, Bytes)> {
        writeln!(self.stdin, "{oid}").expect("git reads its input");
        let mut header = String::new();
        self.stdout.read_line(&mut header).expect("git answers each id");
        let mut words = header.trim_end().split(' ').skip(1);
        let (kind, len) = (words.next()?, words.next()?.parse().ok()?);
        let mut body = vec![0; len];
        self.stdout.read_exact(&mut body).expect("git gives the bytes it announced");
        self.stdout.read_exact(&mut [0]).expect("a line ends after them");
        Some((kind.to_owned(), body.into()))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
