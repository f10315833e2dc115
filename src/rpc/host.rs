//! Handlers about the host and the caller: origins, health, counters, log level, whoami, discover. None of them touches a mount.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    failure::Failure,
    module::{Call, Host},
    requests, views,
};
use crate::{
    antares::{Scope, State},
    api::{
        CacheCounters, Counters, Health, LogLevelView, Nothing, OriginCounters, OriginView, ReadWith,
        SetLogLevel, TreeCounters, WhoAmI, document,
    },
    auth::{Action, Refusal},
    config,
    types::OriginName,
};

/// Not what is wrong with it: everybody may ask for the daemon's health.
const WRONG_CONFIGURATION: &str = "the configuration is wrong, and the one before it is in force; \
     `sudo scorpiod config validate` says what is wrong, `sudo systemctl reload scorpio` takes the mended one up";

pub(super) async fn origins(host: Arc<Host>, call: Call, _: Nothing) -> Result<Vec<OriginView>, Failure> {
    let mut shown = Vec::new();
    for (name, config) in &*host.services.origins.now() {
        if host.may_mount(call.identity(), name).await {
            let (read_with, logged_in) = match config.read_with() {
                config::ReadWith::Service => (ReadWith::Service, None),
                config::ReadWith::User => (ReadWith::User, Some(is_logged_in(&host, &call, name).await?)),
            };
            let kind = config.kind.name().to_owned();
            shown.push(OriginView { name: name.to_string(), kind, read_with, logged_in });
        }
    }
    Ok(shown)
}

async fn is_logged_in(host: &Arc<Host>, call: &Call, origin: &OriginName) -> Result<bool, Failure> {
    let (uid, origin) = (call.caller.uid(), origin.clone());
    host.ask(move |services| services.credentials.is_held(&origin, uid)).await
}

pub(super) async fn who_am_i(host: Arc<Host>, call: Call, _: Nothing) -> Result<WhoAmI, Failure> {
    let identity = call.identity();
    Ok(WhoAmI {
        uid: identity.uid,
        gid: identity.gid,
        pid: call.caller.peer.pid,
        user: host.services.accounts.user_name(identity.uid).await,
        may_mount: is_allowed(&host, &call, Action::Mount).await?,
        may_manage_others: is_allowed(&host, &call, Action::ManageOthers).await?,
        may_give: is_allowed(&host, &call, Action::Give).await?,
    })
}

/// A refusal is an answer here; a policy that cannot be asked is not.
async fn is_allowed(host: &Host, call: &Call, action: Action) -> Result<bool, Failure> {
    match host.authorize(&call.caller, action).await {
        Ok(()) => Ok(true),
        Err(Failure::Refused { refusal: Refusal::Denied { .. }, .. }) => Ok(false),
        Err(failure) => Err(failure),
    }
}

pub(super) async fn health(host: Arc<Host>, _call: Call, _: Nothing) -> Result<Health, Failure> {
    let problems = host.ask(|services| {
        [services.gauges.cache().err(), services.gauges.tree().err()]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    });
    let mut problems = problems.await?;
    let mut workspaces = BTreeMap::new();
    for workspace in host.services.workspaces.list(&Scope::Everybody) {
        *workspaces.entry(views::state_name(&workspace.state).to_owned()).or_insert(0) += 1;
    }
    problems.extend(not_mounted(&workspaces));
    if *host.services.configuration_is_wrong.now() {
        problems.push(WRONG_CONFIGURATION.to_owned());
    }
    let draining = host.services.workspaces.draining();
    Ok(Health {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_s: host.started.elapsed().as_secs(),
        lower: host.services.gauges.lower().to_owned(),
        authorizer: host.services.authorizer.now().name().to_owned(),
        workspaces,
        draining: draining.is_some(),
        drained_since: draining.and_then(|draining| draining.since).map(views::rfc3339),
        problems,
    })
}

/// How many workspaces cannot be mounted, not whose: everybody may ask for the daemon's health.
fn not_mounted(workspaces: &BTreeMap<String, u64>) -> Vec<String> {
    let failed = State::Failed { reason: String::new() };
    let displaced = State::Displaced { reason: String::new() };
    [(failed, "could not be mounted again"), (displaced, "lost their mount points")]
        .into_iter()
        .filter_map(|(state, what)| {
            let count = workspaces.get(views::state_name(&state))?;
            Some(format!("{count} workspaces {what}; what was written in them is kept"))
        })
        .collect()
}

pub(super) async fn counters(host: Arc<Host>, call: Call, _: Nothing) -> Result<Counters, Failure> {
    let gathered = host.ask(|services| {
        let gauges = &services.gauges;
        (gauges.sessions(), gauges.origins(), gauges.cache(), gauges.tree(), rss_anon_bytes())
    });
    let (sessions, fetched, cache, tree, rss_anon_bytes) = gathered.await?;
    let cache = cache.map_err(Failure::Internal)?;
    let tree = tree.map_err(Failure::Internal)?;
    // Whoever puts a file into an origin of theirs and sees that the cache did not grow would know that it is in another.
    let cache = call.identity().is_root().then_some(cache);
    let mut origins = BTreeMap::new();
    for (name, stats) in fetched {
        if host.may_mount(call.identity(), &name).await {
            let counters =
                OriginCounters { fetched: stats.fetched, bytes: stats.bytes, failed: stats.failed };
            origins.insert(OriginName::to_string(&name), counters);
        }
    }
    Ok(Counters {
        sessions: sessions.into_iter().map(views::session).collect(),
        origins,
        cache: cache.map(|cache| CacheCounters {
            trees: cache.trees,
            blobs: cache.inline_blobs + cache.file_blobs,
            blob_bytes: cache.blob_bytes,
            database_bytes: cache.database_bytes,
        }),
        tree: TreeCounters { roots: tree.roots, directories: tree.blocks, nodes: tree.nodes },
        calls: host.calls.counters(),
        rss_anon_bytes: rss_anon_bytes.map_err(|error| Failure::Internal(error.to_string()))?,
    })
}

pub(super) async fn set_log_level(
    host: Arc<Host>,
    call: Call,
    params: SetLogLevel,
) -> Result<LogLevelView, Failure> {
    let wanted = requests::log_level(params)?;
    host.authorize(&call.caller, Action::Administer).await?;
    let levels = &host.services.log_levels;
    let told = match wanted {
        Some((level, time)) => {
            levels.lend(&level, time).map_err(|reason| Failure::BadParameter(format!("`level`: {reason}")))?
        }
        None => levels.reset(),
    };
    Ok(views::log_level(told))
}

/// RssAnon of this process: unlike VmRSS it leaves out the database's pages, which the kernel may take back.
fn rss_anon_bytes() -> std::io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|number| number.trim().parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| std::io::Error::other("/proc/self/status has no RssAnon"))
}

pub(super) async fn discover(
    _: Arc<Host>,
    _: Call,
    _: Nothing,
) -> Result<&'static serde_json::Value, Failure> {
    Ok(document::openrpc())
}

#[cfg(test)]
mod tests {
    #[test]
    fn anonymous_memory_is_told_in_bytes() {
        let bytes = super::rss_anon_bytes().unwrap();
        assert!(bytes > 64 << 10 && bytes.is_multiple_of(1024), "{bytes}");
    }
}
