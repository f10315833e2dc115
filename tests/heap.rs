//! Memory that was given back to the allocator goes back to the system. A process of its own: the setting is global.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

use scorpio::sys::heap;

const MIB: usize = 1 << 20;
const BLOCKS: usize = 64;

/// Takes large blocks with a small one behind each, and frees the large ones; the small ones live on.
#[allow(clippy::vec_box)] // single small blocks are the point
fn take_and_free(small: &mut Vec<Box<[u8; 64]>>) {
    let large: Vec<Vec<u8>> = (0..BLOCKS)
        .map(|_| {
            small.push(Box::new([1; 64]));
            vec![1; 2 * MIB]
        })
        .collect();
    assert_eq!(large.iter().map(Vec::len).sum::<usize>(), BLOCKS * 2 * MIB);
}

fn anonymous_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn freed_blocks_go_back_to_the_system_although_small_neighbours_live_on() {
    assert!(heap::give_memory_back());
    let mut small = Vec::new();
    let before = anonymous_bytes();
    // The first round is what would teach the allocator to keep such blocks.
    take_and_free(&mut small);
    take_and_free(&mut small);
    let kept = anonymous_bytes().saturating_sub(before);
    assert!(kept < 4 * MIB, "{kept} bytes of {} are kept", BLOCKS * 2 * MIB);
    assert_eq!(small.len(), 2 * BLOCKS);
}
