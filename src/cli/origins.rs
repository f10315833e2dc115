//! `scorpioctl origins`: what may be mounted.

use super::{Session, exit::Exit, failure::Failure, text::columns};
use crate::api::{OriginView, ReadWith, method};

/// Runs the verb.
pub(crate) async fn run(session: &Session) -> Result<Exit, Failure> {
    let daemon = session.daemon();
    let origins: Vec<OriginView> = daemon.ask(method::ORIGIN_LIST).await?;
    session.screen.data(&origins, |origins| table(origins))?;
    if origins.is_empty() && !session.screen.json {
        session
            .screen
            .note("There are none for you. An administrator adds them: [origin.NAME] in scorpio.toml.");
    }
    Ok(Exit::Ok)
}

fn table(origins: &[OriginView]) -> String {
    let row = |origin: &OriginView| vec![origin.name.clone(), origin.kind.clone(), login(origin).to_owned()];
    columns(&["NAME", "KIND", "LOGIN"], origins.iter().map(row))
}

fn login(origin: &OriginView) -> &'static str {
    match (origin.read_with, origin.logged_in) {
        (ReadWith::Service, _) => "-",
        (ReadWith::User, Some(true)) => "yes",
        (ReadWith::User, _) => "needed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_listed() {
        let origin = |name: &str, read_with, logged_in| OriginView {
            name: name.into(),
            kind: "git".into(),
            read_with,
            logged_in,
        };
        let origins = [
            origin("linux", ReadWith::Service, None),
            origin("mega", ReadWith::User, Some(true)),
            origin("web", ReadWith::User, Some(false)),
        ];
        assert_eq!(
            table(&origins),
            "NAME   KIND  LOGIN\nlinux  git   -\nmega   git   yes\nweb    git   needed"
        );
    }
}
