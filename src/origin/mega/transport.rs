//! [`Transport`]: one question, asked until it is answered, is not worth asking again, or time is up.
//!
//! Knows of HTTP and of the credential, and nothing of trees. Every answer is bounded, and one that is cut short is none.

use std::{
    error::Error,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use reqwest::{Client, Response, StatusCode, Url, header};
use tokio::sync::Semaphore;

use super::{
    MegaOptions, OpenError,
    address::{Address, Endpoint},
    client,
    credential::{Login, Secret},
    retry::{self, Outcome, Step},
};
use crate::{origin::FetchError, telemetry::event, types::OriginName};

/// Buffer for a body before any of it came: a server may announce what it never sends.
const BODY_FIRST_BYTES: u64 = 1 << 20;

/// What is left of an unwanted body is read up to this, since a new connection costs more; beyond, the connection goes.
const DRAIN_MAX_BYTES: u64 = 256 << 10;

/// Credentials tried for one question: the one in use, and the one that has replaced it by now.
const SECRETS_MAX: usize = 2;

/// How much of an unexpected answer is quoted.
const QUOTE_MAX_CHARS: usize = 200;

/// How much of a body is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    /// All of it.
    Whole,
    /// All of it if it is no longer than this, else its length alone.
    UpTo(u64),
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// 200.
    Found(Bytes),
    /// 200 and more than was wanted: so many bytes.
    Long(u64),
    /// 404.
    Missing,
    /// 500, twice.
    Fault,
}

/// How one attempt failed.
struct Trouble {
    outcome: Outcome,
    error: FetchError,
}

/// A way to a server.
pub(super) struct Transport {
    origin: OriginName,
    client: Client,
    address: Address,
    login: Option<Login>,
    patience: Duration,
    turns: Semaphore,
    sent: AtomicU64,
    is_failing: AtomicBool,
}

impl Transport {
    pub(super) fn new(origin: OriginName, options: MegaOptions) -> Result<Transport, OpenError> {
        let address = Address::new(&options.url)?;
        if let Some(credential) = &options.credential
            && !address.is_private()
        {
            return Err(OpenError::InTheClear { url: options.url, credential: credential.name().to_owned() });
        }
        Ok(Transport {
            client: client::build(&options)?,
            origin,
            address,
            login: options.credential.map(Login::new),
            patience: options.patience,
            turns: Semaphore::new(options.requests.clamp(1, Semaphore::MAX_PERMITS)),
            sent: AtomicU64::new(0),
            is_failing: AtomicBool::new(false),
        })
    }

    pub(super) fn origin(&self) -> &OriginName {
        &self.origin
    }

    pub(super) fn requests_sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn unreachable(&self, reason: String) -> FetchError {
        FetchError::Unreachable { origin: self.origin.clone(), reason }
    }

    /// Asks `endpoint`.
    pub(super) async fn get(&self, endpoint: &Endpoint<'_>, wanted: Wanted) -> Result<Answer, FetchError> {
        let (started, url) = (Instant::now(), self.address.of(endpoint));
        let mut attempt = 1;
        loop {
            let left = self.patience.saturating_sub(started.elapsed());
            let answer = self.attempt_within(left, endpoint, &url, wanted).await;
            let outcome = match &answer {
                Ok(Answer::Fault) => Outcome::Fault,
                Ok(_) => Outcome::Answered,
                Err(trouble) => trouble.outcome,
            };
            let left = self.patience.saturating_sub(started.elapsed());
            match retry::plan(outcome, attempt, left, dice()) {
                Step::Again { after } => {
                    tracing::debug!(scorpio_origin = %self.origin, endpoint = endpoint.name(), attempt, ?outcome, ?after, "a request is sent again");
                    tokio::time::sleep(after).await;
                }
                Step::Stop => {
                    let answer = answer.map_err(|trouble| trouble.error);
                    self.note(&answer);
                    return answer;
                }
            }
            attempt += 1;
        }
    }

