//! What a worker thread does: read a message, have it answered, again. It never waits for an answer.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::{
    Answer, Answered, Asker, FileSystem, User,
    abi::InHeader,
    counters::Counters,
    decode::{self, Request, Wish},
    device::{Device, Got, Waiter, Woken},
    encode::{self, Reply, Shape, Stamp},
    landing::Landing,
    park::{Park, Refusal, Taken},
    policy::{self, Policy},
    pulse::Pulse,
    repeat::Repeats,
    slots::{PlaceError, Slots, Ticket},
    throttle::Throttle,
};

/// How long a thread rests when the device fails in a way it does not know (out of memory, most likely). Long enough
/// not to burn a core, short enough that nobody notices.
const REST: Duration = Duration::from_millis(20);

/// How long an INTERRUPT that came before its question is held. The kernel sends it again at once.
const HOLD: Duration = Duration::from_micros(200);

/// What the threads and tasks of a session share.
pub(crate) struct Shared {
    pub(crate) device: Device,
    pub(crate) fs: Arc<dyn FileSystem>,
    pub(crate) park: Park,
    /// Where waiting requests are kept for a successor, if the kernel would not ask it again.
    pub(crate) slots: Option<Arc<Slots>>,
    pub(crate) repeats: Repeats,
    pub(crate) counters: Counters,
    pub(crate) stamp: Stamp,
    pub(crate) deadline: Duration,
    pub(crate) refusals: Throttle,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) pulse: Pulse,
    /// Whether the kernel has ended the session.
    pub(crate) over: watch::Sender<bool>,
}

/// A question that is not answered at once.
struct Unanswered {
    header: InHeader,
    user: User,
    shape: Shape,
    answer: BoxFuture<'static, Answer>,
    /// What it is answered with where it may not wait.
    hasty: Option<Answer>,
}

/// Serves until the session is stopped or over.
pub(crate) fn run(shared: &Arc<Shared>, number: usize, waiter: &Waiter, mut landing: Landing) {
    while !shared.device.is_stopped() {
        let step = shared.device.read(landing.cleared()).and_then(|got| match got {
            Got::Message(length) => {
                let _busy = shared.pulse.busy(number);
                shared.serve(&landing.bytes()[..length], &mut None);
                // Not only before the next read: that may be a long time off.
                landing.cleared();
                Ok(true)
            }
            Got::Nothing => waiter.wait(None).map(|woken| woken != Woken::Stop),
            Got::Over => Ok(false),
        });
        match step {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                tracing::warn!(%error, "reading the FUSE device failed");
                std::thread::sleep(REST);
            }
        }
    }
    let is_first = || shared.over.send_if_modified(|over| !std::mem::replace(over, true));
    if !shared.device.is_stopped() && is_first() {
        shared.park.close();
    }
}

impl Shared {
    /// Counts and answers one message. Whatever panics in it, the thread goes on and the asker gets EIO. If it has to wait
    /// it takes the `ticket` of a place that it has already, or gets one.
    pub(crate) fn serve(self: &Arc<Shared>, message: &[u8], ticket: &mut Option<Ticket>) {
        self.counters.read(message);
        let served = catch_unwind(AssertUnwindSafe(|| match decode::request(message) {
            Ok(request) => self.grant(&request, message, ticket),
            Err(error) => self.reject(message, error),
        }));
        if served.is_err() {
            self.counters.fault();
            let header = decode::header(message);
            tracing::error!(?header, "the file system panicked");
            if let Some(header) = header {
                self.answer(&header, &Reply::EIO);
            }
        }
    }

    fn reject(&self, message: &[u8], error: decode::DecodeError) {
        self.counters.malformed();
        let header = decode::header(message);
        tracing::warn!(?header, %error, "a FUSE message was not understood");
        if let Some(header) = header.filter(|header| policy::of(header.opcode).policy != Policy::Silent) {
            self.answer(&header, &Reply::EIO);
        }
    }

    fn grant(self: &Arc<Shared>, request: &Request<'_>, message: &[u8], ticket: &mut Option<Ticket>) {
        let header = &request.header;
        match request.wish {
            Wish::Ask(question) => {
                let (shape, asker) = (Shape::from(&question), Asker::of(header));
                let (answer, hasty) = match self.fs.ask(question, &asker) {
                    Answered::Now(answer) => return self.pass_on(header, shape, answer),
                    Answered::Later(answer) => (answer, None),
                    Answered::LaterOr(answer, hasty) => (answer, Some(hasty)),
                };
                let waiting = Unanswered { header: *header, user: asker.user(), shape, answer, hasty };
                self.let_wait(waiting, message, ticket);
            }
            Wish::Interrupt(unique) => self.take_back(header, unique),
            Wish::Silent => {}
            Wish::Done => self.answer(header, &Reply::DONE),
            Wish::Refuse(errno) => self.answer(header, &Reply::errno(errno)),
            // The handshake is over; the kernel never sends a second one.
            Wish::Init(_) => self.answer(header, &Reply::EIO),
        }
    }

    fn take_back(&self, header: &InHeader, unique: u64) {
        if let Some((taken, answer)) = self.park.interrupt(unique) {
            self.counters.interrupted();
            // Only look-ups have another answer than an errno.
            self.pass_on(&InHeader { unique, ..*header }, Shape::Lookup, answer);
            drop(taken);
        } else {
            // Another thread has read the question and is about to let it wait or to answer it. EAGAIN makes the
            // kernel repeat the INTERRUPT in the first case and is ignored in the second.
            std::thread::sleep(HOLD);
            self.answer(header, &Reply::errno(libc::EAGAIN));
        }
    }

