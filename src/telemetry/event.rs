//! Classes of events: `message_id` of an entry, by which an operator finds all of its kind
//! (`journalctl MESSAGE_ID=…`) and `journalctl -x` its explanation.
//!
//! The ids are random, permanent, and stand in `systemd/scorpio.catalog` too.

/// The daemon serves the control socket, and what could be mounted again is mounted.
pub const READY: &str = "bfa355c57330ee28e893c0d34dd4c33a";
/// The daemon is on its way out.
pub const STOPPING: &str = "66480bfe47c0c3b111cf22c03b4de72d";
/// A workspace is mounted.
pub const MOUNTED: &str = "65ec52de4b370318000531a1810f90fb";
/// A workspace is no longer mounted; its changes are kept.
pub const UNMOUNTED: &str = "922ddb6c46858897f7af242712eff00f";
/// A workspace is gone for good.
pub const REMOVED: &str = "5603cd5dc672fe3a7d768f620e36de29";
/// A workspace was handed over to another user.
pub const GIVEN: &str = "fba579d37a2a4c4e8e6773007ef1f7b0";
/// A workspace came back after a restart, crash or boot.
pub const RECOVERED: &str = "6e8afa6abfc3c14cd811a12cd6ec1710";
/// The mount point of a workspace is not the directory it was.
pub const DISPLACED: &str = "867f21f9aaabda9f5ce21f312ada6b7b";
/// A mount did not come about.
pub const MOUNT_FAILED: &str = "1a277f907433da999ede940234b2c2d9";
/// An origin does not answer, or answers nonsense.
pub const ORIGIN_FAILED: &str = "a55fefbb52361a60e46de981730c2648";
/// An origin answers again.
pub const ORIGIN_RESTORED: &str = "6858f8431dee9a830ec70394fa090cfc";
/// A credential is missing, or its origin refuses it.
pub const CREDENTIAL_REFUSED: &str = "dcf4c919d89b47d094b48193c5669a68";
/// No user gets a new mount: an administrator drains the host.
pub const DRAIN_BEGUN: &str = "236d31a68be24de38aa0c4aaf6750610";
/// Users get mounts again.
pub const DRAIN_ENDED: &str = "315721c81aaf42029b7af8322c423219";
/// A caller was denied what it asked for.
pub const REFUSED: &str = "2942e3b336a0142c10446c0cf3d29514";
/// A bound of the configuration said no.
pub const LIMIT_REACHED: &str = "a3d509479a1684b4b3207f42af663c8a";
/// The object cache was thrown away; it holds no user data.
pub const CACHE_DISCARDED: &str = "be46623876b36b1e79cf2521120298d4";
/// A directory of changes that no workspace speaks for.
pub const ORPHAN_FOUND: &str = "08121395589c60a08c30982ed0ba975e";
/// Entries that were not written because there were too many of their kind.
pub const HELD_BACK: &str = "e3eaee69156e44aca62ec2ebf1468a6e";

/// A FUSE session is over although the daemon goes on: its connection was aborted, or it was let go.
pub const SESSION_ENDED: &str = "46cab9feb3f94161a2b898f618f34b0e";
/// The configuration was read again.
pub const RELOADED: &str = "401434737c2f4f7e803fb7c155dc74d3";
/// The configuration was read again and is wrong: the one before stays in force.
pub const RELOAD_REFUSED: &str = "441bcfa2c538459a97f5c67abf957e39";
/// How much is logged was changed.
pub const LOG_LEVEL: &str = "8b149f6e71c64eae89d1c117fd0207b5";

/// All classes with the names of their constants.
pub const ALL: &[(&str, &str)] = &[
    ("READY", READY),
    ("STOPPING", STOPPING),
    ("MOUNTED", MOUNTED),
    ("UNMOUNTED", UNMOUNTED),
    ("REMOVED", REMOVED),
    ("GIVEN", GIVEN),
    ("RECOVERED", RECOVERED),
    ("DISPLACED", DISPLACED),
    ("MOUNT_FAILED", MOUNT_FAILED),
    ("ORIGIN_FAILED", ORIGIN_FAILED),
    ("ORIGIN_RESTORED", ORIGIN_RESTORED),
    ("CREDENTIAL_REFUSED", CREDENTIAL_REFUSED),
    ("DRAIN_BEGUN", DRAIN_BEGUN),
    ("DRAIN_ENDED", DRAIN_ENDED),
    ("REFUSED", REFUSED),
    ("LIMIT_REACHED", LIMIT_REACHED),
    ("CACHE_DISCARDED", CACHE_DISCARDED),
    ("ORPHAN_FOUND", ORPHAN_FOUND),
    ("HELD_BACK", HELD_BACK),
    ("SESSION_ENDED", SESSION_ENDED),
    ("RELOADED", RELOADED),
    ("RELOAD_REFUSED", RELOAD_REFUSED),
    ("LOG_LEVEL", LOG_LEVEL),
];

#[cfg(test)]
mod tests {
    use super::*;

    const CATALOG: &str = include_str!("../../systemd/scorpio.catalog");
    const SELF: &str = include_str!("event.rs");

    #[test]
    fn every_class_is_listed_once_and_explained_in_the_catalog() {
        let constants =
            SELF.lines().filter(|line| line.starts_with("pub const") && line.contains(": &str ="));
        assert_eq!(constants.count(), ALL.len());
        let entries: Vec<_> = CATALOG.lines().filter_map(|line| line.strip_prefix("-- ")).collect();
        let ids: Vec<_> = ALL.iter().map(|(_, id)| *id).collect();
        assert_eq!(entries, ids);
        let mut distinct = ids.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), ALL.len());
        for id in ids {
            let hex = id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            assert!(hex && id.len() == 32, "{id}");
        }
    }

    #[test]
    fn every_explanation_has_a_subject_and_says_more_than_it() {
        for entry in CATALOG.split("\n-- ").skip(1) {
            let (head, text) = entry.split_once("\n\n").expect("a blank line parts head and text");
            assert!(head.contains("\nSubject: ") && head.contains("\nDefined-By: scorpio"), "{head}");
            assert!(text.trim().len() > 40, "{entry}");
        }
    }
}
