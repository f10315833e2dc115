//! Sizes: asked for in bulk, never guessed, and no reason for a listing to fail.

use std::{collections::HashSet, sync::atomic::Ordering};

use scorpio::{
    dicfuse::{Attrs, Dicfuse, Need, Stop},
    origin::FetchError,
    types::{EntryKind, NodeId, Oid},
};

use crate::{
    memory_origin::Fault,
    world::{Failure, World, page},
};

/// What a question needs at this moment, once the trees are here.
fn need<T: std::fmt::Debug>(world: &World, question: impl Fn(&Dicfuse) -> Result<T, Stop>) -> Need {
    loop {
        match question(&world.dicfuse) {
            Err(Stop::Need(need)) if matches!(*need, Need::Tree(..)) => {
                world.runtime.block_on(world.dicfuse.fetch(*need)).unwrap();
            }
            Err(Stop::Need(need)) => return *need,
            other => panic!("{other:?}"),
        }
    }
}

fn wants(need: &Need) -> (Vec<(Oid, String)>, usize) {
    let Need::Sizes { wants, first, .. } = need else { panic!("{need:?}") };
    (wants.iter().map(|want| (want.oid, want.hint.path.to_string())).collect(), *first)
}

#[test]
fn the_first_stat_asks_for_all_unknown_sizes_of_the_directory_beginning_with_its_own() {
    let world = World::new();
    let [a, b, c, d] = ["a", "bb", "ccc", "dddd"].map(|content| world.repo.blob(content));
    let sub = world.repo.tree(&[
        ("100644", "a", a),
        ("40000", "dir", Oid::EMPTY_TREE),
        ("100755", "b", b),
        ("120000", "c", c),
        ("100644", "b-again", b),
        ("160000", "mod", Oid::from_bytes([1; 20])),
        ("100644", "d", d),
    ]);
    let (_, top) = world.root_at(world.repo.tree(&[("40000", "sub", sub)]), "at");
    let sub = world.node(top, "sub");
    let asked = need(&world, |dicfuse| dicfuse.lookup(sub, b"c"));
    let path = |name: &str| format!("/at/sub/{name}");
    let expected = vec![(c, path("c")), (b, path("b-again")), (d, path("d")), (a, path("a"))];
    assert_eq!(wants(&asked), (expected, 0));
    assert_eq!(world.lookup(sub, "dir").unwrap().size, 0, "a directory has no size to wait for");
    let c_node = NodeId(world.node(sub, "dir").0 + 2);
    let again = need(&world, |dicfuse| dicfuse.getattr(c_node));
    assert_eq!(wants(&again).0[0], (c, path("c")));
    world.runtime.block_on(world.dicfuse.fetch(asked)).unwrap();
    assert_eq!(world.dicfuse.lookup(sub, b"c").unwrap().unwrap().size, 3);
    assert_eq!(world.lookup(sub, "b-again").unwrap().size, 2);
}

#[test]
fn a_listing_with_attributes_fetches_cheap_sizes_first_and_others_never() {
    let world = World::new();
    let blobs = ["1", "22", "333"].map(|content| world.repo.blob(content));
    let names = ["x", "y", "z"];
    let entries: Vec<_> = names.iter().zip(blobs).map(|(name, oid)| ("100644", *name, oid)).collect();
    let (_, top) = world.root(world.repo.tree(&entries));
    world.repo.cheap_sizes.store(false, Ordering::SeqCst);
    let plain = world.list(top, Attrs::Fetch, 99);
    assert_eq!(plain.iter().map(|entry| entry.attr).collect::<Vec<_>>(), [None; 5]);
    world.repo.cheap_sizes.store(true, Ordering::SeqCst);
    assert_eq!(world.list(top, Attrs::Omit, 99).len(), 5, "no sizes needed");
    let asked = need(&world, |dicfuse| page(dicfuse, top, 3, Attrs::Fetch, 99));
    let oids: Vec<_> = wants(&asked).0.into_iter().map(|(oid, _)| oid).collect();
    assert_eq!(oids, [blobs[1], blobs[2], blobs[0]]);
    let sizes: Vec<_> =
        world.list(top, Attrs::Fetch, 99)[2..].iter().map(|entry| entry.attr.unwrap().size).collect();
    assert_eq!(sizes, [1, 2, 3]);
}

