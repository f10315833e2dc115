//! Being killed or stopped at a named step: how tests show that a mounter which dies half-way leaves nothing.

use std::{ffi::OsString, io};

use rustix::process::{Signal, getpid, kill_process};

/// What has just been done on the way to a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The mount point is open and checked.
    Opened,
    /// The lower is cloned and mapped, attached nowhere.
    Cloned,
    /// The lower is attached in the layers directory.
    Attached,
    /// The overlay exists, attached nowhere.
    Created,
    /// The lower is detached again.
    Detached,
    /// The overlay is in place; only the answer is missing.
    Placed,
}

/// What to do after which step. By default: nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hooks {
    fatal: Option<(Step, Signal)>,
    lower_by_string: bool,
}

impl Step {
    /// All steps in order, with their names on the command line.
    pub(crate) const ALL: [(&'static str, Step); 6] = [
        ("opened", Step::Opened),
        ("cloned", Step::Cloned),
        ("attached", Step::Attached),
        ("created", Step::Created),
        ("detached", Step::Detached),
        ("placed", Step::Placed),
    ];
}

impl Hooks {
    /// Reads `--kill-after STEP`, `--stop-after STEP` and `--lower-by-string`; anything else is an error.
    pub(super) fn from_args(mut args: impl Iterator<Item = OsString>) -> io::Result<Hooks> {
        let mut hooks = Hooks::default();
        while let Some(arg) = args.next() {
            let signal = match arg.to_str() {
                Some("--kill-after") => Signal::KILL,
                Some("--stop-after") => Signal::STOP,
                Some("--lower-by-string") => {
                    hooks.lower_by_string = true;
                    continue;
                }
                _ => return Err(unknown(&arg)),
            };
            let name = args.next().unwrap_or_default();
            let step = Step::ALL.iter().find(|(known, _)| name == *known).ok_or_else(|| unknown(&name))?;
            hooks.fatal = Some((step.1, signal));
        }
        Ok(hooks)
    }

    /// Says that `step` is done.
    pub(super) fn reached(self, step: Step) {
        if let Some((at, signal)) = self.fatal
            && at == step
        {
            // Failing to send it shows in the test that asked for it.
            let _ = kill_process(getpid(), signal);
        }
    }

    /// Whether layers are to be named as kernels before 6.8 want it.
    pub(super) fn lower_by_string(self) -> bool {
        self.lower_by_string
    }
}

fn unknown(arg: &OsString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("unknown argument {}", arg.display()))
}
