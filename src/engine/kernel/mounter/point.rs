//! The mount point: checked as text, opened as the user without following a symlink, checked as a directory. From then
//! on it is a descriptor; the path is never used again, so renaming it or swapping it for a symlink changes nothing.

use std::{
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType, OFlags, RawDir, Stat, StatxAttributes, StatxFlags},
    io::Errno,
};

use super::protocol::{Failure, Owner};
use crate::{
    engine::PointFault,
    engine::kernel::survey,
    sys::{identity::Identity, mount, mountinfo},
};

/// Longest path the kernel takes, without its final NUL.
const MAX_PATH: usize = 4095;

/// A mount point that will do.
#[derive(Debug)]
pub(crate) struct OpenPoint {
    pub(crate) fd: OwnedFd,
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    /// The mount the directory lies in: the one that ours must become a child of.
    pub(crate) inside: u64,
}

/// Whether `path` is one spelling of a place that nobody can misread: absolute, without control characters, `.`, `..`,
/// doubled or trailing slashes.
///
/// Doubled and trailing slashes are refused and not tidied up, so that a recorded path, the one in mountinfo and the
/// one the user named are the same bytes.
pub(crate) fn check_text(path: &Path) -> Result<(), (PointFault, &'static str)> {
    let bytes = path.as_os_str().as_bytes();
    let Some(below_root) = bytes.strip_prefix(b"/") else {
        return Err((PointFault::Relative, "it is not an absolute path"));
    };
    let malformed = |reason| Err((PointFault::Malformed, reason));
    if bytes.len() > MAX_PATH {
        return malformed("it is longer than 4095 bytes");
    }
    if bytes.iter().any(u8::is_ascii_control) {
        return malformed("it contains a control character");
    }
    let mut names = below_root.split(|byte| *byte == b'/');
    if names.clone().any(|name| name == b"." || name == b"..") {
        return malformed("it contains `.` or `..`");
    }
    if !below_root.is_empty() && names.any(<[u8]>::is_empty) {
        return malformed("it contains `//` or ends with `/`");
    }
    Ok(())
}

/// Opens and checks a mount point with the owner's rights.
pub(crate) fn open(path: &Path, owner: &Owner, expect: Option<(u64, u64)>) -> Result<OpenPoint, Failure> {
    check_text(path).map_err(|(fault, reason)| Failure::point(fault, reason))?;
    let _acting = Identity::from(owner).act().map_err(Failure::at("taking on the user's rights"))?;
    let fd = open_as_actor(path)?;
    let stat = rustix::fs::fstat(&fd).map_err(cannot_examine)?;
    check_kind(&stat)?;
    check_file_system(fd.as_fd())?;
    let inside = mount::mount_id(fd.as_fd()).map_err(Failure::at("finding the mount point's mount"))?;
    let covered = is_mount_root(fd.as_fd())?;
    check_not_nested(inside, covered)?;
    check_identity(&stat, expect, covered)?;
    if stat.st_uid != owner.uid {
        let reason = format!("it belongs to uid {}, not to uid {}", stat.st_uid, owner.uid);
        return Err(Failure::point(PointFault::NotOwned, reason));
    }
    if covered {
        return Err(Failure::point(PointFault::Busy, "something is mounted there already"));
    }
    check_empty(fd.as_fd())?;
    Ok(OpenPoint { fd, dev: stat.st_dev, ino: stat.st_ino, inside })
}

/// Opens without O_DIRECTORY: then a symlink opens too, and can be told from a file.
fn open_as_actor(path: &Path) -> Result<OwnedFd, Failure> {
    mount::open_beneath_no_links(rustix::fs::CWD, path, OFlags::PATH).map_err(|errno| match errno {
        Errno::NOENT => Failure::point(PointFault::Missing, "there is no such directory"),
        Errno::NOTDIR => Failure::point(PointFault::NotADirectory, "a name on the way is not a directory"),
        Errno::LOOP => Failure::point(PointFault::Symlink, "a name on the way is a symlink"),
        Errno::ACCESS | Errno::PERM => Failure::point(PointFault::Denied, "the user may not go there"),
        Errno::NAMETOOLONG => Failure::point(PointFault::Malformed, "a name in it is too long"),
        other => Failure::at("opening the mount point")(other),
    })
}

/// A file system may shut out all but its owner's own processes, root's too: FUSE does.
fn cannot_examine(errno: Errno) -> Failure {
    match errno {
        Errno::ACCESS | Errno::PERM => {
            Failure::point(PointFault::Denied, "its file system does not let the service in")
        }
        other => Failure::at("examining the mount point")(other),
    }
}

