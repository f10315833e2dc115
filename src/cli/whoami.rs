//! `scorpioctl whoami`: who the daemon takes the caller for.

use super::{Session, exit::Exit, failure::Failure, text::plain};
use crate::api::{WhoAmI, method};

/// Runs the verb.
pub(crate) async fn run(session: &Session) -> Result<Exit, Failure> {
    let daemon = session.daemon();
    let who: WhoAmI = daemon.ask(method::WHO_AM_I).await?;
    session.screen.data(&who, text)?;
    Ok(Exit::Ok)
}

fn text(who: &WhoAmI) -> String {
    let may = |yes: bool| if yes { "may" } else { "may not" };
    let name = who.user.as_deref().map_or_else(|| "a user without a name".to_owned(), plain);
    format!(
        "You are {name} (uid {}, gid {}).\nYou {} mount workspaces.\nYou {} manage the workspaces of others.\nYou {} give workspaces to others.",
        who.uid,
        who.gid,
        may(who.may_mount),
        may(who.may_manage_others),
        may(who.may_give)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_told_in_sentences() {
        let alice = WhoAmI {
            uid: 1000,
            gid: 100,
            pid: 7,
            user: Some("alice".into()),
            may_mount: true,
            may_manage_others: false,
            may_give: false,
        };
        assert_eq!(
            text(&alice),
            "You are alice (uid 1000, gid 100).\n\
             You may mount workspaces.\n\
             You may not manage the workspaces of others.\n\
             You may not give workspaces to others."
        );
    }
}
