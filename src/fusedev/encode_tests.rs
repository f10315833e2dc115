use super::*;
use crate::fusedev::DirBuffer;

const HOUR: Stamp = Stamp { ttl: Ttl { secs: 3600, nanos: 5 }, generation: 0xffff_fff6 };

const FILE: FileAttr =
    FileAttr { ino: 0x1234, size: 1025, mtime: -2, mode: 0o100_644, nlink: 1, uid: 3, gid: 4 };

/// Little-endian words, as a readable way to say what bytes are expected.
fn words(expected: &[(u64, usize)]) -> Vec<u8> {
    expected.iter().flat_map(|(value, size)| value.to_le_bytes()[..*size].to_vec()).collect()
}

fn attr_words() -> Vec<(u64, usize)> {
    let time = (-2i64).cast_unsigned();
    vec![
        (0x1234, 8),
        (1025, 8),
        (3, 8), // ino, size, blocks of 512
        (time, 8),
        (time, 8),
        (time, 8),
        (0, 4),
        (0, 4),
        (0, 4), // nanoseconds
        (0o100_644, 4),
        (1, 4),
        (3, 4),
        (4, 4), // mode, nlink, uid, gid
        (0, 4),
        (4096, 4),
        (0, 4), // rdev, blksize, flags
    ]
}

fn body(shape: Shape, answer: Answer) -> Vec<u8> {
    reply(shape, answer, HOUR).unwrap().parts(1).1.to_vec()
}

fn fault(shape: Shape, answer: Answer) -> Fault {
    reply(shape, answer, HOUR).unwrap_err()
}

#[test]
#[cfg(target_endian = "little")]
fn an_entry_has_these_bytes() {
    let mut expected = vec![(0x1234, 8), (0xffff_fff6, 8), (3600, 8), (3600, 8), (5, 4), (5, 4)];
    expected.extend(attr_words());
    assert_eq!(body(Shape::Lookup, Answer::Entry(FILE)), words(&expected));
}

#[test]
#[cfg(target_endian = "little")]
fn an_entry_of_unknown_size_is_a_lasting_name_with_expired_attributes_and_seems_larger_than_all_files() {
    let mut expected = vec![(0x1234, 8), (0xffff_fff6, 8), (3600, 8), (0, 8), (5, 4), (0, 4)];
    expected.extend(attr_words());
    expected[7] = (1 << 62, 8);
    expected[8] = (1 << 53, 8);
    assert_eq!(body(Shape::Lookup, Answer::Unsized(FILE)), words(&expected));
    assert!(i64::try_from(UNKNOWN_SIZE).is_ok(), "the kernel refuses a size that is negative to it");
}

#[test]
#[cfg(target_endian = "little")]
fn attributes_have_these_bytes() {
    let mut expected = vec![(3600, 8), (5, 4), (0, 4)];
    expected.extend(attr_words());
    assert_eq!(body(Shape::GetAttr, Answer::Attr(FILE)), words(&expected));
}

#[test]
#[cfg(target_endian = "little")]
fn a_missing_name_is_an_entry_without_a_node_that_stays_valid() {
    let mut expected = words(&[(0, 8), (0xffff_fff6, 8), (3600, 8), (3600, 8), (5, 4), (5, 4)]);
    expected.resize(128, 0);
    assert_eq!(body(Shape::Lookup, Answer::NoEntry), expected);
}

#[test]
fn the_header_echoes_unique_and_carries_the_negative_errno() {
    let resent = 1 << 63 | 6;
    let failure = Reply::errno(libc::ENOENT);
    let (header, body) = failure.parts(resent);
    assert_eq!(header, OutHeader { len: 16, error: -libc::ENOENT, unique: resent });
    assert_eq!(body, b"");
    let data = reply(Shape::Read { size: 3 }, Answer::Data("abc".into()), HOUR).unwrap();
    let (header, body) = data.parts(6);
    assert_eq!(header, OutHeader { len: 19, error: 0, unique: 6 });
    assert_eq!(body, b"abc");
}

