//! A workspace and a plain directory with the same files, and a process in each that does as it is told.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use serde_json::{Value, json};

use super::{
    known,
    support::{ALICE, Host, become_user},
};

/// Each pair has a number of its own.
static PAIRS: AtomicU64 = AtomicU64::new(0);

pub(crate) struct Sides<'a> {
    host: &'a Host,
    workspace: String,
    point: PathBuf,
    plain: PathBuf,
    actors: Option<[Actor; 2]>,
}

impl<'a> Sides<'a> {
    pub(crate) fn new(host: &'a Host) -> Sides<'a> {
        let name = format!("w{}", PAIRS.fetch_add(1, Relaxed));
        let (point, workspace) = host.mount(ALICE, &name, &[]);
        let plain = host.path("plain").join(&name);
        let at = plain.display();
        host.sh(&format!("mkdir -m 700 {at} && git -C repo archive HEAD | tar -x -C {at} && chown -R {ALICE}:{ALICE} {at} && chmod -R go-w {at}"));
        let mut sides = Sides { host, workspace, point, plain, actors: None };
        sides.enter();
        sides
    }

    pub(crate) fn mount_point(&self) -> &Path {
        &self.point
    }

    fn enter(&mut self) {
        self.actors = Some([Actor::new(&self.plain), Actor::new(&self.point)]);
    }

    /// Both do the operations; the plain directory's answer and the workspace's, for each.
    pub(crate) fn both(&mut self, operations: &[Value]) -> Vec<(Value, Value)> {
        let [plain, mount] = self.actors.as_mut().unwrap();
        let lines: String = operations.iter().map(|operation| format!("{operation}\n")).collect();
        plain.tell(&lines);
        mount.tell(&lines);
        operations.iter().map(|_| (plain.answer(), mount.answer())).collect()
    }

    /// Compares everything: the first path that differs, and what it is on both sides.
    pub(crate) fn trees(&mut self) -> Option<(Value, Value, Value)> {
        let (plain, mount) = self.both(&[json!(["tree"])]).remove(0);
        let (before, after) = (plain.as_object().unwrap(), mount.as_object().unwrap());
        let mut paths: Vec<_> = before.keys().chain(after.keys()).collect();
        paths.dedup();
        let of =
            |side: &serde_json::Map<String, Value>, path: &str| side.get(path).cloned().unwrap_or_default();
        let differing = paths.into_iter().filter(|path| before.get(*path) != after.get(*path));
        let mut told = differing.map(|path| (json!(["tree", path]), of(before, path), of(after, path)));
        told.find(|(asked, plain, mount)| !known::is_known(asked, plain, mount))
    }

    /// Unmounts the workspace and mounts it again, when the processes have left it.
    pub(crate) fn remount(&mut self) {
        self.actors = None;
        self.host.json(ALICE, &["unmount", self.point.to_str().unwrap()]);
        self.host.json(ALICE, &["mount", "--workspace", &self.workspace]);
        self.enter();
    }
}

impl Drop for Sides<'_> {
    fn drop(&mut self) {
        self.actors = None;
        if !std::thread::panicking() {
            self.host.json(ALICE, &["remove", &self.workspace, "--discard", "--yes"]);
            std::fs::remove_dir_all(&self.plain).unwrap();
        }
    }
}

/// A process in one of the directories.
struct Actor {
    child: Child,
    told: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Actor {
    fn new(at: &Path) -> Actor {
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "600", "python3", "-c", include_str!("act.py")]).arg(at);
        command.env_clear().env("PATH", "/usr/bin:/bin").current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = become_user(&mut command, ALICE).spawn().unwrap();
        let (told, answers) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Actor { child, told, answers }
    }

    fn tell(&mut self, lines: &str) {
        self.told.as_mut().unwrap().write_all(lines.as_bytes()).unwrap();
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.told = None; // it ends at the end of what it is told
        let _ = self.child.wait();
    }
}

/// Has the kernel forget names and inodes that nobody holds.
pub(crate) fn drop_names() {
    std::fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
}
