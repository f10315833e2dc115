//! How much memory the C library's allocator holds back from the system.
//!
//! Its defaults suit programs that keep what they take. A daemon takes content in pieces of up to many mebibytes on many
//! threads, gives all of it back, and then should be small again. Set once, before the threads start.
#![allow(unsafe_code)] // mallopt has no safe wrapper

/// Heaps that threads share. By default there are eight for each core, and each keeps its own free memory; the work of
/// the threads is decoding, hashing and copying, so they rarely meet in the allocator.
const HEAPS: i32 = 2;

/// Blocks from this size on are mapped alone, and unmapped when freed. Without a fixed limit the allocator raises it to
/// the largest block ever freed (up to 32 MiB): after the first large blob all others would be cut out of a heap, where one
/// small neighbour that lives on keeps them from being given back.
const MAPPED_FROM_BYTES: i32 = 1 << 20;

/// Free memory at the end of a heap beyond this is given back at once.
const SLACK_BYTES: i32 = 1 << 20;

/// Makes the allocator give memory back. `false` when it would not have it, which costs memory and nothing else.
pub fn give_memory_back() -> bool {
    [
        (libc::M_ARENA_MAX, HEAPS),
        (libc::M_MMAP_THRESHOLD, MAPPED_FROM_BYTES),
        (libc::M_TRIM_THRESHOLD, SLACK_BYTES),
    ]
    .into_iter()
    // SAFETY: takes two numbers by value, and is safe on any thread at any time.
    .all(|(parameter, value)| unsafe { libc::mallopt(parameter, value) } == 1)
}
