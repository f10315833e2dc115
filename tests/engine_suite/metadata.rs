//! What a change of one property of a lower file leaves of the others.

use crate::{Case, Family, OK, Outcome, cases, place::Place, support::ALICE, table};

const TREE: &str = r#"
    for name in chmod chown utimens truncate grow write append opened xattr linked acl; do
        echo content of $name > $name; echo 'other content' > $name.x; chmod 755 $name.x
    done
    mkdir -p dir/sub; echo x > dir/sub/f; ln -s chmod link; head -c 200000 /dev/zero | tr '\0' 'a' > large
"#;

const CASES: &[Case] = cases![
    chmod_keeps_all_but_the_mode,
    chown_keeps_all_but_the_owner,
    utimens_keeps_all_but_the_times,
    truncate_keeps_mode_and_owner,
    growing_fills_with_zeros,
    writing_keeps_mode_owner_and_attributes,
    opening_for_writing_changes_nothing,
    attributes_keep_all_but_ctime,
    a_link_keeps_all_but_the_count,
    directories_keep_all_but_what_is_set,
    a_symlinks_own_times_and_owner_can_be_set,
    all_of_it_is_the_same_after_a_remount,
];

#[test]
fn metadata_is_kept() {
    table::check(&Family {
        title: "Metadata",
        tree: TREE.to_owned(),
        users: &[ALICE],
        kept: false,
        cases: CASES,
    });
}

/// What the cases look at; `but` says what may have changed.
const KEEPS: &str = r#"
def look(path):
    found = os.lstat(path)
    content = get(path) if stat.S_ISREG(found.st_mode) else None
    attributes = sorted(os.listxattr(path)) if refused(os.listxattr, path) == "allowed" else []
    return dict(mode=found.st_mode, uid=found.st_uid, gid=found.st_gid, mtime=found.st_mtime_ns, size=found.st_size,
                nlink=found.st_nlink, content=content, attributes=attributes)
def keeps(path, change, **but):
    before = look(path); change(); after = look(path)
    for name, value in but.items():
        if value is not None: same(after[name], value)
        before[name] = after[name]
    same(after, before)
"#;

fn keeps(place: &Place, uid: u32, program: &str) -> Outcome {
    place.python_as(uid, &format!("{KEEPS}{program}"))
}

fn chmod_keeps_all_but_the_mode(place: &Place) -> Outcome {
    keeps(
        place,
        place.uid,
        r#"
for mode in (0o600, 0o4711, 0): keeps("chmod", lambda: os.chmod("chmod", mode), mode=0o100000 | mode) if mode else None
keeps("chmod.x", lambda: os.chmod("chmod.x", 0o644), mode=0o100644)
keeps("large", lambda: os.chmod("large", 0o640), mode=0o100640)
"#,
    )
}

fn chown_keeps_all_but_the_owner(place: &Place) -> Outcome {
    keeps(
        place,
        0,
        r#"
keeps("chown", lambda: os.chown("chown", 12, 34), uid=12, gid=34)
keeps("chown", lambda: os.chown("chown", 56, -1), uid=56)
keeps("chown", lambda: os.chown("chown", -1, 78), gid=78)
# An executable file's setuid bit goes with its owner, as POSIX has it.
os.chmod("chown.x", 0o6755)
keeps("chown.x", lambda: os.chown("chown.x", 12, 34), uid=12, gid=34, mode=0o100755)
"#,
    )?;
    keeps(
        place,
        place.uid,
        r#"
same(refused(os.chown, "large", 0, -1), "EPERM")
same(refused(os.chmod, "chown", 0o600), "EPERM")
keeps("large", lambda: os.chown("large", os.getuid(), os.getgid()))
"#,
    )
}

fn utimens_keeps_all_but_the_times(place: &Place) -> Outcome {
    keeps(
        place,
        place.uid,
        r#"
keeps("utimens", lambda: os.utime("utimens", ns=(1, 1234567890123456789)), mtime=1234567890123456789)
keeps("utimens.x", lambda: os.utime("utimens.x", ns=(5, 7)), mtime=7)
os.utime("utimens.x", ns=(5, 8)); same(os.stat("utimens.x").st_atime_ns, 5)
begin = time.time_ns(); keeps("utimens.x", lambda: os.utime("utimens.x"), mtime=None)
assert os.stat("utimens.x").st_mtime_ns >= begin - 20_000_000
"#,
    )
}

