//! What is done with each opcode: the one table. No opcode is left to a default, and ENOSYS is never an accident,
//! because the kernel remembers it for the life of the connection.

/// What is done with an opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// The file system is asked.
    Ask,
    /// It is the handshake; a second one is answered EIO.
    Init,
    /// It takes a waiting question back.
    Interrupt,
    /// Nothing to do, and the kernel expects no answer.
    Silent,
    /// Nothing to do; answered with success.
    Done,
    /// Answered with this errno.
    Refuse(i32),
}

/// One opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Its number on the wire.
    pub(crate) opcode: u32,
    /// Its name, as in the counters.
    pub(crate) name: &'static str,
    /// What is done with it.
    pub(crate) policy: Policy,
}

/// A file system that writes nothing says so, and is asked again next time.
const READ_ONLY: Policy = Policy::Refuse(libc::EROFS);
/// The kernel shall remember that it need not ask. Each use says what it does instead.
const NEVER_AGAIN: Policy = Policy::Refuse(libc::ENOSYS);
/// Cannot come with the flags that were negotiated. Not ENOSYS: the kernel is to remember nothing that was not wanted.
const UNEXPECTED: Policy = Policy::Refuse(libc::EOPNOTSUPP);

pub(crate) mod op {
    //! Opcodes that are spoken of outside the table.
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const READLINK: u32 = 5;
    pub(crate) const READ: u32 = 15;
    pub(crate) const STATFS: u32 = 17;
    pub(crate) const INIT: u32 = 26;
    pub(crate) const READDIR: u32 = 28;
    pub(crate) const INTERRUPT: u32 = 36;
    pub(crate) const READDIRPLUS: u32 = 44;
}

const fn row(opcode: u32, name: &'static str, policy: Policy) -> Row {
    Row { opcode, name, policy }
}

/// Every opcode of protocol 7.45 and CUSE.
#[rustfmt::skip]
pub(crate) const TABLE: [Row; 52] = [
    row(op::LOOKUP,      "LOOKUP",      Policy::Ask),
    row(2,               "FORGET",      Policy::Silent), // node ids are permanent: nobody counts lookups
    row(op::GETATTR,     "GETATTR",     Policy::Ask),
    row(4,               "SETATTR",     READ_ONLY),
    row(op::READLINK,    "READLINK",    Policy::Ask),
    row(6,               "SYMLINK",     READ_ONLY),
    row(8,               "MKNOD",       READ_ONLY),
    row(9,               "MKDIR",       READ_ONLY),
    row(10,              "UNLINK",      READ_ONLY),
    row(11,              "RMDIR",       READ_ONLY),
    row(12,              "RENAME",      READ_ONLY),
    row(13,              "LINK",        READ_ONLY),
    row(14,              "OPEN",        NEVER_AGAIN), // opens succeed without us, pages stay cached, no RELEASE
    row(op::READ,        "READ",        Policy::Ask),
    row(16,              "WRITE",       READ_ONLY),
    row(op::STATFS,      "STATFS",      Policy::Ask),
    row(18,              "RELEASE",     Policy::Done), // there is no state behind a handle
    row(20,              "FSYNC",       NEVER_AGAIN), // succeeds without us: there is nothing to write back
    row(21,              "SETXATTR",    READ_ONLY),
    row(22,              "GETXATTR",    NEVER_AGAIN), // EOPNOTSUPP without us; overlayfs asks on every lookup
    row(23,              "LISTXATTR",   NEVER_AGAIN), // EOPNOTSUPP without us; overlayfs asks on every copy-up
    row(24,              "REMOVEXATTR", READ_ONLY),
    row(25,              "FLUSH",       NEVER_AGAIN), // close(2) succeeds without us instead of a round trip each
    row(op::INIT,        "INIT",        Policy::Init),
    row(27,              "OPENDIR",     NEVER_AGAIN), // as OPEN; also makes the kernel keep listings
    row(op::READDIR,     "READDIR",     Policy::Ask),
    row(29,              "RELEASEDIR",  Policy::Done), // as RELEASE
    row(30,              "FSYNCDIR",    NEVER_AGAIN), // as FSYNC
    row(31,              "GETLK",       NEVER_AGAIN), // locks stay in the kernel; not asked without POSIX_LOCKS
    row(32,              "SETLK",       NEVER_AGAIN), // as GETLK
    row(33,              "SETLKW",      NEVER_AGAIN), // as GETLK
    row(34,              "ACCESS",      Policy::Refuse(libc::EACCES)), // only comes when a mount forgot
                                                      // default_permissions; ENOSYS would allow everything
    row(35,              "CREATE",      READ_ONLY),
    row(op::INTERRUPT,   "INTERRUPT",   Policy::Interrupt),
    row(37,              "BMAP",        NEVER_AGAIN), // there is no block device
    row(38,              "DESTROY",     Policy::Done), // the mount is gone; nothing is held for it
    row(39,              "IOCTL",       Policy::Refuse(libc::ENOTTY)), // no file flags; ENOSYS would not be remembered
    row(40,              "POLL",        NEVER_AGAIN), // files are always ready without us
    row(41,              "NOTIFY_REPLY", Policy::Silent), // answers a notification that is never sent
    row(42,              "BATCH_FORGET", Policy::Silent), // as FORGET
    row(43,              "FALLOCATE",   READ_ONLY),
    row(op::READDIRPLUS, "READDIRPLUS", Policy::Ask),
    row(45,              "RENAME2",     READ_ONLY),
    row(46,              "LSEEK",       NEVER_AGAIN), // files have no holes; the kernel works it out from the size
    row(47,              "COPY_FILE_RANGE", READ_ONLY),
    row(48,              "SETUPMAPPING", UNEXPECTED),  // DAX
    row(49,              "REMOVEMAPPING", UNEXPECTED), // DAX
    row(50,              "SYNCFS",      NEVER_AGAIN), // there is nothing to write back
    row(51,              "TMPFILE",     READ_ONLY),
    row(52,              "STATX",       NEVER_AGAIN), // the kernel falls back on GETATTR, which is cached
    row(53,              "COPY_FILE_RANGE_64", READ_ONLY),
    row(4096,            "CUSE_INIT",   UNEXPECTED),  // this is no character device
];

