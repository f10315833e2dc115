//! `scorpioctl origins`: what may be mounted.

use super::{Session, exit::Exit, failure::Failure, text::columns};
use crate::api::{OriginView, method};

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
    columns(&["NAME", "KIND"], origins.iter().map(|origin| vec![origin.name.clone(), origin.kind.clone()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_listed() {
        let origin = |name: &str| OriginView { name: name.into(), kind: "git".into() };
        assert_eq!(table(&[origin("linux"), origin("web")]), "NAME   KIND\nlinux  git\nweb    git");
    }
}
