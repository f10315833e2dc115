//! Answers as the real server words them.

use bytes::Bytes;
use serde::Serialize;

/// An answer before it is sent.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
}

/// Most answers in JSON lie in this.
#[derive(Serialize)]
struct Envelope<T> {
    req_result: bool,
    data: Option<T>,
    err_message: String,
}

const JSON: &str = "application/json";

impl Answer {
    pub fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Answer {
        Answer { status, headers: vec![("content-type", content_type.to_owned())], body: body.into() }
    }

    /// JSON without the envelope.
    pub fn bare(value: &impl Serialize) -> Answer {
        Answer::new(200, JSON, serde_json::to_vec(value).expect("these types are JSON"))
    }

    pub fn enveloped<T: Serialize>(data: T) -> Answer {
        Answer::bare(&Envelope { req_result: true, data: Some(data), err_message: String::new() })
    }

    /// A body as it is. A tree that is not there is an empty one.
    pub fn raw(body: Bytes) -> Answer {
        Answer::new(200, "application/octet-stream", body)
            .with("content-disposition", "inline; filename=\"\"".to_owned())
    }

    pub fn error(status: u16, message: impl Into<String>) -> Answer {
        let envelope = Envelope::<()> { req_result: false, data: None, err_message: message.into() };
        Answer { status, ..Answer::bare(&envelope) }
    }

    /// What went wrong inside is never told.
    pub fn internal() -> Answer {
        Answer::error(500, "Internal server error")
    }

    pub fn login_first() -> Answer {
        Answer::new(401, "text/plain; charset=utf-8", "Login first")
    }

    pub fn with(mut self, name: &'static str, value: String) -> Answer {
        self.headers.push((name, value));
        self
    }
}
