//! A running session: the handshake or its resumption, then worker threads until it is dropped.

use std::{
    io,
    os::fd::OwnedFd,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    Features, FileSystem, Negotiated, SessionError, SessionLimits, SessionStats,
    abi::InHeader,
    counters::Counters,
    decode::{self, Offer, Wish},
    device::{Device, Got, READ_BUFFER, Waiter, Woken},
    encode::{Reply, Stamp, Ttl},
    init::negotiate,
    landing::Landing,
    park::Park,
    policy::op,
    pulse::Pulse,
    repeat::Repeats,
    slots::{Left, Slots},
    throttle::Throttle,
    worker::{self, Shared},
};
use crate::config::Replay;

/// How long the kernel's INIT may take. It is queued by the mount itself, so it is there already.
const INIT_PATIENCE: Duration = Duration::from_secs(5);

/// A warning about refused requests is written at most this often: an origin that is gone refuses thousands.
const REFUSALS_EVERY: Duration = Duration::from_secs(5);

/// A running session: worker threads on the device. Stops and joins them when dropped.
///
/// Dropping it answers no waiting question. If another duplicate of the device is open, the connection lives on and
/// [`Session::resume`], here or in another process, gets those questions again, from the kernel or from the session's
/// [`Slots`]; otherwise the kernel ends the connection and its askers with it. Must not be dropped by the file system that
/// it serves.
pub struct Session {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    negotiated: Negotiated,
}

impl Session {
    /// Waits for the kernel's INIT on `device` (already given to a mount), answers it and starts the workers.
    /// Futures run on `runtime`, which needs its timer.
    ///
    /// Sets `O_NONBLOCK` on the device's open file description, which all its duplicates share.
    pub fn start(
        device: OwnedFd,
        fs: Arc<dyn FileSystem>,
        features: Features,
        limits: SessionLimits,
        runtime: tokio::runtime::Handle,
    ) -> Result<Session, SessionError> {
        let mut shared = Shared::new(device, fs, limits, features.generation, runtime)?;
        let negotiated = shared.shake_hands(features)?;
        tracing::info!(
            minor = negotiated.minor,
            flags = format_args!("{:#x}", negotiated.flags),
            "FUSE session"
        );
        let wanted = match features.replay {
            Replay::Slots => true,
            Replay::Auto => !negotiated.has_resend(),
            Replay::Resend => false,
        };
        if wanted {
            shared.slots = make_slots(limits);
        }
        Session::serve(Arc::new(shared), negotiated, limits.workers)
    }

    /// Goes on with a session whose INIT another process, or a dropped [`Session`], has answered. Nothing else may
    /// read `device` any more. Questions that were read but not answered are asked again by the kernel, if it can
    /// (Linux 6.9 or newer), or are found in `slots`, those of the session.
    pub fn resume(
        device: OwnedFd,
        negotiated: Negotiated,
        slots: Option<Slots>,
        fs: Arc<dyn FileSystem>,
        limits: SessionLimits,
        runtime: tokio::runtime::Handle,
    ) -> Result<Session, SessionError> {
        let mut shared = Shared::new(device, fs, limits, negotiated.generation, runtime)?;
        let resend = negotiated.has_resend();
        if resend {
            shared.device.resend().map_err(failed("asking for unanswered requests again"))?;
        }
        shared.slots = slots.map(Arc::new);
        let shared = Arc::new(shared);
        let replayed = shared.replay().map_err(failed("reading what was not answered"))?;
        tracing::info!(minor = negotiated.minor, resend, replayed, "FUSE session resumed");
        Session::serve(shared, negotiated, limits.workers)
    }

    fn serve(shared: Arc<Shared>, negotiated: Negotiated, workers: usize) -> Result<Session, SessionError> {
        let mut session = Session { shared, workers: Vec::new(), negotiated };
        for number in 0..workers.max(1) {
            session.add_worker(number).map_err(failed("starting a worker thread"))?;
        }
        Ok(session)
    }

    fn add_worker(&mut self, number: usize) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let waiter = Waiter::new(&shared.device)?;
        let landing = Landing::of(shared.slots.as_deref(), number)?;
        let thread = std::thread::Builder::new().name(format!("fuse-{number}"));
        self.workers.push(thread.spawn(move || worker::run(&shared, number, &waiter, landing))?);
        Ok(())
    }

    /// What was negotiated.
    pub fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// What a successor needs besides the device and that, where the kernel does not ask again.
    pub fn slots(&self) -> Option<&Slots> {
        self.shared.slots.as_deref()
    }

    /// Whether a successor gets the questions that this session has read and not answered.
    pub fn can_be_resumed(&self) -> bool {
        self.negotiated.has_resend() || self.shared.slots.is_some()
    }

    /// Counters.
    pub fn stats(&self) -> SessionStats {
        let parked = u64::try_from(self.shared.park.len()).unwrap_or(u64::MAX);
        self.shared.counters.snapshot(parked)
    }

    /// How long a worker has been at one message by now, the one that is longest at it; they wait for nobody, so it is
    /// microseconds unless something is wrong. For ever, if one has died.
    pub fn longest_busy(&self) -> Duration {
        if !self.is_over() && self.workers.iter().any(JoinHandle::is_finished) {
            return Duration::MAX;
        }
        self.shared.pulse.longest(Instant::now())
    }

    /// Whether the kernel has ended the session (its last mount is gone, or it was aborted).
    pub fn is_over(&self) -> bool {
        *self.shared.over.borrow()
    }

    /// Turns true when the kernel ends the session, and closes when we do.
    pub fn over(&self) -> watch::Receiver<bool> {
        self.shared.over.subscribe()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.device.stop();
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a FUSE worker had died of a panic");
            }
        }
        self.shared.park.close();
    }
}

