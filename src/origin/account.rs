//! Whose rights a repository is read with when the configuration does not say.

use std::{
    ffi::{CString, OsString},
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Component, Path, PathBuf},
};

use nix::unistd::{Gid, Uid, User, getgrouplist};

use crate::sys::identity::Identity;

/// Symlinks in one path; the kernel's own bound.
const SYMLINKS_MAX: usize = 40;
const STICKY: u32 = 0o1000;
const OTHERS_WRITE: u32 = 0o002;
const GROUP_WRITE: u32 = 0o020;

/// The owner of the directory at `path`, with the groups of the owner's account.
///
/// Fails with `PermissionDenied` when somebody else could put another's directory at `path`: whoever can rename or
/// link on the way there would choose whose files are read. Then `read_as` must say it.
pub fn default_reader(path: &Path) -> io::Result<Identity> {
    let trail = Trail::walk(path)?;
    trail.check(path)?;
    match User::from_uid(Uid::from_raw(trail.owner))? {
        Some(user) => of_account(&user),
        None => Ok(Identity { uid: trail.owner, gid: trail.group, groups: Vec::new() }),
    }
}

/// The account `name`, with its groups: a user name, or a uid.
pub fn account_reader(name: &str) -> io::Result<Identity> {
    let by_name = User::from_name(name)?;
    let user = match name.parse() {
        Ok(uid) if by_name.is_none() => User::from_uid(Uid::from_raw(uid))?,
        _ => by_name,
    };
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("there is no account `{name}`"));
    of_account(&user.ok_or_else(missing)?)
}

fn of_account(user: &User) -> io::Result<Identity> {
    if user.uid.is_root() {
        return Ok(Identity::root());
    }
    let name = CString::new(user.name.as_str()).map_err(io::Error::other)?;
    let groups = getgrouplist(&name, user.gid)?.into_iter().map(Gid::as_raw).collect();
    Ok(Identity { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups })
}

/// Every directory and symlink that decides where a path leads.
struct Trail {
    owner: u32,
    group: u32,
    passed: Vec<Passed>,
}

struct Passed {
    path: PathBuf,
    owner: u32,
    mode: u32,
    is_symlink: bool,
}

impl Trail {
    fn walk(path: &Path) -> io::Result<Trail> {
        let mut ahead: Vec<OsString> = names(&std::path::absolute(path)?);
        let mut at = PathBuf::from("/");
        let mut passed = Vec::new();
        let mut symlinks = 0;
        loop {
            let metadata = fs::symlink_metadata(&at)?;
            let (owner, mode) = (metadata.uid(), metadata.permissions().mode());
            let is_symlink = metadata.is_symlink();
            if is_symlink {
                symlinks += 1;
                if symlinks > SYMLINKS_MAX {
                    return Err(io::Error::from_raw_os_error(libc::ELOOP));
                }
                let target = fs::read_link(&at)?;
                passed.push(Passed { path: at.clone(), owner, mode, is_symlink });
                at = if target.is_absolute() { PathBuf::from("/") } else { parent(&at) };
                ahead.extend(names(&target));
            } else if ahead.is_empty() {
                return Ok(Trail { owner, group: metadata.gid(), passed });
            } else {
                passed.push(Passed { path: at.clone(), owner, mode, is_symlink });
            }
            match ahead.pop() {
                Some(name) if name == ".." => at = parent(&at),
                Some(name) => at.push(name),
                None => {}
            }
        }
    }

    fn check(&self, path: &Path) -> io::Result<()> {
        match self.passed.iter().find(|passed| !passed.is_safe_for(self.owner)) {
            None => Ok(()),
            Some(passed) => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!(
                    "{path:?} belongs to uid {}, but {:?} on the way there can be changed by others; say with `read_as` \
                     whose rights it is to be read with",
                    self.owner, passed.path
                ),
            )),
        }
    }
}

impl Passed {
    /// Whether only `owner` and root decide what is found here.
    fn is_safe_for(&self, owner: u32) -> bool {
        // In a sticky directory entries can be replaced by their owners alone, and those are looked at themselves.
        // A group that may write is the owner's own business, unless the owner is root.
        let writers = if owner == 0 { OTHERS_WRITE | GROUP_WRITE } else { OTHERS_WRITE };
        let is_open = !self.is_symlink && self.mode & writers != 0 && self.mode & STICKY == 0;
        (self.owner == 0 || self.owner == owner) && !is_open
    }
}

/// The names of a path in reverse, to be taken from the end.
fn names(path: &Path) -> Vec<OsString> {
    let named = path
        .components()
        .filter(|component| matches!(component, Component::Normal(_) | Component::ParentDir));
    let mut names: Vec<OsString> = named.map(|component| component.as_os_str().to_owned()).collect();
    names.reverse();
    names
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, lchown, symlink};

    use super::*;

    fn set(path: &Path, owner: u32, mode: u32) {
        chown(path, Some(owner), Some(owner)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_directory_is_read_with_its_owners_rights() {
        assert!(Uid::effective().is_root(), "only root can give files away: run this as root");
        let dir = tempfile::tempdir().unwrap();
        let (roots, theirs) = (dir.path().join("roots"), dir.path().join("theirs"));
        for (path, owner) in [(&roots, 0), (&theirs, 54_321)] {
            fs::create_dir(path).unwrap();
            set(path, owner, 0o755);
        }
        assert_eq!(default_reader(&roots).unwrap(), Identity::root());
        let nameless = Identity { uid: 54_321, gid: 54_321, groups: Vec::new() };
        assert_eq!(default_reader(&theirs).unwrap(), nameless);
        let nobody = dir.path().join("nobody");
        fs::create_dir(&nobody).unwrap();
        set(&nobody, 65_534, 0o755);
        let reader = default_reader(&nobody).unwrap();
        assert_eq!((reader.uid, reader.gid, reader.groups), (65_534, 65_534, vec![65_534]));
        assert_eq!(default_reader(&dir.path().join("absent")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn nobody_can_have_anothers_directory_read_by_putting_it_in_place() {
        assert!(Uid::effective().is_root(), "only root can give files away: run this as root");
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (name, owner, mode) in [
            ("secret", 0, 0o700),
            ("alice", 54_321, 0o755),
            ("shared", 0, 0o775),
            ("open", 0, 0o777),
            ("sticky", 0, 0o1777),
        ] {
            fs::create_dir(at(name)).unwrap();
            set(&at(name), owner, mode);
        }
        for name in ["shared/repo", "open/repo", "sticky/repo"] {
            fs::create_dir(at(name)).unwrap();
        }
        fs::create_dir(at("open/alices")).unwrap();
        set(&at("open/alices"), 54_321, 0o755);
        symlink(at("secret"), at("alice/repo")).unwrap();
        symlink(at("secret"), at("linked")).unwrap();
        symlink(at("secret"), at("sticky/linked")).unwrap();
        lchown(at("sticky/linked"), Some(54_321), None).unwrap();
        symlink("loop", at("loop")).unwrap();
        for name in
            ["alice/repo", "shared/repo", "open/repo", "open/alices", "sticky/linked", "alice/../secret"]
        {
            let error = default_reader(&at(name)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{name}: {error}");
        }
        for name in ["linked", "sticky/repo", "sticky/../secret"] {
            assert_eq!(default_reader(&at(name)).unwrap(), Identity::root(), "{name}");
        }
        assert_eq!(default_reader(&at("loop")).unwrap_err().raw_os_error(), Some(libc::ELOOP));
    }
}
