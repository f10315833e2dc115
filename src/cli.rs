//! `scorpioctl`: one file per verb. Data goes to standard output, all else to standard error.
//!
//! - what a verb is made of: `spec` (`ORIGIN:PATH@REV`), `place` (directories), `daemon` (the socket),
//!   `screen` and `text` (what people see), `failure` and `exit` (what they see when it fails)
//! - the verbs: `mount`, `list`, `info`, `du`, `unmount`, `remove`, `give`, `watch`, `origins`, `login`, `orphans`,
//!   `drain`, `export`, `stats`, `health`, `whoami`, `logs`, `log_level`, `doctor`, `completions`, `man`

mod completions;
mod daemon;
mod doctor;
mod drain;
mod du;
pub mod exit;
mod export;
pub mod failure;
mod give;
mod health;
mod info;
mod list;
mod log_level;
mod login;
mod logs;
mod man;
mod mount;
mod origins;
mod orphans;
mod place;
mod remove;
mod screen;
pub mod spec;
mod stats;
mod text;
mod unmount;
mod watch;
mod whoami;

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};
use serde_json::json;

use self::{
    daemon::Daemon,
    exit::Exit,
    failure::Failure,
    screen::{Color, Screen},
};

/// Where the daemon listens unless `--socket` or SCORPIO_SOCKET says otherwise.
const DEFAULT_SOCKET: &str = "/run/scorpio/scorpio.sock";

const EXAMPLES: &str = "\
Examples:
  scorpioctl origins                                what may be mounted
  scorpioctl mount linux:@v6.12 ~/linux             there it is: writable, yours, nothing copied
  scorpioctl list                                   what you have
  scorpioctl unmount ~/linux                        what you wrote is kept
  scorpioctl doctor                                 what is wrong, and what to do

With --json, data on standard output and errors on standard error are JSON; its members are those of the control socket.";

/// Mount repositories that are too large to clone: at once, writable, yours.
#[derive(Debug, Parser)]
#[command(name = "scorpioctl", version, max_term_width = 100, propagate_version = true,
          disable_help_subcommand = true, after_help = EXAMPLES, after_long_help = long_help())]
pub struct Arguments {
    #[command(flatten)]
    global: Global,

    #[command(subcommand)]
    verb: Verb,
}

fn long_help() -> String {
    format!("{EXAMPLES}\n\n{}", man::exit_codes())
}

#[derive(Debug, Args)]
struct Global {
    /// The daemon's control socket
    #[arg(long, global = true, env = "SCORPIO_SOCKET", value_name = "PATH", default_value = DEFAULT_SOCKET,
          value_hint = clap::ValueHint::FilePath)]
    socket: PathBuf,

    /// Data and errors as JSON
    #[arg(long, global = true)]
    json: bool,

    /// Say nothing but data and errors
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    quiet: bool,

    /// Say how the work goes
    #[arg(long, short, global = true)]
    verbose: bool,

    /// When to colour; NO_COLOR is honoured
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Mount(mount::Mount),
    List(list::List),
    Info(info::Info),
    Du(du::Du),
    #[command(visible_alias = "umount")]
    Unmount(unmount::Unmount),
    Remove(remove::Remove),
    Give(give::Give),
    Watch(watch::Watch),
    /// List the origins that you may mount
    #[command(after_help = "Examples:\n  scorpioctl origins")]
    Origins,
    Login(login::Login),
    Logout(login::Logout),
    Orphans(orphans::Orphans),
    Drain(drain::Drain),
    Export(export::Export),
    /// Show the daemon's counters
    #[command(
        after_help = "Examples:\n  scorpioctl stats\n  scorpioctl stats --json | jq .sessions.shared.requests"
    )]
    Stats,
    /// Show how the daemon says it is; ends with 1 when something is wrong
    #[command(
        after_help = "Examples:\n  scorpioctl health\n  scorpioctl health --json | jq -r '.problems[]'"
    )]
    Health,
    /// Show who the daemon takes you for, and what you may do
    #[command(after_help = "Examples:\n  scorpioctl whoami")]
    Whoami,
    Logs(logs::Logs),
    LogLevel(log_level::LogLevel),
    /// Check this host and the daemon; ends with 1 when something fails
    ///
    /// No check looks into a mount, so that a mount that is stuck does not stop the tool that finds it.
    #[command(after_help = "Examples:\n  scorpioctl doctor\n  sudo scorpioctl doctor    sees more")]
    Doctor,
    Completions(completions::Completions),
    #[command(hide = true)]
    GenMan(man::Man),
}

