use super::*;
use crate::types::Oid;

pub(crate) fn sample() -> Record {
    Record {
        id: "abcdefghijkm".parse().unwrap(),
        owner: Identity { uid: 1000, gid: 100, groups: vec![27, 100] },
        stored: Ids { uid: 1000, gid: 100 },
        origin: "linux".parse().unwrap(),
        snapshot: Snapshot {
            commit: Oid::from_bytes([0x11; 20]),
            path: "drivers/net".parse().unwrap(),
            tree: Oid::EMPTY_TREE,
        },
        rev: Some("v6.12".into()),
        root_mtime: 1_700_000_000,
        mount_point: "/home/alice/linux".into(),
        stood: Some(Stood {
            point: Some(PointIdentity { dev: 2049, ino: 77 }),
            mount_id: 431,
            boot_id: "boot-1".into(),
        }),
        phase: Phase::Mounted,
        options: Options {
            labels: BTreeMap::from([("team".to_owned(), "net".to_owned())]),
            ttl: Some(Duration::from_secs(3600)),
            mode: Some(0o755),
            ..Options::default()
        },
        created: UNIX_EPOCH + Duration::from_secs(1_700_000_100),
        expires: Some(UNIX_EPOCH + Duration::from_secs(1_700_003_700)),
        works: Works { next: 3, since: 1, boot_id: "boot-1".into() },
    }
}

const BYTES: &str = r#"scorpio-workspace 1 CRC LEN
{
  "id": "abcdefghijkm",
  "uid": 1000,
  "gid": 100,
  "groups": [
    27,
    100
  ],
  "origin": "linux",
  "commit": "1111111111111111111111111111111111111111",
  "path": "drivers/net",
  "tree": "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
  "rev": "v6.12",
  "root_mtime_s": 1700000000,
  "mount_point": "/home/alice/linux",
  "stood": {
    "point": {
      "dev": 2049,
      "ino": 77
    },
    "mount_id": 431,
    "boot_id": "boot-1"
  },
  "phase": "mounted",
  "reason": null,
  "ephemeral": false,
  "read_only": false,
  "labels": {
    "team": "net"
  },
  "ttl_s": 3600,
  "mode": 493,
  "created_s": 1700000100,
  "expires_s": 1700003700,
  "works": {
    "next": 3,
    "since": 1,
    "boot_id": "boot-1"
  }
}
"#;

#[test]
fn version_1_is_these_bytes() {
    let expected = BYTES.replace("CRC", "9716f06d").replace("LEN", "733");
    assert_eq!(String::from_utf8(encode(&sample())).unwrap(), expected);
    assert_eq!(decode(expected.as_bytes()).unwrap(), sample());
}

/// The same workspace, given to somebody else.
fn given() -> Record {
    Record { owner: Identity { uid: 2000, gid: 200, groups: vec![200] }, ..sample() }
}

#[test]
fn version_2_is_these_bytes() {
    let expected = BYTES
        .replace("workspace 1 CRC LEN", "workspace 2 cb93faf6 776")
        .replace("\"uid\": 1000,\n  \"gid\": 100,", "\"uid\": 2000,\n  \"gid\": 200,")
        .replace(
            "    27,\n    100\n  ],\n",
            "    200\n  ],\n  \"stored\": {\n    \"uid\": 1000,\n    \"gid\": 100\n  },\n",
        );
    assert_eq!(String::from_utf8(encode(&given())).unwrap(), expected);
    assert_eq!(decode(expected.as_bytes()).unwrap(), given());
}

/// A release before the second version goes on with what was never given away, and so do we with what it wrote.
#[test]
fn the_old_form_is_read_and_written_while_it_can_say_it() {
    assert!(encode(&sample()).starts_with(b"scorpio-workspace 1 "));
    assert!(encode(&given()).starts_with(b"scorpio-workspace 2 "));
    let old = BYTES.replace("CRC", "9716f06d").replace("LEN", "733");
    assert_eq!(decode(old.as_bytes()).unwrap().stored, Ids { uid: 1000, gid: 100 });
    // Given back, it is in the old form again.
    let back = Record { owner: sample().owner, ..given() };
    assert_eq!(String::from_utf8(encode(&back)).unwrap(), old);
}

