//! Where overlayfs does something else than a local file system, and where a workspace does something else than overlayfs
//! on ext4: the cells of this family are what `docs/SEMANTICS.md` says about it.

use crate::{
    Case, Family, Outcome, cases,
    place::{self, Place},
    support::ALICE,
    table,
};

/// Cases, of all families, in which a workspace and overlayfs on ext4 differ; each stands in `docs/SEMANTICS.md`.
pub const WHERE_SCORPIO_DIFFERS: [&str; 8] = [
    "the_number_of_a_file_after_its_copy_up",
    "what_git_says_of_a_file_after_its_copy_up",
    "the_link_count_of_a_directory",
    "the_size_of_an_untouched_directory",
    "attributes_of_an_untouched_file",
    "flags_of_files",
    "clones_of_files",
    "a_range_copied_from_an_untouched_file",
];

const TREE: &str = r#"
    for name in mapped number linked atime handle attributes flags copied watched; do echo content > $name; done
    mkdir -p dir/a dir/b repository; echo x > dir/a/x; echo content > repository/file; cp /bin/sleep sleep; cp /bin/sleep truncated; head -c 100000 /dev/zero > data
    long=$(printf '%0250d' 0); mkdir -p $long/longer-than-six/in; echo x > $long/longer-than-six/in/x
"#;

const CASES: &[Case] = cases![
    a_mapping_from_before_a_copy_up,
    a_descriptor_from_before_a_copy_up,
    writing_a_program_that_runs,
    reading_and_atime,
    the_number_of_a_file_after_its_copy_up,
    what_git_says_of_a_file_after_its_copy_up,
    the_number_of_a_file_after_a_remount,
    the_numbers_of_two_links_of_one_file,
    the_device_of_files_and_directories,
    the_link_count_of_a_directory,
    the_size_of_an_untouched_directory,
    the_type_of_the_file_system,
    handles_of_files,
    attributes_of_an_untouched_file,
    flags_of_files,
    clones_of_files,
    a_range_copied_from_an_untouched_file,
    a_watch_from_before_a_copy_up,
    a_directory_with_a_long_path_moved_to_another,
    a_device_node_made_by_root,
    a_whiteout_left_by_rename,
    trusted_attributes_of_overlayfs_set_by_root,
    another_overlay_on_top,
];

#[test]
fn what_differs_is_known() {
    let (title, tree) = ("Where overlayfs is not a local file system", TREE.to_owned());
    table::check(&Family { title, tree, users: &[ALICE], kept: false, cases: CASES });
}

fn a_mapping_from_before_a_copy_up(place: &Place) -> Outcome {
    place.python(
        r#"
mapped = mmap.mmap(os.open("mapped", os.O_RDONLY), 7, prot=mmap.PROT_READ); same(mapped[:], b"content")
fd = os.open("mapped", os.O_RDWR); os.pwrite(fd, b"CHANGED", 0)
print("shows", "the new content" if mapped[:] == b"CHANGED" else "the old content")
"#,
    )
}

fn a_descriptor_from_before_a_copy_up(place: &Place) -> Outcome {
    place.python(
        r#"
reader = os.open("copied", os.O_RDONLY); fd = os.open("copied", os.O_RDWR); os.pwrite(fd, b"CHANGED", 0)
print("reads", "the new content" if os.pread(reader, 7, 0) == b"CHANGED" else "the old content")
"#,
    )
}

fn writing_a_program_that_runs(place: &Place) -> Outcome {
    place.python(
        r#"
import subprocess
running = subprocess.Popen(["./sleep", "60"])
while os.readlink(f"/proc/{running.pid}/exe") != os.path.realpath("sleep"): time.sleep(0.01)
first = refused(lambda: os.close(os.open("sleep", os.O_WRONLY)))
running.kill(); running.wait()
running = subprocess.Popen(["./sleep", "60"])  # in the upper now, where it was copied up
while os.readlink(f"/proc/{running.pid}/exe") != os.path.realpath("sleep"): time.sleep(0.01)
print("untouched:", first + ", copied up:", refused(lambda: os.close(os.open("sleep", os.O_WRONLY))))
running.kill(); running.wait()
"#,
    )
}

