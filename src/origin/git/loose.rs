//! Loose objects: one deflated file each, `<kind> <size>\0` and the body.

use std::{
    fs,
    io::{BufReader, Read},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use flate2::bufread::ZlibDecoder;
use gix::objs::Kind;

use super::{
    error::{OpenError, ReadError},
    files::open_regular,
    reader::object_max,
};
use crate::types::Oid;

/// Longest header: the longest kind, a blank, 20 digits, NUL.
const HEADER_MAX: usize = 28;
/// Memory taken on the word of a header alone; more only as content comes.
const RESERVE_MAX: u64 = 16 * 1024 * 1024;

type Inflated = ZlibDecoder<BufReader<fs::File>>;

/// Kind and size of the object, if it is in the object directory `objects`.
pub(super) fn header(objects: &Path, oid: Oid) -> Result<Option<(Kind, u64)>, ReadError> {
    Ok(open(objects, oid)?.map(|(kind, size, _)| (kind, size)))
}

/// Kind and body of the object, if it is in the object directory `objects`.
pub(super) fn object(objects: &Path, oid: Oid) -> Result<Option<(Kind, Vec<u8>)>, ReadError> {
    let Some((kind, size, inflated)) = open(objects, oid)? else { return Ok(None) };
    let max = object_max(kind);
    if size > max {
        return Err(ReadError::Damaged(format!("it is a {kind} of {size} bytes; at most {max} are read")));
    }
    let mut body = Vec::with_capacity(usize::try_from(size.min(RESERVE_MAX)).unwrap_or(0));
    // One byte more than promised shows an object that is longer than its header says.
    inflated.take(size + 1).read_to_end(&mut body).map_err(|error| damaged(&error.to_string()))?;
    if body.len() as u64 != size {
        return Err(damaged("its length is not the one in its header"));
    }
    Ok(Some((kind, body)))
}

/// Ids of loose objects in `objects` whose hexadecimal form begins with `prefix` (at least two digits).
pub(super) fn with_prefix(objects: &Path, prefix: &str) -> Result<Vec<Oid>, OpenError> {
    let dir = objects.join(&prefix[..2]);
    let fail = |error: &std::io::Error| OpenError::from_io(&dir, error);
    let entries = match fs::read_dir(&dir).map_err(|error| fail(&error)) {
        Err(OpenError::Missing { .. }) => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| fail(&error))?.file_name();
        let hex = [&prefix.as_bytes()[..2], name.as_bytes()].concat();
        let oid = std::str::from_utf8(&hex).ok().and_then(|hex| hex.parse::<Oid>().ok());
        found.extend(oid.filter(|oid| oid.to_string().starts_with(prefix)));
    }
    Ok(found)
}

fn open(objects: &Path, oid: Oid) -> Result<Option<(Kind, u64, Inflated)>, ReadError> {
    let file = match open_regular(&path_of(objects, oid)) {
        Err(OpenError::Missing { .. }) => return Ok(None),
        other => other?,
    };
    let mut inflated = ZlibDecoder::new(BufReader::new(file));
    let header = read_header(&mut inflated).map_err(|error| damaged(&error.to_string()))?;
    let (kind, size, _) =
        gix::objs::decode::loose_header(&header).map_err(|error| damaged(&error.to_string()))?;
    Ok(Some((kind, size, inflated)))
}

/// Everything up to the first NUL, and no byte of the body.
fn read_header(inflated: &mut Inflated) -> std::io::Result<Vec<u8>> {
    let mut header = Vec::with_capacity(HEADER_MAX);
    let mut byte = [0];
    while header.len() < HEADER_MAX && header.last() != Some(&0) {
        inflated.read_exact(&mut byte)?;
        header.push(byte[0]);
    }
    Ok(header)
}

fn path_of(objects: &Path, oid: Oid) -> PathBuf {
    let hex = oid.to_string();
    objects.join(&hex[..2]).join(&hex[2..])
}

fn damaged(reason: &str) -> ReadError {
    ReadError::Damaged(format!("its loose object is damaged: {reason}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn stored(objects: &Path, oid: Oid, plain: &[u8]) {
        let path = path_of(objects, oid);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut deflated = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        deflated.write_all(plain).unwrap();
        fs::write(path, deflated.finish().unwrap()).unwrap();
    }

    fn body(plain: &[u8]) -> Result<Option<(Kind, Vec<u8>)>, ReadError> {
        let dir = tempfile::tempdir().unwrap();
        stored(dir.path(), Oid::EMPTY_TREE, plain);
        object(dir.path(), Oid::EMPTY_TREE)
    }

    #[test]
    fn an_object_is_exactly_as_long_as_its_header_says() {
        assert_eq!(body(b"blob 3\0abc"), Ok(Some((Kind::Blob, b"abc".to_vec()))));
        assert_eq!(body(b"tree 0\0"), Ok(Some((Kind::Tree, Vec::new()))));
        for wrong in [&b"blob 2\0abc"[..], b"blob 4\0abc", b"blob 18446744073709551615\0abc"] {
            assert!(matches!(body(wrong), Err(ReadError::Damaged(_))), "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn a_header_that_is_none_is_damage() {
        for wrong in
            [&b""[..], b"blob", b"blob 3", b"blob x\0abc", b"blub 3\0abc", b"blob -1\0", &[b'b'; 100]]
        {
            assert!(matches!(body(wrong), Err(ReadError::Damaged(_))), "{}", wrong.escape_ascii());
        }
        let dir = tempfile::tempdir().unwrap();
        let path = path_of(dir.path(), Oid::EMPTY_TREE);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, b"not deflated").unwrap();
        assert!(matches!(header(dir.path(), Oid::EMPTY_TREE), Err(ReadError::Damaged(_))));
        assert_eq!(header(&dir.path().join("absent"), Oid::EMPTY_TREE), Ok(None));
    }

    #[test]
    fn a_giant_that_only_the_header_claims_takes_no_memory() {
        let error = body(b"blob 1073741825\0abc").unwrap_err();
        let shown = "it is a blob of 1073741825 bytes; at most 1073741824 are read";
        assert_eq!(error, ReadError::Damaged(shown.to_owned()));
        assert!(matches!(body(b"blob 1073741824\0abc"), Err(ReadError::Damaged(_))));
    }
}
