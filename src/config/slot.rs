//! [`Slot`]: the place of a value in the configuration, and what may be put there: read, judged and shown in one place.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use super::{
    Principal,
    value::{self, Found},
};
use crate::types::RepoPath;

/// The place of a value, and what may be put there.
pub(super) enum Slot<'a> {
    Whole(&'a mut usize, RangeInclusive<usize>),
    Bytes(&'a mut u64, RangeInclusive<u64>),
    SmallBytes(&'a mut u32, RangeInclusive<u32>),
    Time(&'a mut Duration, RangeInclusive<Duration>),
    Place(&'a mut PathBuf),
    Filter(&'a mut String),
    Choice(&'a mut dyn Choose),
    Principals(&'a mut Vec<Principal>),
    Account(&'a mut Option<String>),
    File(&'a mut Option<PathBuf>),
    Server(&'a mut Option<String>),
    Credential(&'a mut Option<String>),
    Inside(&'a mut Option<RepoPath>),
}

/// One of a few words.
pub(super) trait Choose {
    fn words(&self) -> &'static [&'static str];
    /// The word in force; `None` when none was chosen.
    fn word(&self) -> Option<&'static str>;
    /// `index` is one of [`Choose::words`].
    fn choose(&mut self, index: usize);
}

impl Slot<'_> {
    /// Takes `found` if it is what the key expects; says why not otherwise.
    pub(super) fn put(self, found: &Found) -> Result<(), String> {
        let reason = format!("expected {}, found {found}", self.expects());
        self.take(found).ok_or(reason)
    }

    fn take(self, found: &Found) -> Option<()> {
        match self {
            Slot::Whole(to, range) => {
                let Found::Whole(number) = found.typed() else { return None };
                *to = usize::try_from(number).ok().filter(|number| range.contains(number))?;
            }
            Slot::Bytes(to, range) => *to = value::size(found).filter(|size| range.contains(size))?,
            Slot::SmallBytes(to, range) => {
                let size = u32::try_from(value::size(found)?).ok();
                *to = size.filter(|size| range.contains(size))?;
            }
            Slot::Time(to, range) => *to = value::duration(found).filter(|time| range.contains(time))?,
            Slot::Place(to) => *to = found.text().filter(|text| is_place(text))?.into(),
            Slot::Filter(to) => *to = found.text().filter(|text| is_filter(text))?,
            Slot::Choice(to) => {
                let word = found.text()?;
                to.choose(to.words().iter().position(|known| *known == word)?);
            }
            Slot::Principals(to) => {
                let Found::List(items) = found.typed() else { return None };
                let who = items.iter().map(|item| value::principal(&item.text()?));
                *to = who.collect::<Option<_>>()?;
            }
            Slot::Account(to) => *to = Some(found.text().filter(|text| value::is_account(text))?),
            Slot::File(to) => *to = Some(found.text().filter(|text| is_place(text))?.into()),
            Slot::Server(to) => *to = Some(found.text().filter(|text| value::is_server(text))?),
            Slot::Credential(to) => *to = Some(found.text().filter(|text| value::is_credential(text))?),
            Slot::Inside(to) => {
                let path = found.text().filter(|text| text.starts_with('/'))?.parse::<RepoPath>().ok()?;
                *to = Some(path).filter(|path| !path.names().is_empty());
                to.as_ref()?;
            }
        }
        Some(())
    }

    /// What may stand here, as in "expected …".
    pub(super) fn expects(&self) -> String {
        match self {
            Slot::Whole(_, range) => format!("a whole number from {} to {}", range.start(), range.end()),
            Slot::Bytes(_, range) => expected_size(*range.start(), *range.end()),
            Slot::SmallBytes(_, range) => expected_size((*range.start()).into(), (*range.end()).into()),
            Slot::Time(_, range) => {
                let (least, most) =
                    (value::duration_text(*range.start()), value::duration_text(*range.end()));
                format!("a time from \"{least}\" to \"{most}\"")
            }
            Slot::Place(_) => "an absolute path without `..`".to_owned(),
            Slot::Filter(_) => "error, warn, info, debug, trace or filters such as \
                                \"info,scorpio::fusedev=debug\""
                .to_owned(),
            Slot::Choice(to) => {
                let words: Vec<_> = to.words().iter().map(|word| format!("\"{word}\"")).collect();
                words.join(" or ")
            }
            Slot::Principals(_) => "a list of users (\"alice\"), groups (\"@devs\") or \"*\"".to_owned(),
            Slot::Account(_) => "the name or number of an account".to_owned(),
            Slot::File(_) => "an absolute path without `..`".to_owned(),
            Slot::Server(_) => "an http:// or https:// URL without user, query and fragment".to_owned(),
            Slot::Credential(_) => "a credential's name: 1 to 255 of A-Z, a-z, 0-9, `-`, `_`, `.`".to_owned(),
            Slot::Inside(_) => {
                "the path of a directory inside the repository, such as \"/third-party\"".to_owned()
            }
        }
    }

    /// The value as it is written in TOML; `None` when there is none.
    pub(super) fn show(&self) -> Option<String> {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        match self {
            Slot::Whole(number, _) => Some(number.to_string()),
            Slot::Bytes(size, _) => Some(quoted(&value::size_text(**size))),
            Slot::SmallBytes(size, _) => Some(quoted(&value::size_text((**size).into()))),
            Slot::Time(time, _) => Some(quoted(&value::duration_text(**time))),
            Slot::Place(path) => {
                Some(path.display().to_string()).filter(|path| !path.is_empty()).map(|path| quoted(&path))
            }
            Slot::Filter(text) => Some(quoted(text)),
            Slot::Choice(choice) => choice.word().map(quoted),
            Slot::Principals(who) => {
                let who: Vec<_> = who.iter().map(|one| quoted(&one.to_string())).collect();
                Some(format!("[{}]", who.join(", ")))
            }
            Slot::Account(text) | Slot::Server(text) | Slot::Credential(text) => text.as_deref().map(quoted),
            Slot::File(path) => path.as_ref().map(|path| quoted(&path.display().to_string())),
            Slot::Inside(path) => path.as_ref().map(|path| quoted(&path.to_string())),
        }
    }
}

fn expected_size(least: u64, most: u64) -> String {
    format!("a size from \"{}\" to \"{}\"", value::size_text(least), value::size_text(most))
}

/// A path that means the same wherever the daemon stands and whatever links are swapped above it.
fn is_place(text: &str) -> bool {
    let up = text.split('/').any(|name| name == "..");
    text.starts_with('/') && !up && !text.contains(['\0', '\n'])
}

fn is_filter(text: &str) -> bool {
    !text.trim().is_empty() && tracing_subscriber::EnvFilter::try_new(text).is_ok()
}
