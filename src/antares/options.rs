//! What a user may ask for, checked before anything is done. Pure.

use std::{os::unix::ffi::OsStrExt, path::Path, time::Duration};

use super::{Create, Options, WorkspaceError};
use crate::engine::{MountError, PointFault};

/// Enough to tag a workspace with job, branch, team; a record stays small.
const MAX_LABELS: usize = 16;
/// Longest label key or value, in bytes.
const MAX_LABEL_BYTES: usize = 128;
/// Longest revision, in bytes: git's own reference names end at PATH_MAX, real ones far below this.
const MAX_REV_BYTES: usize = 1024;
/// PATH_MAX: no system call takes a longer path.
const MAX_PATH_BYTES: usize = 4096;
/// Mode of a mount's root directory unless asked otherwise: nobody else looks in.
pub(super) const DEFAULT_MODE: u32 = 0o700;

/// Says what is wrong with a request, or gives it back in the form that is kept.
pub(super) fn check(request: Create, max_ttl: Duration) -> Result<Create, WorkspaceError> {
    check_rev(request.rev.as_deref())?;
    check_point(&request.mount_point)?;
    let options = check_options(request.options, max_ttl)?;
    Ok(Create { options, ..request })
}

fn check_options(options: Options, max_ttl: Duration) -> Result<Options, WorkspaceError> {
    check_labels(&options)?;
    check_mode(options.mode.unwrap_or(DEFAULT_MODE))?;
    let ttl = options.ttl.map(|ttl| Duration::from_secs(ttl.as_secs()));
    match ttl {
        Some(ttl) if ttl.is_zero() => bad("the time to live is shorter than one second".to_owned()),
        Some(ttl) if ttl > max_ttl => {
            bad(format!("the time to live is longer than {}", humantime::format_duration(max_ttl)))
        }
        _ => Ok(Options { ttl, ..options }),
    }
}

fn check_labels(options: &Options) -> Result<(), WorkspaceError> {
    if options.labels.len() > MAX_LABELS {
        return bad(format!(
            "there are {} labels, and no more than {MAX_LABELS} are kept",
            options.labels.len()
        ));
    }
    for (key, value) in &options.labels {
        let shown = key.escape_debug().take(80).collect::<String>();
        if key.is_empty() {
            return bad("a label has an empty key".to_owned());
        }
        if key.len() > MAX_LABEL_BYTES || value.len() > MAX_LABEL_BYTES {
            return bad(format!("label `{shown}` is longer than {MAX_LABEL_BYTES} bytes"));
        }
        if key.chars().chain(value.chars()).any(char::is_control) {
            return bad(format!("label `{shown}` contains a control character"));
        }
    }
    Ok(())
}

fn check_mode(mode: u32) -> Result<(), WorkspaceError> {
    if mode & !0o777 != 0 {
        return bad(format!("mode {mode:04o} has bits beyond 0777"));
    }
    if mode & 0o700 != 0o700 {
        return bad(format!("mode {mode:04o} would lock the owner out of the workspace"));
    }
    Ok(())
}

fn check_rev(rev: Option<&str>) -> Result<(), WorkspaceError> {
    match rev {
        Some(rev) if rev.len() > MAX_REV_BYTES => {
            bad(format!("the revision is longer than {MAX_REV_BYTES} bytes"))
        }
        Some(rev) if rev.chars().any(char::is_control) => {
            bad("the revision contains a control character".to_owned())
        }
        _ => Ok(()),
    }
}

/// Only what keeps the record bounded; the engine judges mount points.
pub(super) fn check_point(path: &Path) -> Result<(), WorkspaceError> {
    if path.as_os_str().len() <= MAX_PATH_BYTES && !path.as_os_str().as_bytes().contains(&0) {
        return Ok(());
    }
    let start: String = path.to_string_lossy().chars().take(80).collect();
    Err(WorkspaceError::Mount(MountError::Point {
        path: start.into(),
        fault: PointFault::Malformed,
        reason: format!("it is longer than {MAX_PATH_BYTES} bytes or contains a NUL byte"),
    }))
}

