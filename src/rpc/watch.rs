//! `workspace.watch`: what there is, then what changes, then an end.
//!
//! Every subscription that was accepted ends with [`WorkspaceEvent::End`]; a client that does not get one knows that
//! the connection broke. A slow reader loses changes, is told how many, and is then told again what there is; one that
//! does not read at all is cut off by the connection's write timeout.

use std::{collections::BTreeSet, sync::Arc};

use jsonrpsee::{
    Extensions, PendingSubscriptionSink, SubscriptionCloseResponse, SubscriptionMessage, SubscriptionSink,
    types::Params,
};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tracing::Instrument;

use super::{
    failure::Failure,
    module::{Call, Host, parse},
    requests, views,
};
use crate::{
    antares::{Event, Scope, Workspace},
    api::{WatchWorkspaces, WorkspaceEvent, method},
    types::WorkspaceId,
};

/// What one subscription is about.
struct Watched {
    scope: Scope,
    only: Option<WorkspaceId>,
}

/// Why there are no more events.
enum Over {
    /// The workspace that was watched is gone.
    Gone,
    /// The daemon stops.
    Stopping,
    /// The client does not want any more.
    Unsubscribed,
    /// Nobody is there to be told.
    Disconnected,
}

pub(super) async fn watch(
    params: Params<'static>,
    pending: PendingSubscriptionSink,
    host: Arc<Host>,
    extensions: Extensions,
) -> SubscriptionCloseResponse {
    let call = match Call::begin(method::WORKSPACE_WATCH, &extensions) {
        Ok(call) => call,
        Err(error) => return reject(pending, error).await,
    };
    let span = call.span();
    async move {
        let permit = Arc::clone(&host.watchers).try_acquire_owned();
        let begun = match permit {
            Ok(permit) => begin(&host, &call, &params).await.map(|watched| (watched, permit)),
            Err(_) => Err(Failure::Internal("there are too many subscriptions".to_owned())),
        };
        match call.finish(begun) {
            Ok((watched, _permit)) => follow(&host, watched, pending).await,
            Err(error) => reject(pending, error).await,
        }
    }
    .instrument(span)
    .await
}

async fn reject(
    pending: PendingSubscriptionSink,
    error: jsonrpsee::types::ErrorObjectOwned,
) -> SubscriptionCloseResponse {
    pending.reject(error).await;
    SubscriptionCloseResponse::None
}

async fn begin(host: &Host, call: &Call, params: &Params<'static>) -> Result<Watched, Failure> {
    let params: WatchWorkspaces = parse(params)?;
    let Some(id) = params.id else {
        return Ok(Watched { scope: Scope::User(call.caller.uid()), only: None });
    };
    let id = requests::workspace_id(&id)?;
    let scope = host.scope_of(&call.caller, &id).await?;
    Ok(Watched { scope, only: Some(id) })
}

async fn follow(
    host: &Host,
    watched: Watched,
    pending: PendingSubscriptionSink,
) -> SubscriptionCloseResponse {
    // Before the first look: what changes in between is told twice rather than never.
    let changes = host.services.workspaces.watch();
    let Ok(sink) = pending.accept().await else {
        return SubscriptionCloseResponse::None;
    };
    let mut stopping = host.stopping.clone();
    let same_sink = sink.clone();
    let mut feed = Feed { host, watched, told: BTreeSet::new(), sink };
    let over = tokio::select! {
        over = feed.run(changes) => over,
        () = same_sink.closed() => Over::Unsubscribed,
        _ = stopping.wait_for(|stopping| *stopping) => Over::Stopping,
    };
    feed.end(&over).await
}

struct Feed<'a> {
    host: &'a Host,
    watched: Watched,
    /// Ids that were told and are not known to be gone: a workspace that is gone no longer says whose it was.
    told: BTreeSet<WorkspaceId>,
    sink: SubscriptionSink,
}

