//! The node table on real LMDB files: ids, blocks, and what survives which end of a process.

use std::{
    collections::HashSet,
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::Barrier,
};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::types::ObjectKind;

const MAP_BYTES: u64 = 64 << 20;

fn options(dir: &Path, boot_id: &str) -> NodeTableOptions {
    NodeTableOptions { dir: dir.join("nodes"), map_bytes: MAP_BYTES, boot_id: boot_id.to_owned() }
}

fn open(dir: &TempDir, boot_id: &str) -> NodeTable {
    NodeTable::open(&options(dir.path(), boot_id)).unwrap()
}

fn tree(number: u32) -> Oid {
    Oid::of(ObjectKind::Tree, &number.to_be_bytes()).unwrap()
}

fn snapshot(number: u32) -> Snapshot {
    Snapshot { commit: tree(u32::MAX), path: RepoPath::root(), tree: tree(number) }
}

fn add(table: &NodeTable, number: u32) -> (Root, NodeId) {
    let root = table.add_root(&"o".parse().unwrap(), &snapshot(number), 100).unwrap();
    let (top, _) = table.top(root.id).unwrap().unwrap();
    (root, top)
}

fn list(table: &NodeTable, root: &Root, dir: NodeId, count: u32) -> Option<u64> {
    table.allocate(root.id.number, dir, tree(count), count).unwrap()
}

#[test]
fn ids_begin_at_two_and_follow_one_another_block_by_block() {
    let dir = TempDir::new().unwrap();
    let table = open(&dir, "b");
    let (root, top) = add(&table, 0);
    assert_eq!((root.id.number, top), (1, NodeId(2)));
    assert_eq!(list(&table, &root, top, 3), Some(3));
    assert_eq!(list(&table, &root, NodeId(4), 1), Some(6));
    assert_eq!(list(&table, &root, top, 3), Some(3), "listed again");
    let (second, second_top) = add(&table, 1);
    assert_eq!((second.id.number, second_top), (2, NodeId(7)));
    for (node, kind, index) in [
        (2, Some(BlockKind::Top), 0),
        (3, Some(BlockKind::Entries { dir: NodeId(2) }), 0),
        (5, Some(BlockKind::Entries { dir: NodeId(2) }), 2),
        (6, Some(BlockKind::Entries { dir: NodeId(4) }), 0),
        (7, Some(BlockKind::Top), 0),
        (0, None, 0),
        (1, None, 0),
        (8, None, 0),
        (u64::MAX, None, 0),
    ] {
        let place = table.place(NodeId(node)).unwrap();
        assert_eq!(place.as_ref().map(|place| place.block.kind), kind, "node {node}");
        assert_eq!(place.map_or(0, |place| place.index), index, "node {node}");
    }
    let (_, steps) = table.way_to(NodeId(6)).unwrap().unwrap();
    let step = |dir, count, index| Step { dir: NodeId(dir), tree: tree(count), index };
    assert_eq!(steps, [step(2, 3, 1), step(4, 1, 0)]);
    let stats = table.stats().unwrap();
    assert_eq!((stats.roots, stats.blocks, stats.nodes), (2, 2, 6));
}

#[test]
fn a_root_is_shared_by_origin_and_tree_and_keeps_its_time() {
    let dir = TempDir::new().unwrap();
    let table = open(&dir, "b");
    let (root, _) = add(&table, 0);
    let again = Snapshot { commit: tree(7), ..snapshot(0) };
    assert_eq!(table.add_root(&"o".parse().unwrap(), &again, 999).unwrap(), root);
    assert_eq!(root.mtime, 100);
    let other = table.add_root(&"p".parse().unwrap(), &snapshot(0), 999).unwrap();
    assert_eq!((other.id.number, other.mtime), (2, 999));
    assert_eq!(table.roots().unwrap(), [root, other]);
}

