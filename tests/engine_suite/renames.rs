//! Names: renames of every kind over lower names, deleted and made anew, linked; then all of it after a remount.

use crate::{
    Case, Family, OK, Outcome, cases,
    names::compare,
    place::Place,
    support::{ALICE, BOB},
    table,
};

/// A directory of the same content for each case: the same tree at many paths of one root.
const TREE: &str = r#"
    for n in $(seq 0 24); do
        mkdir -p r$n/d/sub r$n/e; echo a > r$n/a; echo b > r$n/b; echo x > r$n/d/x; echo deep > r$n/d/sub/deep
        echo y > r$n/e/y; ln -s a r$n/link
    done
"#;

const CASES: &[Case] = cases![
    a_file_over_a_file_of_the_lower,
    a_new_file_over_a_file_of_the_lower,
    a_file_of_the_lower_into_other_directories,
    a_directory_of_the_lower,
    a_directory_of_the_lower_out_of_a_renamed_one,
    a_directory_over_an_emptied_one_of_the_lower,
    a_new_directory_over_an_emptied_one_of_the_lower,
    what_rename_refuses,
    noreplace_replaces_nothing,
    exchange_exchanges_files_and_directories,
    a_directory_deleted_and_made_again_is_empty,
    a_file_becomes_a_directory_and_the_other_way_round,
    a_link_of_a_file_of_the_lower_stays_one_file,
    a_link_outlives_its_first_name,
    symlinks_are_renamed_and_replaced,
    a_renamed_directorys_name_can_be_used_again,
    a_directory_goes_around_and_comes_back,
    a_directory_is_renamed_under_an_open_file_and_a_working_directory,
    a_deleted_tree_stays_deleted,
    case_only_renames_work,
    everything_is_the_same_after_a_remount,
    everything_is_the_same_after_a_second_remount_and_more_changes,
];

#[test]
fn renames_hold_over_remounts() {
    let users = &[ALICE, BOB];
    table::check(&Family { title: "Renames", tree: TREE.to_owned(), users, kept: false, cases: CASES });
}

fn a_file_over_a_file_of_the_lower(place: &Place) -> Outcome {
    place.python(
        r#"
os.chdir("r0"); os.rename("a", "b")
same((get("b"), there("a"), sorted(os.listdir("."))), ("a\n", False, ["b", "d", "e", "link"]))
append("b", "more"); same(get("b"), "a\nmore")
os.rename("d/x", "e/y"); same((get("e/y"), os.listdir("d")), ("x\n", ["sub"]))
"#,
    )
}

fn a_new_file_over_a_file_of_the_lower(place: &Place) -> Outcome {
    place.python(
        r#"
os.chdir("r1"); put("new", "new"); os.rename("new", "a"); same((get("a"), there("new")), ("new", False))
os.rename("a", "gone"); same(there("a"), False); put("a", "again"); same(get("a"), "again")
"#,
    )
}

fn a_file_of_the_lower_into_other_directories(place: &Place) -> Outcome {
    place.python(
        r#"
os.chdir("r2"); os.mkdir("made")
os.rename("a", "made/a"); os.rename("b", "d/sub/b"); os.rename("d/x", "x")
same((get("made/a"), get("d/sub/b"), get("x")), ("a\n", "b\n", "x\n"))
same((sorted(os.listdir("d/sub")), os.listdir("d")), (["b", "deep"], ["sub"]))
"#,
    )
}

fn a_directory_of_the_lower(place: &Place) -> Outcome {
    place.python(
        r#"
os.chdir("r3"); os.rename("d", "D")
same((there("d"), sorted(os.listdir("D")), get("D/sub/deep")), (False, ["sub", "x"], "deep\n"))
append("D/sub/deep", "er"); put("D/new", "n"); os.unlink("D/x")
same((sorted(os.listdir("D")), get("D/sub/deep")), (["new", "sub"], "deep\ner"))
"#,
    )
}

fn a_directory_of_the_lower_out_of_a_renamed_one(place: &Place) -> Outcome {
    place.python(
        r#"
os.chdir("r4"); os.rename("d", "e/in"); os.rename("e/in/sub", "out"); os.rename("e", "E")
same((get("out/deep"), os.listdir("E/in"), sorted(os.listdir("E"))), ("deep\n", ["x"], ["in", "y"]))
same((there("d"), there("e")), (False, False))
"#,
    )
}

fn a_directory_over_an_emptied_one_of_the_lower(place: &Place) -> Outcome {
    place.python(
        r#"
os.chdir("r5"); same(refused(os.rename, "d", "e"), "ENOTEMPTY"); os.unlink("e/y"); os.rename("d", "e")
same((sorted(os.listdir("e")), get("e/sub/deep"), there("d")), (["sub", "x"], "deep\n", False))
"#,
    )
}

