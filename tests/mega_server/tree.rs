//! Git trees as bytes: read leniently, written in the order given, which need not be git's.

use scorpio::types::{ObjectKind, Oid};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Octal digits as git writes them: `40000`, `100644`, …
    pub mode: String,
    pub name: Vec<u8>,
    pub oid: Oid,
}

impl Entry {
    pub fn directory(name: &[u8], oid: Oid) -> Entry {
        Entry { mode: "40000".to_owned(), name: name.to_owned(), oid }
    }

    pub fn is_directory(&self) -> bool {
        self.mode == "40000"
    }

    /// The server knows two types: symlinks, executables and gitlinks are files.
    pub fn content_type(&self) -> &'static str {
        if self.is_directory() { "directory" } else { "file" }
    }

    /// Names are text in JSON, whatever their bytes.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }
}

pub fn parse(mut body: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    while let Some(space) = body.iter().position(|byte| *byte == b' ') {
        let nul = space + body[space..].iter().position(|byte| *byte == 0).expect("names end");
        let end = nul + 1 + Oid::LEN;
        entries.push(Entry {
            mode: String::from_utf8_lossy(&body[..space]).into_owned(),
            name: body[space + 1..nul].to_vec(),
            oid: Oid::from_slice(&body[nul + 1..end]).expect("an id follows"),
        });
        body = &body[end..];
    }
    entries
}

pub fn write(entries: &[Entry]) -> Vec<u8> {
    let mut body = Vec::new();
    for entry in entries {
        body.extend_from_slice(entry.mode.as_bytes());
        body.push(b' ');
        body.extend_from_slice(&entry.name);
        body.push(0);
        body.extend_from_slice(entry.oid.as_bytes());
    }
    body
}

/// The order that git writes: by name, a directory's with a slash at its end.
pub fn sort(entries: &mut [Entry]) {
    let key = |entry: &Entry| [&entry.name[..], if entry.is_directory() { b"/" } else { b"" }].concat();
    entries.sort_by_key(key);
}

pub fn id(kind: ObjectKind, body: &[u8]) -> Oid {
    Oid::of(kind, body).expect("no collision attack is served here")
}
