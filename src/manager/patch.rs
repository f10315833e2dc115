//! Changes → a patch that `git apply` takes, binary files included.

use std::io::{self, Read, Write};

use flate2::{Compression, write::ZlibEncoder};

use crate::{
    manager::{
        changes::{self, Base, Change, ChangesError, New, Walked},
        export::ExportError,
        upper::UpperDir,
    },
    types::{EntryKind, ObjectKind, Oid, RepoPath},
};

/// A patch holds both sides of a file in memory while they are compared; a larger file belongs into a tar.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// git looks for a NUL in as many bytes to tell binary from text.
const BINARY_PROBE_BYTES: usize = 8000;

/// Writes what `upper` changes in the tree `root`, and returns the paths that a patch cannot hold (fifos, sockets,
/// devices).
pub fn write(
    base: &dyn Base,
    root: Oid,
    upper: &UpperDir,
    mut out: impl Write,
) -> Result<Vec<RepoPath>, ExportError> {
    let mut left_out = Vec::new();
    let mut failed = None;
    let mut take = |walked: &Walked<'_>| {
        let written = match &walked.change.new {
            Some(New::Special) => {
                left_out.push(walked.change.path.clone());
                Ok(())
            }
            _ => write_change(base, walked, &mut out),
        };
        // The walk knows only its own errors; ours is kept aside and ends it.
        written.map_err(|error| {
            let path = walked.change.path.clone();
            failed = Some(error);
            ChangesError::Upper { path, source: io::Error::other("the patch could not be written") }
        })
    };
    let walked = changes::walk(base, root, upper, &mut take);
    match (failed, walked) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(error.into()),
        (None, Ok(())) => {
            out.flush()?;
            Ok(left_out)
        }
    }
}

/// One side of a file diff.
struct Text {
    kind: EntryKind,
    oid: Oid,
    body: Vec<u8>,
}

fn write_change(base: &dyn Base, walked: &Walked<'_>, out: &mut dyn Write) -> Result<(), ExportError> {
    let Change { path, old, new } = &walked.change;
    let old = match old {
        Some(side) if side.kind == EntryKind::Gitlink => return Ok(()),
        Some(side) => {
            Some(Text { kind: side.kind, oid: side.oid, body: base.blob(side.oid, path)?.to_vec() })
        }
        None => None,
    };
    let new = match new {
        Some(new) => Some(read_new(base, new, walked)?),
        None => None,
    };
    match (old, new) {
        // A symlink that became a file, or the other way round, is a deletion and a creation to git.
        (Some(old), Some(new)) if (old.kind == EntryKind::Symlink) != (new.kind == EntryKind::Symlink) => {
            write_file(path, Some(&old), None, out)?;
            write_file(path, None, Some(&new), out)
        }
        (old, new) => write_file(path, old.as_ref(), new.as_ref(), out),
    }
}

fn read_new(base: &dyn Base, new: &New, walked: &Walked<'_>) -> Result<Text, ExportError> {
    let path = &walked.change.path;
    let failed = |source| ExportError::Read { path: path.clone(), source };
    let (kind, body) = match new {
        New::Lower(side) => (side.kind, base.blob(side.oid, path)?.to_vec()),
        New::Symlink(target) => (EntryKind::Symlink, target.clone()),
        New::Upper(kind) => {
            let name = path.names().last().expect("a change lies in a directory");
            let dir = walked.dir.expect("new content lies in an upper directory");
            let file = dir.open_file(name).map_err(failed)?;
            let size = file.metadata().map_err(failed)?.len();
            if size > MAX_FILE_BYTES {
                return Err(ExportError::TooLarge { path: path.clone(), size });
            }
            let mut body = Vec::new();
            file.take(MAX_FILE_BYTES).read_to_end(&mut body).map_err(failed)?;
            (*kind, body)
        }
        New::Special => return Err(failed(io::Error::other("it is not a file"))),
    };
    let oid =
        Oid::of(ObjectKind::Blob, &body).ok_or_else(|| failed(io::Error::other("it has no safe id")))?;
    Ok(Text { kind, oid, body })
}

