//! The first change of a file of the lower, followed along its chain: getattr → create → copy → write. Which requests reach
//! the daemon, what appears in the upper, and what is left when it is cut off half-way. Needs root.
//!
//! `tests/trace_copy_up.sh` shows the same chain to a person.

#![allow(clippy::unwrap_used)] // a test that fails panics

#[path = "../support/mod.rs"]
mod support;

mod chain;
mod interrupted;
mod together;

use std::{
    path::PathBuf,
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use support::{Host, lower};

/// One of the two lowers; and a build without optimisation takes its time to check a large blob on a busy machine.
fn configuration(kind: &str) -> String {
    lower(kind) + "[fetch]\ndeadline = \"30m\"\n"
}

/// Tests that drop the kernel's caches share it; the one that counts what the caches save has it alone.
static CACHES: RwLock<()> = RwLock::new(());

fn shared() -> RwLockReadGuard<'static, ()> {
    CACHES.read().unwrap_or_else(PoisonError::into_inner)
}

/// Where a workspace's changes lie.
fn upper(host: &Host, workspace: &str) -> PathBuf {
    host.path("state/workspaces").join(workspace).join("upper")
}

/// All that an upper holds: kind, mode, owner, size, whether it has blocks of its own, path; then overlayfs's marks.
fn inventory(host: &Host, workspace: &str) -> String {
    host.sh(&format!(
        "cd '{}' && find . -mindepth 1 -printf '%y %m %U %s %b %P\\n' | awk '{{ $5 = $5 > 0 ? \"stored\" : \"-\"; print }}' | LC_ALL=C sort -k6
         getfattr -R -h -d -m '^trusted[.]' . 2>/dev/null | awk '/^# file/ {{ f = $3 }} /^trusted/ && f != \".\" {{ print f, $0 }}' | LC_ALL=C sort",
        upper(host, workspace).display()
    ))
}
