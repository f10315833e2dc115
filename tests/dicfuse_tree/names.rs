//! Names and ids: what is found, what it is, and which id it has for good.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Barrier,
};

use proptest::prelude::*;
use scorpio::{
    dicfuse::{Attr, Attrs, Dicfuse, Need, Stop},
    origin::{FetchError, Hint},
    types::{EntryKind, NodeId, ObjectKind, Oid, RootId},
};

use crate::{
    memory_origin::Fault,
    world::{Entry, Failure, MTIME, World, page},
};

fn is_shared_between_threads<T: Send + Sync + Clone + 'static>() {}

#[test]
fn the_tree_is_shared_between_threads() {
    is_shared_between_threads::<Dicfuse>();
}

/// `run*  link -> run  sub/one  mod@  empty/`, not in git's order.
fn sample(world: &World) -> Oid {
    let repo = &world.repo;
    let (run, one) = (repo.blob("#!/bin/sh\n"), repo.blob("1"));
    let sub = repo.tree(&[("100644", "one", one)]);
    repo.tree(&[
        ("100755", "run", run),
        ("120000", "link", repo.blob("run")),
        ("40000", "sub", sub),
        ("160000", "mod", Oid::from_bytes([9; 20])),
        ("40000", "empty", repo.tree(&[])),
    ])
}

#[test]
fn entries_have_these_ids_kinds_sizes_and_times() {
    let world = World::new();
    let (root, top) = world.root(sample(&world));
    assert_eq!((root.id.number, top), (1, NodeId(2)));
    let attr = |node, kind, size| Some(Attr { node: NodeId(node), kind, size, mtime: MTIME });
    for (name, expected) in [
        ("run", attr(3, EntryKind::Executable, 10)),
        ("link", attr(4, EntryKind::Symlink, 3)),
        ("sub", attr(5, EntryKind::Tree, 0)),
        ("mod", attr(6, EntryKind::Gitlink, 0)),
        ("empty", attr(7, EntryKind::Tree, 0)),
        ("none", None),
        ("..", None),
    ] {
        assert_eq!(world.lookup(top, name), expected, "{name}");
        if let Some(attr) = expected {
            assert_eq!(world.ask(|dicfuse| dicfuse.getattr(attr.node)).unwrap(), attr, "{name}");
        }
    }
    assert_eq!(world.lookup(NodeId(5), "one"), attr(8, EntryKind::Blob, 1));
    assert_eq!(world.ask(|dicfuse| dicfuse.getattr(top)).unwrap(), attr(2, EntryKind::Tree, 0).unwrap());
    for empty in [6, 7] {
        assert_eq!(world.lookup(NodeId(empty), "x"), None, "an empty directory");
    }
    let stats = world.dicfuse.stats().unwrap();
    assert_eq!((stats.roots, stats.blocks, stats.nodes), (1, 2, 7), "empty directories record no block");
}

#[test]
fn a_listing_gives_dots_and_entries_in_the_trees_order_from_every_offset() {
    let world = World::new();
    let (_, top) = world.root(sample(&world));
    let all = world.list(top, Attrs::Omit, usize::MAX);
    let shown: Vec<_> = all.iter().map(|entry| (entry.name.as_str(), entry.node.0, entry.next)).collect();
    let expected = [
        (".", 2, 1),
        ("..", 1, 2),
        ("run", 3, 3),
        ("link", 4, 4),
        ("sub", 5, 5),
        ("mod", 6, 6),
        ("empty", 7, 7),
    ];
    assert_eq!(shown, expected);
    assert!(all.iter().all(|entry| entry.attr.is_none()));
    assert_eq!(world.list(top, Attrs::Omit, 1), all, "one entry at a time");
    for offset in 0..8 {
        let rest = page(&world.dicfuse, top, offset, Attrs::Omit, usize::MAX).unwrap();
        assert_eq!(rest, all[offset as usize..].to_vec(), "from {offset}");
    }
    assert_eq!(page(&world.dicfuse, top, u64::MAX, Attrs::Omit, 9).unwrap(), []);
    let dots = |dir, parent| {
        let entry = |node, name: &str, next| Entry {
            node: NodeId(node),
            kind: EntryKind::Tree,
            name: name.into(),
            attr: None,
            next,
        };
        vec![entry(dir, ".", 1), entry(parent, "..", 2)]
    };
    assert_eq!(world.list(NodeId(5), Attrs::Omit, 9)[..2], dots(5, 2));
    for (empty, parent) in [(6, 2), (7, 2), (1, 1)] {
        assert_eq!(world.list(NodeId(empty), Attrs::Fetch, 9), dots(empty, parent), "{empty}");
    }
}