fn write_file(
    path: &RepoPath,
    old: Option<&Text>,
    new: Option<&Text>,
    out: &mut dyn Write,
) -> Result<(), ExportError> {
    let unchanged =
        matches!((old, new), (Some(old), Some(new)) if old.oid == new.oid && old.kind == new.kind);
    if unchanged || (old.is_none() && new.is_none()) {
        return Ok(());
    }
    let (a, b) = (quoted(b"a/", path), quoted(b"b/", path));
    out.write_all(&[b"diff --git ", a.as_slice(), b" ", &b, b"\n"].concat())?;
    match (old, new) {
        (None, Some(new)) => writeln!(out, "new file mode {:06o}", new.kind.git_mode())?,
        (Some(old), None) => writeln!(out, "deleted file mode {:06o}", old.kind.git_mode())?,
        (Some(old), Some(new)) if old.kind != new.kind => {
            writeln!(out, "old mode {:06o}\nnew mode {:06o}", old.kind.git_mode(), new.kind.git_mode())?;
        }
        _ => {}
    }
    let oid = |side: Option<&Text>| side.map_or_else(|| "0".repeat(40), |text| text.oid.to_string());
    let body = |side: Option<&Text>| side.map_or_else(Vec::new, |text| text.body.clone());
    let (old_body, new_body) = (body(old), body(new));
    if old.is_some() && new.is_some() && old_body == new_body {
        return Ok(());
    }
    // The mode stands here only when it is the same on both sides.
    let mode = match (old, new) {
        (Some(old), Some(new)) if old.kind == new.kind => format!(" {:06o}", old.kind.git_mode()),
        _ => String::new(),
    };
    writeln!(out, "index {}..{}{mode}", oid(old), oid(new))?;
    if is_binary(&old_body) || is_binary(&new_body) {
        return Ok(write_binary(&old_body, &new_body, out)?);
    }
    let null = b"/dev/null".to_vec();
    let names = (if old.is_some() { a } else { null.clone() }, if new.is_some() { b } else { null });
    Ok(write_text(&names, &old_body, &new_body, out)?)
}

fn write_text(names: &(Vec<u8>, Vec<u8>), old: &[u8], new: &[u8], out: &mut dyn Write) -> io::Result<()> {
    if old.is_empty() && new.is_empty() {
        return Ok(());
    }
    // A name with a space ends at the tab, as git writes it.
    let ended = |name: &[u8]| if name.contains(&b' ') && name.first() != Some(&b'"') { "\t" } else { "" };
    out.write_all(&[b"--- ", names.0.as_slice(), ended(&names.0).as_bytes(), b"\n"].concat())?;
    out.write_all(&[b"+++ ", names.1.as_slice(), ended(&names.1).as_bytes(), b"\n"].concat())?;
    let (old, new) = (lines(old), lines(new));
    let diff = similar::TextDiff::configure().newline_terminated(true).diff_slices(&old, &new);
    // Hunk by hunk: the writer of a whole diff goes by way of text and replaces what is not UTF-8.
    diff.unified_diff().iter_hunks().try_for_each(|hunk| hunk.to_writer(&mut *out))
}

/// Lines end at LF alone; a CR is content.
fn lines(body: &[u8]) -> Vec<&[u8]> {
    body.split_inclusive(|byte| *byte == b'\n').collect()
}

fn is_binary(body: &[u8]) -> bool {
    body[..body.len().min(BINARY_PROBE_BYTES)].contains(&0)
}

/// A `GIT binary patch` with both whole contents, so that it applies both ways.
fn write_binary(old: &[u8], new: &[u8], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "GIT binary patch")?;
    write_literal(new, out)?;
    write_literal(old, out)
}

/// Bytes of deflated data in one line of a literal.
const LITERAL_LINE: usize = 52;

fn write_literal(body: &[u8], out: &mut dyn Write) -> io::Result<()> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body)?;
    writeln!(out, "literal {}", body.len())?;
    for line in encoder.finish()?.chunks(LITERAL_LINE) {
        let length = u8::try_from(line.len()).expect("a line has at most 52 bytes");
        // A–Z stand for 1 to 26 bytes, a–z for 27 to 52.
        let letter = if length <= 26 { b'A' + length - 1 } else { b'a' + length - 27 };
        out.write_all(&[letter])?;
        out.write_all(&base85(line))?;
        out.write_all(b"\n")?;
    }
    out.write_all(b"\n")
}

/// git's base 85: four bytes, zero-padded, in five digits.
fn base85(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 85] =
        b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";
    let mut text = Vec::with_capacity(bytes.len().div_ceil(4) * 5);
    for group in bytes.chunks(4) {
        let mut word = [0; 4];
        word[..group.len()].copy_from_slice(group);
        let mut value = u32::from_be_bytes(word);
        let mut digits = [0; 5];
        for digit in digits.iter_mut().rev() {
            *digit = DIGITS[(value % 85) as usize];
            value /= 85;
        }
        text.extend(digits);
    }
    text
}

/// A path as git writes it into a patch: plain, or quoted as a C string when a byte in it would be misread.
fn quoted(prefix: &[u8], path: &RepoPath) -> Vec<u8> {
    let plain = [prefix, &path.to_bytes()].concat();
    let odd = |byte: &u8| *byte < b' ' || *byte >= 0x7f || *byte == b'"' || *byte == b'\\';
    if !plain.iter().any(odd) {
        return plain;
    }
    let mut text = vec![b'"'];
    for byte in &plain {
        match byte {
            b'"' | b'\\' => text.extend([b'\\', *byte]),
            byte if odd(byte) => text.extend(format!("\\{byte:03o}").bytes()),
            byte => text.push(*byte),
        }
    }
    text.push(b'"');
    text
}
