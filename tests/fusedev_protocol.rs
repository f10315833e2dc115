//! The FUSE layer against a kernel played by the test, over a socket pair: what a real kernel does rarely or never.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // a test that fails panics; 64-bit machines

use std::{
    os::fd::OwnedFd,
    sync::{Arc, Barrier, Mutex},
    time::Duration,
};

use proptest::prelude::*;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
};
use scorpio::{
    config::Replay,
    fusedev::{
        Answer, Answered, Asker, Features, FileAttr, FileSystem, Negotiated, Question, Session, SessionError,
        SessionLimits, UNKNOWN_SIZE,
    },
};
use tokio::sync::oneshot;

#[path = "fusedev_protocol/replay.rs"]
mod replay;

const LIMITS: SessionLimits = SessionLimits {
    workers: 2,
    parked: 8,
    parked_per_user: 8,
    deadline: Duration::from_secs(60),
    entry_ttl: Duration::from_secs(3600),
};
const PLAIN: Features = Features { idmap: false, replay: Replay::Auto, generation: 1 };
const EVERYTHING: u64 = u64::MAX;
const RESENT: u64 = 1 << 63;

const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const FORGET: u32 = 2;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const OPEN: u32 = 14;

/// The kernel's side.
struct Kernel(OwnedFd);

/// An answer: negated errno or notification code, unique, body.
#[derive(Debug, PartialEq)]
struct Reply(i32, u64, Vec<u8>);

impl Kernel {
    fn pair() -> (Kernel, OwnedFd) {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        (Kernel(ours), theirs)
    }

    fn raw(&self, bytes: &[u8]) {
        rustix::io::write(&self.0, bytes).unwrap();
    }

