//! The shared tree over a real store and cache: names, ids, attributes, sizes and content, asked as a kernel asks.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // a test may panic, and counts in small numbers

mod ahead;
mod content;
#[path = "../memory_origin/mod.rs"]
mod memory_origin;
mod names;
mod sizes;
mod world;
