//! An origin that stops, hangs, dawdles, breaks off, lies or has lost everything: what users of its workspaces see,
//! and what everybody else does not. Needs root.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails
#![allow(missing_docs)]

mod origin_fixture;
mod stack_fixture;

use std::{
    fs,
    os::unix::{
        fs::symlink,
        process::{CommandExt, ExitStatusExt},
    },
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use origin_fixture::{Objects, git, oid, want};
use scorpio::{
    antares::Scope,
    config::LowerKind,
    engine::OverlayEngine,
    origin::faults::Fault,
    types::{Oid, OriginName},
};
use stack_fixture::{ALICE, BOB, Ground, Plan, Running, Stack, says, spawn};

const DEADLINE: Duration = Duration::from_secs(2);
/// What a process may take beyond the deadline, its own start on a loaded machine included.
const MARGIN: Duration = Duration::from_secs(1);

const LOWERS: [LowerKind; 2] = [LowerKind::Shared, LowerKind::PerOwner];

/// Every way to be gone, and the directory of the repository that is kept unread for it.
const FAULTS: [(Fault, &str); 6] = [
    (Fault::Refusing, "refusing"),
    (Fault::BlackHole, "black-hole"),
    (Fault::Slow(Duration::from_secs(20)), "slow"),
    (Fault::Truncating, "truncating"),
    (Fault::WrongBytes, "wrong-bytes"),
    (Fault::Absent, "absent"),
];

/// Names, types, modes, sizes and digests of everything below a directory, without the modes of directories.
const INVENTORY: &str = "find . -not -type d -printf '%y %m %s %l %P\\n' | LC_ALL=C sort
    find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum; find . -type d | LC_ALL=C sort";

/// Learns trees and sizes, and reads nothing.
const LOOK: &str =
    "find cold -name 'dir*' -prune -o -printf '%s\\n' > /dev/null; stat -c %s cold/*/known/* > /dev/null";

/// `warm` and, for each fault, `cold/<fault>/known` and three directories `cold/<fault>/dir-…`.
fn make_repository(path: &Path) {
    let write = |name: &str, content: &[u8]| {
        let file = path.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    };
    for n in 0..30 {
        write(&format!("warm/{}/{n}", n % 3), format!("warm {n}\n").as_bytes());
    }
    write("warm/empty", b"");
    write("warm/large", &noise("warm", 300_000));
    symlink("0/0", path.join("warm/link")).unwrap();
    for (_, dir) in FAULTS {
        write(&format!("cold/{dir}/known/small"), format!("small {dir}\n").as_bytes());
        write(&format!("cold/{dir}/known/appended"), format!("appended {dir}\n").as_bytes());
        write(&format!("cold/{dir}/known/large"), &noise(dir, 300_000));
        symlink(format!("target-{dir}"), path.join(format!("cold/{dir}/known/link"))).unwrap();
        for n in 0..10 {
            // One for each process that asks: overlayfs lets only one at a time into a directory that it has not listed.
            for name in ["dir-listed", "dir-found", "dir-missed"] {
                write(&format!("cold/{dir}/{name}/{n}"), format!("{dir} {name} {n}\n").as_bytes());
            }
        }
    }
    commit(path);
}

fn commit(path: &Path) {
    git(path, &["init", "-q", "-b", "main"]);
    git(path, &["add", "-A"]);
    git(path, &["commit", "-q", "-m", "all"]);
}

/// Bytes that differ for each seed, and do not repeat.
fn noise(seed: &str, len: usize) -> Vec<u8> {
    let seed = seed.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let words = (0..u32::try_from(len.div_ceil(4)).unwrap()).map(|n| (n ^ seed).wrapping_mul(2_654_435_761));
    words.flat_map(u32::to_le_bytes).take(len).collect()
}

/// Scripts that need something of the origin that is not here.
fn probes(dir: &str) -> Vec<String> {
    [
        "ls {}/dir-listed",
        "stat {}/dir-found/1",
        "stat {}/dir-missed/nothing",
        "cat {}/known/small",
        "cat {}/known/large",
        "readlink -v {}/known/link",
        "printf more >> {}/known/appended",
    ]
    .iter()
    .map(|script| script.replace("{}", &format!("cold/{dir}")))
    .collect()
}

async fn end_all(running: Vec<Running>) -> Vec<stack_fixture::Ended> {
    futures_util::future::join_all(running.into_iter().map(Running::end)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cached_stays_and_all_else_is_eio_until_the_origin_is_back() {
    for lower in LOWERS {
        let ground = Ground::new();
        let repository = ground.at("ill");
        make_repository(&repository);
        let objects = Objects::of(&repository);
        let stack = Stack::start(ground, Plan::new(lower, DEADLINE), &["ill"]).await;
        let workspace = stack.mount(ALICE, "ill", "w").await;
        let (at, faults) = (workspace.mount_point.clone(), stack.faults("ill").clone());
        let expected_warm = says(0, &repository.join("warm"), INVENTORY).await;
        assert_eq!(says(ALICE, &at.join("warm"), INVENTORY).await, expected_warm);
        says(ALICE, &at, LOOK).await;
        for (fault, dir) in FAULTS {
            let context = format!("{lower:?} {fault:?}");
            faults.set(fault);
            let asked = faults.asked();
            // The kernel may let go of what it has whenever it likes, and another process may tell it to.
            let mut tries = 0..10;
            while {
                let before = stack.requests();
                assert_eq!(says(ALICE, &at.join("warm"), INVENTORY).await, expected_warm, "{context}");
                stack.requests() != before
            } {
                assert!(tries.next().is_some(), "{context}: the kernel asks every time for what it has");
            }
            assert_eq!(faults.asked(), asked, "{context}: the origin is not asked for what is here");

            let running = probes(dir).iter().map(|script| spawn(ALICE, &at, script)).collect();
            for ended in end_all(running).await {
                ended.assert_eio(&context);
                assert!(ended.took <= DEADLINE + MARGIN, "{context}: {}: {:?}", ended.script, ended.took);
            }
            assert_ne!(faults.asked(), asked, "{context}: the origin was asked");
            assert_eq!(stack.parked(), 0, "{context}");

            faults.set(Fault::Refusing);
            for ended in end_all(probes(dir).iter().map(|script| spawn(ALICE, &at, script)).collect()).await {
                ended.assert_eio(&format!("{context}, then refusing"));
            }

            faults.set(Fault::None);
            let (cold, truth) = (at.join("cold").join(dir), repository.join("cold").join(dir));
            assert_eq!(says(ALICE, &cold, INVENTORY).await, says(0, &truth, INVENTORY).await, "{context}");
            let nothing = spawn(ALICE, &cold, "stat dir-missed/nothing").end().await;
            assert!(nothing.stderr().contains("No such file"), "{context}: {}", nothing.stderr());
            says(
                ALICE,
                &cold,
                "printf more >> known/appended; mv known/small known/moved; ls known > /dev/null",
            )
            .await;
            assert_eq!(
                says(ALICE, &cold, "cat known/appended known/moved").await,
                format!("appended {dir}\nmoresmall {dir}\n")
            );
        }
        assert_cache_is_true(&stack, &objects);
        stack.stop().await;
    }
}

fn ill() -> OriginName {
    "ill".parse().unwrap()
}

/// Whatever is cached of these objects is what git has.
fn assert_cache_is_true(stack: &Stack, objects: &Objects) {
    let mut seen = 0;
    for (oid, body) in &objects.blobs {
        // The kernel reads nothing of a file that has nothing.
        let cached = stack.store.cached_blob(&ill(), *oid, 0, u32::MAX).unwrap();
        assert!(*oid == Oid::EMPTY_BLOB || cached.is_some_and(|cached| cached == body), "blob {oid}");
        assert_eq!(stack.store.cached_size(&ill(), *oid).unwrap(), Some(body.len() as u64), "blob {oid}");
        seen += 1;
    }
    for (oid, body) in &objects.trees {
        assert!(
            stack.store.cached_tree(&ill(), *oid).unwrap().is_some_and(|cached| cached == body),
            "tree {oid}"
        );
        seen += 1;
    }
    assert!(seen > 100, "{seen}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_size_that_was_a_lie_is_an_error_and_no_short_or_padded_file() {
    let ground = Ground::new();
    let repository = ground.at("ill");
    make_repository(&repository);
    let stack = Stack::start(ground, Plan::new(LowerKind::Shared, DEADLINE), &["ill"]).await;
    let workspace = stack.mount(ALICE, "ill", "w").await;
    let at = workspace.mount_point.clone();
    // The tree is here, its sizes are not: only then is a size asked for alone.
    says(ALICE, &at, "ls -d cold/absent/known > /dev/null").await;
    let tree = oid(&repository, "HEAD:cold/absent/known");
    let known = want(tree);
    stack.store.fetch_tree(&"ill".parse().unwrap(), known).await.unwrap();
    stack.faults("ill").set(Fault::WrongBytes);
    let told = says(ALICE, &at, "stat -c %s cold/absent/known/small").await;
    assert_eq!(told, "14\n", "one more than it has");
    spawn(ALICE, &at, "cat cold/absent/known/small").end().await.assert_eio("wrong bytes");
    stack.faults("ill").set(Fault::None);
    spawn(ALICE, &at, "cat cold/absent/known/small").end().await.assert_eio("right bytes, another size");
    assert_eq!(
        stack.store.cached_size(&ill(), oid(&repository, "HEAD:cold/absent/known/small")).unwrap(),
        Some(13)
    );
    stack.stop().await;
}

/// Files `many/0` … `many/<count - 1>`, each with content of its own.
fn make_many(path: &Path, count: usize) {
    fs::create_dir_all(path.join("many")).unwrap();
    for n in 0..count {
        fs::write(path.join(format!("many/{n}")), format!("{} {n}\n", path.display())).unwrap();
    }
    commit(path);
}

fn read_many(uid: u32, at: &Path, numbers: std::ops::Range<usize>) -> Vec<Running> {
    numbers.map(|n| spawn(uid, at, &format!("exec cat many/{n}"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_who_wait_for_a_black_hole_hold_up_nobody_else() {
    const READERS: usize = 200;
    let deadline = Duration::from_secs(15);
    for lower in LOWERS {
        let ground = Ground::new();
        make_many(&ground.at("ill"), READERS);
        make_many(&ground.at("well"), 50);
        let stack = Stack::start(ground, Plan::new(lower, deadline), &["ill", "well"]).await;
        let ill = stack.mount(ALICE, "ill", "ill").await;
        let (own, others) =
            (stack.mount(ALICE, "well", "well").await, stack.mount(BOB, "well", "well").await);
        says(ALICE, &ill.mount_point, "stat -c %s many/* > /dev/null").await;
        stack.faults("ill").set(Fault::BlackHole);
        let readers = read_many(ALICE, &ill.mount_point, 0..READERS);
        stack.until_parked(READERS as u64).await;

        for (uid, workspace, numbers) in [(BOB, &others, 0..10), (ALICE, &own, 10..20)] {
            for n in numbers {
                let cold = spawn(uid, &workspace.mount_point, &format!("cat many/{n}")).end().await;
                assert!(
                    cold.stdout().ends_with(&format!("/well {n}\n")),
                    "{lower:?} {uid}: {}",
                    cold.stderr()
                );
                assert!(
                    cold.took < Duration::from_secs(1),
                    "{lower:?} {uid}: a cold read took {:?}",
                    cold.took
                );
            }
        }
        for _ in 0..20 {
            let begin = Instant::now();
            assert_eq!(stack.antares.list(&Scope::Everybody).len(), 3);
            stack.antares.get(&Scope::User(ALICE), &ill.id).unwrap();
            assert!(begin.elapsed() < Duration::from_millis(50), "{:?}", begin.elapsed());
        }
        let begin = Instant::now();
        let more = stack.mount(BOB, "well", "more").await;
        says(BOB, &more.mount_point, "cat many/30").await;
        assert!(begin.elapsed() < Duration::from_secs(3), "a mount took {:?}", begin.elapsed());
        assert_eq!(stack.parked(), READERS as u64, "they wait still");

        for ended in end_all(readers).await {
            ended.assert_eio(&format!("{lower:?}"));
            assert!(ended.took <= deadline + MARGIN, "{lower:?}: {}: {:?}", ended.script, ended.took);
        }
        stack.faults("ill").set(Fault::None);
        for (n, ended) in end_all(read_many(ALICE, &ill.mount_point, 0..READERS)).await.iter().enumerate() {
            assert!(ended.stdout().ends_with(&format!("/ill {n}\n")), "{}", ended.stderr());
        }
        stack.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_black_hole_can_be_killed_at_once() {
    let ground = Ground::new();
    make_repository(&ground.at("ill"));
    let stack = Stack::start(ground, Plan::new(LowerKind::Shared, Duration::from_secs(30)), &["ill"]).await;
    let at = stack.mount(ALICE, "ill", "w").await.mount_point;
    says(ALICE, &at, LOOK).await;
    stack.faults("ill").set(Fault::BlackHole);
    for script in
        ["cat cold/absent/known/large", "ls cold/absent/dir-listed", "readlink cold/absent/known/link"]
    {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("cd \"$0\" && exec {script}")]).arg(&at).current_dir("/");
        command.uid(ALICE).gid(ALICE).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        stack.until_parked(1).await;
        let begin = Instant::now();
        child.kill().unwrap();
        let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
        assert!(begin.elapsed() < Duration::from_millis(500), "{script}: {:?}", begin.elapsed());
        assert_eq!(status.signal(), Some(libc::SIGKILL));
        stack.until_parked(0).await;
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_beyond_their_share_is_refused_at_once_and_others_are_served() {
    const SHARE: usize = 16;
    const READERS: usize = 40;
    let deadline = Duration::from_secs(12);
    for lower in LOWERS {
        let ground = Ground::new();
        make_many(&ground.at("ill"), READERS);
        make_many(&ground.at("well"), 50);
        let plan = Plan { parked: SHARE + 4, parked_per_user: SHARE, ..Plan::new(lower, deadline) };
        let stack = Stack::start(ground, plan, &["ill", "well"]).await;
        let ill = stack.mount(ALICE, "ill", "ill").await.mount_point;
        let well = stack.mount(BOB, "well", "well").await.mount_point;
        says(ALICE, &ill, "stat -c %s many/* > /dev/null").await;
        stack.faults("ill").set(Fault::BlackHole);
        let ended = end_all(read_many(ALICE, &ill, 0..READERS));
        let beside = async {
            stack.until_parked(SHARE as u64).await;
            let cold = spawn(BOB, &well, "cat many/7").end().await;
            assert!(cold.stdout().ends_with("/well 7\n"), "{lower:?}: {}", cold.stderr());
            assert!(cold.took < Duration::from_secs(1), "{lower:?}: {:?}", cold.took);
            assert_eq!(stack.parked(), SHARE as u64);
        };
        let (ended, ()) = tokio::join!(ended, beside);
        ended.iter().for_each(|ended| ended.assert_eio(&format!("{lower:?}")));
        let waited = ended.iter().filter(|ended| ended.took >= deadline).count();
        assert_eq!(waited, SHARE, "{lower:?}");
        let slowest = ended.iter().map(|ended| ended.took).filter(|took| *took < deadline).max().unwrap();
        assert!(slowest < deadline / 2, "{lower:?}: refused after {slowest:?}");
        let refused: u64 = stack.engine.sessions().iter().map(|session| session.stats.refused).sum();
        assert!(refused >= READERS as u64, "{lower:?}: {refused}");
        stack.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_readers_of_one_object_are_one_fetch() {
    for lower in LOWERS {
        let ground = Ground::new();
        let repository = ground.at("repo");
        fs::create_dir_all(repository.join("dir")).unwrap();
        fs::write(repository.join("big"), noise("big", 1 << 20)).unwrap();
        for n in 0..100 {
            fs::write(repository.join(format!("dir/{n}")), "").unwrap();
        }
        commit(&repository);
        let digest = says(0, &repository, "sha256sum < big").await;
        let (blob, tree) = (oid(&repository, "HEAD:big"), oid(&repository, "HEAD:dir"));
        let stack = Stack::start(ground, Plan::new(lower, Duration::from_secs(20)), &["repo"]).await;
        let points =
            [(ALICE, stack.mount(ALICE, "repo", "w").await), (BOB, stack.mount(BOB, "repo", "w").await)];
        // Long enough for all of them to ask before the first answer.
        stack.faults("repo").set(Fault::Slow(Duration::from_secs(1)));
        for (script, expected, object) in
            [("sha256sum < big", digest.as_str(), blob), ("ls dir | wc -l", "100\n", tree)]
        {
            let mut readers = Vec::new();
            for n in 0..20 {
                let (uid, workspace) = &points[n % 2];
                let gated = format!("echo ready >&2; read line || {script}");
                let mut command = stack_fixture::shell(*uid, &workspace.mount_point, &gated);
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
                readers.push(command.spawn().unwrap());
            }
            for reader in &mut readers {
                let mut ready = [0; 6];
                std::io::Read::read_exact(reader.stderr.as_mut().unwrap(), &mut ready).unwrap();
            }
            assert_eq!(stack.faults("repo").asked_for(object), 0, "{lower:?} {script}: not yet");
            readers.iter_mut().for_each(|reader| drop(reader.stdin.take()));
            for reader in readers {
                let output =
                    tokio::task::spawn_blocking(move || reader.wait_with_output().unwrap()).await.unwrap();
                assert_eq!(
                    String::from_utf8_lossy(&output.stdout),
                    expected,
                    "{lower:?} {script}: {output:?}"
                );
            }
            assert_eq!(stack.faults("repo").asked_for(object), 1, "{lower:?} {script}");
        }
        assert_eq!(stack.faults("repo").most_asked(), 1, "{lower:?}");
        stack.stop().await;
    }
}
