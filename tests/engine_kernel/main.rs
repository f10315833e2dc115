//! The kernel engine from a git repository to users' processes. Needs root, `/dev/fuse` and overlayfs.

#![allow(clippy::unwrap_used)] // a test may

mod mounting;
mod serving;
mod stack;
mod surviving;