fn truncate_keeps_mode_and_owner(place: &Place) -> Outcome {
    keeps(
        place,
        place.uid,
        r#"
keeps("truncate", lambda: os.truncate("truncate", 7), size=7, content="content", mtime=None)
keeps("truncate.x", lambda: os.close(os.open("truncate.x", os.O_WRONLY | os.O_TRUNC)), size=0, content="", mtime=None)
"#,
    )
}

fn growing_fills_with_zeros(place: &Place) -> Outcome {
    keeps(
        place,
        place.uid,
        r#"
old = get("grow")
keeps("grow", lambda: os.truncate("grow", 100_000), size=100_000, content=old + "\0" * (100_000 - len(old)), mtime=None)
"#,
    )
}

fn writing_keeps_mode_owner_and_attributes(place: &Place) -> Outcome {
    keeps(
        place,
        place.uid,
        r#"
before = os.stat("write").st_mtime_ns
os.setxattr("write", "user.kept", b"yes")  # the metadata alone goes up here, the content with the write
keeps("write", lambda: append("write", "more\n"), size=22, content="content of write\nmore\n", mtime=None)
same(os.getxattr("write", "user.kept"), b"yes")
assert os.stat("write").st_mtime_ns > before
keeps("write.x", lambda: append("write.x", "!"), size=15, content="other content\n!", mtime=None)
"#,
    )
}

fn opening_for_writing_changes_nothing(place: &Place) -> Outcome {
    keeps(
        place,
        place.uid,
        r#"
for name in ("opened", "opened.x"):
    keeps(name, lambda: os.close(os.open(name, os.O_RDWR)))
    keeps(name, lambda: os.close(os.open(name, os.O_RDWR | os.O_APPEND)))
"#,
    )
}

fn attributes_keep_all_but_ctime(place: &Place) -> Outcome {
    keeps(
        place,
        place.uid,
        r#"
keeps("xattr", lambda: os.setxattr("xattr", "user.a", b"1" * 1000), attributes=["user.a"])
keeps("xattr", lambda: os.setxattr("xattr", "user.b", b""), attributes=["user.a", "user.b"])
same(refused(lambda: os.setxattr("xattr", "user.a", b"2", os.XATTR_CREATE)), "EEXIST")
same(refused(lambda: os.setxattr("xattr", "user.c", b"2", os.XATTR_REPLACE)), "ENODATA")
keeps("xattr", lambda: os.removexattr("xattr", "user.a"), attributes=["user.b"])
same((refused(os.getxattr, "xattr", "user.a"), os.getxattr("xattr", "user.b")), ("ENODATA", b""))
os.setxattr("dir", "user.d", b"1"); same(os.getxattr("dir", "user.d"), b"1")
"#,
    )
}

fn a_link_keeps_all_but_the_count(place: &Place) -> Outcome {
    keeps(
        place,
        place.uid,
        r#"
keeps("linked", lambda: os.link("linked", "dir/linked"), nlink=2)
same(look("linked"), look("dir/linked"))
keeps("linked", lambda: os.unlink("dir/linked"), nlink=1)
"#,
    )
}

fn directories_keep_all_but_what_is_set(place: &Place) -> Outcome {
    keeps(
        place,
        place.uid,
        r#"
keeps("dir", lambda: os.chmod("dir", 0o700), mode=0o040700, size=None, nlink=None)
keeps("dir", lambda: os.utime("dir", ns=(1, 2)), mtime=2)
before = os.stat("dir/sub").st_mtime_ns
append("dir/sub/f", "more")
same(os.stat("dir/sub").st_mtime_ns, before)  # a copy-up in it is no change of it
put("dir/sub/new", "x")
assert os.stat("dir/sub").st_mtime_ns > before
same(os.stat("dir").st_mtime_ns, 2)
"#,
    )
}

fn a_symlinks_own_times_and_owner_can_be_set(place: &Place) -> Outcome {
    keeps(
        place,
        0,
        r#"
keeps("link", lambda: os.utime("link", ns=(3, 4), follow_symlinks=False), mtime=4)
keeps("link", lambda: os.chown("link", 12, 34, follow_symlinks=False), uid=12, gid=34)
same((os.readlink("link"), os.stat("link").st_uid != 12), ("chmod", True))
"#,
    )
}

fn all_of_it_is_the_same_after_a_remount(place: &Place) -> Outcome {
    let attributes = "getfattr -d -R . 2>/dev/null | LC_ALL=C sort";
    let before = (place.everything(), place.sh(attributes)?);
    place.mount_again();
    let after = (place.everything(), place.sh(attributes)?);
    crate::names::compare(&before.0, &after.0)?;
    crate::names::compare(&before.1, &after.1)?;
    Ok(OK.to_owned())
}
