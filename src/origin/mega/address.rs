//! [`Address`]: the API's endpoints as URLs. Every byte of a path that is not plainly a letter is percent-encoded.

use std::fmt::Write as _;

use reqwest::Url;

use super::OpenError;
use crate::types::{Oid, RepoPath};

/// Where a server's API is.
#[derive(Clone, Debug)]
pub(super) struct Address {
    /// Without a slash at its end.
    base: String,
    is_private: bool,
}

/// A question to the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint<'a> {
    /// The newest commit that a name leads to: of `refs`, or the head.
    LatestCommit { refs: Option<&'a str> },
    /// The raw tree of a directory, at the head.
    Tree { path: &'a RepoPath },
    /// Names and ids in a directory.
    ContentHash { path: &'a RepoPath, refs: Option<Oid> },
    /// The id of a directory, from its parent.
    DirHash { path: &'a RepoPath, refs: Option<Oid> },
    /// Whether a repository begins at a path.
    CanClone { path: &'a RepoPath },
    /// The content of a blob.
    Blob { oid: Oid },
}

impl Address {
    /// Checks `url` and makes it the base of all addresses.
    pub(super) fn new(url: &str) -> Result<Address, OpenError> {
        let url = plain_url(url)?;
        let is_private = url.scheme() == "https" || is_this_host(&url);
        Ok(Address { base: url.as_str().trim_end_matches('/').to_owned(), is_private })
    }

    /// Whether nobody between here and there can read what is sent.
    pub(super) fn is_private(&self) -> bool {
        self.is_private
    }

    /// Where `endpoint` is asked.
    pub(super) fn of(&self, endpoint: &Endpoint<'_>) -> Url {
        let text = format!("{}/api/v1/{}", self.base, endpoint.relative());
        Url::parse(&text).expect("the base is a URL, and what is appended is plain ASCII")
    }
}

fn is_this_host(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

/// A URL of a server: http or https, a host, and nothing that a secret could hide in.
pub(super) fn plain_url(text: &str) -> Result<Url, OpenError> {
    let refused = |reason: &str| OpenError::Url { url: text.to_owned(), reason: reason.to_owned() };
    let url = Url::parse(text).map_err(|error| refused(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refused("it has another scheme"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // Not repeated: a password may stand there.
        return Err(OpenError::Url {
            url: url.host_str().unwrap_or_default().to_owned(),
            reason: "it names a user".to_owned(),
        });
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refused("it has a query or a fragment"));
    }
    Ok(url)
}

impl Endpoint<'_> {
    /// What messages call it: the endpoint without its values.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Endpoint::LatestCommit { .. } => "latest-commit",
            Endpoint::Tree { .. } => "file/tree",
            Endpoint::ContentHash { .. } => "tree/content-hash",
            Endpoint::DirHash { .. } => "tree/dir-hash",
            Endpoint::CanClone { .. } => "tree/path-can-clone",
            Endpoint::Blob { .. } => "file/blob",
        }
    }

    /// The directory it is about, if any.
    pub(super) fn path(&self) -> Option<&RepoPath> {
        match self {
            Endpoint::Tree { path }
            | Endpoint::ContentHash { path, .. }
            | Endpoint::DirHash { path, .. }
            | Endpoint::CanClone { path } => Some(path),
            Endpoint::LatestCommit { .. } | Endpoint::Blob { .. } => None,
        }
    }

    fn relative(&self) -> String {
        let (name, path) = (self.name(), self.path().map(query_path).unwrap_or_default());
        match self {
            Endpoint::Blob { oid } => format!("{name}/{oid}"),
            Endpoint::LatestCommit { refs } => {
                let refs = refs.map(|refs| format!("&refs={}", encoded(refs.as_bytes())));
                format!("{name}?path=/{}", refs.unwrap_or_default())
            }
            Endpoint::Tree { .. } | Endpoint::CanClone { .. } => format!("{name}?path={path}"),
            Endpoint::ContentHash { refs, .. } | Endpoint::DirHash { refs, .. } => {
                let refs = refs.map(|commit| format!("&refs={commit}"));
                format!("{name}?path={path}{}", refs.unwrap_or_default())
            }
        }
    }
}

/// `/a/b`, as the server writes paths.
fn query_path(path: &RepoPath) -> String {
    encoded(&[b"/", path.to_bytes().as_slice()].concat())
}

/// Percent-encodes all but unreserved characters and the slash, which a query may hold.
fn encoded(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                text.push(char::from(*byte));
            }
            // Writing to a string cannot fail.
            _ => drop(write!(text, "%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(bytes: &[u8]) -> RepoPath {
        RepoPath::parse(bytes).unwrap()
    }

    #[test]
    fn odd_names_survive_the_way_into_a_query() {
        let address = Address::new("http://h:1/").unwrap();
        for (name, encoded) in [
            (&b""[..], "/"),
            (b"a/b", "/a/b"),
            (b"with space", "/with%20space"),
            (b"100%", "/100%25"),
            (b"a+b", "/a%2Bb"),
            (b"a#b", "/a%23b"),
            (b"a&b=c", "/a%26b%3Dc"),
            (b"a?b", "/a%3Fb"),
            (b"new\nline", "/new%0Aline"),
            (b"it's", "/it%27s"),
            (b"back\\slash", "/back%5Cslash"),
            ("中".as_bytes(), "/%E4%B8%AD"),
            (b"\xff\xfe", "/%FF%FE"),
            (b"%2F", "/%252F"),
        ] {
            let path = path(name);
            let url = address.of(&Endpoint::Tree { path: &path });
            assert_eq!(url.as_str(), format!("http://h:1/api/v1/file/tree?path={encoded}"));
            let decoded: Vec<_> = url.query_pairs().collect();
            assert_eq!(decoded.len(), 1, "{url}");
            let expected = [b"/", name].concat();
            assert_eq!(decoded[0].1, String::from_utf8_lossy(&expected), "{url}");
        }
    }

    #[test]
    fn endpoints_are_the_servers() {
        let address = Address::new("https://mega.example:8443/prefix//").unwrap();
        let (path, oid) = (path(b"project/foo"), Oid::EMPTY_TREE);
        for (endpoint, tail) in [
            (Endpoint::LatestCommit { refs: None }, "latest-commit?path=/".to_owned()),
            (
                Endpoint::LatestCommit { refs: Some("v 1&x") },
                "latest-commit?path=/&refs=v%201%26x".to_owned(),
            ),
            (
                Endpoint::ContentHash { path: &path, refs: Some(oid) },
                format!("tree/content-hash?path=/project/foo&refs={oid}"),
            ),
            (Endpoint::DirHash { path: &path, refs: None }, "tree/dir-hash?path=/project/foo".to_owned()),
            (Endpoint::CanClone { path: &path }, "tree/path-can-clone?path=/project/foo".to_owned()),
            (Endpoint::Blob { oid }, format!("file/blob/{oid}")),
        ] {
            let expected = format!("https://mega.example:8443/prefix/api/v1/{tail}");
            assert_eq!(address.of(&endpoint).as_str(), expected);
        }
    }

    #[test]
    fn what_is_no_plain_address_is_refused_and_no_password_repeated() {
        for (url, why) in [
            ("mega.example", "`mega.example` is no http or https URL: relative URL without a base"),
            ("ftp://h", "`ftp://h` is no http or https URL: it has another scheme"),
            ("http://h?x", "`http://h?x` is no http or https URL: it has a query or a fragment"),
            ("http://h#x", "`http://h#x` is no http or https URL: it has a query or a fragment"),
            ("http://u:hunter2@h", "`h` is no http or https URL: it names a user"),
        ] {
            assert_eq!(Address::new(url).unwrap_err().to_string(), why);
        }
    }
}
