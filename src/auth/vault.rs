//! [`Vault`]: what users log in to origins with, kept for lazy reads and reboots.
//!
//! ```text
//! <state>/credentials/<origin>/<uid>     scorpio-credential 1 <crc32 of the secret, 8 hex digits> <its bytes>\n<secret>
//! ```
//!
//! Root's alone (directories 0700, files 0600), each there whole or not at all. A file that is damaged is an error that
//! names it, never an empty secret. Nothing here is ever shown, logged or sent to a caller.

use std::{
    fmt,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::{sys::durable, types::OriginName};

/// Longest secret in bytes: signed tokens have some thousand. A header of an HTTP request must hold it.
pub const MAX_SECRET: usize = 8192;

const FORMAT: &str = "scorpio-credential";
const VERSION: &str = "1";
/// Header and secret.
const MAX_FILE: usize = MAX_SECRET + 128;

/// A secret. What shows it is [`Secret::expose`] alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

/// Text that cannot be sent as a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// Nothing in it.
    #[error("it is empty")]
    Empty,
    /// More than [`MAX_SECRET`].
    #[error("it has more than {MAX_SECRET} bytes")]
    TooLong,
    /// Not printable ASCII without spaces.
    #[error("it has characters that a token cannot have: spaces, control characters, or other than ASCII")]
    Characters,
}

impl Secret {
    /// `text` without the blanks and line ends around it.
    pub fn new(text: &str) -> Result<Secret, BadSecret> {
        let text = text.trim_ascii();
        match text {
            "" => Err(BadSecret::Empty),
            _ if text.len() > MAX_SECRET => Err(BadSecret::TooLong),
            _ if !text.bytes().all(|byte| byte.is_ascii_graphic()) => Err(BadSecret::Characters),
            _ => Ok(Secret(text.into())),
        }
    }

    /// The text itself, for the one request that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Why the vault cannot do it.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The disk said no.
    #[error("cannot {action} {}: {source}", path.display())]
    Disk {
        /// Verb: `read`, `write`, `remove`.
        action: &'static str,
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not what was written.
    #[error("the stored credential {} is damaged; log in again", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
}

/// The credentials of this host's users.
pub struct Vault {
    dir: PathBuf,
    /// One writer at a time: what is written goes through one temporary name per directory.
    writing: Mutex<()>,
}

impl Vault {
    /// The vault below `state_dir`. Nothing is made before the first credential is stored.
    pub fn new(state_dir: &Path) -> Vault {
        Vault { dir: state_dir.join("credentials"), writing: Mutex::new(()) }
    }

    /// Keeps `secret` as what `uid` reads `origin` with, in place of another one. Durable when it returns.
    pub fn store(&self, origin: &OriginName, uid: u32, secret: &Secret) -> Result<(), VaultError> {
        let _one_writer = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path(origin, uid);
        let body = secret.expose();
        let header = format!("{FORMAT} {VERSION} {:08x} {}\n", crc32fast::hash(body.as_bytes()), body.len());
        let write = || {
            let dir = self.make_dir(origin)?;
            durable::write(
                dir.as_fd(),
                &uid.to_string(),
                [header.as_bytes(), body.as_bytes()].concat().as_slice(),
            )
        };
        write().map_err(|source| VaultError::Disk { action: "write", path, source })
    }

