//! Dicfuse as a FUSE file system: each question is put to the tree, and what it lacks is fetched while the question
//! waits elsewhere. Adds the owner, which the tree does not know.

mod complaints;
mod errno;
mod patience;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use self::{complaints::Complaints, patience::Patience};
use crate::{
    dicfuse::{Attr, Attrs, Dicfuse, Need, Stop},
    fusedev::{Answer, Answered, Asker, DirBuffer, FileAttr, FileSystem, Question, Usage},
    types::{EntryKind, NodeId, OriginName},
};

/// Fetches for one question: the directory, a size, the content, with room for the tree to change its mind. Each brings
/// the answer nearer, so more of them mean a fault in the tree, which must not spin.
const MAX_FETCHES: usize = 8;

/// Links of every inode, directories too: 1 is what says that a directory's subdirectories were not counted. With 2,
/// tools that go by the count would look for none.
const LINKS: u32 = 1;

/// The tree, as it belongs to one owner. Cheap to clone.
#[derive(Clone)]
pub(super) struct Served {
    dicfuse: Dicfuse,
    uid: u32,
    gid: u32,
    patience: Patience,
    complaints: Arc<Complaints>,
}

/// A question that can be kept while its answer is fetched.
struct Kept {
    question: Question<'static>,
    name: Vec<u8>,
}

impl FileSystem for Served {
    fn ask(&self, question: Question<'_>, _asker: Asker) -> Answered {
        match self.answer(question, Attrs::Fetch) {
            Ok(answer) => Answered::Now(answer),
            Err(need) => Answered::Later(Box::pin(self.clone().answer_later(Kept::from(question), need))),
        }
    }
}

impl Served {
    /// The tree for one owner; no question takes longer than `deadline`.
    pub(super) fn new(dicfuse: Dicfuse, uid: u32, gid: u32, deadline: Duration) -> Served {
        Served { dicfuse, uid, gid, patience: Patience::within(deadline), complaints: Arc::default() }
    }

    /// Answers from what is here, or says what is needed.
    fn answer(&self, question: Question<'_>, attrs: Attrs) -> Result<Answer, Box<Need>> {
        self.try_answer(question, attrs).or_else(|stop| match stop {
            Stop::Need(need) => Err(need),
            other => Ok(self.refuse(&other, errno::of_stop(&other))),
        })
    }

    fn try_answer(&self, question: Question<'_>, attrs: Attrs) -> Result<Answer, Stop> {
        match question {
            Question::Lookup { parent, name } => self.lookup(NodeId(parent), name),
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

    fn lookup(&self, parent: NodeId, name: &[u8]) -> Result<Answer, Stop> {
        Ok(match self.dicfuse.lookup(parent, name)? {
            Some(attr) => Answer::Entry(self.file_attr(attr)),
            // A root may come to be: the kernel must ask again.
            None if parent == NodeId::ROOT => Answer::Errno(libc::ENOENT),
            None => Answer::NoEntry,
        })
    }

    fn list(&self, dir: NodeId, offset: u64, mut buffer: DirBuffer, attrs: Attrs) -> Result<Answer, Stop> {
        self.dicfuse.readdir(dir, offset, attrs, &mut |entry| {
            let attr = entry.attr.map(|attr| self.file_attr(attr));
            buffer.push(entry.node.0, entry.next, entry.kind.unix_mode(), entry.name, attr)
        })?;
        Ok(Answer::Listing(buffer))
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

    async fn answer_later(self, kept: Kept, need: Box<Need>) -> Answer {
        let kept = Arc::new(kept);
        let mut need = need;
        let mut attrs = Attrs::Fetch;
        for _ in 0..MAX_FETCHES {
            match *need {
                Need::Sizes { ref origin, .. } if kept.is_listing() => {
                    let origin = origin.clone();
                    attrs = self.try_sizes(origin, *need).await;
                }
                need => {
                    if let Err(error) = self.dicfuse.fetch(need).await {
                        return self.refuse(&error, errno::of_fetch(&error));
                    }
                }
            }
            match self.ask_again(Arc::clone(&kept), attrs).await {
                Ok(answer) => return answer,
                Err(next) => need = next,
            }
        }
        self.refuse(&TooManyFetches, libc::EIO)
    }

    /// Fetches sizes for a listing, which goes on without them; who asks for one of them learns why it does not come.
    async fn try_sizes(&self, origin: OriginName, need: Need) -> Attrs {
        let Some(longest) = self.patience.with(&origin, Instant::now()) else { return Attrs::Known };
        match tokio::time::timeout(longest, self.dicfuse.fetch(need)).await {
            Ok(Ok(())) => return Attrs::Fetch,
            Ok(Err(error)) => self.complaints.log(&error),
            // Their flight goes on; whoever stats one of them waits for it.
            Err(_) => self.patience.is_over(origin, Instant::now()),
        }
        Attrs::Known
    }

    /// On a thread that may block: the cache reads files.
    async fn ask_again(&self, kept: Arc<Kept>, attrs: Attrs) -> Result<Answer, Box<Need>> {
        let served = self.clone();
        let asked = tokio::task::spawn_blocking(move || served.answer(kept.question(), attrs));
        asked.await.unwrap_or_else(|stopped| Ok(self.refuse(&stopped, libc::EIO)))
    }

    fn refuse(&self, cause: &dyn std::error::Error, errno: i32) -> Answer {
        self.complaints.log(cause);
        Answer::Errno(errno)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a question needed more than {MAX_FETCHES} fetches")]
struct TooManyFetches;

impl Kept {
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

    fn question(&self) -> Question<'_> {
        match self.question {
            Question::Lookup { parent, .. } => Question::Lookup { parent, name: &self.name },
            other => other,
        }
    }

    fn is_listing(&self) -> bool {
        matches!(self.question, Question::ReadDir { .. })
    }
}
