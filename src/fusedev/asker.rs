//! Which user a request is accounted to. Never used to authorise anything.

use std::{cell::OnceCell, fs::File, io::Read};

use super::abi::InHeader;

/// The uid of a request whose asker has no id in the session's user namespace: every request of an idmapped session.
const NO_UID: u32 = u32::MAX;

/// Enough of `/proc/<pid>/status` to hold its `Uid:` line, which is the ninth.
const STATUS_BYTES: u64 = 1024;

/// Who asks.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Thread id in the daemon's pid namespace; 0 when it is not visible there. On idmapped sessions this is the only
    /// trace of the user.
    pub pid: u32,
    /// As the request's header says it.
    uid: u32,
    user: OnceCell<User>,
}

impl Asker {
    pub(super) fn of(header: &InHeader) -> Asker {
        Asker { pid: header.pid, uid: header.uid, user: OnceCell::new() }
    }

    /// Whom the question is accounted to. Costs a read in `/proc` on idmapped sessions when it is asked first, so it is
    /// asked only for questions that wait.
    pub fn user(&self) -> User {
        *self.user.get_or_init(|| User::find(self.uid, self.pid))
    }
}

/// Who a waiting question is accounted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum User {
    /// A user of the host.
    Uid(u32),
    /// The asker is gone, or not visible from here. They share one account.
    Unknown,
}

impl User {
    fn find(uid: u32, pid: u32) -> User {
        match uid {
            NO_UID if pid == 0 => User::Unknown,
            NO_UID => real_uid(pid).map_or(User::Unknown, User::Uid),
            uid => User::Uid(uid),
        }
    }
}

/// The real uid of a thread: not the effective one, or a set-uid program would wait on root's account.
fn real_uid(pid: u32) -> Option<u32> {
    let mut status = String::new();
    File::open(format!("/proc/{pid}/status")).ok()?.take(STATUS_BYTES).read_to_string(&mut status).ok()?;
    parse_real_uid(&status)
}

fn parse_real_uid(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    fn user(uid: u32, pid: u32) -> User {
        Asker::of(&InHeader { uid, pid, ..InHeader::new_zeroed() }).user()
    }

    #[test]
    fn a_uid_in_the_header_is_believed() {
        assert_eq!(user(1000, 0), User::Uid(1000));
    }

    #[test]
    fn without_one_the_process_tells() {
        let me = rustix::process::getuid().as_raw();
        assert_eq!(user(NO_UID, std::process::id()), User::Uid(me));
    }

    #[test]
    fn a_thread_tells_as_well_as_a_process() {
        let me = rustix::process::getuid().as_raw();
        let thread = std::thread::spawn(move || {
            let tid = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
            user(NO_UID, tid)
        });
        assert_eq!(thread.join().unwrap(), User::Uid(me));
    }

    #[test]
    fn an_asker_that_is_not_visible_is_unknown() {
        assert_eq!(user(NO_UID, 0), User::Unknown);
        assert_eq!(user(NO_UID, u32::MAX), User::Unknown);
    }

    #[test]
    fn the_real_uid_counts_not_the_effective_one() {
        assert_eq!(parse_real_uid("Name:\tUid\nUid:\t1000\t0\t0\t0\n"), Some(1000));
        assert_eq!(parse_real_uid("Name:\tx\n"), None);
        assert_eq!(parse_real_uid("Uid:\tx\n"), None);
    }
}
