//! Many at once on names and files that nobody has touched yet: every first write is a copy-up that others race with.

use crate::{Case, Family, Outcome, cases, place::Place, support::ALICE, table};

const TREE: &str = r#"
    mkdir log shared many modes; for n in 0 1 2 3 4 5 6 7; do echo first > log/$n; echo first > modes/$n; done
    for n in $(seq 0 63); do echo content $n > many/$n; done; echo x > shared/there; head -c 3000000 /dev/zero > log/large
"#;

const CASES: &[Case] = cases![
    five_processes_append_to_one_untouched_file,
    five_processes_append_to_one_large_untouched_file,
    sixteen_threads_create_in_one_directory_of_the_lower,
    one_of_sixteen_exclusive_creators_wins,
    one_of_sixteen_mkdirs_wins,
    one_of_sixteen_unlinks_wins,
    one_of_sixteen_renames_of_a_file_wins,
    first_changes_of_every_kind_at_once_are_all_kept,
    sixty_four_files_are_copied_up_at_once,
];

#[test]
fn races_have_one_winner_and_lose_nothing() {
    table::check(&Family {
        title: "Races",
        tree: TREE.to_owned(),
        users: &[ALICE],
        kept: false,
        cases: CASES,
    });
}

fn five_processes_append_to_one_untouched_file(place: &Place) -> Outcome {
    place.python(
        r#"
for name in "01234567":
    def work(number):
        fd = os.open(f"log/{name}", os.O_WRONLY | os.O_APPEND)
        for line in range(100): os.write(fd, b"%d %d\n" % (number, line))
    same(processes(5, work), [0] * 5)
    lines = get(f"log/{name}").splitlines()
    same(lines[0], "first")
    same(sorted(lines[1:]), sorted(f"{number} {line}" for number in range(5) for line in range(100)))
"#,
    )
}

fn five_processes_append_to_one_large_untouched_file(place: &Place) -> Outcome {
    place.python(
        r#"
def work(number):
    fd = os.open("log/large", os.O_WRONLY | os.O_APPEND)
    for line in range(100): os.write(fd, b"%d %d\n" % (number, line))
same(processes(5, work), [0] * 5)
text = get("log/large")
same(text[:3000000].strip("\0"), "")
same(sorted(text[3000000:].splitlines()), sorted(f"{number} {line}" for number in range(5) for line in range(100)))
"#,
    )
}

fn sixteen_threads_create_in_one_directory_of_the_lower(place: &Place) -> Outcome {
    place.python(
        r#"
def work(number):
    for n in range(20):
        put(f"shared/{number}-{n}", f"{number} {n}")
        os.mkdir(f"shared/{number}-{n}.d")
same(threads(16, work), [None] * 16)
same(len(os.listdir("shared")), 1 + 2 * 16 * 20)
for number in range(16):
    for n in range(20): same(get(f"shared/{number}-{n}"), f"{number} {n}")
"#,
    )
}

fn one_of_sixteen_exclusive_creators_wins(place: &Place) -> Outcome {
    place.python(
        r#"
for round in range(10):
    def work(number): put(f"shared/exclusive{round}", str(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    found = threads(16, work)
    same(sorted(map(str, found)), ["EEXIST"] * 15 + ["None"])
    same(get(f"shared/exclusive{round}"), str(found.index(None)))
same(threads(4, lambda number: os.open("shared/there", os.O_CREAT | os.O_EXCL)), ["EEXIST"] * 4)
"#,
    )
}

fn one_of_sixteen_mkdirs_wins(place: &Place) -> Outcome {
    place.python(
        r#"
for round in range(10):
    same(sorted(map(str, threads(16, lambda number: os.mkdir(f"shared/made{round}")))), ["EEXIST"] * 15 + ["None"])
"#,
    )
}

fn one_of_sixteen_unlinks_wins(place: &Place) -> Outcome {
    place.python(
        r#"
for name in range(8):
    same(sorted(map(str, threads(16, lambda number: os.unlink(f"many/{name}")))), ["ENOENT"] * 15 + ["None"])
    same(there(f"many/{name}"), False)
"#,
    )
}

fn one_of_sixteen_renames_of_a_file_wins(place: &Place) -> Outcome {
    place.python(
        r#"
for name in range(8, 16):
    found = threads(16, lambda number: os.rename(f"many/{name}", f"many/{name}-{number}"))
    same(sorted(map(str, found)), ["ENOENT"] * 15 + ["None"])
    same(get(f"many/{name}-{found.index(None)}"), f"content {name}\n")
"#,
    )
}

fn first_changes_of_every_kind_at_once_are_all_kept(place: &Place) -> Outcome {
    place.python(
        r#"
for name in range(8):
    path = f"modes/{name}"
    changes = [
        lambda: append(path, "appended\n"),
        lambda: os.chmod(path, 0o600),
        lambda: os.utime(path, ns=(1, 2)),
        lambda: os.link(path, f"{path}.link"),
        lambda: os.setxattr(path, "user.a", b"1"),
        lambda: get(path),
    ]
    same(processes(len(changes), lambda number: changes[number]() and None), [0] * len(changes))
    found = os.stat(path)
    same((get(path), found.st_mode & 0o7777, found.st_nlink), ("first\nappended\n", 0o600, 2))
    same((os.getxattr(path, "user.a"), get(f"{path}.link")), (b"1", "first\nappended\n"))
"#,
    )
}

fn sixty_four_files_are_copied_up_at_once(place: &Place) -> Outcome {
    place.python(
        r#"
def work(number):
    for name in range(number, 64, 8):
        if name >= 16: append(f"many/{name}", f"by {number}\n")
same(threads(8, work), [None] * 8)
for name in range(16, 64): same(get(f"many/{name}"), f"content {name}\nby {name % 8}\n")
"#,
    )
}
