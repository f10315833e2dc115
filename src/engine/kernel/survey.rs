//! Which mounts in mountinfo are workspaces: overlays whose source is `scorpio:<id>`. Pure; touches no mount.
//!
//! Several engines may run on a host (the system's, and somebody's private one); what one of them finds dead it ends. So
//! a mount is an engine's own only if its lower was attached in that engine's layers directory, which the overlay's
//! options keep saying.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use crate::{
    sys::mountinfo::{self, MountEntry},
    types::WorkspaceId,
};

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

/// The workspace that `entry` is a mount of, if it was made by an engine with this layers directory.
pub(super) fn own_workspace_of(entry: &MountEntry, layers: &Path) -> Option<WorkspaceId> {
    let workspace = workspace_of(entry)?;
    let layer = layers.join(workspace.as_str());
    lowers_of(entry).any(|lower| lower == layer).then_some(workspace)
}

/// The lower layers of an overlay, as they were named when it was made. Paths with `:`, `,` or a backslash are not taken
/// apart rightly; the layers directory has none ([`is_plain`]).
fn lowers_of(entry: &MountEntry) -> impl Iterator<Item = PathBuf> {
    let values = entry.super_options.as_bytes().split(|byte| *byte == b',').filter_map(|option| {
        option.strip_prefix(b"lowerdir+=").or_else(|| option.strip_prefix(b"lowerdir="))
    });
    let names = values.flat_map(|value| value.split(|byte| *byte == b':'));
    names.map(|name| PathBuf::from(mountinfo::unescaped(name)))
}

/// Whether `path` can be given to overlayfs, two of them in one value, and found again in its options. It takes `:` and
/// `\` as its own, its parser on older kernels `,` too, and a value ends at 255 bytes.
pub(super) fn is_plain(path: &Path) -> bool {
    const LONGEST: usize = crate::sys::mount::MAX_VALUE / 2;
    let bytes = path.as_os_str().as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+@".contains(byte);
    bytes.len() <= LONGEST && bytes.iter().all(plain)
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

    #[test]
    fn a_mount_belongs_to_the_engine_whose_layer_it_stands_on() {
        let id = "abcdefghjkmn";
        let cases = [
            (format!("rw,lowerdir+=/run/a/layers/{id},upperdir=/u"), true),
            (format!("ro,lowerdir+=/empty,lowerdir+=/run/a/layers/{id},xino=on"), true),
            (format!("ro,lowerdir=/empty:/run/a/layers/{id},xino=on"), true),
            (format!("rw,lowerdir=/run/a/layers/{id},upperdir=/u"), true),
            (format!("rw,lowerdir+=/run/b/layers/{id},upperdir=/run/a/layers/{id}"), false),
            ("rw,lowerdir+=/run/a/layers/abcdefghjkmm".to_owned(), false),
            ("rw".to_owned(), false),
        ];
        for (options, is_own) in cases {
            let line = format!("1 2 0:3 / /x rw - overlay scorpio:{id} {options}");
            let entry = mountinfo::parse(line.as_bytes()).next().unwrap().unwrap();
            assert_eq!(own_workspace_of(&entry, Path::new("/run/a/layers")).is_some(), is_own, "{line}");
        }
    }
}
