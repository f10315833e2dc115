//! A TOML text → [`Assignment`]s in the order of the text.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::{ConfigError, Source, SourceFile, value::Found};

/// `path = value`, and who said so.
#[derive(Clone, Debug)]
pub(super) struct Assignment {
    /// Section and key; of an origin: `origin`, its name, key. Shorter for the table itself.
    pub(super) path: Vec<String>,
    pub(super) value: Found,
    pub(super) at: Source,
}

/// All assignments of `file`. Tables are reported too, so that an empty one of an unknown name is seen.
pub(super) fn read(file: &SourceFile) -> Result<Vec<Assignment>, ConfigError> {
    let lines = Lines { path: &file.path, text: &file.text };
    let document = DeTable::parse(&file.text).map_err(|error| ConfigError::Syntax {
        at: lines.at(error.span().map_or(0, |span| span.start)),
        reason: error.message().trim().replace('\n', "; "),
    })?;
    let mut found = Vec::new();
    collect(document.get_ref(), &[], &mut found);
    found.sort_by_key(|(offset, ..)| *offset);
    let assignment = |(offset, path, value)| Assignment { path, value, at: lines.at(offset) };
    Ok(found.into_iter().map(assignment).collect())
}

/// Sections are one table deep, origins two; what is deeper is a value that no key takes.
fn collect(table: &DeTable<'_>, above: &[String], found: &mut Vec<(usize, Vec<String>, Found)>) {
    for (key, value) in table.iter() {
        let path = [above, &[key.get_ref().clone().into_owned()]].concat();
        found.push((key.span().start, path.clone(), Found::from_toml(value.get_ref())));
        let is_section = path.len() == 1 || (path.len() == 2 && path[0] == "origin");
        if let (true, DeValue::Table(inner)) = (is_section, value.get_ref()) {
            collect(inner, &path, found);
        }
    }
}

struct Lines<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Lines<'_> {
    fn at(&self, offset: usize) -> Source {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Source::File { path: self.path.to_owned(), line }
    }
}