    /// One attempt, the wait for its turn included.
    async fn attempt_within(
        &self,
        time: Duration,
        endpoint: &Endpoint<'_>,
        url: &Url,
        wanted: Wanted,
    ) -> Result<Answer, Trouble> {
        let late = || FetchError::TimedOut { origin: self.origin.clone(), after: self.patience };
        let attempt = self.attempt(endpoint, url, wanted);
        tokio::time::timeout(time, attempt).await.unwrap_or_else(|_| Err(final_(late())))
    }

    /// One attempt; two requests where the credential was renewed meanwhile.
    async fn attempt(&self, endpoint: &Endpoint<'_>, url: &Url, wanted: Wanted) -> Result<Answer, Trouble> {
        let _turn = self.turns.acquire().await.expect("the semaphore is never closed");
        let Some(login) = &self.login else {
            let response = self.send(url, None).await?;
            let status = response.status();
            if !is_refusal(status) {
                return self.take(endpoint, response, wanted).await;
            }
            let reason = format!("it answers {} and no credential is configured for it", status.as_u16());
            return Err(final_(self.denied(reason)));
        };
        let mut secret = login.secret().await.map_err(|error| self.no_secret(login, &error.to_string()))?;
        let mut tried = 1;
        loop {
            let response = self.send(url, Some(&secret)).await?;
            let status = response.status();
            if !is_refusal(status) {
                return self.take(endpoint, response, wanted).await;
            }
            let renewed = login.renewed(&secret).await;
            match renewed.map_err(|error| self.no_secret(login, &error.to_string()))? {
                Some(other) if tried < SECRETS_MAX => secret = other,
                _ => {
                    let reason = format!("the server refuses it ({})", status.as_u16());
                    return Err(self.no_secret(login, &reason));
                }
            }
            tried += 1;
        }
    }

