//! Checks of the daemon: systemd's view, the socket, versions, rights, and what it says itself.

use std::{collections::BTreeMap, future::Future, path::Path, time::Duration};

use tokio::{process::Command, time::timeout};

use super::{Check, PATIENCE};
use crate::{
    api::{Health, WhoAmI, WorkspaceView, method},
    cli::{Session, daemon::Daemon, exit::Exit, failure::Failure},
};

/// Present where systemd is process 1.
const SYSTEMD: &str = "/run/systemd/system";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What systemd says of the unit; nothing where there is no systemd.
pub(super) async fn unit() -> Option<Check> {
    const NAME: &str = "unit";
    if !Path::new(SYSTEMD).exists() {
        return None;
    }
    let mut command = Command::new("systemctl");
    command
        .args(["show", "--property=LoadState,ActiveState,SubState,Result", "scorpio.service"])
        .kill_on_drop(true);
    Some(match timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => unit_state(&String::from_utf8_lossy(&output.stdout)),
        Ok(Err(error)) => Check::warn(NAME, format!("systemctl cannot be run: {error}"), "is systemd well?"),
        Err(_) => Check::warn(NAME, "systemctl does not answer", "is systemd well?"),
    })
}

fn unit_state(properties: &str) -> Check {
    const NAME: &str = "unit";
    let get = |name: &str| {
        let value = properties.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default()
    };
    let says = format!("scorpio.service is {} ({})", get("ActiveState"), get("SubState"));
    match (get("LoadState"), get("ActiveState")) {
        ("not-found", _) => Check::warn(
            NAME,
            "scorpio.service is not installed",
            "install the package, or go on with --socket PATH",
        ),
        (_, "active" | "reloading" | "activating") => Check::ok(NAME, says),
        // The socket starts it with the first connection.
        (_, "inactive") => Check::ok(NAME, format!("{says}; the first call starts it")),
        _ => Check::fail(
            NAME,
            format!("{says}, result {}", get("Result")),
            "journalctl -u scorpio.service -e; then: systemctl reset-failed scorpio.socket scorpio.service; systemctl start scorpio.socket scorpio.service",
        ),
    }
}

/// The checks that need the daemon, and its list of workspaces: all of them if we may see them, else our own.
pub(super) async fn checks(session: &Session) -> (Vec<Check>, Option<Vec<WorkspaceView>>) {
    let daemon = session.daemon();
    let health = match patiently(daemon.ask::<Health>(method::HEALTH)).await {
        Ok(health) => health,
        Err(failure) => return (vec![failed("socket", failure)], None),
    };
    let answers = format!("the daemon answers at {}", session.socket.display());
    let mut checks = vec![Check::ok("socket", answers), version(&health.version)];
    checks.extend(problems(&health));
    let who = patiently(daemon.ask::<WhoAmI>(method::WHO_AM_I)).await;
    let sees_all = who.as_ref().is_ok_and(|who| who.may_manage_others);
    checks.push(who.map_or_else(|failure| failed("rights", failure), |who| rights(&who)));
    (checks, list(&daemon, sees_all).await)
}

async fn list(daemon: &Daemon, all: bool) -> Option<Vec<WorkspaceView>> {
    patiently(daemon.workspaces(all, &BTreeMap::new())).await.ok()
}

async fn patiently<T>(answer: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let none = |_| Err(unanswered(PATIENCE));
    timeout(PATIENCE, answer).await.unwrap_or_else(none)
}

fn unanswered(waited: Duration) -> Failure {
    Failure::new(
        Exit::Unreachable,
        format!("the daemon takes connections but did not answer in {} s", waited.as_secs()),
    )
    .try_this("journalctl -u scorpio.service -e; systemd ends and starts a daemon that hangs")
}

fn failed(name: &'static str, failure: Failure) -> Check {
    let why = failure.why.map(|why| format!(": {why}")).unwrap_or_default();
    let hint = failure.hint.unwrap_or_else(|| "scorpioctl logs".to_owned());
    Check::fail(name, format!("{}{why}", failure.what), hint)
}

fn version(daemon: &str) -> Check {
    const NAME: &str = "version";
    if daemon == VERSION {
        return Check::ok(NAME, format!("scorpioctl and scorpiod are both {VERSION}"));
    }
    Check::warn(
        NAME,
        format!("scorpioctl is {VERSION}, scorpiod is {daemon}"),
        "systemctl restart scorpio.service after an upgrade; mounts stay as they are",
    )
}

fn problems(health: &Health) -> Vec<Check> {
    const NAME: &str = "daemon";
    if health.problems.is_empty() {
        let mounted = health.workspaces.get("mounted").copied().unwrap_or_default();
        return vec![Check::ok(NAME, format!("says that it is well, with {mounted} workspaces mounted"))];
    }
    let fail = |problem: &String| Check::fail(NAME, problem.clone(), "scorpioctl logs says more");
    health.problems.iter().map(fail).collect()
}

fn rights(who: &WhoAmI) -> Check {
    const NAME: &str = "rights";
    let user = who.user.clone().unwrap_or_else(|| format!("uid {}", who.uid));
    match (who.may_mount, who.may_manage_others) {
        (true, true) => Check::ok(NAME, format!("{user} may mount, and manage the workspaces of others")),
        (true, false) => Check::ok(NAME, format!("{user} may mount")),
        (false, _) => Check::warn(
            NAME,
            format!("{user} may not mount"),
            "an administrator may allow it: group scorpio, polkit action org.scorpio.mount, or [auth] in scorpio.toml",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;
    use crate::cli::health::tests::health;

    #[test]
    fn a_unit_is_judged_by_its_state() {
        for (load, active, sub, outcome) in [
            ("loaded", "active", "running", Outcome::Ok),
            ("loaded", "inactive", "dead", Outcome::Ok),
            ("loaded", "failed", "failed", Outcome::Fail),
            ("not-found", "inactive", "dead", Outcome::Warn),
        ] {
            let properties =
                format!("LoadState={load}\nActiveState={active}\nSubState={sub}\nResult=exit-code\n");
            assert_eq!(unit_state(&properties).outcome, outcome, "{properties}");
        }
    }

    #[test]
    fn another_version_warns_and_a_problem_fails() {
        assert_eq!(version(VERSION).outcome, Outcome::Ok);
        assert_eq!(version("99.0.0").outcome, Outcome::Warn);
        assert_eq!(problems(&health())[0].says, "says that it is well, with 2 workspaces mounted");
        let ill = Health { problems: vec!["Origin `linux` does not answer.".into()], ..health() };
        assert_eq!(problems(&ill)[0].outcome, Outcome::Fail);
    }

    #[test]
    fn a_user_without_rights_is_told_who_can_help() {
        let who = |may_mount| WhoAmI {
            uid: 1001,
            gid: 1001,
            pid: 1,
            user: None,
            may_mount,
            may_manage_others: false,
            may_give: false,
        };
        assert_eq!(rights(&who(true)), Check::ok("rights", "uid 1001 may mount"));
        assert_eq!(rights(&who(false)).outcome, Outcome::Warn);
    }
}