#[test]
fn a_dropped_roots_nodes_are_gone_and_its_numbers_never_come_back() {
    let dir = TempDir::new().unwrap();
    let table = open(&dir, "b");
    let (kept, kept_top) = add(&table, 1);
    let (root, top) = add(&table, 0);
    let first = list(&table, &root, top, 5000).unwrap();
    // More listings than are removed in one transaction.
    let dirs = 2 * SWEEP_BATCH as u64 + 1;
    let last = (0..dirs).fold(0, |_, i| list(&table, &root, NodeId(first + i), 1).unwrap());
    list(&table, &kept, kept_top, 2).unwrap();
    table.drop_root(root.id).unwrap();
    for node in [top, NodeId(first), NodeId(first + 4999), NodeId(last)] {
        assert!(table.place(node).unwrap().is_none(), "node {node}");
        assert!(table.way_to(node).unwrap().is_none(), "node {node}");
    }
    assert_eq!(list(&table, &root, NodeId(first + dirs), 1), None, "no listing after the end");
    assert_eq!(table.top(root.id).unwrap(), None);
    assert_eq!(table.stats().unwrap().blocks, 1);
    assert!(table.place(NodeId(last + 1)).unwrap().is_some(), "another root's node");
    let (again, again_top) = add(&table, 0);
    assert_eq!((again.id.number, again_top), (3, NodeId(last + 3)));
    table.drop_root(root.id).unwrap();
    table.drop_root(RootId { number: 3, tree: tree(9) }).unwrap();
    assert_eq!(table.roots().unwrap(), [kept, again], "a name that is not there drops nothing");
}

#[test]
fn what_a_kill_left_of_a_dropped_root_is_removed_at_the_next_start() {
    let dir = TempDir::new().unwrap();
    let table = open(&dir, "b");
    let (root, top) = add(&table, 0);
    let first = list(&table, &root, top, 9).unwrap();
    list(&table, &root, NodeId(first), 2).unwrap();
    let (_, other_top) = add(&table, 1);
    let mut txn = table.0.env.write_txn().unwrap();
    table.0.roots.delete(&mut txn, &root.id.number.to_be_bytes()).unwrap();
    txn.commit().unwrap();
    assert!(table.place(NodeId(first)).unwrap().is_none(), "gone at once");
    assert!(table.place(other_top).unwrap().is_some(), "no other goes with it");
    drop(table);
    let table = open(&dir, "b");
    let txn = table.0.env.read_txn().unwrap();
    assert_eq!(table.0.dirs.len(&txn).unwrap(), 0);
}

#[test]
fn ids_survive_the_process_but_not_the_boot() {
    let dir = TempDir::new().unwrap();
    let table = open(&dir, "b1");
    let (root, top) = add(&table, 0);
    assert_eq!(list(&table, &root, top, 3), Some(3));
    drop(table);
    let table = open(&dir, "b1");
    assert_eq!(table.roots().unwrap(), std::slice::from_ref(&root));
    assert_eq!(list(&table, &root, top, 3), Some(3));
    assert_eq!(list(&table, &root, NodeId(3), 1), Some(6), "counting goes on");
    drop(table);
    let table = open(&dir, "b2");
    assert_eq!(table.roots().unwrap(), []);
    assert!(table.place(top).unwrap().is_none());
    assert_eq!(add(&table, 0).1, NodeId(2));
}

#[test]
fn a_damaged_table_of_another_boot_is_deleted_unopened() {
    let dir = TempDir::new().unwrap();
    drop(open(&dir, "b1"));
    let data = dir.path().join("nodes/data.mdb");
    fs::write(&data, [0xa5; 20_000]).unwrap();
    fs::write(dir.path().join("nodes/lock.mdb"), b"junk").unwrap();
    let table = open(&dir, "b2");
    assert_eq!(add(&table, 0).1, NodeId(2));
}