fn reading_and_atime(place: &Place) -> Outcome {
    place.python(
        r#"
before = os.stat("atime").st_atime_ns; get("atime")
lower = "stays" if os.stat("atime").st_atime_ns == before else "moves"
put("new", "x"); os.utime("new", ns=(1, 2)); get("new")
print("untouched:", lower + ", new:", "stays" if os.stat("new").st_atime_ns == 1 else "moves")
"#,
    )
}

fn the_number_of_a_file_after_its_copy_up(place: &Place) -> Outcome {
    let open = place.python(
        r#"
fd = os.open("number", os.O_RDONLY); before = os.stat("number").st_ino; append("number", "more")
print("while it is open:", "the same" if os.stat("number").st_ino == before == os.fstat(fd).st_ino else "another")
open(os.environ["HOME"] + "/number", "w").write(str(before))
"#,
    )?;
    place::drop_caches();
    let forgotten = place.python(
        r#"
before = int(get(os.environ["HOME"] + "/number"))
print("once forgotten:", "the same" if os.stat("number").st_ino == before else "another")
"#,
    )?;
    Ok(format!("{open}, {forgotten}"))
}

fn what_git_says_of_a_file_after_its_copy_up(place: &Place) -> Outcome {
    place.sh(r#"
        cd repository; git init -q -b main; echo more >>file; git add file; git -c user.name=n -c user.email=e@e commit -q -m m
        test -z "$(git diff-files --name-only)"
    "#)?;
    place::drop_caches();
    place.sh(r#"
        said() { if test -z "$(git "$@" --name-only)"; then echo unchanged; else echo changed; fi; }
        cd repository; first=$(said diff-files); minimal=$(said -c core.checkStat=minimal diff-files)
        test -z "$(git status --porcelain)"
        echo "once forgotten: $first, with core.checkStat minimal: $minimal, after git status: $(said diff-files)"
    "#)
}

fn the_number_of_a_file_after_a_remount(place: &Place) -> Outcome {
    let numbers = "stat -c %i data dir";
    let before = place.sh(numbers)?;
    place.mount_again();
    Ok(if place.sh(numbers)? == before { "the same" } else { "another" }.to_owned())
}

fn the_numbers_of_two_links_of_one_file(place: &Place) -> Outcome {
    let at_once = place.python(
        r#"
before = os.stat("linked").st_ino
os.link("linked", "link"); append("link", "more"); same(get("linked"), "content\nmore")
print("the same" if os.stat("linked").st_ino == os.stat("link").st_ino else "two")
"#,
    )?;
    place::drop_caches();
    let later = place
        .python(r#"print("the same" if os.stat("linked").st_ino == os.stat("link").st_ino else "two")"#)?;
    Ok(format!("at once: {at_once}, once forgotten: {later}"))
}

fn the_device_of_files_and_directories(place: &Place) -> Outcome {
    place.python(
        r#"
put("new", "x")
print("one" if len({os.stat(name).st_dev for name in (".", "dir", "data", "new", "linked")}) == 1 else "several")
"#,
    )
}

fn the_link_count_of_a_directory(place: &Place) -> Outcome {
    place.python(r#"print(os.stat("dir").st_nlink)"#)
}

fn the_size_of_an_untouched_directory(place: &Place) -> Outcome {
    place.python(r#"print(os.stat("dir").st_size)"#)
}

fn the_type_of_the_file_system(place: &Place) -> Outcome {
    place.sh("stat -f -c %T .")
}

fn handles_of_files(place: &Place) -> Outcome {
    place.python_as(
        0,
        r#"
handle, mount = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + b"\0" * 128), ctypes.c_int()
print(refused(call, "name_to_handle_at", AT, b"handle", handle, ctypes.byref(mount), 0))
"#,
    )
}

fn attributes_of_an_untouched_file(place: &Place) -> Outcome {
    place.python(
        r#"
print("listing:", refused(os.listxattr, "attributes") + ",", "reading:", refused(os.getxattr, "attributes", "user.a"))
"#,
    )
}

fn flags_of_files(place: &Place) -> Outcome {
    place.python_as(
        0,
        r#"
GET, SET, APPEND = 0x80086601, 0x40086602, 0x20
def flags(fd): space = bytearray(8); fcntl.ioctl(fd, GET, space); return struct.unpack("I", space[:4])[0]
fd = os.open("flags", os.O_RDONLY); print("untouched:", refused(flags, fd), end=", ")
def mark(): fcntl.ioctl(os.open("flags", os.O_RDONLY), SET, struct.pack("Q", APPEND))
set = refused(mark); fd = os.open("flags", os.O_RDONLY)
print("setting:", set + (", then append only" if set == "allowed" and flags(fd) & APPEND else ""))
if set == "allowed": fcntl.ioctl(fd, SET, struct.pack("Q", 0))
"#,
    )
}

fn clones_of_files(place: &Place) -> Outcome {
    place.python(
        r#"
FICLONE = 0x40049409
print(refused(lambda: fcntl.ioctl(os.open("clone", os.O_WRONLY | os.O_CREAT), FICLONE, os.open("data", os.O_RDONLY))))
"#,
    )
}

fn a_range_copied_from_an_untouched_file(place: &Place) -> Outcome {
    place.python(
        r#"
lower, new = os.open("data", os.O_RDONLY), os.open("range", os.O_RDWR | os.O_CREAT)
print(refused(os.copy_file_range, lower, new, 100000) + ",", "sendfile", refused(os.sendfile, new, lower, 0, 1000))
"#,
    )
}

fn a_watch_from_before_a_copy_up(place: &Place) -> Outcome {
    place.python(
        r#"
fd = libc.inotify_init1(os.O_NONBLOCK); assert libc.inotify_add_watch(fd, b"watched", 2) > 0
append("watched", "more")
print("sees it" if refused(os.read, fd, 4096) == "allowed" else "sees nothing")
"#,
    )
}

/// overlayfs notes where a directory of the lower came from, in at most 256 bytes.
fn a_directory_with_a_long_path_moved_to_another(place: &Place) -> Outcome {
    place.python(
        r#"
import subprocess
far = "0" * 250
said = refused(os.rename, far + "/longer-than-six", "dir/long")
subprocess.run(["mv", "dir/long" if said == "allowed" else far + "/longer-than-six", "dir/back"], check=True)
same(get("dir/back/in/x"), "x\n")
print("rename:", said + ", mv: moves it")
"#,
    )
}

fn a_device_node_made_by_root(place: &Place) -> Outcome {
    place.python_as(
        0,
        r#"
print("0:0", refused(os.mknod, "whiteout", stat.S_IFCHR | 0o600, 0) + ",", "1:3", refused(os.mknod, "null", stat.S_IFCHR | 0o600, os.makedev(1, 3)))
"#,
    )
}

fn a_whiteout_left_by_rename(place: &Place) -> Outcome {
    place.python(r#"put("w", "x"); print(refused(renameat2, "w", "v", WHITEOUT))"#)
}

fn trusted_attributes_of_overlayfs_set_by_root(place: &Place) -> Outcome {
    place.python_as(
        0,
        r#"
print(refused(os.setxattr, "dir", "trusted.overlay.opaque", b"y") + ",", "content", "stays" if there("dir/a/x") else "goes")
"#,
    )
}

fn another_overlay_on_top(place: &Place) -> Outcome {
    let above = place.beside("above");
    let above = above.display();
    place.sh_as(
        0,
        &format!(
            "mkdir -p {above}/upper {above}/work {above}/merged
             mount -t overlay -o lowerdir=dir,upperdir={above}/upper,workdir={above}/work overlay {above}/merged
             cat {above}/merged/a/x; echo more >> {above}/merged/a/x; umount {above}/merged; tail -n 1 {above}/upper/a/x; cat dir/a/x"
        ),
    )
}
