//! What scorpiod keeps of root's powers, and why.

use caps::{CapSet, Capability, CapsHashSet};

/// The capabilities scorpiod and the short-lived processes it starts work with. overlayfs keeps those of the process that
/// mounts for the life of the mount: what is missing here is missing in every later copy-up.
pub const NEEDED: [Capability; 10] = [
    Capability::CAP_SYS_ADMIN,       // mounts, idmapped clones, trusted.* attributes
    Capability::CAP_DAC_READ_SEARCH, // repositories and mount points below private directories
    Capability::CAP_DAC_OVERRIDE,    // copy-up into directories that belong to users
    Capability::CAP_CHOWN,           // uppers belong to users
    Capability::CAP_FOWNER,          // copy-up sets modes and times of users' files
    Capability::CAP_FSETID,          // setgid bits survive a copy-up
    Capability::CAP_SETUID,          // to act as a user in the user's directories
    Capability::CAP_SETGID,
    Capability::CAP_MKNOD,   // whiteouts are character devices
    Capability::CAP_SETFCAP, // an upper shown with other ids has the host's user 0 in its table (user_namespaces(7))
];

/// Why the capabilities could not be cut.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// Not started as root, or in a container that keeps one back.
    #[error(
        "scorpiod needs {missing}, which this process does not have; start it as root, outside of a container"
    )]
    Missing {
        /// Which one.
        missing: Capability,
    },
    /// The kernel refused.
    #[error("cannot give up capabilities: {0}")]
    Refused(#[from] caps::errors::CapsError),
}

/// Cuts all capability sets of this thread, and so of all that it starts, to [`NEEDED`].
///
/// Called once, before any other thread exists.
pub fn cut() -> Result<(), PrivilegeError> {
    let needed: CapsHashSet = NEEDED.into_iter().collect();
    let permitted = caps::read(None, CapSet::Permitted)?;
    if let Some(missing) = NEEDED.into_iter().find(|capability| !permitted.contains(capability)) {
        return Err(PrivilegeError::Missing { missing });
    }
    cut_bounding(&needed)?;
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &needed)?;
    caps::set(None, CapSet::Permitted, &needed)?;
    Ok(())
}

/// The bounding set decides what a root process gets back on exec. Only a process with CAP_SETPCAP may cut it; a service
/// manager that took that one away has cut the set itself.
fn cut_bounding(needed: &CapsHashSet) -> Result<(), PrivilegeError> {
    if !caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        return Ok(());
    }
    for capability in caps::read(None, CapSet::Bounding)? {
        if !needed.contains(&capability) {
            caps::drop(None, CapSet::Bounding, capability)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_needed_is_given_up() {
        // Capabilities belong to a thread, so this one is used up and the others keep theirs.
        let sets = std::thread::spawn(|| {
            cut().unwrap();
            [CapSet::Effective, CapSet::Permitted, CapSet::Bounding, CapSet::Inheritable, CapSet::Ambient]
                .map(|set| caps::read(None, set).unwrap())
        })
        .join()
        .unwrap();
        let needed: CapsHashSet = NEEDED.into_iter().collect();
        assert_eq!(sets, [needed.clone(), needed.clone(), needed, CapsHashSet::new(), CapsHashSet::new()]);
    }

    #[test]
    fn the_unit_leaves_what_is_needed() {
        let unit = include_str!("../../systemd/scorpio.service");
        let line = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
        let left: CapsHashSet = line.split_whitespace().map(|name| name.parse().unwrap()).collect();
        assert_eq!(left, NEEDED.into_iter().collect());
    }
}