#[test]
fn a_listing_ends_before_a_size_far_behind_that_is_unknown_and_begins_there_with_a_need() {
    let world = World::new();
    let names: Vec<String> = (0..100).map(|i| format!("f{i}")).collect();
    let blobs: Vec<Oid> = names.iter().map(|name| world.repo.blob(name)).collect();
    let files: Vec<_> = names.iter().zip(&blobs).map(|(name, oid)| ("100644", name.as_str(), *oid)).collect();
    let known = world.repo.tree(&files[..40]);
    let (_, top) = world.root(world.repo.tree(&files));
    world.list(world.root(known).1, Attrs::Fetch, 99);
    world.ask(|dicfuse| page(dicfuse, top, 0, Attrs::Omit, 0)).unwrap();
    let answer = page(&world.dicfuse, top, 0, Attrs::Fetch, 999).unwrap();
    assert_eq!((answer.len(), answer[41].name.as_str(), answer[41].next), (42, "f39", 42));
    assert!(answer[2..].iter().all(|entry| entry.attr.is_some()));
    let asked = need(&world, |dicfuse| page(dicfuse, top, 42, Attrs::Fetch, 999));
    assert_eq!((wants(&asked).0.len(), wants(&asked).0[0].0), (60, blobs[40]));
    let asked = need(&world, |dicfuse| page(dicfuse, top, 30, Attrs::Fetch, 999));
    assert_eq!(wants(&asked).0[0].0, blobs[40], "the first that is unknown, not the first of the answer");
    assert_eq!(world.list(top, Attrs::Fetch, 999).len(), 102);
}

#[test]
fn a_listing_does_not_fail_because_a_size_cannot_be_learnt() {
    let world = World::new();
    let (here, lost) = (world.repo.blob("here"), world.repo.blob("lost"));
    let tree = world.repo.tree(&[("100644", "lost", lost), ("100644", "here", here)]);
    world.repo.forget(lost);
    let (_, top) = world.root(tree);
    let failure = world.ask(|dicfuse| page(dicfuse, top, 0, Attrs::Fetch, 99));
    assert!(matches!(failure, Err(Failure::Fetch(FetchError::Absent { oid, .. })) if oid == lost));
    assert_eq!(world.lookup(top, "here").unwrap().size, 4);
    let plain = page(&world.dicfuse, top, 0, Attrs::Known, 99).unwrap();
    assert_eq!(plain[2].attr, None);
    assert_eq!(plain[3].attr.unwrap().size, 4);
    let failure = world.ask(|dicfuse| dicfuse.lookup(top, b"lost"));
    assert!(matches!(failure, Err(Failure::Fetch(FetchError::Absent { .. }))), "{failure:?}");
}

#[test]
fn an_origin_that_is_gone_is_a_failure_and_never_an_answer() {
    let world = World::new();
    let tree = world.repo.tree(&[("100644", "f", world.repo.blob("f"))]);
    let (_, top) = world.root(tree);
    world.repo.set(Fault::Unreachable);
    let failure = world.ask(|dicfuse| dicfuse.lookup(top, b"f"));
    assert!(matches!(failure, Err(Failure::Fetch(FetchError::Unreachable { .. }))), "{failure:?}");
    let failure = world.ask(|dicfuse| dicfuse.lookup(top, b"none"));
    assert!(matches!(failure, Err(Failure::Fetch(FetchError::Unreachable { .. }))), "{failure:?}");
    world.repo.set(Fault::None);
    assert_eq!(world.lookup(top, "f").unwrap().size, 1);
    assert_eq!(world.lookup(top, "none"), None);
}

#[test]
fn a_directory_of_ten_thousand_entries_is_listed_once_each_with_sizes_in_bulk() {
    const ENTRIES: usize = 10_000;
    let world = World::new();
    let names: Vec<String> = (0..ENTRIES).map(|i| format!("file-{i}")).collect();
    let entries: Vec<_> = names.iter().map(|name| ("100644", name.as_str(), world.repo.blob(name))).collect();
    let (_, top) = world.root(world.repo.tree(&entries));
    let asked = need(&world, |dicfuse| page(dicfuse, top, 0, Attrs::Fetch, 9));
    assert_eq!(wants(&asked).0.len(), 4096, "as many as are asked for at once");
    let last = need(&world, |dicfuse| dicfuse.lookup(top, b"file-9999"));
    let (last, _) = wants(&last);
    assert_eq!((last.len(), last[0].1.as_str(), last[1].1.as_str()), (4096, "/file-9999", "/file-0"));
    let listed = world.list(top, Attrs::Fetch, 700);
    assert_eq!(listed.len(), ENTRIES + 2);
    assert_eq!(listed.iter().map(|entry| entry.node).collect::<HashSet<_>>().len(), ENTRIES + 2);
    for (entry, name) in listed[2..].iter().zip(&names) {
        let attr = entry.attr.unwrap();
        assert_eq!((&entry.name, attr.size, attr.kind), (name, name.len() as u64, EntryKind::Blob));
        assert_eq!(attr.node, entry.node);
    }
    assert_eq!(world.node(top, "file-7777"), NodeId(top.0 + 1 + 7777));
}
