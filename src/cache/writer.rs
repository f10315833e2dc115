//! The one thread that writes to the database: all that is queued goes into one transaction.
//!
//! Jobs are applied in the order they were queued. A transaction that fails is tried again job by job, so that one that
//! does not fit takes no other with it; what then fails is told to whoever waits for it. The queue is bounded: those who
//! put wait for room, readers who only report damage do not (they will meet it again).

use std::{sync::Arc, thread::JoinHandle, time::SystemTime};

use bytes::Bytes;
use heed::RwTxn;
use tokio::sync::{mpsc, oneshot};

use super::{
    database::{Database, Found, put_sealed},
    objects::Objects,
    record::{self, Place, Record, Totals},
    word::{self, OriginNumber, Word},
};
use crate::types::{Oid, OriginName};

/// Jobs waiting: more would only hold more content in memory, the disk being what is waited for.
const QUEUE: usize = 256;

/// Content in one transaction. Its pages are in memory until the commit; beyond it another transaction costs little.
const BATCH_BYTES: usize = 8 << 20;

/// One change.
#[derive(Debug)]
pub(super) enum Step {
    /// The origin has this number: first in every job that names it, so that no word is kept of a number nobody has.
    Origin(OriginName, OriginNumber),
    /// The origin delivered this tree.
    Tree(OriginNumber, Oid, Bytes),
    /// The origin delivered this blob, which is kept in the database.
    Inline(OriginNumber, Oid, Bytes),
    /// The origin delivered the blob, and its file has been written.
    File(OriginNumber, Oid, u64),
    /// The origin delivered the blob, whose file was here already.
    Held(OriginNumber, Oid, u64),
    /// The origin says that the blob has this size.
    Size(OriginNumber, Oid, u64),
    /// The file of an earlier epoch has been found to be right.
    Confirm(Oid),
    /// Drop the tree if it is damaged.
    DamagedTree(Oid),
    /// Drop the blob's content if it is damaged; `true` when its file has been found to be wrong.
    DamagedBlob(Oid, bool),
    /// Drop the word if it is damaged.
    DamagedWord(OriginNumber, Oid),
}

type Outcome = Result<(), Arc<heed::Error>>;

/// Steps that become visible together, and who waits for that.
pub(super) struct Job {
    pub(super) steps: Vec<Step>,
    pub(super) done: Option<oneshot::Sender<Outcome>>,
}

/// The thread and the way to it. Dropping it lets the queue run empty and joins the thread.
pub(super) struct Writer {
    queue: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread works with.
pub(super) struct Desk {
    pub(super) database: Database,
    pub(super) objects: Objects,
    pub(super) epoch: u32,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(desk: Desk) -> std::io::Result<Writer> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("cache-writer".into()).spawn(move || desk.run(jobs))?;
        Ok(Writer { queue: Some(queue), thread: Some(thread) })
    }

    /// Queues steps and waits until they are visible. `None` when the thread is gone.
    pub(super) async fn write(&self, steps: Vec<Step>) -> Option<Outcome> {
        let (done, outcome) = oneshot::channel();
        self.queue.as_ref()?.send(Job { steps, done: Some(done) }).await.ok()?;
        outcome.await.ok()
    }

    /// Queues a step if there is room, without waiting for anything.
    pub(super) fn note(&self, step: Step) {
        let job = Job { steps: vec![step], done: None };
        let sent = self.queue.as_ref().map(|queue| queue.try_send(job));
        if let Some(Err(why)) = sent {
            tracing::debug!(error = %why, "no room to note damage in the cache; it will be met again");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the cache writer had panicked");
        }
    }
}

impl Job {
    fn bytes(&self) -> usize {
        let of_step = |step: &Step| match step {
            Step::Tree(_, _, content) | Step::Inline(_, _, content) => content.len(),
            _ => 0,
        };
        self.steps.iter().map(of_step).sum()
    }

    fn finish(self, outcome: Outcome) {
        match (self.done, outcome) {
            // Whoever put may have stopped waiting; what was written stays.
            (Some(done), outcome) => drop(done.send(outcome)),
            (None, Err(why)) => tracing::warn!(error = %why, "damage in the cache could not be cleared"),
            (None, Ok(())) => {}
        }
    }
}

