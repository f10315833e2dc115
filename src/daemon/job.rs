//! Stop or restart? systemd sends the same SIGTERM for both, and says which only when asked.

use std::time::Duration;

use zbus::{Connection, OwnedObjectPath};

/// PID 1 answers in a millisecond, and on a host that is overloaded within seconds. Were it stuck, stopping must not be; with
/// [`super::STOP_PATIENCE`] below the unit's TimeoutStopSec.
const PATIENCE: Duration = Duration::from_secs(6);

/// What ends this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A successor follows at once, so what runs in the mounts must not notice.
    Restart,
    /// The service is to be off.
    Stop,
}

/// Asks the manager which job `unit` has.
///
/// Where nobody can be asked, nobody starts a successor: it is a stop, and mounts are not left behind. A manager that is
/// there and too busy to answer is another thing. To take a restart for a stop would end everybody's work, and throw
/// ephemeral workspaces away; to take a stop for a restart leaves mounts whose sessions systemd closes in a moment: errors for
/// whoever is in them, and the next start mounts them again.
pub async fn ending(unit: &str) -> Ending {
    match tokio::time::timeout(PATIENCE, job_type(unit)).await {
        Ok(Ok(job)) => {
            tracing::debug!(?job, "the unit's job");
            judge(job.as_deref())
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "cannot ask the service manager why it ends this process; taking it for a stop");
            Ending::Stop
        }
        Err(_) => {
            tracing::warn!(
                "the service manager does not say why it ends this process; taking it for a restart"
            );
            Ending::Restart
        }
    }
}

/// What a job of this type means; with none, somebody sent the signal by hand.
fn judge(job: Option<&str>) -> Ending {
    match job {
        Some("restart" | "try-restart") => Ending::Restart,
        _ => Ending::Stop,
    }
}

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    fn get_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
}

#[zbus::proxy(interface = "org.freedesktop.systemd1.Unit", default_service = "org.freedesktop.systemd1")]
trait Unit {
    #[zbus(property)]
    fn job(&self) -> zbus::Result<(u32, OwnedObjectPath)>;
}

#[zbus::proxy(interface = "org.freedesktop.systemd1.Job", default_service = "org.freedesktop.systemd1")]
trait Job {
    #[zbus(property)]
    fn job_type(&self) -> zbus::Result<String>;
}

async fn job_type(unit: &str) -> zbus::Result<Option<String>> {
    let bus = Connection::system().await?;
    let path = ManagerProxy::new(&bus).await?.get_unit(unit).await?;
    let (id, path) = UnitProxy::builder(&bus).path(path).build().await?.job().await?;
    if id == 0 {
        return Ok(None);
    }
    JobProxy::builder(&bus).path(path).build().await?.job_type().await.map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_restart_leaves_mounts_behind() {
        for (job, ending) in [
            (Some("restart"), Ending::Restart),
            (Some("try-restart"), Ending::Restart),
            (Some("stop"), Ending::Stop),
            (Some("start"), Ending::Stop),
            (Some("reload"), Ending::Stop),
            (Some(""), Ending::Stop),
            (None, Ending::Stop),
        ] {
            assert_eq!(judge(job), ending, "{job:?}");
        }
    }
}
