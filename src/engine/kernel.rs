//! overlayfs over the shared FUSE lower.

pub mod mounter;
mod survey;