impl Desk {
    fn run(self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            self.work(gather(first, &mut jobs));
        }
    }

    fn work(&self, batch: Vec<Job>) {
        let whole = self.transact(&batch);
        let alone = whole.is_err() && batch.len() > 1;
        for job in batch {
            let outcome = if alone { self.transact(std::slice::from_ref(&job)) } else { whole.clone() };
            if outcome.is_err() {
                self.drop_orphans(&job);
            }
            job.finish(outcome);
        }
    }

    fn transact(&self, batch: &[Job]) -> Outcome {
        let mut txn = self.database.env.write_txn()?;
        let before = self.database.totals(&txn)?.unwrap_or_default();
        let mut totals = before;
        for step in batch.iter().flat_map(|job| &job.steps) {
            self.apply(&mut txn, &mut totals, step)?;
        }
        if totals != before {
            self.database.put_totals(&mut txn, totals)?;
        }
        Ok(txn.commit()?)
    }

    fn apply(&self, txn: &mut RwTxn, totals: &mut Totals, step: &Step) -> Result<(), heed::Error> {
        let mut change = Change { desk: self, txn, totals };
        match step {
            Step::Origin(name, number) => self.database.put_origin(change.txn, name, *number),
            Step::Tree(origin, oid, body) => change.keep_tree(*origin, *oid, body),
            Step::Inline(origin, oid, content) => change.keep_inline(*origin, *oid, content),
            Step::File(origin, oid, size) => change.keep_file(*origin, *oid, *size),
            Step::Held(origin, oid, size) => change.has_delivered(*origin, *oid, *size),
            Step::Size(origin, oid, size) => change.note_size(*origin, *oid, *size),
            Step::Confirm(oid) => change.confirm(*oid),
            Step::DamagedTree(oid) => change.drop_damaged_tree(*oid),
            Step::DamagedBlob(oid, file) => change.drop_damaged_blob(*oid, *file),
            Step::DamagedWord(origin, oid) => change.drop_damaged_word(*origin, *oid),
        }
    }

    /// A file that the index does not know would take space for ever.
    fn drop_orphans(&self, job: &Job) {
        for step in &job.steps {
            if let Step::File(_, oid, _) = step
                && !self.is_indexed_file(*oid)
                && let Err(why) = self.objects.remove(*oid)
            {
                tracing::warn!(oid = %oid, error = %why, "a file of the cache could not be removed");
            }
        }
    }

    /// In doubt it is: the file then stays.
    fn is_indexed_file(&self, oid: Oid) -> bool {
        let found = self.database.env.read_txn().and_then(|txn| self.database.record(&txn, oid));
        !matches!(&found, Ok(Found::Nothing | Found::Damaged))
            && !matches!(&found, Ok(Found::Known(record)) if record.place != Place::File)
    }
}

/// All that waits already, up to the bounds of one transaction.
fn gather(first: Job, jobs: &mut mpsc::Receiver<Job>) -> Vec<Job> {
    let mut bytes = first.bytes();
    let mut batch = vec![first];
    while bytes < BATCH_BYTES
        && batch.len() < QUEUE
        && let Ok(job) = jobs.try_recv()
    {
        bytes += job.bytes();
        batch.push(job);
    }
    batch
}

/// One step on its way into a transaction.
struct Change<'a, 'txn> {
    desk: &'a Desk,
    txn: &'a mut RwTxn<'txn>,
    totals: &'a mut Totals,
}

impl Change<'_, '_> {
    fn keep_tree(&mut self, origin: OriginNumber, oid: Oid, body: &[u8]) -> Result<(), heed::Error> {
        let trees = self.desk.database.trees;
        let there = trees.get(self.txn, oid.as_bytes())?;
        if there.and_then(|value| record::unseal(oid.as_bytes(), value)) != Some(body) {
            put_sealed(trees, self.txn, oid.as_bytes(), body)?;
        }
        let word = self.word(origin, oid)?;
        self.desk.database.put_word(self.txn, origin, oid, Word { tree: true, ..word })
    }

    fn keep_inline(&mut self, origin: OriginNumber, oid: Oid, content: &[u8]) -> Result<(), heed::Error> {
        let (blobs, size) = (self.desk.database.blobs, content.len() as u64);
        let there = blobs.get(self.txn, oid.as_bytes())?;
        let is_there = there.and_then(|value| record::unseal(oid.as_bytes(), value)) == Some(content);
        let is_listed = |known: Record| known.place == Place::Inline && known.size == size;
        if !is_there || !self.known(oid)?.is_some_and(is_listed) {
            put_sealed(blobs, self.txn, oid.as_bytes(), content)?;
            self.keep_record(oid, Place::Inline, size)?;
        }
        self.has_delivered(origin, oid, size)
    }

    fn keep_file(&mut self, origin: OriginNumber, oid: Oid, size: u64) -> Result<(), heed::Error> {
        // It may have been inline, when blobs of its size were.
        self.desk.database.blobs.delete(self.txn, oid.as_bytes())?;
        self.keep_record(oid, Place::File, size)?;
        self.has_delivered(origin, oid, size)
    }

