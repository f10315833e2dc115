//! [`Reader`]: finding and reading objects, on a thread that may block.
//!
//! An object is looked for in every pack, then loose in every object directory; if it is in none, in whatever is new
//! on disk since. Only when every place could be looked into is it absent; a place that is damaged or forbidden makes
//! the answer "cannot be read". Bodies are as stored, not yet compared with their id.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use gix::objs::Kind;

use super::{
    error::{OpenError, ReadError},
    layout::Layout,
    loose,
    pack::Unpacker,
    shelf::{Freshness, ObjectDir, Pack, Shelf},
};
use crate::{
    telemetry::event,
    types::{Oid, OriginName},
};

/// Largest blob that is read: an answer is held in memory as a whole, and each thread may hold one.
const BLOB_MAX: u64 = 1024 * 1024 * 1024;
/// Largest tree, commit or tag: a tree of this size would have a million entries and more.
const OTHER_MAX: u64 = 128 * 1024 * 1024;

/// Largest object of `kind` that is read.
pub(super) fn object_max(kind: Kind) -> u64 {
    if kind == Kind::Blob { BLOB_MAX } else { OTHER_MAX }
}

/// The repository that all readers of an origin share.
pub(super) struct Repository {
    origin: OriginName,
    path: PathBuf,
    shelf: Shelf,
    health: AtomicU8,
}

/// A repository as it was found at one moment.
pub(super) struct View {
    pub(super) layout: Layout,
    dirs: Vec<Arc<ObjectDir>>,
}

/// One thread's means to read a repository.
pub(super) struct Reader {
    repository: Arc<Repository>,
    unpacker: Unpacker,
}

const UNKNOWN: u8 = 0;
const READABLE: u8 = 1;
const UNREADABLE: u8 = 2;

impl Repository {
    /// The repository at `path`, which need not be there yet.
    pub(super) fn new(origin: OriginName, path: &Path) -> Repository {
        Repository { origin, path: path.to_owned(), shelf: Shelf::default(), health: AtomicU8::new(UNKNOWN) }
    }

    /// Its place.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Looks at the repository as it is now.
    pub(super) fn view(&self, freshness: Freshness) -> Result<View, OpenError> {
        let view = self.look(freshness);
        self.note(view.as_ref().err());
        view
    }

    fn look(&self, freshness: Freshness) -> Result<View, OpenError> {
        let layout = Layout::find(&self.path).inspect_err(|_| self.shelf.clear())?;
        let dirs = self.shelf.view(&layout.objects, freshness);
        Ok(View { layout, dirs })
    }

    /// One line in the journal when it becomes readable, one when it stops being so.
    fn note(&self, error: Option<&OpenError>) {
        let now = if error.is_some() { UNREADABLE } else { READABLE };
        if self.health.swap(now, Ordering::Relaxed) == now {
            return;
        }
        let (origin, path) = (self.origin.as_str(), self.path.display());
        match error {
            Some(error) => tracing::warn!(
                message_id = event::ORIGIN_FAILED, scorpio_origin = origin, %path, %error, "origin cannot be read"
            ),
            None => tracing::info!(
                message_id = event::ORIGIN_RESTORED, scorpio_origin = origin, %path, "origin is readable"
            ),
        }
    }
}

impl View {
    fn is(&self, other: &View) -> bool {
        self.layout == other.layout
            && self.dirs.len() == other.dirs.len()
            && self.dirs.iter().zip(&other.dirs).all(|(one, another)| Arc::ptr_eq(one, another))
    }

    fn packs(&self) -> impl Iterator<Item = &Pack> {
        self.dirs.iter().flat_map(|dir| &dir.packs).map(Arc::as_ref)
    }

    fn flaw(&self) -> Option<&OpenError> {
        self.layout.flaws.first().or_else(|| self.dirs.iter().find_map(|dir| dir.flaws.first()))
    }
}

impl Reader {
    /// A reader of `repository`.
    pub(super) fn new(repository: Arc<Repository>) -> Reader {
        Reader { repository, unpacker: Unpacker::new() }
    }

    /// The repository as it is now.
    pub(super) fn view(&self) -> Result<View, OpenError> {
        self.repository.view(Freshness::Stamped)
    }

    /// The repository as it is now, with nothing on disk that this view does not know.
    pub(super) fn view_certainly(&self) -> Result<View, OpenError> {
        self.repository.view(Freshness::Certain)
    }

