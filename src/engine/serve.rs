//! Dicfuse as a FUSE file system: each question is put to the tree, and what it lacks is fetched while the question
//! waits elsewhere. Adds the owner, which the tree does not know.
//!
//! [`Served`] answers our own device layer. What else serves the tree puts its questions through [`Served::settle`], so
//! that needs and failures are treated alike.

mod complaints;
mod errno;
mod patience;
mod turns;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub(crate) use self::turns::Turns;
use self::{complaints::Complaints, patience::Patience, turns::Turn};
use crate::{
    dicfuse::{Attr, Attrs, Dicfuse, Found, Need, Stop},
    fusedev::{Answer, Answered, Asker, DirBuffer, FileAttr, FileSystem, Question, Usage, User},
    origin::FetchError,
    types::{EntryKind, NodeId},
};

/// Fetches for one question: the directory, a size, the content, with room for the tree to change its mind. Each brings
/// the answer nearer, so more of them mean a fault in the tree, which must not spin.
const MAX_FETCHES: usize = 8;

/// Links of every inode, directories too: 1 is what says that a directory's subdirectories were not counted. With 2,
/// tools that go by the count would look for none.
pub(super) const LINKS: u32 = 1;

/// The tree, as it belongs to one owner. Cheap to clone.
#[derive(Clone)]
pub struct Served {
    dicfuse: Dicfuse,
    uid: u32,
    gid: u32,
    deadline: Duration,
    patience: Patience,
    turns: Turns,
    complaints: Arc<Complaints>,
    /// Where trees are read ahead of those who walk through them, if they are.
    ahead: Option<tokio::runtime::Handle>,
}

/// A question that can be kept while its answer is fetched.
struct Kept {
    question: Question<'static>,
    name: Vec<u8>,
}

impl FileSystem for Served {
    fn ask(&self, question: Question<'_>, asker: &Asker) -> Answered {
        match self.try_answer(question, Attrs::Fetch) {
            Ok(answer) => Answered::Now(answer),
            Err(Stop::Need(need)) => self.fetch_for(question, need, self.whose(asker)),
            Err(stop) => Answered::Now(Answer::Errno(self.refuse(&stop, errno::of_stop(&stop)))),
        }
    }
}

/// What a question gives when it is put to the tree: an answer, or why there is none now.
type Put<T> = dyn Fn(&Served, Attrs) -> Result<T, Stop> + Send + Sync;

impl Served {
    /// The tree as it belongs to `uid` and `gid`; no question takes longer than `deadline`, and each user has at most
    /// `fetches_per_user` fetches from one origin under way.
    pub fn new(dicfuse: Dicfuse, uid: u32, gid: u32, deadline: Duration, fetches_per_user: usize) -> Served {
        let (patience, turns) = (Patience::within(deadline), Turns::new(fetches_per_user));
        Served { dicfuse, uid, gid, deadline, patience, turns, complaints: Arc::default(), ahead: None }
    }

    /// The same, with trees read ahead on `runtime` of those who walk through them.
    #[must_use]
    pub fn reading_ahead(self, runtime: tokio::runtime::Handle) -> Served {
        Served { ahead: Some(runtime), ..self }
    }

    /// What its users have under way.
    pub(super) fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Who waits for what is fetched: whose it is, where it is all one user's. There, what an overlay asks comes with the
    /// ids of whoever mounted it, and costs nothing to tell.
    fn whose(&self, asker: &Asker) -> User {
        match self.uid {
            0 => asker.user(),
            uid => User::Uid(uid),
        }
    }

    /// The tree.
    #[cfg(feature = "rfuse3")]
    pub(super) fn dicfuse(&self) -> &Dicfuse {
        &self.dicfuse
    }

    /// Whose it is.
    #[cfg(feature = "rfuse3")]
    pub(super) fn owner(&self) -> (u32, u32) {
        (self.uid, self.gid)
    }

