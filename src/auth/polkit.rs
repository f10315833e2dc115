//! [`Polkit`]: asks polkit on the system bus. Whatever keeps it from answering is a refusal.
//!
//! The subject is the calling process by its pidfd, which is exact. polkit before 124 knows no pidfds (it says so, or
//! finds the process id missing): then the process is named by id and start time, read while the pidfd says that it is
//! still the same one. The user is never asked for a password: a daemon cannot know whether anybody is looking.

use std::{
    collections::HashMap,
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::Mutex;
use zbus::{Connection, fdo::DBusProxy};
use zbus_polkit::policykit1::{AuthorityProxy, AuthorizationResult, CheckAuthorizationFlags, Subject};

use super::{Action, Authorizer, Caller, Refusal};

/// The name polkit has on the bus.
const POLKIT: &str = "org.freedesktop.PolicyKit1";

/// How long polkit may take. A rule may run a program; one that takes longer is broken, and the caller waits for it.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// Where the bus is.
#[derive(Clone, Debug)]
enum Bus {
    System,
    At(String),
}

/// Asks polkit.
pub struct Polkit {
    bus: Bus,
    deadline: Duration,
    connection: Mutex<Option<Connection>>,
    /// Set once polkit has shown that it does not know pidfds.
    by_pid: AtomicBool,
}

impl Polkit {
    /// Over the system bus, connected to at the first question.
    pub fn on_system_bus() -> Polkit {
        Polkit::new(Bus::System, DEADLINE)
    }

    /// Over the bus at a D-Bus address.
    pub fn on_bus(address: &str, deadline: Duration) -> Polkit {
        Polkit::new(Bus::At(address.to_owned()), deadline)
    }

    fn new(bus: Bus, deadline: Duration) -> Polkit {
        Polkit { bus, deadline, connection: Mutex::new(None), by_pid: AtomicBool::new(false) }
    }

    async fn check(&self, caller: &Caller, action: Action) -> Result<bool, String> {
        let connection = self.connection().await?;
        let authority = AuthorityProxy::builder(&connection)
            // Caching would subscribe to signals for properties that nobody reads.
            .cache_properties(zbus::proxy::CacheProperties::No)
            .build()
            .await
            .map_err(|error| error.to_string())?;
        if !self.by_pid.load(Ordering::Relaxed)
            && let Some(pidfd) = &caller.peer.pidfd
        {
            let subject =
                Subject::new_for_owner(pidfd.as_fd(), caller.uid()).map_err(|error| error.to_string())?;
            match ask(&authority, &subject, action).await {
                Err(error) if knows_no_pidfd(&error) => {
                    tracing::debug!(%error, "polkit does not know pidfds; callers are named by process id");
                    self.by_pid.store(true, Ordering::Relaxed);
                }
                answer => return self.settle(answer).await,
            }
        }
        let subject = Subject::new_for_pid(caller.peer.pid, None, Some(caller.uid()))
            .map_err(|error| error.to_string())?;
        if caller.peer.has_ended() {
            return Err("the calling process has ended".to_owned());
        }
        self.settle(ask(&authority, &subject, action).await).await
    }

    /// Lets go of a connection that failed, so that the next question makes a new one.
    async fn settle(&self, answer: zbus::Result<AuthorizationResult>) -> Result<bool, String> {
        match answer {
            Ok(result) => Ok(result.is_authorized),
            Err(error) => {
                if !matches!(error, zbus::Error::MethodError(..)) {
                    *self.connection.lock().await = None;
                }
                Err(error.to_string())
            }
        }
    }

    async fn connection(&self) -> Result<Connection, String> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = &*kept {
            return Ok(connection.clone());
        }
        let connection = connect(&self.bus).await.map_err(|error| format!("no bus: {error}"))?;
        *kept = Some(connection.clone());
        Ok(connection)
    }
}

async fn connect(bus: &Bus) -> zbus::Result<Connection> {
    match bus {
        Bus::System => Connection::system().await,
        Bus::At(address) => zbus::connection::Builder::address(address.as_str()).build().await,
    }
}

async fn ask(
    authority: &AuthorityProxy<'_>,
    subject: &Subject,
    action: Action,
) -> zbus::Result<AuthorizationResult> {
    let flags = CheckAuthorizationFlags::empty();
    authority.check_authorization(subject, action.polkit_id(), &HashMap::new(), flags, "").await
}

/// Whether an error says that polkit looked for a process id because it does not look for a pidfd.
fn knows_no_pidfd(error: &zbus::Error) -> bool {
    let zbus::Error::MethodError(name, text, _) = error else {
        return false;
    };
    name.as_str() == "org.freedesktop.PolicyKit1.Error.Failed"
        && text.as_deref().is_some_and(|text| text.contains("value for key `pid'"))
}

#[async_trait]
impl Authorizer for Polkit {
    async fn authorize(&self, caller: &Caller, action: Action) -> Result<(), Refusal> {
        if caller.peer.identity.is_root() {
            return Ok(());
        }
        let answer = tokio::time::timeout(self.deadline, self.check(caller, action)).await;
        let answer = answer.unwrap_or_else(|_| {
            Err(format!("polkit did not answer within {}", humantime::format_duration(self.deadline)))
        });
        match answer {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::Denied { action }),
            Err(reason) => {
                tracing::warn!(
                    scorpio_uid = caller.uid(),
                    action = action.polkit_id(),
                    reason,
                    "polkit cannot be asked"
                );
                Err(Refusal::Unavailable { reason })
            }
        }
    }

    fn name(&self) -> &'static str {
        "polkit"
    }
}

/// Whether polkit runs on the system bus or would be started for a question; else why not.
pub async fn is_available() -> Result<(), String> {
    let found = tokio::time::timeout(DEADLINE, find(&Bus::System)).await;
    found.unwrap_or_else(|_| Err("the system bus does not answer".to_owned()))
}

async fn find(bus: &Bus) -> Result<(), String> {
    let say = |error: &dyn std::fmt::Display| error.to_string();
    let connection = connect(bus).await.map_err(|error| say(&error))?;
    let bus = DBusProxy::new(&connection).await.map_err(|error| say(&error))?;
    let name = POLKIT.try_into().map_err(|error: zbus::Error| say(&error))?;
    if bus.name_has_owner(name).await.map_err(|error| say(&error))? {
        return Ok(());
    }
    let activatable = bus.list_activatable_names().await.map_err(|error| say(&error))?;
    if activatable.iter().any(|name| name.as_str() == POLKIT) {
        return Ok(());
    }
    Err(format!("{POLKIT} is not on the system bus"))
}
