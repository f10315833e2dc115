//! Where the kernel does not ask again: what a session leaves in memory, and what its successor makes of it.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::{pread, pwrite};
use scorpio::fusedev::{Slots, SlotsId};

use super::*;

/// Of a kernel that cannot ask again.
const OLD: u64 = EVERYTHING & !(1 << 39);

/// Where landings and places begin, and how long they are.
const LANDINGS: u64 = 4096;
const LANDING: u64 = 8192;
const PLACES: u64 = LANDINGS + 64 * LANDING;
const PLACE: u64 = 512;

/// What a session left.
struct Estate {
    kernel: Kernel,
    device: OwnedFd,
    negotiated: Negotiated,
    memory: OwnedFd,
    id: SlotsId,
    runtime: tokio::runtime::Runtime,
}

/// A session on an old kernel that is asked, and ended once `parked` wait.
fn estate(parked: u64, ask: impl FnOnce(&Kernel)) -> Estate {
    let (kernel, device) = Kernel::pair();
    let runtime = runtime();
    kernel.offer(38, OLD);
    let fs = Arc::new(Scripted(Box::new(|_| never())));
    let kept = device.try_clone().unwrap();
    let session = Session::start(kept, fs, PLAIN, LIMITS, runtime.handle().clone()).unwrap();
    assert_eq!(kernel.reply().1, 2);
    assert!(session.can_be_resumed());
    ask(&kernel);
    until("they wait", || session.stats().parked == parked);
    let slots = session.slots().unwrap();
    let (memory, id) = (slots.as_fd().try_clone_to_owned().unwrap(), *slots.id());
    let negotiated = session.negotiated().clone();
    Estate { kernel, device, negotiated, memory, id, runtime }
}

impl Estate {
    /// A successor that answers everything, once it has replayed what it found.
    fn resume(&self, script: impl Fn(&Question<'_>) -> Answered + Send + Sync + 'static) -> Session {
        let slots = Slots::open(self.memory.try_clone().unwrap(), &self.id).unwrap();
        let (device, fs) = (self.device.try_clone().unwrap(), Arc::new(Scripted(Box::new(script))));
        let runtime = self.runtime.handle().clone();
        Session::resume(device, self.negotiated.clone(), Some(slots), fs, LIMITS, runtime).unwrap()
    }

    fn answer_all(&self) -> Session {
        self.resume(|_| Answered::Now(attr()))
    }

    /// Uniques of the answers up to one that is asked for now.
    fn answered(&self) -> Vec<u64> {
        self.kernel.ask(GETATTR, 0xfeed, 5, &[0; 16]);
        let answers = std::iter::from_fn(|| Some(self.kernel.reply().1));
        answers.take_while(|unique| *unique != 0xfeed).collect()
    }

    fn put(&self, at: u64, opcode: u32, unique: u64, body: &[u8]) {
        let (kernel, device) = Kernel::pair();
        kernel.ask(opcode, unique, 5, body);
        let mut bytes = [0; 512];
        let length = rustix::io::read(device, &mut bytes[..]).unwrap();
        pwrite(&self.memory, &bytes[..length], at).unwrap();
    }

    /// Lengths at the heads of the first landings and places.
    fn heads(&self) -> Vec<u32> {
        let head = |at| {
            let mut bytes = [0; 4];
            pread(&self.memory, &mut bytes, at).unwrap();
            u32::from_ne_bytes(bytes)
        };
        let landings = (0..4).map(|number| head(LANDINGS + number * LANDING));
        landings.chain((0..4).map(|number| head(PLACES + number * PLACE))).collect()
    }
}

#[test]
fn what_waited_is_answered_by_the_successor_and_kept_no_longer() {
    let left = estate(3, |kernel| {
        (2..5).for_each(|unique| kernel.ask(GETATTR, unique * 2, 5, &[0; 16]));
    });
    assert_eq!(left.heads()[4..], [56, 56, 56, 0], "kept while they wait, and after the session has ended");
    let session = left.answer_all();
    let mut answered = left.answered();
    answered.sort_unstable();
    assert_eq!(answered, [4, 6, 8]);
    drop(session);
    assert_eq!(left.heads(), [0; 8]);
    let _again = left.answer_all();
    assert!(left.answered().is_empty(), "once is enough");
}

#[test]
fn what_goes_on_waiting_is_kept_for_the_next_but_one() {
    let left = estate(1, |kernel| kernel.ask(GETATTR, 8, 5, &[0; 16]));
    let session = left.resume(|_| never());
    assert_eq!(session.stats().parked, 1);
    drop(session);
    assert_eq!(left.heads()[4..], [56, 0, 0, 0], "in the same place");
    let _session = left.answer_all();
    assert_eq!(left.answered(), [8]);
}

#[test]
fn what_was_answered_or_taken_back_is_not_kept() {
    let (kernel, device) = Kernel::pair();
    let runtime = runtime();
    kernel.offer(38, OLD);
    let (answer, answered) = oneshot::channel();
    let answered = std::sync::Mutex::new(Some(answered));
    let fs = Arc::new(Scripted(Box::new(move |_: &Question<'_>| {
        let Some(answered) = answered.lock().unwrap().take() else { return never() };
        Answered::Later(Box::pin(async { answered.await.unwrap() }))
    })));
    let session = Session::start(device, fs, PLAIN, LIMITS, runtime.handle().clone()).unwrap();
    kernel.reply();
    kernel.ask(GETATTR, 8, 5, &[0; 16]);
    until("the first waits", || session.stats().parked == 1);
    kernel.ask(GETATTR, 10, 5, &[0; 16]);
    until("both wait", || session.stats().parked == 2);
    let head = |place: u64| {
        let mut bytes = [0; 4];
        pread(session.slots().unwrap(), &mut bytes, PLACES + place * PLACE).unwrap();
        u32::from_ne_bytes(bytes)
    };
    assert_eq!((head(0), head(1)), (56, 56));
    kernel.ask(INTERRUPT, 11, 0, &10u64.to_ne_bytes());
    assert_eq!(kernel.reply(), Reply(-libc::EINTR, 10, vec![]));
    until("it is not kept", || head(1) == 0);
    answer.send(attr()).unwrap();
    assert_eq!(kernel.reply().1, 8);
    until("nothing is kept", || head(0) == 0);
}

