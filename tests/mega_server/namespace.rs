//! What the server's paths lead to: the monorepo's head, and import repositories mounted below [`IMPORTS`].
//!
//! As measured: the parent of an import repository lists, in the place of its tree's id, the id of a placeholder tree
//! that is renewed at each push and whose one blob is nowhere; paths in it lead to its own head and no revision.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    sync::{Arc, RwLock},
};

use bytes::Bytes;
use scorpio::types::{ObjectKind, Oid};

use super::{
    repository::{Commit, Repository, Tree},
    tree::{self, Entry},
};

/// The directory below which import repositories lie.
pub const IMPORTS: &str = "third-party";

/// Names from the top; empty for the top itself.
pub type Names = Vec<Vec<u8>>;

pub struct Namespace {
    mono: Repository,
    imports: RwLock<BTreeMap<String, Arc<Import>>>,
    now: RwLock<Now>,
}

struct Import {
    repository: Repository,
    head: RwLock<Commit>,
    placeholder: RwLock<Oid>,
}

/// What the last push left, and what pushes made that is in no repository.
struct Now {
    /// The monorepo's commit without imports.
    base: Commit,
    head: Commit,
    commits: HashMap<Oid, Commit>,
    trees: HashMap<Oid, Tree>,
    pushes: u64,
    disordered: BTreeSet<Names>,
}

/// Why a path has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// The server's own failure: unknown revisions, apostrophes below [`IMPORTS`].
    Internal,
}

/// A tree of one of the repositories to walk from, and the names that are left.
pub struct Start {
    pub commit: Commit,
    /// Directory of the repository in the namespace.
    pub at: Names,
    pub names: Names,
    import: Option<Arc<Import>>,
}

impl Namespace {
    pub fn new(repository: &Path, rev: &str) -> Namespace {
        let mono = Repository::new(repository);
        let base = commit_of(&mono, rev);
        let now = Now {
            head: base.clone(),
            base,
            commits: HashMap::new(),
            trees: HashMap::new(),
            pushes: 0,
            disordered: BTreeSet::new(),
        };
        Namespace { mono, imports: RwLock::default(), now: RwLock::new(now) }
    }

    /// The monorepo's head becomes what `rev` is in its repository.
    pub fn push(&self, rev: &str) -> Oid {
        let base = commit_of(&self.mono, rev);
        self.now.write().unwrap().base = base;
        self.renew()
    }

    /// An import repository's head becomes what `rev` is in it; the first push mounts it.
    pub fn push_import(&self, name: &str, repository: Option<&Path>, rev: &str) -> Oid {
        if let Some(path) = repository {
            let repository = Repository::new(path);
            let head = commit_of(&repository, rev);
            let import = Import { repository, head: RwLock::new(head), placeholder: Oid::EMPTY_TREE.into() };
            self.imports.write().unwrap().insert(name.to_owned(), Arc::new(import));
        } else {
            let import = self.imports.read().unwrap()[name].clone();
            *import.head.write().unwrap() = commit_of(&import.repository, rev);
        }
        let import = self.imports.read().unwrap()[name].clone();
        *import.placeholder.write().unwrap() = self.placeholder(name);
        self.renew()
    }

    /// Serves the trees at these paths in reverse order, under the ids that their bytes then have.
    pub fn disorder(&self, paths: impl IntoIterator<Item = Names>) -> Oid {
        self.now.write().unwrap().disordered.extend(paths);
        self.renew()
    }

    pub fn head(&self) -> Commit {
        self.now.read().unwrap().head.clone()
    }

    /// Where the walk to `names` begins. `refs`: see [`Namespace::revision`]; import repositories ignore it.
    pub fn start(&self, names: &Names, refs: &str) -> Result<Start, NoAnswer> {
        let below = names.len() > 1 && names[0] == IMPORTS.as_bytes();
        if below && names.iter().any(|name| name.contains(&b'\'')) {
            return Err(NoAnswer::Internal);
        }
        if let Some((name, import)) = below.then(|| self.import(&names[1])).flatten() {
            let commit = import.head.read().unwrap().clone();
            let at = vec![IMPORTS.into(), name];
            // A name that only begins like the repository's is taken for a path in it.
            let rest = names[1][at[1].len()..].to_vec();
            let rest = if rest.is_empty() { names[2..].to_vec() } else { [&[rest], &names[2..]].concat() };
            return Ok(Start { commit, at, names: rest, import: Some(import) });
        }
        let commit = self.revision(refs).ok_or(NoAnswer::Internal)?;
        Ok(Start { commit, at: Names::new(), names: names.clone(), import: None })
    }

