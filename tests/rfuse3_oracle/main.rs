//! The same tree served by our own device layer and by `rfuse3`, compared in every answer that a program can get.
//!
//! Two implementations of one protocol that share no line below the tree: where they agree, what we write to the
//! device is what others understand too. Needs root.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails
#![allow(missing_docs)]

#[path = "../origin_fixture/mod.rs"]
mod origin_fixture;

mod repository;
mod servers;
mod wire;

use std::collections::BTreeMap;

use servers::{ALICE, BOB, Mode, Mounted, World};

/// What may differ: words that a question begins with, and why. Nothing else may.
const ACCEPTED: &[(&str, &str)] = &[
    (
        "handle ",
        "we tell the kernel to make no file handles: overlayfs would keep them and meet nodes that it cannot revive; \
         rfuse3 always allows them",
    ),
    ("tmpfile ", "rfuse3 does not know the request and says so, where we say that nothing can be written"),
];

/// Fewer would mean that the tree was not seen.
const QUESTIONS: usize = 15_000;

type Answers = BTreeMap<String, Vec<serde_json::Value>>;

/// Where both differ: question, answer of ours, answer of theirs.
fn differences(ours: &Answers, theirs: &Answers) -> Vec<String> {
    let questions = ours.keys().chain(theirs.keys().filter(|question| !ours.contains_key(*question)));
    let differing = questions.filter(|question| ours.get(*question) != theirs.get(*question));
    let told = |answers: &Answers, question: &str| {
        let text = answers.get(question).map_or("not asked".into(), |answer| format!("{answer:?}"));
        text.chars().take(600).collect::<String>()
    };
    let accepted = |question: &&String| ACCEPTED.iter().any(|(start, _)| question.starts_with(start));
    differing
        .filter(|question| !accepted(question))
        .map(|question| {
            format!("{question:?}\n  ours   {}\n  theirs {}", told(ours, question), told(theirs, question))
        })
        .collect()
}

#[track_caller]
fn assert_same(ours: &Answers, theirs: &Answers, least: usize) {
    let found = differences(ours, theirs);
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found[..found.len().min(60)].join("\n"));
    let asked: usize = ours.values().map(Vec::len).sum();
    assert!(asked >= least, "only {asked} questions were asked");
    println!("{asked} questions, the same answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_of_a_read_only_mount_is_the_same() {
    let world = World::new().await;
    let ours = Mounted::ours(&world, Mode::ReadOnly);
    let theirs = Mounted::rfuse3(&world, Mode::ReadOnly).await;
    // Cold, warm, and cold again with everything in the daemon's cache.
    for uid in [0, 0, ALICE, BOB] {
        assert_same(&ours.look(uid).await, &theirs.look(uid).await, QUESTIONS);
        if uid == ALICE {
            servers::drop_caches();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_of_a_writable_mount_is_the_same() {
    let world = World::new().await;
    let ours = Mounted::ours(&world, Mode::Writable);
    let theirs = Mounted::rfuse3(&world, Mode::Writable).await;
    for uid in [ALICE, 0] {
        assert_same(&ours.look(uid).await, &theirs.look(uid).await, QUESTIONS);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_wrong_attribute_is_found() {
    let world = World::new().await;
    let ours = Mounted::ours(&world, Mode::ReadOnly);
    let wrong = Mounted::wrong(&world);
    let (ours, wrong) = (ours.look(0).await, wrong.look(0).await);
    let found = differences(&ours, &wrong);
    assert!(!found.is_empty());
    assert!(found.iter().all(|difference| difference.contains(servers::WRONGED)), "{}", found.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_requests_get_the_same_fields() {
    wire::compare(&World::new().await).await;
}