fn a_new_directory_over_an_emptied_one_of_the_lower(place: &Place) -> Outcome {
    place.python(
        r#"
os.chdir("r6"); os.mkdir("new"); put("new/n", "n"); os.unlink("e/y"); os.rename("new", "e")
same((os.listdir("e"), get("e/n")), (["n"], "n"))
"#,
    )
}

fn what_rename_refuses(place: &Place) -> Outcome {
    place.python(
        r#"
os.chdir("r7")
same([refused(os.rename, *names) for names in (("a", "d"), ("d", "a"), ("d", "e"), ("d", "d/sub/in"), ("none", "a"), ("a", "a/in"))],
     ["EISDIR", "ENOTDIR", "ENOTEMPTY", "EINVAL", "ENOENT", "ENOTDIR"])
same(refused(os.rmdir, "d"), "ENOTEMPTY"); same(refused(os.unlink, "d"), "EISDIR"); same(refused(os.rmdir, "a"), "ENOTDIR")
os.rename("a", "a"); same((get("a"), get("d/x"), get("e/y")), ("a\n", "x\n", "y\n"))
same(refused(renameat2, "a", "b", NOREPLACE | EXCHANGE), "EINVAL")
"#,
    )
}

fn noreplace_replaces_nothing(place: &Place) -> Outcome {
    place.python(
        r#"
os.chdir("r8")
same([refused(renameat2, *names, NOREPLACE) for names in (("a", "b"), ("a", "d"), ("d", "e"), ("d", "a"))], ["EEXIST"] * 4)
renameat2("a", "free", NOREPLACE); renameat2("d", "free.d", NOREPLACE); renameat2("free", "a", NOREPLACE)
same((get("a"), get("free.d/sub/deep"), sorted(os.listdir("."))), ("a\n", "deep\n", ["a", "b", "e", "free.d", "link"]))
"#,
    )
}

fn exchange_exchanges_files_and_directories(place: &Place) -> Outcome {
    place.python(
        r#"
os.chdir("r9")
renameat2("a", "b", EXCHANGE); same((get("a"), get("b")), ("b\n", "a\n"))
renameat2("d", "e", EXCHANGE); same((os.listdir("d"), get("e/sub/deep")), (["y"], "deep\n"))
renameat2("a", "d", EXCHANGE); same((os.listdir("a"), get("d")), (["y"], "b\n"))
same(refused(renameat2, "a", "none", EXCHANGE), "ENOENT")
"#,
    )
}

fn a_directory_deleted_and_made_again_is_empty(place: &Place) -> Outcome {
    place.python(
        r#"
import shutil
os.chdir("r10"); shutil.rmtree("d"); os.mkdir("d"); same(os.listdir("d"), [])
same((there("d/x"), there("d/sub"), there("d/sub/deep")), (False, False, False))
os.mkdir("d/sub"); same(os.listdir("d/sub"), []); put("d/x", "other"); same(get("d/x"), "other")
os.unlink("e/y"); os.rmdir("e"); same(there("e"), False); os.mkdir("e"); same(os.listdir("e"), [])
"#,
    )
}

fn a_file_becomes_a_directory_and_the_other_way_round(place: &Place) -> Outcome {
    place.python(
        r#"
import shutil
os.chdir("r11"); os.unlink("a"); os.mkdir("a"); put("a/in", "in"); shutil.rmtree("d"); put("d", "a file now")
same((get("a/in"), get("d"), refused(os.stat, "d/x")), ("in", "a file now", "ENOTDIR"))
os.unlink("link"); os.mkdir("link"); same(os.listdir("link"), [])
"#,
    )
}

fn a_link_of_a_file_of_the_lower_stays_one_file(place: &Place) -> Outcome {
    place.python(
        r#"
os.chdir("r12"); os.link("a", "hard"); os.link("a", "d/hard"); append("hard", "more")
same([get(name) for name in ("a", "hard", "d/hard")], ["a\nmore"] * 3)
same([os.stat(name).st_nlink for name in ("a", "hard", "d/hard")], [3] * 3)
os.chmod("a", 0o600); same(os.stat("d/hard").st_mode, 0o100600)
os.rename("d", "D"); append("D/hard", "!"); same(get("a"), "a\nmore!")
same(refused(os.link, "a", "b"), "EEXIST")
"#,
    )
}

