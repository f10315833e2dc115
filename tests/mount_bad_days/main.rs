//! Bad days: the daemon ends, well or badly; disks are full; mounts are in use or their places gone. Needs root.

#![allow(clippy::unwrap_used)] // a test that fails panics

#[path = "../support/mod.rs"]
mod support;

mod endings;
mod full_disks;
mod kills;

use support::Host;

/// What stands where, of all workspaces, ordered by id: id, state, mount point.
fn workspaces(host: &Host) -> Vec<(String, String, String)> {
    let listed = host.json(0, &["list", "--all"]);
    let text = |view: &serde_json::Value, name: &str| view[name].as_str().unwrap().to_owned();
    let views = listed.as_array().unwrap().iter();
    views.map(|view| (text(view, "id"), text(view, "state"), text(view, "mount_point"))).collect()
}

/// That mounts, records and uppers are those of the listed workspaces, and nothing else is there.
#[track_caller]
fn assert_nothing_half_made(host: &Host, upper_root: &str) {
    let listed = workspaces(host);
    let mut mounted: Vec<_> = listed
        .iter()
        .filter(|(_, state, _)| state == "mounted")
        .map(|(_, _, point)| std::path::PathBuf::from(point))
        .collect();
    let mut mounts = host.mounts();
    mounted.sort();
    mounts.sort();
    assert_eq!(mounts, mounted, "mounts are those of the mounted workspaces");
    assert_eq!(host.json(0, &["orphans", "list"]), serde_json::json!([]));
    let ids: Vec<_> = listed.into_iter().map(|(id, ..)| id).collect();
    for root in ["state/workspaces", upper_root] {
        let entries = std::fs::read_dir(host.path(root)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        // What is in the trash goes by itself; a file system's own directory is not ours.
        names.retain(|name| !name.starts_with(".trash-") && name != "lost+found");
        names.sort();
        assert_eq!(names, ids, "{root}");
    }
    assert_eq!(std::fs::read_dir(host.path("run/layers")).unwrap().count(), 0);
}
