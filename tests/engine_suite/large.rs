//! A large file of the lower: read in every way, mapped, and changed at one byte.

use crate::{
    Case, Family, Outcome, cases, long,
    place::{self, Place},
    support::ALICE,
    table,
};

/// Mebibytes in the landing run, and in the long one.
const SIZES_MIB: [u32; 2] = [128, 1024];

/// Every block of 1 MiB says which it is, so that a block in another's place is seen.
fn tree() -> String {
    let mebibytes = SIZES_MIB[usize::from(long())];
    format!(
        r#"
        python3 -c '
with open("large", "wb") as file:
    for n in range({mebibytes}): file.write((b"%015d\n" % n) * 65536)
'
        cp --reflink=auto large doomed; truncate -s 1 one; : > none
        "#
    )
}

const READS: &str = r#"
size = os.stat("large").st_size; blocks = size >> 20
def block(n): return (b"%015d\n" % n) * 65536
"#;

const CASES: &[Case] = cases![
    it_is_read_from_end_to_end,
    it_is_read_at_random,
    it_is_read_by_eight_processes_at_once,
    it_is_mapped,
    its_mode_changes_without_a_copy,
    one_byte_changes_and_the_rest_stays,
    it_is_truncated_and_grown,
    tiny_ones_are_what_they_are,
];

#[test]
fn large_files_are_whole() {
    table::check(&Family { title: "Large files", tree: tree(), users: &[ALICE], kept: false, cases: CASES });
}

fn reads(place: &Place, program: &str) -> Outcome {
    place::drop_caches();
    place.python(&format!("{READS}{program}"))
}

fn it_is_read_from_end_to_end(place: &Place) -> Outcome {
    reads(
        place,
        r#"
with open("large", "rb", buffering=0) as file:
    for n in range(blocks): same(file.read(1 << 20) == block(n), True)
    same(file.read(1), b"")
"#,
    )
}

fn it_is_read_at_random(place: &Place) -> Outcome {
    reads(
        place,
        r#"
import random
fd, dice = os.open("large", os.O_RDONLY), random.Random(1)
for _ in range(3000):
    n, line = dice.randrange(blocks), dice.randrange(65536 - 256)
    same(os.pread(fd, 4096, (n << 20) + 16 * line), (b"%015d\n" % n) * 256)
"#,
    )
}

fn it_is_read_by_eight_processes_at_once(place: &Place) -> Outcome {
    reads(
        place,
        r#"
def work(number):
    fd = os.open("large", os.O_RDONLY)
    for n in range(number * blocks // 8, (number + 1) * blocks // 8): same(os.pread(fd, 1 << 20, n << 20) == block(n), True)
same(processes(8, work), [0] * 8)
"#,
    )
}

fn it_is_mapped(place: &Place) -> Outcome {
    reads(
        place,
        r#"
mapped = mmap.mmap(os.open("large", os.O_RDONLY), 0, prot=mmap.PROT_READ)
for n in range(blocks - 1, -1, -7): same(mapped[(n << 20) + 16:(n << 20) + 32], b"%015d\n" % n)
"#,
    )
}

fn its_mode_changes_without_a_copy(place: &Place) -> Outcome {
    reads(
        place,
        r#"
before = os.statvfs("."); os.chmod("doomed", 0o600); os.rename("doomed", "renamed"); os.link("renamed", "linked")
same((os.stat("renamed").st_mode, os.stat("renamed").st_size), (0o100600, size))
with open("linked", "rb") as file: file.seek(size - 16); same(file.read(), b"%015d\n" % (blocks - 1))
"#,
    )
}

fn one_byte_changes_and_the_rest_stays(place: &Place) -> Outcome {
    reads(
        place,
        r#"
fd = os.open("large", os.O_RDWR); os.pwrite(fd, b"!", 5 << 20)
with open("large", "rb", buffering=0) as file:
    for n in range(blocks): same(file.read(1 << 20) == (b"!" + block(n)[1:] if n == 5 else block(n)), True)
os.pwrite(fd, b"0", 5 << 20)
"#,
    )
}

fn it_is_truncated_and_grown(place: &Place) -> Outcome {
    reads(
        place,
        r#"
os.truncate("large", (3 << 20) + 7); same(get("large")[3 << 20:], "0000000"); os.truncate("large", 5 << 20)
with open("large", "rb") as file:
    for n in range(3): same(file.read(1 << 20) == block(n), True)
    same(file.read() == block(3)[:7] + b"\0" * ((2 << 20) - 7), True)
os.unlink("large")
"#,
    )
}

fn tiny_ones_are_what_they_are(place: &Place) -> Outcome {
    place.python(
        r#"
same((get("none"), get("one"), os.stat("none").st_size), ("", "\0", 0))
append("none", "x"); append("one", "x"); same((get("none"), get("one")), ("x", "\0x"))
"#,
    )
}
