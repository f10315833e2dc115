//! Repositories that git itself would not write: what a program sees in a mount of them, and what the journal says.
//!
//! [`ROWS`] is the list of bad cases: every row is one directory of one repository, beside directories that are fine.
//! Needs root.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails
#![allow(missing_docs)]

mod origin_fixture;
mod stack_fixture;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use origin_fixture::{git, git_with_input};
use scorpio::{config::LowerKind, types::Oid};
use stack_fixture::{ALICE, Ground, Plan, Stack, says, spawn};

/// What a row's directory is made of.
enum Tree {
    /// These entries (mode, name, whose id), in this order, whatever git thinks of them.
    Entries(&'static [(&'static str, &'static [u8], Id)]),
    /// A good entry and then these bytes.
    Tail(&'static [u8]),
    /// One that has an entry `file`, and whose own loose object is then treated like this.
    Spoilt(Spoil),
    /// An object of another kind.
    Blob,
    /// Nothing has its id.
    Missing,
}

/// What an entry points to.
enum Id {
    /// A blob of the row's own, `content of <row>`.
    Own,
    /// The same, and its loose object is then treated like this.
    Spoilt(Spoil),
    /// A blob with this content.
    Blob(&'static [u8]),
    /// A blob of so many `x`.
    Long(usize),
    /// The tree of directory `well`.
    Tree,
    /// Nothing.
    Missing,
}

/// What becomes of a loose object.
#[derive(Clone, Copy)]
enum Spoil {
    /// Cut in the middle.
    Cut,
    /// No bytes at all.
    Emptied,
    /// Every bit flipped.
    Flipped,
    /// Another blob, sound in itself.
    AnotherBlob,
    /// The empty blob.
    EmptyBlob,
    /// Another tree, sound in itself.
    AnotherTree,
}

/// What a script in the row's directory does.
enum Seen {
    /// Prints this.
    Says(&'static str),
    /// Prints nothing and fails with EIO, and the journal says this.
    Eio(&'static str),
}

use Id::{Blob, Long, Missing, Own};
use Seen::{Eio, Says};
use Tree::{Entries, Tail};

const FILE: &str = "100644";
const GOOD: (&str, &[u8], Id) = (FILE, b"good", Own);

/// Name of the case, the tree, and what a program sees at each path.
type Row = (&'static str, Tree, &'static [(&'static str, Seen)]);

const ROWS: &[Row] = &[
    (
        "dot-dot",
        Entries(&[GOOD, ("40000", b"..", Id::Tree)]),
        &[
            ("ls", Eio("entry `..` cannot be served: a name is `.` or `..`")),
            ("cat good", Eio("entry `..` cannot be served")),
            ("cat ../well/file", Says("well\n")),
        ],
    ),
    (
        "dot",
        Entries(&[("40000", b".", Id::Tree), GOOD]),
        &[("ls", Eio("entry `.` cannot be served: a name is `.` or `..`"))],
    ),
    (
        "slash",
        Entries(&[GOOD, (FILE, b"a/b", Own)]),
        &[("ls", Eio("entry `a/b` cannot be served: a name contains a slash"))],
    ),
    (
        "absolute",
        Entries(&[GOOD, (FILE, b"/etc/passwd", Own)]),
        &[("ls", Eio("entry `/etc/passwd` cannot be served"))],
    ),
    (
        "nameless",
        Entries(&[GOOD, (FILE, b"", Own)]),
        &[("ls", Eio("entry `` cannot be served: a name is empty"))],
    ),
    (
        "twice",
        Entries(&[(FILE, b"same", Own), GOOD, (FILE, b"same", Blob(b"other\n"))]),
        &[
            ("ls", Eio("entry `same` stands twice in the tree")),
            ("cat same", Eio("entry `same` stands twice in the tree")),
        ],
    ),
    (
        "file-and-directory",
        Entries(&[(FILE, b"both", Own), ("40000", b"both", Id::Tree)]),
        &[("ls", Eio("entry `both` stands twice"))],
    ),
    ("mode-0", Entries(&[("0", b"zero", Own)]), &[("ls", Eio("entry `zero` has the unknown mode 0"))]),
    (
        "mode-600",
        Entries(&[("100600", b"secret", Own)]),
        &[("ls", Eio("entry `secret` has the unknown mode 100600"))],
    ),
    ("setuid", Entries(&[("104755", b"su", Own)]), &[("ls", Eio("entry `su` has the unknown mode 104755"))]),
    (
        "setgid",
        Entries(&[("42755", b"group", Id::Tree)]),
        &[("ls", Eio("entry `group` has the unknown mode 42755"))],
    ),
    ("device", Entries(&[("60644", b"sda", Own)]), &[("ls", Eio("entry `sda` has the unknown mode 60644"))]),
    ("fifo", Entries(&[("10644", b"pipe", Own)]), &[("ls", Eio("entry `pipe` has the unknown mode 10644"))]),
    (
        "mode-7s",
        Entries(&[("0777777", b"all", Own)]),
        &[("ls", Eio("entry `all` has the unknown mode 0777777"))],
    ),
    (
        "mode-huge",
        Entries(&[("77777777777777", b"huge", Own)]),
        &[("ls", Eio("the tree is malformed at byte 0"))],
    ),
    ("mode-empty", Entries(&[("", b"none", Own)]), &[("ls", Eio("entry `none` has the unknown mode"))]),
    (
        "mode-letters",
        Entries(&[("10064x", b"octal", Own)]),
        &[("ls", Eio("entry `octal` has the unknown mode 10064x"))],
    ),
    (
        "long-name",
        Entries(&[GOOD, (FILE, &[b'n'; 256], Own)]),
        &[("ls", Eio("a name is longer than 255 bytes"))],
    ),
    ("cut-entry", Tail(b"100644 cut\0only nine"), &[("ls", Eio("the tree is malformed at byte 32"))]),
    ("cut-name", Tail(b"100644 endless"), &[("cat good", Eio("the tree is malformed at byte 32"))]),
    ("junk", Tail(&[0xff; 40]), &[("ls", Eio("the tree is malformed at byte 32"))]),
    (
        "tree-is-a-blob",
        Tree::Blob,
        &[("ls", Eio("it is a blob, not a tree")), ("stat x", Eio("it is a blob, not a tree"))],
    ),
    (
        "tree-is-missing",
        Tree::Missing,
        &[("ls", Eio("does not have object")), ("stat x", Eio("does not have object"))],
    ),
    ("tree-cut", Tree::Spoilt(Spoil::Cut), &[("ls", Eio("its loose object is damaged"))]),
    ("tree-emptied", Tree::Spoilt(Spoil::Emptied), &[("cat file", Eio("its loose object is damaged"))]),
    ("tree-flipped", Tree::Spoilt(Spoil::Flipped), &[("ls", Eio("its loose object is damaged"))]),
    (
        "tree-is-another",
        Tree::Spoilt(Spoil::AnotherTree),
        &[("ls", Eio("bytes are tree")), ("cat file", Eio("bytes are tree"))],
    ),
    (
        "blob-is-missing",
        Entries(&[(FILE, b"bad", Missing), GOOD]),
        &[
            ("ls", Says("bad\ngood\n")),
            ("cat bad", Eio("does not have object")),
            ("stat bad", Eio("does not have object")),
            ("cat good", Says("content of blob-is-missing\n")),
        ],
    ),
    (
        "blob-is-a-tree",
        Entries(&[(FILE, b"bad", Id::Tree), GOOD]),
        &[("cat bad", Eio("it is a tree, not a blob")), ("cat good", Says("content of blob-is-a-tree\n"))],
    ),
    (
        "blob-cut",
        Entries(&[(FILE, b"bad", Id::Spoilt(Spoil::Cut)), GOOD]),
        &[
            ("cat bad", Eio("its loose object is damaged")),
            ("cat good", Says("content of blob-cut\n")),
            ("ls", Says("bad\ngood\n")),
        ],
    ),
    (
        "blob-emptied",
        Entries(&[(FILE, b"bad", Id::Spoilt(Spoil::Emptied)), GOOD]),
        &[("cat bad", Eio("its loose object is damaged")), ("cat good", Says("content of blob-emptied\n"))],
    ),
    (
        "blob-flipped",
        Entries(&[(FILE, b"bad", Id::Spoilt(Spoil::Flipped)), GOOD]),
        &[("cat bad", Eio("its loose object is damaged")), ("cat good", Says("content of blob-flipped\n"))],
    ),
    (
        "blob-is-another",
        Entries(&[(FILE, b"bad", Id::Spoilt(Spoil::AnotherBlob)), GOOD]),
        &[
            ("cat bad", Eio("bytes are blob")),
            ("echo x >> bad", Eio("bytes are blob")),
            ("cat good", Says("content of blob-is-another\n")),
        ],
    ),
    (
        "blob-is-empty",
        Entries(&[(FILE, b"bad", Id::Spoilt(Spoil::EmptyBlob)), GOOD]),
        &[("cat bad", Eio("its size is not 0 bytes")), ("cat good", Says("content of blob-is-empty\n"))],
    ),
    (
        "program-cut",
        Entries(&[("100755", b"run", Id::Spoilt(Spoil::Cut))]),
        &[("cat run", Eio("its loose object is damaged"))],
    ),
    (
        "target-empty",
        Entries(&[("120000", b"link", Blob(b"")), GOOD]),
        &[
            ("readlink -v link", Eio("its target is 0 bytes long")),
            ("cat link", Eio("its target is 0 bytes long")),
            ("cat good", Says("content of target-empty\n")),
        ],
    ),
    (
        "target-long",
        Entries(&[("120000", b"link", Long(4096)), ("120000", b"longest", Long(4095)), GOOD]),
        &[
            ("readlink -v link", Eio("its target is 4096 bytes long")),
            ("readlink longest | wc -c", Says("4096\n")),
            ("cat good", Says("content of target-long\n")),
        ],
    ),
    (
        "target-huge",
        Entries(&[("120000", b"link", Long(5_000_000)), GOOD]),
        &[("readlink -v link", Eio("its target is 5000000 bytes long"))],
    ),
    (
        "target-nul",
        Entries(&[("120000", b"link", Blob(b"a\0b")), GOOD]),
        &[
            ("readlink -v link", Eio("its target contains a NUL byte")),
            ("cat good", Says("content of target-nul\n")),
        ],
    ),
    (
        "target-away",
        Entries(&[("120000", b"link", Blob(b"../../../../../../etc/hostname"))]),
        &[("readlink link", Says("../../../../../../etc/hostname\n"))],
    ),
    (
        "unsorted",
        Entries(&[(FILE, b"z", Own), ("40000", b"m", Id::Tree), (FILE, b"a", Own)]),
        &[
            ("ls", Says("a\nm\nz\n")),
            ("cat a z m/file", Says("content of unsorted\ncontent of unsorted\nwell\n")),
        ],
    ),
    (
        "not-utf-8",
        Entries(&[(FILE, b"\xff\xfe", Own), (FILE, b"new\nline", Own), (FILE, b"\x1b[31m", Own)]),
        &[
            ("ls -b", Says("\\033[31m\nnew\\nline\n\\377\\376\n")),
            ("cat \"$(printf '\\377\\376')\"", Says("content of not-utf-8\n")),
        ],
    ),
    ("longest-name", Entries(&[(FILE, &[b'n'; 255], Own)]), &[("cat n*", Says("content of longest-name\n"))]),
    (
        "old-mode",
        Entries(&[("100664", b"old", Own), ("040000", b"padded", Id::Tree)]),
        &[
            ("stat -c '%a %F' old padded", Says("644 regular file\n755 directory\n")),
            ("cat old padded/file", Says("content of old-mode\nwell\n")),
        ],
    ),
    (
        "gitlink",
        Entries(&[("160000", b"module", Missing), GOOD]),
        &[
            ("stat -c '%a %F' module", Says("755 directory\n")),
            ("ls -A module", Says("")),
            ("cat good", Says("content of gitlink\n")),
        ],
    ),
    (
        "whiteout-like",
        Entries(&[(FILE, b".wh.good", Own), (FILE, b".wh..wh..opq", Own), GOOD]),
        &[("ls -A", Says(".wh..wh..opq\n.wh.good\ngood\n"))],
    ),
    ("empty", Entries(&[]), &[("ls -A", Says("")), ("stat -c %F .", Says("directory\n"))]),
];

/// The repository of all rows, and what is done to it once git has made it.
struct Maker {
    path: PathBuf,
    well: Oid,
    spoils: Vec<(Oid, Spoil)>,
}

impl Maker {
    fn object(&self, kind: &str, body: &[u8]) -> Oid {
        let args = ["hash-object", "-t", kind, "--literally", "-w", "--stdin"];
        let oid = git_with_input(&self.path, &args, body);
        std::str::from_utf8(&oid).unwrap().trim_end().parse().unwrap()
    }

    fn row(&mut self, row: &str, tree: &Tree) -> Oid {
        let own = format!("content of {row}\n").into_bytes();
        match tree {
            Entries(entries) => {
                let mut body = Vec::new();
                for (mode, name, id) in *entries {
                    let oid = self.id(row, id);
                    body.extend([mode.as_bytes(), b" ", name, b"\0", oid.as_bytes()].concat());
                }
                self.object("tree", &body)
            }
            Tail(tail) => {
                let good = self.object("blob", &own);
                self.object("tree", &[b"100644 good\0", good.as_bytes().as_slice(), tail].concat())
            }
            Tree::Spoilt(spoil) => {
                let file = self.object("blob", &own);
                let oid = self.object("tree", &[b"100644 file\0", file.as_bytes().as_slice()].concat());
                self.spoils.push((oid, *spoil));
                oid
            }
            Tree::Blob => self.object("blob", &own),
            Tree::Missing => missing(row),
        }
    }

    fn id(&mut self, row: &str, id: &Id) -> Oid {
        match id {
            Own => self.object("blob", format!("content of {row}\n").as_bytes()),
            Blob(content) => self.object("blob", content),
            Long(len) => self.object("blob", &vec![b'x'; *len]),
            Id::Tree => self.well,
            Missing => missing(row),
            Id::Spoilt(spoil) => {
                let oid = self.object("blob", format!("to be spoilt in {row}\n").as_bytes());
                self.spoils.push((oid, *spoil));
                oid
            }
        }
    }

    fn loose(&self, oid: Oid) -> PathBuf {
        let hex = oid.to_string();
        self.path.join(".git/objects").join(&hex[..2]).join(&hex[2..])
    }

    fn spoil(&self, oid: Oid, spoil: Spoil) {
        let file = self.loose(oid);
        let good = fs::read(&file).unwrap();
        let bad = match spoil {
            Spoil::Cut => good[..good.len() / 2].to_vec(),
            Spoil::Emptied => Vec::new(),
            Spoil::Flipped => good.iter().map(|byte| !byte).collect(),
            Spoil::AnotherBlob => fs::read(self.loose(self.object("blob", b"smuggled in\n"))).unwrap(),
            Spoil::EmptyBlob => fs::read(self.loose(self.object("blob", b""))).unwrap(),
            Spoil::AnotherTree => fs::read(self.loose(self.well)).unwrap(),
        };
        fs::remove_file(&file).unwrap();
        fs::write(&file, bad).unwrap();
    }
}

fn missing(row: &str) -> Oid {
    Oid::of(scorpio::types::ObjectKind::Blob, format!("nobody has {row}").as_bytes()).unwrap()
}

fn make_repository(path: &Path) {
    fs::create_dir(path).unwrap();
    git(path, &["init", "-q", "-b", "main"]);
    let mut maker = Maker { path: path.to_owned(), well: Oid::EMPTY_TREE, spoils: Vec::new() };
    let file = maker.object("blob", b"well\n");
    maker.well = maker.object("tree", &[b"100644 file\0", file.as_bytes().as_slice()].concat());
    let mut top = Vec::new();
    for (row, tree, _) in ROWS {
        let oid = maker.row(row, tree);
        top.extend([b"40000 ", row.as_bytes(), b"\0", oid.as_bytes()].concat());
    }
    top.extend([b"40000 well\0", maker.well.as_bytes().as_slice()].concat());
    let top = maker.object("tree", &top);
    let commit =
        format!("tree {top}\nauthor A <a@e> 1700000000 +0000\ncommitter C <c@e> 1700000000 +0000\n\nall\n");
    let commit = maker.object("commit", commit.as_bytes());
    fs::write(path.join(".git/refs/heads/main"), format!("{commit}\n")).unwrap();
    for (oid, spoil) in &maker.spoils {
        maker.spoil(*oid, *spoil);
    }
}

/// What was logged.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<Vec<u8>>>);

impl Journal {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Journal {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_bad_object_is_an_error_of_its_own_place_alone() {
    let journal = Journal::default();
    let writer = journal.clone();
    let logged = tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::WARN);
    logged.with_writer(move || writer.clone()).init();
    let ground = Ground::new();
    make_repository(&ground.at("hostile"));
    let plan = Plan::new(LowerKind::Shared, Duration::from_secs(20));
    let stack = Stack::start(ground, plan, &["hostile"]).await;
    let at = stack.mount(ALICE, "hostile", "w").await.mount_point;
    let names: usize = says(ALICE, &at, "ls | wc -l").await.trim().parse().unwrap();
    assert_eq!(names, ROWS.len() + 1, "every row is a directory, whatever is in it");
    let mut wrong = Vec::new();
    for (row, _, scripts) in ROWS {
        assert!(!scripts.is_empty(), "{row}: nobody looks");
        for (script, seen) in *scripts {
            let ended = spawn(ALICE, &at.join(row), script).end().await;
            let (out, err) = (ended.stdout(), ended.stderr());
            let is_right = match seen {
                Says(text) => ended.output.status.success() && out == *text,
                Eio(_) => {
                    !ended.output.status.success() && out.is_empty() && err.contains("Input/output error")
                }
            };
            if !is_right {
                wrong.push(format!("{row}: {script}: {out:?} {err:?}"));
            }
            if let Eio(cause) = seen
                && !journal.text().lines().any(|line| line.contains(cause) && line.contains("WARN"))
            {
                wrong.push(format!("{row}: {script}: the journal does not say: {cause}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n--- journal\n{}", wrong.join("\n"), journal.text());
    assert_eq!(says(ALICE, &at, "cat well/file; find . -perm /7000 2> /dev/null || true").await, "well\n");
    assert_eq!(
        says(ALICE, &at, "echo mine > slash-beside; cat slash-beside; rm slash-beside").await,
        "mine\n"
    );
    stack.stop().await;
}