#[test]
fn usage_is_told_in_blocks_with_none_free() {
    let usage = Usage { bytes: 4097, files: 3 };
    let expected =
        StatFsOut { blocks: 2, files: 3, bsize: 4096, frsize: 4096, namelen: 255, ..StatFsOut::default() };
    assert_eq!(body(Shape::StatFs, Answer::StatFs(usage)), expected.as_bytes());
    let nothing = StatFsOut { blocks: 0, files: 0, ..expected };
    assert_eq!(body(Shape::StatFs, Answer::Errno(libc::ENOSYS)), nothing.as_bytes());
}

#[test]
fn more_than_was_asked_for_is_a_fault() {
    let three = Answer::Data("abc".into());
    assert_eq!(fault(Shape::Read { size: 2 }, three.clone()), Fault::Long { got: 3, room: 2 });
    assert_eq!(body(Shape::Read { size: 3 }, three.clone()), b"abc");
    assert_eq!(body(Shape::Read { size: 4 }, three), b"abc");
}

#[test]
fn a_target_that_fills_a_page_is_a_fault() {
    let longest = Bytes::from(vec![b'x'; 4095]);
    assert_eq!(body(Shape::ReadLink, Answer::Data(longest.clone())), longest);
    let longer = Answer::Data(vec![b'x'; 4096].into());
    assert_eq!(fault(Shape::ReadLink, longer), Fault::Long { got: 4096, room: 4095 });
}

#[test]
fn an_answer_to_another_question_is_a_fault() {
    let listing = || Answer::Listing(DirBuffer::new(64, true));
    for (shape, answer) in [
        (Shape::Lookup, Answer::Attr(FILE)),
        (Shape::Lookup, Answer::Data("x".into())),
        (Shape::GetAttr, Answer::Entry(FILE)),
        (Shape::GetAttr, Answer::Unsized(FILE)),
        (Shape::GetAttr, Answer::NoEntry),
        (Shape::ReadLink, listing()),
        (Shape::Read { size: 64 }, Answer::NoEntry),
        (Shape::ReadDir { size: 64, plus: true }, Answer::Data("x".into())),
        (Shape::ReadDir { size: 64, plus: false }, listing()),
        (Shape::StatFs, Answer::Attr(FILE)),
    ] {
        assert_eq!(fault(shape, answer.clone()), Fault::Kind, "{shape:?} {answer:?}");
    }
}

#[test]
fn node_ids_that_mean_something_else_are_a_fault() {
    for ino in [0, 1] {
        let found = FileAttr { ino, ..FILE };
        assert_eq!(fault(Shape::Lookup, Answer::Entry(found)), Fault::Node(ino));
        assert_eq!(fault(Shape::Lookup, Answer::Unsized(found)), Fault::Node(ino));
    }
}

#[test]
fn only_errnos_that_the_kernel_takes_and_forgets_are_passed_on() {
    for errno in [i32::MIN, -5, 0, 512, i32::MAX, libc::ENOSYS] {
        assert_eq!(fault(Shape::Lookup, Answer::Errno(errno)), Fault::Errno(errno));
    }
    for errno in [libc::ENOENT, libc::EIO, 511] {
        assert_eq!(reply(Shape::Lookup, Answer::Errno(errno), HOUR), Ok(Reply::errno(errno)));
    }
}

#[test]
fn for_ever_is_a_time_that_the_kernel_can_reckon_with() {
    let ten_years = Ttl { secs: 315_360_000, nanos: 0 };
    assert_eq!(Ttl::new(Duration::MAX), ten_years);
    assert_eq!(Ttl::new(Duration::from_millis(1500)), Ttl { secs: 1, nanos: 500_000_000 });
    assert_eq!(Ttl::new(Duration::ZERO), Ttl::NONE);
}
