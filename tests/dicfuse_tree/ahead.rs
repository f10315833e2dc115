//! Reading ahead of a walk.

use std::{collections::HashSet, time::Instant};

use scorpio::{
    dicfuse::Attrs,
    types::{EntryKind, NodeId, Oid},
};

use crate::{
    memory_origin::Fault,
    world::{Failure, World, page},
};

/// Directories within each directory but the lowest.
const WIDTH: usize = 6;

/// A file of its own in each directory, and directories below it.
fn forest(world: &World, depth: usize, path: &str) -> Oid {
    let file = world.repo.blob(format!("content of {path}"));
    let names: Vec<String> = (0..WIDTH).map(|n| format!("d{n}")).collect();
    let below: Vec<Oid> = match depth {
        0 => Vec::new(),
        _ => names.iter().map(|name| forest(world, depth - 1, &format!("{path}/{name}"))).collect(),
    };
    let dirs = names.iter().zip(&below).map(|(name, oid)| ("40000", name.as_str(), *oid));
    world.repo.tree(&dirs.chain([("100644", "file", file)]).collect::<Vec<_>>())
}

/// Lists everything below, each directory before those in it, all at one moment; how many directories there are.
fn walk(world: &World, dir: NodeId, reads_ahead: Option<Instant>) -> usize {
    let entries = world.list(dir, Attrs::Fetch, usize::MAX);
    if let Some(ahead) = reads_ahead.and_then(|now| world.dicfuse.ahead_of(dir, now)) {
        world.runtime.block_on(world.dicfuse.read_ahead(ahead));
    }
    assert!(entries.iter().skip(2).all(|entry| entry.attr.is_some()), "{entries:?}");
    let below = entries.iter().skip(2).filter(|entry| entry.kind == EntryKind::Tree);
    1 + below.map(|entry| walk(world, entry.node, reads_ahead)).sum::<usize>()
}

#[test]
fn a_walk_asks_for_trees_and_sizes_in_batches_and_for_nothing_twice() {
    const DIRECTORIES: usize = 1 + WIDTH + WIDTH * WIDTH + WIDTH * WIDTH * WIDTH;
    let mut requests = Vec::new();
    for reads_ahead in [None, Some(Instant::now())] {
        let world = World::new();
        let (_, top) = world.root(forest(&world, 3, ""));
        assert_eq!(walk(&world, top, reads_ahead), DIRECTORIES);
        let asked = world.repo.asked();
        let (count, distinct) =
            (asked.iter().map(Vec::len).sum(), asked.iter().flatten().collect::<HashSet<_>>());
        assert_eq!((distinct.len(), count), (2 * DIRECTORIES, 2 * DIRECTORIES), "{reads_ahead:?}");
        requests.push(asked.len());
    }
    assert_eq!(requests, [2 * DIRECTORIES, 118]);
}

#[test]
fn who_looks_around_gets_what_was_asked_for() {
    let world = World::new();
    let (_, top) = world.root(forest(&world, 2, ""));
    world.list(top, Attrs::Fetch, usize::MAX);
    assert!(world.dicfuse.ahead_of(top, Instant::now()).is_none());
    assert_eq!(world.repo.asked().concat().len(), 2, "a tree and the size of a file");
}

#[test]
fn what_could_not_be_read_ahead_is_asked_for_again() {
    let world = World::new();
    let (_, top) = world.root(forest(&world, 3, ""));
    let below = world.list(top, Attrs::Fetch, usize::MAX);
    let dirs: Vec<NodeId> = below.iter().skip(2).take(WIDTH).map(|entry| entry.node).collect();
    let now = Instant::now();
    let ahead = dirs.iter().cycle().take(40).find_map(|dir| {
        world.list(*dir, Attrs::Fetch, usize::MAX);
        world.dicfuse.ahead_of(*dir, now).map(|ahead| (*dir, ahead))
    });
    let (dir, ahead) = ahead.unwrap();
    for fault in
        [Fault::Unreachable, Fault::Panic, Fault::NoAnswers, Fault::TooManyAnswers, Fault::WrongBytes]
    {
        world.repo.set(fault);
        world.runtime.block_on(world.dicfuse.read_ahead(ahead.clone()));
        let first = world.list(dir, Attrs::Omit, usize::MAX)[2].node;
        let failed = world.ask(|dicfuse| page(dicfuse, first, 0, Attrs::Fetch, usize::MAX));
        assert!(matches!(failed, Err(Failure::Fetch(_))), "{fault:?}");
    }
    world.repo.set(Fault::None);
    assert_eq!(walk(&world, dir, None), 1 + WIDTH + WIDTH * WIDTH);
    world.runtime.block_on(world.dicfuse.read_ahead(ahead));
}