    /// Puts a question until it is answered; what it needs is fetched in between. The error is an errno. `sizeless` says
    /// that the question goes on without sizes that cannot be had: one for names.
    ///
    /// Who asks is not known there, so all of them have one user's share.
    #[cfg(feature = "rfuse3")]
    pub(super) async fn settle<T: Send + 'static>(&self, sizeless: bool, put: Arc<Put<T>>) -> Result<T, i32> {
        match self.put_again(Arc::clone(&put), Attrs::Fetch).await {
            Ok(answered) => answered,
            Err(need) => self.fetch_and_put(sizeless, need, User::Unknown, put).await,
        }
    }

    fn fetch_for(&self, question: Question<'_>, need: Box<Need>, user: User) -> Answered {
        let hasty = match (question, need.as_ref()) {
            // A name stays where it is even if nobody may wait for its size.
            (Question::Lookup { .. }, Need::Sizes { .. }) => self.try_answer(question, Attrs::Known).ok(),
            _ => None,
        };
        let later = Box::pin(self.clone().answer_later(question.into(), need, user));
        match hasty {
            Some(hasty) => Answered::LaterOr(later, hasty),
            None => Answered::Later(later),
        }
    }

    fn try_answer(&self, question: Question<'_>, attrs: Attrs) -> Result<Answer, Stop> {
        match question {
            Question::Lookup { parent, name } => self.lookup(NodeId(parent), name, attrs),
            Question::GetAttr { node } => {
                Ok(Answer::Attr(self.file_attr(self.dicfuse.getattr(NodeId(node))?)))
            }
            Question::ReadLink { node } => Ok(Answer::Data(self.dicfuse.readlink(NodeId(node))?)),
            Question::Read { node, offset, size } => {
                Ok(Answer::Data(self.dicfuse.read(NodeId(node), offset, size)?))
            }
            Question::ReadDir { node, offset, size, plus } => {
                let attrs = if plus { attrs } else { Attrs::Omit };
                self.list(NodeId(node), offset, DirBuffer::new(size, plus), attrs)
            }
            // An overlay shows the numbers of its upper; nobody else comes here.
            Question::StatFs => Ok(Answer::StatFs(Usage::default())),
        }
    }

    fn lookup(&self, parent: NodeId, name: &[u8], attrs: Attrs) -> Result<Answer, Stop> {
        Ok(match self.find(parent, name, attrs)? {
            Some(Found::Known(attr)) => Answer::Entry(self.file_attr(attr)),
            Some(Found::Unsized { node, kind, mtime }) => {
                Answer::Unsized(self.file_attr(Attr { node, kind, size: 0, mtime }))
            }
            // A root may come to be: the kernel must ask again.
            None if parent == NodeId::ROOT => Answer::Errno(libc::ENOENT),
            None => Answer::NoEntry,
        })
    }

    /// What `name` is; without its size when that could not be fetched. An error would do harm: an overlay that lists a
    /// directory looks its names up, and a name whose look-up fails is missing from what it shows from then on.
    pub(super) fn find(&self, parent: NodeId, name: &[u8], attrs: Attrs) -> Result<Option<Found>, Stop> {
        match attrs {
            Attrs::Fetch => Ok(self.dicfuse.lookup(parent, name)?.map(Found::Known)),
            Attrs::Known | Attrs::Omit => self.dicfuse.lookup_known(parent, name),
        }
    }

    fn list(&self, dir: NodeId, offset: u64, mut buffer: DirBuffer, attrs: Attrs) -> Result<Answer, Stop> {
        self.dicfuse.readdir(dir, offset, attrs, &mut |entry| {
            let attr = entry.attr.map(|attr| self.file_attr(attr));
            buffer.push(entry.node.0, entry.next, entry.kind.unix_mode(), entry.name, attr)
        })?;
        if offset == 0 {
            self.read_ahead(dir);
        }
        Ok(Answer::Listing(buffer))
    }

    /// Directory `dir` is listed.
    fn read_ahead(&self, dir: NodeId) {
        if let Some(runtime) = &self.ahead
            && let Some(ahead) = self.dicfuse.ahead_of(dir, Instant::now())
        {
            let dicfuse = self.dicfuse.clone();
            runtime.spawn(async move { dicfuse.read_ahead(ahead).await });
        }
    }

    fn file_attr(&self, attr: Attr) -> FileAttr {
        FileAttr {
            ino: attr.node.0,
            size: attr.size,
            mtime: attr.mtime,
            mode: EntryKind::unix_mode(attr.kind),
            nlink: LINKS,
            uid: self.uid,
            gid: self.gid,
        }
    }

    async fn answer_later(self, kept: Kept, need: Box<Need>, user: User) -> Answer {
        let sizeless = kept.is_for_names();
        let put = Arc::new(move |served: &Served, attrs| served.try_answer(kept.question(), attrs));
        self.fetch_and_put(sizeless, need, user, put).await.unwrap_or_else(Answer::Errno)
    }

    async fn fetch_and_put<T: Send + 'static>(
        &self,
        sizeless: bool,
        need: Box<Need>,
        user: User,
        put: Arc<Put<T>>,
    ) -> Result<T, i32> {
        let mut need = need;
        let mut attrs = Attrs::Fetch;
        let begin = Instant::now();
        for _ in 0..MAX_FETCHES {
            match *need {
                Need::Sizes { .. } if sizeless => attrs = self.try_sizes(*need, user, begin).await,
                need => {
                    let turn = self.turns.take(need.origin().clone(), user).await;
                    let fetched = self.fetch(need, turn, begin).await;
                    fetched.map_err(|error| self.refuse(&error, errno::of_fetch(&error)))?;
                }
            }
            match self.put_again(Arc::clone(&put), attrs).await {
                Ok(answered) => return answered,
                Err(next) => need = next,
            }
        }
        Err(self.refuse(&TooManyFetches, libc::EIO))
    }

    /// Fetches sizes for a question that goes on without them; who asks for one of them learns why it does not come.
    async fn try_sizes(&self, need: Need, user: User, begin: Instant) -> Attrs {
        let origin = need.origin().clone();
        let Some(longest) = self.patience.with(&origin, Instant::now()) else { return Attrs::Known };
        // What else it waited for counts, or it would end at its deadline without the names.
        let left = || longest.saturating_sub(begin.elapsed());
        let turn = tokio::time::timeout(left(), self.turns.take(origin.clone(), user)).await;
        // The user's own fetches took so long; the origin may be as quick as ever for others.
        let Ok(turn) = turn else { return Attrs::Known };
        match tokio::time::timeout(left(), self.fetch(need, turn, begin)).await {
            Ok(Ok(())) => return Attrs::Fetch,
            Ok(Err(error)) => self.complaints.log(&error),
            // Their flight goes on; whoever stats one of them waits for it.
            Err(_) => self.patience.is_over(origin, Instant::now()),
        }
        Attrs::Known
    }

    /// Goes on when nobody waits any more, and keeps its turn: who asks and goes away has no more under way than who stays.
    /// But not longer than its question could, which began at `begin` and may have waited for its turn since: what an origin
    /// that hangs has swallowed would keep later questions waiting when it is well again.
    async fn fetch(&self, need: Need, turn: Turn, begin: Instant) -> Result<(), FetchError> {
        let (dicfuse, origin) = (self.dicfuse.clone(), need.origin().clone());
        let until = (begin + self.deadline).into();
        let fetched = tokio::spawn(async move {
            let fetched = dicfuse.fetch_until(until, need).await;
            drop(turn);
            fetched
        });
        let broken =
            |error: tokio::task::JoinError| FetchError::Unreachable { origin, reason: error.to_string() };
        fetched.await.map_err(broken)?
    }

    /// On a thread that may block: the cache reads files.
    async fn put_again<T: Send + 'static>(
        &self,
        put: Arc<Put<T>>,
        attrs: Attrs,
    ) -> Result<Result<T, i32>, Box<Need>> {
        let served = self.clone();
        match tokio::task::spawn_blocking(move || put(&served, attrs)).await {
            Ok(Ok(answer)) => Ok(Ok(answer)),
            Ok(Err(Stop::Need(need))) => Err(need),
            Ok(Err(stop)) => Ok(Err(self.refuse(&stop, errno::of_stop(&stop)))),
            Err(stopped) => Ok(Err(self.refuse(&stopped, libc::EIO))),
        }
    }

    fn refuse(&self, cause: &dyn std::error::Error, errno: i32) -> i32 {
        self.complaints.log(cause);
        errno
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a question needed more than {MAX_FETCHES} fetches")]
struct TooManyFetches;

impl From<Question<'_>> for Kept {
    fn from(question: Question<'_>) -> Kept {
        let name = if let Question::Lookup { name, .. } = question { name.to_vec() } else { Vec::new() };
        let question = match question {
            Question::Lookup { parent, .. } => Question::Lookup { parent, name: b"" },
            Question::GetAttr { node } => Question::GetAttr { node },
            Question::ReadLink { node } => Question::ReadLink { node },
            Question::Read { node, offset, size } => Question::Read { node, offset, size },
            Question::ReadDir { node, offset, size, plus } => Question::ReadDir { node, offset, size, plus },
            Question::StatFs => Question::StatFs,
        };
        Kept { question, name }
    }
}

impl Kept {
    fn question(&self) -> Question<'_> {
        match self.question {
            Question::Lookup { parent, .. } => Question::Lookup { parent, name: &self.name },
            other => other,
        }
    }

    /// Whether the answer is names first of all, and of use without sizes.
    fn is_for_names(&self) -> bool {
        matches!(self.question, Question::Lookup { .. } | Question::ReadDir { .. })
    }
}
