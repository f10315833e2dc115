//! Mounters and engines that die.

use std::{fs, os::unix::ffi::OsStrExt, path::PathBuf, time::Duration};

use scorpio::{
    config::LowerKind,
    engine::{MountError, MountSpec, OverlayEngine},
    sys::idmap::Ids,
};

use crate::stack::{ALICE, BOB, Plan, Stack};

const STEPS: [&str; 6] = ["opened", "cloned", "attached", "created", "detached", "placed"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mounter_killed_at_any_step_leaves_nothing() {
    // Stored as hers, and stored with other ids than hers: that has one more layer.
    for (step, stored) in STEPS.into_iter().flat_map(|step| [(step, ALICE), (step, BOB)]) {
        let plan = Plan { mounter_args: vec!["--kill-after", step], ..Plan::new(LowerKind::Auto) };
        let stack = Stack::start(plan).await;
        let alice = stack.place(ALICE, "ws");
        let spec = MountSpec { stored: Ids { uid: stored, gid: stored }, ..stack.spec(&alice) };
        let error = stack.engine.mount(&spec).await.unwrap_err();
        assert!(matches!(error, MountError::Kernel { .. }), "{step}: {error}");
        assert!(error.to_string().contains("signal: 9"), "{step}: {error}");
        stack.assert_nothing_left();
        stack.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mounter_that_takes_too_long_at_any_step_is_ended_and_leaves_nothing() {
    for step in STEPS {
        let plan = Plan {
            mounter_args: vec!["--stop-after", step],
            mount_timeout: Duration::from_secs(1),
            ..Plan::new(LowerKind::Auto)
        };
        let stack = Stack::start(plan).await;
        let alice = stack.place(ALICE, "ws");
        let error = stack.engine.mount(&stack.spec(&alice)).await.unwrap_err();
        assert!(matches!(error, MountError::TimedOut { .. }), "{step}: {error}");
        assert_eq!(mounters(&stack), Vec::<u32>::new(), "{step}");
        stack.assert_nothing_left();
        stack.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_nobody_waits_for_any_more_is_undone() {
    for step in [None, Some("opened"), Some("placed")] {
        let mounter_args = step.map_or_else(Vec::new, |step| vec!["--stop-after", step]);
        let stack = Stack::start(Plan { mounter_args, ..Plan::new(LowerKind::Auto) }).await;
        let alice = stack.place(ALICE, "ws");
        let spec = stack.spec(&alice);
        let patience = Duration::from_millis(if step.is_some() { 700 } else { 2 });
        let dropped = tokio::time::timeout(patience, stack.engine.mount(&spec)).await;
        // Waits its turn behind what is left of the operation.
        let id = dropped.map_or(0, |mounted| mounted.unwrap().mount_id);
        stack.engine.unmount(&alice.id, id, false).await.unwrap();
        assert_eq!(mounters(&stack), Vec::<u32>::new(), "{step:?}");
        stack.assert_nothing_left();
        stack.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mounter_holds_no_descriptor_of_the_daemon() {
    let plan = Plan {
        mounter_args: vec!["--stop-after", "opened"],
        mount_timeout: Duration::from_secs(3),
        ..Plan::new(LowerKind::Auto)
    };
    let stack = Stack::start(plan).await;
    let alice = stack.place(ALICE, "ws");
    let spec = stack.spec(&alice);
    let look = async {
        loop {
            let stopped = mounters(&stack).into_iter().find(|pid| state(*pid) == Some('T'));
            if let Some(pid) = stopped {
                return open_files(pid);
            }
            tokio::time::sleep(Duration::from_millis(5)).await; // until the mounter has stopped itself
        }
    };
    let (outcome, files) = tokio::join!(stack.engine.mount(&spec), look);
    assert!(matches!(outcome, Err(MountError::TimedOut { .. })));
    let stdio_and_point = |file: &&PathBuf| {
        let text = file.to_string_lossy();
        !(text.starts_with("/memfd:scorpio-mounter") || text.starts_with("user:[") || **file == alice.point)
    };
    // Standard error is inherited: whatever this test's is, it is descriptor 2.
    let foreign: Vec<_> =
        files.iter().filter(|(fd, _)| *fd != 2).map(|(_, file)| file).filter(stdio_and_point).collect();
    assert_eq!(foreign, Vec::<&PathBuf>::new());
    assert!(files.len() >= 4, "{files:?}");
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mounts_of_an_engine_that_died_are_seen_as_dead_and_can_be_ended() {
    let stack = Stack::start(Plan::new(LowerKind::Auto)).await;
    let alice = stack.place(ALICE, "ws");
    let mounted = stack.mount(&alice).await;
    alice.run_as(ALICE, "echo kept > kept");
    let successor = stack.second_engine(Plan::new(LowerKind::Auto)).await;
    let found = successor.survey().unwrap().into_iter().find(|live| live.workspace == alice.id).unwrap();
    assert_eq!((found.mount_id, found.alive), (mounted.mount_id, false));
    assert_eq!(found.path, alice.point);
    successor.unmount(&alice.id, mounted.mount_id, true).await.unwrap();
    fs::remove_dir_all(alice.state.join("work")).unwrap();
    fs::create_dir(alice.state.join("work")).unwrap();
    let again = successor.mount(&stack.spec(&alice)).await.unwrap();
    assert_eq!(alice.run_as(ALICE, "cat kept README"), "kept\nhello\n");
    successor.unmount(&alice.id, again.mount_id, false).await.unwrap();
    successor.shutdown(scorpio::engine::Leave::Nothing).await;
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_with_another_runtime_directory_does_not_see_our_mounts() {
    for args in [vec![], vec!["--lower-by-string"]] {
        let (ours, other) = (
            Stack::start(Plan { mounter_args: args, ..Plan::new(LowerKind::Auto) }).await,
            Stack::start(Plan::new(LowerKind::Auto)).await,
        );
        let (alice, reader) = (ours.place(ALICE, "ws"), ours.place(ALICE, "ro"));
        let writable = ours.mount(&alice).await;
        let spec = MountSpec { upper: reader.read_only(), ..ours.spec(&reader) };
        let read_only = ours.engine.mount(&spec).await.unwrap();
        let mut seen: Vec<_> = ours.engine.survey().unwrap().into_iter().map(|live| live.mount_id).collect();
        seen.sort_unstable();
        let mut expected = [writable.mount_id, read_only.mount_id];
        expected.sort_unstable();
        assert_eq!(seen, expected);
        assert_eq!(other.engine.survey().unwrap(), []);
        ours.engine.unmount(&alice.id, writable.mount_id, false).await.unwrap();
        ours.engine.unmount(&reader.id, read_only.mount_id, false).await.unwrap();
        ours.end().await;
        other.end().await;
    }
}

/// Living mounters of this stack: its own link to the program is what they were started by.
fn mounters(stack: &Stack) -> Vec<u32> {
    let program = stack.at("mounter");
    let pids =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.starts_with(program.as_os_str().as_bytes())
    })
    .collect()
}

fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn open_files(pid: u32) -> Vec<(u32, PathBuf)> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    files
        .filter_map(|file| Some((file.file_name().to_str()?.parse().ok()?, fs::read_link(file.path()).ok()?)))
        .collect()
}
