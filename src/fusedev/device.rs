//! `/dev/fuse` as a queue of messages: wait, read one, write one. Knows no message but their headers' `unique`.
//!
//! All workers read one open file description; it is never cloned (`FUSE_DEV_IOC_CLONE`), because requests read
//! through a clone are lost with the process that held it. `O_NONBLOCK` is set on it. That is a property of the open
//! file *description*, so every duplicate has it too, also one in another process.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use rustix::{
    event::{
        EventfdFlags, Timespec,
        epoll::{self, EventData, EventFlags},
        eventfd,
    },
    fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno,
};
use zerocopy::IntoBytes;

use super::{
    abi::{NOTIFY_RESEND, OutHeader},
    encode::Reply,
};

/// The least buffer the kernel accepts; with `max_write` at its least, also the largest request.
pub(crate) const READ_BUFFER: usize = 8192;

/// Opens `/dev/fuse` for a new session.
pub fn open_device() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(rustix::fs::open("/dev/fuse", flags, Mode::empty())?)
}

/// The device and the signal that ends all waiting on it.
#[derive(Debug)]
pub(crate) struct Device {
    fd: OwnedFd,
    stop: OwnedFd,
    stopped: AtomicBool,
}

/// What a read gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// A message of so many bytes.
    Message(usize),
    /// Nothing is there now.
    Nothing,
    /// The kernel has ended the session.
    Over,
}

impl Device {
    /// Takes the device over and makes reads of it return at once.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Device> {
        let flags = fcntl_getfl(&fd)?;
        fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Device { fd, stop, stopped: AtomicBool::new(false) })
    }

    /// Reads one message, if there is one.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<Got> {
        loop {
            match rustix::io::read(&self.fd, &mut *buffer) {
                Ok(0) => return Ok(Got::Over), // no device says that; whatever stands in for one has closed
                Ok(length) => return Ok(Got::Message(length)),
                // ENOENT: the asker went away while its request was being copied.
                Err(Errno::INTR | Errno::NOENT) => {}
                Err(Errno::AGAIN) => return Ok(Got::Nothing),
                Err(Errno::NODEV) => return Ok(Got::Over),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Answers the request `unique`. A request that nobody waits for any more is no error.
    pub(crate) fn reply(&self, unique: u64, reply: &Reply) -> io::Result<()> {
        let (header, body) = reply.parts(unique);
        self.write(&header, body)
    }

    /// Asks for every request that was read and not answered, by whomever, once more.
    pub(crate) fn resend(&self) -> io::Result<()> {
        self.write(&OutHeader { len: 16, error: NOTIFY_RESEND, unique: 0 }, &[])
    }

    fn write(&self, header: &OutHeader, body: &[u8]) -> io::Result<()> {
        let parts = [IoSlice::new(header.as_bytes()), IoSlice::new(body)];
        loop {
            match rustix::io::writev(&self.fd, &parts) {
                // ENOENT: the request was taken back; ENODEV: so was the session.
                Ok(_) | Err(Errno::NOENT | Errno::NODEV) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Ends all waiting, now and later. A thread that finds messages without waiting asks [`Device::is_stopped`].
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Relaxed);
        if let Err(error) = rustix::io::write(&self.stop, &1u64.to_ne_bytes()) {
            // Only a full counter could fail, and then everybody is awake already.
            tracing::warn!(%error, "could not wake the FUSE workers");
        }
    }

    /// Whether [`Device::stop`] was called.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }
}

/// One thread's way of waiting. Each has its own, so that one message wakes one thread: with `EPOLLEXCLUSIVE` the
/// kernel wakes the first epoll set that somebody waits on, where `poll` would wake every worker for every message.
#[derive(Debug)]
pub(crate) struct Waiter {
    epoll: OwnedFd,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// There may be a message.
    Message,
    /// It is time to go.
    Stop,
    /// Time is up.
    Timeout,
}

const MESSAGE: u64 = 0;
const STOP: u64 = 1;

impl Waiter {
    pub(crate) fn new(device: &Device) -> io::Result<Waiter> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &device.fd, EventData::new_u64(MESSAGE), EventFlags::IN | EventFlags::EXCLUSIVE)?;
        epoll::add(&epoll, &device.stop, EventData::new_u64(STOP), EventFlags::IN)?;
        Ok(Waiter { epoll })
    }

    /// Waits for a message, for ever or for `limit`.
    pub(crate) fn wait(&self, limit: Option<Duration>) -> io::Result<Woken> {
        let limit = limit.map(|limit| Timespec::try_from(limit).unwrap_or(FAR));
        let mut room = [const { MaybeUninit::uninit() }; 2];
        let events = match epoll::wait(&self.epoll, &mut room[..], limit.as_ref()) {
            Ok((events, _)) => &*events,
            Err(Errno::INTR) => return Ok(Woken::Message),
            Err(error) => return Err(error.into()),
        };
        Ok(match () {
            () if events.iter().any(|event| event.data.u64() == STOP) => Woken::Stop,
            () if events.is_empty() => Woken::Timeout,
            () => Woken::Message,
        })
    }
}

/// Longer than anybody waits.
const FAR: Timespec = Timespec { tv_sec: 1 << 32, tv_nsec: 0 };
