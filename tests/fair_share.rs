//! Whoever has hundreds of reads waiting at a slow origin does not keep others waiting: counted in fetches. Once over a
//! kernel played by the test, where every step is taken singly, and once with 200 processes in a real mount, which needs
//! root.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // a test that fails panics; 64-bit machines
#![allow(missing_docs)]

#[path = "fair_share/kernel.rs"]
mod kernel;
mod origin_fixture;
mod stack_fixture;
#[path = "fair_share/world.rs"]
mod world;

use std::{
    fs,
    io::{Read, Write},
    process::Stdio,
    time::{Duration, Instant},
};

use kernel::until;
use origin_fixture::git;
use scorpio::{config::LowerKind, engine::OverlayEngine, origin::faults::Fault};
use stack_fixture::{ALICE, BOB, Ground, PATIENCE, Plan, Stack, says, spawn};
use world::World;

/// Requests that the origin is sent at once.
const REQUESTS: usize = 16;
/// Reads of the user who has many.
const READS: usize = 200;

/// How many fetches of alice's end before bob's read gets to the origin, with `per_user` of each user's under way.
fn ended_before_bobs(per_user: usize) -> usize {
    let world = World::new(REQUESTS, per_user);
    (0..READS).for_each(|n| world.read(ALICE, n));
    until("all of alice's wait", || world.parked() == READS as u64);
    let under_way = per_user.min(READS);
    until("all that may be are under way", || {
        world.fetches() == under_way && world.asked().len() == REQUESTS
    });
    let bobs = READS;
    world.read(BOB, bobs);
    until("bob's is under way", || world.fetches() == under_way + 1);
    let mut ended = 0;
    while !world.asked().contains(&bobs) {
        let asked = world.asked();
        world.answer(asked[ended]);
        ended += 1;
        until("the origin is asked for another one", || world.asked().len() > asked.len());
    }
    world.answer(bobs);
    let answer = world.kernel.answer_of(world.unique(bobs));
    assert_eq!(answer, Ok(world::content(bobs)));
    ended
}

#[test]
fn a_read_waits_for_one_fetch_of_a_user_who_has_two_hundred() {
    assert_eq!(ended_before_bobs(REQUESTS), 1);
}

#[test]
fn without_a_share_it_waits_for_nearly_all_of_them() {
    assert_eq!(ended_before_bobs(1024), READS - REQUESTS + 1);
}

#[test]
fn reads_that_are_given_up_make_no_room_for_more() {
    const AT_ONCE: usize = 40;
    let world = World::new(REQUESTS, REQUESTS);
    for round in 0..READS / AT_ONCE {
        let all: Vec<usize> = (round * AT_ONCE..(round + 1) * AT_ONCE).collect();
        all.iter().for_each(|n| world.read(ALICE, *n));
        until("they wait", || world.parked() == AT_ONCE as u64);
        until("as many as may be are under way", || world.asked().len() == REQUESTS);
        for n in all {
            world.kernel.interrupt(world.unique(n));
            assert_eq!(world.kernel.answer_of(world.unique(n)), Err(libc::EINTR));
        }
        assert_eq!(world.parked(), 0);
    }
    assert_eq!(world.fetches(), REQUESTS, "those who left have no more under way than who stay");
    world.read(BOB, READS);
    until("bob's is under way", || world.fetches() == REQUESTS + 1);
    world.answer(world.asked()[0]);
    until("the origin is asked for another one", || world.asked().len() > REQUESTS);
    assert_eq!(world.asked()[REQUESTS], READS, "bob's is next");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_cold_read_goes_past_two_hundred_readers_of_another() {
    // Each of bob's fetches (here one) waits for one of alice's, and takes as long as those beside it: three rounds at most.
    const BOUND: u64 = 3 * REQUESTS as u64;
    const SLOW: Duration = Duration::from_millis(500);
    for lower in [LowerKind::Shared, LowerKind::PerOwner] {
        let ground = Ground::new();
        let repository = ground.at("slow");
        fs::create_dir_all(repository.join("many")).unwrap();
        for n in 0..=READS {
            fs::write(repository.join(format!("many/{n}")), format!("file {n}\n")).unwrap();
        }
        git(&repository, &["init", "-q", "-b", "main"]);
        git(&repository, &["add", "-A"]);
        git(&repository, &["commit", "-q", "-m", "all"]);
        let plan = Plan { requests: REQUESTS, fetches_per_user: REQUESTS, ..Plan::new(lower, PATIENCE) };
        let stack = Stack::start(ground, plan, &["slow"]).await;
        let alices = stack.mount(ALICE, "slow", "w").await.mount_point;
        let bobs = stack.mount(BOB, "slow", "w").await.mount_point;
        for (uid, at) in [(ALICE, &alices), (BOB, &bobs)] {
            says(uid, at, "stat -c %s many/* > /dev/null").await;
        }
        stack.faults("slow").set(Fault::Slow(SLOW));
        stack.faults("slow").reset();

        let mut reader = stack_fixture::shell(BOB, &bobs, &format!("echo; read line || cat many/{READS}"));
        reader.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut reader = reader.spawn().unwrap();
        reader.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let all = format!("for n in $(seq 0 {}); do cat many/$n & done; wait", READS - 1);
        let readers = spawn(ALICE, &alices, &all);
        let begin = Instant::now();
        while stack.parked() < READS as u64 / 2 {
            assert!(begin.elapsed() < PATIENCE, "only {} wait", stack.parked());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let before = stack.faults("slow").asked().blobs;
        reader.stdin.take().unwrap().flush().unwrap();
        let read = tokio::task::spawn_blocking(move || reader.wait_with_output().unwrap()).await.unwrap();
        let fetched = stack.faults("slow").asked().blobs - before;
        let waiting = stack.parked();
        assert_eq!(String::from_utf8_lossy(&read.stdout), format!("file {READS}\n"), "{lower:?}: {read:?}");
        assert!(fetched <= BOUND, "{lower:?}: {fetched} fetches began meanwhile");
        assert!(waiting > BOUND, "{lower:?}: only {waiting} of alice's wait still");
        println!("FIGURE {lower:?}: {fetched} fetches began meanwhile, {waiting} of alice's still waited");

        let ended = readers.end().await;
        let lines = ended.stdout();
        assert_eq!(
            (lines.lines().count(), ended.stderr()),
            (READS, String::new()),
            "{lower:?}: nobody got an error"
        );
        assert_eq!(stack.faults("slow").most_asked(), 1, "{lower:?}");
        let queued: u64 = stack.engine.sessions().iter().map(|session| session.queued).sum();
        assert!(queued >= READS as u64 / 2, "{lower:?}: {queued} waited for their turn");
        stack.stop().await;
    }
}
