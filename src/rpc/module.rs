//! The methods: a name, the type of its parameters, and the handler. What all calls have in common is done here:
//! a request id, a span, a bound on calls at once, parsing, and one log line at the end.

use std::{sync::Arc, time::Instant};

use jsonrpsee::{
    Extensions, RpcModule,
    types::{ErrorObjectOwned, Params},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::{Semaphore, watch};
use tracing::Instrument;

use super::{
    RpcLimits, Services, credentials, drain,
    failure::Failure,
    host, orphans,
    slots::{Full, Slot, SlotLimits, Slots},
    usage, watch as watching, workspaces,
};
use crate::{
    antares::{Scope, WorkspaceError},
    api::{ErrorKind, method},
    auth::{Action, Caller, Refusal},
    config::{OriginConfig, ReadWith},
    sys::{identity::Identity, peer::Place},
    telemetry::event,
    types::{OriginName, WorkspaceId},
};

/// What all handlers share.
pub(super) struct Host {
    pub(super) services: Services,
    pub(super) limits: RpcLimits,
    pub(super) started: Instant,
    /// Turns true when subscriptions are to end.
    pub(super) stopping: watch::Receiver<bool>,
    /// One permit per subscription; all free when none is left.
    pub(super) watchers: Arc<Semaphore>,
    /// How many permits [`Host::watchers`] has when there is no subscription.
    pub(super) watchers_max: u32,
    /// Who may walk uppers now.
    pub(super) measuring: usage::Turns,
    pub(super) calls: Slots,
}

/// A call that was taken on. Clones are the same call.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) caller: Caller,
    pub(super) request_id: Arc<str>,
    method: &'static str,
    begun: Instant,
    _slot: Option<Arc<Slot>>,
}

/// Registers every method.
pub(super) fn build(host: Arc<Host>) -> Result<RpcModule<Host>, jsonrpsee::core::RegisterMethodError> {
    let mut module = RpcModule::from_arc(host);
    add(&mut module, method::WORKSPACE_CREATE, workspaces::create)?;
    add(&mut module, method::WORKSPACE_LIST, workspaces::list)?;
    add(&mut module, method::WORKSPACE_GET, workspaces::get)?;
    add(&mut module, method::WORKSPACE_MOUNT, workspaces::mount)?;
    add(&mut module, method::WORKSPACE_UNMOUNT, workspaces::unmount)?;
    add(&mut module, method::WORKSPACE_REMOVE, workspaces::remove)?;
    add(&mut module, method::WORKSPACE_GIVE, workspaces::give)?;
    add(&mut module, method::WORKSPACE_USAGE, usage::usage)?;
    add(&mut module, method::ORIGIN_LIST, host::origins)?;
    add(&mut module, method::CREDENTIAL_STORE, credentials::store)?;
    add(&mut module, method::CREDENTIAL_FORGET, credentials::forget)?;
    add(&mut module, method::ORPHAN_LIST, orphans::list)?;
    add(&mut module, method::ORPHAN_ADOPT, orphans::adopt)?;
    add(&mut module, method::ORPHAN_DISCARD, orphans::discard)?;
    add(&mut module, method::DRAIN_BEGIN, drain::begin)?;
    add(&mut module, method::DRAIN_END, drain::end)?;
    add(&mut module, method::HEALTH, host::health)?;
    add(&mut module, method::COUNTERS, host::counters)?;
    add(&mut module, method::LOG_SET_LEVEL, host::set_log_level)?;
    add(&mut module, method::WHO_AM_I, host::who_am_i)?;
    add(&mut module, method::DISCOVER, host::discover)?;
    module.register_subscription(
        method::WORKSPACE_WATCH,
        method::WORKSPACE_EVENT,
        method::WORKSPACE_UNWATCH,
        watching::watch,
    )?;
    Ok(module)
}

fn add<P, R, H, F>(
    module: &mut RpcModule<Host>,
    name: &'static str,
    handler: H,
) -> Result<(), jsonrpsee::core::RegisterMethodError>
where
    P: DeserializeOwned + Send + 'static,
    R: Serialize + Clone + Send + 'static,
    H: Fn(Arc<Host>, Call, P) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<R, Failure>> + Send,
{
    module.register_async_method(name, move |params, host, extensions| {
        let handler = handler.clone();
        async move {
            let call = Call::begin(name, &extensions)?;
            let span = call.span();
            async move {
                let outcome = match host.admit(call.clone()).and_then(|call| Ok((call, parse::<P>(&params)?)))
                {
                    Ok((call, params)) => handler(Arc::clone(&host), call, params).await,
                    Err(failure) => Err(failure),
                };
                call.finish(outcome)
            }
            .instrument(span)
            .await
        }
    })?;
    Ok(())
}

