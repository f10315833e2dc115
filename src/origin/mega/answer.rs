//! Answers of the API: text → what it means. Nothing is taken that is not of the expected form.

use serde::{Deserialize, de::DeserializeOwned};

use crate::types::Oid;

/// How much of a message of the server is repeated.
const MESSAGE_MAX_CHARS: usize = 200;

/// One entry of a directory as the API lists it: neither modes nor sizes, and files of all kinds are files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// With U+FFFD where a name is not UTF-8.
    pub(super) name: String,
    pub(super) is_dir: bool,
    pub(super) oid: Oid,
}

/// Why an answer means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadAnswer {
    #[error("it is not of the expected form: {0}")]
    Form(String),
    #[error("the server says: {0}")]
    Refused(String),
}

/// What most answers come in.
#[derive(Deserialize)]
struct Envelope<T> {
    req_result: bool,
    data: Option<T>,
    #[serde(default)]
    err_message: String,
}

#[derive(Deserialize)]
struct ListedText {
    name: String,
    content_type: String,
    oid: String,
}

#[derive(Deserialize)]
struct CommitText {
    oid: String,
}

/// The id in an answer of `latest-commit`, which comes without an envelope.
pub(super) fn commit(body: &[u8]) -> Result<Oid, BadAnswer> {
    let commit: CommitText = parsed(body)?;
    id(&commit.oid)
}

/// The entries in an answer of `tree/content-hash` or `tree/dir-hash`.
pub(super) fn listing(body: &[u8]) -> Result<Vec<Listed>, BadAnswer> {
    let entries: Vec<ListedText> = data(body)?;
    entries.into_iter().map(listed).collect()
}

/// The answer of `tree/path-can-clone`.
pub(super) fn truth(body: &[u8]) -> Result<bool, BadAnswer> {
    data(body)
}

fn listed(entry: ListedText) -> Result<Listed, BadAnswer> {
    let is_dir = match entry.content_type.as_str() {
        "directory" => true,
        "file" => false,
        other => return Err(BadAnswer::Form(format!("an entry is a `{}`", shortened(other)))),
    };
    Ok(Listed { oid: id(&entry.oid)?, name: entry.name, is_dir })
}

fn id(text: &str) -> Result<Oid, BadAnswer> {
    text.parse().map_err(|_| BadAnswer::Form(format!("`{}` is no object id", shortened(text))))
}

fn data<T: DeserializeOwned>(body: &[u8]) -> Result<T, BadAnswer> {
    let envelope: Envelope<T> = parsed(body)?;
    match envelope.data {
        Some(data) if envelope.req_result => Ok(data),
        _ => Err(BadAnswer::Refused(shortened(&envelope.err_message))),
    }
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, BadAnswer> {
    serde_json::from_slice(body).map_err(|error| BadAnswer::Form(shortened(&error.to_string())))
}

fn shortened(text: &str) -> String {
    text.chars().take(MESSAGE_MAX_CHARS).collect::<String>().escape_debug().to_string()
}