/// What every verb works with.
pub(crate) struct Session {
    screen: Screen,
    socket: PathBuf,
}

/// The whole of `scorpioctl`: arguments in, exit status out.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return told_by_clap(&error).into(),
    };
    let Global { socket, json, quiet, verbose, color } = arguments.global;
    let screen = Screen::new(json, quiet, verbose, color, crate::config::no_color());
    let session = Session { screen, socket };
    let ended = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(arguments.verb.run(&session)),
        Err(error) => Err(Failure::new(Exit::Failed, "cannot start").because(error.to_string())),
    };
    let exit = ended.unwrap_or_else(|failure| session.fail(&failure));
    exit.into()
}

/// Help and version go to standard output, what is wrong with the command line to standard error.
fn told_by_clap(error: &clap::Error) -> Exit {
    let shown = error.print();
    match (error.use_stderr(), shown) {
        (true, _) => Exit::Usage,
        (false, Ok(())) => Exit::Ok,
        (false, Err(error)) => screen::output_failure(error).exit,
    }
}

impl Verb {
    async fn run(self, session: &Session) -> Result<Exit, Failure> {
        match self {
            Verb::Mount(mount) => mount.run(session).await,
            Verb::List(list) => list.run(session).await,
            Verb::Info(info) => info.run(session).await,
            Verb::Du(du) => du.run(session).await,
            Verb::Unmount(unmount) => unmount.run(session).await,
            Verb::Remove(remove) => remove.run(session).await,
            Verb::Give(give) => give.run(session).await,
            Verb::Watch(watch) => watch.run(session).await,
            Verb::Origins => origins::run(session).await,
            Verb::Login(login) => login.run(session).await,
            Verb::Logout(logout) => logout.run(session).await,
            Verb::Orphans(orphans) => orphans.run(session).await,
            Verb::Drain(drain) => drain.run(session).await,
            Verb::Export(export) => export.run(session).await,
            Verb::Stats => stats::run(session).await,
            Verb::Health => health::run(session).await,
            Verb::Whoami => whoami::run(session).await,
            Verb::Logs(logs) => logs.run(session).await,
            Verb::LogLevel(level) => level.run(session).await,
            Verb::Doctor => doctor::run(session).await,
            Verb::Completions(completions) => completions.run(session),
            Verb::GenMan(man) => man.run(session),
        }
    }
}

impl Session {
    fn daemon(&self) -> Daemon {
        self.screen.detail(&format!("the daemon is behind {}", self.socket.display()));
        Daemon::new(&self.socket)
    }

    fn fail(&self, failure: &Failure) -> Exit {
        if failure.exit != Exit::BrokenPipe {
            self.screen.failure(failure);
        }
        failure.exit
    }

    /// `--json` for verbs whose answer is that it is done.
    fn done(&self, id: &str, what: &str) -> Result<(), Failure> {
        if self.screen.json {
            self.screen.print(&json!({ "id": id, "done": what }).to_string())
        } else {
            Ok(())
        }
    }

    /// Asks before something is lost, where there is a person to ask; scripts said what they want.
    fn confirm(&self, yes: bool, question: &str) -> Result<bool, Failure> {
        if yes || !self.screen.can_ask() || self.screen.ask(question)? {
            return Ok(true);
        }
        self.screen.note("Nothing was done.");
        Ok(false)
    }

    /// Shows that something is going on; silent where standard error is no terminal.
    fn spinner(&self, what: &'static str) -> indicatif::ProgressBar {
        if self.screen.quiet || self.screen.json {
            return indicatif::ProgressBar::hidden();
        }
        let spinner = indicatif::ProgressBar::new_spinner().with_message(what);
        spinner.enable_steady_tick(Duration::from_millis(100));
        spinner
    }
}
