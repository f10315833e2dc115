//! [`CredentialSource`]: the secret that a server is asked with, by name, and read when it is needed.
//!
//! A secret is nowhere but in memory and in the request's header: it has no `Display`, and `Debug` hides it.

use std::{
    fmt,
    fs::OpenOptions,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use reqwest::header::HeaderValue;

use crate::{telemetry::event, types::OriginName};

/// A token is some dozen to some thousand bytes (signed ones); more is another file by mistake.
const SECRET_MAX_BYTES: u64 = 16 << 10;

/// So often the journal is told that a credential does not work; each refused request would be a line otherwise.
const TELL_EVERY: Duration = Duration::from_secs(300);

/// Where a secret comes from.
pub trait CredentialSource: Send + Sync + 'static {
    /// What messages call it; never the secret.
    fn name(&self) -> &str;

    /// The secret as it is now. Called at the first request and again after the server refused what was read before, on
    /// a thread that may block.
    fn read(&self) -> Result<Secret, CredentialError>;
}

/// A bearer token.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(HeaderValue);

/// Why there is no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The service was started without it.
    #[error("it was not given to the service")]
    NotGiven,
    /// The user whose it would be has stored none.
    #[error("there is none; log in with `scorpioctl login {origin}`")]
    NotLoggedIn {
        /// Where to.
        origin: OriginName,
    },
    /// The file does not open or read.
    #[error("it cannot be read: {reason}")]
    Unreadable {
        /// The system's words.
        reason: String,
    },
    /// Empty, too long, or with bytes that no token has.
    #[error("it is no token: {reason}")]
    NoToken {
        /// What is wrong; not the content.
        reason: &'static str,
    },
}

impl Secret {
    /// The token in `text`, without the white space around it.
    pub fn new(text: &[u8]) -> Result<Secret, CredentialError> {
        let token = text.trim_ascii();
        if token.is_empty() {
            return Err(CredentialError::NoToken { reason: "it is empty" });
        }
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(CredentialError::NoToken { reason: "it has bytes other than visible ASCII" });
        }
        let refused = |_| CredentialError::NoToken { reason: "it does not fit in a header" };
        let mut header = HeaderValue::from_bytes(&[b"Bearer ", token].concat()).map_err(refused)?;
        header.set_sensitive(true);
        Ok(Secret(header))
    }

    /// The value of `Authorization:`.
    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A file that the service manager (or an administrator) put there.
#[derive(Clone, Debug)]
pub struct FileCredential {
    name: String,
    path: Option<PathBuf>,
}

impl FileCredential {
    /// The credential `name`, at `path` if the service has one.
    pub fn new(name: &str, path: Option<PathBuf>) -> FileCredential {
        FileCredential { name: name.to_owned(), path }
    }
}

impl CredentialSource for FileCredential {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&self) -> Result<Secret, CredentialError> {
        let path = self.path.as_ref().ok_or(CredentialError::NotGiven)?;
        let unreadable = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => CredentialError::NotGiven,
            _ => CredentialError::Unreadable { reason: error.to_string() },
        };
        let mut text = Vec::new();
        // A pipe that nobody writes to would hold the thread for ever.
        let file =
            OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(unreadable)?;
        file.take(SECRET_MAX_BYTES + 1).read_to_end(&mut text).map_err(unreadable)?;
        if text.len() as u64 > SECRET_MAX_BYTES {
            return Err(CredentialError::NoToken { reason: "it is longer than 16 KiB" });
        }
        Secret::new(&text)
    }
}

/// A credential in use: what was read last, and when the journal was told of trouble.
pub(super) struct Login {
    source: Arc<dyn CredentialSource>,
    known: Mutex<Option<Secret>>,
    told: Mutex<Option<Instant>>,
}

impl Login {
    pub(super) fn new(source: Arc<dyn CredentialSource>) -> Login {
        Login { source, known: Mutex::new(None), told: Mutex::new(None) }
    }

    pub(super) fn name(&self) -> &str {
        self.source.name()
    }

