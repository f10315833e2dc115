//! [`Layout`]: where the parts of a repository are, and whether it is of a format that can be read.
//!
//! Found anew for every piece of work rather than remembered: it takes a dozen system calls, and a repository that was
//! moved, replaced or turned into another format is then seen at once. Nothing of git's configuration is obeyed but
//! what says how objects and references are stored; the environment, includes and hooks play no part.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use super::{error::OpenError, files::read_small};

/// Longest `.git`, `commondir` and `HEAD` file: a path or a reference name with a keyword.
const LINE_MAX: u64 = 8 * 1024;
/// Longest `config`: real ones have some kilobytes, and with many branches some hundreds of them.
const CONFIG_MAX: u64 = 4 * 1024 * 1024;
/// Longest `objects/info/alternates`.
const ALTERNATES_MAX: u64 = 256 * 1024;
/// Object directories of one repository, all alternates counted: each costs system calls in every search.
const OBJECT_DIRS_MAX: usize = 64;
/// How far alternates of alternates are followed; git's own bound.
const ALTERNATES_DEPTH: usize = 5;

/// The parts of a repository that are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Where `HEAD` is: a linked work tree has its own.
    pub(super) git_dir: PathBuf,
    /// Where references and configuration are.
    pub(super) common_dir: PathBuf,
    /// Where objects are: the repository's own directory, then alternates.
    pub(super) objects: Vec<PathBuf>,
    /// Object directories that should be there and cannot be read: an object not found may be in them.
    pub(super) flaws: Vec<OpenError>,
}

impl Layout {
    /// Finds the repository at `path`: a work tree (linked or not), a `.git` directory or file, a bare repository.
    pub(super) fn find(path: &Path) -> Result<Layout, OpenError> {
        let git_dir = git_dir(path)?;
        require(path, &git_dir.join("HEAD"), "HEAD", fs::Metadata::is_file)?;
        let common_dir = common_dir(&git_dir)?;
        require(path, &common_dir.join("refs"), "refs", fs::Metadata::is_dir)?;
        check_format(path, &common_dir.join("config"))?;
        let own = common_dir.join("objects");
        require(path, &own, "objects", fs::Metadata::is_dir)?;
        let mut layout = Layout { git_dir, common_dir, objects: Vec::new(), flaws: Vec::new() };
        layout.add_objects(own, 0, &mut Vec::new());
        Ok(layout)
    }

    fn add_objects(&mut self, dir: PathBuf, depth: usize, seen: &mut Vec<(u64, u64)>) {
        let metadata = match fs::metadata(&dir) {
            Ok(metadata) if metadata.is_dir() => metadata,
            Ok(_) => return self.flaws.push(OpenError::unreadable(&dir, "it is not a directory")),
            Err(error) => return self.flaws.push(OpenError::from_io(&dir, &error)),
        };
        let identity = (metadata.dev(), metadata.ino());
        if seen.contains(&identity) {
            return;
        }
        if depth > ALTERNATES_DEPTH || seen.len() == OBJECT_DIRS_MAX {
            let reason = "alternates lead to it in too many steps, or there are too many of them";
            return self.flaws.push(OpenError::unreadable(&dir, reason));
        }
        seen.push(identity);
        let alternates = alternates(&dir);
        self.objects.push(dir);
        match alternates {
            Ok(alternates) => {
                alternates.into_iter().for_each(|alternate| self.add_objects(alternate, depth + 1, seen));
            }
            Err(flaw) => self.flaws.push(flaw),
        }
    }
}

fn git_dir(path: &Path) -> Result<PathBuf, OpenError> {
    let is_dir = |path: &Path| fs::metadata(path).map(|metadata| metadata.is_dir());
    if !is_dir(path).map_err(|error| OpenError::from_io(path, &error))? {
        return named_in_file(path);
    }
    let dot_git = path.join(".git");
    match is_dir(&dot_git) {
        Ok(true) => Ok(dot_git),
        Ok(false) => named_in_file(&dot_git),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()),
        Err(error) => Err(OpenError::from_io(&dot_git, &error)),
    }
}

/// The directory that a `.git` file points to.
fn named_in_file(file: &Path) -> Result<PathBuf, OpenError> {
    let refuse =
        |reason: &str| OpenError::NotARepository { path: file.to_owned(), reason: reason.to_owned() };
    let bytes = read_small(file, LINE_MAX)?.ok_or_else(|| OpenError::Missing { path: file.to_owned() })?;
    let target =
        bytes.strip_prefix(b"gitdir: ").ok_or_else(|| refuse("the file does not begin with `gitdir: `"))?;
    Ok(file.parent().unwrap_or(Path::new("/")).join(line(target)))
}

fn common_dir(git_dir: &Path) -> Result<PathBuf, OpenError> {
    let named = read_small(&git_dir.join("commondir"), LINE_MAX)?;
    Ok(named.map_or_else(|| git_dir.to_owned(), |bytes| git_dir.join(line(&bytes))))
}

fn line(bytes: &[u8]) -> &Path {
    let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(bytes.len());
    Path::new(OsStr::from_bytes(&bytes[..end]))
}

fn require(
    repository: &Path,
    part: &Path,
    name: &str,
    fits: impl Fn(&fs::Metadata) -> bool,
) -> Result<(), OpenError> {
    let reason = match fs::metadata(part) {
        Ok(metadata) if fits(&metadata) => return Ok(()),
        Ok(_) => format!("{name} is of the wrong file type"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A HEAD may be a symlink to a branch that has no commit yet.
            if fs::symlink_metadata(part).is_ok_and(|link| link.is_symlink() && name == "HEAD") {
                return Ok(());
            }
            format!("it has no {name}")
        }
        Err(error) => return Err(OpenError::from_io(part, &error)),
    };
    Err(OpenError::NotARepository { path: repository.to_owned(), reason })
}

