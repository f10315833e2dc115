//! Who is at the other end of a Unix socket, as the kernel attests it.
//!
//! All of it is fixed when the connection is made: a process in a user namespace shows as the real uid, and what the
//! caller does to its groups later changes nothing here. Reads the socket and `/proc` only; decides nothing.
#![allow(unsafe_code)] // getsockopt(2) for SO_PEERGROUPS and SO_PEERPIDFD, which nix and rustix do not wrap

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use super::identity::Identity;

/// `SO_PEERPIDFD` (Linux 6.5), which libc does not name on every target.
const SO_PEERPIDFD: libc::c_int = 77;

/// Groups the first question has room for; most callers have fewer, and ERANGE tells how many more are needed.
const GROUPS_AT_FIRST: usize = 64;

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

/// Whether a path means the same to the peer as to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Same mount namespace, same root directory.
    Same,
    /// Another mount namespace, a chroot, or another pid namespace.
    Elsewhere,
    /// The process has ended, so that nobody can say any more.
    Ended,
}

impl Peer {
    /// Asks the kernel who connected `socket`.
    ///
    /// Fails with ESRCH when the kernel says that the process is gone and can give no handle on it. Before Linux 6.5
    /// the handle is opened by process id, which is exact only while the process still lives.
    pub fn of(socket: impl AsFd) -> io::Result<Peer> {
        let socket = socket.as_fd();
        let credentials = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::PeerCredentials)?;
        let pid = u32::try_from(credentials.pid()).unwrap_or(0);
        Ok(Peer {
            identity: Identity {
                uid: credentials.uid(),
                gid: credentials.gid(),
                groups: peer_groups(socket)?,
            },
            pid,
            pidfd: peer_pidfd(socket, pid)?,
        })
    }

    /// Whether the process is known to have ended. Without a handle nothing is known, and the answer is no.
    pub fn has_ended(&self) -> bool {
        self.pidfd.as_ref().is_some_and(|pidfd| is_readable(pidfd.as_fd()))
    }

    /// Compares the peer's view of the file system with ours. Reads `/proc`; may wait for the kernel's mount lock.
    ///
    /// The first line of `mountinfo` is the mount that `/` lies on, with an id that no other live mount of the host
    /// has: it differs in another mount namespace and behind a chroot. Unlike `/proc/<pid>/ns/mnt` and the pidfd's
    /// ioctls it may be read without CAP_SYS_PTRACE.
    pub fn place(&self) -> io::Result<Place> {
        if self.pid == 0 {
            return Ok(Place::Elsewhere);
        }
        let theirs = match first_mount(&format!("/proc/{}/mountinfo", self.pid)) {
            Ok(line) => line,
            Err(error) if is_gone(&error) => return Ok(Place::Ended),
            Err(error) => return Err(error),
        };
        let ours = first_mount("/proc/self/mountinfo")?;
        // Asked last: had the process ended before, the lines read may be those of another one with its id.
        if self.has_ended() {
            return Ok(Place::Ended);
        }
        Ok(if theirs == ours { Place::Same } else { Place::Elsewhere })
    }
}

fn is_gone(error: &io::Error) -> bool {
    // EINVAL: mountinfo of a process that has let go of its namespaces on its way out.
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH | libc::EINVAL))
}

/// The first line of a mountinfo file; empty when a chroot hides all mounts.
fn first_mount(path: &str) -> io::Result<Vec<u8>> {
    // A line is bounded by two escaped paths; one page holds those of any root mount worth comparing.
    let mut buffer = Vec::new();
    File::open(path)?.take(4096).read_to_end(&mut buffer)?;
    Ok(buffer.split(|byte| *byte == b'\n').next().unwrap_or_default().to_vec())
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut polled = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
}

fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; GROUPS_AT_FIRST];
    loop {
        let mut bytes = libc::socklen_t::try_from(size_of_val(groups.as_slice()))
            .map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
        // SAFETY: the pointer is to `groups`, `bytes` is its size in bytes, and both outlive the call. The kernel
        // writes at most that many bytes, all of which are valid u32 (gid_t), and the needed size into `bytes`.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let count = bytes as usize / size_of::<u32>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // NGROUPS_MAX is 65536, so that this grows once.
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

fn peer_pidfd(socket: BorrowedFd<'_>, pid: u32) -> io::Result<Option<OwnedFd>> {
    let mut fd: RawFd = -1;
    let mut bytes: libc::socklen_t = 4; // of a c_int
    // SAFETY: `fd` is one c_int, `bytes` is its size, both outlive the call; the kernel writes one c_int.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut bytes,
        )
    };
    if result == 0 {
        // SAFETY: on success the kernel has installed a new descriptor for us alone; nobody else owns it.
        return Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOPROTOOPT) => open_pidfd(pid),
        // What kernels without handles on reaped processes answer for one.
        Some(libc::ESRCH | libc::EINVAL | libc::ENODATA) => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        _ => Err(error),
    }
}

/// For kernels without SO_PEERPIDFD.
fn open_pidfd(pid: u32) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else {
        return Ok(None);
    };
    Ok(Some(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_peer_in_our_own_process_is_ourselves() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = Peer::of(&ours).unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(peer.identity.uid, nix::unistd::geteuid().as_raw());
        assert_eq!(peer.identity.gid, nix::unistd::getegid().as_raw());
        let mut groups: Vec<_> =
            nix::unistd::getgroups().unwrap().into_iter().map(nix::unistd::Gid::as_raw).collect();
        groups.sort_unstable();
        let mut attested = peer.identity.groups.clone();
        attested.sort_unstable();
        assert_eq!(attested, groups);
        assert!(!peer.has_ended());
        assert_eq!(peer.place().unwrap(), Place::Same);
    }
}
