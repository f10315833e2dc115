//! What the tree never does: answered as the table of our own device layer says.

use ::rfuse3::Result;

use crate::fusedev;

/// The answer to the request called `name`, which is always refused.
pub(super) fn refused<T>(name: &str) -> Result<T> {
    // A name that is not in the table is a mistake here, and EIO an answer that the kernel does not remember.
    Err(fusedev::refusal(name).unwrap_or(libc::EIO).into())
}

#[cfg(test)]
mod tests {
    /// The names as they stand in the sources, so that none can be misspelt.
    #[test]
    fn everything_that_is_refused_has_a_row_in_the_table() {
        let source = include_str!("../rfuse3.rs");
        let names: Vec<_> =
            source.split("refused(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(names.len(), 24);
        for name in names {
            assert!(crate::fusedev::refusal(name).is_some(), "{name}");
        }
    }
}