#[test]
fn roots_are_found_by_their_whole_name_and_never_listed() {
    let world = World::new();
    let (root, top) = world.root(sample(&world));
    let name = root.id.to_string();
    let other_tree = RootId { number: root.id.number, tree: Oid::EMPTY_TREE }.to_string();
    for wrong in ["", "1", "01", "x", "..", &name[2..], &format!("0{name}"), &other_tree, "\u{fffd}"] {
        assert_eq!(world.lookup(NodeId::ROOT, wrong), None, "{wrong}");
    }
    assert_eq!(world.dicfuse.lookup(NodeId::ROOT, b"\xff").unwrap(), None);
    assert_eq!(world.lookup(NodeId::ROOT, &name).unwrap().node, top);
    assert_eq!(world.list(NodeId::ROOT, Attrs::Omit, 9).len(), 2);
}

#[test]
fn the_empty_tree_needs_no_origin() {
    let world = World::new();
    world.repo.set(Fault::Unreachable);
    let (_, top) = world.root(Oid::EMPTY_TREE);
    assert_eq!(world.list(top, Attrs::Fetch, 9).len(), 2);
    assert_eq!(world.lookup(top, "x"), None);
}

#[test]
fn one_tree_at_two_paths_has_two_ids_and_two_blocks() {
    let world = World::new();
    let sub = world.repo.tree(&[("100644", "f", world.repo.blob("f"))]);
    let (_, top) = world.root(world.repo.tree(&[("40000", "a", sub), ("40000", "b", sub)]));
    let (a, b) = (world.node(top, "a"), world.node(top, "b"));
    assert_eq!((a, b), (NodeId(3), NodeId(4)));
    assert_eq!((world.node(b, "f"), world.node(a, "f")), (NodeId(5), NodeId(6)));
    assert_eq!(world.list(a, Attrs::Omit, 9)[1].node, top);
}

#[test]
fn questions_of_the_wrong_kind_are_refused() {
    let world = World::new();
    let (_, top) = world.root(sample(&world));
    let nodes = ["run", "link", "sub", "mod"].map(|name| world.node(top, name));
    let [run, link, sub, gitlink] = nodes;
    let wrong = |failure: Result<(), Failure>, node| {
        assert!(
            matches!(failure, Err(Failure::Stop(Stop::WrongKind(at))) if at == node),
            "{node}: {failure:?}"
        );
    };
    for file in [run, link] {
        wrong(world.ask(|d| d.lookup(file, b"x").map(drop)), file);
        wrong(world.ask(|d| d.readdir(file, 0, Attrs::Omit, &mut |_| true)), file);
    }
    for no_link in [run, sub, gitlink, top] {
        wrong(world.ask(|d| d.readlink(no_link).map(drop)), no_link);
    }
    for no_file in [link, sub, gitlink, top] {
        wrong(world.ask(|d| d.read(no_file, 0, 1).map(drop)), no_file);
    }
    for nobody in [0, 999, u64::MAX].map(NodeId) {
        let failure = world.ask(|d| d.getattr(nobody));
        assert!(matches!(failure, Err(Failure::Stop(Stop::NoNode(node))) if node == nobody));
        let failure = world.ask(|d| d.lookup(nobody, b"x"));
        assert!(matches!(failure, Err(Failure::Stop(Stop::NoNode(node))) if node == nobody));
    }
}

#[test]
fn hostile_trees_are_refused_and_their_neighbours_served() {
    let world = World::new();
    let oid = [7; 20];
    let entry = |mode: &str, name: &str| [format!("{mode} {name}\0").as_bytes(), &oid].concat();
    for (what, raw) in [
        ("parent", entry("40000", "..")),
        ("self", entry("40000", ".")),
        ("slash", entry("100644", "a/b")),
        ("empty", entry("100644", "")),
        ("twice", [entry("100644", "a"), entry("40000", "a")].concat()),
        ("setuid", entry("104755", "su")),
        ("long", entry("100644", &"x".repeat(256))),
        ("cut", entry("100644", "a")[..20].to_vec()),
    ] {
        let bad = world.repo.put(ObjectKind::Tree, raw);
        let good = world.repo.blob(what);
        let (_, top) = world.root(world.repo.tree(&[("40000", "bad", bad), ("100644", "good", good)]));
        let node = world.node(top, "bad");
        let refused = |failure: Result<(), Failure>| match failure {
            Err(Failure::Stop(Stop::BadTree { node: at, .. })) => assert_eq!(at, node, "{what}"),
            Err(Failure::Fetch(FetchError::Mismatch { oid, .. })) => assert_eq!(oid, bad, "{what}"),
            other => panic!("{what}: {other:?}"),
        };
        refused(world.ask(|d| d.lookup(node, b"a").map(drop)));
        refused(world.ask(|d| d.readdir(node, 0, Attrs::Fetch, &mut |_| panic!("{what}"))));
        assert_eq!(world.lookup(top, "good").unwrap().size, what.len() as u64);
    }
}

