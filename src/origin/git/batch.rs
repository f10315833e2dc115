//! [`Batch`]: many wants answered by several threads, each in its place.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::oneshot;

use super::{
    error::ReadError,
    pool::Job,
    reader::{Reader, View},
};
use crate::types::Oid;

/// Wants a thread takes at once: enough that looking at the repository anew for each part costs little, few enough that a
/// batch of thousands does not keep a single want waiting.
const PART: usize = 32;

/// Reads one object.
pub(super) type Read<T> = fn(&mut Reader, &mut View, Oid) -> Result<T, ReadError>;

/// What became of each want, in the order asked.
pub(super) type Answers<T> = Vec<Result<T, ReadError>>;

struct Batch<T> {
    wants: Vec<Oid>,
    read: Read<T>,
    next: AtomicUsize,
    progress: Mutex<Progress<T>>,
}

struct Progress<T> {
    answers: Vec<Option<Result<T, ReadError>>>,
    missing: usize,
    asker: Option<oneshot::Sender<Answers<T>>>,
}

/// One thread's share in a batch: it takes parts until none is left.
pub(super) struct Ticket<T>(Arc<Batch<T>>);

/// Tickets for up to `threads` threads that answer all `wants`, and where the answers come. Should all tickets be dropped, the
/// receiver fails.
pub(super) fn tickets<T: Send + 'static>(
    wants: Vec<Oid>,
    threads: usize,
    read: Read<T>,
) -> (Vec<Ticket<T>>, oneshot::Receiver<Answers<T>>) {
    let (asker, answers) = oneshot::channel();
    let progress =
        Progress { answers: wants.iter().map(|_| None).collect(), missing: wants.len(), asker: Some(asker) };
    let count = wants.len().div_ceil(PART).min(threads);
    let batch = Batch { wants, read, next: AtomicUsize::new(0), progress: Mutex::new(progress) };
    let batch = Arc::new(batch);
    ((0..count).map(|_| Ticket(batch.clone())).collect(), answers)
}

impl<T: Send + 'static> Job<Reader> for Ticket<T> {
    fn run(self: Box<Self>, reader: &mut Reader) -> Option<Box<dyn Job<Reader>>> {
        let first = self.0.next.fetch_add(PART, Ordering::Relaxed);
        let last = self.0.wants.len().min(first.saturating_add(PART));
        if first >= last {
            return None;
        }
        let answers = self.0.part(reader, &self.0.wants[first..last]);
        self.0.note(first, answers);
        Some(self)
    }

    fn is_abandoned(&self) -> bool {
        self.0.is_abandoned()
    }
}

impl<T> Batch<T> {
    fn part(&self, reader: &mut Reader, wants: &[Oid]) -> Answers<T> {
        let mut view = match reader.view() {
            Ok(view) => view,
            Err(error) => return wants.iter().map(|_| Err(error.clone().into())).collect(),
        };
        wants.iter().map(|oid| self.one(reader, &mut view, *oid)).collect()
    }

    /// Reads one object. What its owner has put in a pack may make the decoder panic; that is this object's damage.
    fn one(&self, reader: &mut Reader, view: &mut View, oid: Oid) -> Result<T, ReadError> {
        let read = catch_unwind(AssertUnwindSafe(|| (self.read)(reader, view, oid)));
        read.unwrap_or_else(|_| {
            reader.forget();
            Err(ReadError::Damaged("it could not be decoded".to_owned()))
        })
    }

    fn note(&self, first: usize, answers: Answers<T>) {
        let mut progress = self.progress();
        progress.missing -= answers.len();
        let places = progress.answers.iter_mut().skip(first);
        places.zip(answers).for_each(|(place, answer)| *place = Some(answer));
        if progress.missing == 0 {
            let answers = std::mem::take(&mut progress.answers).into_iter().flatten().collect();
            if let Some(asker) = progress.asker.take() {
                // Who has gone meanwhile needs no answer.
                let _ = asker.send(answers);
            }
        }
    }

    fn is_abandoned(&self) -> bool {
        self.progress().asker.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn progress(&self) -> MutexGuard<'_, Progress<T>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