fn check_kind(stat: &Stat) -> Result<(), Failure> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Ok(()),
        FileType::Symlink => Err(Failure::point(PointFault::Symlink, "it is a symlink")),
        _ => Err(Failure::point(PointFault::NotADirectory, "it is not a directory")),
    }
}

/// File systems a mount point may lie on, by the magic number of statfs(2). What the kernel uses to show its own state
/// (proc, sysfs, cgroups, …) is not among them, and neither is what nobody thought of.
const FILE_SYSTEMS: [(i64, &str); 18] = [
    (0xef53, "ext2, ext3, ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0xca45_1a4e, "bcachefs"),
    (0xf2f5_2010, "f2fs"),
    (0x2fc1_2fc1, "zfs"),
    (0x0102_1994, "tmpfs"),
    (0x8584_58f6, "ramfs"),
    (0x794c_7630, "overlayfs"),
    (0x6969, "nfs"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x00c3_6400, "ceph"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "fuse"),
    (0xf15f, "ecryptfs"),
    (0x3153_464a, "jfs"),
    (0x5265_4973, "reiserfs"),
];

fn check_file_system(fd: BorrowedFd<'_>) -> Result<(), Failure> {
    let magic =
        rustix::fs::fstatfs(fd).map_err(Failure::at("examining the mount point's file system"))?.f_type;
    if FILE_SYSTEMS.iter().any(|(known, _)| *known == magic) {
        return Ok(());
    }
    let reason = format!("its file system (type {magic:#x}) is none that workspaces are mounted on");
    Err(Failure::point(PointFault::Filesystem, reason))
}

fn is_mount_root(fd: BorrowedFd<'_>) -> Result<bool, Failure> {
    let flags = AtFlags::EMPTY_PATH;
    let statx = rustix::fs::statx(fd, "", flags, StatxFlags::TYPE)
        .map_err(Failure::at("examining the mount point"))?;
    Ok(statx.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// A directory in a workspace, or in something mounted in a workspace, is refused: the outer one could never be ended.
fn check_not_nested(inside: u64, covered: bool) -> Result<(), Failure> {
    let table = mountinfo::read(mountinfo::Whose::Own).map_err(Failure::at("reading mountinfo"))?;
    let mut id = inside;
    let mut steps = 0..table.len(); // a table that names parents in a circle ends the walk
    while let (Some(entry), Some(step)) = (table.iter().find(|entry| entry.mount_id == id), steps.next()) {
        let is_the_point_itself = step == 0 && covered;
        if survey::workspace_of(entry).is_some() && !is_the_point_itself {
            let reason = format!("it lies in the workspace at {}", entry.mount_point.display());
            return Err(Failure::point(PointFault::Nested, reason));
        }
        if entry.parent_id == id {
            break;
        }
        id = entry.parent_id;
    }
    Ok(())
}

fn check_identity(stat: &Stat, expect: Option<(u64, u64)>, covered: bool) -> Result<(), Failure> {
    let Some(expected) = expect else { return Ok(()) };
    if covered {
        return Err(Failure::point(PointFault::Busy, "something is mounted there already"));
    }
    if (stat.st_dev, stat.st_ino) == expected {
        return Ok(());
    }
    Err(Failure::point(PointFault::Displaced, "it is not the directory that the workspace was mounted at"))
}

/// Reads the directory, with the user's rights: one that the user cannot list is not shown to be empty.
fn check_empty(fd: BorrowedFd<'_>) -> Result<(), Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let list = mount::open_beneath_no_links(fd, Path::new("."), flags).map_err(|errno| match errno {
        Errno::ACCESS | Errno::PERM => Failure::point(PointFault::Denied, "the user may not list it"),
        other => Failure::at("listing the mount point")(other),
    })?;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(&list, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(|errno| Failure::at("listing the mount point")(io::Error::from(errno)))?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return Err(Failure::point(PointFault::NotEmpty, "it is not empty"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::OsStr,
        fs::{Permissions, create_dir, set_permissions, write},
        os::unix::fs::{PermissionsExt, chown, symlink},
        path::PathBuf,
    };

    use super::*;

    const ALICE: u32 = 61001;
    const BOB: u32 = 61002;

    fn owner(uid: u32) -> Owner {
        Owner { uid, gid: uid, groups: Vec::new() }
    }

    /// A directory that everybody can enter, with one of alice's in it.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let point = dir.path().join("ws");
        create_dir(&point).unwrap();
        chown(&point, Some(ALICE), Some(ALICE)).unwrap();
        (dir, point)
    }

    fn fault(path: &Path, uid: u32, expect: Option<(u64, u64)>) -> Option<PointFault> {
        match open(path, &owner(uid), expect) {
            Ok(_) => None,
            Err(Failure::Point { fault, .. }) => Some(fault),
            Err(other) => panic!("{}: {other:?}", path.display()),
        }
    }

    #[test]
    fn only_one_spelling_of_a_path_is_taken() {
        use PointFault::{Malformed, Relative};
        let long = [b"/".as_slice(), &[b'x'; 5000]].concat();
        let cases: [(&[u8], Option<PointFault>); 18] = [
            (b"/", None),
            (b"/a/b", None),
            (b"/a b,c\\040/\xff", None),
            (b"/...", None),
            (b"", Some(Relative)),
            (b"a/b", Some(Relative)),
            (b"./a", Some(Relative)),
            (b"/a/../b", Some(Malformed)),
            (b"/a/./b", Some(Malformed)),
            (b"/a/.", Some(Malformed)),
            (b"/..", Some(Malformed)),
            (b"//a", Some(Malformed)),
            (b"/a//b", Some(Malformed)),
            (b"/a/", Some(Malformed)),
            (b"/a\nb", Some(Malformed)),
            (b"/a\tb", Some(Malformed)),
            (b"/a\0b", Some(Malformed)),
            (&long, Some(Malformed)),
        ];
        for (bytes, expected) in cases {
            let found = check_text(Path::new(OsStr::from_bytes(bytes))).err().map(|(fault, _)| fault);
            assert_eq!(found, expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn places_that_are_not_the_users_are_refused_by_name() {
        use PointFault::{
            Denied, Displaced, Filesystem, Missing, NotADirectory, NotEmpty, NotOwned, Symlink,
        };
        let (dir, point) = place();
        let at = |name: &str| dir.path().join(name);
        write(at("file"), "").unwrap();
        symlink(&point, at("link")).unwrap();
        symlink(dir.path(), at("detour")).unwrap();
        let (full, shut) = (at("full"), at("shut"));
        for made in [&full, &shut, &shut.join("in")] {
            create_dir(made).unwrap();
            chown(made, Some(ALICE), Some(ALICE)).unwrap();
        }
        write(full.join(".hidden"), "").unwrap();
        set_permissions(&shut, Permissions::from_mode(0o700)).unwrap();
        let cases = [
            (PathBuf::from("/"), ALICE, Some(NotOwned)),
            (PathBuf::from("/etc"), ALICE, Some(NotOwned)),
            (PathBuf::from("/proc/self"), ALICE, Some(Symlink)),
            (PathBuf::from("/proc/sys"), ALICE, Some(Filesystem)),
            (PathBuf::from("/sys"), ALICE, Some(Filesystem)),
            (PathBuf::from("/proc/self/root/etc"), ALICE, Some(Symlink)),
            (at("file"), ALICE, Some(NotADirectory)),
            (at("file/x"), ALICE, Some(NotADirectory)),
            (at("link"), ALICE, Some(Symlink)),
            (at("detour/ws"), ALICE, Some(Symlink)),
            (at("absent"), ALICE, Some(Missing)),
            (at(&"x".repeat(256)), ALICE, Some(PointFault::Malformed)),
            (full, ALICE, Some(NotEmpty)),
            (shut.join("in"), ALICE, None),
            (shut.join("in"), BOB, Some(Denied)),
            (point.clone(), BOB, Some(NotOwned)),
            (point.clone(), ALICE, None),
        ];
        for (path, uid, expected) in cases {
            assert_eq!(fault(&path, uid, None), expected, "{} for {uid}", path.display());
        }
        let open = open(&point, &owner(ALICE), None).unwrap();
        assert_eq!(fault(&point, ALICE, Some((open.dev, open.ino))), None);
        assert_eq!(fault(&point, ALICE, Some((open.dev, open.ino + 1))), Some(Displaced));
    }

    #[test]
    fn a_directory_the_user_cannot_list_is_refused() {
        let (_dir, point) = place();
        set_permissions(&point, Permissions::from_mode(0o300)).unwrap();
        assert_eq!(fault(&point, ALICE, None), Some(PointFault::Denied));
    }
}