#[test]
fn a_dropped_root_answers_no_node_and_its_name_is_never_used_again() {
    let world = World::new();
    let tree = sample(&world);
    let (root, top) = world.root(tree);
    let run = world.node(top, "run");
    world.dicfuse.drop_root(root.id).unwrap();
    assert_eq!(world.lookup(NodeId::ROOT, &root.id.to_string()), None);
    for node in [top, run] {
        let failure = world.ask(|d| d.getattr(node));
        assert!(matches!(failure, Err(Failure::Stop(Stop::NoNode(at))) if at == node));
    }
    let failure = world.ask(|d| d.lookup(top, b"run"));
    assert!(matches!(failure, Err(Failure::Stop(Stop::NoNode(at))) if at == top));
    assert_eq!(world.dicfuse.roots().unwrap(), []);
    let (again, again_top) = world.root(tree);
    assert_eq!((again.id.number, again_top), (2, NodeId(8)));
    assert_eq!(world.node(again_top, "run"), NodeId(9));
}

#[test]
fn another_process_answers_for_the_ids_and_asks_for_the_trees_from_the_top_down() {
    let world = World::new();
    let repo = &world.repo;
    let file = repo.blob("f");
    let low = repo.tree(&[("100644", "f", file)]);
    let mid = repo.tree(&[("40000", "low", low)]);
    let high = repo.tree(&[("40000", "mid", mid)]);
    let (root, top) = world.root_at(high, "a/b");
    let f = ["mid", "low", "f"].iter().fold(top, |dir, name| world.node(dir, name));
    let world = world.restarted();
    assert_eq!(world.dicfuse.roots().unwrap(), std::slice::from_ref(&root));
    let (attr, needs) = world.ask_noting(|dicfuse| dicfuse.getattr(f));
    assert_eq!(attr.unwrap(), Attr { node: f, kind: EntryKind::Blob, size: 1, mtime: MTIME });
    let shown: Vec<(&str, Oid, Hint)> = needs
        .iter()
        .map(|need| match need {
            Need::Tree(_, want) => ("tree", want.oid, want.hint.clone()),
            Need::Blob(_, want) => ("blob", want.oid, want.hint.clone()),
            Need::Sizes { wants, .. } => ("sizes", wants[0].oid, wants[0].hint.clone()),
        })
        .collect();
    let hint = |path: &str| Hint { commit: root.snapshot.commit, path: path.parse().unwrap() };
    let expected = [
        ("tree", high, hint("a/b")),
        ("tree", mid, hint("a/b/mid")),
        ("tree", low, hint("a/b/mid/low")),
        ("sizes", file, hint("a/b/mid/low/f")),
    ];
    assert_eq!(shown, expected);
    assert_eq!(world.node(top, "mid"), NodeId(3), "the same id as before");
}

#[test]
fn first_listings_by_many_threads_agree_on_the_ids() {
    const THREADS: usize = 8;
    let world = World::new();
    let sub = world.repo.tree(&[("160000", "x", Oid::EMPTY_TREE), ("160000", "y", Oid::EMPTY_TREE)]);
    let names: Vec<String> = (0..300).map(|i| format!("d{i}")).collect();
    let entries: Vec<_> = names.iter().map(|name| ("40000", name.as_str(), sub)).collect();
    let (_, top) = world.root(world.repo.tree(&entries));
    let barrier = Barrier::new(THREADS);
    let walk = || {
        barrier.wait();
        let dirs = world.list(top, Attrs::Omit, usize::MAX);
        let nodes = dirs[2..].iter().flat_map(|dir| [world.node(dir.node, "y"), world.node(dir.node, "x")]);
        nodes.collect::<Vec<_>>()
    };
    let answers: Vec<Vec<NodeId>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(walk)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(answers[0].iter().collect::<HashSet<_>>().len(), 600);
    let stats = world.dicfuse.stats().unwrap();
    assert_eq!((stats.blocks, stats.nodes), (301, 1 + 300 + 600));
}

#[test]
fn a_chain_of_a_thousand_directories_is_served_to_its_end() {
    let world = World::new();
    let leaf = world.repo.tree(&[("100644", "f", world.repo.blob("deep"))]);
    let tree = (0..1000).fold(leaf, |below, _| world.repo.tree(&[("40000", "d", below)]));
    let (_, top) = world.root(tree);
    let end = (0..1000).fold(top, |dir, _| world.node(dir, "d"));
    assert_eq!(world.lookup(end, "f").unwrap().size, 4);
}

/// A directory to be made: files by content, directories by entries.
#[derive(Clone, Debug)]
enum Node {
    File(Vec<u8>, bool),
    Link(String),
    Dir(BTreeMap<String, Node>),
}