    /// Records verified content.
    fn keep_record(&mut self, oid: Oid, place: Place, size: u64) -> Result<(), heed::Error> {
        let (before, epoch) = (self.known(oid)?, self.desk.epoch);
        let record = Record { place, size, epoch, last_use: today() };
        self.desk.database.put_record(self.txn, oid, record)?;
        if let Some(before) = before {
            self.totals.remove(&before);
        }
        self.totals.add(&record);
        Ok(())
    }

    /// From now on the blob is here for this origin too.
    fn has_delivered(&mut self, origin: OriginNumber, oid: Oid, size: u64) -> Result<(), heed::Error> {
        let before = self.word(origin, oid)?;
        if let Some(said) = before.size.filter(|said| *said != size) {
            tracing::warn!(oid = %oid, size, said, "a blob does not have the size its origin gave it: reads of it fail until the next boot");
        }
        self.desk.database.put_word(self.txn, origin, oid, before.with_blob(size, self.desk.epoch))
    }

    /// The first word on a size stands until content corrects it: it may have been given out.
    fn note_size(&mut self, origin: OriginNumber, oid: Oid, size: u64) -> Result<(), heed::Error> {
        let word = self.word(origin, oid)?;
        match word.size {
            None => self.desk.database.put_word(self.txn, origin, oid, Word { size: Some(size), ..word }),
            Some(known) => {
                if known != size {
                    tracing::warn!(oid = %oid, size, known, "an origin gave another size for a blob: it is ignored");
                }
                Ok(())
            }
        }
    }

    fn confirm(&mut self, oid: Oid) -> Result<(), heed::Error> {
        match self.known(oid)? {
            Some(known) if known.epoch != self.desk.epoch => {
                let epoch = self.desk.epoch;
                self.desk.database.put_record(self.txn, oid, Record { epoch, ..known })
            }
            _ => Ok(()),
        }
    }

    fn drop_damaged_tree(&mut self, oid: Oid) -> Result<(), heed::Error> {
        let trees = self.desk.database.trees;
        if is_damaged(trees.get(self.txn, oid.as_bytes())?, oid) {
            trees.delete(self.txn, oid.as_bytes())?;
        }
        Ok(())
    }

    fn drop_damaged_blob(&mut self, oid: Oid, file_is_wrong: bool) -> Result<(), heed::Error> {
        let database = &self.desk.database;
        let value = database.blobs.get(self.txn, oid.as_bytes())?;
        let is_here = value.is_some();
        let value_is_wrong = is_damaged(value, oid);
        let before = match database.record(self.txn, oid)? {
            Found::Nothing => return Ok(()),
            Found::Damaged => {
                // What it counted for can no longer be told; the totals are summed anew at the next boot.
                database.blobs.delete(self.txn, oid.as_bytes())?;
                database.index.delete(self.txn, oid.as_bytes())?;
                return Ok(());
            }
            Found::Known(before) => before,
        };
        let is_wrong = match before.place {
            Place::Inline => value_is_wrong || !is_here,
            Place::File => {
                // A file written since then is not the one that was found to be wrong.
                let is_old = before.epoch != self.desk.epoch;
                let probed = self.desk.objects.probe(oid, before.size);
                (file_is_wrong && is_old) || probed.is_err_and(|fault| fault.is_damage())
            }
        };
        if is_wrong {
            database.blobs.delete(self.txn, oid.as_bytes())?;
            database.index.delete(self.txn, oid.as_bytes())?;
            self.totals.remove(&before);
        }
        Ok(())
    }

    fn drop_damaged_word(&mut self, origin: OriginNumber, oid: Oid) -> Result<(), heed::Error> {
        if matches!(self.desk.database.word(self.txn, origin, oid)?, Found::Damaged) {
            self.desk.database.words.delete(self.txn, &word::key(origin, oid))?;
        }
        Ok(())
    }

    fn known(&self, oid: Oid) -> Result<Option<Record>, heed::Error> {
        Ok(match self.desk.database.record(self.txn, oid)? {
            Found::Known(record) => Some(record),
            Found::Nothing | Found::Damaged => None,
        })
    }

    fn word(&self, origin: OriginNumber, oid: Oid) -> Result<Word, heed::Error> {
        Ok(match self.desk.database.word(self.txn, origin, oid)? {
            Found::Known(word) => word,
            Found::Nothing | Found::Damaged => Word::default(),
        })
    }
}

fn is_damaged(value: Option<&[u8]>, oid: Oid) -> bool {
    value.is_some_and(|value| record::unseal(oid.as_bytes(), value).is_none())
}

/// Days since 1970; enough until 2149.
fn today() -> u16 {
    const DAY_SECONDS: u64 = 86_400;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u16::try_from(since.as_secs() / DAY_SECONDS).unwrap_or(u16::MAX)
}