fn sealed(version: u32, body: &str) -> Vec<u8> {
    format!("{FORMAT} {version} {:08x} {}\n{body}", crc32fast::hash(body.as_bytes()), body.len()).into_bytes()
}

#[test]
fn each_version_has_its_own_members_only() {
    let body =
        |record: &Record| String::from_utf8(encode(record)).unwrap().split_once('\n').unwrap().1.to_owned();
    for (version, record) in [(1, given()), (2, sample())] {
        let bad = decode(&sealed(version, &body(&record)));
        let reason = format!("these are not the members of version {version}");
        assert_eq!(bad, Err(BadRecord::Content(reason)));
    }
    let nobody = body(&given()).replace("\"uid\": 2000", "\"uid\": 4294967295");
    assert!(matches!(decode(&sealed(2, &nobody)), Err(BadRecord::Content(_))));
}

#[test]
fn every_phase_and_unusual_paths_come_back() {
    let reason = || "the directory is another one".to_owned();
    for phase in [
        Phase::Creating,
        Phase::Mounting,
        Phase::Mounted,
        Phase::Unmounted,
        Phase::Displaced { reason: reason() },
        Phase::Failed { reason: reason() },
    ] {
        let record = Record { phase, ..sample() };
        assert_eq!(decode(&encode(&record)).unwrap(), record);
    }
    let odd = Record {
        mount_point: OsString::from_vec(b"/home/a\xff\n\"\\".to_vec()).into(),
        snapshot: Snapshot { path: RepoPath::parse(b"a/\xfe\xff").unwrap(), ..sample().snapshot },
        rev: None,
        stood: None,
        expires: None,
        options: Options { ephemeral: true, read_only: true, ..Options::default() },
        ..sample()
    };
    assert_eq!(decode(&encode(&odd)).unwrap(), odd);
}

#[test]
fn a_newer_version_is_refused_and_named() {
    let newer = String::from_utf8(encode(&sample())).unwrap().replacen(" 1 ", " 3 ", 1);
    assert_eq!(decode(newer.as_bytes()), Err(BadRecord::Newer(3)));
    assert_eq!(
        BadRecord::Newer(3).to_string(),
        "its record has version 3, and this release reads versions up to 2"
    );
}

#[test]
fn every_flipped_bit_is_noticed() {
    let good = encode(&sample());
    for (byte, bit) in (0..good.len()).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
        let mut bad = good.clone();
        bad[byte] ^= 1 << bit;
        assert!(decode(&bad).is_err(), "bit {bit} of byte {byte}");
    }
}

#[test]
fn every_truncation_and_an_extension_are_noticed() {
    let good = encode(&sample());
    for len in 0..good.len() {
        assert!(decode(&good[..len]).is_err(), "{len} bytes");
    }
    assert_eq!(decode(&[good, b"x".to_vec()].concat()), Err(BadRecord::Length));
}

#[test]
fn sound_bytes_that_say_nonsense_are_refused() {
    let text = String::from_utf8(encode(&sample())).unwrap();
    let body = text.split_once('\n').unwrap().1;
    for (from, to) in [
        ("abcdefghijkm", "../../etc/xx"),
        ("drivers/net", "drivers/../.."),
        ("\"mounted\"", "\"levitating\""),
        ("\"uid\": 1000", "\"uid\": -1"),
        ("1700000100", "18446744073709551615"),
        ("\"next\": 3,", "\"next\": 3, \"surprise\": 1,"),
        ("\"/home/alice/linux\"", "{\"hex\": \"zz\"}"),
    ] {
        let body = body.replace(from, to);
        let bytes = format!("{FORMAT} 1 {:08x} {}\n{body}", crc32fast::hash(body.as_bytes()), body.len());
        assert!(matches!(decode(bytes.as_bytes()), Err(BadRecord::Content(_))), "{to}");
    }
}