fn node() -> impl Strategy<Value = Node> {
    let file = (proptest::collection::vec(any::<u8>(), 0..40), any::<bool>());
    let leaf = prop_oneof![
        4 => file.prop_map(|(content, executable)| Node::File(content, executable)),
        1 => "[a-z/.]{1,30}".prop_map(Node::Link),
    ];
    leaf.prop_recursive(4, 60, 8, |below| directory(below).prop_map(Node::Dir))
}

fn directory(below: impl Strategy<Value = Node>) -> impl Strategy<Value = BTreeMap<String, Node>> {
    proptest::collection::btree_map("[a-zA-Z ]{1,6}", below, 0..8)
}

fn store(world: &World, node: &Node) -> (&'static str, Oid) {
    match node {
        Node::File(content, false) => ("100644", world.repo.blob(content)),
        Node::File(content, true) => ("100755", world.repo.blob(content)),
        Node::Link(target) => ("120000", world.repo.blob(target)),
        Node::Dir(entries) => ("40000", store_dir(world, entries)),
    }
}

fn store_dir(world: &World, entries: &BTreeMap<String, Node>) -> Oid {
    let stored: Vec<_> = entries.iter().map(|(name, node)| (name, store(world, node))).collect();
    world
        .repo
        .tree(&stored.iter().map(|(name, (mode, oid))| (*mode, name.as_str(), *oid)).collect::<Vec<_>>())
}

/// Compares a directory with what it was made of, and notes every id in it.
fn compare(world: &World, dir: NodeId, entries: &BTreeMap<String, Node>, ids: &mut Vec<NodeId>) {
    let listed = world.list(dir, Attrs::Fetch, 3);
    let names: Vec<_> = listed[2..].iter().map(|entry| &entry.name).collect();
    assert_eq!(names, entries.keys().collect::<Vec<_>>());
    for (entry, made) in listed[2..].iter().zip(entries.values()) {
        ids.push(entry.node);
        let attr = world.ask(|d| d.getattr(entry.node)).unwrap();
        assert_eq!((entry.attr, world.lookup(dir, &entry.name)), (Some(attr), Some(attr)));
        match made {
            Node::File(content, executable) => {
                let kind = if *executable { EntryKind::Executable } else { EntryKind::Blob };
                assert_eq!((attr.kind, attr.size), (kind, content.len() as u64));
                assert_eq!(world.ask(|d| d.read(attr.node, 0, 4096)).unwrap(), content);
            }
            Node::Link(target) => {
                assert_eq!((attr.kind, attr.size), (EntryKind::Symlink, target.len() as u64));
                assert_eq!(world.ask(|d| d.readlink(attr.node)).unwrap(), target);
            }
            Node::Dir(below) => {
                assert_eq!((attr.kind, attr.size), (EntryKind::Tree, 0));
                assert_eq!(world.list(attr.node, Attrs::Omit, 9)[1].node, dir);
                compare(world, attr.node, below, ids);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_tree_is_served_as_it_was_made_and_again_after_a_restart(entries in directory(node())) {
        let world = World::new();
        let (_, top) = world.root(store_dir(&world, &entries));
        let mut ids = vec![top];
        compare(&world, top, &entries, &mut ids);
        prop_assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        let world = world.restarted();
        let mut after = vec![top];
        compare(&world, top, &entries, &mut after);
        prop_assert_eq!(after, ids);
    }
}

#[test]
fn a_directory_behind_a_boundary_never_changes_beneath_a_mount() {
    let world = World::new();
    let blob = world.repo.blob("content");
    let (first, second) =
        (world.repo.tree(&[("100644", "first", blob)]), world.repo.tree(&[("100644", "second", blob)]));
    let placeholder = Oid::from_bytes([0xaa; 20]);
    let other = Oid::from_bytes([0xbb; 20]);
    world.repo.stands_for(placeholder, first);
    world.repo.stands_for(other, first);
    let (_, top) = world.root(world.repo.tree(&[("40000", "lib", placeholder), ("40000", "unseen", other)]));
    let lib = world.node(top, "lib");
    let file = world.node(lib, "first");

    world.repo.stands_for(placeholder, second);
    world.repo.stands_for(other, second);
    assert_eq!(world.node(lib, "first"), file);
    assert_eq!(world.lookup(lib, "second"), None);
    let names: Vec<_> = world.list(lib, Attrs::Fetch, 99).into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, [".", "..", "first"]);
    let unseen = world.node(top, "unseen");
    assert!(world.lookup(unseen, "second").is_some(), "what nobody has seen is what is there now");

    // Nor when the cache is lost.
    let world = world.restarted();
    world.repo.stands_for(first, second);
    let answer = world.ask(|dicfuse| dicfuse.lookup(lib, b"first"));
    assert!(matches!(answer, Err(Failure::Fetch(FetchError::Moved { .. }))), "{answer:?}");
    world.repo.stands_for(first, first);
    assert_eq!(world.node(lib, "first"), file);
}
