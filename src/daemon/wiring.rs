//! The modules, put together from a [`Config`], and taken apart again.

use std::{collections::BTreeMap, ffi::OsString, os::fd::OwnedFd, path::PathBuf, sync::Arc, time::Duration};

use tokio::{net::UnixListener, runtime::Handle, sync::watch, task::JoinHandle};

use crate::{
    antares::{Antares, AntaresConfig, Scope, State},
    auth::{self, accounts::Accounts, vault::Vault},
    cache::{Cache, CacheOptions, Checker},
    config::{self, Config, Live, MegaServer, OriginConfig, OriginKind, Origins, ReadWith},
    daemon::{
        DaemonError,
        credentials::{Logins, Probe, UserCredential},
        exporter::WorkspaceExporter,
        heartbeat::{HANGS, Heartbeat},
        keeper::{self, ManagerKeeper},
        levels::{Levels, Reached},
        notify, owners,
        reload::Reload,
        tally::{TRIES, Tally},
    },
    dicfuse::{Dicfuse, NodeTableOptions},
    engine::{
        Leave, OverlayEngine,
        handover::Handover,
        kernel::{KernelEngine, KernelOptions, Launcher},
    },
    fusedev::SessionLimits,
    origin::{
        self, Origin,
        lazy::{Lazy, SetUp},
        limits::Limited,
        mega::{CredentialSource, MegaOptions, MegaOrigin},
    },
    rpc::{self, HostGauges, RpcLimits, Services},
    store::{ObjectStore, Opener, StoreLimits},
    sys::{fdstore, identity::Identity},
    types::OriginName,
};

/// Wants in one request to an origin: a large directory's sizes in a few requests, and none that takes long.
const BATCH: usize = 4096;

/// How long the check of a cache of another boot may take before the cache is thrown away: below TimeoutStartSec, and a
/// cache that takes longer to read is quicker to fetch again.
const CHECK_PATIENCE: Duration = Duration::from_secs(60);

/// A daemon that serves.
pub struct Daemon {
    antares: Antares,
    engine: Arc<dyn OverlayEngine>,
    rpc: JoinHandle<()>,
    /// Tells of owners without accounts, and ends.
    owners: JoinHandle<()>,
    stop_rpc: watch::Sender<bool>,
    socket: PathBuf,
    heartbeat: Heartbeat,
    reload: Reload,
}