    /// Starts over with empty buffers, after a panic in the middle of using them.
    pub(super) fn forget(&mut self) {
        *self = Reader::new(self.repository.clone());
    }

    /// Body of the object, which must be of `kind`.
    pub(super) fn body(&mut self, view: &mut View, oid: Oid, kind: Kind) -> Result<Vec<u8>, ReadError> {
        let (found, body) = self.object(view, oid)?;
        expect(kind, found)?;
        Ok(body)
    }

    /// Kind and body of the object.
    pub(super) fn object(&mut self, view: &mut View, oid: Oid) -> Result<(Kind, Vec<u8>), ReadError> {
        self.looking_again(view, |reader, view| {
            search(
                view,
                oid,
                |pack, offset| reader.packed_object(pack, offset),
                |dir| loose::object(dir, oid),
            )
        })
    }

    /// Size of the blob, from its header alone.
    pub(super) fn blob_size(&mut self, view: &mut View, oid: Oid) -> Result<u64, ReadError> {
        let (found, size) = self.header(view, oid)?;
        expect(Kind::Blob, found)?;
        Ok(size)
    }

    /// Kind and size of the object, from its header alone.
    pub(super) fn header(&mut self, view: &mut View, oid: Oid) -> Result<(Kind, u64), ReadError> {
        self.looking_again(view, |reader, view| {
            search(
                view,
                oid,
                |pack, offset| reader.packed_header(pack, offset),
                |dir| loose::header(dir, oid),
            )
        })
    }

    /// Ids of all objects that begin with the hexadecimal digits `prefix`, up to `max` and one more.
    pub(super) fn with_prefix(&self, view: &View, prefix: &str, max: usize) -> Result<Vec<Oid>, ReadError> {
        let mut found = std::collections::BTreeSet::new();
        for pack in view.packs() {
            found.extend(pack.index.with_prefix(prefix, max + 1)?);
        }
        for dir in &view.dirs {
            found.extend(loose::with_prefix(&dir.path, prefix)?);
        }
        match view.flaw() {
            Some(flaw) if found.is_empty() => Err(flaw.clone().into()),
            _ => Ok(found.into_iter().take(max + 1).collect()),
        }
    }

    /// Asks; and on failure asks once more if the disk holds something newer than `view` knew.
    fn looking_again<T>(
        &mut self,
        view: &mut View,
        mut ask: impl FnMut(&mut Reader, &View) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        match ask(self, view) {
            Ok(answer) => Ok(answer),
            Err(error) => {
                let now = self.repository.view(Freshness::Certain)?;
                if now.is(view) {
                    return Err(error);
                }
                *view = now;
                ask(self, view)
            }
        }
    }

    fn packed_object(&mut self, pack: &Pack, offset: u64) -> Result<(Kind, Vec<u8>), ReadError> {
        let (kind, size) = self.packed_header(pack, offset)?;
        let max = object_max(kind);
        if size > max {
            return Err(ReadError::Damaged(format!(
                "it is a {kind} of {size} bytes; at most {max} are read"
            )));
        }
        self.unpacker.object(pack, offset)
    }

    fn packed_header(&mut self, pack: &Pack, offset: u64) -> Result<(Kind, u64), ReadError> {
        self.unpacker.header(pack, offset)
    }
}

/// Looks into every place; the first that has the object answers, else the first that could not be looked into.
fn search<T>(
    view: &View,
    oid: Oid,
    mut packed: impl FnMut(&Pack, u64) -> Result<T, ReadError>,
    mut loose: impl FnMut(&Path) -> Result<Option<T>, ReadError>,
) -> Result<T, ReadError> {
    let places = view.packs().filter_map(|pack| Some((pack, pack.find(oid).transpose()?)));
    let answers = places.map(|(pack, offset)| packed(pack, offset?));
    let mut failed = None;
    for answer in answers {
        match answer {
            Ok(found) => return Ok(found),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    for dir in &view.dirs {
        match loose(&dir.path) {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    let flaw = || view.flaw().cloned().map(ReadError::Repository);
    Err(failed.or_else(flaw).unwrap_or(ReadError::Absent))
}

fn expect(wanted: Kind, found: Kind) -> Result<(), ReadError> {
    if wanted == found {
        return Ok(());
    }
    Err(ReadError::Damaged(format!("it is a {found}, not a {wanted}")))
}
