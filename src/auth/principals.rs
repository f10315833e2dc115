//! Whether a list of principals admits somebody. Pure: names have been looked up before.
//!
//! Groups are those that the kernel attests for the caller, not those that the account would get at its next login.

use std::collections::BTreeMap;

use crate::{config::Principal, sys::identity::Identity};

/// Ids of the names in a list, as far as the host knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownNames {
    /// User names.
    pub users: BTreeMap<String, u32>,
    /// Group names.
    pub groups: BTreeMap<String, u32>,
}

/// Whether `list` admits `identity`. A name that nobody has admits nobody; text made of digits is an id.
pub fn admits(list: &[Principal], identity: &Identity, names: &KnownNames) -> bool {
    list.iter().any(|principal| match principal {
        Principal::Everybody => true,
        Principal::User(user) => id_of(user, &names.users) == Some(identity.uid),
        Principal::Group(group) => id_of(group, &names.groups)
            .is_some_and(|gid| gid == identity.gid || identity.groups.contains(&gid)),
    })
}

/// Whether a principal's text is an id rather than a name.
pub(crate) fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn id_of(text: &str, names: &BTreeMap<String, u32>) -> Option<u32> {
    if is_id(text) { text.parse().ok() } else { names.get(text).copied() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_admits_exactly_whom_it_names() {
        let user = |name: &str| Principal::User(name.to_owned());
        let group = |name: &str| Principal::Group(name.to_owned());
        let names = KnownNames {
            users: BTreeMap::from([("alice".to_owned(), 1000), ("root".to_owned(), 0)]),
            groups: BTreeMap::from([("devs".to_owned(), 500), ("staff".to_owned(), 50)]),
        };
        let alice = Identity { uid: 1000, gid: 1000, groups: vec![500] };
        for (list, admitted) in [
            (vec![], false),
            (vec![Principal::Everybody], true),
            (vec![user("alice")], true),
            (vec![user("1000")], true),
            (vec![user("bob")], false),
            (vec![user("500")], false),
            (vec![user("root")], false),
            (vec![group("devs")], true),
            (vec![group("500")], true),
            (vec![group("1000")], true),
            (vec![group("staff")], false),
            (vec![group("alice")], false),
            (vec![user("devs")], false),
            (vec![user("")], false),
            (vec![user("99999999999999")], false),
            (vec![user("bob"), group("nobody-has-it"), group("devs")], true),
        ] {
            assert_eq!(admits(&list, &alice, &names), admitted, "{list:?}");
        }
    }
}
