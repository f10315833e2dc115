//! Two suites of others: `pjdfstest` asks for POSIX, call by call; `fsx` does random operations on one file, 50,000 in the long run.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{Mutex, PoisonError},
};

use crate::{
    Case, Family, Outcome, cases, long,
    place::{Kind, Place, tool},
    support::ALICE,
    table,
};

/// Operations of `fsx` in the landing run and in the long one, and the seed of their sequence.
const OPERATIONS: [u32; 2] = [10_000, 50_000];
const SEED: u32 = 7;

const CASES: &[Case] =
    cases![pjdfstest_passes, fsx_on_a_new_file, fsx_on_a_file_of_the_lower, fsx_within_a_file_of_the_lower];

#[test]
fn what_overlayfs_passes_is_passed() {
    // The size that fsx works on.
    let tree = "head -c 262144 /dev/urandom > whole; cp whole within; echo kept > kept".to_owned();
    table::check(&Family { title: "POSIX", tree, users: &[ALICE], kept: false, cases: CASES });
}

/// All that Linux has; and the file system's clock ticks every 4 ms at the slowest.
const PJDFSTEST: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// What failed in the places that ran already.
static FAILED: Mutex<BTreeMap<&str, BTreeSet<String>>> = Mutex::new(BTreeMap::new());

/// A workspace fails nothing that overlayfs on ext4 passes: names are compared, not numbers.
fn pjdfstest_passes(place: &Place) -> Outcome {
    let configuration = place.beside("pjdfstest.toml");
    fs::write(&configuration, PJDFSTEST).unwrap();
    let program = tool("pjdfstest");
    let words = [
        program.as_path(),
        "-c".as_ref(),
        &configuration,
        "-s".as_ref(),
        "/dev/shm".as_ref(),
        "-p".as_ref(),
        ".".as_ref(),
    ];
    let output = place.command(0, &words.map(|word| word.to_str().unwrap())).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let ended = |with: &str| -> BTreeSet<String> {
        let lines = text.lines().filter_map(|line| line.strip_suffix(with).map(str::trim));
        lines.filter(|line| line.contains("::")).map(str::to_owned).collect()
    };
    let (passed, failed, skipped) = (ended(" ok"), ended(" FAILED"), ended(" skipped"));
    if passed.is_empty() || !text.contains("Summary: ") {
        return Err(format!("it did not run: {output:?}"));
    }
    let mut all = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
    let overlay = all.get(Kind::Overlay.title()).cloned();
    if let Some(overlay) = overlay.filter(|_| place.kind.is_scorpio()) {
        let more: Vec<_> = failed.difference(&overlay).collect();
        if !more.is_empty() {
            return Err(format!("fails where overlayfs on ext4 passes: {more:?}"));
        }
    }
    for name in &failed {
        let why = text.lines().skip_while(|line| !line.starts_with(name.as_str())).nth(1).unwrap_or_default();
        eprintln!("{}: {name} fails: {}", place.kind.title(), why.trim());
    }
    let told = format!("{} pass, {} fail, {} are skipped", passed.len(), failed.len(), skipped.len());
    all.insert(place.kind.title(), failed);
    Ok(told)
}

/// Every operation that Linux has. Those that wait for the disk (fsync, msync, punching holes, dropping pages) are for the
/// long run. `within` keeps the file's size.
fn fsx_configuration(within: bool) -> String {
    let (size, disk) = (u32::from(!within), u32::from(long()));
    format!(
        "flen = 262144\nblockmode = {within}\nnosizechecks = {within}\nnomsyncafterwrite = {}\n[weights]\n\
         read = 10\nwrite = 10\nmapread = 10\nmapwrite = 10\nsendfile = 1\ncopy_file_range = 1\n\
         close_open = {}\ntruncate = {}\nposix_fallocate = {size}\n\
         invalidate = {disk}\nfsync = {disk}\nfdatasync = {disk}\npunch_hole = {disk}\nposix_fadvise = {disk}\n",
        !long(),
        disk * size,
        5 * size
    )
}

fn fsx(place: &Place, file: &str, within: bool) -> Outcome {
    let (configuration, program) = (place.beside("fsx.toml"), place.beside("fsx"));
    fs::write(&configuration, fsx_configuration(within)).unwrap();
    // The user may not be able to enter the directory that it was built in.
    fs::copy(tool("fsx"), &program).unwrap();
    place.sh(&format!(
        "'{}' -f '{}' -N {} -S {SEED} -P \"$HOME\" {file} | grep -qx 'All operations completed A-OK!'",
        program.display(),
        configuration.display(),
        OPERATIONS[usize::from(long())]
    ))
}

fn fsx_on_a_new_file(place: &Place) -> Outcome {
    fsx(place, "new", false)
}

/// Opened with `O_TRUNC`, which copies nothing up but the name.
fn fsx_on_a_file_of_the_lower(place: &Place) -> Outcome {
    fsx(place, "whole", false)
}

/// Its size stays, and what is not yet written is the lower's.
fn fsx_within_a_file_of_the_lower(place: &Place) -> Outcome {
    fsx(place, "within", true)
}