impl Daemon {
    /// Builds everything from the bottom up; returns when all workspaces are as far up as they will come and the socket
    /// is served.
    /// What is asked of its health is told whether the configuration is wrong.
    pub async fn start(
        config: Config,
        configuration_is_wrong: Live<bool>,
        boot_id: String,
        levels: Arc<Levels>,
    ) -> Result<Daemon, DaemonError> {
        let passed = fdstore::receive()
            .map_err(|source| DaemonError::Host { action: "take descriptors over".to_owned(), source })?;
        let tally = Tally::of(&config.daemon.runtime_dir);
        let heartbeat = Heartbeat::of(&config.daemon.runtime_dir);
        let (handover, passed) = take_over(passed, &tally, &heartbeat);
        let reading = Live::new(config.origins.clone());
        let store = open_store(&config, &boot_id, &reading).await?;
        let dicfuse = open_dicfuse(&config, &boot_id, store.clone())?;
        let engine = open_engine(&config, boot_id.clone(), dicfuse.clone(), handover).await?;
        let above = async {
            let antares =
                open_antares(&config, boot_id, engine.clone(), dicfuse.clone(), store.clone()).await?;
            Ok((antares, listener(&config, passed)?))
        };
        let (antares, listener) = match above.await {
            Ok(above) => above,
            Err(error) => {
                // The service manager tries again, and users need not notice.
                engine.shutdown(what_to_leave(config::has_service_manager())).await;
                return Err(error);
            }
        };
        tally.clear();
        let accounts = Accounts::default();
        let reload = Reload {
            origins: Live::new(config.origins.clone()),
            reading,
            authorizer: Live::from(auth::choose(&config.auth, &accounts).await),
            accounts,
            store,
            antares: antares.clone(),
            levels,
            config,
        };
        let services = services(&reload, configuration_is_wrong, engine.clone(), dicfuse);
        let owners = tokio::spawn(owners::tell_without_account(antares.clone(), services.accounts.clone()));
        let config = &reload.config;
        let (stop_rpc, mut stopped) = watch::channel(false);
        let stop = async move {
            // An error means that the sender is gone, which is a stop as well.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let limits = RpcLimits::from(&config.limits);
        let rpc = tokio::spawn(async move {
            if let Err(error) = rpc::serve(listener, services, limits, stop).await {
                tracing::error!(%error, "the control socket cannot be served");
            }
        });
        let socket = config.daemon.socket.clone();
        Ok(Daemon { antares, engine, rpc, owners, stop_rpc, socket, heartbeat, reload })
    }

    /// One line for `systemctl status`.
    pub fn status(&self) -> String {
        let workspaces = self.antares.list(&Scope::Everybody);
        let mounted = workspaces.iter().filter(|workspace| workspace.state == State::Mounted).count();
        format!("{mounted} of {} workspaces mounted", workspaces.len())
    }

    /// What is in force.
    pub fn config(&self) -> &Config {
        &self.reload.config
    }

    /// Where the control socket is.
    pub fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    /// Where it is noted that the watchdog was fed.
    pub fn heartbeat(&self) -> Heartbeat {
        self.heartbeat.clone()
    }

    /// What serves the mounts.
    pub fn engine(&self) -> Arc<dyn OverlayEngine> {
        Arc::clone(&self.engine)
    }

    /// Takes up what can be taken up of another configuration.
    pub async fn reload(&mut self, wanted: Config) {
        self.reload.take_up(wanted).await;
    }

    /// Takes no more calls, and brings those under way to their end. To leave nothing, unmounts everything and ends the
    /// sessions.
    pub async fn stop(self, leave: Leave) {
        self.owners.abort();
        if let Err(error) = self.heartbeat.rest() {
            tracing::warn!(%error, "a slow stop may be taken for a daemon that hung");
        }
        // Fails only when the server has ended by itself.
        let _ = self.stop_rpc.send(true);
        if let Err(error) = self.rpc.await {
            tracing::warn!(%error, "the control socket's server ended badly");
        }
        self.antares.shutdown(leave).await;
        self.engine.shutdown(leave).await;
    }
}

/// What to leave, if there is a successor or not.
fn what_to_leave(successor: bool) -> Leave {
    if successor { Leave::Everything } else { Leave::Nothing }
}

/// The sessions among the descriptors that the service manager passed, unless too many processes before this one failed
/// or hung with them; the other descriptors come back.
fn take_over(
    passed: Vec<(String, OwnedFd)>,
    tally: &Tally,
    heartbeat: &Heartbeat,
) -> (Handover, Vec<(String, OwnedFd)>) {
    if !config::has_service_manager() {
        return (Handover::default(), passed);
    }
    let keeper = ManagerKeeper::new(config::descriptor_store_room());
    let (mut inherited, rest) = keeper::take_sessions(passed, &keeper);
    if inherited.is_empty() {
        tally.clear();
    } else {
        let failed = tally.begin();
        let hung = notify::watchdog_patience().map_or(0, |interval| heartbeat.begin(interval));
        let because = if failed >= TRIES {
            Some(format!("{failed} processes took it over and did not come up"))
        } else if hung >= HANGS {
            Some(format!("{hung} processes served it and hung, one after the other"))
        } else {
            None
        };
        if let Some(because) = because {
            keeper::let_go(std::mem::take(&mut inherited), &keeper, &because);
            tally.clear();
        }
    }
    let keeper = Arc::new(keeper.holding(&inherited));
    (Handover { inherited, keeper }, rest)
}

/// Cache and origins behind one door; `reading` says how users' views of origins are opened.
pub(super) async fn open_store(
    config: &Config,
    boot_id: &str,
    reading: &Live<Origins>,
) -> Result<ObjectStore, DaemonError> {
    let options = CacheOptions {
        dir: config.daemon.cache_dir.clone(),
        map_bytes: config.cache.map_bytes,
        inline_max_bytes: config.cache.inline_max_bytes,
        boot_id: boot_id.to_owned(),
        checker: Some(Checker {
            program: own_program(),
            args: vec![OsString::from("check-cache")],
            timeout: CHECK_PATIENCE,
        }),
    };
    // Checking a cache of another boot reads all of it.
    let cache = tokio::task::spawn_blocking(move || Cache::open(options)).await;
    let cache = part("open the cache", cache.map_err(|error| error.to_string()))?;
    let cache = part("open the cache", cache)?;
    let limits = StoreLimits { flight_bytes: config.fetch.flight_bytes, batch: BATCH };
    let (origins, open) = (open_origins(config), opener(config, reading));
    Ok(ObjectStore::opening(cache, origins, open, &config.daemon.state_dir, limits))
}

/// All origins of the configuration that are the same for all users.
fn open_origins(config: &Config) -> BTreeMap<OriginName, Arc<dyn Origin>> {
    let limits = origin_limits(config);
    let shared = config.origins.iter().filter(|(_, config)| config.read_with() == ReadWith::Service);
    shared.map(|(name, config)| (name.clone(), lazy_origin(name, config, limits))).collect()
}

/// Bounds of every origin.
pub(super) fn origin_limits(config: &Config) -> origin::Limits {
    origin::Limits { deadline: config.fetch.deadline, requests: config.fetch.requests }
}

/// An origin that is the same for all users. It is not waited for: one that is away now may be there for the first request.
pub(super) fn lazy_origin(
    name: &OriginName,
    config: &OriginConfig,
    limits: origin::Limits,
) -> Arc<dyn Origin> {
    let set_up = {
        let (name, kind) = (name.clone(), config.kind.clone());
        Box::new(move || open_origin(&name, &kind, limits))
    };
    Arc::new(Lazy::new(name.clone(), limits.deadline, config.kind.trees_pass(), set_up))
}

/// Opens users' views of the origins that are read with their credentials.
fn opener(config: &Config, reading: &Live<Origins>) -> Opener {
    let limits = origin_limits(config);
    let origins = reading.clone();
    let vault = Arc::new(Vault::new(&config.daemon.state_dir));
    Box::new(move |view| {
        let origins = origins.now();
        let config = origins.get(&view.configured())?;
        let OriginKind::Mega(server) = &config.kind else { return None };
        let credential = Arc::new(UserCredential::of(view, vault.clone())?);
        let (server, view_) = (server.clone(), view.clone());
        let set_up: SetUp = Box::new(move || open_view(&view_, &server, limits, credential.clone()));
        (config.read_with() == ReadWith::User).then(|| {
            Arc::new(Lazy::new(view.clone(), limits.deadline, config.kind.trees_pass(), set_up))
                as Arc<dyn Origin>
        })
    })
}

/// Opens users' views with credentials that are tried.
fn probe(config: &Config, origins: &Live<Origins>) -> Arc<Probe> {
    let limits = origin_limits(config);
    let origins = origins.clone();
    Arc::new(move |view, credential| match origins.now().get(&view.configured()).map(|config| &config.kind) {
        Some(OriginKind::Mega(server)) => open_view(view, server, limits, credential),
        _ => Err("it takes no login".to_owned()),
    })
}

fn open_view(
    view: &OriginName,
    server: &MegaServer,
    limits: origin::Limits,
    credential: Arc<dyn CredentialSource>,
) -> Result<Arc<dyn Origin>, String> {
    let options = MegaOptions { credential: Some(credential), ..origin::mega_options(server, limits) };
    let origin = MegaOrigin::new(view.clone(), options).map_err(|error| error.to_string())?;
    Ok(Arc::new(Limited::new(origin, limits)))
}

fn open_origin(
    name: &OriginName,
    kind: &OriginKind,
    limits: origin::Limits,
) -> Result<Arc<dyn Origin>, String> {
    origin::open(name, kind, reader(kind)?, limits).map_err(|error| error.to_string())
}

/// Whose rights an origin is read with: the account that the configuration names, else the repository's owner.
fn reader(kind: &OriginKind) -> Result<Identity, String> {
    let OriginKind::Git { path, read_as } = kind else {
        // No file of anybody's is opened.
        return Ok(Identity::root());
    };
    match read_as {
        Some(account) => origin::account_reader(account).map_err(|error| format!("`read_as`: {error}")),
        None => origin::default_reader(path).map_err(|error| {
            format!("cannot tell whose {} is ({error}); name an account by `read_as`", path.display())
        }),
    }
}

fn open_dicfuse(config: &Config, boot_id: &str, store: ObjectStore) -> Result<Dicfuse, DaemonError> {
    let options = NodeTableOptions {
        dir: config.daemon.runtime_dir.join("nodes"),
        map_bytes: config.cache.node_map_bytes,
        boot_id: boot_id.to_owned(),
    };
    part("open the node table", Dicfuse::open(options, store))
}

async fn open_engine(
    config: &Config,
    boot_id: String,
    dicfuse: Dicfuse,
    handover: Handover,
) -> Result<Arc<dyn OverlayEngine>, DaemonError> {
    let options = KernelOptions {
        runtime_dir: config.daemon.runtime_dir.clone(),
        lower: config.engine.lower,
        replay: config.engine.replay,
        limits: SessionLimits {
            workers: config.engine.workers,
            parked: config.fetch.parked,
            parked_per_user: config.fetch.parked_per_user,
            deadline: config.fetch.deadline,
            entry_ttl: config.engine.entry_ttl,
        },
        fetches_per_user: config.fetch.requests_per_user,
        mount_timeout: config.engine.mount_timeout,
        launcher: Launcher { program: own_program(), args: vec![OsString::from("mounter")] },
        boot_id,
        handover,
    };
    let runtime = Handle::current();
    let engine = tokio::task::spawn_blocking(move || KernelEngine::new(options, dicfuse, runtime)).await;
    let engine = part("start the mount engine", engine.map_err(|error| error.to_string()))?;
    Ok(Arc::new(part("start the mount engine", engine)?))
}

async fn open_antares(
    config: &Config,
    boot_id: String,
    engine: Arc<dyn OverlayEngine>,
    dicfuse: Dicfuse,
    store: ObjectStore,
) -> Result<Antares, DaemonError> {
    let options = AntaresConfig {
        state_dir: config.daemon.state_dir.clone(),
        upper_root: config.daemon.upper_root.clone(),
        boot_id,
        limits: config.limits,
    };
    part("recover the workspaces", Antares::open(options, engine, dicfuse, store).await)
}

/// The socket that systemd listens on for us, else one of our own.
fn listener(config: &Config, passed: Vec<(String, OwnedFd)>) -> Result<UnixListener, DaemonError> {
    let failed = |source| DaemonError::Host {
        action: format!("listen on {}", config.daemon.socket.display()),
        source,
    };
    match passed.into_iter().find(|(name, _)| name == "control") {
        Some((_, fd)) => {
            let listener = std::os::unix::net::UnixListener::from(fd);
            listener.set_nonblocking(true).map_err(failed)?;
            UnixListener::from_std(listener).map_err(failed)
        }
        None => rpc::bind(&config.daemon.socket).map_err(failed),
    }
}

fn services(
    reload: &Reload,
    configuration_is_wrong: Live<bool>,
    engine: Arc<dyn OverlayEngine>,
    dicfuse: Dicfuse,
) -> Services {
    let Reload { config, antares, store, origins, .. } = reload;
    // What the engine found to work, not what was asked for: `auto` may have fallen back.
    let is_shared = engine.sessions().iter().any(|session| session.name == "shared");
    let lower = if is_shared { "shared" } else { "per-owner" };
    let exporter =
        WorkspaceExporter { antares: antares.clone(), store: store.clone(), runtime: Handle::current() };
    let vault = Arc::new(Vault::new(&config.daemon.state_dir));
    let logins = Logins { vault, store: store.clone(), probe: probe(config, origins) };
    Services {
        credentials: Arc::new(logins),
        workspaces: Arc::new(antares.clone()),
        gauges: Arc::new(HostGauges {
            engine,
            dicfuse,
            store: store.clone(),
            lower: lower.to_owned(),
            cache_limit_bytes: config.cache.map_bytes,
        }),
        exporter: Some(Arc::new(exporter)),
        origins: origins.clone(),
        configuration_is_wrong,
        authorizer: reload.authorizer.clone(),
        log_levels: Arc::new(Reached(Arc::clone(&reload.levels))),
        accounts: reload.accounts.clone(),
    }
}

/// This program, for the short-lived processes started from it. The link stays right when a package upgrade replaces
/// the file while we run; the process started then is of the version we are.
fn own_program() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

fn part<T, E: std::fmt::Display>(action: &'static str, result: Result<T, E>) -> Result<T, DaemonError> {
    result.map_err(|error| DaemonError::Part { action, reason: error.to_string() })
}