/// Opcodes that are newer than the table.
pub(crate) const UNKNOWN: Row = row(0, "UNKNOWN", UNEXPECTED);

/// What is done with `opcode`.
pub(crate) fn of(opcode: u32) -> Row {
    TABLE.iter().find(|row| row.opcode == opcode).copied().unwrap_or(Row { opcode, ..UNKNOWN })
}

/// What a request is refused with whatever it says: the errno that this session answers to the opcode called `name`.
/// `None` for one that is not always refused. Other servers of the same tree ask here, so as to answer alike.
pub fn refusal(name: &str) -> Option<i32> {
    TABLE.iter().find(|row| row.name == name).and_then(|row| match row.policy {
        Policy::Refuse(errno) => Some(errno),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_opcode_of_the_protocol_has_exactly_one_row() {
        for opcode in (1..=53).filter(|n| ![7, 19].contains(n)).chain([4096]) {
            let rows = TABLE.iter().filter(|row| row.opcode == opcode).count();
            assert_eq!(rows, 1, "opcode {opcode}");
        }
        assert_eq!(TABLE.len(), 52, "and nothing else has one");
    }

    #[test]
    fn enosys_is_answered_only_where_the_kernel_may_remember_it() {
        let enosys: Vec<_> = TABLE
            .iter()
            .filter(|row| row.policy == Policy::Refuse(libc::ENOSYS))
            .map(|row| row.name)
            .collect();
        assert_eq!(
            enosys,
            [
                "OPEN",
                "FSYNC",
                "GETXATTR",
                "LISTXATTR",
                "FLUSH",
                "OPENDIR",
                "FSYNCDIR",
                "GETLK",
                "SETLK",
                "SETLKW",
                "BMAP",
                "POLL",
                "LSEEK",
                "SYNCFS",
                "STATX"
            ]
        );
    }

    #[test]
    fn everything_that_writes_is_refused_as_read_only() {
        for name in [
            "SETATTR",
            "SYMLINK",
            "MKNOD",
            "MKDIR",
            "UNLINK",
            "RMDIR",
            "RENAME",
            "LINK",
            "WRITE",
            "SETXATTR",
            "REMOVEXATTR",
            "CREATE",
            "FALLOCATE",
            "RENAME2",
            "COPY_FILE_RANGE",
            "TMPFILE",
            "COPY_FILE_RANGE_64",
        ] {
            let row = TABLE.iter().find(|row| row.name == name).unwrap();
            assert_eq!(row.policy, Policy::Refuse(libc::EROFS), "{name}");
        }
    }

    #[test]
    fn an_opcode_from_the_future_is_refused_without_being_remembered() {
        assert_eq!(of(54).policy, Policy::Refuse(libc::EOPNOTSUPP));
        assert_eq!(of(u32::MAX).policy, Policy::Refuse(libc::EOPNOTSUPP));
        assert_eq!(of(54).name, "UNKNOWN");
    }
}
