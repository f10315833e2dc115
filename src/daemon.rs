//! Wiring: from the command line to a daemon that serves, and down again.
//!
//! ```text
//! configuration → privileges cut → cache → origins → store → dicfuse → engine → antares (recovers) → rpc → READY=1
//!        SIGTERM → rpc stops taking calls → antares unmounts → engine ends its sessions → exit
//!                   for a restart, and after a crash: mounts and sessions stand, the successor goes on with them
//! ```
//!
//! - [`args`]: the command line
//! - [`offline`]: saving a workspace's changes while no daemon runs
//! - [`exporter`]: saving them while one does
//! - [`credentials`]: what users log in to origins with
//! - [`privileges`]: what is kept of root's powers
//! - [`wiring`]: the modules, put together
//! - [`notify`]: talking to the service manager
//! - [`job`]: asking it whether this is a stop or a restart
//! - [`keeper`]: having it keep the FUSE sessions for a successor
//! - [`tally`], [`heartbeat`]: when such sessions are let go after all
//! - [`configuration`]: which one is in force; [`reload`]: what becomes of another; [`levels`]: how much is logged for a while
//! - [`owners`]: telling of workspaces whose owners have no account any more

pub mod args;
pub mod configuration;
pub mod credentials;
pub mod exporter;
pub mod heartbeat;
pub mod job;
pub mod keeper;
pub mod levels;
pub mod notify;
pub mod offline;
pub mod owners;
pub mod privileges;
pub mod reload;
pub mod tally;
pub mod wiring;

use std::{io::Write, path::Path, process::ExitCode, sync::Arc, time::Duration};

use clap::CommandFactory;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::{
    args::{Args, Command, ConfigCommand},
    configuration::Configuration,
    job::Ending,
    levels::Levels,
};
use crate::{
    cache,
    config::{self, Config, Kept},
    engine::{Leave, kernel::mounter},
    sys::{boot, heap, mountinfo},
    telemetry::{self, event},
};

/// `EX_CONFIG`: trying again will not help, so the unit does not.
pub const EXIT_CONFIG: u8 = 78;

/// What the packages call the service.
const UNIT: &str = "scorpio.service";

/// How long stopping may take before the process ends anyway; with what the question why it ends may take, below the unit's
/// TimeoutStopSec.
const STOP_PATIENCE: Duration = Duration::from_secs(22);

/// Threads that run calls and fetches. FUSE requests have threads of their own, and the work here is waiting.
const RUNTIME_THREADS: usize = 4;

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// The log cannot be set up.
    #[error(transparent)]
    Telemetry(#[from] telemetry::TelemetryError),
    /// Not enough rights, or too many.
    #[error(transparent)]
    Privileges(#[from] privileges::PrivilegeError),
    /// Mounts made here would be seen by nobody.
    #[error(
        "scorpiod is in a mount namespace of its own, where nobody would see its mounts; take options such as \
         ProtectSystem=, PrivateTmp= and ReadWritePaths= out of the unit (see systemd.exec(5)), or start it outside of \
         the container"
    )]
    PrivateNamespace,
    /// Something of this host cannot be had.
    #[error("cannot {action}: {source}")]
    Host {
        /// What was tried.
        action: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A part did not come up.
    #[error("cannot {action}: {reason}")]
    Part {
        /// What was tried.
        action: &'static str,
        /// Why not.
        reason: String,
    },
}

impl DaemonError {
    /// Whether trying again might help.
    fn exit_code(&self) -> ExitCode {
        match self {
            DaemonError::Config(_)
            | DaemonError::Telemetry(_)
            | DaemonError::Privileges(_)
            | DaemonError::PrivateNamespace => ExitCode::from(EXIT_CONFIG),
            DaemonError::Host { .. } | DaemonError::Part { .. } => ExitCode::FAILURE,
        }
    }
}

/// Does what the command line says.
pub fn main(args: Args) -> ExitCode {
    let config = args.config.as_deref();
    let done = match args.command {
        None => run(config),
        Some(Command::Config(ConfigCommand::Show)) => show_config(config),
        Some(Command::Config(ConfigCommand::Validate)) => {
            Config::load_from_system(config).map(|_| ()).map_err(DaemonError::from)
        }
        Some(Command::Export(export)) => offline::export(config, &export),
        Some(Command::Mounter { args }) => return mounter::main(args.into_iter()),
        Some(Command::CheckCache { dir }) => {
            cache::check(&dir).map_err(|reason| DaemonError::Part { action: "vouch for the cache", reason })
        }
        Some(Command::GenMan { dir }) => write_man_pages(&dir),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // To the journal too, under systemd.
            let _ = writeln!(std::io::stderr(), "scorpiod: {error}");
            error.exit_code()
        }
    }
}

fn show_config(file: Option<&Path>) -> Result<(), DaemonError> {
    print(Config::load_from_system(file)?.show().as_bytes())
}

