//! Misbehaviour on demand: rules that say which requests are treated how, and how often.

use std::{sync::Mutex, time::Duration};

use serde::{Deserialize, Serialize};

use super::requests::{Asked, Endpoint};

/// How a request is treated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// It is answered so many milliseconds later.
    Delay(u64),
    /// It gets this status and an envelope that says as little as the real one.
    Status(u16),
    /// It gets this status and is told to come again after so many seconds.
    RetryAfter(u16, u64),
    /// The connection is closed without a word.
    Drop,
    /// It is never answered, not even when the rule is gone.
    BlackHole,
    /// The answer's length is announced, half of it comes, the connection is closed.
    Truncate,
    /// One bit of the answer is another; a HEAD tells one byte too many.
    WrongBytes,
    /// 200 and nothing.
    Empty,
    /// 200 and JSON that breaks off.
    Garbage,
    /// A redirect to itself.
    Redirect,
    /// A redirect to another place.
    RedirectTo(String),
    /// The answer, again and again without an end or a length.
    Endless,
    /// A terabyte is announced, and begun.
    Huge,
    /// The answer comes byte by byte, so many milliseconds apart.
    Drip(u64),
    /// Before it is answered, the monorepo's head becomes this revision.
    Push(String),
    /// Before it is answered, the head of the import repository becomes this revision.
    PushImport(String, String),
}

/// Which requests are treated how.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub act: Act,
    /// Only requests of this kind.
    #[serde(default)]
    pub endpoint: Option<Endpoint>,
    /// Only requests for this path, or blob.
    #[serde(default)]
    pub target: Option<String>,
    /// So many are let through first.
    #[serde(default)]
    pub after: u64,
    /// So many are treated, then no more; all when absent.
    #[serde(default)]
    pub times: Option<u64>,
}

impl Rule {
    pub fn new(act: Act) -> Rule {
        Rule { act, endpoint: None, target: None, after: 0, times: None }
    }

    pub fn on(self, endpoint: Endpoint) -> Rule {
        Rule { endpoint: Some(endpoint), ..self }
    }

    pub fn at(self, target: &str) -> Rule {
        Rule { target: Some(target.to_string()), ..self }
    }

    pub fn after(self, after: u64) -> Rule {
        Rule { after, ..self }
    }

    pub fn times(self, times: u64) -> Rule {
        Rule { times: Some(times), ..self }
    }

    /// Counts a request, and says whether it is to be treated.
    fn takes(&mut self, asked: &Asked) -> bool {
        let fits = self.endpoint.is_none_or(|endpoint| endpoint == asked.endpoint)
            && self.target.as_ref().is_none_or(|target| *target == asked.target);
        if !fits || self.times == Some(0) {
            return false;
        }
        if self.after > 0 {
            self.after -= 1;
            return false;
        }
        self.times = self.times.map(|times| times - 1);
        true
    }
}

/// The rules in force. A request is treated by all that take it, up to the first that spoils its answer.
#[derive(Default)]
pub struct Faults(Mutex<Vec<Rule>>);

impl Faults {
    pub fn add(&self, rule: Rule) {
        self.0.lock().unwrap().push(rule);
    }

    pub fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    /// What happens to a request.
    pub fn acts(&self, asked: &Asked) -> Vec<Act> {
        let mut acts = Vec::new();
        for rule in self.0.lock().unwrap().iter_mut() {
            if rule.takes(asked) {
                acts.push(rule.act.clone());
                if !rule.act.goes_on() {
                    break;
                }
            }
        }
        acts
    }
}

impl Act {
    /// Whether the request is still answered well.
    fn goes_on(&self) -> bool {
        matches!(self, Act::Delay(_) | Act::Push(_) | Act::PushImport(..))
    }

    pub fn delay(&self) -> Option<Duration> {
        match self {
            Act::Delay(millis) => Some(Duration::from_millis(*millis)),
            _ => None,
        }
    }
}