/// One object with known members; nothing at all stands for an empty one.
pub(super) fn parse<P: DeserializeOwned>(params: &Params<'_>) -> Result<P, Failure> {
    let text = params.as_str().unwrap_or("{}");
    if !text.trim_start().starts_with('{') {
        return Err(Failure::Shape("parameters are passed by name, as an object".to_owned()));
    }
    serde_json::from_str(text).map_err(|error| Failure::Shape(bounded(&error.to_string())))
}

/// serde's messages quote the caller's own text.
fn bounded(message: &str) -> String {
    message.chars().take(300).collect()
}

impl Call {
    /// Gives the call an id. Without a caller, which cannot happen, nothing is done for anybody.
    pub(super) fn begin(method: &'static str, extensions: &Extensions) -> Result<Call, ErrorObjectOwned> {
        let request_id = Arc::from(new_request_id());
        let Some(caller) = extensions.get::<Caller>().cloned() else {
            return Err(Failure::Internal("the connection has no caller".to_owned()).to_error(&request_id));
        };
        Ok(Call { caller, request_id, method, begun: Instant::now(), _slot: None })
    }

    /// Carries what every event of this call has in common.
    pub(super) fn span(&self) -> tracing::Span {
        tracing::info_span!(
            "call",
            scorpio_request_id = &*self.request_id,
            scorpio_uid = self.caller.uid(),
            method = self.method
        )
    }

    /// Says how the call went, to the journal and the caller.
    pub(super) fn finish<R>(&self, outcome: Result<R, Failure>) -> Result<R, ErrorObjectOwned> {
        let duration_us = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        match outcome {
            Ok(result) => {
                tracing::debug!(duration_us, "done");
                Ok(result)
            }
            Err(failure) => {
                log(&failure, duration_us);
                Err(failure.to_error(&self.request_id))
            }
        }
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.caller.peer.identity
    }
}

/// 48 random bits: enough to find one request in a journal.
fn new_request_id() -> String {
    let mut bytes = [0_u8; 6];
    // Fails only before the random pool is ready, at early boot; an id of zeros is as good as none.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn log(failure: &Failure, duration_us: u64) {
    let explained = failure.explain();
    match (&failure, explained.kind) {
        (Failure::Refused { action, refusal: Refusal::Unavailable { .. } }, _) => {
            tracing::warn!(message_id = event::REFUSED, action = action.polkit_id(), "refused: {failure}");
        }
        (Failure::Refused { action, .. }, _) => {
            tracing::info!(message_id = event::REFUSED, action = action.polkit_id(), "refused: {failure}");
        }
        (_, ErrorKind::LimitReached) => {
            tracing::info!(message_id = event::LIMIT_REACHED, "refused: {failure}");
        }
        (_, ErrorKind::Internal) => tracing::warn!(duration_us, "failed: {failure}"),
        _ => tracing::debug!(duration_us, kind = ?explained.kind, "failed: {failure}"),
    }
}

impl Host {
    pub(super) fn new(services: Services, limits: RpcLimits, stopping: watch::Receiver<bool>) -> Host {
        let connections = limits.connections.saturating_add(limits.connections_for_root);
        let watchers_max = u32::try_from(connections)
            .unwrap_or(u32::MAX)
            .saturating_mul(limits.subscriptions_per_connection);
        let calls = SlotLimits {
            per_user: limits.calls_per_user,
            // As many as there may be connections that wait for one each, and a full share beyond.
            total: limits.connections.saturating_add(limits.calls_per_user),
            for_root: limits.calls_per_user,
        };
        Host {
            services,
            limits,
            started: Instant::now(),
            stopping,
            watchers: Arc::new(Semaphore::new(watchers_max as usize)),
            watchers_max,
            measuring: usage::Turns::default(),
            calls: Slots::new(calls),
        }
    }

