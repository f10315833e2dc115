//! The shared tree over a real store and cache: names, ids, attributes, sizes and content, asked as a kernel asks.

mod content;
mod names;
mod sizes;
mod world;