    /// The commit that `refs` means: nothing for the head, else a commit's id, else a tag.
    pub fn revision(&self, refs: &str) -> Option<Commit> {
        let now = self.now.read().unwrap();
        if refs.is_empty() {
            return Some(now.head.clone());
        }
        match refs.parse::<Oid>() {
            Ok(oid) => now.commits.get(&oid).cloned().or_else(|| self.mono.commit(oid)),
            Err(_) => self.mono.commit(self.mono.rev(&format!("refs/tags/{refs}^{{commit}}"))?),
        }
    }

    /// The id of the directory that a walk ends in; `None` when there is none.
    pub fn directory_id(&self, start: &Start) -> Option<Oid> {
        let mut oid = start.commit.tree;
        for name in &start.names {
            oid = self
                .tree(start, oid)?
                .entries
                .iter()
                .find(|entry| entry.name == *name && entry.is_directory())?
                .oid;
        }
        Some(oid)
    }

    /// The directory that a walk ends in.
    pub fn directory(&self, start: &Start) -> Option<Tree> {
        self.tree(start, self.directory_id(start)?)
    }

    fn tree(&self, start: &Start, oid: Oid) -> Option<Tree> {
        match &start.import {
            Some(import) => import.repository.tree(oid),
            None => self.made_or_read(oid),
        }
    }

    /// A blob of any repository: they share one store.
    pub fn blob(&self, oid: Oid) -> Option<Bytes> {
        let is_blob = |(kind, body): (String, Bytes)| (kind == "blob").then_some(body);
        self.mono.object(oid).and_then(is_blob).or_else(|| {
            let imports: Vec<_> = self.imports.read().unwrap().values().cloned().collect();
            imports.iter().find_map(|import| import.repository.object(oid).and_then(is_blob))
        })
    }

    /// Blobs below a directory, as stock git lists them.
    pub fn blobs_below(&self, names: &Names) -> Vec<Oid> {
        let Ok(start) = self.start(names, "") else { return Vec::new() };
        let Some(top) = self.directory_id(&start) else { return Vec::new() };
        let (mut found, mut left) = (Vec::new(), vec![top]);
        while let Some(tree) = left.pop().and_then(|oid| self.tree(&start, oid)) {
            let (directories, files): (Vec<_>, Vec<_>) =
                tree.entries.iter().partition(|entry| entry.is_directory());
            left.extend(directories.iter().map(|entry| entry.oid));
            found.extend(files.iter().map(|entry| entry.oid));
        }
        found
    }

    /// The newest commit that changed what lies at `start`.
    pub fn newest(&self, start: &Start) -> Option<Commit> {
        if start.names.is_empty() {
            return Some(start.commit.clone());
        }
        let repository = start.import.as_ref().map_or(&self.mono, |import| &import.repository);
        let from = if start.import.is_some() { start.commit.oid } else { self.base_of(&start.commit) };
        let path = String::from_utf8(start.names.join(&b'/')).ok()?;
        let path = format!(":(literal,top){path}");
        repository.commit(repository.git(&["rev-list", "-1", &from.to_string(), "--", &path])?.parse().ok()?)
    }

    /// Whether there is an import repository at exactly this place.
    pub fn is_import(&self, names: &Names) -> bool {
        let imports = self.imports.read().unwrap();
        names.len() == 2 && std::str::from_utf8(&names[1]).is_ok_and(|name| imports.contains_key(name))
    }

    pub fn import_repository_git(&self, name: &str, args: &[&str]) -> Option<String> {
        self.imports.read().unwrap()[name].repository.git(args)
    }

    pub fn mono_git(&self, args: &[&str]) -> Option<String> {
        self.mono.git(args)
    }

    /// The longest import's name that `name` begins with.
    fn import(&self, name: &[u8]) -> Option<(Vec<u8>, Arc<Import>)> {
        let imports = self.imports.read().unwrap();
        let fits = imports.iter().filter(|(import, _)| name.starts_with(import.as_bytes()));
        let (found, import) = fits.max_by_key(|(import, _)| import.len())?;
        Some((found.clone().into_bytes(), import.clone()))
    }

    fn made_or_read(&self, oid: Oid) -> Option<Tree> {
        let made = self.now.read().unwrap().trees.get(&oid).cloned();
        made.or_else(|| self.mono.tree(oid))
    }

