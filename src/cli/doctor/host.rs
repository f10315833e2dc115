//! Checks of this host: kernel, file systems, namespace. Each reads one file and judges it by a pure function.

use std::{fs, io, os::unix::fs::FileTypeExt as _};

use super::Check;
use crate::sys::mountinfo;

/// The oldest kernel that mounts are tested on (Debian 12).
const OLDEST: (u32, u32) = (6, 1);
/// The first kernel with idmapped FUSE: one session serves all users.
const IDMAPPED_FUSE: (u32, u32) = (6, 12);

/// All checks of the host.
pub(super) fn checks() -> Vec<Check> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease");
    let filesystems = fs::read_to_string("/proc/filesystems");
    vec![
        kernel(release.as_deref().unwrap_or_default().trim()),
        file_systems(filesystems.as_deref().unwrap_or_default()),
        device(fs::metadata("/dev/fuse").map(|metadata| metadata.file_type().is_char_device())),
        namespace(mountinfo::in_host_namespace()),
    ]
}

fn kernel(release: &str) -> Check {
    const NAME: &str = "kernel";
    match version(release) {
        None => Check::warn(
            NAME,
            format!("`{release}` is no version that can be read"),
            "Linux 6.12 or later is best",
        ),
        Some(version) if version < OLDEST => Check::fail(
            NAME,
            format!("{release} is too old"),
            "Linux 6.1 is the oldest that works, 6.12 the best",
        ),
        Some(version) if version < IDMAPPED_FUSE => Check::warn(
            NAME,
            format!("{release} works, with one FUSE session for each user"),
            "Linux 6.12 or later shares one session among all users",
        ),
        Some(_) => Check::ok(NAME, format!("{release} has all that is used")),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let digits = |part: &str| part.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
    let mut parts = release.split('.');
    Some((digits(parts.next()?)?, digits(parts.next()?)?))
}

fn file_systems(known: &str) -> Check {
    const NAME: &str = "file systems";
    let has = |wanted: &str| known.lines().any(|line| line.split_whitespace().last() == Some(wanted));
    let missing: Vec<_> = ["fuse", "overlay"].into_iter().filter(|name| !has(name)).collect();
    if missing.is_empty() {
        return Check::ok(NAME, "the kernel has fuse and overlay");
    }
    // A module that is loaded on demand is not listed before its first use.
    Check::warn(
        NAME,
        format!("the kernel does not list {}", missing.join(" and ")),
        format!("modprobe {}; no harm if the first mount works", missing.join(" ")),
    )
}

fn device(is_device: io::Result<bool>) -> Check {
    const NAME: &str = "/dev/fuse";
    match is_device {
        Ok(true) => Check::ok(NAME, "is there"),
        Ok(false) => Check::fail(NAME, "is no device", "rm /dev/fuse; mknod -m 666 /dev/fuse c 10 229"),
        Err(error) => Check::fail(NAME, format!("cannot be found: {error}"), "modprobe fuse"),
    }
}

fn namespace(is_hosts: io::Result<bool>) -> Check {
    const NAME: &str = "mount namespace";
    match is_hosts {
        Ok(true) => Check::ok(NAME, "you see the mounts of the host"),
        Ok(false) => Check::fail(
            NAME,
            "you are in another mount namespace than process 1, so the daemon's mounts would not be seen here",
            "run scorpioctl outside of the container or sandbox",
        ),
        Err(error) => Check::warn(
            NAME,
            format!("cannot be compared with that of process 1: {error}"),
            "sudo scorpioctl doctor",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    #[test]
    fn kernels_are_judged_by_what_they_lack() {
        for (release, outcome, word) in [
            ("6.18.44", Outcome::Ok, "has all"),
            ("6.12.95+deb12-cloud-amd64", Outcome::Ok, "has all"),
            ("7.0-rc1", Outcome::Ok, "has all"),
            ("6.9.0", Outcome::Warn, "one FUSE session"),
            ("6.1.0-28-amd64", Outcome::Warn, "one FUSE session for each user"),
            ("5.15.0", Outcome::Fail, "too old"),
            ("", Outcome::Warn, "no version"),
            ("x.y", Outcome::Warn, "no version"),
        ] {
            let check = kernel(release);
            assert_eq!(check.outcome, outcome, "{release}");
            assert!(check.says.contains(word), "{release}: {}", check.says);
        }
    }

    #[test]
    fn a_file_system_that_is_not_listed_is_named() {
        assert_eq!(file_systems("nodev\tfuse\n\text4\nnodev\toverlay\n").outcome, Outcome::Ok);
        let check = file_systems("nodev\tfusectl\n\tfuseblk\nnodev\toverlay\n");
        assert_eq!((check.outcome, check.says.as_str()), (Outcome::Warn, "the kernel does not list fuse"));
    }

    #[test]
    fn another_namespace_fails_and_an_unknown_one_warns() {
        assert_eq!(namespace(Ok(true)).outcome, Outcome::Ok);
        assert_eq!(namespace(Ok(false)).outcome, Outcome::Fail);
        assert_eq!(namespace(Err(io::ErrorKind::PermissionDenied.into())).outcome, Outcome::Warn);
        assert_eq!(device(Err(io::ErrorKind::NotFound.into())).outcome, Outcome::Fail);
    }
}
