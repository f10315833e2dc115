//! `scorpioctl doctor`: is this host fit, does the daemon work, what is wrong, what to do.
//!
//! No check touches a mount: a stuck mount must not stop the tool that finds it. What is known of mounts comes from
//! mountinfo, the kernel's FUSE counters and the daemon's own account.
//!
//! - [`host`]: kernel, file systems, namespace
//! - [`service`]: socket, versions, rights, what the daemon says, systemd's view
//! - [`mounts`]: requests that wait, mounts that are missing

mod host;
mod mounts;
mod service;

use std::time::Duration;

use serde::Serialize;

use super::{
    Session,
    exit::Exit,
    failure::Failure,
    screen::{Screen, Tone},
    text::plain,
};

/// How long the daemon or systemd may take for one answer; both answer in milliseconds when they are well.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// As it should be.
    Ok,
    /// It works, but someone should look.
    Warn,
    /// It does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    outcome: Outcome,
    says: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Check {
    fn ok(name: &'static str, says: impl Into<String>) -> Check {
        Check { name, outcome: Outcome::Ok, says: says.into(), advice: None }
    }

    fn warn(name: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Check {
        Check { name, outcome: Outcome::Warn, says: says.into(), advice: Some(advice.into()) }
    }

    fn fail(name: &'static str, says: impl Into<String>, advice: impl Into<String>) -> Check {
        Check { name, outcome: Outcome::Fail, says: says.into(), advice: Some(advice.into()) }
    }
}

/// Runs the verb. Ends with 1 when a check fails.
pub(crate) async fn run(session: &Session) -> Result<Exit, Failure> {
    let mut checks = host::checks();
    checks.extend(service::unit().await);
    let (of_daemon, workspaces) = service::checks(session).await;
    checks.extend(of_daemon);
    checks.extend(mounts::checks(workspaces.as_deref()).await);
    session.screen.data(&checks, |checks| text(checks, &session.screen))?;
    let failed = checks.iter().any(|check| check.outcome == Outcome::Fail);
    Ok(if failed { Exit::Failed } else { Exit::Ok })
}

fn text(checks: &[Check], screen: &Screen) -> String {
    let lines = checks.iter().flat_map(|check| {
        let (word, tone) = match check.outcome {
            Outcome::Ok => ("ok  ", Tone::Good),
            Outcome::Warn => ("warn", Tone::Warning),
            Outcome::Fail => ("fail", Tone::Bad),
        };
        let found = format!("{}  {}: {}", screen.tone(word, tone), check.name, plain(&check.says));
        let advice = check.advice.as_ref().map(|advice| format!("      try: {}", plain(advice)));
        [Some(found), advice]
    });
    let mut lines: Vec<_> = lines.flatten().collect();
    lines.push(summary(checks));
    lines.join("\n")
}

fn summary(checks: &[Check]) -> String {
    let count = |outcome| checks.iter().filter(|check| check.outcome == outcome).count();
    match (count(Outcome::Fail), count(Outcome::Warn)) {
        (0, 0) => "All is well.".to_owned(),
        (failed, warned) => format!("{} checks: {failed} failed, {warned} warned.", checks.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::screen::Color;

    #[test]
    fn each_check_says_what_was_found_and_what_to_do() {
        let screen = Screen::new(false, false, false, Color::Never, false);
        let checks = [
            Check::ok("kernel", "6.18.0 has all that is used"),
            Check::warn("rights", "you may not mount workspaces", "ask an administrator"),
            Check::fail("fuse", "there is no /dev/fuse", "modprobe fuse"),
        ];
        assert_eq!(
            text(&checks, &screen),
            "ok    kernel: 6.18.0 has all that is used\n\
             warn  rights: you may not mount workspaces\n\
             \x20     try: ask an administrator\n\
             fail  fuse: there is no /dev/fuse\n\
             \x20     try: modprobe fuse\n\
             3 checks: 1 failed, 1 warned."
        );
        assert!(text(&checks[..1], &screen).ends_with("All is well."));
        assert_eq!(
            serde_json::to_string(&checks[2]).unwrap(),
            r#"{"name":"fuse","outcome":"fail","says":"there is no /dev/fuse","advice":"modprobe fuse"}"#
        );
    }
}
