use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;

fn message(opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let header = InHeader {
        len: u32::try_from(40 + body.len()).unwrap(),
        opcode,
        unique: 8,
        nodeid: node,
        uid: 1000,
        gid: 100,
        pid: 77,
        total_extlen: 0,
        padding: 0,
    };
    [header.as_bytes(), body].concat()
}

fn read_in(offset: u64, size: u32) -> Vec<u8> {
    let read = ReadIn { fh: 0, offset, size, read_flags: 0, lock_owner: 0, flags: 0, padding: 0 };
    read.as_bytes().to_vec()
}

fn check(message: &[u8], expected: Result<Wish<'_>, DecodeError>) {
    assert_eq!(request(message).map(|request| request.wish), expected);
}

#[test]
fn a_lookup_is_decoded_from_these_bytes() {
    #[rustfmt::skip]
    let bytes = [
        44, 0, 0, 0,             1, 0, 0, 0, // length, LOOKUP
        6, 0, 0, 0, 0, 0, 0, 0x80,           // unique, sent again
        5, 0, 0, 0, 0, 0, 0, 0,              // node
        0xe8, 3, 0, 0,           100, 0, 0, 0, // uid, gid
        77, 0, 0, 0,             0, 0, 0, 0, // pid, extensions
        b'a', b'.', b'c', 0,
    ];
    if cfg!(target_endian = "big") {
        return; // the protocol is in the machine's order; the bytes above are little-endian
    }
    let request = request(&bytes).unwrap();
    assert_eq!(request.wish, Wish::Ask(Question::Lookup { parent: 5, name: b"a.c" }));
    assert_eq!(request.header.unique, 0x8000_0000_0000_0006);
    assert_eq!((request.header.uid, request.header.gid, request.header.pid), (1000, 100, 77));
    assert_eq!(request.name, "LOOKUP");
}

#[test]
fn every_question_is_decoded() {
    let getattr = GetAttrIn { getattr_flags: 1, dummy: 0, fh: 9 };
    check(&message(3, 5, getattr.as_bytes()), Ok(Wish::Ask(Question::GetAttr { node: 5 })));
    check(&message(5, 5, &[]), Ok(Wish::Ask(Question::ReadLink { node: 5 })));
    let read = Question::Read { node: 5, offset: 4096, size: MAX_ANSWER };
    check(&message(15, 5, &read_in(4096, MAX_ANSWER)), Ok(Wish::Ask(read)));
    let plain = Question::ReadDir { node: 5, offset: 3, size: 4096, plus: false };
    check(&message(28, 5, &read_in(3, 4096)), Ok(Wish::Ask(plain)));
    let plus = Question::ReadDir { node: 5, offset: 3, size: 4096, plus: true };
    check(&message(44, 5, &read_in(3, 4096)), Ok(Wish::Ask(plus)));
    check(&message(17, 1, &[]), Ok(Wish::Ask(Question::StatFs)));
}

#[test]
fn the_file_system_is_asked_about_nothing_that_is_not_decoded() {
    let asked: Vec<_> =
        policy::TABLE.iter().filter(|row| row.policy == Policy::Ask).map(|row| row.opcode).collect();
    assert_eq!(
        asked,
        [op::LOOKUP, op::GETATTR, op::READLINK, op::READ, op::STATFS, op::READDIR, op::READDIRPLUS]
    );
}

#[test]
fn the_rest_is_decoded_to_its_policy() {
    check(&message(36, 0, &42u64.to_ne_bytes()), Ok(Wish::Interrupt(42)));
    check(&message(2, 5, &1u64.to_ne_bytes()), Ok(Wish::Silent));
    check(&message(18, 5, &[]), Ok(Wish::Done));
    check(&message(14, 5, &[0; 8]), Ok(Wish::Refuse(libc::ENOSYS)));
    check(&message(9, 5, b"x\0"), Ok(Wish::Refuse(libc::EROFS)));
    check(&message(999, 5, &[]), Ok(Wish::Refuse(libc::EOPNOTSUPP)));
}