    /// Counts the call against its user until all its clones are dropped.
    pub(super) fn admit(&self, call: Call) -> Result<Call, Failure> {
        let uid = call.caller.uid();
        let slot = self.calls.take(uid).map_err(|full| match full {
            Full::User => Failure::TooManyCalls { uid, limit: self.limits.calls_per_user },
            Full::Host => Failure::TooManyCallsOfAll,
        })?;
        Ok(Call { _slot: Some(Arc::new(slot)), ..call })
    }

    /// Whether the policy lets the caller do `action`.
    pub(super) async fn authorize(&self, caller: &Caller, action: Action) -> Result<(), Failure> {
        let answer = self.services.authorizer.now().authorize(caller, action).await;
        answer.map_err(|refusal| Failure::Refused { action, refusal })
    }

    /// Whose workspaces a call about `id` is about: the caller's own, or everybody's when it is somebody else's and
    /// the policy allows that. The policy is asked only then; a refusal looks as if there were no such workspace.
    pub(super) async fn scope_of(&self, caller: &Caller, id: &WorkspaceId) -> Result<Scope, Failure> {
        let own = Scope::User(caller.uid());
        match self.services.workspaces.get(&own, id) {
            Ok(_) => return Ok(own),
            Err(WorkspaceError::NoSuchWorkspace(_)) => {}
            Err(other) => return Err(other.into()),
        }
        self.services.workspaces.get(&Scope::Everybody, id)?;
        match self.authorize(caller, Action::ManageOthers).await {
            Ok(()) => Ok(Scope::Everybody),
            Err(failure) => {
                tracing::info!(
                    message_id = event::REFUSED,
                    scorpio_workspace = %id,
                    action = Action::ManageOthers.polkit_id(),
                    "refused as if there were no such workspace: {failure}"
                );
                Err(WorkspaceError::NoSuchWorkspace(id.clone()).into())
            }
        }
    }

    /// Whether somebody may mount an origin; one that does not exist is one that nobody may. A view of a single user is
    /// that user's alone.
    pub(super) async fn may_mount(&self, identity: &Identity, origin: &OriginName) -> bool {
        let origins = self.services.origins.now();
        let Some(config) = origins.get(&origin.configured()) else { return false };
        if identity.is_root() {
            return true;
        }
        let is_mine = origin.user().is_none_or(|uid| uid == identity.uid);
        is_mine && self.services.accounts.admit(&config.allow, identity).await
    }

    /// The origin as `uid` reads it.
    pub(super) fn view_of(&self, origin: &OriginName, uid: u32) -> OriginName {
        let origins = self.services.origins.now();
        let config = origins.get(&origin.configured());
        match config.map(OriginConfig::read_with) {
            Some(ReadWith::User) => origin.of_user(uid),
            Some(ReadWith::Service) | None => origin.configured(),
        }
    }

    /// Refuses a mount for a caller whose paths mean something else than ours.
    pub(super) async fn require_our_file_system(&self, caller: &Caller) -> Result<(), Failure> {
        let peer = Arc::clone(&caller.peer);
        let place = tokio::task::spawn_blocking(move || peer.place()).await;
        match place.map_err(std::io::Error::other).and_then(|place| place) {
            Ok(Place::Same) => Ok(()),
            Ok(Place::Elsewhere) => Err(Failure::Elsewhere),
            Ok(Place::Ended) => Err(Failure::CallerEnded),
            Err(error) => {
                Err(Failure::Internal(format!("the caller's mount namespace cannot be told: {error}")))
            }
        }
    }

    /// Runs work that must be done once begun, whether or not the caller waits for it. It counts against the caller
    /// until it is done.
    pub(super) async fn finish<T: Send + 'static>(
        &self,
        call: &Call,
        work: impl Future<Output = Result<T, WorkspaceError>> + Send + 'static,
    ) -> Result<T, Failure> {
        let call = call.clone();
        let span = tracing::Span::current();
        let task = tokio::spawn(
            async move {
                let outcome = work.await;
                drop(call);
                outcome
            }
            .instrument(span),
        );
        match task.await {
            Ok(outcome) => outcome.map_err(Failure::from),
            Err(error) => Err(Failure::Internal(format!("the work broke off: {error}"))),
        }
    }

    /// Runs a synchronous question to the layers below, which may read a disk, on a thread of its own.
    pub(super) async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        question: impl FnOnce(&Services) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let host = Arc::clone(self);
        let answer = tokio::task::spawn_blocking(move || question(&host.services)).await;
        answer.map_err(|error| Failure::Internal(format!("the question broke off: {error}")))
    }
}
