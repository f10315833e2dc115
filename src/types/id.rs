//! Ids that are not object ids: origins, roots, nodes, workspaces.

use std::{fmt, str::FromStr, sync::Arc};

use super::oid::Oid;

/// The name of an origin: as in the configuration, 1 to 64 of `a-z 0-9 - _ .`, starting with a letter or digit; or that and
/// the user whose credentials it is read with. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OriginName(Arc<str>);

/// A mounted tree: name of its directory below a session's `/`, never used twice in a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootId {
    /// Running number within the node table.
    pub number: u32,
    /// The tree that is served.
    pub tree: Oid,
}

/// A FUSE node id, permanent and never reused within its node table; at most 48 bits wide so that overlayfs has room for
/// its own bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// The id of a workspace: 12 lower-case letters and digits, unguessable enough not to collide.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkspaceId(Box<str>);

/// A text that is no such id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {what}: {rule}")]
pub struct BadId {
    text: String,
    what: &'static str,
    rule: &'static str,
}

fn bad(text: &str, what: &'static str, rule: &'static str) -> BadId {
    BadId { text: text.escape_debug().take(80).collect(), what, rule }
}

impl OriginName {
    /// Longest name in the configuration, in bytes.
    pub const MAX: usize = 64;

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This origin as one user may read it: `mega+1000`. What comes by it is shared with nobody.
    pub fn of_user(&self, uid: u32) -> OriginName {
        OriginName(format!("{}+{uid}", self.configured()).into())
    }

    /// What `uid` has to read instead of this: their own view where it is that of a user, else this one.
    pub fn for_reader(&self, uid: u32) -> OriginName {
        if self.user().is_some() { self.of_user(uid) } else { self.clone() }
    }

    /// The name that the configuration has for it: without the user.
    pub fn configured(&self) -> OriginName {
        OriginName(self.0.split('+').next().unwrap_or_default().into())
    }

    /// Whose it is, if it is one user's.
    pub fn user(&self) -> Option<u32> {
        self.0.split_once('+')?.1.parse().ok()
    }
}

/// Takes what [`OriginName::of_user`] makes too: a configuration must refuse names with a `+`.
impl FromStr for OriginName {
    type Err = BadId;

    fn from_str(text: &str) -> Result<OriginName, BadId> {
        if let Some((name, uid)) = text.split_once('+')
            && let (Ok(name), Ok(uid)) = (name.parse::<OriginName>(), uid.parse::<u32>())
            && name.of_user(uid).as_str() == text
        {
            return Ok(name.of_user(uid));
        }
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let first = text.as_bytes().first().copied();
        let rest = |byte: u8| plain(byte) || matches!(byte, b'-' | b'_' | b'.');
        if text.len() <= OriginName::MAX && first.is_some_and(plain) && text.bytes().all(rest) {
            return Ok(OriginName(text.into()));
        }
        Err(bad(text, "origin name", "1 to 64 of a-z, 0-9, `-`, `_`, `.`, starting with a letter or digit"))
    }
}

impl fmt::Display for RootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.number, self.tree)
    }
}

impl FromStr for RootId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<RootId, BadId> {
        let parsed = text.split_once('-').and_then(|(number, tree)| {
            let id = RootId { number: number.parse().ok()?, tree: tree.parse().ok()? };
            (id.to_string() == text).then_some(id)
        });
        parsed.ok_or_else(|| bad(text, "root", "a number, a dash and a tree id"))
    }
}

impl NodeId {
    /// FUSE's root inode.
    pub const ROOT: NodeId = NodeId(1);
    /// The largest id that is ever given.
    pub const MAX: u64 = (1 << 48) - 1;
}

impl WorkspaceId {
    /// Characters in an id.
    pub const LEN: usize = 12;
    const ALPHABET: &'static [u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

    /// An id from random bytes; 60 bits of them are used.
    pub fn from_random(bytes: [u8; WorkspaceId::LEN]) -> WorkspaceId {
        let letter = |byte: u8| char::from(WorkspaceId::ALPHABET[usize::from(byte & 31)]);
        WorkspaceId(bytes.into_iter().map(letter).collect::<String>().into())
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for WorkspaceId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<WorkspaceId, BadId> {
        if text.len() == WorkspaceId::LEN && text.bytes().all(|byte| WorkspaceId::ALPHABET.contains(&byte)) {
            return Ok(WorkspaceId(text.into()));
        }
        Err(bad(text, "workspace id", "12 lower-case letters and digits, as `scorpioctl list` shows them"))
    }
}

macro_rules! shown_as_text {
    ($($id:ty),*) => {$(
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
shown_as_text!(OriginName, WorkspaceId);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for RootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_parsed_strictly() {
        for good in ["linux", "a.b-c_d", "0"] {
            assert_eq!(good.parse::<OriginName>().unwrap().as_str(), good);
        }
        for wrong in ["", "-a", ".hidden", "Upper", "a/b", "a b", &"x".repeat(65)] {
            assert!(wrong.parse::<OriginName>().is_err(), "{wrong}");
        }
        let mega: OriginName = "mega".parse().unwrap();
        let alices = mega.of_user(1000);
        assert_eq!(alices.as_str(), "mega+1000");
        assert_eq!((alices.user(), alices.configured()), (Some(1000), mega.clone()));
        assert_eq!(("mega+1000".parse(), mega.user()), (Ok(alices.clone()), None));
        assert_eq!(alices.of_user(7).as_str(), "mega+7");
        assert_eq!((alices.for_reader(7).as_str(), mega.for_reader(7).as_str()), ("mega+7", "mega"));
        for wrong in ["mega+", "mega+01", "mega+-1", "+1", "mega+1+2", "mega+4294967296", "mega+x"] {
            assert!(wrong.parse::<OriginName>().is_err(), "{wrong}");
        }
        let root = RootId { number: 7, tree: Oid::EMPTY_TREE };
        assert_eq!(root.to_string().parse::<RootId>().unwrap(), root);
        assert!(format!("07-{}", Oid::EMPTY_TREE).parse::<RootId>().is_err());
        let id = WorkspaceId::from_random([255; 12]);
        assert_eq!(id.as_str().parse::<WorkspaceId>().unwrap(), id);
        for wrong in ["", "../../../etc", "abcdefghijk", "ABCDEFGHIJKM"] {
            assert!(wrong.parse::<WorkspaceId>().is_err(), "{wrong}");
        }
    }
}
