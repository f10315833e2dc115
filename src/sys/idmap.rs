//! [`Owners`]: which ids files are stored with and which they are shown with. Pure; [`super::userns`] makes of it what an
//! idmapped mount needs.
//!
//! ```text
//! on disk      alice   bob    carol  root
//!                 ╲   ╱         │     │        stored: alice, seen: bob
//! in the mount    ╱   ╲         │     │
//!              alice   bob    carol  root
//! ```
//!
//! The two ids stand for each other and all others for themselves, so every id on disk has exactly one in the mount and
//! the other way round: an id without a partner would make its files unchangeable (EOVERFLOW) and its owner unable to
//! create any. The kernel takes no table that shows two ids as one.

use std::fmt::Write as _;

use super::identity::Identity;

/// The id that stands for none: -1.
const NO_ID: u32 = u32::MAX;

/// A user and a group, as files have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ids {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl From<&Identity> for Ids {
    fn from(identity: &Identity) -> Ids {
        Ids { uid: identity.uid, gid: identity.gid }
    }
}

/// The ids of one workspace's files: on disk, and in its mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owners {
    users: Exchange,
    groups: Exchange,
}

/// Two ids that stand for each other; they may be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Exchange {
    stored: u32,
    seen: u32,
}

/// An id that no file can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no id that a file can have")]
pub struct NoId(pub u32);

impl Owners {
    /// What is stored as `stored` is seen as `seen`, and the other way round.
    pub fn new(stored: Ids, seen: Ids) -> Result<Owners, NoId> {
        let users = Exchange::new(stored.uid, seen.uid)?;
        let groups = Exchange::new(stored.gid, seen.gid)?;
        Ok(Owners { users, groups })
    }

    /// The ids on disk.
    pub fn stored(&self) -> Ids {
        Ids { uid: self.users.stored, gid: self.groups.stored }
    }

    /// The ids in the mount.
    pub fn seen(&self) -> Ids {
        Ids { uid: self.users.seen, gid: self.groups.seen }
    }

    /// Whether anything is seen under another id than it is stored with.
    pub fn differ(&self) -> bool {
        self.stored() != self.seen()
    }

    /// The other side of a user id: of a stored one as it is seen, of a seen one as it is stored.
    pub fn user(&self, uid: u32) -> u32 {
        self.users.other_side(uid)
    }

    /// The other side of a group id.
    pub fn group(&self, gid: u32) -> u32 {
        self.groups.other_side(gid)
    }

    /// The user table as `/proc/<pid>/uid_map` takes it: stored, seen, how many.
    pub fn uid_map(&self) -> String {
        self.users.lines()
    }

    /// The group table.
    pub fn gid_map(&self) -> String {
        self.groups.lines()
    }
}

impl Exchange {
    fn new(stored: u32, seen: u32) -> Result<Exchange, NoId> {
        match [stored, seen].into_iter().find(|id| *id == NO_ID) {
            Some(id) => Err(NoId(id)),
            None => Ok(Exchange { stored, seen }),
        }
    }

    /// An exchange is its own inverse.
    fn other_side(self, id: u32) -> u32 {
        match id {
            id if id == self.stored => self.seen,
            id if id == self.seen => self.stored,
            other => other,
        }
    }

    /// At most five ranges, which is what the kernel keeps without allocating.
    fn lines(self) -> String {
        let (low, high) = (self.stored.min(self.seen), self.stored.max(self.seen));
        let mut lines = String::new();
        let mut range = |from: u32, to: u32, count: u32| {
            if count > 0 {
                writeln!(lines, "{from} {to} {count}").expect("writing to a String does not fail");
            }
        };
        range(0, 0, low);
        range(low, high, 1);
        if low != high {
            range(low + 1, low + 1, high - low - 1);
            range(high, low, 1);
        }
        range(high + 1, high + 1, NO_ID - (high + 1));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(uid: u32, gid: u32) -> Ids {
        Ids { uid, gid }
    }

    #[test]
    fn stored_and_seen_stand_for_each_other_and_all_others_for_themselves() {
        let owners = Owners::new(ids(1000, 100), ids(2000, 200)).unwrap();
        assert!(owners.differ());
        assert_eq!((owners.stored(), owners.seen()), (ids(1000, 100), ids(2000, 200)));
        for (stored, seen) in [(1000, 2000), (2000, 1000), (0, 0), (1001, 1001), (NO_ID - 1, NO_ID - 1)] {
            assert_eq!((owners.user(stored), owners.user(seen)), (seen, stored));
        }
        assert_eq!((owners.group(100), owners.group(200), owners.group(1000)), (200, 100, 1000));
    }

    #[test]
    fn who_is_given_back_what_they_stored_sees_it_as_it_is() {
        let owners = Owners::new(ids(1000, 100), ids(1000, 100)).unwrap();
        assert!(!owners.differ());
        assert_eq!(owners.user(1000), 1000);
        // One id may change without the other.
        assert!(Owners::new(ids(1000, 100), ids(1000, 200)).unwrap().differ());
    }

    #[test]
    fn the_kernels_tables_cover_every_id_once_on_both_sides() {
        let cases = [
            (1000, 2000, "0 0 1000\n1000 2000 1\n1001 1001 999\n2000 1000 1\n2001 2001 4294965294\n"),
            (2000, 1000, "0 0 1000\n1000 2000 1\n1001 1001 999\n2000 1000 1\n2001 2001 4294965294\n"),
            (7, 8, "0 0 7\n7 8 1\n8 7 1\n9 9 4294967286\n"),
            (0, 1, "0 1 1\n1 0 1\n2 2 4294967293\n"),
            (5, 5, "0 0 5\n5 5 1\n6 6 4294967289\n"),
            (0, NO_ID - 1, "0 4294967294 1\n1 1 4294967293\n4294967294 0 1\n"),
        ];
        for (stored, seen, expected) in cases {
            let owners = Owners::new(ids(stored, stored), ids(seen, seen)).unwrap();
            assert_eq!(owners.uid_map(), expected, "{stored} {seen}");
            assert_eq!(owners.gid_map(), expected);
            let count = |line: &str| line.split(' ').nth(2).unwrap().parse::<u64>().unwrap();
            assert_eq!(expected.lines().map(count).sum::<u64>(), u64::from(NO_ID));
        }
    }

    #[test]
    fn the_id_that_is_none_is_refused_wherever_it_stands() {
        let good = ids(1, 1);
        for (stored, seen) in
            [(ids(NO_ID, 1), good), (ids(1, NO_ID), good), (good, ids(NO_ID, 1)), (good, ids(1, NO_ID))]
        {
            assert_eq!(Owners::new(stored, seen), Err(NoId(NO_ID)));
        }
        assert_eq!(NoId(NO_ID).to_string(), "4294967295 is no id that a file can have");
    }
}
