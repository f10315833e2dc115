//! How the kernel's overlayfs is known to differ from a plain directory, as `docs/SEMANTICS.md` says. The only place
//! where a difference is forgiven.

use serde_json::{Value, json};

/// A difference that is no fault.
struct Known {
    /// The operation.
    operation: &'static str,
    /// Why.
    #[allow(dead_code)] // for who reads the table
    because: &'static str,
    /// What it looks like.
    is_it: fn(plain: &Value, mount: &Value) -> bool,
}

const KNOWN: &[Known] = &[
    Known {
        operation: "tree",
        because: NO_ATTRIBUTES,
        is_it: |plain, mount| {
            let mut like_plain = mount.clone();
            match like_plain.get_mut(1) {
                Some(listed) if *listed == "ENOTSUP" => *listed = json!({}),
                _ => return false,
            }
            like_plain == *plain
        },
    },
    Known {
        operation: "xattrs",
        because: NO_ATTRIBUTES,
        is_it: |plain, mount| *plain == json!({}) && mount == "ENOTSUP",
    },
    Known {
        operation: "getxattr",
        because: NO_ATTRIBUTES,
        is_it: |plain, mount| plain == "ENODATA" && mount == "ENOTSUP",
    },
    Known {
        operation: "removexattr",
        because: NO_ATTRIBUTES,
        is_it: |plain, mount| plain == "ENODATA" && mount == "ENOTSUP",
    },
    Known {
        operation: "fstat",
        because: "a descriptor of a file of the repository that was removed unchanged still tells of one link",
        is_it: |plain, mount| {
            let mut like_plain = mount.clone();
            match like_plain.get_mut(4) {
                Some(links) if *links == 1 => *links = json!(0),
                _ => return false,
            }
            like_plain == *plain
        },
    },
];

const NO_ATTRIBUTES: &str =
    "a file of the repository has no attributes, and says so in these words until it is copied up";

/// Whether the answers differ as they may.
pub(crate) fn is_known(asked: &Value, plain: &Value, mount: &Value) -> bool {
    KNOWN.iter().any(|known| asked[0] == known.operation && (known.is_it)(plain, mount))
}