    /// The secret that was read last, else as it is now.
    pub(super) async fn secret(&self) -> Result<Secret, CredentialError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known {
            Some(secret) => Ok(secret),
            None => self.read().await,
        }
    }

    /// Another secret than `refused`, if there is one by now.
    pub(super) async fn renewed(&self, refused: &Secret) -> Result<Option<Secret>, CredentialError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Somebody else's request may have found it already.
        let secret = match known {
            Some(secret) if secret != *refused => secret,
            _ => self.read().await?,
        };
        Ok((secret != *refused).then_some(secret))
    }

    async fn read(&self) -> Result<Secret, CredentialError> {
        let source = self.source.clone();
        let read = tokio::task::spawn_blocking(move || source.read()).await;
        let secret = read.map_err(|error| CredentialError::Unreadable { reason: error.to_string() })?;
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = secret.as_ref().ok().cloned();
        secret
    }

    /// Tells the journal, unless it was told a short while ago.
    pub(super) fn complain(&self, origin: &OriginName, reason: &str) {
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|last| now.duration_since(last) < TELL_EVERY) {
            return;
        }
        *told = Some(now);
        tracing::warn!(
            message_id = event::CREDENTIAL_REFUSED,
            scorpio_origin = %origin.configured(),
            scorpio_uid = origin.user(),
            scorpio_credential = self.name(),
            reason,
            "a credential does not open its origin"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_text_without_its_white_space_and_is_never_shown() {
        let secret = Secret::new(b" \n tok-en_1.2+3/4== \n").unwrap();
        assert_eq!(secret.header(), "Bearer tok-en_1.2+3/4==");
        let shown = format!("{secret:?} {:?}", secret.header());
        assert!(!shown.contains("tok-en"), "{shown}");
    }

    #[test]
    fn what_is_no_token_is_refused_without_quoting_it() {
        for (text, why) in [
            (&b" \n\t"[..], "it is no token: it is empty"),
            (b"two words", "it is no token: it has bytes other than visible ASCII"),
            (b"line\nbreak", "it is no token: it has bytes other than visible ASCII"),
            (b"caf\xc3\xa9", "it is no token: it has bytes other than visible ASCII"),
            (b"nul\0", "it is no token: it has bytes other than visible ASCII"),
        ] {
            assert_eq!(Secret::new(text).unwrap_err().to_string(), why);
        }
    }

    #[derive(Clone, Default)]
    struct Journal(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Journal {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_journal_is_told_once_with_names_and_without_the_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "hunter2").unwrap();
        let login = Login::new(Arc::new(FileCredential::new("mega-token", Some(path))));
        let journal = Journal::default();
        let writer = journal.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let secret = runtime.block_on(login.secret()).unwrap();
            assert_eq!(runtime.block_on(login.renewed(&secret)), Ok(None));
            for _ in 0..3 {
                login.complain(&"mega".parse().unwrap(), "the server refuses it (401)");
            }
        });
        let lines = String::from_utf8(journal.0.lock().unwrap().clone()).unwrap();
        assert_eq!(lines.lines().count(), 1, "{lines}");
        for part in [
            " WARN ",
            event::CREDENTIAL_REFUSED,
            "scorpio_origin=mega",
            "scorpio_credential=\"mega-token\"",
            "refuses it (401)",
        ] {
            assert!(lines.contains(part), "{part}: {lines}");
        }
        assert!(!lines.contains("hunter2"), "{lines}");
    }

    #[tokio::test]
    async fn a_secret_is_read_once_and_again_when_it_was_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "old").unwrap();
        let login = Login::new(Arc::new(FileCredential::new("t", Some(path.clone()))));
        let (old, new) = (Secret::new(b"old").unwrap(), Secret::new(b"new").unwrap());
        assert_eq!(login.secret().await, Ok(old.clone()));
        std::fs::write(&path, "new").unwrap();
        assert_eq!(login.secret().await, Ok(old.clone()), "not read at every request");
        assert_eq!(login.renewed(&old).await, Ok(Some(new.clone())));
        assert_eq!(login.secret().await, Ok(new.clone()));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            login.renewed(&old).await,
            Ok(Some(new.clone())),
            "somebody else found the new one already"
        );
        assert_eq!(login.renewed(&new).await, Err(CredentialError::NotGiven));
        assert_eq!(
            login.secret().await,
            Err(CredentialError::NotGiven),
            "what was refused is not used again"
        );
    }

    #[test]
    fn a_file_is_read_when_asked_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let credential = FileCredential::new("token", Some(path.clone()));
        assert_eq!(credential.read(), Err(CredentialError::NotGiven));
        std::fs::write(&path, "one\n").unwrap();
        assert_eq!(credential.read().unwrap().header(), "Bearer one");
        std::fs::write(&path, "two\n").unwrap();
        assert_eq!(credential.read().unwrap().header(), "Bearer two");
        std::fs::write(&path, vec![b'x'; 16 << 10]).unwrap();
        assert!(credential.read().is_ok());
        std::fs::write(&path, vec![b'x'; (16 << 10) + 1]).unwrap();
        let error = credential.read().unwrap_err();
        assert_eq!(error.to_string(), "it is no token: it is longer than 16 KiB");
        assert_eq!(FileCredential::new("token", None).read(), Err(CredentialError::NotGiven));
    }
}
