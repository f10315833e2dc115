//! The tasks that act on workspaces, so that somebody stops and joins them.
//!
//! What a caller asks for runs in a task of its own: a caller that goes away does not leave a workspace half-way.

use std::{future::Future, sync::Mutex, time::Duration};

use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};

use super::{WorkspaceError, table::lock};

/// How long a driver waits to hear that its answer arrived. The answer is in the caller's hands at once or never; this
/// only bounds what a caller that is neither polled nor dropped can hold up.
const ACCEPTANCE: Duration = Duration::from_secs(5);

/// Running tasks. Aborted when dropped.
#[derive(Default)]
pub(super) struct Tasks {
    running: Mutex<JoinSet<()>>,
}

impl Tasks {
    /// Starts a task.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut running = lock(&self.running);
        while let Some(ended) = running.try_join_next() {
            if let Err(error) = ended {
                tracing::warn!(%error, "a task that acted on a workspace broke off");
            }
        }
        running.spawn(task);
    }

    /// Runs `task` to its end, whether or not this future is kept.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, WorkspaceError>> + Send + 'static,
    ) -> Result<T, WorkspaceError> {
        let (sender, receiver) = oneshot::channel();
        self.spawn(async move {
            // Without a receiver nobody wants to know.
            let _ = sender.send(task.await);
        });
        receiver.await.unwrap_or(Err(WorkspaceError::Stopping))
    }

    /// Ends all tasks.
    pub(super) async fn abort(&self) {
        let mut running = std::mem::take(&mut *lock(&self.running));
        running.shutdown().await;
    }
}

/// The caller's side of a creation: dropping it takes the creation back.
pub(super) struct Caller<T> {
    answer: oneshot::Receiver<T>,
    accept: oneshot::Sender<()>,
}

/// The driver's side of a creation.
pub(super) struct Driver<T> {
    answer: oneshot::Sender<T>,
    pub(super) patience: Patience,
}

/// Ends when nobody waits for the outcome any more.
pub(super) struct Patience {
    caller: Option<oneshot::Receiver<()>>,
    stopping: watch::Receiver<bool>,
}

/// Both sides of a creation.
pub(super) fn call<T>(stopping: watch::Receiver<bool>) -> (Caller<T>, Driver<T>) {
    let (send, answer) = oneshot::channel();
    let (accept, accepted) = oneshot::channel();
    let patience = Patience { caller: Some(accepted), stopping };
    (Caller { answer, accept }, Driver { answer: send, patience })
}

impl<T> Caller<T> {
    /// The answer; `None` when the driver broke off. Between the answer's arrival and its return there is no point at
    /// which this future could be dropped.
    pub(super) async fn answer(self) -> Option<T> {
        let answer = self.answer.await.ok()?;
        // A driver that does not listen has failed and has nothing to take back.
        let _ = self.accept.send(());
        Some(answer)
    }
}

impl<T> Driver<T> {
    /// Hands over the answer; says whether it arrived.
    pub(super) async fn hand_over(self, answer: T) -> bool {
        if self.answer.send(answer).is_err() {
            return false;
        }
        let Some(accepted) = self.patience.caller else { return false };
        !matches!(tokio::time::timeout(ACCEPTANCE, accepted).await, Ok(Err(_)))
    }
}

impl Patience {
    /// Of somebody who only stops waiting when the daemon stops.
    pub(super) fn of_daemon(stopping: watch::Receiver<bool>) -> Patience {
        Patience { caller: None, stopping }
    }

    /// Returns when the caller is gone or the daemon stops.
    pub(super) async fn ends(&mut self) {
        let stopping = self.stopping.wait_for(|stopping| *stopping);
        match &mut self.caller {
            Some(caller) => tokio::select! {
                _ = caller => self.caller = None,
                _ = stopping => {}
            },
            // An error means that the daemon itself is gone.
            None => drop(stopping.await),
        }
    }
}
