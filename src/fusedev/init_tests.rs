use super::*;

const PAGE: usize = 4096;

/// What Linux 6.18 offers, more or less: everything.
const ALL: Offer = Offer { major: 7, minor: 45, max_readahead: 131_072, flags: u64::MAX };

const PLAIN: Features = Features { idmap: false, replay: Replay::Auto, generation: 0x0a0b_0c0d };
const IDMAP: Features = Features { idmap: true, ..PLAIN };

fn lack(offer: Offer, features: Features) -> String {
    negotiate(&offer, features, PAGE).unwrap_err()
}

#[test]
fn the_answer_to_a_kernel_that_offers_everything_is_this() {
    let (agreed, answer) = negotiate(&ALL, IDMAP, PAGE).unwrap();
    let flags = 1 | 3 << 13 | 1 << 17 | 1 << 18 | 15 << 22 | 1 << 30 | 7 << 38;
    assert_eq!(agreed, Negotiated { minor: 41, flags, generation: 0x0a0b_0c0d });
    assert_eq!(
        answer,
        InitOut {
            major: 7,
            minor: 41,
            max_readahead: 131_072,
            flags: 0x43c6_6001,
            max_background: 65_535,
            congestion_threshold: 65_535,
            max_write: 4096,
            time_gran: 1_000_000_000,
            max_pages: 256,
            map_alignment: 0,
            flags2: 0x1c0,
            max_stack_depth: 0,
            request_timeout: 0,
            unused: [0; 11],
        }
    );
}

#[test]
fn what_must_not_be_set_is_never_set() {
    let (agreed, _) = negotiate(&ALL, PLAIN, PAGE).unwrap();
    for (name, bit) in [
        ("EXPORT_SUPPORT", flag::EXPORT_SUPPORT),
        ("WRITEBACK_CACHE", flag::WRITEBACK_CACHE),
        ("POSIX_LOCKS", flag::POSIX_LOCKS),
        ("ALLOW_IDMAP", flag::ALLOW_IDMAP),
    ] {
        assert_eq!(agreed.flags & bit, 0, "{name}");
    }
}

#[test]
fn only_what_is_offered_is_set() {
    let needed = flag::NO_OPEN_SUPPORT | flag::NO_OPENDIR_SUPPORT | flag::MAX_PAGES;
    let offer = Offer { minor: 38, flags: needed | flag::POSIX_LOCKS, ..ALL };
    let (agreed, answer) = negotiate(&offer, PLAIN, PAGE).unwrap();
    assert_eq!(agreed, Negotiated { minor: 38, flags: needed, generation: 0x0a0b_0c0d });
    assert!(!agreed.has_resend());
    assert_eq!((u64::from(answer.flags), answer.flags2), (needed, 0));
    assert_eq!(answer.minor, 38);
}

#[test]
fn a_kernel_that_lacks_something_needed_is_refused_by_name() {
    for (bit, name) in [
        (flag::NO_OPEN_SUPPORT, "FUSE_NO_OPEN_SUPPORT"),
        (flag::NO_OPENDIR_SUPPORT, "FUSE_NO_OPENDIR_SUPPORT"),
        (flag::MAX_PAGES, "FUSE_MAX_PAGES"),
    ] {
        let said = lack(Offer { flags: !bit, ..ALL }, PLAIN);
        assert!(said.contains(name), "{said}");
    }
}

#[test]
fn idmapped_mounts_are_needed_only_when_asked_for() {
    let without = Offer { flags: !flag::ALLOW_IDMAP, ..ALL };
    assert!(negotiate(&without, PLAIN, PAGE).is_ok());
    assert_eq!(
        lack(without, IDMAP),
        "does not offer idmapped mounts (FUSE_ALLOW_IDMAP, Linux 6.12 or newer)"
    );
}

#[test]
fn other_protocols_are_refused() {
    for (major, minor) in [(6, 50), (8, 0), (7, 30), (0, 0), (u32::MAX, u32::MAX)] {
        let said = lack(Offer { major, minor, ..ALL }, PLAIN);
        assert!(said.starts_with(&format!("speaks protocol {major}.{minor};")), "{said}");
    }
    assert!(negotiate(&Offer { minor: 31, ..ALL }, PLAIN, PAGE).is_ok());
}

#[test]
fn the_longest_read_has_a_mebibyte_whatever_a_page_is() {
    for (page, pages) in [(4096, 256), (16_384, 64), (65_536, 16), (1, 256), (usize::MAX, 1)] {
        assert_eq!(max_pages(page), pages, "{page}");
    }
}

const AGREED: Negotiated = Negotiated { minor: 41, flags: 0x1c0_43c6_6001, generation: 0x0a0b_0c0d };

fn sealed(record: &[u8]) -> Vec<u8> {
    [record, &crc32fast::hash(record).to_le_bytes()].concat()
}

#[test]
fn a_record_has_these_bytes_and_reads_back() {
    let record = AGREED.to_bytes();
    let bytes = b"SFUS\x02\0\0\0\x29\0\0\0\x01\x60\xc6\x43\xc0\x01\0\0\x0d\x0c\x0b\x0a";
    assert_eq!(record[..], sealed(bytes));
    assert_eq!(Negotiated::from_bytes(&record), Ok(AGREED));
}

#[test]
fn a_record_from_before_generations_reads_as_one_of_generation_0() {
    let record = sealed(b"SFUS\x01\0\0\0\x29\0\0\0\x01\x60\xc6\x43\xc0\x01\0\0");
    assert_eq!(record.len(), 24);
    assert_eq!(Negotiated::from_bytes(&record), Ok(Negotiated { generation: 0, ..AGREED }));
}

#[test]
fn every_flipped_bit_of_a_record_is_noticed() {
    let record = AGREED.to_bytes();
    for bit in 0..record.len() * 8 {
        let mut damaged = record;
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Negotiated::from_bytes(&damaged), Err(NegotiatedError::Damaged), "bit {bit}");
    }
}

#[test]
fn a_record_of_another_length_is_damaged() {
    let record = AGREED.to_bytes();
    assert_eq!(Negotiated::from_bytes(&[]), Err(NegotiatedError::Damaged));
    for cut in 0..record.len() {
        assert_eq!(Negotiated::from_bytes(&record[..cut]), Err(NegotiatedError::Damaged), "{cut}");
    }
    assert_eq!(Negotiated::from_bytes(&[&record[..], &[0]].concat()), Err(NegotiatedError::Damaged));
}

#[test]
fn a_session_under_another_contract_is_not_gone_on_with() {
    for (contract, length) in [(0u8, 24), (2, 24), (3, 24), (1, 20), (1, 28), (3, 28), (255, 28)] {
        let mut record = AGREED.to_bytes()[..length - 4].to_vec();
        record[4] = contract;
        let expected = match length {
            20 => NegotiatedError::Damaged,
            _ => NegotiatedError::Contract(contract.into()),
        };
        assert_eq!(Negotiated::from_bytes(&sealed(&record)), Err(expected), "{contract} {length}");
    }
}
