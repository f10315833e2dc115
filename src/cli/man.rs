//! `scorpioctl gen-man`: the manual pages, for packages.

use std::{fs, path::PathBuf};

use clap::{Args, CommandFactory as _};

use super::{
    Arguments, Session,
    exit::{Exit, MEANINGS},
    failure::{Failure, io_failure},
};

/// Write the manual pages of scorpioctl and its verbs into a directory.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Where to; made if it is missing
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

impl Man {
    /// Runs the verb.
    pub(crate) fn run(&self, session: &Session) -> Result<Exit, Failure> {
        fs::create_dir_all(&self.dir).map_err(io_failure("make", &self.dir))?;
        let mut command = Arguments::command();
        command.build();
        let mut pages = Vec::new();
        collect(&command, &mut pages);
        for page in pages {
            let path = self.dir.join(page.get_filename());
            let mut text = Vec::new();
            page.render(&mut text).map_err(io_failure("write", &path))?;
            fs::write(&path, text).map_err(io_failure("write", &path))?;
            session.screen.detail(&format!("wrote {}", path.display()));
        }
        Ok(Exit::Ok)
    }
}

fn collect(command: &clap::Command, pages: &mut Vec<clap_mangen::Man>) {
    pages.push(clap_mangen::Man::new(command.clone()).manual("Scorpio"));
    let shown = |verb: &&clap::Command| !verb.is_hide_set() && verb.get_name() != "help";
    command.get_subcommands().filter(shown).for_each(|verb| collect(verb, pages));
}

/// The exit codes, as they stand at the end of the help text.
pub(crate) fn exit_codes() -> String {
    let line = |(exit, meaning): &(Exit, &str)| format!("  {:<4} {meaning}", exit.code());
    let lines: Vec<_> = MEANINGS.iter().map(line).collect();
    format!("Exit status:\n{}", lines.join("\n"))
}
