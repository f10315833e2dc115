//! The mounter: a short-lived process in which everything happens that walks a user's path or one of our own mounts.
//!
//! - [`protocol`]: what it is asked and answers
//! - [`point`]: the mount point, opened as the user and checked
//! - [`overlay`]: layers and overlay, attached nowhere until all is ready
//! - [`layer`]: a directory attached under a name of its own while the overlay is made
//! - [`upper`]: what was written, shown with the owner's ids whoever's it was when it was written
//! - [`unmount`]: ending a mount, or all of what a killed mounter left
//! - [`holders`]: who keeps a mount busy
//! - [`hooks`]: being killed at a named step, for tests
//!
//! Why a process: a thread of the daemon that waits for the daemon's own FUSE answer, or for a hung network file system,
//! cannot be taken back, and a daemon killed in that state never dies. This one is killed instead. It holds no FUSE
//! descriptor, so it never keeps a session alive.
//!
//! It keeps all capabilities it is started with: those it has while it mounts are what overlayfs copies up with for as
//! long as the mount lives.

pub(super) mod holders;
mod hooks;
mod layer;
pub(super) mod overlay;
pub(super) mod point;
pub(super) mod protocol;
pub(super) mod unmount;
pub(super) mod upper;

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    process::ExitCode,
};

use crate::sys::process;
use hooks::Hooks;
use protocol::{Failure, Reply, Request, Verb};

/// Runs one request from standard input and answers on standard output. `args` are what follows the verb on the
/// command line: nothing, but in tests.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mounter: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: impl Iterator<Item = OsString>) -> io::Result<()> {
    process::close_inherited()?;
    let hooks = Hooks::from_args(args)?;
    let request = read_request()?;
    end_with(request.parent)?;
    let reply = serde_json::to_vec(&run(&request.verb, hooks))?;
    io::stdout().write_all(&reply)
}

fn read_request() -> io::Result<Request> {
    let mut bytes = Vec::new();
    io::stdin().take(protocol::MAX_MESSAGE).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Has the kernel kill this process when the thread that started it ends, unless that has happened already.
fn end_with(parent: u32) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let now = rustix::process::getppid().map(rustix::process::Pid::as_raw_pid);
    if now.and_then(|pid| u32::try_from(pid).ok()) == Some(parent) {
        return Ok(());
    }
    Err(io::Error::other("the daemon that asked is gone"))
}

fn run(verb: &Verb, hooks: Hooks) -> Reply {
    let outcome = match verb {
        Verb::Mount(order) => overlay::mount(order, hooks),
        Verb::Unmount(order) => unmount::unmount(order),
        Verb::Abandon(order) => unmount::abandon(order),
        Verb::Sweep { layers } => unmount::sweep(layers),
        Verb::Probe { session } => overlay::probe(session),
        Verb::Show { dir, owners } => upper::can_show(dir, *owners),
        Verb::Held { upper, layers } => upper::is_held(upper, layers),
    };
    outcome.unwrap_or_else(|failure: Failure| failure.into())
}

#[cfg(test)]
mod tests;
