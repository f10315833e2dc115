//! What a request asks for, taken apart: endpoint, path, revision, token.

use hyper::{Method, Request, header};
use percent::decoded;
use serde::{Deserialize, Serialize};

use super::namespace::Names;

/// One kind of request, as they are counted and misbehaved on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Endpoint {
    Status,
    LatestCommit,
    Tree,
    ContentHash,
    DirHash,
    CommitInfo,
    PathCanClone,
    FileTree,
    FileBlob,
    ClFilesList,
    ClUpdateStatus,
    ClDetail,
    Unknown,
}

/// A request without its body: none of these endpoints has one.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: Method,
    pub endpoint: Endpoint,
    /// The path asked about, from `/`; for a blob its id as given, for a change list its link.
    pub target: String,
    /// The same path by its names.
    pub names: Names,
    pub refs: String,
    /// The guard of `/file/tree`.
    pub oid: String,
    pub token: Option<String>,
    /// The request line as it came.
    pub uri: String,
    /// The request line named a host, as it does towards a proxy.
    pub proxied: bool,
}

impl Asked {
    pub fn new<B>(request: &Request<B>) -> Asked {
        let uri = request.uri();
        let (endpoint, last) = endpoint(uri.path());
        let value = |key: &str| {
            let pairs = uri.query().unwrap_or("").split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(name, _)| *name == key).map(|(_, value)| decoded(value)).next().unwrap_or_default()
        };
        let path = value("path");
        let names: Names =
            path.split('/').filter(|name| !name.is_empty()).map(|name| name.as_bytes().to_vec()).collect();
        let target = match last {
            Some(last) => last,
            None => format!("/{}", path.trim_matches('/')),
        };
        Asked {
            method: request.method().clone(),
            endpoint,
            target,
            names,
            refs: value("refs"),
            oid: value("oid"),
            token: token(request),
            uri: uri.to_string(),
            proxied: uri.authority().is_some(),
        }
    }
}

/// The endpoint of a URL's path, and what its last part names where that is no constant.
fn endpoint(path: &str) -> (Endpoint, Option<String>) {
    let Some(path) = path.strip_prefix("/api/v1/") else { return (Endpoint::Unknown, Some(path.to_owned())) };
    let endpoint = match path {
        "status" => Endpoint::Status,
        "latest-commit" => Endpoint::LatestCommit,
        "tree" => Endpoint::Tree,
        "tree/content-hash" => Endpoint::ContentHash,
        "tree/dir-hash" => Endpoint::DirHash,
        "tree/commit-info" => Endpoint::CommitInfo,
        "tree/path-can-clone" => Endpoint::PathCanClone,
        "file/tree" => Endpoint::FileTree,
        _ => return named(path),
    };
    (endpoint, None)
}

fn named(path: &str) -> (Endpoint, Option<String>) {
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        ["file", "blob", oid] => (Endpoint::FileBlob, Some(oid.to_owned())),
        ["cl", link, "files-list"] => (Endpoint::ClFilesList, Some(link.to_owned())),
        ["cl", link, "update-status"] => (Endpoint::ClUpdateStatus, Some(link.to_owned())),
        ["cl", link, "detail"] => (Endpoint::ClDetail, Some(link.to_owned())),
        _ => (Endpoint::Unknown, Some(path.to_owned())),
    }
}

/// A bearer token, or the password of basic credentials whatever their user.
fn token<B>(request: &Request<B>) -> Option<String> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    if let Some(token) = value.strip_prefix("Bearer ") {
        return Some(token.to_owned());
    }
    let pair = String::from_utf8(base64(value.strip_prefix("Basic ")?)?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

fn base64(text: &str) -> Option<Vec<u8>> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut held, mut bytes) = (0u32, 0, Vec::new());
    for digit in text.trim_end_matches('=').bytes() {
        let value = u32::try_from(DIGITS.iter().position(|known| *known == digit)?).ok()?;
        (bits, held) = (bits << 6 | value, held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held).to_be_bytes()[3]);
        }
    }
    Some(bytes)
}

mod percent {
    /// A query's value as web frameworks read it: `+` is a space, `%` begins a byte, what is no UTF-8 is replaced.
    pub fn decoded(value: &str) -> String {
        let (value, mut bytes) = (value.as_bytes(), Vec::new());
        let mut at = 0;
        while at < value.len() {
            let digits = value.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
            let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            match (value[at], byte) {
                (b'%', Some(byte)) => {
                    bytes.push(byte);
                    at += 2;
                }
                (b'+', _) => bytes.push(b' '),
                (byte, _) => bytes.push(byte),
            }
            at += 1;
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
