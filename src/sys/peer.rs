//! Who is at the other end of a Unix socket, as the kernel attests it.

use std::os::fd::OwnedFd;

use super::identity::Identity;

/// The process that connected, fixed at connect time.
#[derive(Debug)]
pub struct Peer {
    /// Its ids.
    pub identity: Identity,
    /// Its process id in our pid namespace (0 when it is in another one).
    pub pid: u32,
    /// A handle on exactly that process, where the kernel gives one.
    pub pidfd: Option<OwnedFd>,
}