#[test]
fn init_has_64_flags_only_when_it_says_so() {
    let old = [7u32, 38, 131_072, 0x3];
    let offer = Offer { major: 7, minor: 38, max_readahead: 131_072, flags: 3 };
    check(&message(26, 0, old.as_bytes()), Ok(Wish::Init(offer)));
    let mut new = [0u32; 16];
    new[..5].copy_from_slice(&[7, 41, 131_072, 0x4000_0001, 0x180]);
    let offer = Offer { major: 7, minor: 41, max_readahead: 131_072, flags: 0x180_4000_0001 };
    check(&message(26, 0, new.as_bytes()), Ok(Wish::Init(offer)));
    new[3] = 1; // the second word is there but does not count
    let offer = Offer { major: 7, minor: 41, max_readahead: 131_072, flags: 1 };
    check(&message(26, 0, new.as_bytes()), Ok(Wish::Init(offer)));
    check(&message(26, 0, &new.as_bytes()[..12]), Err(DecodeError::Short { name: "INIT" }));
    let cut = [7u32, 41, 0, 0x4000_0000];
    check(&message(26, 0, cut.as_bytes()), Err(DecodeError::Short { name: "INIT" }));
}

#[test]
fn a_message_without_a_header_is_none() {
    for got in [0, 1, 39] {
        check(&message(1, 5, b"x\0")[..got], Err(DecodeError::NoHeader { got }));
    }
}

#[test]
fn a_length_that_disagrees_is_refused() {
    let whole = message(1, 5, b"x\0");
    check(&whole[..41], Err(DecodeError::Length { got: 41, says: 42 }));
    check(&[&whole[..], &[0]].concat(), Err(DecodeError::Length { got: 43, says: 42 }));
}

#[test]
fn malformed_names_are_refused() {
    let long = [&[b'a'; 4096][..], &[0]].concat();
    for name in [&b""[..], b"\0", b"x", b"a\0b\0", b"a/b\0", &long] {
        check(&message(1, 5, name), Err(DecodeError::Name { name: "LOOKUP" }));
    }
    let longest = [&[0xff; 4095][..], &[0]].concat();
    let question = Question::Lookup { parent: 5, name: &longest[..4095] };
    check(&message(1, 5, &longest), Ok(Wish::Ask(question)));
}

#[test]
fn short_bodies_are_refused() {
    check(&message(15, 5, &[0; 39]), Err(DecodeError::Short { name: "READ" }));
    check(&message(44, 5, &[]), Err(DecodeError::Short { name: "READDIRPLUS" }));
    check(&message(3, 5, &[0; 15]), Err(DecodeError::Short { name: "GETATTR" }));
    check(&message(36, 5, &[0; 7]), Err(DecodeError::Short { name: "INTERRUPT" }));
}

#[test]
fn more_bytes_than_were_negotiated_are_refused() {
    let size = MAX_ANSWER + 1;
    check(&message(15, 5, &read_in(0, size)), Err(DecodeError::Size { name: "READ", size }));
    check(&message(28, 5, &read_in(0, u32::MAX)), Err(DecodeError::Size { name: "READDIR", size: u32::MAX }));
}

#[test]
fn extensions_are_no_part_of_the_body() {
    let mut with = message(1, 5, b"name\0extended");
    with[36..38].copy_from_slice(&1u16.to_ne_bytes());
    check(&with, Ok(Wish::Ask(Question::Lookup { parent: 5, name: b"name" })));
    with[36..38].copy_from_slice(&2u16.to_ne_bytes());
    check(&with, Err(DecodeError::Short { name: "LOOKUP" }));
}

proptest! {
    #[test]
    fn any_bytes_give_a_request_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = request(&bytes);
    }

    #[test]
    fn any_body_under_a_fitting_header_gives_a_request_or_an_error(
        opcode in prop_oneof![0u32..60, any::<u32>()],
        extensions in prop_oneof![Just(0u16), any::<u16>()],
        body in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let mut bytes = message(opcode, 1, &body);
        bytes[36..38].copy_from_slice(&extensions.to_ne_bytes());
        if let Ok(Request { wish: Wish::Ask(Question::Lookup { name, .. }), .. }) = request(&bytes) {
            prop_assert!(!name.is_empty() && !name.contains(&0) && !name.contains(&b'/'));
        }
    }

    #[test]
    fn a_valid_message_with_some_bytes_changed_gives_a_request_or_an_error(
        which in 0usize..4,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let valid = [
            message(1, 5, b"name\0"),
            message(15, 5, &read_in(0, 4096)),
            message(44, 5, &read_in(0, 4096)),
            message(26, 0, &[7; 64]),
        ];
        let mut bytes = valid[which].clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = request(&bytes);
    }

    #[test]
    fn every_good_name_comes_back(name in prop::collection::vec(any::<u8>(), 1..300)) {
        prop_assume!(!name.contains(&0) && !name.contains(&b'/'));
        let bytes = message(1, 5, &[&name[..], &[0]].concat());
        let wish = request(&bytes).map(|request| request.wish);
        prop_assert_eq!(wish, Ok(Wish::Ask(Question::Lookup { parent: 5, name: &name })));
    }
}
