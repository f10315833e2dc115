//! The git side of a workspace: what was changed, and saving it. Never touches FUSE or a mount.
//!
//! - [`base`]: base objects from the store
//! - [`upper`]: what lies in an upper directory, read so that its owner cannot lead us astray
//! - [`changes`]: upper + base tree → [`changes::Change`]s, at a cost that grows with what changed only
//! - [`export`]: a workspace's changes as a tar or a patch
//! - [`patch`]: changes → a patch that `git apply` takes

pub mod base;
pub mod changes;
pub mod export;
pub mod patch;
pub mod upper;
