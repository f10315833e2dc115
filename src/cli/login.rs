//! `scorpioctl login` and `logout`: what an origin is read with on the caller's behalf.

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
};

use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

use super::{Session, exit::Exit, failure::Failure};
use crate::api::{
    ForgetCredential, ForgottenCredential, OriginView, ReadWith, StoreCredential, StoredCredential, method,
};

/// More than any token has: a file given by mistake is not sent whole.
const MAX_INPUT: u64 = 64 << 10;

const EXAMPLES: &str = "\
Examples:
  scorpioctl login mega                        asks for the token, and does not show it
  scorpioctl login mega < ~/.config/mega-token";

const LOGOUT_EXAMPLES: &str = "\
Examples:
  scorpioctl logout mega";

/// Give the daemon the token that you read an origin with.
///
/// It is tried, and kept until you log out, for what is read later too: when a file is first looked at, and after a reboot.
/// Only root can read it on this host. Origins that need it are marked in `scorpioctl origins`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Login {
    /// Name of the origin
    origin: String,
}

/// Have the daemon forget the token that you read an origin with.
///
/// Your workspaces of it stay mounted; what is not yet in the cache is an I/O error in them until you log in again.
#[derive(Debug, Args)]
#[command(after_help = LOGOUT_EXAMPLES)]
pub(crate) struct Logout {
    /// Name of the origin
    origin: String,
}

impl Login {
    /// Runs the verb.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, Failure> {
        let daemon = session.daemon();
        // A person is not asked for a secret that has no use.
        let origins: Vec<OriginView> = daemon.ask(method::ORIGIN_LIST).await?;
        if let Some(origin) = origins.iter().find(|origin| origin.name == self.origin)
            && origin.read_with == ReadWith::Service
        {
            return Err(Failure::new(Exit::Usage, format!("origin {} needs no login", self.origin))
                .try_this("mount it; `scorpioctl origins` shows which origins need one"));
        }
        let secret = read_token(&self.origin)?;
        let request = StoreCredential { origin: self.origin.clone(), secret };
        let stored: StoredCredential = daemon.call(method::CREDENTIAL_STORE, &request).await?;
        session.screen.data(&stored, |stored| told(&self.origin, stored))?;
        Ok(Exit::Ok)
    }
}

fn told(origin: &str, stored: &StoredCredential) -> String {
    match stored.tried {
        true => format!("{origin} takes the token; it is kept until `scorpioctl logout {origin}`."),
        false => format!("The token is kept, but {origin} could not be asked whether it takes it."),
    }
}

impl Logout {
    /// Runs the verb.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, Failure> {
        let request = ForgetCredential { origin: self.origin.clone() };
        let forgotten: ForgottenCredential =
            session.daemon().call(method::CREDENTIAL_FORGET, &request).await?;
        session.screen.data(&forgotten, |forgotten| match forgotten.forgotten {
            true => format!("The token for {} is forgotten.", self.origin),
            false => format!("There was no token for {}.", self.origin),
        })?;
        Ok(Exit::Ok)
    }
}

/// From the terminal without showing it, else all of standard input.
fn read_token(origin: &str) -> Result<String, Failure> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::Interrupted => Failure::new(Exit::Interrupted, "interrupted; no token was sent"),
        _ => Failure::new(Exit::Failed, "the token was not read").because(error.to_string()),
    };
    if io::stdin().is_terminal() {
        return ask(origin).map_err(failed);
    }
    let mut token = String::new();
    io::stdin().lock().take(MAX_INPUT).read_to_string(&mut token).map_err(failed)?;
    Ok(token)
}

fn ask(origin: &str) -> io::Result<String> {
    // Ctrl-C is an error then, and not an end that leaves the terminal as it is.
    let _caught = signal(SignalKind::interrupt())?;
    let _hidden = Hidden::new()?;
    rpassword::prompt_password(format!("Token for {origin}: "))
}

/// The terminal as it shows nothing of what is typed, until this is dropped.
///
/// `rpassword` hides what is typed only after it has asked, so that a fast hand or a paste could still be seen.
struct Hidden {
    terminal: File,
    before: Termios,
}

impl Hidden {
    fn new() -> io::Result<Self> {
        // What `rpassword` reads, too: standard input may be another terminal.
        let terminal = File::open("/dev/tty")?;
        let before = tcgetattr(&terminal)?;
        let mut modes = before.clone();
        modes.local_modes -= LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG;
        // What was typed before it was asked for has been shown, and is forgotten.
        tcsetattr(&terminal, OptionalActions::Flush, &modes)?;
        Ok(Hidden { terminal, before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(&self.terminal, OptionalActions::Now, &self.before) {
            eprintln!("The terminal may not show what you type ({error}); `stty sane` mends that.");
        }
    }
}
