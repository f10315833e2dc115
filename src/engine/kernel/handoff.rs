//! An operation that outlives its caller: the caller may stop waiting at any moment, and the operation learns of it,
//! whether before or after it was done. That is how a dropped future leaves no mount.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;

/// Becomes readable when the caller is gone. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Abandoned(Arc<OwnedFd>);

/// The waiting side.
pub(super) struct Caller<T> {
    result: oneshot::Receiver<T>,
    taken: Option<oneshot::Sender<()>>,
    abandoned: Abandoned,
}

/// The working side.
pub(super) struct Operation<T> {
    result: oneshot::Sender<T>,
    taken: oneshot::Receiver<()>,
    pub(super) abandoned: Abandoned,
}

/// Two sides of one operation.
pub(super) fn handoff<T>() -> std::io::Result<(Caller<T>, Operation<T>)> {
    let abandoned = Abandoned(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?));
    let (send_result, result) = oneshot::channel();
    let (send_taken, taken) = oneshot::channel();
    let caller = Caller { result, taken: Some(send_taken), abandoned: abandoned.clone() };
    Ok((caller, Operation { result: send_result, taken, abandoned }))
}

impl<T> Caller<T> {
    /// The result; `None` when the operation ended without one.
    pub(super) async fn wait(mut self) -> Option<T> {
        let result = (&mut self.result).await.ok();
        if let Some(taken) = self.taken.take() {
            // Fails only when the operation is gone, and then nobody wants to know.
            let _ = taken.send(());
        }
        result
    }
}

impl<T> Drop for Caller<T> {
    fn drop(&mut self) {
        if self.taken.is_some() {
            // Cannot fail: the counter is far from its limit.
            let _ = rustix::io::write(&self.abandoned.0, &1_u64.to_ne_bytes());
        }
    }
}

impl<T> Operation<T> {
    /// Hands the result over; says whether the caller took it.
    pub(super) async fn finish(self, result: T) -> bool {
        self.result.send(result).is_ok() && self.taken.await.is_ok()
    }
}

impl AsFd for Abandoned {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_abandoned(abandoned: &Abandoned) -> bool {
        rustix::io::read(abandoned, &mut [0_u8; 8]).is_ok()
    }

    #[tokio::test]
    async fn a_result_that_was_taken_is_final() {
        let (caller, operation) = handoff().unwrap();
        let abandoned = operation.abandoned.clone();
        let done = tokio::spawn(operation.finish(7));
        assert_eq!(caller.wait().await, Some(7));
        assert!(done.await.unwrap());
        assert!(!is_abandoned(&abandoned));
    }

    #[tokio::test]
    async fn a_caller_that_left_is_noticed_before_and_after_the_result() {
        let (caller, operation) = handoff::<u8>().unwrap();
        drop(caller);
        assert!(is_abandoned(&operation.abandoned));
        assert!(!operation.finish(1).await);

        let (caller, operation) = handoff::<u8>().unwrap();
        let done = tokio::spawn(operation.finish(1));
        tokio::task::yield_now().await;
        drop(caller);
        assert!(!done.await.unwrap());
    }
}
