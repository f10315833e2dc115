//! What was promised, and until when what else may be found. Pure but for [`State::holds`], which looks.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

use serde::Deserialize;

/// Something was done and acknowledged.
#[derive(Clone, Debug, Deserialize)]
pub struct Told {
    /// The workspace that it was done in or to; empty for what belongs to none.
    pub workspace: String,
    /// What it was done to; each thing has one state after the other.
    pub key: String,
    /// The log's length before it was begun.
    pub from: u64,
    /// The log's length when it was acknowledged.
    pub upto: u64,
    /// What was done, where it is one of the commands, each of which has a cut of its own.
    #[serde(default)]
    pub deed: String,
    /// In between, anything may be found, and not only the state of before or after.
    #[serde(default)]
    pub torn: bool,
    pub state: State,
}

/// Bytes, by length and CRC-32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Sum {
    pub len: usize,
    pub crc: u32,
}

impl Sum {
    pub fn of(bytes: &[u8]) -> Sum {
        Sum { len: bytes.len(), crc: crc32fast::hash(bytes) }
    }
}

/// How something was left. Paths begin at the workspace's mount point.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A file with this content, perhaps this mode, and perhaps nothing at another place.
    Is { path: String, sum: Sum, mode: Option<u32>, gone: Option<String> },
    /// A file that begins like this.
    Starts { path: String, sum: Sum },
    /// Nothing.
    Absent { path: String },
    /// A sound SQLite database with at least the rows 1 to this.
    Rows { path: String, count: u64 },
    /// A file that nobody synced: it need not be there. It is what shows that a cut takes something away.
    Unsynced { path: String, sum: Sum },
    /// The workspace is mounted.
    Stands { uid: u32 },
    /// It is kept, and not mounted.
    Rests { uid: u32 },
    /// It was removed, or lived only as long as its mount.
    Gone,
    /// What a user reads an origin with.
    Secret { uid: u32, token: Option<String> },
}

/// All that was told, by workspace and key, in order.
pub struct Promises(BTreeMap<String, BTreeMap<String, Vec<Told>>>);

impl Promises {
    pub fn new(told: Vec<Told>) -> Promises {
        let mut all: BTreeMap<String, BTreeMap<String, Vec<Told>>> = BTreeMap::new();
        for told in told {
            all.entry(told.workspace.clone()).or_default().entry(told.key.clone()).or_default().push(told);
        }
        Promises(all)
    }

    /// The moments of acknowledgements.
    pub fn moments(&self, of: impl Fn(&Told) -> bool) -> Vec<u64> {
        self.all().filter(|told| of(told)).map(|told| told.upto).collect()
    }

    /// All that was done by commands.
    pub fn deeds(&self) -> BTreeSet<&str> {
        self.all().map(|told| told.deed.as_str()).filter(|deed| !deed.is_empty()).collect()
    }

    fn all(&self) -> impl Iterator<Item = &Told> {
        self.0.values().flat_map(BTreeMap::values).flatten()
    }

    pub fn workspaces(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Every key of a workspace about which something was promised by then, with the states it may be found in.
    pub fn of(&self, workspace: &str, at: u64) -> impl Iterator<Item = (&str, Vec<&State>)> {
        let keys = self.0.get(workspace).into_iter().flatten();
        keys.filter_map(move |(key, told)| Some((key.as_str(), allowed(told, at)?)))
    }
}

/// The last state that was acknowledged, and those on the way to which it was; `None` if it may be anything.
fn allowed(told: &[Told], at: u64) -> Option<Vec<&State>> {
    let last = told.iter().rev().find(|told| told.upto <= at)?;
    let under_way = || told.iter().filter(|told| told.from <= at && at < told.upto);
    if under_way().any(|told| told.torn) {
        return None;
    }
    Some(std::iter::once(last).chain(under_way()).map(|told| &told.state).collect())
}

impl State {
    /// Whether a file is left like this below `point`; else what was found.
    pub fn holds(&self, point: &Path) -> Result<(), String> {
        let read = |path: &str| fs::read(point.join(path)).map_err(|error| format!("{path}: {error}"));
        match self {
            State::Is { path, sum, mode, gone } => {
                expect(path, Sum::of(&read(path)?), *sum)?;
                if let Some(mode) = mode {
                    let found = fs::metadata(point.join(path)).map_err(|error| error.to_string())?;
                    expect(path, found.permissions().mode() & 0o7777, *mode)?;
                }
                gone.iter().try_for_each(|gone| is_absent(point, gone))
            }
            State::Unsynced { path, sum } => expect(path, Sum::of(&read(path)?), *sum),
            State::Starts { path, sum } => {
                let bytes = read(path)?;
                expect(path, Sum::of(&bytes[..sum.len.min(bytes.len())]), *sum)
            }
            State::Absent { path } => is_absent(point, path),
            State::Rows { path, count } => has_rows(&point.join(path), *count),
            State::Stands { .. } | State::Rests { .. } | State::Gone | State::Secret { .. } => {
                panic!("{self:?} is not about a file")
            }
        }
    }
}

fn expect<T: Copy + PartialEq + std::fmt::Debug>(path: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{path} is {found:?} instead of {expected:?}")) }
}

fn is_absent(point: &Path, path: &str) -> Result<(), String> {
    match fs::symlink_metadata(point.join(path)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => Err(format!("{path} is there: {:?}", other.map(|found| found.len()))),
    }
}

fn has_rows(base: &Path, count: u64) -> Result<(), String> {
    let query = "pragma integrity_check; select n, x from t order by n";
    let output = Command::new("sqlite3").arg(base).arg(query).output().expect("sqlite3 is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    if lines.next() != Some("ok") {
        return Err(format!("{}: {output:?}", base.display()));
    }
    let rows: Vec<_> = lines.collect();
    // More than that is a commit whose acknowledgement the power cut short.
    let sound =
        |(row, n): (&&str, u64)| **row == format!("{n}|{}", n.to_string().repeat(1 + n as usize % 50));
    let wrong = rows.iter().zip(1..).find(|pair| !sound(*pair));
    match wrong {
        Some((row, n)) => Err(format!("{}: row {n} is {row}", base.display())),
        None if (rows.len() as u64) < count => {
            Err(format!("{}: {} rows of {count}", base.display(), rows.len()))
        }
        None => Ok(()),
    }
}

#[test]
fn what_may_be_found_is_what_was_acknowledged_or_under_way() {
    let told = |from, upto, torn, uid| Told {
        workspace: "w".into(),
        key: "k".into(),
        from,
        upto,
        deed: String::new(),
        torn,
        state: State::Stands { uid },
    };
    let promises = Promises::new(vec![told(10, 20, false, 1), told(30, 40, false, 2), told(50, 60, true, 3)]);
    let at = |at| -> Option<Vec<u32>> {
        let (_, states) = promises.of("w", at).next()?;
        let uid = |state: &&State| if let State::Stands { uid } = state { *uid } else { 0 };
        Some(states.iter().map(uid).collect())
    };
    assert_eq!([at(5), at(15)], [None, None], "nothing was promised yet");
    assert_eq!([at(20), at(29)], [Some(vec![1]), Some(vec![1])]);
    assert_eq!([at(30), at(39)], [Some(vec![1, 2]), Some(vec![1, 2])]);
    assert_eq!(at(40), Some(vec![2]));
    assert_eq!([at(50), at(59)], [None, None], "it may be torn");
    assert_eq!(at(1000), Some(vec![3]));
}