#[test]
fn a_table_lost_within_a_boot_never_gives_the_same_ids_again() {
    const GENERATION: u64 = 1 << 40;
    let dir = TempDir::new().unwrap();
    let nodes = dir.path().join("nodes");
    let lost: [(&str, Option<&[u8]>, u64); 3] =
        [("data.mdb", None, 1), ("data.mdb", Some(&[0xa5; 20_000]), 2), ("boot", Some(b"?"), 128)];
    let table = open(&dir, "b");
    let (root, top) = add(&table, 0);
    list(&table, &root, top, 3).unwrap();
    drop(table);
    for (file, content, generation) in lost {
        let file = nodes.join(file);
        content.map_or_else(|| fs::remove_file(&file), |content| fs::write(&file, content)).unwrap();
        let table = open(&dir, "b");
        assert!(table.place(top).unwrap().is_none(), "generation {generation}");
        let (root, top) = add(&table, 0);
        assert_eq!(top, NodeId(generation * GENERATION + 2));
        assert_eq!(u64::from(root.id.number), (generation << 24) + 1);
    }
}

#[test]
fn a_table_that_cannot_be_opened_just_now_is_not_thrown_away() {
    let dir = TempDir::new().unwrap();
    let table = open(&dir, "b");
    let (root, top) = add(&table, 0);
    let second = NodeTable::open(&options(dir.path(), "b")).err().expect("it is open already");
    assert!(matches!(second, TableError::Database(heed::Error::EnvAlreadyOpened)), "{second}");
    drop(table);
    let table = open(&dir, "b");
    assert_eq!(table.top(root.id).unwrap(), Some((top, 100)));
}

#[test]
fn a_way_through_more_than_4096_directories_is_refused_and_their_nodes_are_still_served() {
    let dir = TempDir::new().unwrap();
    let table = open(&dir, "b");
    let (root, top) = add(&table, 0);
    let deeper = |dir, _| NodeId(list(&table, &root, dir, 1).unwrap());
    let deepest = (0..MAX_DEPTH).fold(top, deeper);
    assert_eq!(table.way_to(deepest).unwrap().unwrap().1.len(), MAX_DEPTH);
    let beyond = deeper(deepest, 0);
    let refused = table.way_to(beyond);
    assert!(matches!(refused, Err(TableError::TooDeep(node)) if node == beyond), "{refused:?}");
    assert!(table.place(beyond).unwrap().is_some());
}

#[test]
fn a_full_table_says_so_and_goes_on_answering() {
    let dir = TempDir::new().unwrap();
    let small = NodeTableOptions { map_bytes: 256 << 10, ..options(dir.path(), "b") };
    let table = NodeTable::open(&small).unwrap();
    let (root, top) = add(&table, 0);
    let first = list(&table, &root, top, 100_000).unwrap();
    let error = (0..100_000)
        .find_map(|i| table.allocate(root.id.number, NodeId(first + i), tree(1), 1).err())
        .expect("a bound");
    assert!(matches!(error, TableError::Full), "{error}");
    assert!(table.place(NodeId(first + 99_999)).unwrap().is_some());
}

#[test]
fn ids_wider_than_48_bits_are_never_given() {
    let dir = TempDir::new().unwrap();
    let table = open(&dir, "b");
    let (root, top) = add(&table, 0);
    let last = Counters { first_node: 2, next_node: (1 << 40) - 3, next_root: 2 };
    let mut txn = table.0.env.write_txn().unwrap();
    table.0.meta.put(&mut txn, COUNTERS, &last.encode()).unwrap();
    txn.commit().unwrap();
    let refused = table.allocate(root.id.number, top, tree(4), 4);
    assert!(matches!(refused, Err(TableError::IdsUsedUp)), "{refused:?}");
    assert_eq!(list(&table, &root, top, 3), Some((1 << 40) - 3));
}

#[test]
fn damaged_records_are_an_error_and_not_an_answer() {
    let dir = TempDir::new().unwrap();
    let table = open(&dir, "b");
    let (root, top) = add(&table, 0);
    let first = list(&table, &root, top, 3).unwrap();
    let mut txn = table.0.env.write_txn().unwrap();
    table.0.blocks.put(&mut txn, &first.to_be_bytes(), b"\x01junk").unwrap();
    txn.commit().unwrap();
    let place = table.place(NodeId(first));
    assert!(matches!(place, Err(TableError::Corrupt { what: "block", key: 3 })), "{place:?}");
    let again = table.allocate(root.id.number, top, tree(3), 3);
    assert!(matches!(again, Err(TableError::Corrupt { what: "block", key: 3 })), "{again:?}");
}

