//! A repository of everything that is odd, written as raw objects, because git would not write some of it.

use std::path::Path;

use super::origin_fixture::{git, git_with_input};

/// Entries of the widest directory.
const WIDE: usize = 10_000;
/// Directories in one another.
const DEPTH: usize = 12;

const FILE: &str = "100644";
const EXECUTABLE: &str = "100755";
const LINK: &str = "120000";
const TREE: &str = "40000";
const GITLINK: &str = "160000";

type Entry<'a> = (&'a str, &'a [u8], String);

/// Makes the repository, bare, at `dir`.
pub(crate) fn build(dir: &Path) {
    std::fs::create_dir(dir).unwrap();
    git(dir, &["init", "-q", "--bare", "-b", "main", "."]);
    let top = Writer(dir).top();
    let commit = git(dir, &["commit-tree", "-m", "all", &top]);
    git(dir, &["update-ref", "refs/heads/main", &commit]);
}

struct Writer<'a>(&'a Path);

impl Writer<'_> {
    fn write(&self, kind: &str, content: &[u8]) -> String {
        let args = ["hash-object", "-w", "-t", kind, "--literally", "--stdin"];
        let id = git_with_input(self.0, &args, content);
        String::from_utf8(id).unwrap().trim_end().to_owned()
    }

    fn blob(&self, content: impl AsRef<[u8]>) -> String {
        self.write("blob", content.as_ref())
    }

    fn tree(&self, entries: &[Entry<'_>]) -> String {
        self.write("tree", &raw(entries))
    }

    fn top(&self) -> String {
        let nowhere = "1234567890123456789012345678901234567890".to_owned();
        let gitlink = |name: &'static [u8]| (GITLINK, name, nowhere.clone());
        self.tree(&[
            (TREE, b"deep", self.deep()),
            (TREE, b"empty tree", self.tree(&[])),
            (TREE, b"hostile", self.hostile()),
            gitlink(b"module"),
            (TREE, b"modules", self.tree(&[gitlink(b"a"), gitlink(b"b")])),
            (TREE, b"names", self.names()),
            (TREE, b"sizes", self.sizes()),
            (TREE, b"links", self.links()),
            (TREE, b"wide", self.wide()),
        ])
    }

    fn names(&self) -> String {
        let file = self.blob("content");
        let names: [&[u8]; 12] = [
            b" leading",
            b"100%",
            b"%41",
            b"a b",
            b"new\nline",
            b"tab\t",
            b"back\\slash",
            b"-option",
            b"\xff\xfe",
            b"\xc3\x28 no utf-8",
            &[b'n'; 255],
            &[0xe9; 255],
        ];
        self.tree(&names.map(|name| (FILE, name, file.clone())))
    }

    fn sizes(&self) -> String {
        let sizes = [0, 1, 4095, 4096, 4097, 65_535, 65_536, 65_537, 1 << 20, 3_000_001];
        let file = |size: usize| (FILE, format!("{size:07}"), self.blob(bytes(size)));
        let mut entries: Vec<_> = sizes.map(file).into();
        entries.push((EXECUTABLE, "script".into(), self.blob("#!/bin/sh\n")));
        self.tree(&borrow(&entries))
    }

    fn links(&self) -> String {
        let link = |name: &'static [u8], target: &[u8]| (LINK, name, self.blob(target));
        self.tree(&[
            link(b"absolute", b"/nowhere/at/all"),
            link(b"dir", b"../deep"),
            link(b"file", b"../sizes/0004096"),
            link(b"long", &[b'l'; 4095]),
            link(b"loop", b"loop"),
            link(b"odd", b"\xff\n%"),
            link(b"one", b"x"),
        ])
    }

    fn wide(&self) -> String {
        let contents: Vec<_> = (0..100).map(|n| self.blob(format!("content {n}\n"))).collect();
        let entries: Vec<_> =
            (0..WIDE).map(|n| (FILE, format!("file-{n:05}"), contents[n % contents.len()].clone())).collect();
        self.tree(&borrow(&entries))
    }

    fn deep(&self) -> String {
        let mut tree = self.tree(&[(FILE, b"leaf", self.blob("deep"))]);
        for _ in 0..DEPTH {
            tree = self.tree(&[(TREE, b"d", tree)]);
        }
        tree
    }

    /// Each is EIO, on that name alone.
    fn hostile(&self) -> String {
        let file = self.blob("good");
        let bad = |entry| self.tree(&[(FILE, b"good", file.clone()), entry]);
        let missing = || "dead00000000000000000000000000000000beef".to_owned();
        let junk = [raw(&[(FILE, b"good", file.clone())]), b"100644 cut".to_vec()].concat();
        self.tree(&[
            (FILE, b"absent", missing()),
            (TREE, b"absent tree", missing()),
            (TREE, b"a blob", file.clone()),
            (TREE, b"dots", bad((FILE, b"..", file.clone()))),
            (TREE, b"slash", bad((FILE, b"a/b", file.clone()))),
            (TREE, b"twice", bad((FILE, b"good", file.clone()))),
            (TREE, b"mode", bad(("104755", b"su", file.clone()))),
            (TREE, b"too long", bad((FILE, &[b'n'; 256], file.clone()))),
            (TREE, b"junk", self.write("tree", &junk)),
            (FILE, b"a tree", self.tree(&[(FILE, b"good", file.clone())])),
            (FILE, b"fine", file.clone()),
            (LINK, b"link absent", missing()),
            (LINK, b"link empty", self.blob("")),
            (LINK, b"link nul", self.blob("a\0b")),
            (LINK, b"link too long", self.blob([b'l'; 4096])),
        ])
    }
}

fn borrow<'a>(entries: &'a [(&'a str, String, String)]) -> Vec<Entry<'a>> {
    entries.iter().map(|(mode, name, oid)| (*mode, name.as_bytes(), oid.clone())).collect()
}

/// A tree object's bytes, whatever git thinks of them.
fn raw(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (mode, name, oid) in entries {
        bytes.extend_from_slice(mode.as_bytes());
        bytes.push(b' ');
        bytes.extend_from_slice(name);
        bytes.push(0);
        bytes.extend((0..40).step_by(2).map(|at| u8::from_str_radix(&oid[at..at + 2], 16).unwrap()));
    }
    bytes
}

/// So many bytes that differ from page to page.
fn bytes(size: usize) -> Vec<u8> {
    let word = |n: usize| (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    (0..size.div_ceil(8)).flat_map(word).take(size).collect()
}