    fn let_wait(self: &Arc<Shared>, waiting: Unanswered, message: &[u8], ticket: &mut Option<Ticket>) {
        let Unanswered { header, user, shape, answer, hasty } = waiting;
        if matches!(shape, Shape::Read { .. })
            && self.repeats.is_one(header.nodeid, header.pid, Instant::now())
        {
            return self.refuse(&header, &"it is asked again right after it had waited in vain");
        }
        match self.park.admit(header.unique, user, hasty.clone()) {
            Ok(()) => match self.keep(message, ticket) {
                Ok(ticket) => {
                    self.park.keep(header.unique, ticket);
                    let seat = Seat { shared: Arc::downgrade(self), header };
                    let task = self.runtime.spawn(seat.wait(self.deadline, shape, answer, hasty));
                    self.park.attach(header.unique, task.abort_handle());
                }
                Err(error) => {
                    if self.park.take(header.unique).is_some() {
                        self.refuse_or(&header, shape, hasty, &error);
                    }
                }
            },
            Err(Refusal::Twice | Refusal::Closed) => {}
            Err(refusal @ (Refusal::Full(_) | Refusal::Share(_))) => {
                self.refuse_or(&header, shape, hasty, &refusal);
            }
        }
    }

    /// A place for a request that waits, where the kernel would not ask a successor again.
    fn keep(&self, message: &[u8], ticket: &mut Option<Ticket>) -> Result<Option<Ticket>, PlaceError> {
        match (ticket.take(), &self.slots) {
            (Some(ticket), _) => Ok(Some(ticket)),
            (None, Some(slots)) => slots.keep(message).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// What may not wait gets its hasty answer, if it has one.
    fn refuse_or(&self, header: &InHeader, shape: Shape, hasty: Option<Answer>, why: &dyn std::fmt::Display) {
        match hasty {
            Some(hasty) => self.pass_on(header, shape, hasty),
            None => self.refuse(header, why),
        }
    }

    fn refuse(&self, header: &InHeader, why: &dyn std::fmt::Display) {
        self.counters.refused();
        let (op, node, pid) = (policy::of(header.opcode).name, header.nodeid, header.pid);
        if let Some(unsaid) = self.refusals.admit(Instant::now()) {
            tracing::warn!(op, node, pid, %why, unsaid, "a FUSE request is answered EIO");
        }
        self.answer(header, &Reply::EIO);
    }

    fn pass_on(&self, header: &InHeader, shape: Shape, answer: Answer) {
        let reply = encode::reply(shape, answer, self.stamp).unwrap_or_else(|fault| {
            self.counters.fault();
            let op = policy::of(header.opcode).name;
            tracing::error!(op, node = header.nodeid, %fault, "the file system's answer cannot be passed on");
            Reply::EIO
        });
        self.answer(header, &reply);
    }

    pub(crate) fn answer(&self, header: &InHeader, reply: &Reply) {
        let op = policy::of(header.opcode).name;
        tracing::debug!(op, node = header.nodeid, unique = header.unique, errno = reply.code(), "answered");
        let Err(error) = self.device.reply(header.unique, reply) else { return };
        tracing::error!(op, node = header.nodeid, %error, "the kernel did not take an answer");
        // If it still waits for one, it takes this; a task must not be left hanging.
        if let Err(error) = self.device.reply(header.unique, &Reply::EIO) {
            tracing::error!(op, node = header.nodeid, %error, "the kernel did not take EIO either");
        }
    }
}

/// A waiting question's place in the table. Dropped without an answer (the future panicked, the runtime ended) it
/// answers EIO, unless somebody else has taken the question.
struct Seat {
    /// Weak, so that a waiting question does not keep a dropped session's device open.
    shared: Weak<Shared>,
    header: InHeader,
}

impl Seat {
    async fn wait(
        self,
        deadline: Duration,
        shape: Shape,
        answer: BoxFuture<'static, Answer>,
        hasty: Option<Answer>,
    ) {
        let begin = Instant::now();
        let answer = tokio::time::timeout(deadline, answer).await;
        let Some((shared, taken)) = self.take() else { return };
        if matches!((shape, &answer), (Shape::Read { .. }, Err(_) | Ok(Answer::Errno(_)))) {
            shared.repeats.note(self.header.nodeid, self.header.pid, begin.elapsed(), Instant::now());
        }
        match answer.map_or(hasty, Some) {
            Some(answer) => shared.pass_on(&self.header, shape, answer),
            None => shared.refuse(&self.header, &format_args!("no answer within {deadline:?}")),
        }
        drop(taken);
    }

    /// The session, for the one who has to answer before dropping the other.
    fn take(&self) -> Option<(Arc<Shared>, Taken)> {
        let shared = self.shared.upgrade()?;
        let taken = shared.park.take(self.header.unique)?;
        Some((shared, taken))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some((shared, _taken)) = self.take() else { return };
        shared.counters.fault();
        tracing::error!(
            op = policy::of(self.header.opcode).name,
            node = self.header.nodeid,
            "a waiting FUSE request was dropped without an answer"
        );
        shared.answer(&self.header, &Reply::EIO);
    }
}
