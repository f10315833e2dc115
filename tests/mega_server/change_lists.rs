//! `/cl/…`: what a change list changes, as stock git finds it.

use std::{collections::BTreeMap, sync::RwLock};

use serde::Serialize;

use super::{
    answers::Answer,
    namespace::{Namespace, NoAnswer},
    requests::Asked,
};

/// Change lists by their link.
#[derive(Default)]
pub struct ChangeLists(RwLock<BTreeMap<String, (String, String)>>);

#[derive(Serialize)]
struct Changed {
    path: String,
    sha: String,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    similarity: Option<u32>,
}

#[derive(Serialize)]
struct UpdateStatus {
    base_commit: String,
    target_head: String,
    outdated: bool,
}

impl ChangeLists {
    /// A change list from one commit of the monorepo's repository to another; both hold the tree of its path alone.
    pub fn open(&self, link: &str, base: &str, tip: &str) {
        self.0.write().unwrap().insert(link.to_owned(), (base.to_owned(), tip.to_owned()));
    }

    pub fn files_list(&self, namespace: &Namespace, asked: &Asked) -> Result<Answer, NoAnswer> {
        let Some((base, tip)) = self.find(asked) else { return Ok(unknown()) };
        let args = ["diff-tree", "-r", "-z", "-M50%", "-l1000", "--raw", "--no-abbrev", &base, &tip];
        let raw = namespace.mono_git(&args).ok_or(NoAnswer::Internal)?;
        Ok(Answer::enveloped(changes(&raw)))
    }

    pub fn update_status(&self, namespace: &Namespace, asked: &Asked) -> Result<Answer, NoAnswer> {
        let Some((base, _)) = self.find(asked) else { return Ok(unknown()) };
        let base_commit = namespace.mono_git(&["rev-parse", &base]).ok_or(NoAnswer::Internal)?;
        Ok(Answer::enveloped(UpdateStatus { target_head: base_commit.clone(), base_commit, outdated: false }))
    }

    fn find(&self, asked: &Asked) -> Option<(String, String)> {
        self.0.read().unwrap().get(&asked.target).cloned()
    }
}

/// `:<mode> <mode> <id> <id> <letter><similarity>`, then one path, or two of a rename; all end with NUL.
fn changes(raw: &str) -> Vec<Changed> {
    let mut parts = raw.split('\0').filter(|part| !part.is_empty());
    let mut changes = Vec::new();
    while let (Some(head), Some(path)) = (parts.next(), parts.next()) {
        let fields: Vec<&str> = head.split(' ').collect();
        let (action, sha) = match &fields[4][..1] {
            "A" => ("new", fields[3]),
            "D" => ("deleted", fields[2]),
            "R" => ("renamed", fields[3]),
            _ => ("modified", fields[3]),
        };
        let renamed = action == "renamed";
        let old_path = renamed.then(|| path.to_owned());
        let path = if renamed { parts.next().unwrap_or_default() } else { path };
        let similarity = fields[4][1..].parse().ok().filter(|_| renamed);
        changes.push(Changed { path: path.to_owned(), sha: sha.to_owned(), action, old_path, similarity });
    }
    changes.sort_by(|one, other| one.path.cmp(&other.path));
    changes
}

fn unknown() -> Answer {
    Answer::error(404, "CL not found")
}
