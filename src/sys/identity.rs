//! [`Identity`]: the ids a user's file accesses are judged by, and acting with them.
#![allow(unsafe_code)] // setfsuid and friends: raw system calls, because they must change this thread alone

use std::io;

/// User, group and supplementary groups, as the kernel attests them for a peer or `getgrouplist` for an account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// This thread acts on files as somebody else until the guard is dropped.
///
/// Only the file-system ids and groups change, and with uid ≠ 0 the kernel takes the file capabilities away
/// (`capabilities(7)`, "Effect of user ID changes"); all else stays root's. The guard must be dropped on the thread that
/// made it, so it is neither `Send` nor held across an `.await`.
#[derive(Debug)]
pub struct ActingAs {
    former_groups: Vec<u32>,
    not_send: std::marker::PhantomData<*const ()>,
}

impl Identity {
    /// The superuser.
    pub fn root() -> Identity {
        Identity { uid: 0, gid: 0, groups: Vec::new() }
    }

    /// Whether this is uid 0.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Lets the current thread act on files with these ids.
    ///
    /// Needs CAP_SETUID and CAP_SETGID unless the ids are the process's own.
    pub fn act(&self) -> io::Result<ActingAs> {
        let former_groups = current_groups()?;
        let guard = ActingAs { former_groups, not_send: std::marker::PhantomData };
        set_groups(&self.groups)?;
        set_fs_id(libc::SYS_setfsgid, self.gid)?;
        set_fs_id(libc::SYS_setfsuid, self.uid)?;
        Ok(guard)
    }
}

impl Drop for ActingAs {
    fn drop(&mut self) {
        let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let restored = set_fs_id(libc::SYS_setfsuid, own.0)
            .and_then(|()| set_fs_id(libc::SYS_setfsgid, own.1))
            .and_then(|()| set_groups(&self.former_groups));
        if let Err(error) = restored {
            // A thread that cannot become itself again would do the next user's work with these rights.
            panic!("cannot restore this thread's identity: {error}");
        }
    }
}

fn current_groups() -> io::Result<Vec<u32>> {
    Ok(nix::unistd::getgroups()?.into_iter().map(nix::unistd::Gid::as_raw).collect())
}

fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the pointer and length are those of a live slice of gid_t (u32), which the kernel only reads. The raw
    // call changes this thread alone; glibc's wrapper would change all of them.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set_fs_id(call: libc::c_long, id: u32) -> io::Result<()> {
    // SAFETY: setfsuid and setfsgid take one integer and touch no memory of ours.
    unsafe { libc::syscall(call, id) };
    // They report no errors; asking again with an invalid id returns the id in force.
    // SAFETY: as above.
    let now = unsafe { libc::syscall(call, u32::MAX) };
    if now == libc::c_long::from(id) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
}
