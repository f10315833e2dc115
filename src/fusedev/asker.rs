//! Which user a request is accounted to. Never used to authorise anything.

use std::{fs::File, io::Read};

use super::abi::InHeader;

/// The uid of a request whose asker has no id in the session's user namespace: every request of an idmapped session.
const NO_UID: u32 = u32::MAX;

/// Enough of `/proc/<pid>/status` to hold its `Uid:` line, which is the ninth.
const STATUS_BYTES: u64 = 1024;

/// Who a waiting question is accounted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum User {
    /// A user of the host.
    Uid(u32),
    /// The asker is gone, or not visible from here. They share one account.
    Unknown,
}

impl User {
    /// The user behind `header`. Costs a read in `/proc` on idmapped sessions, so it is asked only for questions that
    /// wait.
    pub(crate) fn of(header: &InHeader) -> User {
        match header.uid {
            NO_UID if header.pid == 0 => User::Unknown,
            NO_UID => real_uid(header.pid).map_or(User::Unknown, User::Uid),
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

    fn header(uid: u32, pid: u32) -> InHeader {
        InHeader { uid, pid, ..InHeader::new_zeroed() }
    }

    #[test]
    fn a_uid_in_the_header_is_believed() {
        assert_eq!(User::of(&header(1000, 0)), User::Uid(1000));
    }

    #[test]
    fn without_one_the_process_tells() {
        let me = rustix::process::getuid().as_raw();
        assert_eq!(User::of(&header(NO_UID, std::process::id())), User::Uid(me));
    }

    #[test]
    fn a_thread_tells_as_well_as_a_process() {
        let me = rustix::process::getuid().as_raw();
        let thread = std::thread::spawn(move || {
            let tid = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
            User::of(&header(NO_UID, tid))
        });
        assert_eq!(thread.join().unwrap(), User::Uid(me));
    }

    #[test]
    fn an_asker_that_is_not_visible_is_unknown() {
        assert_eq!(User::of(&header(NO_UID, 0)), User::Unknown);
        assert_eq!(User::of(&header(NO_UID, u32::MAX)), User::Unknown);
    }

    #[test]
    fn the_real_uid_counts_not_the_effective_one() {
        assert_eq!(parse_real_uid("Name:\tUid\nUid:\t1000\t0\t0\t0\n"), Some(1000));
        assert_eq!(parse_real_uid("Name:\tx\n"), None);
        assert_eq!(parse_real_uid("Uid:\tx\n"), None);
    }
}
