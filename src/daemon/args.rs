//! The command line of `scorpiod`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// The Scorpio workspace daemon: instant, writable mounts of git repositories for the users of this host.
///
/// Started by systemd (`systemctl start scorpio`), or by hand as root for a try. Configuration is read from
/// /etc/scorpio/scorpio.toml, /etc/scorpio/scorpio.toml.d/*.toml and SCORPIO_… in the environment. Exit code 78 means
/// that the configuration, or the place where the daemon was started, is wrong and trying again will not help.
#[derive(Debug, Parser)]
#[command(name = "scorpiod", version)]
pub struct Args {
    /// Read this file (and its `.d` directory) instead of /etc/scorpio/scorpio.toml
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// What to do; to serve when absent
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What else the program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Save a workspace's changes while the daemon is not running
    Export(ExportArgs),
    /// Make or end one mount, as told on standard input (the daemon starts this itself)
    #[command(hide = true)]
    Mounter {
        /// For tests: where to stop, which of several ways to take
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<std::ffi::OsString>,
    },
    /// Check a cache that another boot left behind (the daemon starts this itself)
    #[command(hide = true)]
    CheckCache {
        /// Directory of the cache
        dir: PathBuf,
    },
    /// Write the man pages
    #[command(hide = true)]
    GenMan {
        /// Where to
        dir: PathBuf,
    },
}

/// `scorpiod config …`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the effective configuration, and where each value comes from
    Show,
    /// Say whether the configuration is right; exits with 78 when it is not
    Validate,
}

/// `scorpiod export …`
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// Id of the workspace, a directory below the upper root
    pub workspace: String,
    /// What to write: `tar` (exact, with overlay attributes) or `patch` (for `git apply`)
    #[arg(long, default_value = "tar", value_parser = ["tar", "patch"])]
    pub format: String,
    /// Where to write; standard output when absent
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}