fn a_link_outlives_its_first_name(place: &Place) -> Outcome {
    place.python(
        r#"
os.chdir("r13"); os.link("a", "hard"); os.unlink("a")
same((there("a"), get("hard"), os.stat("hard").st_nlink), (False, "a\n", 1))
os.link("hard", "a"); os.rename("a", "hard")  # of one file: nothing happens
same((get("a"), get("hard"), os.stat("a").st_nlink), ("a\n", "a\n", 2))
os.rename("hard", "b"); same((get("b"), os.stat("a").st_nlink, there("hard")), ("a\n", 2, False))
"#,
    )
}

fn symlinks_are_renamed_and_replaced(place: &Place) -> Outcome {
    place.python(
        r#"
os.chdir("r14"); os.rename("link", "d/link"); same((os.readlink("d/link"), there("link")), ("a", False))
os.symlink("b", "link"); same(get("link"), "b\n"); os.rename("link", "a"); same((os.readlink("a"), get("a")), ("b", "b\n"))
os.link("a", "hard", follow_symlinks=False); same(os.readlink("hard"), "b")
"#,
    )
}

fn a_renamed_directorys_name_can_be_used_again(place: &Place) -> Outcome {
    place.python(
        r#"
os.chdir("r15"); os.rename("d", "old"); os.mkdir("d"); put("d/x", "new")
same((get("d/x"), get("old/x"), os.listdir("d"), get("old/sub/deep")), ("new", "x\n", ["x"], "deep\n"))
append("old/x", "kept"); same((get("d/x"), get("old/x")), ("new", "x\nkept"))
"#,
    )
}

fn a_directory_goes_around_and_comes_back(place: &Place) -> Outcome {
    place.python(
        r#"
os.chdir("r16")
for new in ("d1", "e/d2", "d3", "d"):
    os.rename({"d1": "d", "e/d2": "d1", "d3": "e/d2", "d": "d3"}[new], new); same(get(f"{new}/sub/deep"), "deep\n")
os.rename("d/x", "d/sub/x"); os.rename("d/sub/x", "d/x")
same((sorted(os.listdir("d")), os.listdir("e")), (["sub", "x"], ["y"]))
"#,
    )
}

fn a_directory_is_renamed_under_an_open_file_and_a_working_directory(place: &Place) -> Outcome {
    place.python(
        r#"
os.chdir("r17"); fd, at = os.open("d/x", os.O_RDONLY), os.open("d", os.O_RDONLY)
top = os.getcwd(); os.chdir("d/sub"); os.rename(top + "/d", top + "/moved")
same((os.getcwd(), get("deep"), os.read(fd, 9)), (top + "/moved/sub", "deep\n", b"x\n"))
put("here", "h"); os.unlink("x", dir_fd=at)
same((sorted(os.listdir(top + "/moved/sub")), os.listdir(top + "/moved")), (["deep", "here"], ["sub"]))
"#,
    )
}

fn a_deleted_tree_stays_deleted(place: &Place) -> Outcome {
    place.python("import shutil; shutil.rmtree('r18'); same(there('r18'), False); same(refused(os.stat, 'r18/d/x'), 'ENOENT')")
}

fn case_only_renames_work(place: &Place) -> Outcome {
    place.python("os.chdir('r19'); os.rename('a', 'A'); os.rename('d', 'D'); os.rename('D/sub', 'D/SUB'); same((there('a'), get('A'), get('D/SUB/deep')), (False, 'a\\n', 'deep\\n'))")
}

fn everything_is_the_same_after_a_remount(place: &Place) -> Outcome {
    let before = place.everything();
    place.mount_again();
    compare(&before, &place.everything())?;
    // Names that share a file still do.
    place.python(
        "os.chdir('r12'); append('a', '?'); same([get(n) for n in ('hard', 'D/hard')], ['a\\nmore!?'] * 2)",
    )
}

/// What came through a remount is changed once more: the marks in the upper are those of a mount of before.
fn everything_is_the_same_after_a_second_remount_and_more_changes(place: &Place) -> Outcome {
    place.python(
        r#"
import shutil
os.rename("r3/D", "r3/DD"); append("r3/DD/sub/deep", "!"); os.rename("r4/E/in", "r4/in"); os.rename("r4/out", "r4/in/sub")
shutil.rmtree("r10/d"); os.rename("r15/old", "r15/d/old"); renameat2("r9/a", "r9/e", EXCHANGE); os.rename("r16/d", "r17/d")
os.rename("r5", "r10/d"); os.mkdir("r5"); os.rename("r20/d", "r21/e/d"); shutil.rmtree("r20"); os.rename("r21", "r20")
same((get("r3/DD/sub/deep"), get("r4/in/sub/deep"), get("r10/d/e/sub/deep")), ("deep\ner!", "deep\n", "deep\n"))
"#,
    )?;
    let before = place.everything();
    place.mount_again();
    compare(&before, &place.everything())?;
    Ok(OK.to_owned())
}
