//! [`Pool`]: a fixed number of threads that may block, and a bounded queue in front of them.
//!
//! A repository may lie on a file system that hangs. Then at most these threads hang with it, what waits behind them is
//! bounded and let go once its asker is gone, and no other origin notices. All threads act as the reader of the repository
//! from their first file access to their last; none ever acts as somebody else.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::sys::identity::{ActingAs, Identity};

/// How long closing waits for threads that are in the middle of something. Longer would hold up a shutdown for a file
/// system that may never answer; the process's end takes the thread with it.
const CLOSE_WAIT: Duration = Duration::from_millis(500);

/// Something to do on a thread with state `W`.
pub(super) trait Job<W>: Send {
    /// Does all of it, or a part and returns the rest, which then waits behind what came meanwhile.
    fn run(self: Box<Self>, state: &mut W) -> Option<Box<dyn Job<W>>>;

    /// Whether nobody waits for it any more.
    fn is_abandoned(&self) -> bool;
}

/// The queue has no room, or the pool is closing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused;

/// Why there is no pool.
#[derive(Debug)]
pub(super) enum PoolError {
    /// A thread could not be started.
    Spawn(io::Error),
    /// A thread could not take on the identity.
    Identity(io::Error),
}

/// What a pool is like.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// Threads are called this, a dash and a number.
    pub(super) name: String,
    /// How many threads.
    pub(super) threads: usize,
    /// Jobs waiting at most.
    pub(super) queue: usize,
    /// Whose rights the threads have.
    pub(super) identity: Identity,
}

/// The threads. Dropping it lets them finish what they are at and drops what waits.
pub(super) struct Pool<W> {
    queue: Arc<Queue<W>>,
    threads: Vec<JoinHandle<()>>,
    capacity: usize,
}

struct Queue<W> {
    state: Mutex<QueueState<W>>,
    /// There is a job to take, or nothing will come any more.
    work: Condvar,
    /// A thread is done with a job.
    done: Condvar,
}

struct QueueState<W> {
    jobs: VecDeque<Box<dyn Job<W>>>,
    closed: bool,
    /// By thread number.
    busy: Vec<bool>,
}

impl<W: 'static> Pool<W> {
    /// Starts the threads; each makes its own state, and again after a job panicked.
    pub(super) fn start(
        shape: &Shape,
        state: impl Fn() -> W + Clone + Send + 'static,
    ) -> Result<Pool<W>, PoolError> {
        let fresh = QueueState { jobs: VecDeque::new(), closed: false, busy: vec![false; shape.threads] };
        let queue = Queue { state: Mutex::new(fresh), work: Condvar::new(), done: Condvar::new() };
        let queue = Arc::new(queue);
        let mut pool = Pool { queue, threads: Vec::new(), capacity: shape.queue };
        let (ready, acting) = mpsc::channel();
        for number in 0..shape.threads {
            let (queue, identity) = (pool.queue.clone(), shape.identity.clone());
            let (ready, state) = (ready.clone(), state.clone());
            let thread = thread::Builder::new().name(format!("{}-{number}", shape.name));
            let thread = thread.spawn(move || {
                let identity = act_as(&identity);
                let is_acting = identity.is_ok();
                // The starter may have given up on another thread's failure.
                let _ = ready.send(identity.as_ref().map(drop).map_err(copy_of));
                if is_acting {
                    queue.work(number, state);
                }
            });
            pool.threads.push(thread.map_err(PoolError::Spawn)?);
        }
        for answer in acting.iter().take(shape.threads) {
            answer.map_err(PoolError::Identity)?;
        }
        Ok(pool)
    }

    /// Queues a job, or refuses at once.
    pub(super) fn submit(&self, job: Box<dyn Job<W>>) -> Result<(), Refused> {
        let mut state = self.queue.lock();
        if state.jobs.len() >= self.capacity {
            state.jobs.retain(|job| !job.is_abandoned());
        }
        if state.closed || state.jobs.len() >= self.capacity {
            return Err(Refused);
        }
        state.jobs.push_back(job);
        self.queue.work.notify_one();
        Ok(())
    }

    /// How many threads there are.
    pub(super) fn threads(&self) -> usize {
        self.threads.len()
    }
}

