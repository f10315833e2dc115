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

#[cfg(test)]
mod tests {
    use super::*;

    /// The body of a recorded answer: what follows on the blank line.
    fn body(recorded: &str) -> &[u8] {
        recorded.split_once("\r\n\r\n").unwrap().1.trim_end().as_bytes()
    }

    macro_rules! recorded {
        ($name:literal) => {
            body(include_str!(concat!("../../../tests/fixtures/mega/", $name)))
        };
    }

    #[test]
    fn what_a_server_answered_is_understood() {
        let head = commit(recorded!("06_latest_commit.txt")).unwrap();
        assert_eq!(head.to_string(), "b2f16be12004ba48f7d23188fbccfe752edc0b5a");
        let top = listing(recorded!("03_content_hash_root.txt")).unwrap();
        assert_eq!(top.len(), 10);
        let of = |name: &str, is_dir, oid: &str| Listed {
            name: name.to_owned(),
            is_dir,
            oid: oid.parse().unwrap(),
        };
        assert_eq!(top[3], of("project", true, "a7939183ed75c8456773e8a6e26ead82be669e7a"));
        assert_eq!(top[8], of(".buckroot", false, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"));
        assert_eq!(listing(recorded!("13_refs_ok.txt")).unwrap(), top);
        let project = listing(recorded!("04_dir_hash.txt")).unwrap();
        assert_eq!(project, [of("project", true, "a7939183ed75c8456773e8a6e26ead82be669e7a")]);
        assert_eq!(listing(recorded!("05_dir_hash_root.txt")), Ok(vec![]));
        assert_eq!(listing(recorded!("07_content_hash_missing.txt")), Ok(vec![]));
        let import = listing(recorded!("52_import_content_hash.txt")).unwrap();
        assert_eq!(import[10].name, "odd names+1.5#x");
        assert_eq!(import[11], of("中文目录", true, "05bceb3e3cb3b582de55ada8a807497ed908af19"));
        assert_eq!(truth(br#"{"req_result":true,"data":false,"err_message":""}"#), Ok(false));
    }

    #[test]
    fn what_means_nothing_is_an_error_and_never_an_empty_answer() {
        let refused = listing(recorded!("11_refs_bad.txt")).unwrap_err();
        assert_eq!(refused.to_string(), "the server says: Internal server error");
        let entry = |entry: &str| format!(r#"{{"req_result":true,"data":[{entry}],"err_message":""}}"#);
        for text in [
            "".to_owned(),
            "null".to_owned(),
            "[]".to_owned(),
            "{}".to_owned(),
            "<html>".to_owned(),
            r#"{"req_result":true,"data":null,"err_message":""}"#.to_owned(),
            r#"{"req_result":false,"data":[],"err_message":""}"#.to_owned(),
            r#"{"req_result":true,"data":[]"#.to_owned(),
            entry(
                r#"{"name":"a","content_type":"symlink","oid":"4b825dc642cb6eb9a060e54bf8d69288fbee4904"}"#,
            ),
            entry(r#"{"name":"a","content_type":"file","oid":"4b825dc642"}"#),
            entry(r#"{"name":"a","content_type":"file"}"#),
            entry("null"),
        ] {
            assert!(listing(text.as_bytes()).is_err(), "{text}");
            assert!(commit(text.as_bytes()).is_err(), "{text}");
            assert!(truth(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_servers_words_are_repeated_on_one_short_line() {
        let long = format!(
            r#"{{"req_result":false,"data":null,"err_message":"a\nb\u001b[31m{}"}}"#,
            "x".repeat(9999)
        );
        let said = truth(long.as_bytes()).unwrap_err().to_string();
        assert!(said.starts_with(r"the server says: a\nb\u{1b}[31mxxx") && said.len() < 300, "{said}");
    }
}