#[test]
fn first_listings_at_once_give_one_block_per_directory() {
    const THREADS: usize = 8;
    const DIRS: u64 = 200;
    let dir = TempDir::new().unwrap();
    let table = open(&dir, "b");
    let (root, top) = add(&table, 0);
    let first = list(&table, &root, top, 200).unwrap();
    let barrier = Barrier::new(THREADS);
    let walk = || {
        barrier.wait();
        (0..DIRS).map(|i| list(&table, &root, NodeId(first + i), 3).unwrap()).collect::<Vec<_>>()
    };
    let answers: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(walk)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| *answer == answers[0]), "all were told the same ids");
    let ids: HashSet<u64> = answers[0].iter().flat_map(|first| *first..first + 3).collect();
    assert_eq!(ids.len() as u64, 3 * DIRS, "no id twice");
    let stats = table.stats().unwrap();
    assert_eq!((stats.blocks, stats.nodes), (DIRS + 1, 1 + 200 + 3 * DIRS));
}

const KILLED_IN: &str = "SCORPIO_TEST_KILLED_IN";

/// Run by the test below in a process of its own: lists directories and is killed in the midst of it.
#[test]
fn child_that_lists_until_it_is_killed() {
    let Some(dir) = std::env::var_os(KILLED_IN) else { return };
    let table = NodeTable::open(&options(Path::new(&dir), "b")).unwrap();
    let (root, top) = add(&table, 0);
    let first = list(&table, &root, top, 100_000).unwrap();
    for i in 0.. {
        println!("told {}", list(&table, &root, NodeId(first + i), 2).unwrap());
    }
}

#[test]
fn every_id_that_a_killed_process_told_is_answered_for_by_the_next() {
    use std::io::{BufRead, BufReader};
    let dir = TempDir::new().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "dicfuse::table::tests::child_that_lists_until_it_is_killed"])
        .env(KILLED_IN, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let id = |line: String| line.rsplit_once("told ").and_then(|(_, id)| id.parse::<u64>().ok());
    let mut told: Vec<u64> = lines.by_ref().filter_map(id).take(500).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    told.extend(lines.filter_map(id));
    // The last line may have been cut off within the number.
    told.pop();
    assert!(told.len() >= 499);
    let table = open(&dir, "b");
    for (i, first) in (3..).zip(&told) {
        let place = table.place(NodeId(first + 1)).unwrap().expect("an id that was told");
        assert_eq!((place.block.kind, place.index), (BlockKind::Entries { dir: NodeId(i) }, 1));
    }
    let (root, _) = add(&table, 0);
    let next = list(&table, &root, NodeId(100_002), 1).unwrap();
    assert!(next > told[told.len() - 1] + 1, "{next}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever is listed in whichever order: each id stands for exactly one entry of one directory.
    #[test]
    fn every_id_maps_back_to_its_entry(listings in proptest::collection::vec((any::<prop::sample::Index>(), 1u32..40), 1..60)) {
        let dir = TempDir::new().unwrap();
        let table = open(&dir, "b");
        let (root, top) = add(&table, 0);
        let (mut known, mut listed) = (vec![top], HashSet::new());
        let mut expected = Vec::new();
        for (which, count) in listings {
            let dir = *which.get(&known);
            if !listed.insert(dir) {
                continue;
            }
            let first = list(&table, &root, dir, count).unwrap();
            for index in 0..count {
                let node = NodeId(first + u64::from(index));
                known.push(node);
                expected.push((node, dir, index));
            }
        }
        prop_assert_eq!(known.iter().collect::<HashSet<_>>().len(), known.len());
        for (node, dir, index) in expected {
            let place = table.place(node).unwrap().unwrap();
            prop_assert_eq!((place.block.kind, place.index), (BlockKind::Entries { dir }, index));
            let (way_root, steps) = table.way_to(node).unwrap().unwrap();
            prop_assert_eq!(way_root.id, root.id);
            prop_assert_eq!(steps.last().map(|step| (step.dir, step.index)), Some((dir, index)));
            prop_assert_eq!(steps[0].dir, top);
        }
    }
}