fn check_format(repository: &Path, config: &Path) -> Result<(), OpenError> {
    let Some(bytes) = read_small(config, CONFIG_MAX)? else { return Ok(()) };
    let parsed = gix::config::File::from_bytes_no_includes(
        &bytes,
        gix::config::file::Metadata::api(),
        gix::config::file::init::Options::default(),
    );
    let parsed = parsed.map_err(|error| OpenError::unreadable(config, error.to_string()))?;
    let value = |key: &str| parsed.string(key).map(|value| value.to_string());
    let refuse = |what: String| Err(OpenError::Format { path: repository.to_owned(), what });
    match value("core.repositoryFormatVersion").as_deref() {
        None | Some("0" | "1") => {}
        Some(other) => return refuse(format!("format version {other}")),
    }
    match value("extensions.objectFormat").map(|format| format.to_ascii_lowercase()).as_deref() {
        None | Some("sha1") => {}
        Some(other) => return refuse(format!("{other} objects")),
    }
    match value("extensions.refStorage").map(|storage| storage.to_ascii_lowercase()).as_deref() {
        None | Some("files") => Ok(()),
        Some(other) => refuse(format!("references stored as {other}")),
    }
}

fn alternates(objects: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let file = objects.join("info/alternates");
    let Some(bytes) = read_small(&file, ALTERNATES_MAX)? else { return Ok(Vec::new()) };
    let paths = gix::odb::alternate::parse(&bytes);
    let paths = paths.map_err(|error| OpenError::unreadable(&file, error.to_string()))?;
    Ok(paths.into_iter().map(|path| objects.join(path)).collect())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn git(dir: &Path, args: &[&str]) {
        let done = Command::new("git").current_dir(dir).args(args).output().unwrap();
        assert!(done.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn reason(path: &Path) -> String {
        let shown = Layout::find(path).unwrap_err().to_string();
        shown.replace(&path.display().to_string(), "PATH")
    }

    #[test]
    fn what_is_no_readable_repository_is_refused_with_path_and_reason() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("empty")).unwrap();
        fs::write(at("file"), "text").unwrap();
        fs::create_dir(at("half")).unwrap();
        fs::write(at("half/HEAD"), "ref: refs/heads/main\n").unwrap();
        git(dir.path(), &["init", "-q", "--object-format=sha256", "sha256"]);
        git(dir.path(), &["init", "-q", "--ref-format=reftable", "reftable"]);
        git(dir.path(), &["init", "-q", "future"]);
        git(&at("future"), &["config", "core.repositoryFormatVersion", "7"]);
        git(dir.path(), &["init", "-q", "garbled"]);
        fs::write(at("garbled/.git/config"), "[core\nx").unwrap();
        git(dir.path(), &["init", "-q", "fifo"]);
        fs::remove_file(at("fifo/.git/config")).unwrap();
        nix::unistd::mkfifo(&at("fifo/.git/config"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let supported = "which is not supported; SHA-1 objects and reference files are";
        for (name, shown) in [
            ("absent", r#"there is nothing at "PATH""#.to_owned()),
            ("empty", r#""PATH" is not a git repository: it has no HEAD"#.to_owned()),
            ("file", r#""PATH" is not a git repository: the file does not begin with `gitdir: `"#.to_owned()),
            ("half", r#""PATH" is not a git repository: it has no refs"#.to_owned()),
            ("sha256", format!(r#"the repository "PATH" has sha256 objects, {supported}"#)),
            ("reftable", format!(r#"the repository "PATH" has references stored as reftable, {supported}"#)),
            ("future", format!(r#"the repository "PATH" has format version 7, {supported}"#)),
            ("fifo", r#""PATH/.git/config" cannot be read: it is not a regular file"#.to_owned()),
        ] {
            assert_eq!(reason(&at(name)), shown, "{name}");
        }
        assert!(matches!(Layout::find(&at("garbled")), Err(OpenError::Unreadable { .. })));
    }

    #[test]
    fn alternates_are_followed_once_each_and_their_absence_is_a_flaw() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["a", "b"] {
            git(dir.path(), &["init", "-q", "--bare", name]);
        }
        fs::write(at("a/objects/info/alternates"), "# comment\n../../b/objects\n\n/nowhere/objects\n")
            .unwrap();
        fs::write(at("b/objects/info/alternates"), format!("{}\n", at("a/objects").display())).unwrap();
        let layout = Layout::find(&at("a")).unwrap();
        assert_eq!(layout.objects, [at("a/objects"), at("a/objects").join("../../b/objects")]);
        assert_eq!(layout.flaws, [OpenError::Missing { path: "/nowhere/objects".into() }]);
    }

    #[test]
    fn a_chain_of_alternates_is_followed_only_so_far() {
        let dir = tempfile::tempdir().unwrap();
        let at = |index: usize| dir.path().join(format!("{index}.git"));
        for index in 0..8 {
            git(dir.path(), &["init", "-q", "--bare", &format!("{index}.git")]);
            let next = at(index + 1).join("objects");
            fs::write(at(index).join("objects/info/alternates"), format!("{}\n", next.display())).unwrap();
        }
        let layout = Layout::find(&at(0)).unwrap();
        assert_eq!(layout.objects.len(), 1 + ALTERNATES_DEPTH);
        assert_eq!(layout.flaws.len(), 1);
    }
}