fn print(text: &[u8]) -> Result<(), DaemonError> {
    std::io::stdout()
        .write_all(text)
        .map_err(|source| DaemonError::Host { action: "write to standard output".to_owned(), source })
}

fn write_man_pages(dir: &Path) -> Result<(), DaemonError> {
    let command = Args::command().mut_subcommand("config", |config| config.disable_help_subcommand(true));
    let failed =
        |source| DaemonError::Host { action: format!("write man pages to {}", dir.display()), source };
    let man = clap_mangen::Man::new(command).section("8");
    let mut page = Vec::new();
    man.render(&mut page).map_err(failed)?;
    std::fs::write(dir.join("scorpiod.8"), page).map_err(failed)?;
    std::fs::write(dir.join("scorpio.toml.5"), config::manual()).map_err(failed)
}

/// Serves until told to stop.
fn run(config_file: Option<&Path>) -> Result<(), DaemonError> {
    let (config, configuration) = Configuration::at_start(config_file.map(Path::to_owned), Kept::here())?;
    let telemetry = telemetry::init(&config.daemon.log_level, config::journal_stream().as_deref())?;
    refuse_private_namespace()?;
    privileges::cut()?;
    if !heap::give_memory_back() {
        tracing::warn!(
            "the allocator cannot be told to give memory back: the daemon may stay large after large reads"
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .thread_name("scorpio")
        .enable_all()
        .build()
        .map_err(|source| DaemonError::Host { action: "start the runtime".to_owned(), source })?;
    runtime.spawn(telemetry.clone().keep_telling_held_back());
    let switched = telemetry.clone();
    let switch = move |level: &str| switched.set_level(level).map_err(|error| error.to_string());
    let levels = Levels::new(&config.daemon.log_level, Box::new(switch));
    let result = runtime.block_on(serve(config, configuration, levels));
    telemetry.tell_held_back();
    // Nothing that hangs (an origin, a name service) keeps the process from ending.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// Unless the two cannot be compared: then `/proc` is restricted, and the unit's author knew what they did.
fn refuse_private_namespace() -> Result<(), DaemonError> {
    match mountinfo::in_host_namespace() {
        Ok(false) => Err(DaemonError::PrivateNamespace),
        Ok(true) => Ok(()),
        Err(error) => {
            tracing::warn!(%error, "cannot tell whether this is the host's mount namespace");
            Ok(())
        }
    }
}

async fn serve(
    config: Config,
    mut configuration: Configuration,
    levels: Arc<Levels>,
) -> Result<(), DaemonError> {
    let boot_id = boot::boot_id()
        .map_err(|source| DaemonError::Host { action: "read the boot id".to_owned(), source })?;
    // Signals are caught from here on, so that one during a long recovery is not lost.
    let mut stop = std::pin::pin!(stop_signal()?);
    let mut hangup = catch(SignalKind::hangup())?;
    let mut daemon = wiring::Daemon::start(config, configuration.is_wrong(), boot_id, levels).await?;
    configuration.came_up(daemon.config());
    let status = configuration.status(daemon.status());
    tracing::info!(message_id = event::READY, version = env!("CARGO_PKG_VERSION"), %status, "ready");
    notify::ready(&status);
    let watchdog = tokio::spawn(notify::feed_watchdog(daemon.socket(), daemon.engine(), daemon.heartbeat()));
    loop {
        tokio::select! {
            () = &mut stop => break,
            _ = hangup.recv() => {
                notify::reloading();
                if let Some(wanted) = configuration.reload() {
                    daemon.reload(wanted).await;
                }
                notify::ready(&configuration.status(daemon.status()));
            }
        }
    }
    watchdog.abort();
    let leave = what_to_leave().await;
    tracing::info!(message_id = event::STOPPING, ?leave, "stopping");
    notify::stopping();
    if leave == Leave::Nothing {
        configuration.forget();
    }
    if tokio::time::timeout(STOP_PATIENCE, daemon.stop(leave)).await.is_err() {
        tracing::warn!("stopping took too long; what is still mounted is cleaned up at the next start");
    }
    Ok(())
}

/// Only a service manager restarts us, and only it keeps the sessions meanwhile.
async fn what_to_leave() -> Leave {
    if !config::has_service_manager() {
        return Leave::Nothing;
    }
    match job::ending(UNIT).await {
        Ending::Restart => Leave::Everything,
        Ending::Stop => Leave::Nothing,
    }
}

/// Ends with the first SIGTERM or SIGINT.
fn stop_signal() -> Result<impl Future<Output = ()>, DaemonError> {
    let (mut terminate, mut interrupt) = (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn catch(kind: SignalKind) -> Result<Signal, DaemonError> {
    signal(kind).map_err(|source| DaemonError::Host { action: "catch signals".to_owned(), source })
}