    /// A commit's own id, or for one that a push made, the monorepo's at that time.
    fn base_of(&self, commit: &Commit) -> Oid {
        let now = self.now.read().unwrap();
        if now.commits.contains_key(&commit.oid) { now.base.oid } else { commit.oid }
    }

    /// A new placeholder: a tree of one `.gitkeep` that says when it was made, whose blob is stored nowhere.
    fn placeholder(&self, name: &str) -> Oid {
        let pushes = self.count_push();
        let keep = format!("Placeholder for /{IMPORTS}/{name} {pushes}");
        let keep = Entry {
            mode: "100644".into(),
            name: b".gitkeep".into(),
            oid: tree::id(ObjectKind::Blob, keep.as_bytes()),
        };
        self.keep(&[keep])
    }

    fn count_push(&self) -> u64 {
        let mut now = self.now.write().unwrap();
        now.pushes += 1;
        now.pushes
    }

    /// Keeps a tree that a push made.
    fn keep(&self, entries: &[Entry]) -> Oid {
        let body = tree::write(entries);
        let oid = tree::id(ObjectKind::Tree, &body);
        self.now.write().unwrap().trees.insert(oid, Tree::new(body.into()));
        oid
    }

    /// The head again, after something changed: the monorepo's commit, or one made of it with what is mounted in it.
    fn renew(&self) -> Oid {
        let (base, disordered) = {
            let now = self.now.read().unwrap();
            (now.base.clone(), now.disordered.clone())
        };
        let imports = self.imports.read().unwrap();
        let head = if imports.is_empty() && disordered.is_empty() {
            base
        } else {
            let top = self.rebuilt(base.tree, &Names::new(), &imports, &disordered);
            self.made_commit(&base, top)
        };
        let mut now = self.now.write().unwrap();
        now.head = head.clone();
        head.oid
    }

    fn rebuilt(
        &self,
        oid: Oid,
        at: &Names,
        imports: &BTreeMap<String, Arc<Import>>,
        disordered: &BTreeSet<Names>,
    ) -> Oid {
        let mut entries = self.made_or_read(oid).map(|tree| tree.entries.to_vec()).unwrap_or_default();
        let under = [IMPORTS.as_bytes().to_vec()];
        if at.is_empty() && !imports.is_empty() && !entries.iter().any(|entry| entry.name == under[0]) {
            entries.push(Entry::directory(&under[0], Oid::EMPTY_TREE));
        }
        if at[..] == under {
            entries.retain(|entry| !imports.keys().any(|name| name.as_bytes() == entry.name));
            let mounted = imports.iter().map(|(name, import)| (name, *import.placeholder.read().unwrap()));
            entries.extend(mounted.map(|(name, oid)| Entry::directory(name.as_bytes(), oid)));
        }
        for entry in entries.iter_mut().filter(|entry| entry.is_directory()) {
            let inner = [&at[..], std::slice::from_ref(&entry.name)].concat();
            let is_near = |path: &[Vec<u8>]| path.starts_with(&inner);
            if disordered.iter().any(|path| is_near(path)) || !imports.is_empty() && inner[..] == under {
                entry.oid = self.rebuilt(entry.oid, &inner, imports, disordered);
            }
        }
        tree::sort(&mut entries);
        if disordered.contains(at) {
            entries.reverse();
        }
        self.keep(&entries)
    }

    fn made_commit(&self, base: &Commit, tree: Oid) -> Commit {
        let parent = self.now.read().unwrap().head.oid;
        let pushes = self.count_push();
        let date = base.date.parse::<u64>().unwrap_or(0) + pushes;
        let text = format!(
            "tree {tree}\nparent {parent}\nauthor mega <admin@mega.org> {date} +0000\n\
             committer mega <admin@mega.org> {date} +0000\n\nattach {pushes}"
        );
        let oid = tree::id(ObjectKind::Commit, text.as_bytes());
        let commit = Commit::parse(oid, &text).expect("it was just written");
        self.now.write().unwrap().commits.insert(oid, commit.clone());
        commit
    }
}

fn commit_of(repository: &Repository, rev: &str) -> Commit {
    let oid = repository.rev(&format!("{rev}^{{commit}}"));
    let commit = oid.and_then(|oid| repository.commit(oid));
    commit.unwrap_or_else(|| panic!("there is a commit `{rev}`"))
}
