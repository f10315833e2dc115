//! The program's own endpoints, by which a script does what a test does through [`super::MegaServer`].

use hyper::Method;
use serde::Deserialize;
use serde_json::json;

use super::{Core, answers::Answer, faults::Rule, names};

/// Nothing of the real server's begins like this.
pub const PREFIX: &str = "/control/";

#[derive(Deserialize)]
struct Push {
    rev: String,
    /// The import repository; the monorepo when absent.
    import: Option<String>,
}

#[derive(Deserialize)]
struct Token {
    token: String,
    expired: bool,
}

#[derive(Deserialize)]
struct Restrict {
    below: String,
    tokens: Vec<String>,
}

#[derive(Deserialize)]
struct ChangeList {
    link: String,
    base: String,
    tip: String,
}

/// See [`super`]: each endpoint is a method of the same name there.
pub fn answer(core: &Core, method: &Method, what: &str, body: &[u8]) -> Answer {
    let outcome = match (method.as_str(), what) {
        ("GET", "counts") => return Answer::bare(&counts(core)),
        ("GET", "requests") => return Answer::bare(&core.counts.seen()),
        ("DELETE", "counts") => done(|| core.counts.forget()),
        ("POST", "fault") => read(body, |rule: Rule| core.faults.add(rule)),
        ("DELETE", "fault") => done(|| core.faults.clear()),
        ("POST", "push") => read(body, |push: Push| {
            match push.import {
                Some(import) => core.namespace.push_import(&import, None, &push.rev),
                None => core.namespace.push(&push.rev),
            };
        }),
        ("POST", "token") => read(body, |token: Token| core.access.expire(&token.token, token.expired)),
        ("POST", "restrict") => read(body, |restrict: Restrict| {
            let tokens: Vec<&str> = restrict.tokens.iter().map(String::as_str).collect();
            core.access.restrict(&core.namespace, names(&restrict.below), &tokens);
        }),
        ("POST", "cl") => read(body, |cl: ChangeList| core.change_lists.open(&cl.link, &cl.base, &cl.tip)),
        _ => return Answer::error(404, format!("there is no control endpoint `{what}`")),
    };
    match outcome {
        Ok(()) => Answer::bare(&"done"),
        Err(why) => Answer::error(400, why),
    }
}

fn counts(core: &Core) -> serde_json::Value {
    json!({
        "requests": core.counts.sums(),
        "most_at_once": core.counts.most_at_once(),
        "connections": core.connections.load(std::sync::atomic::Ordering::SeqCst),
    })
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8], then: impl FnOnce(T)) -> Result<(), String> {
    then(serde_json::from_slice(body).map_err(|why| why.to_string())?);
    Ok(())
}

fn done(what: impl FnOnce()) -> Result<(), String> {
    what();
    Ok(())
}
