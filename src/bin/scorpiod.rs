//! The workspace daemon; see `scorpiod --help`.

use std::process::ExitCode;

use clap::Parser;
use scorpio::daemon::args::Args;

fn main() -> ExitCode {
    scorpio::daemon::main(Args::parse())
}
