//! `/file/tree`, `/file/blob` and `/latest-commit`: bytes as git has them, and the commit they belong to.

use scorpio::types::Oid;
use serde::Serialize;

use super::{
    answers::Answer,
    namespace::{Namespace, NoAnswer},
    requests::Asked,
};

#[derive(Serialize)]
struct Latest {
    oid: String,
    date: String,
    short_message: String,
    author: String,
    committer: String,
    status: &'static str,
}

/// The tree's body at the current head, whatever `refs` says; nothing where there is none or it has not the id `oid`.
pub fn tree(namespace: &Namespace, asked: &Asked) -> Result<Answer, NoAnswer> {
    let start = namespace.start(&asked.names, "")?;
    let oid = namespace.directory_id(&start);
    let wanted = oid.filter(|oid| asked.oid.is_empty() || asked.oid == oid.to_string());
    let body = wanted.and_then(|_| namespace.directory(&start)).map(|tree| tree.body);
    Ok(Answer::raw(body.unwrap_or_default()))
}

/// Any blob of any repository, by its id alone.
pub fn blob(namespace: &Namespace, asked: &Asked) -> Result<Answer, NoAnswer> {
    let is_id =
        [40, 64].contains(&asked.target.len()) && asked.target.bytes().all(|digit| digit.is_ascii_hexdigit());
    if !is_id {
        return Err(NoAnswer::Internal);
    }
    let body = asked.target.parse::<Oid>().ok().and_then(|oid| namespace.blob(oid));
    Ok(body.map_or_else(|| absent(&asked.target), Answer::raw))
}

fn absent(oid: &str) -> Answer {
    let place = "found in both object storage and metadata (likely never written or invalid request)";
    Answer::error(404, format!("ObjStorage not found: [obj_missing_in_db_and_s3] Blob {oid} not {place}"))
}

/// The newest commit that changed a path.
pub fn latest_commit(namespace: &Namespace, asked: &Asked) -> Result<Answer, NoAnswer> {
    let start = namespace.start(&asked.names, &asked.refs)?;
    let Some(commit) = namespace.newest(&start) else { return Err(NoAnswer::Internal) };
    Ok(Answer::bare(&Latest {
        oid: commit.oid.to_string(),
        date: commit.date,
        short_message: commit.subject,
        author: commit.author,
        committer: commit.committer,
        status: "success",
    }))
}
