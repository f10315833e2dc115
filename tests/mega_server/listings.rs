//! `/tree` and what is below it: listings in JSON, which tell neither modes nor sizes.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    answers::Answer,
    namespace::{IMPORTS, Names, Namespace, NoAnswer, Start},
    requests::Asked,
    tree::Entry,
};

#[derive(Serialize)]
struct Brief {
    name: String,
    path: String,
    content_type: &'static str,
}

#[derive(Serialize)]
struct Level {
    tree_items: Vec<Brief>,
    total_count: usize,
}

#[derive(Serialize)]
struct Levels {
    file_tree: BTreeMap<String, Level>,
    tree_items: Vec<Brief>,
}

#[derive(Serialize)]
struct Hashed {
    name: String,
    content_type: &'static str,
    oid: String,
}

#[derive(Serialize)]
struct Dated {
    commit_id: String,
    name: String,
    content_type: &'static str,
    commit_message: String,
    date: String,
}

/// The directory itself and all above it, in the order of the tree's bytes.
pub fn tree(namespace: &Namespace, asked: &Asked) -> Result<Answer, NoAnswer> {
    let briefs = |names: &Names| -> Result<Vec<Brief>, NoAnswer> {
        let (_, entries) = entries(namespace, names, &asked.refs)?;
        Ok(entries.iter().map(|entry| brief(names, entry)).collect())
    };
    let mut file_tree = BTreeMap::new();
    for depth in 0..asked.names.len() {
        let above = asked.names[..depth].to_vec();
        let tree_items = briefs(&above)?;
        file_tree.insert(text(&above), Level { total_count: tree_items.len(), tree_items });
    }
    Ok(Answer::enveloped(Levels { file_tree, tree_items: briefs(&asked.names)? }))
}

/// An unknown path is an empty list.
pub fn content_hash(namespace: &Namespace, asked: &Asked) -> Result<Answer, NoAnswer> {
    let (_, entries) = sorted(namespace, asked)?;
    Ok(Answer::enveloped(entries.iter().map(hashed).collect::<Vec<_>>()))
}

/// The directory as its parent lists it: an import repository by its placeholder, the top not at all.
pub fn dir_hash(namespace: &Namespace, asked: &Asked) -> Result<Answer, NoAnswer> {
    let Some((last, above)) = asked.names.split_last() else { return Ok(Answer::enveloped([(); 0])) };
    let (_, entries) = entries(namespace, &above.to_vec(), &asked.refs)?;
    let it = entries.iter().filter(|entry| entry.name == *last && entry.is_directory());
    Ok(Answer::enveloped(it.map(hashed).collect::<Vec<_>>()))
}

/// With every entry the head's commit: the newest that changed it is not searched for.
///
/// In the monorepo executables and symlinks have none, as measured.
pub fn commit_info(namespace: &Namespace, asked: &Asked) -> Result<Answer, NoAnswer> {
    let (start, entries) = sorted(namespace, asked)?;
    let dated = |entry: &Entry| {
        let has_commit = start.at.len() == 2 || ["40000", "100644"].contains(&entry.mode.as_str());
        let told = |value: String| if has_commit { value } else { String::new() };
        Dated {
            commit_id: told(start.commit.oid.to_string()),
            name: entry.text(),
            content_type: entry.content_type(),
            commit_message: told(start.commit.subject.clone()),
            date: told(start.commit.date.clone()),
        }
    };
    Ok(Answer::enveloped(entries.iter().map(dated).collect::<Vec<_>>()))
}

/// Any path of the monorepo can be cloned, of import repositories only the top.
pub fn path_can_clone(namespace: &Namespace, asked: &Asked) -> Result<Answer, NoAnswer> {
    let below = asked.names.len() > 1 && asked.names[0] == IMPORTS.as_bytes();
    namespace.start(&asked.names, "")?;
    Ok(Answer::enveloped(!below || namespace.is_import(&asked.names)))
}

fn entries(namespace: &Namespace, names: &Names, refs: &str) -> Result<(Start, Vec<Entry>), NoAnswer> {
    let start = namespace.start(names, refs)?;
    let entries = namespace.directory(&start).map(|tree| tree.entries.to_vec()).unwrap_or_default();
    Ok((start, entries))
}

/// Directories first, each kind by name.
fn sorted(namespace: &Namespace, asked: &Asked) -> Result<(Start, Vec<Entry>), NoAnswer> {
    let (start, mut entries) = entries(namespace, &asked.names, &asked.refs)?;
    entries.sort_by_key(|entry| (entry.content_type(), entry.text()));
    Ok((start, entries))
}

fn brief(above: &Names, entry: &Entry) -> Brief {
    let path = text(&[&above[..], std::slice::from_ref(&entry.name)].concat());
    Brief { name: entry.text(), path, content_type: entry.content_type() }
}

fn hashed(entry: &Entry) -> Hashed {
    Hashed { name: entry.text(), content_type: entry.content_type(), oid: entry.oid.to_string() }
}

fn text(names: &[Vec<u8>]) -> String {
    format!("/{}", String::from_utf8_lossy(&names.join(&b'/')))
}
