use proptest::prelude::*;

use super::*;
use crate::fusedev::encode::Ttl;

/// An hour.
fn stamp() -> Stamp {
    Stamp { ttl: Ttl::new(std::time::Duration::from_secs(3600)), generation: 6 }
}

/// An entry as the kernel would read it back.
#[derive(Debug, PartialEq)]
struct Seen {
    ino: u64,
    next: u64,
    kind: u32,
    name: Vec<u8>,
    entry: Option<EntryOut>,
}

/// Reads a listing as the kernel does.
fn parse(mut bytes: &[u8], plus: bool) -> Vec<Seen> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let mut entry = None;
        let mut length = 0;
        if plus {
            entry = Some(EntryOut::read_from_prefix(bytes).unwrap().0);
            length += 128;
        }
        let dirent = Dirent::read_from_prefix(&bytes[length..]).unwrap().0;
        let end = length + 24 + dirent.namelen as usize;
        let name = bytes[length + 24..end].to_vec();
        all.push(Seen { ino: dirent.ino, next: dirent.off, kind: dirent.kind, name, entry });
        assert!(bytes[end..end.next_multiple_of(8)].iter().all(|byte| *byte == 0));
        bytes = &bytes[end.next_multiple_of(8)..];
    }
    all
}

fn attr(ino: u64) -> FileAttr {
    FileAttr { ino, size: 5, mtime: 7, mode: 0o100_755, nlink: 1, uid: 0, gid: 0 }
}

#[test]
#[cfg(target_endian = "little")]
fn a_plain_entry_has_these_bytes() {
    let mut buffer = DirBuffer::new(4096, false);
    assert!(buffer.push(0x99, 3, 0o040_755, b"dir", Some(attr(0x99))));
    #[rustfmt::skip]
    let expected = [
        0x99, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0,
        3, 0, 0, 0, 4, 0, 0, 0, b'd', b'i', b'r', 0, 0, 0, 0, 0,
    ];
    assert_eq!(&buffer.finish(stamp())[..], expected);
}

#[test]
fn a_readdirplus_entry_without_attributes_is_a_plain_name() {
    let mut buffer = DirBuffer::new(4096, true);
    assert!(buffer.push(7, 1, 0o120_777, b"link", None));
    let seen = parse(&buffer.finish(stamp()), true);
    let expected =
        Seen { ino: 7, next: 1, kind: 10, name: b"link".to_vec(), entry: Some(EntryOut::default()) };
    assert_eq!(seen, [expected]);
}

#[test]
fn entries_with_attributes_have_the_time_and_the_generation_of_the_session() {
    let mut buffer = DirBuffer::new(4096, true);
    assert!(buffer.push(7, 1, 0o100_644, b"a", Some(attr(7))));
    assert!(buffer.push(8, 2, 0o100_644, b"b", None));
    assert!(buffer.push(9, 3, 0o100_644, b"c", Some(attr(9))));
    let seen = parse(&buffer.finish(stamp()), true);
    let valid: Vec<_> = seen
        .iter()
        .map(|seen| seen.entry.unwrap())
        .map(|e| (e.nodeid, e.generation, e.entry_valid))
        .collect();
    assert_eq!(valid, [(7, 6, 3600), (0, 0, 0), (9, 6, 3600)]);
    assert_eq!(seen[0].entry, Some(entry(Some(attr(7)), stamp())));
}

#[test]
fn an_entry_that_fills_the_room_fits_and_one_more_byte_does_not() {
    for (plus, room) in [(false, 32), (true, 160)] {
        assert!(DirBuffer::new(room, plus).push(2, 1, 0, b"12345678", None));
        assert!(!DirBuffer::new(room, plus).push(2, 1, 0, b"123456789", None));
        assert!(!DirBuffer::new(room - 1, plus).push(2, 1, 0, b"12345678", None));
        let mut full = DirBuffer::new(room, plus);
        assert!(full.push(2, 1, 0, b"x", None));
        assert!(!full.push(3, 2, 0, b"y", None));
        assert_eq!(parse(&full.finish(Stamp::NONE), plus).len(), 1);
    }
}

#[test]
fn names_that_no_directory_can_hold_are_left_out() {
    let mut buffer = DirBuffer::new(4096, false);
    for name in [&b""[..], b"a/b", b"a\0", &[b'x'; 256]] {
        assert!(buffer.push(2, 1, 0, name, None));
    }
    assert!(buffer.is_empty());
    assert!(buffer.push(2, 1, 0, &[b'x'; 255], None));
    assert!(!buffer.is_empty());
}

#[test]
fn nobody_gets_a_larger_room_than_was_negotiated() {
    let mut buffer = DirBuffer::new(u32::MAX, false);
    let mut entries = 0;
    while buffer.push(2, entries + 1, 0, &[b'x'; 255], None) {
        entries += 1;
    }
    assert_eq!(entries, (1 << 20) / 280);
}

proptest! {
    #[test]
    fn what_fits_comes_back_and_the_room_is_kept(
        room in 0u32..2000,
        plus in any::<bool>(),
        names in prop::collection::vec((prop::collection::vec(1u8.., 1..256), any::<bool>()), 0..20),
    ) {
        let mut buffer = DirBuffer::new(room, plus);
        let mut expected = Vec::new();
        for (number, (name, known)) in names.iter().filter(|(name, _)| !name.contains(&b'/')).enumerate() {
            let ino = number as u64 + 2;
            let found = known.then(|| attr(ino));
            if !buffer.push(ino, ino + 1, 0o100_644, name, found) {
                break;
            }
            let found = found.map_or(EntryOut::default(), |found| entry(Some(found), stamp()));
            expected.push(Seen {
                ino, next: ino + 1, kind: 8, name: name.clone(), entry: plus.then_some(found),
            });
        }
        let bytes = buffer.finish(stamp());
        prop_assert!(bytes.len() <= room as usize);
        prop_assert_eq!(parse(&bytes, plus), expected);
    }
}