impl Feed<'_> {
    async fn run(&mut self, mut changes: Receiver<Event>) -> Over {
        let mut outcome = self.tell_all().await;
        loop {
            if let Err(over) = outcome {
                return over;
            }
            outcome = match changes.recv().await {
                Ok(event) => self.change(event).await,
                Err(RecvError::Lagged(missed)) => self.catch_up(missed).await,
                Err(RecvError::Closed) => return Over::Stopping,
            };
        }
    }

    /// Tells what there is, and which of those told before are gone.
    async fn tell_all(&mut self) -> Result<(), Over> {
        let present = self.present();
        let ids: BTreeSet<_> = present.iter().map(|workspace| workspace.id.clone()).collect();
        let gone: Vec<_> = self.told.difference(&ids).cloned().collect();
        for id in gone {
            self.gone(id).await?;
        }
        for workspace in present {
            self.state(workspace).await?;
        }
        match &self.watched.only {
            Some(only) if !ids.contains(only) => Err(Over::Gone),
            _ => Ok(()),
        }
    }

    fn present(&self) -> Vec<Workspace> {
        let workspaces = &self.host.services.workspaces;
        match &self.watched.only {
            Some(id) => workspaces.get(&self.watched.scope, id).into_iter().collect(),
            None => workspaces.list(&self.watched.scope),
        }
    }

    async fn catch_up(&mut self, missed: u64) -> Result<(), Over> {
        self.tell(&WorkspaceEvent::Lagged { missed }).await?;
        self.tell_all().await
    }

    async fn change(&mut self, event: Event) -> Result<(), Over> {
        match event.workspace {
            Some(workspace) if self.concerns(&workspace) => self.state(workspace).await,
            // Gone, or given to somebody else, which looks the same.
            _ if self.told.contains(&event.id) => self.gone(event.id).await,
            _ => Ok(()),
        }
    }

    fn concerns(&self, workspace: &Workspace) -> bool {
        let in_scope = match self.watched.scope {
            Scope::User(uid) => workspace.owner.uid == uid,
            Scope::Everybody => true,
        };
        in_scope && self.watched.only.as_ref().is_none_or(|only| *only == workspace.id)
    }

    async fn state(&mut self, workspace: Workspace) -> Result<(), Over> {
        self.told.insert(workspace.id.clone());
        let workspace = views::workspace(workspace, &self.host.services.accounts).await;
        self.tell(&WorkspaceEvent::State { workspace }).await
    }

    async fn gone(&mut self, id: WorkspaceId) -> Result<(), Over> {
        self.told.remove(&id);
        self.tell(&WorkspaceEvent::Gone { id: id.to_string() }).await?;
        if self.watched.only.as_ref() == Some(&id) { Err(Over::Gone) } else { Ok(()) }
    }

    /// Waits while the connection's buffer is full.
    async fn tell(&self, event: &WorkspaceEvent) -> Result<(), Over> {
        let Some(message) = message(event) else { return Err(Over::Disconnected) };
        self.sink.send(message).await.map_err(|_| Over::Disconnected)
    }

    async fn end(self, over: &Over) -> SubscriptionCloseResponse {
        let reason = match over {
            Over::Gone => "gone",
            Over::Stopping => "stopping",
            Over::Unsubscribed => "unsubscribed",
            Over::Disconnected => return SubscriptionCloseResponse::None,
        };
        let end = WorkspaceEvent::End { reason: reason.to_owned() };
        let Some(message) = message(&end) else { return SubscriptionCloseResponse::None };
        // A sink that was unsubscribed takes nothing more itself; what is returned is sent all the same.
        match self.sink.send(message.clone()).await {
            Ok(()) => SubscriptionCloseResponse::None,
            Err(_) => SubscriptionCloseResponse::Notif(message),
        }
    }
}

fn message(event: &WorkspaceEvent) -> Option<SubscriptionMessage> {
    match serde_json::value::to_raw_value(event) {
        Ok(json) => Some(json.into()),
        Err(error) => {
            tracing::error!(%error, "an event cannot be written as JSON");
            None
        }
    }
}