    fn ask(&self, opcode: u32, unique: u64, node: u64, body: &[u8]) {
        let mut bytes = u32::try_from(40 + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(opcode.to_ne_bytes());
        bytes.extend(unique.to_ne_bytes());
        bytes.extend(node.to_ne_bytes());
        for word in [1000u32, 1000, 77, 0] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(body);
        self.raw(&bytes);
    }

    fn offer(&self, minor: u32, flags: u64) {
        let words = [7, minor, 131_072, flags as u32, (flags >> 32) as u32];
        let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        body.resize(64, 0);
        self.ask(INIT, 2, 0, &body);
    }

    fn reply_within(&self, limit: Duration) -> Option<Reply> {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let limit = Timespec::try_from(limit).unwrap();
        if poll(&mut fds, Some(&limit)).unwrap() == 0 {
            return None;
        }
        let mut buffer = vec![0; 2 << 20];
        let length = rustix::io::read(&self.0, &mut buffer[..]).unwrap();
        buffer.truncate(length);
        let word = |at: usize| u32::from_ne_bytes(buffer[at..at + 4].try_into().unwrap());
        assert_eq!(word(0) as usize, length, "an answer has the length it says");
        let unique = u64::from_ne_bytes(buffer[8..16].try_into().unwrap());
        Some(Reply(word(4).cast_signed(), unique, buffer[16..].to_vec()))
    }

    fn reply(&self) -> Reply {
        self.reply_within(Duration::from_secs(30)).expect("an answer")
    }

    /// The next message is the answer to one more question, so nothing was answered in between.
    fn silent(&self) {
        self.ask(OPEN, 0xfeed, 1, &[0; 8]);
        assert_eq!(self.reply(), Reply(-libc::ENOSYS, 0xfeed, vec![]));
    }
}

type Script = dyn Fn(&Question<'_>) -> Answered + Send + Sync;

struct Scripted(Box<Script>);

impl FileSystem for Scripted {
    fn ask(&self, question: Question<'_>, _asker: &Asker) -> Answered {
        (self.0)(&question)
    }
}

struct Rig {
    kernel: Kernel,
    session: Session,
    runtime: tokio::runtime::Runtime,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn rig(limits: SessionLimits, script: impl Fn(&Question<'_>) -> Answered + Send + Sync + 'static) -> Rig {
    let (kernel, device) = Kernel::pair();
    let runtime = runtime();
    kernel.offer(45, EVERYTHING);
    let fs = Arc::new(Scripted(Box::new(script)));
    let session = Session::start(device, fs, PLAIN, limits, runtime.handle().clone()).unwrap();
    assert_eq!(kernel.reply().1, 2);
    Rig { kernel, session, runtime }
}

fn attr() -> Answer {
    Answer::Attr(FileAttr { ino: 5, size: 0, mtime: 0, mode: 0o100_644, nlink: 1, uid: 0, gid: 0 })
}

fn never() -> Answered {
    Answered::Later(Box::pin(std::future::pending()))
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let limit = std::time::Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(std::time::Instant::now() < limit, "never came true: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn init_is_answered_and_what_was_agreed_is_known() {
    let (kernel, device) = Kernel::pair();
    let runtime = runtime();
    kernel.offer(45, EVERYTHING);
    let fs = Arc::new(Scripted(Box::new(|_| Answered::Now(attr()))));
    let session = Session::start(device, fs, PLAIN, LIMITS, runtime.handle().clone()).unwrap();
    let Reply(error, unique, body) = kernel.reply();
    assert_eq!((error, unique, body.len()), (0, 2, 64));
    assert_eq!(body[..8], [7u32.to_ne_bytes(), 41u32.to_ne_bytes()].concat());
    assert_eq!(session.negotiated().minor, 41);
    assert_eq!(session.negotiated().flags & (1 << 40), 0, "no idmap when it was not asked for");
    assert_eq!((session.stats().reads, session.stats().by_opcode["INIT"]), (1, 1));
}

#[test]
fn a_kernel_that_lacks_something_is_answered_and_named() {
    let (kernel, device) = Kernel::pair();
    let runtime = runtime();
    kernel.offer(45, EVERYTHING & !(1 << 40));
    let fs = Arc::new(Scripted(Box::new(|_| Answered::Now(attr()))));
    let features = Features { idmap: true, ..PLAIN };
    let error = Session::start(device, fs, features, LIMITS, runtime.handle().clone()).err().unwrap();
    assert!(matches!(&error, SessionError::Kernel(what) if what.contains("FUSE_ALLOW_IDMAP")), "{error}");
    assert_eq!(kernel.reply(), Reply(-libc::EPROTO, 2, vec![]));
}

#[test]
fn a_kernel_that_sends_no_init_is_given_up() {
    let (_kernel, device) = Kernel::pair();
    let runtime = runtime();
    let fs = Arc::new(Scripted(Box::new(|_| Answered::Now(attr()))));
    let error = Session::start(device, fs, PLAIN, LIMITS, runtime.handle().clone()).err().unwrap();
    let timed_out = |source: &std::io::Error| source.kind() == std::io::ErrorKind::TimedOut;
    assert!(matches!(&error, SessionError::Device { source, .. } if timed_out(source)), "{error}");
}

#[test]
fn a_request_that_is_sent_again_is_answered_with_the_same_mark() {
    let rig = rig(LIMITS, |_| Answered::Now(attr()));
    rig.kernel.ask(GETATTR, RESENT | 8, 5, &[0; 16]);
    let Reply(error, unique, body) = rig.kernel.reply();
    assert_eq!((error, unique, body.len()), (0, RESENT | 8, 104));
}

#[test]
fn a_request_that_waits_is_answered_once_although_it_came_twice() {
    let (open, gate) = oneshot::channel::<()>();
    let gate = Mutex::new(Some(gate));
    let rig = rig(LIMITS, move |_| match gate.lock().unwrap().take() {
        Some(gate) => Answered::Later(Box::pin(async move {
            let _ = gate.await;
            attr()
        })),
        None => never(),
    });
    rig.kernel.ask(GETATTR, 8, 5, &[0; 16]);
    until("it waits", || rig.session.stats().parked == 1);
    rig.kernel.ask(GETATTR, 8, 5, &[0; 16]);
    rig.kernel.silent();
    until("both were read", || rig.session.stats().by_opcode["GETATTR"] == 2);
    open.send(()).unwrap();
    assert_eq!(rig.kernel.reply().1, 8);
    rig.kernel.silent();
    assert_eq!(rig.session.stats().parked, 0);
}

#[test]
fn a_name_that_may_not_wait_for_its_size_is_answered_without_it() {
    const LOOKUP: u32 = 1;
    let found = FileAttr { ino: 5, size: 0, mtime: 0, mode: 0o100_644, nlink: 1, uid: 0, gid: 0 };
    let ask =
        move |_: &Question<'_>| Answered::LaterOr(Box::pin(std::future::pending()), Answer::Unsized(found));
    let full = rig(SessionLimits { parked: 0, ..LIMITS }, ask);
    let late = rig(SessionLimits { deadline: Duration::from_millis(20), ..LIMITS }, ask);
    let interrupted = rig(LIMITS, ask);
    for (rig, is_interrupted) in [(full, false), (late, false), (interrupted, true)] {
        rig.kernel.ask(LOOKUP, 8, 1, b"name\0");
        if is_interrupted {
            until("it waits", || rig.session.stats().parked == 1);
            rig.kernel.ask(INTERRUPT, 9, 0, &8u64.to_ne_bytes());
        }
        let Reply(error, unique, body) = rig.kernel.reply();
        assert_eq!((error, unique, body.len()), (0, 8, 128));
        let word = |at: usize| u64::from_ne_bytes(body[at..at + 8].try_into().unwrap());
        let (node, attributes_valid, size) = (word(0), word(24), word(48));
        assert_eq!((node, attributes_valid, size), (5, 0, UNKNOWN_SIZE));
        assert_ne!(word(16), 0, "the name stays");
        assert_eq!(rig.session.stats().refused, 0, "nobody saw an error");
    }
}

#[test]
fn an_interrupt_answers_the_waiting_request_and_drops_its_work() {
    struct Told(Option<oneshot::Sender<()>>);
    impl Drop for Told {
        fn drop(&mut self) {
            let _ = self.0.take().unwrap().send(());
        }
    }
    let (tell, told) = oneshot::channel();
    let tell = Mutex::new(Some(Told(Some(tell))));
    let rig = rig(LIMITS, move |_| {
        let work = tell.lock().unwrap().take().unwrap();
        Answered::Later(Box::pin(async move {
            std::future::pending::<()>().await;
            drop(work);
            attr()
        }))
    });
    rig.kernel.ask(GETATTR, RESENT | 8, 5, &[0; 16]);
    until("it waits", || rig.session.stats().parked == 1);
    rig.kernel.ask(INTERRUPT, RESENT | 9, 0, &(RESENT | 8).to_ne_bytes());
    assert_eq!(rig.kernel.reply(), Reply(-libc::EINTR, RESENT | 8, vec![]));
    rig.runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(30), told).await.unwrap().unwrap() });
    rig.kernel.silent();
    assert_eq!((rig.session.stats().interrupted, rig.session.stats().parked), (1, 0));
}

#[test]
fn an_interrupt_that_comes_too_early_or_too_late_is_asked_for_again() {
    let rig = rig(LIMITS, |_| Answered::Now(attr()));
    rig.kernel.ask(INTERRUPT, 9, 0, &8u64.to_ne_bytes());
    assert_eq!(rig.kernel.reply(), Reply(-libc::EAGAIN, 9, vec![]));
    assert_eq!(rig.session.stats().interrupted, 0);
}

/// The kernel repeats an INTERRUPT that got EAGAIN. So one that overtakes its request is honoured in the end, however
/// the threads run, and the request gets one answer.
#[test]
fn an_interrupt_that_overtakes_its_request_is_honoured() {
    let meet = Arc::new(Barrier::new(2));
    let inside = Arc::clone(&meet);
    let rig = rig(LIMITS, move |_| {
        inside.wait(); // a worker has the request in hand …
        inside.wait(); // … until the INTERRUPT was answered
        never()
    });
    rig.kernel.ask(GETATTR, 8, 5, &[0; 16]);
    meet.wait();
    rig.kernel.ask(INTERRUPT, 9, 0, &8u64.to_ne_bytes());
    assert_eq!(rig.kernel.reply(), Reply(-libc::EAGAIN, 9, vec![]));
    meet.wait();
    loop {
        rig.kernel.ask(INTERRUPT, 9, 0, &8u64.to_ne_bytes());
        match rig.kernel.reply() {
            Reply(error, 9, _) => assert_eq!(error, -libc::EAGAIN),
            other => {
                assert_eq!(other, Reply(-libc::EINTR, 8, vec![]));
                break;
            }
        }
    }
    assert_eq!((rig.session.stats().interrupted, rig.session.stats().parked), (1, 0));
}

#[test]
fn answers_interrupts_and_deadlines_racing_give_one_answer_each() {
    const ROUNDS: u64 = 2000;
    let limits =
        SessionLimits { deadline: Duration::from_micros(300), parked: 64, parked_per_user: 64, ..LIMITS };
    let rig = rig(limits, |_| {
        Answered::Later(Box::pin(async {
            tokio::time::sleep(Duration::from_micros(300)).await;
            attr()
        }))
    });
    for round in 1..=ROUNDS {
        let unique = round * 4;
        rig.kernel.ask(GETATTR, unique, 5, &[0; 16]);
        rig.kernel.ask(INTERRUPT, unique | 1, 0, &unique.to_ne_bytes());
        let mut answers = 0;
        while answers == 0 {
            match rig.kernel.reply() {
                Reply(error, to, _) if to & 1 == 1 => assert_eq!(error, -libc::EAGAIN),
                Reply(error, to, _) => {
                    assert_eq!(to, unique);
                    assert!([0, -libc::EINTR, -libc::EIO].contains(&error), "{error}");
                    answers += 1;
                }
            }
        }
    }
    until("nobody waits", || rig.session.stats().parked == 0);
    let late: Vec<_> = std::iter::from_fn(|| rig.kernel.reply_within(Duration::from_millis(50)))
        .filter(|Reply(_, to, _)| to & 1 == 0)
        .collect();
    assert_eq!(late, [], "no request is answered twice");
}

#[test]
fn malformed_messages_are_answered_eio_and_counted() {
    let rig = rig(LIMITS, |_| Answered::Now(attr()));
    rig.kernel.ask(GETATTR, 8, 5, &[0; 3]);
    assert_eq!(rig.kernel.reply(), Reply(-libc::EIO, 8, vec![]));
    rig.kernel.ask(LOOKUP, 10, 5, b"no end");
    assert_eq!(rig.kernel.reply(), Reply(-libc::EIO, 10, vec![]));
    rig.kernel.raw(b"short");
    rig.kernel.ask(FORGET, 12, 5, &[]);
    rig.kernel.silent();
    until("all were read", || rig.session.stats().reads == 6);
    assert_eq!(rig.session.stats().malformed, 3);
    assert_eq!(rig.session.stats().by_opcode["UNKNOWN"], 1);
}

#[test]
fn a_second_init_and_opcodes_from_the_future_are_refused() {
    let rig = rig(LIMITS, |_| Answered::Now(attr()));
    rig.kernel.offer(45, EVERYTHING);
    assert_eq!(rig.kernel.reply(), Reply(-libc::EIO, 2, vec![]));
    rig.kernel.ask(54, 8, 5, &[1; 100]);
    assert_eq!(rig.kernel.reply(), Reply(-libc::EOPNOTSUPP, 8, vec![]));
}

#[test]
fn a_file_system_never_makes_the_kernel_remember_enosys() {
    let rig = rig(LIMITS, |_| Answered::Now(Answer::Errno(libc::ENOSYS)));
    rig.kernel.ask(GETATTR, 8, 5, &[0; 16]);
    assert_eq!(rig.kernel.reply(), Reply(-libc::EIO, 8, vec![]));
    assert_eq!(rig.session.stats().faults, 1);
}

#[test]
fn a_panic_answers_eio_and_the_only_thread_lives_on() {
    let limits = SessionLimits { workers: 1, ..LIMITS };
    let rig = rig(limits, |question| match question {
        Question::GetAttr { node: 5 } => panic!("on purpose"),
        _ => Answered::Now(attr()),
    });
    for unique in [8, 10] {
        rig.kernel.ask(GETATTR, unique, 5, &[0; 16]);
        assert_eq!(rig.kernel.reply(), Reply(-libc::EIO, unique, vec![]));
    }
    rig.kernel.ask(GETATTR, 12, 6, &[0; 16]);
    assert_eq!(rig.kernel.reply().0, 0);
    assert_eq!(rig.session.stats().faults, 2);
}

#[test]
fn a_runtime_that_ends_first_leaves_nobody_waiting() {
    let Rig { kernel, session, runtime } = rig(LIMITS, |_| never());
    kernel.ask(GETATTR, 8, 5, &[0; 16]);
    until("it waits", || session.stats().parked == 1);
    drop(runtime);
    assert_eq!(kernel.reply(), Reply(-libc::EIO, 8, vec![]));
    kernel.ask(GETATTR, 10, 5, &[0; 16]);
    assert_eq!(kernel.reply(), Reply(-libc::EIO, 10, vec![]));
}

#[test]
fn a_dropped_session_answers_nothing_and_closes_the_device() {
    let Rig { kernel, session, runtime } = rig(LIMITS, |_| never());
    kernel.ask(GETATTR, 8, 5, &[0; 16]);
    until("it waits", || session.stats().parked == 1);
    drop(session);
    assert_eq!(rustix::io::read(&kernel.0, &mut [0u8; 64][..]), Ok(0), "the end, and no answer before it");
    drop(runtime);
}

#[test]
fn the_end_of_the_device_ends_the_session() {
    let Rig { kernel, session, runtime } = rig(LIMITS, |_| never());
    kernel.ask(GETATTR, 8, 5, &[0; 16]);
    until("it waits", || session.stats().parked == 1);
    drop(kernel);
    until("it is over", || session.is_over() && session.stats().parked == 0);
    drop(runtime);
}

#[test]
fn the_end_of_a_session_is_told_only_if_the_kernel_ended_it() {
    let Rig { kernel, session, runtime } = rig(LIMITS, |_| never());
    let mut over = session.over();
    assert!(!*over.borrow_and_update());
    drop(kernel);
    runtime.block_on(over.wait_for(|over| *over)).unwrap();
    assert!(session.is_over());
    drop(session);
    let Rig { kernel, session, runtime } = rig(LIMITS, |_| never());
    let mut over = session.over();
    drop(session);
    assert!(runtime.block_on(over.wait_for(|over| *over)).is_err());
    drop(kernel);
}

#[test]
fn a_worker_that_hangs_is_told_by_how_long() {
    let gate = Arc::new(Barrier::new(2));
    let inside = Arc::clone(&gate);
    let rig = rig(LIMITS, move |_| {
        inside.wait();
        inside.wait();
        Answered::Now(attr())
    });
    assert_eq!(rig.session.longest_busy(), Duration::ZERO);
    rig.kernel.ask(GETATTR, 8, 5, &[0; 16]);
    gate.wait();
    until("it hangs", || rig.session.longest_busy() > Duration::from_millis(20));
    // The other one goes on, which does not help who waits for the first.
    rig.kernel.silent();
    assert!(rig.session.longest_busy() > Duration::from_millis(20));
    gate.wait();
    assert_eq!(rig.kernel.reply().1, 8);
    until("it gets on", || rig.session.longest_busy() == Duration::ZERO);
}

#[test]
fn a_resumed_session_asks_for_unanswered_requests_first() {
    let resume = |flags| {
        let (kernel, device) = Kernel::pair();
        let runtime = runtime();
        kernel.ask(GETATTR, 8, 5, &[0; 16]);
        let fs = Arc::new(Scripted(Box::new(|_| Answered::Now(attr()))));
        let negotiated = Negotiated { minor: 41, flags, generation: 1 };
        let session =
            Session::resume(device, negotiated, None, fs, LIMITS, runtime.handle().clone()).unwrap();
        let first = kernel.reply();
        drop(session);
        first
    };
    assert_eq!(resume(1 << 39), Reply(7, 0, vec![]));
    assert_eq!(resume(0).1, 8, "a kernel that cannot is not asked");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever arrives, the session survives it and answers the next good request.
    #[test]
    fn garbage_does_not_stop_a_session(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 1..40),
        opcodes in prop::collection::vec((0u32..60, prop::collection::vec(any::<u8>(), 0..80)), 1..40),
    ) {
        let is_getattr = |message: &Vec<u8>| message.len() >= 40 && message[4..8] == GETATTR.to_ne_bytes();
        let getattrs = messages.iter().filter(|message| is_getattr(message)).count()
            + opcodes.iter().filter(|(opcode, _)| *opcode == GETATTR).count();
        let rig = rig(LIMITS, |_| Answered::Now(attr()));
        let mut sent = 1;
        for message in messages {
            rig.kernel.raw(&message);
            while rig.kernel.reply_within(Duration::ZERO).is_some() {}
            sent += 1;
        }
        for (opcode, body) in opcodes {
            rig.kernel.ask(opcode, 4, 5, &body);
            while rig.kernel.reply_within(Duration::ZERO).is_some() {}
            sent += 1;
        }
        rig.kernel.ask(GETATTR, 0xabc, 5, &[0; 16]);
        while rig.kernel.reply().1 != 0xabc {}
        until("every message was counted", || {
            let stats = rig.session.stats();
            // Also while it runs.
            assert_eq!(stats.by_opcode.values().sum::<u64>(), stats.reads);
            stats.reads == sent + 1
        });
        prop_assert_eq!(rig.session.stats().by_opcode["GETATTR"], getattrs as u64 + 1);
    }
}
