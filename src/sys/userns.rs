//! A user namespace as a table of ids: what an idmapped mount needs. No process lives in it.
#![allow(unsafe_code)] // a raw clone(2), whose child makes a few system calls

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsRawFd, OwnedFd},
};

use super::idmap::Owners;

/// A user namespace in which user and group 0 stand for `uid` and `gid`, and nobody else exists.
///
/// See [`showing`] for what a caller has to mind.
pub fn mapping_root_to(uid: u32, gid: u32) -> io::Result<OwnedFd> {
    with_tables(&format!("0 {uid} 1"), &format!("0 {gid} 1"))
}

/// A user namespace in which stored ids stand for those they are seen as. It has the host's user 0 in it, which takes
/// CAP_SETFCAP.
///
/// Made by plain `clone`, not `clone3`, whose flags system call filters cannot see and therefore refuse. Must be called
/// before this process acts as another user: that makes it undumpable, and then the child's namespace cannot be opened
/// without CAP_SYS_PTRACE.
pub fn showing(owners: &Owners) -> io::Result<OwnedFd> {
    with_tables(&owners.uid_map(), &owners.gid_map())
}

fn with_tables(users: &str, groups: &str) -> io::Result<OwnedFd> {
    let child = Child::start()?;
    child.write("uid_map", users)?;
    child.write("gid_map", groups)?;
    Ok(File::open(format!("/proc/{}/ns/user", child.pid))?.into())
}

/// A process in a new user namespace that ends when `leash` is closed, also by our death.
struct Child {
    pid: libc::pid_t,
    leash: Option<OwnedFd>,
}

impl Child {
    fn start() -> io::Result<Child> {
        let (waits_on, leash) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let flags = libc::c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
        // SAFETY: without CLONE_VM this is a fork: the child runs on a copy of this stack and memory. Null pointers for
        // stack, ids and tls are what the flags given here require.
        let pid = unsafe {
            libc::syscall(
                libc::SYS_clone,
                flags,
                std::ptr::null::<u8>(),
                std::ptr::null::<u8>(),
                0_usize,
                0_usize,
            )
        };
        if pid == 0 {
            wait_for_end(waits_on.as_raw_fd(), leash.as_raw_fd());
        }
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        let pid = libc::pid_t::try_from(pid).expect("process ids fit pid_t");
        Ok(Child { pid, leash: Some(leash) })
    }

    /// The kernel takes a table whole, in one write.
    fn write(&self, table: &str, lines: &str) -> io::Result<()> {
        let mut file = File::options().write(true).open(format!("/proc/{}/{table}", self.pid))?;
        file.write_all(lines.as_bytes())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.leash = None;
        let pid = nix::unistd::Pid::from_raw(self.pid);
        // Not only by the leash: a child forked at the same moment by another thread may hold its other end, and this one
        // that of the other. It is not reaped yet, so the id is its own; it fails only for one that has ended.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        while nix::sys::wait::waitpid(pid, None) == Err(nix::errno::Errno::EINTR) {}
    }
}

/// The child's whole life: until its end of the pipe reads end-of-file.
fn wait_for_end(waits_on: i32, leash: i32) -> ! {
    let mut byte = 0_u8;
    // SAFETY: dup2, close, close_range, read and _exit are async-signal-safe, so they may be called in a fork of whatever
    // process, which shares no descriptor table with it; the buffer is one live byte. _exit runs no destructors of the
    // copied process.
    unsafe {
        libc::close(leash);
        libc::dup2(waits_on, 0);
        // Whatever else was copied, leashes of others among it, is not to live on here.
        libc::syscall(libc::SYS_close_range, 1_u32, u32::MAX, 0_u32);
        while libc::read(0, (&raw mut byte).cast(), 1) < 0 && *libc::__errno_location() == libc::EINTR {}
        libc::_exit(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_outlives_its_process_and_is_a_user_namespace() {
        let namespace = mapping_root_to(61001, 61002).unwrap();
        let link = std::fs::read_link(format!("/proc/self/fd/{}", namespace.as_raw_fd())).unwrap();
        assert!(link.to_str().unwrap().starts_with("user:["), "{}", link.display());
        assert_ne!(link, std::fs::read_link("/proc/self/ns/user").unwrap());
    }

    #[test]
    fn namespaces_made_at_once_do_not_wait_for_each_other() {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..100).for_each(|_| drop(mapping_root_to(61001, 61001).unwrap())));
            }
        });
    }

    #[test]
    fn the_kernel_takes_every_table_of_owners() {
        use crate::sys::idmap::Ids;
        let ids = |id| Ids { uid: id, gid: id };
        for (stored, seen) in [(1000, 2000), (7, 8), (0, 1), (0, u32::MAX - 1), (5, 5), (8, 0)] {
            showing(&Owners::new(ids(stored), ids(seen)).unwrap()).unwrap();
        }
    }
}
