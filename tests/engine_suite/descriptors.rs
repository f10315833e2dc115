//! Descriptors that outlive their file's name, and what is written through them.

use crate::{Case, Family, Outcome, cases, place::Place, support::ALICE, table};

const TREE: &str = r#"
    mkdir -p dir/sub gone; for n in 0 1 2 3 4 5 6 7 8 9; do echo content $n > f$n; done; echo x > dir/sub/x; echo y > gone/y
    head -c 1000000 /dev/zero | tr '\0' 'a' > large
"#;

const CASES: &[Case] = cases![
    an_unlinked_file_is_written_through_its_descriptor,
    a_replaced_file_is_written_through_its_descriptor,
    a_descriptor_from_before_an_unlink_reads_the_old_content,
    a_name_made_again_is_another_file,
    a_mapping_of_an_unlinked_file_works,
    a_copy_up_after_the_name_went_is_of_the_old_file,
    a_removed_directory_is_empty_for_who_is_in_it,
    descriptors_of_a_path_alone_reach_the_file,
    two_descriptors_of_one_file_agree,
];

#[test]
fn descriptors_act_on_their_own_file() {
    let (title, tree) = ("Descriptors", TREE.to_owned());
    table::check(&Family { title, tree, users: &[ALICE], kept: false, cases: CASES });
}

fn an_unlinked_file_is_written_through_its_descriptor(place: &Place) -> Outcome {
    place.python(
        r#"
fd = os.open("f0", os.O_RDWR); os.unlink("f0")
os.pwrite(fd, b"CONTENT", 0); os.ftruncate(fd, 8); os.fchmod(fd, 0o600); os.fsync(fd)
same((os.pread(fd, 99, 0), os.fstat(fd).st_nlink, os.fstat(fd).st_size, there("f0")), (b"CONTENT ", 0, 8, False))
"#,
    )
}

fn a_replaced_file_is_written_through_its_descriptor(place: &Place) -> Outcome {
    place.python(
        r#"
fd = os.open("f1", os.O_RDWR); put("new", "new"); os.rename("new", "f1")
os.pwrite(fd, b"CONTENT", 0)
same((os.pread(fd, 99, 0), get("f1")), (b"CONTENT 1\n", "new"))
"#,
    )
}

fn a_descriptor_from_before_an_unlink_reads_the_old_content(place: &Place) -> Outcome {
    place.python(
        r#"
fd, large = os.open("f2", os.O_RDONLY), os.open("large", os.O_RDONLY)
os.unlink("f2"); put("f2", "another"); os.unlink("large")
same((os.pread(fd, 99, 0), get("f2"), os.pread(large, 2_000_000, 0)), (b"content 2\n", "another", b"a" * 1_000_000))
"#,
    )
}

fn a_name_made_again_is_another_file(place: &Place) -> Outcome {
    place.python(
        r#"
fd = os.open("f3", os.O_RDWR); first = os.fstat(fd).st_ino
os.unlink("f3"); put("f3", "second"); other = os.open("f3", os.O_RDWR)
os.pwrite(fd, b"FIRST", 0); os.pwrite(other, b"SECOND", 0)
same((os.pread(fd, 99, 0), get("f3"), os.fstat(other).st_ino != first), (b"FIRSTnt 3\n", "SECOND", True))
"#,
    )
}

fn a_mapping_of_an_unlinked_file_works(place: &Place) -> Outcome {
    place.python(
        r#"
fd = os.open("f4", os.O_RDWR); mapped = mmap.mmap(fd, 10); os.unlink("f4"); os.close(fd)
mapped[0:7] = b"MAPPED!"; mapped.flush(); same(mapped[:], b"MAPPED! 4\n")
"#,
    )
}

/// Changes that need no descriptor for writing copy a file up that has no name any more.
fn a_copy_up_after_the_name_went_is_of_the_old_file(place: &Place) -> Outcome {
    place.python(
        r#"
fd = os.open("f5", os.O_RDONLY); os.unlink("f5"); put("f5", "new")
print(refused(os.fchmod, fd, 0o600), refused(os.utime, fd, (1, 2)))
same((os.pread(fd, 99, 0), get("f5"), os.stat("f5").st_mode), (b"content 5\n", "new", 0o100644))
"#,
    )
}

fn a_removed_directory_is_empty_for_who_is_in_it(place: &Place) -> Outcome {
    place.python(
        r#"
import shutil
top = os.getcwd(); os.chdir("gone"); shutil.rmtree(top + "/gone")
same((os.listdir("."), refused(put, "x", "x"), refused(os.stat, "y")), ([], "ENOENT", "ENOENT"))
os.mkdir(top + "/gone"); same((os.listdir("."), refused(put, "x", "x")), ([], "ENOENT"))
"#,
    )
}

fn descriptors_of_a_path_alone_reach_the_file(place: &Place) -> Outcome {
    place.python(
        r#"
fd, at = os.open("f6", os.O_PATH), os.open("dir/sub", os.O_PATH | os.O_DIRECTORY)
os.rename("f6", "moved"); os.rename("dir", "renamed")
append(f"/proc/self/fd/{fd}", "more")
same((get("moved"), refused(os.read, fd, 1)), ("content 6\nmore", "EBADF"))
same(os.read(os.open("x", os.O_RDONLY, dir_fd=at), 9), b"x\n")
"#,
    )
}

fn two_descriptors_of_one_file_agree(place: &Place) -> Outcome {
    place.python(
        r#"
reader, first, second = os.open("f7", os.O_RDONLY), os.open("f7", os.O_RDWR), os.open("f7", os.O_WRONLY | os.O_APPEND)
os.pwrite(first, b"CON", 0); os.write(second, b"end")
same((os.pread(reader, 99, 0), os.pread(first, 99, 0), get("f7")), (b"CONtent 7\nend",) * 2 + ("CONtent 7\nend",))
os.ftruncate(first, 3); same((os.pread(reader, 99, 0), os.fstat(reader).st_size), (b"CON", 3))
"#,
    )
}
