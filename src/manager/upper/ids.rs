//! Stored ids → those that the workspace's owner sees, in metadata and access control lists. Pure.

use rustix::fs::Stat;

use crate::sys::idmap::Owners;

/// Version of the form in which lists are told to user space (`linux/posix_acl_xattr.h`).
const ACL_VERSION: [u8; 4] = 2_u32.to_le_bytes();
/// Bytes of an entry: tag u16, permissions u16, id u32, little-endian.
const ACL_ENTRY: usize = 8;
/// Tags of the entries that name somebody.
const ACL_USER: [u8; 2] = 2_u16.to_le_bytes();
const ACL_GROUP: [u8; 2] = 8_u16.to_le_bytes();

/// Metadata with the ids that are seen.
pub(super) fn seen(mut stat: Stat, owners: &Owners) -> Stat {
    stat.st_uid = owners.user(stat.st_uid);
    stat.st_gid = owners.group(stat.st_gid);
    stat
}

/// The value of the attribute `name` with the ids that are seen. What is no access control list, or none that we know,
/// stays as it is.
pub(super) fn seen_attribute(name: &[u8], mut value: Vec<u8>, owners: &Owners) -> Vec<u8> {
    let is_list = matches!(name, b"system.posix_acl_access" | b"system.posix_acl_default");
    let Some(entries) = value.strip_prefix(&ACL_VERSION).filter(|_| is_list) else { return value };
    if !entries.len().is_multiple_of(ACL_ENTRY) {
        return value;
    }
    for entry in value[ACL_VERSION.len()..].chunks_exact_mut(ACL_ENTRY) {
        let (tag, id) = ([entry[0], entry[1]], [entry[4], entry[5], entry[6], entry[7]]);
        let id = u32::from_le_bytes(id);
        let id = match tag {
            ACL_USER => owners.user(id),
            ACL_GROUP => owners.group(id),
            _ => continue,
        };
        entry[4..].copy_from_slice(&id.to_le_bytes());
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::idmap::Ids;

    fn owners() -> Owners {
        Owners::new(Ids { uid: 1000, gid: 100 }, Ids { uid: 2000, gid: 200 }).unwrap()
    }

    fn list(entries: &[(u16, u32)]) -> Vec<u8> {
        let entry = |(tag, id): &(u16, u32)| {
            [&tag.to_le_bytes()[..], &7_u16.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        [ACL_VERSION.to_vec(), entries.iter().flat_map(entry).collect()].concat()
    }

    #[test]
    fn an_access_list_names_whom_its_reader_knows() {
        // Owner, user, group of the owner, group, mask, others.
        let stored = list(&[(1, u32::MAX), (2, 1000), (4, u32::MAX), (8, 100), (16, u32::MAX), (32, 1000)]);
        let expected = list(&[(1, u32::MAX), (2, 2000), (4, u32::MAX), (8, 200), (16, u32::MAX), (32, 1000)]);
        for name in [&b"system.posix_acl_access"[..], b"system.posix_acl_default"] {
            assert_eq!(seen_attribute(name, stored.clone(), &owners()), expected);
        }
    }

    #[test]
    fn what_is_no_known_access_list_stays_as_it_is() {
        let stored = list(&[(2, 1000)]);
        let cut = stored[..stored.len() - 1].to_vec();
        let newer = [&[9][..], &stored[1..]].concat();
        for (name, value) in [
            (&b"user.acl"[..], stored),
            (b"system.posix_acl_access", cut),
            (b"system.posix_acl_access", newer),
            (b"system.posix_acl_access", Vec::new()),
        ] {
            assert_eq!(seen_attribute(name, value.clone(), &owners()), value);
        }
    }
}