    /// What `uid` reads `origin` with, if anything is stored.
    pub fn get(&self, origin: &OriginName, uid: u32) -> Result<Option<Secret>, VaultError> {
        let path = self.path(origin, uid);
        let read =
            self.open_dir(origin).and_then(|dir| durable::read(dir.as_fd(), &uid.to_string(), MAX_FILE));
        match read {
            Ok(bytes) => decode(&bytes).map(Some).ok_or(VaultError::Damaged { path }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(VaultError::Disk { action: "read", path, source }),
        }
    }

    /// Takes it away; whether there was one.
    pub fn forget(&self, origin: &OriginName, uid: u32) -> Result<bool, VaultError> {
        let _one_writer = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path(origin, uid);
        let failed = |source| VaultError::Disk { action: "remove", path: path.clone(), source };
        if !path.try_exists().map_err(failed)? {
            return Ok(false);
        }
        let remove = || durable::remove(self.open_dir(origin)?.as_fd(), &uid.to_string());
        remove().map_err(failed)?;
        Ok(true)
    }

    fn path(&self, origin: &OriginName, uid: u32) -> PathBuf {
        self.dir.join(origin.configured().as_str()).join(uid.to_string())
    }

    fn open_dir(&self, origin: &OriginName) -> std::io::Result<OwnedFd> {
        let dir = durable::open_dir(&self.dir)?;
        durable::open_dir_at(dir.as_fd(), origin.configured().as_str())
    }

    fn make_dir(&self, origin: &OriginName) -> std::io::Result<OwnedFd> {
        let dir = self.dir.join(origin.configured().as_str());
        durable::make_dirs(&dir)?;
        self.open_dir(origin)
    }
}

fn decode(bytes: &[u8]) -> Option<Secret> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (header, body) = text.split_once('\n')?;
    let expected = format!("{FORMAT} {VERSION} {:08x} {}", crc32fast::hash(body.as_bytes()), body.len());
    (header == expected).then(|| Secret::new(body).ok()).flatten().filter(|secret| secret.expose() == body)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mega() -> OriginName {
        "mega".parse().unwrap()
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text).unwrap()
    }

    #[test]
    fn what_was_stored_last_is_what_is_read_and_nobody_else_can() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::new(dir.path());
        assert_eq!(vault.get(&mega(), 1000).unwrap(), None);
        assert!(!vault.forget(&mega(), 1000).unwrap());
        vault.store(&mega(), 1000, &secret("first")).unwrap();
        vault.store(&mega(), 1000, &secret("second")).unwrap();
        vault.store(&mega(), 1001, &secret("bobs")).unwrap();
        vault.store(&"other".parse().unwrap(), 1000, &secret("elsewhere")).unwrap();
        let again = Vault::new(dir.path());
        assert_eq!(again.get(&mega(), 1000).unwrap(), Some(secret("second")));
        assert_eq!(again.get(&mega().of_user(1000), 1000).unwrap(), Some(secret("second")));
        assert!(again.forget(&mega(), 1000).unwrap());
        assert_eq!(again.get(&mega(), 1000).unwrap(), None);
        assert_eq!(again.get(&mega(), 1001).unwrap(), Some(secret("bobs")));
        let mode = |path: &str| dir.path().join(path).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode("credentials"), mode("credentials/mega"), mode("credentials/mega/1001")),
            (0o700, 0o700, 0o600)
        );
    }

    #[test]
    fn these_are_the_bytes() {
        let dir = tempfile::tempdir().unwrap();
        Vault::new(dir.path()).store(&mega(), 7, &secret("token")).unwrap();
        let bytes = std::fs::read(dir.path().join("credentials/mega/7")).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), "scorpio-credential 1 5f37a13b 5\ntoken");
    }

    #[test]
    fn a_damaged_file_is_an_error_and_never_a_secret() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::new(dir.path());
        vault.store(&mega(), 7, &secret("token")).unwrap();
        let path = dir.path().join("credentials/mega/7");
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(vault.get(&mega(), 7), Err(VaultError::Damaged { .. })), "byte {at}");
        }
        for len in 0..good.len() {
            std::fs::write(&path, &good[..len]).unwrap();
            assert!(matches!(vault.get(&mega(), 7), Err(VaultError::Damaged { .. })), "{len} bytes");
        }
        vault.store(&mega(), 7, &secret("token")).unwrap();
        assert_eq!(vault.get(&mega(), 7).unwrap(), Some(secret("token")));
    }

    #[test]
    fn a_secret_is_one_word_of_ascii_and_is_not_shown() {
        assert_eq!(Secret::new(" token\r\n").unwrap().expose(), "token");
        assert_eq!(format!("{:?}", secret("token")), "Secret");
        assert_eq!(Secret::new(" \n"), Err(BadSecret::Empty));
        assert_eq!(Secret::new("two words"), Err(BadSecret::Characters));
        assert_eq!(Secret::new("a\nb"), Err(BadSecret::Characters));
        assert_eq!(Secret::new("schlüssel"), Err(BadSecret::Characters));
        assert!(Secret::new(&"x".repeat(MAX_SECRET)).is_ok());
        assert_eq!(Secret::new(&"x".repeat(MAX_SECRET + 1)), Err(BadSecret::TooLong));
    }
}
