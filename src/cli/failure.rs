//! [`Failure`]: what a person, or with `--json` a program, is told when something did not work: what, why, what to do.

use std::{io, path::Path};

use serde::Serialize;

use super::{exit::Exit, text::plain};
use crate::api::{ErrorData, ErrorKind};

/// Why a verb ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How `scorpioctl` ends.
    pub exit: Exit,
    /// What failed, on what: a sentence.
    pub what: String,
    /// Why, where more is known.
    pub why: Option<String>,
    /// What to do next.
    pub hint: Option<String>,
    /// The daemon's kind of error, where it was the daemon that said no.
    pub kind: Option<ErrorKind>,
    /// Finds the request in the journal.
    pub request_id: Option<String>,
}

#[derive(Serialize)]
struct AsJson<'a> {
    error: Fields<'a>,
}

#[derive(Serialize)]
struct Fields<'a> {
    exit: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<ErrorKind>,
    what: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

impl Failure {
    /// `what` failed.
    pub fn new(exit: Exit, what: impl Into<String>) -> Failure {
        Failure { exit, what: what.into(), why: None, hint: None, kind: None, request_id: None }
    }

    /// With a reason.
    pub fn because(mut self, why: impl Into<String>) -> Failure {
        self.why = Some(why.into());
        self
    }

    /// With advice.
    pub fn try_this(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// The daemon said no.
    pub fn refused(message: &str, data: ErrorData) -> Failure {
        let hint = data.hint.or_else(|| default_hint(data.kind).map(str::to_owned));
        Failure {
            exit: data.kind.into(),
            what: message.to_owned(),
            why: None,
            hint,
            kind: Some(data.kind),
            request_id: Some(data.request_id).filter(|id| !id.is_empty()),
        }
    }

    /// Lines for a person, without colours.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![plain(&self.what)];
        lines.extend(self.why.as_deref().map(|why| format!("  why: {}", plain(why))));
        lines.extend(self.hint.as_deref().map(|hint| format!("  try: {}", plain(hint))));
        if let Some(id) = self.request_id.as_deref().map(plain) {
            lines.push(format!("  request {id} (journalctl SCORPIO_REQUEST_ID={id})"));
        }
        lines
    }

    /// One JSON object for a program.
    pub fn json(&self) -> String {
        let error = Fields {
            exit: self.exit.code(),
            kind: self.kind,
            what: &self.what,
            why: self.why.as_deref(),
            hint: self.hint.as_deref(),
            request_id: self.request_id.as_deref(),
        };
        serde_json::to_string(&AsJson { error }).expect("text and numbers can be written as JSON")
    }
}

/// A failure of the local file system.
pub(crate) fn io_failure<'a>(action: &'a str, path: &'a Path) -> impl Fn(io::Error) -> Failure + 'a {
    move |error| {
        let exit = match error.kind() {
            io::ErrorKind::NotFound => Exit::NotFound,
            io::ErrorKind::PermissionDenied => Exit::NotAuthorised,
            _ => Exit::Failed,
        };
        Failure::new(exit, format!("cannot {action} {}", path.display())).because(error.to_string())
    }
}

/// What usually helps, where the daemon gave no advice of its own.
fn default_hint(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::NoSuchOrigin => "scorpioctl origins lists what you may mount",
        ErrorKind::NoSuchWorkspace => "scorpioctl list shows your workspaces",
        ErrorKind::NotAuthorised => "scorpioctl whoami shows your rights; an administrator can widen them",
        ErrorKind::LimitReached => "scorpioctl list shows what you have; remove what you do not need",
        ErrorKind::Busy => "end the processes that use it, or add --lazy",
        ErrorKind::UnsavedChanges => "scorpioctl export saves them; --discard throws them away",
        ErrorKind::OriginUnavailable => "try again later; what is cached works meanwhile",
        ErrorKind::OriginDenied => "scorpioctl origins shows which origins need a login",
        ErrorKind::ForeignNamespace => "run scorpioctl outside of the container or sandbox",
        ErrorKind::Stopping => "try again in a moment",
        ErrorKind::Draining => "mount it on another host, or ask the administrator of this one",
        ErrorKind::Internal => "scorpioctl doctor checks this host; scorpioctl logs shows the journal",
        ErrorKind::BadParameter
        | ErrorKind::BadMountPoint
        | ErrorKind::NoSuchRevision
        | ErrorKind::NoSuchPath
        | ErrorKind::WrongState => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy() -> Failure {
        Failure::refused(
            "workspace abcdefghijkm is in use by bash (812)",
            ErrorData {
                kind: ErrorKind::Busy,
                hint: None,
                path: None,
                action: None,
                request_id: "r-17".into(),
                retryable: true,
            },
        )
    }

    #[test]
    fn a_person_reads_what_to_do_and_where_to_look() {
        assert_eq!(
            busy().lines(),
            [
                "workspace abcdefghijkm is in use by bash (812)",
                "  try: end the processes that use it, or add --lazy",
                "  request r-17 (journalctl SCORPIO_REQUEST_ID=r-17)",
            ]
        );
        assert_eq!(busy().exit, Exit::Conflict);
    }

    #[test]
    fn a_program_reads_one_object() {
        assert_eq!(
            busy().json(),
            r#"{"error":{"exit":6,"kind":"Busy","what":"workspace abcdefghijkm is in use by bash (812)","hint":"end the processes that use it, or add --lazy","request_id":"r-17"}}"#
        );
    }

    #[test]
    fn no_escape_sequence_reaches_the_terminal() {
        let failure = Failure::new(Exit::Failed, "path \u{1b}[2J\n and \u{202e}more");
        assert_eq!(failure.lines(), ["path \\u{1b}[2J\\n and \\u{202e}more"]);
    }
}