    async fn send(&self, url: &Url, secret: Option<&Secret>) -> Result<Response, Trouble> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let mut request = self.client.get(url.clone());
        if let Some(secret) = secret {
            request = request.header(header::AUTHORIZATION, secret.header());
        }
        request.send().await.map_err(|error| self.broken(error))
    }

    async fn take(
        &self,
        endpoint: &Endpoint<'_>,
        response: Response,
        wanted: Wanted,
    ) -> Result<Answer, Trouble> {
        let status = response.status();
        match status {
            StatusCode::OK => self.body(endpoint, response, wanted).await,
            StatusCode::NOT_FOUND | StatusCode::INTERNAL_SERVER_ERROR => {
                self.drain(response).await;
                Ok(if status == StatusCode::NOT_FOUND { Answer::Missing } else { Answer::Fault })
            }
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => {
                let told = response.headers().get(header::RETRY_AFTER);
                let retry_after = told.and_then(|value| retry::retry_after(value.to_str().ok()?));
                let error = self.unexpected(endpoint, status, response).await;
                Err(Trouble { outcome: Outcome::Busy { retry_after }, error })
            }
            _ => Err(final_(self.unexpected(endpoint, status, response).await)),
        }
    }

    async fn body(
        &self,
        endpoint: &Endpoint<'_>,
        mut response: Response,
        wanted: Wanted,
    ) -> Result<Answer, Trouble> {
        let (length, most) = (response.content_length(), endpoint.most_bytes());
        let keep = match wanted {
            Wanted::Whole => most,
            Wanted::UpTo(keep) => keep,
        };
        match length {
            Some(length) if length > keep && matches!(wanted, Wanted::UpTo(_)) => {
                self.drain(response).await;
                return Ok(Answer::Long(length));
            }
            Some(length) if length > most => return Err(self.too_long(endpoint)),
            // Nothing would tell a whole body from one whose connection was lost.
            None if !is_chunked(&response) => {
                return Err(final_(self.unreachable("it does not say how long its answer is".to_owned())));
            }
            _ => {}
        }
        let (mut body, mut seen) = (BytesMut::new(), 0);
        while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(error))? {
            let left = length.map_or(0, |length| length.saturating_sub(seen));
            seen += chunk.len() as u64;
            if seen > most {
                return Err(self.too_long(endpoint));
            }
            if seen > keep {
                body.clear();
                continue;
            }
            if body.len() + chunk.len() > body.capacity() {
                // A server may announce what it never sends.
                let more = if body.is_empty() { left.min(BODY_FIRST_BYTES) } else { left };
                body.reserve(usize::try_from(more).unwrap_or(0).max(chunk.len()));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(if seen <= keep { Answer::Found(body.freeze()) } else { Answer::Long(seen) })
    }

    /// Reads on so that the connection can be used again, where that costs less than a new one.
    async fn drain(&self, mut response: Response) {
        if response.content_length().is_none_or(|length| length > DRAIN_MAX_BYTES) {
            return;
        }
        // What goes wrong here goes wrong with bytes that nobody wants; the connection is not used again then.
        while let Ok(Some(_)) = response.chunk().await {}
    }

    async fn unexpected(
        &self,
        endpoint: &Endpoint<'_>,
        status: StatusCode,
        response: Response,
    ) -> FetchError {
        let mut said = String::new();
        if response.content_length().is_some_and(|length| length <= DRAIN_MAX_BYTES)
            && let Ok(body) = response.bytes().await
        {
            let text = String::from_utf8_lossy(&body);
            said = text.chars().take(QUOTE_MAX_CHARS).collect::<String>().escape_debug().to_string();
        }
        let elsewhere = if status.is_redirection() { ", which leads elsewhere" } else { "" };
        let said = if said.is_empty() { said } else { format!(": {said}") };
        self.unreachable(format!("{} answers {}{elsewhere}{said}", endpoint.name(), status.as_u16()))
    }

    fn broken(&self, error: reqwest::Error) -> Trouble {
        let error = error.without_url();
        Trouble { outcome: Outcome::Broken, error: self.unreachable(chain(&error)) }
    }

    fn too_long(&self, endpoint: &Endpoint<'_>) -> Trouble {
        let (name, most) = (endpoint.name(), endpoint.most_bytes());
        final_(self.unreachable(format!("{name} answers more than {most} bytes")))
    }

    fn no_secret(&self, login: &Login, reason: &str) -> Trouble {
        login.complain(&self.origin, reason);
        final_(self.denied(format!("credential `{}`: {reason}", login.name())))
    }

    fn denied(&self, reason: String) -> FetchError {
        FetchError::Denied { origin: self.origin.clone(), reason }
    }

    /// Tells the journal when the server goes away and when it is back.
    fn note(&self, answer: &Result<Answer, FetchError>) {
        match answer {
            Ok(_) if self.is_failing.swap(false, Ordering::Relaxed) => {
                tracing::info!(message_id = event::ORIGIN_RESTORED, scorpio_origin = %self.origin.configured(), scorpio_uid = self.origin.user(), "origin answers again");
            }
            Err(error @ (FetchError::Unreachable { .. } | FetchError::TimedOut { .. }))
                if !self.is_failing.swap(true, Ordering::Relaxed) =>
            {
                tracing::warn!(message_id = event::ORIGIN_FAILED, scorpio_origin = %self.origin.configured(), scorpio_uid = self.origin.user(), %error, "origin does not answer");
            }
            _ => {}
        }
    }
}

/// A failure that asking again does not mend.
fn final_(error: FetchError) -> Trouble {
    Trouble { outcome: Outcome::Final, error }
}

fn is_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

fn is_chunked(response: &Response) -> bool {
    response.headers().get(header::TRANSFER_ENCODING).is_some_and(|how| how.as_bytes().ends_with(b"chunked"))
}

/// An error and all that led to it, each said once.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let own = error.to_string();
        if !text.ends_with(&own) {
            text.push_str(": ");
            text.push_str(&own);
        }
        cause = error.source();
    }
    text
}

/// Random enough to part clients from one another.
fn dice() -> u64 {
    RandomState::new().build_hasher().finish()
}