impl Shared {
    fn new(
        device: OwnedFd,
        fs: Arc<dyn FileSystem>,
        limits: SessionLimits,
        generation: u32,
        runtime: tokio::runtime::Handle,
    ) -> Result<Shared, SessionError> {
        Ok(Shared {
            device: Device::new(device).map_err(failed("setting it up"))?,
            fs,
            park: Park::new(limits.parked, limits.parked_per_user),
            slots: None,
            repeats: Repeats::default(),
            counters: Counters::new(),
            stamp: Stamp { ttl: Ttl::new(limits.entry_ttl), generation },
            deadline: limits.deadline,
            refusals: Throttle::new(REFUSALS_EVERY),
            runtime,
            pulse: Pulse::of(limits.workers.max(1)),
            over: watch::Sender::new(false),
        })
    }

    /// Serves what an earlier process left; how many requests. Waiting ones first: who had landed in order to take one of
    /// them back comes last.
    fn replay(self: &Arc<Shared>) -> io::Result<usize> {
        let Some(slots) = &self.slots else { return Ok(0) };
        let Left { waiting, mut landed } = slots.left()?;
        let count = waiting.len() + landed.len();
        for (message, ticket) in waiting {
            self.serve(&message, &mut Some(ticket));
        }
        landed.sort_by_key(|(message, _)| {
            decode::header(message).is_some_and(|header| header.opcode == op::INTERRUPT)
        });
        for (message, landing) in landed {
            // One that waits already is not let wait twice.
            self.serve(&message, &mut None);
            slots.clear_landing(landing)?;
        }
        Ok(count)
    }

    fn shake_hands(&self, features: Features) -> Result<Negotiated, SessionError> {
        let (header, offer) = self.await_init().map_err(failed("waiting for INIT"))?;
        match negotiate(&offer, features, rustix::param::page_size()) {
            Ok((negotiated, answer)) => {
                self.device.reply(header.unique, &answer.to_reply()).map_err(failed("answering INIT"))?;
                Ok(negotiated)
            }
            Err(lack) => {
                // The mount stays, and everything in it fails at once instead of waiting for ever.
                self.answer(&header, &Reply::errno(libc::EPROTO));
                Err(SessionError::Kernel(lack))
            }
        }
    }

    fn await_init(&self) -> io::Result<(InHeader, Offer)> {
        let waiter = Waiter::new(&self.device)?;
        let until = Instant::now() + INIT_PATIENCE;
        let mut buffer = vec![0; READ_BUFFER];
        loop {
            match self.device.read(&mut buffer)? {
                Got::Message(length) => {
                    if let Some(init) = self.first(&buffer[..length]) {
                        return Ok(init);
                    }
                }
                Got::Over => return Err(io::Error::from_raw_os_error(libc::ENODEV)),
                Got::Nothing => {
                    let left = until.saturating_duration_since(Instant::now());
                    if waiter.wait(Some(left))? == Woken::Timeout {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
            }
        }
    }

    /// INIT, or nothing after refusing what came instead of it.
    fn first(&self, message: &[u8]) -> Option<(InHeader, Offer)> {
        self.counters.read(message);
        match decode::request(message) {
            Ok(decode::Request { header, wish: Wish::Init(offer), .. }) => Some((header, offer)),
            other => {
                self.counters.malformed();
                tracing::warn!(?other, "a FUSE message came before INIT");
                if let Some(header) = decode::header(message) {
                    self.answer(&header, &Reply::EIO);
                }
                None
            }
        }
    }
}

/// Without them the session works, and ends with this process.
fn make_slots(limits: SessionLimits) -> Option<Arc<Slots>> {
    let made = Slots::create(limits.parked).and_then(|slots| {
        // Tried before anything depends on it.
        slots.landing(0)?;
        Ok(Arc::new(slots))
    });
    made.inspect_err(
        |error| tracing::warn!(%error, "no memory for unanswered requests: a restart will interrupt them"),
    )
    .ok()
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> SessionError {
    move |source| SessionError::Device { doing, source }
}