fn bad<T>(reason: String) -> Result<T, WorkspaceError> {
    Err(WorkspaceError::BadOption(reason))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const MAX_TTL: Duration = Duration::from_secs(1000);

    fn with(change: impl FnOnce(&mut Create)) -> Result<Create, String> {
        let mut request = Create {
            origin: "o".parse().unwrap(),
            rev: None,
            path: "".parse().unwrap(),
            mount_point: "/home/a/w".into(),
            options: Options::default(),
        };
        change(&mut request);
        check(request, MAX_TTL).map_err(|error| error.to_string())
    }

    fn labels(count: usize, key: &str, value: &str) -> Result<Create, String> {
        let labels: BTreeMap<String, String> = (0..count)
            .map(|n| (if n == 0 { key.to_owned() } else { format!("k{n}") }, value.to_owned()))
            .collect();
        with(|request| request.options.labels = labels)
    }

    #[test]
    fn labels_within_the_bounds_are_taken() {
        for (count, key, value) in [
            (0, "", ""),
            (1, "k", ""),
            (16, "k", "v"),
            (1, &"k".repeat(128), &"v".repeat(128)),
            (1, "job/name", "Größe 7 = ok"),
        ] {
            assert!(labels(count, key, value).is_ok(), "{count} {key:?} {value:?}");
        }
    }

    #[test]
    fn labels_beyond_the_bounds_are_refused_with_the_reason() {
        for (count, key, value, reason) in [
            (17, "k", "v", "there are 17 labels, and no more than 16 are kept"),
            (1, "", "v", "a label has an empty key"),
            (1, &"k".repeat(129), "v", &format!("label `{}` is longer than 128 bytes", "k".repeat(80))),
            (1, "k", &"v".repeat(129), "label `k` is longer than 128 bytes"),
            (1, "k", &"é".repeat(65), "label `k` is longer than 128 bytes"),
            (1, "k\n", "v", "label `k\\n` contains a control character"),
            (1, "k", "a\0b", "label `k` contains a control character"),
            (1, "k", "\u{7f}", "label `k` contains a control character"),
            (1, "k", "\u{85}", "label `k` contains a control character"),
        ] {
            assert_eq!(labels(count, key, value).unwrap_err(), reason);
        }
    }

    #[test]
    fn modes_keep_the_owner_in_and_special_bits_out() {
        for mode in [0o700, 0o755, 0o777, 0o750] {
            assert!(with(|request| request.options.mode = Some(mode)).is_ok(), "{mode:o}");
        }
        for (mode, reason) in [
            (0o000, "mode 0000 would lock the owner out of the workspace"),
            (0o077, "mode 0077 would lock the owner out of the workspace"),
            (0o600, "mode 0600 would lock the owner out of the workspace"),
            (0o1777, "mode 1777 has bits beyond 0777"),
            (0o4755, "mode 4755 has bits beyond 0777"),
            (u32::MAX, "mode 37777777777 has bits beyond 0777"),
        ] {
            assert_eq!(with(|request| request.options.mode = Some(mode)).unwrap_err(), reason);
        }
    }

    #[test]
    fn times_to_live_are_whole_seconds_within_the_limit() {
        let ttl = |ttl| with(|request| request.options.ttl = Some(ttl));
        assert_eq!(ttl(Duration::from_millis(1500)).unwrap().options.ttl, Some(Duration::from_secs(1)));
        assert!(ttl(MAX_TTL).is_ok());
        let short = "the time to live is shorter than one second";
        assert_eq!(ttl(Duration::ZERO).unwrap_err(), short);
        assert_eq!(ttl(Duration::from_millis(999)).unwrap_err(), short);
        assert_eq!(
            ttl(MAX_TTL + Duration::from_secs(1)).unwrap_err(),
            "the time to live is longer than 16m 40s"
        );
    }

    #[test]
    fn endless_revisions_and_paths_are_refused() {
        assert!(with(|request| request.rev = Some("r".repeat(1024))).is_ok());
        assert!(with(|request| request.rev = Some("r".repeat(1025))).is_err());
        assert!(with(|request| request.rev = Some("a\nb".into())).is_err());
        assert!(with(|request| request.mount_point = format!("/{}", "p".repeat(4095)).into()).is_ok());
        assert!(with(|request| request.mount_point = format!("/{}", "p".repeat(4096)).into()).is_err());
    }
}