impl<W> Drop for Pool<W> {
    fn drop(&mut self) {
        let dropped = {
            let mut state = self.queue.lock();
            state.closed = true;
            std::mem::take(&mut state.jobs)
        };
        // Outside the lock: a job's end wakes its asker.
        drop(dropped);
        self.queue.work.notify_all();
        self.queue.wait_until_idle(Instant::now() + CLOSE_WAIT);
        let busy = self.queue.lock().busy.clone();
        for (thread, is_busy) in self.threads.drain(..).zip(busy) {
            if is_busy {
                let thread = thread.thread().name().unwrap_or_default();
                tracing::warn!(thread, "a thread hangs in a file system and is left behind");
                continue;
            }
            // Jobs' panics are caught; what else a thread could panic with was printed by the panic hook.
            let _ = thread.join();
        }
    }
}

impl<W> Queue<W> {
    fn lock(&self) -> MutexGuard<'_, QueueState<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, thread: usize, make: impl Fn() -> W) {
        let mut state = make();
        let mut rest = None;
        while let Some(job) = self.next(thread, rest.take()) {
            match catch_unwind(AssertUnwindSafe(|| job.run(&mut state))) {
                Ok(unfinished) => rest = unfinished,
                Err(_) => state = make(),
            }
        }
    }

    /// Takes the next job, having put the rest of the last one behind all others; `None` when the pool closes.
    fn next(&self, thread: usize, rest: Option<Box<dyn Job<W>>>) -> Option<Box<dyn Job<W>>> {
        let mut state = self.lock();
        state.jobs.extend(rest);
        state.busy[thread] = false;
        self.done.notify_all();
        loop {
            if state.closed {
                return None;
            }
            match state.jobs.pop_front() {
                Some(job) if job.is_abandoned() => drop(job),
                Some(job) => {
                    state.busy[thread] = true;
                    return Some(job);
                }
                None => state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn wait_until_idle(&self, until: Instant) {
        let mut state = self.lock();
        while state.busy.contains(&true) {
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            else {
                return;
            };
            state = self.done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Takes on the identity, unless the thread has it already: changing nothing needs no privilege.
fn act_as(identity: &Identity) -> io::Result<Option<ActingAs>> {
    use nix::unistd::{getegid, geteuid, getgroups};
    let mut own: Vec<u32> = getgroups()?.into_iter().map(nix::unistd::Gid::as_raw).collect();
    let mut groups = identity.groups.clone();
    for list in [&mut own, &mut groups] {
        list.push(getegid().as_raw());
        list.sort_unstable();
        list.dedup();
    }
    if identity.uid == geteuid().as_raw() && identity.gid == getegid().as_raw() && own == groups {
        return Ok(None);
    }
    identity.act().map(Some)
}

fn copy_of(error: &io::Error) -> io::Error {
    error
        .raw_os_error()
        .map_or_else(|| io::Error::new(error.kind(), error.to_string()), io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    fn shape(threads: usize, queue: usize) -> Shape {
        let identity = Identity {
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            groups: nix::unistd::getgroups().unwrap().into_iter().map(nix::unistd::Gid::as_raw).collect(),
        };
        Shape { name: "test".to_owned(), threads, queue, identity }
    }

    /// Calls a function, which says whether there is more to do.
    struct Call<F>(F, Arc<AtomicBool>);

    impl<W: 'static, F: FnMut(&mut W) -> bool + Send + 'static> Job<W> for Call<F> {
        fn run(mut self: Box<Self>, state: &mut W) -> Option<Box<dyn Job<W>>> {
            if (self.0)(state) { Some(self) } else { None }
        }

        fn is_abandoned(&self) -> bool {
            self.1.load(Ordering::Relaxed)
        }
    }

    fn call<W: 'static>(mut f: impl FnMut(&mut W) + Send + 'static) -> Box<dyn Job<W>> {
        let once = move |state: &mut W| {
            f(state);
            false
        };
        Box::new(Call(once, Arc::default()))
    }

    /// A job that occupies a thread until the sender is used or dropped, and says when it began.
    fn gate<W: 'static>() -> (Box<dyn Job<W>>, mpsc::Receiver<()>, mpsc::Sender<()>) {
        let (began, begun) = mpsc::channel();
        let (open, opened) = mpsc::channel();
        let wait = move |_: &mut W| {
            began.send(()).unwrap();
            let _ = opened.recv();
        };
        (call(wait), begun, open)
    }

    #[test]
    fn a_full_queue_refuses_at_once_and_makes_room_for_what_is_abandoned() {
        let pool = Pool::start(&shape(1, 2), || ()).unwrap();
        let (job, begun, open) = gate();
        pool.submit(job).unwrap();
        begun.recv().unwrap();
        let abandoned = Arc::new(AtomicBool::new(false));
        pool.submit(Box::new(Call(|(): &mut ()| panic!("ran though abandoned"), abandoned.clone()))).unwrap();
        let (sender, ran) = mpsc::channel();
        let say = |number| {
            let sender = sender.clone();
            call(move |(): &mut ()| sender.send(number).unwrap())
        };
        pool.submit(say(1)).unwrap();
        assert_eq!(pool.submit(say(2)), Err(Refused));
        abandoned.store(true, Ordering::Relaxed);
        pool.submit(say(3)).unwrap();
        drop(open);
        assert_eq!([ran.recv(), ran.recv()], [Ok(1), Ok(3)]);
    }

    #[test]
    fn the_rest_of_a_long_job_waits_behind_a_short_one() {
        let pool = Pool::start(&shape(1, 4), || ()).unwrap();
        let (job, begun, open) = gate();
        pool.submit(job).unwrap();
        begun.recv().unwrap();
        let (sender, order) = mpsc::channel();
        let (long, short) = (sender.clone(), sender);
        let mut parts = 0;
        let in_parts = move |(): &mut ()| {
            parts += 1;
            long.send(format!("part {parts}")).unwrap();
            parts < 3
        };
        pool.submit(Box::new(Call(in_parts, Arc::default()))).unwrap();
        pool.submit(call(move |(): &mut ()| short.send("short".to_owned()).unwrap())).unwrap();
        drop(open);
        let order: Vec<String> = order.iter().take(4).collect();
        assert_eq!(order, ["part 1", "short", "part 2", "part 3"]);
    }

    #[test]
    fn a_panic_costs_its_job_and_the_state_but_no_thread() {
        let made = Arc::new(AtomicUsize::new(0));
        let count = made.clone();
        let pool = Pool::start(&shape(1, 4), move || count.fetch_add(1, Ordering::Relaxed)).unwrap();
        pool.submit(call(|_: &mut usize| panic!("a job's own fault"))).unwrap();
        let (sender, seen) = mpsc::channel();
        pool.submit(call(move |state: &mut usize| sender.send(*state).unwrap())).unwrap();
        assert_eq!(seen.recv(), Ok(1));
        assert_eq!(made.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn closing_waits_for_work_but_not_for_a_thread_that_hangs() {
        let pool = Pool::start(&shape(2, 4), || ()).unwrap();
        let (job, begun, open) = gate();
        pool.submit(job).unwrap();
        begun.recv().unwrap();
        let (sender, waited) = mpsc::channel::<()>();
        let (second, begun, _open_second) = gate();
        pool.submit(second).unwrap();
        begun.recv().unwrap();
        pool.submit(call(move |(): &mut ()| sender.send(()).unwrap())).unwrap();
        let started = Instant::now();
        drop(pool);
        assert!(started.elapsed() >= CLOSE_WAIT);
        assert!(waited.recv().is_err(), "what waited was dropped, not run");
        drop(open);
    }

    #[test]
    fn threads_act_as_the_reader_and_nothing_else_does() {
        assert!(nix::unistd::geteuid().is_root(), "only root can act as others: run this as root");
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "x").unwrap();
        std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let identity = Identity { uid: 65_534, gid: 65_534, groups: Vec::new() };
        let pool = Pool::start(&Shape { identity, ..shape(2, 4) }, || ()).unwrap();
        let (sender, answers) = mpsc::channel();
        let read = secret.clone();
        pool.submit(call(move |(): &mut ()| {
            sender.send(std::fs::read(&read).map_err(|e| e.kind())).unwrap();
        }))
        .unwrap();
        assert_eq!(answers.recv(), Ok(Err(io::ErrorKind::PermissionDenied)));
        assert_eq!(std::fs::read(&secret).unwrap(), b"x");
    }
}
