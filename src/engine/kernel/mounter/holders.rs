//! Who keeps a mount busy: processes with a directory, root, executable, open file or mapping below it.
//!
//! Reads links and tables in proc and compares paths; never opens anything on the mount itself, which may be dead. What
//! it says is for people: a process may be missing from it.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::MetadataExt,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::protocol::HolderReply;
use crate::sys::identity::Identity;

/// More names than these help nobody, and an answer must be bounded.
const MAX_HOLDERS: usize = 32;
/// A host with a million open files is not worth more time than this.
const MAX_TIME: Duration = Duration::from_secs(2);
/// Of a mapping table (a few kilobytes for most, a megabyte for the largest).
const MAX_MAPS: u64 = 4 << 20;

/// Processes that use what is mounted at `path`.
pub(super) fn of(path: &Path) -> Vec<HolderReply> {
    let end = Instant::now() + MAX_TIME;
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let holding = |pid: &u32| Instant::now() < end && holds(*pid, path);
    pids.filter(|pid| *pid != std::process::id())
        .filter(holding)
        .take(MAX_HOLDERS)
        .map(|pid| HolderReply { pid, name: name_of(pid) })
        .collect()
}

/// Looks with the rights of the process's own user: with those of root it would take CAP_SYS_PTRACE, which the service
/// does not have.
fn holds(pid: u32, mount: &Path) -> bool {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let Ok(owned) = fs::metadata(&process) else { return false };
    let user = Identity { uid: owned.uid(), gid: owned.gid(), groups: Vec::new() };
    if user.is_root() {
        return uses(&process, mount);
    }
    user.act().is_ok_and(|_acting| uses(&process, mount))
}

fn uses(process: &Path, mount: &Path) -> bool {
    ["cwd", "root", "exe"].iter().any(|link| leads_below(&process.join(link), mount))
        || has_open(process, mount)
        || has_mapped(process, mount)
}

fn leads_below(link: &Path, mount: &Path) -> bool {
    fs::read_link(link).is_ok_and(|target| target.starts_with(mount))
}

fn has_open(process: &Path, mount: &Path) -> bool {
    let Ok(files) = fs::read_dir(process.join("fd")) else { return false };
    files.flatten().any(|file| leads_below(&file.path(), mount))
}

/// Reading the table takes the process's memory lock, which one that waits in a page fault may hold: those in an
/// uninterruptible wait are passed over.
fn has_mapped(process: &Path, mount: &Path) -> bool {
    if state_of(process) == Some(b'D') {
        return false;
    }
    let Ok(maps) = fs::File::open(process.join("maps")) else { return false };
    let lines = BufReader::new(maps.take(MAX_MAPS)).split(b'\n');
    lines.map_while(Result::ok).any(|line| mapped_path(&line).is_some_and(|path| path.starts_with(mount)))
}

/// The path in a line of `maps`: from the first slash on, newlines as `\012`.
fn mapped_path(line: &[u8]) -> Option<PathBuf> {
    let start = line.iter().position(|byte| *byte == b'/')?;
    Some(std::ffi::OsString::from_vec(line[start..].to_vec()).into())
}

/// The state letter of `stat`, behind the name in brackets (which may itself hold brackets).
fn state_of(process: &Path) -> Option<u8> {
    let stat = fs::read(process.join("stat")).ok()?;
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(end + 2).copied()
}

/// The process's own name for itself: hostile, so made printable.
fn name_of(pid: u32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name = std::ffi::OsStr::from_bytes(&name).to_string_lossy();
    name.trim_end_matches('\n').escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_shell_that_stands_in_the_directory_is_a_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let mut child = Command::new("cat").current_dir(&path).stdin(Stdio::piped()).spawn().unwrap();
        let found = of(&path);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(found, [HolderReply { pid: child.id(), name: "cat".to_owned() }]);
        assert_eq!(of(&path), []);
    }

    #[test]
    fn a_neighbour_with_a_longer_name_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let longer = dir.path().join("ws2");
        fs::create_dir(&longer).unwrap();
        let file = fs::File::create(longer.join("open")).unwrap();
        assert!(!has_open(Path::new("/proc/self"), &dir.path().join("ws")));
        assert!(has_open(Path::new("/proc/self"), &longer));
        drop(file);
    }

    #[test]
    fn the_path_of_a_mapping_is_what_follows_the_first_slash() {
        let line = b"7f00-7f01 r-xp 00000000 00:2a 9                          /ws/a b";
        assert_eq!(mapped_path(line).unwrap(), Path::new("/ws/a b"));
        assert!(mapped_path(b"7f00-7f01 rw-p 00000000 00:00 0     [heap]").is_none());
    }
}
