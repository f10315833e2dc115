//! The power goes at many moments of a day's work. Afterwards everything is there that was synced or acknowledged.
//!
//! ```text
//!  users, scorpioctl ──► daemon ──► ext4 ──► loop device ──► FUSE file ──► server: every write and flush, in order ──► log
//!        └ what was promised, and the log's length at that moment
//!
//!  log, a moment ──► disks as a drive may have left them ──► journal replayed, fsck ──► daemon in another boot ──► promises?
//! ```
//!
//! What a flush had asked for is on the disks; of what was written since, nothing is, or all, or any part, and one write by
//! halves. Needs root. All of it happens in namespaces of its own, with a boot id of their own, so that when it ends, however it
//! does, no process, mount or loop device is left, and the machine has not noticed. `SCORPIO_LONG=1` cuts more often.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, unreachable_pub)] // tests may, in their own functions too

#[path = "../support/mod.rs"]
mod support;

mod after;
mod day;
mod dice;
mod hand;
mod log;
mod promises;
mod server;
mod world;

use std::{
    ffi::OsString,
    path::Path,
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use after::{Broken, Seen};
use day::{Day, Start};
use dice::Dice;
use world::{Layout, ONE_DISK, SERVE, THREE_DISKS};

/// What a test has this binary do in its namespaces.
const SCENARIO: &str = "SCORPIO_POWER_CUT";
/// Longer than the longest takes; then everything in the namespaces is killed.
const LIMIT: Duration = Duration::from_secs(3600);

#[test]
fn what_was_synced_or_acknowledged_is_there_after_a_power_cut() {
    enclosed("one disk", &[]);
}

#[test]
fn it_is_there_if_state_uppers_and_homes_have_disks_of_their_own() {
    enclosed("three disks", &[]);
}

/// The counter-proof: where syncs do nothing, the same promises do not hold, and that is seen.
#[test]
fn where_syncs_do_nothing_workspaces_and_files_are_seen_to_be_lost() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/power_cut/without_syncs.py");
    enclosed("without syncs", &["python3", script]);
}

/// Runs this binary again for `scenario`, by way of `through`, as the first process of new namespaces.
fn enclosed(scenario: &str, through: &[&str]) {
    assert!(nix::unistd::geteuid().is_root(), "these tests mount: run them as root");
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", &LIMIT.as_secs().to_string(), "unshare", "--mount", "--pid"]);
    command.args(["--fork", "--kill-child", "--mount-proc"]).args(through);
    command.arg(std::env::current_exe().unwrap()).args(ignored("in_namespaces_of_its_own"));
    let output = command.env(SCENARIO, scenario).output().unwrap();
    let [told, log] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success() && told.contains("1 passed"), "{told}\n{log}");
    told.lines().filter(|line| line.contains("FIGURE")).for_each(|line| println!("{line}"));
}

/// Arguments that make this binary run one ignored test.
fn ignored(test: &str) -> Vec<OsString> {
    ["--ignored", "--exact", "--nocapture", "--test-threads=1", test].map(OsString::from).to_vec()
}

#[test]
#[ignore = "runs in a child of the other tests"]
fn serves_the_disks() {
    let Ok(order) = std::env::var(SERVE) else { return };
    let parts: Vec<_> = order.split(':').collect();
    let names: Vec<_> = parts[2].split(',').collect();
    server::serve(Path::new(parts[0]), Path::new(parts[1]), &names).unwrap();
}

#[test]
#[ignore = "runs in a child of the other tests"]
fn in_namespaces_of_its_own() {
    let Ok(scenario) = std::env::var(SCENARIO) else { return };
    forget_others();
    let long = std::env::var_os("SCORPIO_LONG").is_some_and(|value| value != "0");
    match scenario.as_str() {
        "one disk" => hold(&ONE_DISK, long),
        "three disks" => hold(&THREE_DISKS, long),
        _ => are_broken(&ONE_DISK),
    }
}

/// Mounts of tests that run beside this one were copied to our namespace, where they would stay when those end them.
fn forget_others() {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let theirs = |line: &&str| {
        ["/scorpio-test.", "/scorpio-bench.", " scorpio:", " fuse.scorpio "]
            .iter()
            .any(|mark| line.contains(mark))
    };
    for point in table.lines().filter(theirs).filter_map(|line| line.split(' ').nth(4)) {
        // Gone with the one above it, perhaps.
        let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
    }
}

fn seed() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64
}

/// Cuts of a day's work, and again of the start that follows one of them.
fn hold(layout: &'static Layout, long: bool) {
    let (rounds, more, again) = if long { (36, 190, 20) } else { (12, 7, 3) };
    let (seed, begin) = (seed(), Instant::now());
    let mut day = Day::new(layout, rounds, seed);
    let worked = begin.elapsed();
    let (mut dice, mut all, mut last) = (Dice::new(seed), Seen::default(), None);
    for cut in day.cuts(more, &mut dice) {
        println!("seed {seed}, of {}..={}: {cut:?}", day.from, day.upto);
        let (seen, images) = day.after(&cut);
        assert!(seen.broken.is_empty(), "{cut:?}: {:#?}\n{}", seen.broken, day.world.host.log());
        all.add(seen);
        last = Some((cut, images));
    }
    let (first, images) = last.unwrap();
    let mut start = Start::new(&mut day.world, images);
    for second in start.cuts(again, &mut dice) {
        println!("seed {seed}, of the start after {first:?}: {second:?}");
        let seen = start.after(&mut day.world, &day.promises, &first, &second);
        assert!(seen.broken.is_empty(), "{second:?}: {:#?}\n{}", seen.broken, day.world.host.log());
        all.add(seen);
    }
    let Seen { cuts, promises, unsynced, lost, .. } = all;
    println!(
        "FIGURE power cuts, {} disk(s): {cuts} cuts in {} writes and flushes ({} MiB), {promises} promises held; {lost} of \
         {unsynced} files that nobody synced were lost; {:.1} s of work, {:.2} s a cut",
        layout.disks.len(),
        day.log.entries.len(),
        day.upto >> 20,
        worked.as_secs_f64(),
        (begin.elapsed() - worked).as_secs_f64() / f64::from(cuts),
    );
    assert!(promises > 50 * u64::from(cuts), "only {promises} promises were looked for");
    assert!(lost > 0, "these cuts take nothing away");
}

fn are_broken(layout: &'static Layout) {
    let seed = seed();
    let mut day = Day::new(layout, 6, seed);
    let mut broken = Vec::new();
    for cut in day.cuts(0, &mut Dice::new(seed)) {
        broken.extend(day.after(&cut).0.broken);
    }
    let workspaces = broken.iter().filter(|broken| matches!(broken, Broken::Workspace(_))).count();
    let files = broken.iter().filter(|broken| matches!(broken, Broken::File(_))).count();
    println!("FIGURE power cuts without syncs: {workspaces} workspaces and {files} files seen to be lost");
    assert!(workspaces > 0 && files > 0, "{broken:#?}");
}
