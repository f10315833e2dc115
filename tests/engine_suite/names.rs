//! Many names, none, long ones and odd ones; deep paths.

use crate::{
    Case, Family, OK, Outcome, cases,
    place::{self, Place},
    support::ALICE,
    table,
};

const TREE: &str = r#"
    mkdir many odd; python3 -c '
import os
for n in range(10000): open(f"many/entry-{n:05}", "w").write(f"{n}\n")
for name in (b"with space", b"100%", b"%s%n", b"new\nline", b"\xff\xfe", b"caf\xe9", b"\xc3\xa9", b"e\xcc\x81", b"-rf", b"a" * 255,
             b"\xf0\x9f\x98\x80" * 63, b"back\\slash", b"\x01\x7f", b"...", b" ", b"~", b"quote\"'"'"'`$"):
    open(b"odd/" + name, "wb").write(name)
here = b"."
for n in range(15): here += b"/" + b"d" * 200; os.mkdir(here)
open(here + b"/deep", "w").write("deep\n")
'
    git update-index --add --cacheinfo 160000,1234567890123456789012345678901234567890,empty; mkdir empty
"#;

const CASES: &[Case] = cases![
    ten_thousand_entries_are_listed_once_each,
    a_listing_goes_on_while_entries_come_and_go,
    ten_thousand_entries_are_removed_one_by_one,
    an_empty_directory_is_empty_and_can_be_filled,
    odd_names_lead_to_their_files,
    odd_names_are_changed_renamed_and_removed,
    names_end_at_255_bytes_and_paths_at_4095,
    deep_paths_are_reached,
    names_are_the_same_after_a_remount,
];

#[test]
fn names_are_bytes() {
    table::check(&Family {
        title: "Names",
        tree: TREE.to_owned(),
        users: &[ALICE],
        kept: false,
        cases: CASES,
    });
}

/// That two listings are equal, or the first lines in which they are not.
pub fn compare(before: &str, after: &str) -> Result<(), String> {
    if before == after {
        return Ok(());
    }
    let only = |these: &str, others: &str| {
        let others: std::collections::BTreeSet<_> = others.lines().collect();
        these.lines().filter(|line| !others.contains(line)).take(5).map(str::to_owned).collect::<Vec<_>>()
    };
    Err(format!("before {:?} after {:?}", only(before, after), only(after, before)))
}

fn ten_thousand_entries_are_listed_once_each(place: &Place) -> Outcome {
    place::drop_caches();
    place.python(
        r#"
for _ in range(3):
    same(sorted(os.listdir("many")), [f"entry-{n:05}" for n in range(10000)])
for n in range(0, 10000, 37): same(get(f"many/entry-{n:05}"), f"{n}\n")
same(sum(entry.stat().st_size for entry in os.scandir("many")), sum(len(str(n)) + 1 for n in range(10000)))
"#,
    )
}

fn a_listing_goes_on_while_entries_come_and_go(place: &Place) -> Outcome {
    place.python(
        r#"
with os.scandir("many") as listing:
    seen = [next(listing).name for _ in range(10)]
    put("many/new", "x"); os.unlink("many/entry-09999"); os.rename("many/entry-05000", "many/renamed")
    seen += [entry.name for entry in listing]
stayed = {f"entry-{n:05}" for n in range(9999)} - {"entry-05000"}
same((stayed - set(seen), len(seen) == len(set(seen))), (set(), True))
same(set(os.listdir("many")), stayed | {"new", "renamed"})
"#,
    )
}

fn ten_thousand_entries_are_removed_one_by_one(place: &Place) -> Outcome {
    place.python(
        r#"
for name in os.listdir("many"):
    if name > "entry-00009": os.unlink("many/" + name)
same(sorted(os.listdir("many")), [f"entry-{n:05}" for n in range(10)])
os.rename("many", "few"); same(len(os.listdir("few")), 10)
"#,
    )
}

fn an_empty_directory_is_empty_and_can_be_filled(place: &Place) -> Outcome {
    place.python(
        r#"
same(os.listdir("empty"), []); os.rmdir("empty"); os.mkdir("empty"); same(os.listdir("empty"), [])
put("empty/x", "x"); same(refused(os.rmdir, "empty"), "ENOTEMPTY"); os.unlink("empty/x"); os.rmdir("empty"); os.mkdir("empty")
"#,
    )
}

fn odd_names_lead_to_their_files(place: &Place) -> Outcome {
    place::drop_caches();
    place.python(
        r#"
names = os.listdir(b"odd"); same(len(names), 17)
for name in names: same((get(b"odd/" + name).encode("latin1"), os.stat(b"odd/" + name).st_size), (name, len(name)))
for name in (b"e\xcc\x82", b"\xff", b"a" * 254, b"With space"): same(there(b"odd/" + name), False)
"#,
    )
}

fn odd_names_are_changed_renamed_and_removed(place: &Place) -> Outcome {
    place.python(
        r#"
names = sorted(os.listdir(b"odd"))
for name in names: append(b"odd/" + name, b"+")
for name in names[::3]: os.rename(b"odd/" + name, b"odd/x" + name[1:] if len(name) > 1 else b"odd/x")
for name in names[1::3]: os.unlink(b"odd/" + name)
found = sorted(os.listdir(b"odd")); same(len(found), len(names[::3]) + len(names[2::3]))
for name in names[2::3]: same(get(b"odd/" + name).encode("latin1"), name + b"+")
put(b"odd/\xfe\n%", "new"); os.mkdir(b"odd/\xfd"); os.rename(b"odd/\xfd", b"odd/\xfc" * 1 + b"\xfb")
"#,
    )
}

fn names_end_at_255_bytes_and_paths_at_4095(place: &Place) -> Outcome {
    place.python(
        r#"
put("b" * 255, "x"); os.unlink("b" * 255)
same([refused(work, "b" * 256) for work in (lambda n: put(n, ""), os.mkdir, os.stat, os.unlink)], ["ENAMETOOLONG"] * 4)
same(refused(os.rename, "empty", "b" * 256), "ENAMETOOLONG")
same(refused(os.stat, "./" * 2047 + "."), "allowed"); same(refused(os.stat, "./" * 2048), "ENAMETOOLONG")
"#,
    )
}

fn deep_paths_are_reached(place: &Place) -> Outcome {
    place.python(
        r#"
deep = "/".join(["d" * 200] * 15)
same(get(deep + "/deep"), "deep\n"); append(deep + "/deep", "er"); os.rename(deep + "/deep", "up"); same(get("up"), "deep\ner")
os.rename("up", deep + "/back"); os.mkdir(deep + "/new"); os.rename(deep + "/new", "new"); same(os.listdir(deep), ["back"])
"#,
    )
}

fn names_are_the_same_after_a_remount(place: &Place) -> Outcome {
    let before = place.everything();
    place.mount_again();
    compare(&before, &place.everything())?;
    Ok(OK.to_owned())
}
