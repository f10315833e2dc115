//! Parameters → what the layers below understand. Pure; everything a caller sent is checked here or refused below.

use std::{path::PathBuf, str::FromStr, time::Duration};

use super::failure::Failure;
use crate::{
    antares::{Create, Options, WorkspaceError},
    api::{CreateWorkspace, SetLogLevel},
    engine::{MountError, PointFault},
    types::{OriginName, RepoPath, WorkspaceId},
};

/// Longest revision, in bytes: git's own names fit many times over.
const REV_MAX: usize = 1024;
/// Longest name of an account, in bytes: LOGIN_NAME_MAX.
const USER_MAX: usize = 256;

/// Longest list of filters, in bytes.
const LEVEL_MAX: usize = 256;
/// How long another log level lasts unless asked otherwise.
const LEVEL_FOR: Duration = Duration::from_secs(600);
/// The longest: whoever looks into something for days writes the level into the configuration.
const LEVEL_LONGEST: Duration = Duration::from_secs(86_400);

/// The id of a workspace. Text that cannot be one is an unknown workspace of the caller's own making.
pub(super) fn workspace_id(text: &str) -> Result<WorkspaceId, Failure> {
    WorkspaceId::from_str(text).map_err(|error| Failure::BadParameter(error.to_string()))
}

/// What `workspace.create` asks for.
pub(super) fn create(params: CreateWorkspace) -> Result<Create, Failure> {
    let bad = |what: &str, error: &dyn std::fmt::Display| Failure::BadParameter(format!("`{what}`: {error}"));
    Ok(Create {
        origin: origin(&params.origin)?,
        rev: params.rev.map(revision).transpose()?,
        path: RepoPath::from_str(&params.path).map_err(|error| bad("path", &error))?,
        mount_point: mount_point(params.mount_point)?,
        options: Options {
            ephemeral: params.ephemeral,
            read_only: params.read_only,
            labels: params.labels,
            ttl: params.ttl_s.map(ttl).transpose()?,
            mode: params.mode.as_deref().map(mode).transpose()?,
        },
    })
}

/// The name of an origin. Names of single users' views of it are ours alone.
pub(super) fn origin(text: &str) -> Result<OriginName, Failure> {
    let bad = |error: &dyn std::fmt::Display| Failure::BadParameter(format!("`origin`: {error}"));
    match OriginName::from_str(text) {
        Ok(name) if name.user().is_none() => Ok(name),
        Ok(_) => Err(bad(&"an origin's name has no `+`")),
        Err(error) => Err(bad(&error)),
    }
}

/// Who gets something: what can be the name of an account, or its number.
pub(super) fn user(text: String) -> Result<String, Failure> {
    if text.is_empty() || text.len() > USER_MAX || text.chars().any(char::is_control) {
        let refused = format!("`user`: a user has 1 to {USER_MAX} bytes and no control characters");
        return Err(Failure::BadParameter(refused));
    }
    Ok(text)
}

/// Which level for how long; nothing for the configuration's. Whether it is one is found out later.
pub(super) fn log_level(params: SetLogLevel) -> Result<Option<(String, Duration)>, Failure> {
    let bad = |reason: &str| Failure::BadParameter(reason.to_owned());
    let time = params.for_s.map(Duration::from_secs);
    if time.is_some_and(|time| time.is_zero() || time > LEVEL_LONGEST) {
        return Err(bad("`for_s`: a log level is changed for 1 to 86400 seconds"));
    }
    match (params.level, time) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(bad("`for_s`: there is no `level` to which it belongs")),
        (Some(level), _) if level.len() > LEVEL_MAX || level.chars().any(char::is_control) => {
            Err(bad("`level`: a log level has at most 256 bytes and no control characters"))
        }
        (Some(level), time) => Ok(Some((level, time.unwrap_or(LEVEL_FOR)))),
    }
}

/// A path that can at all be a mount point; what is there is looked at with the caller's rights, later.
pub(super) fn mount_point(text: String) -> Result<PathBuf, Failure> {
    let fault = if !text.starts_with('/') {
        Some((PointFault::Relative, "the path is not absolute"))
    } else if text.len() > RepoPath::MAX_BYTES || text.chars().any(char::is_control) {
        Some((PointFault::Malformed, "the path is too long or has control characters"))
    } else {
        None
    };
    let Some((fault, reason)) = fault else {
        return Ok(PathBuf::from(text));
    };
    // An error message is no place for 5,000 bytes or a terminal's control characters.
    let shown: String = text.escape_debug().take(200).collect();
    Err(WorkspaceError::from(MountError::Point { path: shown.into(), fault, reason: reason.to_owned() })
        .into())
}

fn revision(text: String) -> Result<String, Failure> {
    if text.is_empty() || text.len() > REV_MAX || text.chars().any(char::is_control) {
        return Err(Failure::BadParameter(
            "`rev`: a revision has 1 to 1024 bytes and no control characters".to_owned(),
        ));
    }
    Ok(text)
}

fn ttl(seconds: u64) -> Result<Duration, Failure> {
    if seconds == 0 {
        return Err(Failure::BadParameter("`ttl_s`: a workspace lives for at least a second".to_owned()));
    }
    Ok(Duration::from_secs(seconds))
}

