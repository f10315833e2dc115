//! One suite for every way to have a writable tree: plain ext4, the kernel's overlayfs on ext4, and Scorpio's mounts on
//! both of their lowers. `docs/ENGINE-SUITE.md` holds what each of them did; a run that differs from it fails.
//!
//! Needs root. `SCORPIO_BLESS=1` writes the page anew; `SCORPIO_LONG=1` takes the long sizes, whose results are the same.
//! One file per family of cases; a case is a promise, and its result a few words.

#![allow(clippy::unwrap_used, unreachable_pub)] // a test that fails panics; each module is the suite's own

#[path = "../support/mod.rs"]
mod support;

mod place;
mod table;

mod builds;
mod databases;
mod descriptors;
mod files;
mod git;
mod large;
mod metadata;
mod names;
mod posix;
mod races;
mod renames;
mod unlike;

use place::Place;

/// What a case found: a few words for the table, `ok` where there is nothing to tell; or why it failed.
type Outcome = Result<String, String>;

/// A promise, and what shows it in one place.
struct Case {
    name: &'static str,
    run: fn(&Place) -> Outcome,
}

/// Cases on one tree; they run in their order in each place.
struct Family {
    /// The heading in the page.
    title: &'static str,
    /// Makes the lower tree, in an empty git repository.
    tree: String,
    /// Who works at the same time, each in a workspace of their own, where the place has workspaces.
    users: &'static [u32],
    /// Whether the daemon's sessions are kept for it when it is killed.
    kept: bool,
    cases: &'static [Case],
}

/// A table of cases, each named as its function.
macro_rules! cases {
    ($($name:ident),+ $(,)?) => { &[$(crate::Case { name: stringify!($name), run: $name }),+] };
}
pub(crate) use cases;

/// Whether the long sizes are asked for.
fn long() -> bool {
    std::env::var_os("SCORPIO_LONG").is_some_and(|value| value != "0")
}

const OK: &str = "ok";
/// A case that does not concern a place.
const NOT_HERE: &str = "–";
