//! Running mounters: one process per request, bounded in number and time, killed and reaped when it takes too long or
//! nobody waits for it any more.
//!
//! A mounter that waits for a hung file system of its user cannot even be killed. It is left to a thread that reaps it
//! some day, and keeps its place among its user's: so a user can hang a few processes, not the service.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::File,
    io::{self, Read, Seek, Write},
    os::{fd::AsFd, unix::process::CommandExt},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::MemfdFlags,
    process::{Pid, PidfdFlags, pidfd_open},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    handoff::Abandoned,
    mounter::protocol::{self, Reply, Request, Verb},
};

/// Mounters at once, of all users: each is a process of a few megabytes for a few milliseconds. After a boot, a
/// thousand workspaces pass through here.
const AT_ONCE: usize = 32;
/// Of them, one user's: the others go on when this user's file systems hang.
const AT_ONCE_PER_USER: usize = 4;
/// How long a killed process is waited for before it is left to a thread.
const DYING: Duration = Duration::from_secs(2);

/// How a mounter is started: a program whose `main` ends in [`super::mounter::main`].
#[derive(Clone, Debug)]
pub struct Launcher {
    /// An executable, usually our own.
    pub program: PathBuf,
    /// What makes it a mounter.
    pub args: Vec<OsString>,
}

/// Why a mounter gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaunchError {
    #[error("cannot start the mounter {}: {source}", program.display())]
    Start { program: PathBuf, source: io::Error },
    #[error("the mounter took longer than {after:?}")]
    TimedOut { after: Duration },
    #[error("nobody waits for the mounter any more")]
    Abandoned,
    #[error("the mounter ended without an answer ({status})")]
    Died { status: ExitStatus },
    #[error("the mounter's answer makes no sense: {source}")]
    Garbled { source: serde_json::Error },
}

/// Starts mounters. Shared by all operations.
pub(super) struct Launches {
    launcher: Launcher,
    timeout: Duration,
    runtime: tokio::runtime::Handle,
    places: Arc<Semaphore>,
    places_of_users: Mutex<HashMap<u32, Arc<Semaphore>>>,
}

/// What a running mounter holds: a place among all, and one among its user's.
struct Places {
    _of_all: OwnedSemaphorePermit,
    of_user: Option<OwnedSemaphorePermit>,
}

impl Launches {
    pub(super) fn new(launcher: Launcher, timeout: Duration, runtime: tokio::runtime::Handle) -> Launches {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        Launches { launcher, timeout, runtime, places, places_of_users: Mutex::default() }
    }

    /// Has `verb` carried out, on behalf of `user` if it walks a user's paths.
    pub(super) async fn run(
        &self,
        verb: Verb,
        user: Option<u32>,
        abandoned: Option<Abandoned>,
    ) -> Result<Reply, LaunchError> {
        let timed_out = LaunchError::TimedOut { after: self.timeout };
        let Ok(places) = tokio::time::timeout(self.timeout, self.take_places(user)).await else {
            return Err(timed_out);
        };
        let (launcher, timeout) = (self.launcher.clone(), self.timeout);
        let work = move || run_blocking(&launcher, verb, timeout, abandoned.as_ref(), places);
        match self.runtime.spawn_blocking(work).await {
            Ok(result) => result,
            Err(stopped) => {
                let source = io::Error::other(stopped);
                Err(LaunchError::Start { program: self.launcher.program.clone(), source })
            }
        }
    }

    /// The same for a caller that may block, before any operation runs.
    pub(super) fn run_now(&self, verb: Verb) -> Result<Reply, LaunchError> {
        let of_all = Arc::clone(&self.places).try_acquire_owned().expect("no operation runs yet");
        let places = Places { _of_all: of_all, of_user: None };
        run_blocking(&self.launcher, verb, self.timeout, None, places)
    }

    async fn take_places(&self, user: Option<u32>) -> Places {
        const NEVER_CLOSED: &str = "these semaphores are never closed";
        // The user's first: who waits for that one must not hold a place that others could use.
        let of_user = match user {
            Some(uid) => Some(self.places_of(uid).acquire_owned().await.expect(NEVER_CLOSED)),
            None => None,
        };
        Places { _of_all: Arc::clone(&self.places).acquire_owned().await.expect(NEVER_CLOSED), of_user }
    }

    fn places_of(&self, uid: u32) -> Arc<Semaphore> {
        let mut users = self.places_of_users.lock().unwrap_or_else(PoisonError::into_inner);
        users.retain(|_, places| {
            Arc::strong_count(places) > 1 || places.available_permits() < AT_ONCE_PER_USER
        });
        Arc::clone(users.entry(uid).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE_PER_USER))))
    }
}

/// Starts, waits, reads the answer. The thread that calls this outlives the mounter, which the kernel kills when the
/// thread that started it ends.
fn run_blocking(
    launcher: &Launcher,
    verb: Verb,
    timeout: Duration,
    abandoned: Option<&Abandoned>,
    places: Places,
) -> Result<Reply, LaunchError> {
    let started = |source| LaunchError::Start { program: launcher.program.clone(), source };
    let (mut child, mut answer) = start(launcher, verb).map_err(started)?;
    let outcome = wait(&child, timeout, abandoned).map_err(started);
    if !matches!(outcome, Ok(Ended::ByItself)) {
        end(child, places);
        return Err(match outcome {
            Ok(Ended::Abandoned) => LaunchError::Abandoned,
            Ok(Ended::TimedOut | Ended::ByItself) => LaunchError::TimedOut { after: timeout },
            Err(error) => error,
        });
    }
    let status = child.wait().map_err(started)?;
    if !status.success() {
        return Err(LaunchError::Died { status });
    }
    read_answer(&mut answer).map_err(|source| LaunchError::Garbled { source })
}

