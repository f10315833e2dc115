//! References: names of commits, one file each or together in `packed-refs`.
//!
//! Read afresh for every question; nothing is mapped or remembered. Names are checked before they become paths.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use gix::bstr::ByteSlice as _;

use super::{
    error::OpenError,
    files::{open_regular, read_small},
    layout::Layout,
};
use crate::types::Oid;

/// Longest loose reference: an id, or a keyword and a name.
const LOOSE_MAX: u64 = 8 * 1024;
/// Longest line of `packed-refs`, and longest file of them: tens of millions of references.
const PACKED_LINE_MAX: u64 = 8 * 1024;
const PACKED_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// How many symbolic references lead to one another at most; git's own bound.
const SYMBOLIC_MAX: usize = 5;

/// What a reference holds.
enum Target {
    Oid(Oid),
    Name(Vec<u8>),
}

/// The object that the reference `name` leads to, by git's rules for short names: as it stands, then a tag, a branch,
/// a remote branch, a remote's default branch.
pub(super) fn find(layout: &Layout, name: &str) -> Result<Option<Oid>, OpenError> {
    for full in full_names(name) {
        if let Some(oid) = follow(layout, full.into_bytes())? {
            return Ok(Some(oid));
        }
    }
    Ok(None)
}

fn full_names(name: &str) -> Vec<String> {
    let mut names = Vec::new();
    // Other files beside HEAD have names in lower case and hold no references.
    let is_special = |name: &str| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    if name.starts_with("refs/") || is_special(name) {
        names.push(name.to_owned());
    }
    names.extend(
        ["refs/", "refs/tags/", "refs/heads/", "refs/remotes/"].map(|before| format!("{before}{name}")),
    );
    names.push(format!("refs/remotes/{name}/HEAD"));
    names
}

fn follow(layout: &Layout, mut name: Vec<u8>) -> Result<Option<Oid>, OpenError> {
    for _ in 0..=SYMBOLIC_MAX {
        if gix::validate::reference::name_partial(name.as_bstr()).is_err() {
            return Ok(None);
        }
        match target(layout, &name)? {
            None => return Ok(None),
            Some(Target::Oid(oid)) => return Ok(Some(oid)),
            Some(Target::Name(next)) => name = next,
        }
    }
    Err(OpenError::unreadable(&path_of(layout, &name), "symbolic references lead to one another"))
}

fn target(layout: &Layout, name: &[u8]) -> Result<Option<Target>, OpenError> {
    match loose(&path_of(layout, name))? {
        Some(target) => Ok(Some(target)),
        None => Ok(packed(&layout.common_dir.join("packed-refs"), name)?.map(Target::Oid)),
    }
}

/// Where the loose reference is: a linked work tree has its own HEAD and few others, the rest is common.
fn path_of(layout: &Layout, name: &[u8]) -> PathBuf {
    let own = ["refs/bisect/", "refs/worktree/", "refs/rewritten/"];
    let is_own = !name.starts_with(b"refs/") || own.iter().any(|own| name.starts_with(own.as_bytes()));
    let base = if is_own { &layout.git_dir } else { &layout.common_dir };
    base.join(OsStr::from_bytes(name))
}

fn loose(path: &Path) -> Result<Option<Target>, OpenError> {
    if path.is_dir() {
        return Ok(None);
    }
    let Some(bytes) = read_small(path, LOOSE_MAX)? else { return Ok(None) };
    let text = bytes.trim_ascii_end();
    if let Some(name) = text.strip_prefix(b"ref:") {
        return Ok(Some(Target::Name(name.trim_ascii_start().to_vec())));
    }
    let oid = text.split(u8::is_ascii_whitespace).next().and_then(parse_oid);
    oid.map(|oid| Some(Target::Oid(oid))).ok_or_else(|| OpenError::unreadable(path, "it holds no reference"))
}

fn packed(path: &Path, name: &[u8]) -> Result<Option<Oid>, OpenError> {
    let file = match open_regular(path) {
        Err(OpenError::Missing { .. }) => return Ok(None),
        other => other?,
    };
    let mut reader = BufReader::new(file.take(PACKED_MAX));
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.by_ref().take(PACKED_LINE_MAX).read_until(b'\n', &mut line);
        if read.map_err(|error| OpenError::from_io(path, &error))? == 0 {
            break;
        }
        if line.pop_if(|last| *last == b'\n').is_none() {
            return Err(OpenError::unreadable(path, "a line of it is cut off or too long"));
        }
        match line.split_once_str(b" ") {
            Some((oid, named)) if named == name => {
                let damaged = || OpenError::unreadable(path, "a line of it has no object id");
                return parse_oid(oid).map(Some).ok_or_else(damaged);
            }
            _ => {}
        }
    }
    if reader.into_inner().limit() == 0 {
        return Err(OpenError::unreadable(path, format!("it is longer than {PACKED_MAX} bytes")));
    }
    Ok(None)
}

fn parse_oid(hex: &[u8]) -> Option<Oid> {
    std::str::from_utf8(hex).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ID: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

    fn layout(dir: &Path) -> Layout {
        let own = dir.join("worktrees/w");
        fs::create_dir_all(&own).unwrap();
        Layout { git_dir: own, common_dir: dir.to_owned(), objects: Vec::new(), flaws: Vec::new() }
    }

    fn put(dir: &Path, name: &str, text: &str) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn references_are_found_where_git_keeps_them() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        put(dir.path(), "worktrees/w/HEAD", "ref: refs/heads/packed\n");
        put(dir.path(), "HEAD", "ref: refs/heads/absent\n");
        put(dir.path(), "refs/heads/a/loose", &format!("{ID}\n"));
        put(dir.path(), "refs/remotes/origin/HEAD", "ref: refs/remotes/origin/far\n");
        let lines = format!(
            "# pack-refs with: peeled\n{ID} refs/heads/packed\n{ID} refs/remotes/origin/far\n^{ID}\n"
        );
        put(dir.path(), "packed-refs", &lines);
        let id = Some(ID.parse().unwrap());
        for name in
            ["HEAD", "packed", "a/loose", "heads/a/loose", "refs/heads/a/loose", "origin", "origin/far"]
        {
            assert_eq!(find(&layout, name), Ok(id), "{name}");
        }
        for name in
            ["a", "nothing", "refs", "refs/heads", "packed-refs", "loose", "../worktrees/w/HEAD", "a.lock"]
        {
            assert_eq!(find(&layout, name), Ok(None), "{name}");
        }
    }

    #[test]
    fn damage_is_an_error_and_not_an_absence() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        put(dir.path(), "refs/heads/zeros", "\0\0\0\0");
        put(dir.path(), "refs/heads/empty", "");
        put(dir.path(), "refs/heads/one", "ref: refs/heads/two\n");
        put(dir.path(), "refs/heads/two", "ref: refs/heads/one\n");
        put(dir.path(), "refs/heads/out", "ref: ../../etc/passwd\n");
        for name in ["zeros", "empty", "one"] {
            assert!(matches!(find(&layout, name), Err(OpenError::Unreadable { .. })), "{name}");
        }
        assert_eq!(find(&layout, "out"), Ok(None));
        put(dir.path(), "packed-refs", &format!("{ID} refs/heads/cut"));
        assert!(matches!(find(&layout, "cut"), Err(OpenError::Unreadable { .. })));
        put(dir.path(), "packed-refs", &"x".repeat(10_000));
        assert!(matches!(find(&layout, "cut"), Err(OpenError::Unreadable { .. })));
    }
}
