//! `scorpioctl completions`: scripts that teach a shell our verbs.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Arguments, Session, exit::Exit, failure::Failure, screen::output_failure};

const EXAMPLES: &str = "\
Examples:
  scorpioctl completions bash > ~/.local/share/bash-completion/completions/scorpioctl
  scorpioctl completions zsh > \"${fpath[1]}/_scorpioctl\"
  scorpioctl completions fish > ~/.config/fish/completions/scorpioctl.fish";

/// Print a script that completes verbs and options in a shell.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Completions {
    /// Which shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

impl Completions {
    /// Runs the verb.
    pub(crate) fn run(&self, _session: &Session) -> Result<Exit, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "scorpioctl", &mut script);
        std::io::Write::write_all(&mut std::io::stdout().lock(), &script).map_err(output_failure)?;
        Ok(Exit::Ok)
    }
}