/// `0755`: three or four octal digits, no setuid, setgid or sticky bit.
fn mode(text: &str) -> Result<u32, Failure> {
    let octal = matches!(text.len(), 3 | 4) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    match u32::from_str_radix(text, 8) {
        Ok(bits) if octal && bits <= 0o777 => Ok(bits),
        _ => Err(Failure::BadParameter(
            "`mode`: permission bits are octal text between \"0000\" and \"0777\"".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ErrorKind;

    fn asked() -> CreateWorkspace {
        serde_json::from_value(serde_json::json!({"origin": "linux", "mount_point": "/home/alice/l"}))
            .unwrap()
    }

    #[test]
    fn a_whole_request_is_carried_over() {
        let request = create(CreateWorkspace {
            path: "drivers/net".to_owned(),
            rev: Some("v6.1".to_owned()),
            ephemeral: true,
            ttl_s: Some(60),
            mode: Some("0750".to_owned()),
            labels: [("ci".to_owned(), "7".to_owned())].into(),
            ..asked()
        })
        .unwrap();
        assert_eq!(request.origin.as_str(), "linux");
        assert_eq!(request.path.to_string(), "/drivers/net");
        assert_eq!(request.rev.as_deref(), Some("v6.1"));
        assert_eq!(request.mount_point, PathBuf::from("/home/alice/l"));
        assert_eq!(request.options.mode, Some(0o750));
        assert_eq!(request.options.ttl, Some(Duration::from_secs(60)));
        assert!(request.options.ephemeral && !request.options.read_only);
        assert_eq!(request.options.labels["ci"], "7");
    }

    #[test]
    fn a_log_level_lasts_for_a_bounded_time() {
        let asked =
            |level: Option<&str>, for_s| log_level(SetLogLevel { level: level.map(str::to_owned), for_s });
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        assert_eq!(asked(Some("debug"), None).unwrap(), Some(("debug".to_owned(), minutes(10))));
        assert_eq!(asked(Some("debug"), Some(86_400)).unwrap(), Some(("debug".to_owned(), minutes(1440))));
        assert_eq!(asked(None, None).unwrap(), None);
        for (level, for_s) in [
            (Some("debug"), Some(0)),
            (Some("debug"), Some(86_401)),
            (None, Some(1)),
            (Some("a\nb"), None),
            (Some(&*"x".repeat(257)), None),
        ] {
            assert_eq!(asked(level, for_s).unwrap_err().explain().kind, ErrorKind::BadParameter, "{level:?}");
        }
    }

    #[test]
    fn a_user_is_a_short_word() {
        for good in ["alice", "1000", "domain\\alice", &"x".repeat(256)] {
            assert_eq!(user(good.to_owned()).unwrap(), good);
        }
        for bad in ["", "a\nb", "a\0b", &"x".repeat(257)] {
            assert_eq!(user(bad.to_owned()).unwrap_err().explain().kind, ErrorKind::BadParameter, "{bad:?}");
        }
    }

    #[test]
    fn senseless_parameters_are_refused_by_kind() {
        let cases: Vec<(CreateWorkspace, ErrorKind)> = vec![
            (CreateWorkspace { origin: "Linux/..".into(), ..asked() }, ErrorKind::BadParameter),
            (CreateWorkspace { origin: "linux+1000".into(), ..asked() }, ErrorKind::BadParameter),
            (CreateWorkspace { path: "a/../b".into(), ..asked() }, ErrorKind::BadParameter),
            (CreateWorkspace { rev: Some(String::new()), ..asked() }, ErrorKind::BadParameter),
            (CreateWorkspace { rev: Some("a\nb".into()), ..asked() }, ErrorKind::BadParameter),
            (CreateWorkspace { rev: Some("x".repeat(1025)), ..asked() }, ErrorKind::BadParameter),
            (CreateWorkspace { ttl_s: Some(0), ..asked() }, ErrorKind::BadParameter),
            (CreateWorkspace { mode: Some("4755".into()), ..asked() }, ErrorKind::BadParameter),
            (CreateWorkspace { mode: Some("0x1ff".into()), ..asked() }, ErrorKind::BadParameter),
            (CreateWorkspace { mode: Some("+755".into()), ..asked() }, ErrorKind::BadParameter),
            (CreateWorkspace { mode: Some("0799".into()), ..asked() }, ErrorKind::BadParameter),
            (CreateWorkspace { mount_point: "home".into(), ..asked() }, ErrorKind::BadMountPoint),
            (CreateWorkspace { mount_point: String::new(), ..asked() }, ErrorKind::BadMountPoint),
            (CreateWorkspace { mount_point: "/a\nb".into(), ..asked() }, ErrorKind::BadMountPoint),
            (CreateWorkspace { mount_point: "/a\0b".into(), ..asked() }, ErrorKind::BadMountPoint),
            (CreateWorkspace { mount_point: "/".repeat(5000), ..asked() }, ErrorKind::BadMountPoint),
        ];
        for (params, kind) in cases {
            let shown = format!("{params:?}");
            assert_eq!(create(params).unwrap_err().explain().kind, kind, "{shown}");
        }
    }
}
