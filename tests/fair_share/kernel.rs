//! The kernel's side of a session, over a socket pair.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
};

const READ: u32 = 15;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;

const PATIENCE: Duration = Duration::from_secs(30);

/// What a request was answered with: data, or an errno.
pub(crate) type Answer = Result<Vec<u8>, i32>;

pub(crate) struct Kernel {
    socket: OwnedFd,
    /// Answers that came and were not asked about yet, by the request's number.
    answers: Mutex<HashMap<u64, Answer>>,
}

impl Kernel {
    /// With the device that it would be read from.
    pub(crate) fn pair() -> (Kernel, OwnedFd) {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        (Kernel { socket: ours, answers: Mutex::default() }, theirs)
    }

    fn send(&self, opcode: u32, unique: u64, node: u64, uid: u32, body: &[u8]) {
        let mut bytes = u32::try_from(40 + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(opcode.to_ne_bytes());
        bytes.extend(unique.to_ne_bytes());
        bytes.extend(node.to_ne_bytes());
        for word in [uid, uid, 77, 0] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(body);
        rustix::io::write(&self.socket, &bytes).unwrap();
    }

    /// Offers protocol 7.45 with all that there is.
    pub(crate) fn offer(&self) {
        let mut body: Vec<u8> =
            [7, 45, 131_072, u32::MAX, u32::MAX].iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
        body.resize(64, 0);
        self.send(INIT, 2, 0, 0, &body);
    }

    /// Reads a page of a file.
    pub(crate) fn read(&self, unique: u64, node: u64, uid: u32) {
        let mut body = vec![0; 40];
        body[16..20].copy_from_slice(&4096_u32.to_ne_bytes());
        self.send(READ, unique, node, uid, &body);
    }

    /// Whoever asked `unique` waits no more.
    pub(crate) fn interrupt(&self, unique: u64) {
        self.send(INTERRUPT, unique | 1, 0, 0, &unique.to_ne_bytes());
    }

    /// The answer to `unique`, when it is there.
    pub(crate) fn answer_of(&self, unique: u64) -> Answer {
        loop {
            let known = self.answers.lock().unwrap_or_else(PoisonError::into_inner).remove(&unique);
            if let Some(answer) = known {
                return answer;
            }
            self.take_one();
        }
    }

    fn take_one(&self) {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        let limit = Timespec::try_from(PATIENCE).unwrap();
        assert_ne!(poll(&mut fds, Some(&limit)).unwrap(), 0, "no answer comes");
        let mut buffer = vec![0; 1 << 16];
        let length = rustix::io::read(&self.socket, &mut buffer[..]).unwrap();
        let error = i32::from_ne_bytes(buffer[4..8].try_into().unwrap());
        let unique = u64::from_ne_bytes(buffer[8..16].try_into().unwrap());
        let answer = if error == 0 { Ok(buffer[16..length].to_vec()) } else { Err(-error) };
        self.answers.lock().unwrap().insert(unique, answer);
    }
}

/// Returns when `holds`.
#[track_caller]
pub(crate) fn until(what: &str, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "never came true: {what}");
        std::thread::yield_now();
    }
}
