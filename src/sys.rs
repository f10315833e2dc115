//! Safe wrappers on Linux. Mechanism only: nothing here knows what a workspace is.
//!
//! - [`identity`]: a user's ids, and acting as that user
//! - [`idmap`]: ids that are stored and ids that are seen; pure
//! - [`mount`]: the new mount API
//! - [`mountinfo`]: what is mounted; parsing apart from reading
//! - [`userns`]: a table of ids for an idmapped mount
//! - [`durable`]: files that are there whole or not at all
//! - [`peer`]: who is at the other end of a Unix socket
//! - [`process`]: what a process inherits
//! - [`boot`]: ids of this boot
//! - [`fdstore`]: descriptors that the service manager keeps for us
//! - [`shared`]: memory that the next process of the service finds as it was left
//! - [`heap`]: memory that is given back

pub mod boot;
pub mod durable;
pub mod fdstore;
pub mod heap;
pub mod identity;
pub mod idmap;
pub mod mount;
pub mod mountinfo;
pub mod peer;
pub mod process;
pub mod shared;
pub mod userns;
