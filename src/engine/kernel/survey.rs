//! Which mounts in mountinfo are workspaces: overlays whose source is `scorpio:<id>`. Pure; touches no mount.

use std::{ffi::OsString, os::unix::ffi::OsStrExt};

use crate::{sys::mountinfo::MountEntry, types::WorkspaceId};

const PREFIX: &str = "scorpio:";

/// The source of a workspace's mount.
pub(super) fn source_of(workspace: &str) -> OsString {
    format!("{PREFIX}{workspace}").into()
}

/// The workspace that `entry` is a mount of.
pub(super) fn workspace_of(entry: &MountEntry) -> Option<WorkspaceId> {
    let source = std::str::from_utf8(entry.source.as_bytes()).ok()?;
    (entry.fs_type == "overlay").then(|| source.strip_prefix(PREFIX)?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mountinfo;

    #[test]
    fn only_overlays_with_a_whole_id_are_workspaces() {
        let cases = [
            ("overlay", "scorpio:abcdefghjkmn", true),
            ("ext4", "scorpio:abcdefghjkmn", false),
            ("overlay", "scorpio:abcdefghjkm", false),
            ("overlay", "scorpio:../../../etc", false),
            ("overlay", "overlay", false),
            ("overlay", "abcdefghjkmn", false),
        ];
        for (fs_type, source, is_one) in cases {
            let line = format!("1 2 0:3 / /x rw - {fs_type} {source} rw");
            let entry = mountinfo::parse(line.as_bytes()).next().unwrap().unwrap();
            assert_eq!(workspace_of(&entry).is_some(), is_one, "{line}");
            assert!(!is_one || source_of("abcdefghjkmn") == entry.source);
        }
    }
}