#[test]
fn what_was_being_served_when_the_process_was_killed_is_served_again() {
    let left = estate(1, |kernel| kernel.ask(GETATTR, 8, 5, &[0; 16]));
    // Killed after it got a place, before its landing was cleared; beside it one that was just read, one that says that
    // the first is not wanted any more, and one for which there is no answer.
    left.put(LANDINGS, INTERRUPT, 9, &8u64.to_ne_bytes());
    left.put(LANDINGS + LANDING, GETATTR, 8, &[0; 16]);
    left.put(LANDINGS + 2 * LANDING, LOOKUP, 12, b"name\0");
    left.put(LANDINGS + 63 * LANDING, FORGET, 0, &[0; 8]);
    let session = left.resume(|question| match question {
        Question::Lookup { .. } => Answered::Now(Answer::NoEntry),
        _ => never(),
    });
    assert_eq!(left.kernel.reply().1, 12);
    assert_eq!(left.kernel.reply(), Reply(-libc::EINTR, 8, vec![]), "the interrupt finds its question");
    until("nothing is kept", || left.heads() == [0; 8]);
    assert_eq!(session.stats().parked, 0);
}

#[test]
fn torn_and_foreign_bytes_harm_nobody() {
    let left = estate(1, |kernel| kernel.ask(GETATTR, 8, 5, &[0; 16]));
    left.put(PLACES + PLACE, GETATTR, 10, &[0; 16]);
    // Cleared in the middle, cut short, longer than it can be, nonsense.
    pwrite(&left.memory, &[0; 4], PLACES + PLACE).unwrap();
    left.put(PLACES + 2 * PLACE, GETATTR, 12, &[]);
    left.put(PLACES + 3 * PLACE, GETATTR, 14, &[0; 16]);
    pwrite(&left.memory, &u32::MAX.to_ne_bytes(), PLACES + 3 * PLACE).unwrap();
    pwrite(&left.memory, &[0xff; 8192], LANDINGS + LANDING).unwrap();
    pwrite(&left.memory, &[3, 0, 0, 0], LANDINGS).unwrap();
    let session = left.answer_all();
    let answers: Vec<_> =
        (0..4).map(|_| left.kernel.reply()).map(|Reply(error, unique, _)| (unique, error)).collect();
    // Whoever may wait for one of them hears of it.
    let eio = -libc::EIO;
    assert_eq!(answers, [(8, 0), (12, eio), (14, eio), (u64::MAX, eio)]);
    assert_eq!((left.answered(), session.stats().malformed), (Vec::new(), 4));
    until("nothing is kept", || left.heads() == [0; 8]);
}

#[test]
fn a_name_too_long_to_be_kept_is_not_let_wait() {
    let rig = |flags| {
        let (kernel, device) = Kernel::pair();
        let runtime = runtime();
        kernel.offer(38, flags);
        let fs = Arc::new(Scripted(Box::new(|_| never())));
        let session = Session::start(device, fs, PLAIN, LIMITS, runtime.handle().clone()).unwrap();
        kernel.reply();
        (kernel, session, runtime)
    };
    let name = |length: usize| [vec![b'n'; length], vec![0]].concat();
    let (kernel, session, _runtime) = rig(OLD);
    kernel.ask(LOOKUP, 8, 5, &name(512 - 41));
    until("the longest that fits waits", || session.stats().parked == 1);
    kernel.ask(LOOKUP, 10, 5, &name(512 - 40));
    assert_eq!(kernel.reply(), Reply(-libc::EIO, 10, vec![]));
    assert_eq!((session.stats().refused, session.stats().parked), (1, 1));
    let (kernel, session, _runtime) = rig(EVERYTHING);
    assert!(session.slots().is_none(), "a kernel that asks again needs none");
    kernel.ask(LOOKUP, 10, 5, &name(600));
    until("it waits", || session.stats().parked == 1);
}

#[test]
fn how_requests_outlive_the_process_is_as_configured() {
    let started = |replay, flags| {
        let (kernel, device) = Kernel::pair();
        let runtime = runtime();
        kernel.offer(45, flags);
        let fs = Arc::new(Scripted(Box::new(|_| never())));
        let features = Features { replay, ..PLAIN };
        let session = Session::start(device, fs, features, LIMITS, runtime.handle().clone()).unwrap();
        let resend = session.negotiated().flags & (1 << 39) != 0;
        (resend, session.slots().is_some(), session.can_be_resumed())
    };
    assert_eq!(started(Replay::Auto, EVERYTHING), (true, false, true));
    assert_eq!(started(Replay::Auto, OLD), (false, true, true));
    assert_eq!(started(Replay::Slots, EVERYTHING), (false, true, true));
    assert_eq!(started(Replay::Slots, OLD), (false, true, true));
    assert_eq!(started(Replay::Resend, EVERYTHING), (true, false, true));
    assert_eq!(started(Replay::Resend, OLD), (false, false, false));
}
