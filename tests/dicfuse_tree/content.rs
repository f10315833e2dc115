//! Content: exactly what was promised, or an error that the kernel does not keep.

use scorpio::{
    dicfuse::{BadContent, Need, Stop},
    types::{NodeId, Oid},
};

use crate::world::{Failure, World};

fn file(world: &World, mode: &str, oid: Oid) -> NodeId {
    let (_, top) = world.root_at(world.repo.tree(&[(mode, "it", oid)]), "p");
    world.node(top, "it")
}

#[test]
fn a_read_gives_exactly_what_lies_between_offset_and_end() {
    let world = World::new();
    for len in [0u64, 1, 4096, 100_000] {
        let content: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8).collect();
        let node = file(&world, "100644", world.repo.blob(&content));
        for (offset, want) in
            [(0, 4096u32), (0, 131_072), (1, 1), (len, 1), (len + 5, 1), (u64::MAX, 9), (len / 2, 0)]
        {
            let read = world.ask(|dicfuse| dicfuse.read(node, offset, want)).unwrap();
            let from = offset.min(len) as usize;
            let to = (from + want as usize).min(content.len());
            assert_eq!(read, content[from..to], "{want} at {offset} of {len}");
        }
    }
}

#[test]
fn a_first_read_needs_the_blob_by_its_place_and_nothing_is_needed_at_the_end() {
    let world = World::new();
    let oid = world.repo.blob("content");
    let node = file(&world, "100755", oid);
    let at_end = world.ask_noting(|dicfuse| dicfuse.read(node, 7, 10));
    assert!(at_end.0.unwrap().is_empty() && at_end.1.is_empty());
    let (read, needs) = world.ask_noting(|dicfuse| dicfuse.read(node, 3, 10));
    assert_eq!(read.unwrap(), "tent");
    let [Need::Blob(_, want)] = &needs[..] else { panic!("{needs:?}") };
    assert_eq!((want.oid, want.hint.path.to_string()), (oid, "/p/it".into()));
    assert_eq!(world.ask_noting(|dicfuse| dicfuse.read(node, 0, 3)).1.len(), 0);
}

#[test]
fn a_blob_of_another_length_than_was_told_is_an_error_from_the_first_byte_to_the_last() {
    for told in [1, 3, 7, 100] {
        let world = World::new();
        let content = "content of 21 bytes..";
        let (lied, tree_file) = (world.repo.blob(content), world.repo.blob("honest"));
        world.repo.tell(lied, told);
        let tree = world.repo.tree(&[("100644", "lied", lied), ("100644", "honest", tree_file)]);
        let (_, top) = world.root(tree);
        let attr = world.lookup(top, "lied").unwrap();
        assert_eq!(attr.size, told);
        // Somebody else may have the content by the same id.
        let need = Need::Blob(
            crate::world::origin_name(),
            scorpio::origin::Want {
                oid: lied,
                hint: scorpio::origin::Hint { commit: lied, path: "lied".parse().unwrap() },
            },
        );
        world.runtime.block_on(world.dicfuse.fetch(need)).unwrap();
        for (offset, len) in [(0, 4096), (0, 2), (told.saturating_sub(1), 4096)] {
            let failure = world.ask(|dicfuse| dicfuse.read(attr.node, offset, len));
            let disputed = matches!(
                failure,
                Err(Failure::Stop(
                    Stop::Cache(_) | Stop::BadContent { reason: BadContent::Length { .. }, .. }
                ))
            );
            assert!(disputed, "told {told}, {len} at {offset}: {failure:?}");
        }
        let honest = world.lookup(top, "honest").unwrap();
        assert_eq!(world.ask(|dicfuse| dicfuse.read(honest.node, 0, 99)).unwrap(), "honest");
    }
}

#[test]
fn a_target_is_read_whole_if_symlink_would_have_taken_it() {
    let world = World::new();
    for target in ["a".to_owned(), "../über/\n".to_owned(), "x".repeat(4095)] {
        let node = file(&world, "120000", world.repo.blob(&target));
        assert_eq!(world.ask(|dicfuse| dicfuse.readlink(node)).unwrap(), target);
    }
    for (target, expected) in [
        (String::new(), BadContent::TargetLength(0)),
        ("x".repeat(4096), BadContent::TargetLength(4096)),
        ("x".repeat(100_000), BadContent::TargetLength(100_000)),
        ("a\0b".to_owned(), BadContent::TargetNul),
    ] {
        let node = file(&world, "120000", world.repo.blob(&target));
        let failure = world.ask(|dicfuse| dicfuse.readlink(node));
        let Err(Failure::Stop(Stop::BadContent { node: at, reason })) = failure else {
            panic!("{expected:?}: {failure:?}")
        };
        assert_eq!((at, reason), (node, expected));
    }
}
