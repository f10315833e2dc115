//! `scorpioctl health`: how the daemon says it is.

use std::time::Duration;

use super::{
    Session,
    exit::Exit,
    failure::Failure,
    text::{fields, plain},
};
use crate::api::{Health, method};

/// Runs the verb. Ends with 1 when something is wrong.
pub(crate) async fn run(session: &Session) -> Result<Exit, Failure> {
    let daemon = session.daemon();
    let health: Health = daemon.ask(method::HEALTH).await?;
    session.screen.data(&health, text)?;
    Ok(if health.problems.is_empty() { Exit::Ok } else { Exit::Failed })
}

fn text(health: &Health) -> String {
    let workspaces: Vec<_> =
        health.workspaces.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let none = || "none".to_owned();
    let mut pairs = vec![
        ("Version", health.version.clone()),
        ("Process", health.pid.to_string()),
        ("Up for", humantime::format_duration(Duration::from_secs(health.uptime_s)).to_string()),
        ("Lower", health.lower.clone()),
        ("Authorizer", health.authorizer.clone()),
        ("Workspaces", if workspaces.is_empty() { none() } else { workspaces.join(", ") }),
    ];
    if health.draining {
        let since = health.drained_since.as_ref().map(|since| format!(" since {since}"));
        pairs.push(("Draining", format!("no new mounts{}", since.unwrap_or_default())));
    }
    let problems = health.problems.len();
    pairs.push(("Problems", if problems == 0 { none() } else { problems.to_string() }));
    let mut text = fields(&pairs);
    for problem in &health.problems {
        text.push_str("\n  - ");
        text.push_str(&plain(problem));
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A daemon that is well.
    pub(crate) fn health() -> Health {
        Health {
            version: "0.1.0".into(),
            pid: 812,
            uptime_s: 3_723,
            lower: "shared".into(),
            authorizer: "polkit".into(),
            workspaces: [("mounted".into(), 2), ("unmounted".into(), 1)].into(),
            draining: false,
            drained_since: None,
            problems: Vec::new(),
        }
    }

    #[test]
    fn problems_are_listed_as_sentences() {
        let ill = Health { problems: vec!["Origin `linux` does not answer.".into()], ..health() };
        assert_eq!(
            text(&ill),
            "Version:    0.1.0\n\
             Process:    812\n\
             Up for:     1h 2m 3s\n\
             Lower:      shared\n\
             Authorizer: polkit\n\
             Workspaces: 2 mounted, 1 unmounted\n\
             Problems:   1\n  - Origin `linux` does not answer."
        );
        assert!(text(&health()).ends_with("Problems:   none"));
        let since = Some("2026-01-02T03:04:05Z".to_owned());
        let drained = Health { draining: true, drained_since: since, ..health() };
        let end = "\nDraining:   no new mounts since 2026-01-02T03:04:05Z\nProblems:   none";
        assert!(text(&drained).ends_with(end));
    }
}
