//! The kernel engine from a git repository to users' processes. Needs root, `/dev/fuse` and overlayfs.

mod mounting;
mod serving;
mod stack;
mod surviving;