/// Request and answer are files in memory: nobody can block on them, and neither end can be made to wait.
fn start(launcher: &Launcher, verb: Verb) -> io::Result<(Child, File)> {
    let request = Request { parent: std::process::id(), verb };
    let mut input = memory_file()?;
    input.write_all(&serde_json::to_vec(&request)?)?;
    input.rewind()?;
    let answer = memory_file()?;
    let child = Command::new(&launcher.program)
        .args(&launcher.args)
        .env_clear()
        .current_dir("/")
        .process_group(0) // an interrupt from a terminal is for the daemon, which ends its mounters itself
        .stdin(input)
        .stdout(answer.try_clone()?)
        .stderr(Stdio::inherit())
        .spawn()?;
    Ok((child, answer))
}

fn memory_file() -> io::Result<File> {
    Ok(rustix::fs::memfd_create("scorpio-mounter", MemfdFlags::CLOEXEC)?.into())
}

fn read_answer(answer: &mut File) -> Result<Reply, serde_json::Error> {
    let mut bytes = Vec::new();
    let read = answer.rewind().and_then(|()| answer.take(protocol::MAX_MESSAGE).read_to_end(&mut bytes));
    read.map_err(serde_json::Error::io)?;
    serde_json::from_slice(&bytes)
}

enum Ended {
    ByItself,
    TimedOut,
    Abandoned,
}

fn wait(child: &Child, timeout: Duration, abandoned: Option<&Abandoned>) -> io::Result<Ended> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let end = Instant::now() + timeout;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut fds = vec![PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        fds.extend(abandoned.map(|abandoned| PollFd::from_borrowed_fd(abandoned.as_fd(), PollFlags::IN)));
        match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
            Ok(0) => return Ok(Ended::TimedOut),
            Ok(_) if !fds[0].revents().is_empty() => return Ok(Ended::ByItself),
            Ok(_) => return Ok(Ended::Abandoned),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Kills and reaps. One that does not die is left to a thread, with its place among its user's.
fn end(mut child: Child, places: Places) {
    if let Err(error) = child.kill() {
        tracing::warn!(pid = child.id(), %error, "cannot kill a mounter");
    }
    if matches!(wait(&child, DYING, None), Ok(Ended::ByItself)) {
        reap(&mut child);
        return;
    }
    let pid = child.id();
    tracing::warn!(pid, "a mounter does not die: it waits for a file system that does not answer");
    let of_user = places.of_user;
    let reaper = std::thread::Builder::new().name(format!("reap-{pid}")).spawn(move || {
        reap(&mut child);
        drop(of_user);
    });
    if let Err(error) = reaper {
        tracing::warn!(pid, %error, "cannot start a thread that waits for a mounter; it stays a zombie");
    }
}

fn reap(child: &mut Child) {
    if let Err(error) = child.wait() {
        tracing::warn!(pid = child.id(), %error, "cannot reap a mounter");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A shell script in the place of the mounter.
    fn script(body: &str) -> (tempfile::TempDir, Launcher) {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("mounter");
        std::fs::write(&program, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        (dir, Launcher { program, args: Vec::new() })
    }

    fn launches(launcher: Launcher, timeout: Duration) -> Launches {
        Launches::new(launcher, timeout, tokio::runtime::Handle::current())
    }

    fn probe() -> Verb {
        Verb::Probe { session: "/".into() }
    }

    async fn outcome(body: &str, timeout: Duration) -> Result<Reply, LaunchError> {
        let (_dir, launcher) = script(body);
        launches(launcher, timeout).run(probe(), Some(61001), None).await
    }

    #[tokio::test]
    async fn every_way_to_give_no_answer_has_its_error() {
        let minute = Duration::from_secs(60);
        assert!(matches!(outcome(r#"echo '"Done"'"#, minute).await, Ok(Reply::Done)));
        assert!(matches!(outcome("exit 3", minute).await, Err(LaunchError::Died { .. })));
        assert!(matches!(outcome("kill -9 $$", minute).await, Err(LaunchError::Died { .. })));
        assert!(matches!(outcome("echo nonsense", minute).await, Err(LaunchError::Garbled { .. })));
        assert!(matches!(outcome("", minute).await, Err(LaunchError::Garbled { .. })));
        let slow = outcome("exec sleep 1000", Duration::from_millis(300)).await;
        assert!(matches!(slow, Err(LaunchError::TimedOut { .. })));
        let absent = Launcher { program: "/nonexistent".into(), args: Vec::new() };
        let absent = launches(absent, minute).run(probe(), None, None).await;
        assert!(matches!(absent, Err(LaunchError::Start { .. })));
    }

    #[tokio::test]
    async fn a_user_with_hung_mounters_leaves_room_for_others() {
        let (_dir, launcher) = script(r#"echo '"Done"'"#);
        let launches = launches(launcher, Duration::from_millis(300));
        let _hung: Vec<_> =
            (0..AT_ONCE_PER_USER).map(|_| launches.places_of(61001).try_acquire_owned().unwrap()).collect();
        assert!(matches!(launches.run(probe(), Some(61001), None).await, Err(LaunchError::TimedOut { .. })));
        assert!(matches!(launches.run(probe(), Some(61002), None).await, Ok(Reply::Done)));
    }

    #[tokio::test]
    async fn a_mounter_nobody_waits_for_is_killed() {
        let (_dir, launcher) = script("exec sleep 1000");
        let launches = launches(launcher, Duration::from_secs(60));
        let (caller, operation) = super::super::handoff::handoff::<()>().unwrap();
        drop(caller);
        let outcome = launches.run(probe(), None, Some(operation.abandoned)).await;
        assert!(matches!(outcome, Err(LaunchError::Abandoned)));
    }
}
