//! Where settings come from. Later ones win, key by key: defaults, the file, its drop-ins by name, the environment.

use std::{
    ffi::OsStr,
    fmt, fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use super::{Config, ConfigError};

/// Read unless another file is named; it need not exist.
pub const DEFAULT_FILE: &str = "/etc/scorpio/scorpio.toml";

/// A configuration beyond this is a mistake (a log, a device): reading it would take the memory of a host.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Who set a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody.
    Default,
    /// A line of a file.
    File {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
    /// An environment variable.
    Variable(String),
}

/// A configuration file and what stands in it.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Its path, for messages.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File { path, line } => write!(f, "{}:{line}", path.display()),
            Source::Variable(name) => write!(f, "${name}"),
        }
    }
}

impl Config {
    /// The configuration of this host: `explicit` or [`DEFAULT_FILE`], its drop-ins, this process's environment.
    ///
    /// A missing default file is fine, a missing explicit one is not. Drop-ins are the files `*.toml` in the directory
    /// named like the file with `.d` appended, in the order of their names.
    pub fn load_from_system(explicit: Option<&Path>) -> Result<Config, ConfigError> {
        let files = read_files(explicit)?;
        Config::load(&files, std::env::vars_os())
    }
}

fn read_files(explicit: Option<&Path>) -> Result<Vec<SourceFile>, ConfigError> {
    let path = explicit.unwrap_or(Path::new(DEFAULT_FILE));
    let main = match read_file(path) {
        Err(ConfigError::Unreadable { source, .. })
            if explicit.is_none() && source.kind() == io::ErrorKind::NotFound =>
        {
            None
        }
        read => Some(read?),
    };
    let drop_ins = drop_ins(path)?.into_iter().map(|path| read_file(&path));
    main.into_iter().map(Ok).chain(drop_ins).collect()
}

fn drop_ins(file: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let mut directory = file.as_os_str().to_owned();
    directory.push(".d");
    let directory = PathBuf::from(directory);
    let unreadable = |source| ConfigError::Unreadable { path: directory.clone(), source };
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(unreadable)?,
    };
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    let mut paths = paths.map_err(unreadable)?;
    paths.retain(|path| is_drop_in(path));
    paths.sort();
    Ok(paths)
}

/// Names that begin with a dot are what editors leave behind.
fn is_drop_in(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension() == Some(OsStr::new("toml"))
}

pub(super) fn read_file(path: &Path) -> Result<SourceFile, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned(), limit: MAX_FILE_BYTES });
    }
    Ok(SourceFile { path: path.to_owned(), text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_ins_are_read_by_name_and_editor_leftovers_are_not() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("scorpio.toml");
        let drop_ins = place.path().join("scorpio.toml.d");
        fs::create_dir(&drop_ins).unwrap();
        fs::write(&file, "limits.workspaces_per_user = 1").unwrap();
        for (name, text) in [
            ("20-b.toml", "limits.workspaces_per_user = 3"),
            ("10-a.toml", "limits.workspaces_per_user = 2\nlimits.connections = 7"),
            (".30-c.toml", "nonsense"),
            ("30-c.toml.dpkg-new", "nonsense"),
        ] {
            fs::write(drop_ins.join(name), text).unwrap();
        }
        let files = read_files(Some(&file)).unwrap();
        let names: Vec<_> = files.iter().map(|file| file.path.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["scorpio.toml", "10-a.toml", "20-b.toml"]);
        let config = Config::load(&files, []).unwrap();
        assert_eq!((config.limits.workspaces_per_user, config.limits.connections), (3, 7));
    }

    #[test]
    fn a_missing_explicit_file_is_an_error_that_names_it() {
        let error = read_files(Some(Path::new("/nonexistent/s.toml"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/nonexistent/s.toml: cannot be read: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn an_endless_file_is_refused() {
        let error = read_files(Some(Path::new("/dev/zero"))).unwrap_err();
        assert_eq!(error.to_string(), "/dev/zero: is larger than 1048576 bytes, which no configuration is");
    }
}
