//! Where the daemon's diary goes: the journal with fields, or standard error.
//!
//! Field names are upper-cased by the journal: `scorpio_workspace` is found as `SCORPIO_WORKSPACE`. An event of a class
//! that an operator may look for carries `message_id = event::…`, which is `MESSAGE_ID` in the journal and has a text in
//! `systemd/scorpio.catalog`. Reads no environment: the caller says what systemd connected standard error to.
//!
//! - [`event`]: the classes of events
//! - [`quota`]: what is held back, so that nobody fills the journal; [`budget`] counts it

mod budget;
pub mod event;
mod quota;

use std::{
    ffi::OsStr,
    io,
    time::{Duration, Instant},
};

use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    field::MakeExt as _,
    fmt::format::{Writer, debug_fn},
    layer::{Layered, SubscriberExt as _},
    reload,
    util::SubscriberInitExt as _,
};

use self::quota::Quota;

/// So often the journal is told how much it was not told. Less often, and an administrator who looks wonders.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// `SYSLOG_IDENTIFIER` of our entries: what `journalctl -t` takes.
const IDENTIFIER: &str = "scorpiod";

/// Keeps hold of the level, and of what is held back.
#[derive(Clone, Debug)]
pub struct Telemetry {
    level: reload::Handle<EnvFilter, Registry>,
    quota: Quota,
}

/// Why nothing can be logged, or not at this level.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Neither a level nor a list of filters.
    #[error("`{text}` is no log level: {source}")]
    BadLevel {
        /// What was given.
        text: String,
        /// What the parser said.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody in this process logs already.
    #[error("logging was set up twice in this process")]
    Twice,
    /// The subscriber that the level belongs to is gone.
    #[error("the log level cannot be changed: {0}")]
    Reload(#[from] reload::Error),
}

/// Sends events of this process to the journal if `journal_stream` (systemd's `$JOURNAL_STREAM`) says that standard error
/// is the journal's, else as lines to standard error. Called once, before the first event.
pub fn init(level: &str, journal_stream: Option<&OsStr>) -> Result<Telemetry, TelemetryError> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let journal = if is_journal(journal_stream) { journal() } else { None };
    let lines = journal.is_none().then(|| lines(io::stderr));
    let quota = Quota::default();
    let subscriber =
        tracing_subscriber::registry().with(filter).with(quota.clone()).with(journal).with(lines);
    subscriber.try_init().map_err(|_| TelemetryError::Twice)?;
    Ok(Telemetry { level: handle, quota })
}

impl Telemetry {
    /// From now on logs at `level`: `info`, or filters such as `info,scorpio::fusedev=debug`.
    pub fn set_level(&self, level: &str) -> Result<(), TelemetryError> {
        Ok(self.level.reload(filter(level)?)?)
    }

    /// Tells how many entries were held back because there were too many of their kind.
    pub fn tell_held_back(&self) {
        self.quota.tell(Instant::now());
    }

    /// Does so now and then, for ever.
    pub async fn keep_telling_held_back(self) {
        loop {
            tokio::time::sleep(TELL_EVERY).await;
            self.tell_held_back();
        }
    }
}

/// Whether `level` is one.
pub fn check_level(level: &str) -> Result<(), TelemetryError> {
    filter(level).map(drop)
}

/// What users can make the libraries beneath say at `warn` by sending nonsense; it must not fill the journal.
const QUIET: &str = "jsonrpsee=error,jsonrpsee_server=error,jsonrpsee_core=error,hyper=error";

/// A bare level is meant for Scorpio: at `debug` the libraries beneath would drown it, so they stay at `warn`.
fn filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    let bare = level.trim().parse::<tracing::level_filters::LevelFilter>();
    let directives = match bare {
        Ok(level) => format!("warn,{QUIET},scorpio={level},scorpiod={level}"),
        Err(_) => level.to_owned(),
    };
    EnvFilter::try_new(directives)
        .map_err(|source| TelemetryError::BadLevel { text: level.to_owned(), source })
}

/// The journal's socket may be absent even so (a container that was given the variable): lines are better than nothing.
fn journal() -> Option<tracing_journald::Layer> {
    let layer = tracing_journald::layer().ok()?;
    Some(layer.with_field_prefix(None).with_syslog_identifier(IDENTIFIER.to_owned()))
}

/// One event a line. The class of an event is for machines, which read the journal.
fn lines<W>(writer: W) -> impl Layer<WithFilter>
where
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let fields = debug_fn(|writer: &mut Writer<'_>, field, value| match field.name() {
        "message" => write!(writer, "{value:?}"),
        "message_id" => Ok(()),
        name => write!(writer, "{name}={value:?}"),
    });
    tracing_subscriber::fmt::layer()
        .compact()
        .fmt_fields(fields.delimited(" "))
        .with_ansi(false)
        .with_writer(writer)
}

/// The registry below the filter, the quota and the journal's layer.
type WithFilter = Layered<
    Option<tracing_journald::Layer>,
    Layered<Quota, Layered<reload::Layer<EnvFilter, Registry>, Registry>>,
>;

/// systemd writes `device:inode` of the stream it connected; a redirected standard error no longer matches it.
fn is_journal(journal_stream: Option<&OsStr>) -> bool {
    let Ok(stat) = rustix::fs::fstat(io::stderr()) else { return false };
    names_file(journal_stream, stat.st_dev, stat.st_ino)
}

fn names_file(journal_stream: Option<&OsStr>, device: u64, inode: u64) -> bool {
    let parts = journal_stream.and_then(OsStr::to_str).and_then(|text| text.split_once(':'));
    parts.is_some_and(|(dev, ino)| dev.parse() == Ok(device) && ino.parse() == Ok(inode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    #[test]
    fn the_level_changes_at_run_time_and_libraries_stay_quiet() {
        let written = Written::default();
        let (filter, level) = reload::Layer::new(filter("info").unwrap());
        let writer = written.clone();
        let quota = Quota::default();
        let subscriber = tracing_subscriber::registry().with(filter).with(quota.clone()).with(None);
        let subscriber = subscriber.with(lines(move || writer.clone()));
        let telemetry = Telemetry { level, quota };
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "hyper", "noise");
            tracing::debug!(target: "scorpio::rpc", "hidden");
            tracing::info!(
                target: "scorpio::antares", message_id = event::MOUNTED, scorpio_uid = 1000, "mounted"
            );
            let line = written.take();
            assert_eq!(line.lines().count(), 1, "{line}");
            assert!(line.contains("mounted") && line.contains("scorpio_uid=1000"), "{line}");
            assert!(!line.contains("message_id") && !line.contains(event::MOUNTED), "{line}");

            telemetry.set_level("scorpio::rpc=debug").unwrap();
            tracing::debug!(target: "scorpio::rpc", "shown");
            tracing::info!(target: "scorpio::antares", "hidden");
            assert!(written.take().trim_end().ends_with("shown"));
        });
    }

    #[test]
    fn what_a_user_repeats_ten_thousand_times_is_twenty_lines_and_a_number() {
        let written = Written::default();
        let (filter, level) = reload::Layer::new(filter("info").unwrap());
        let (quota, writer) = (Quota::default(), written.clone());
        let subscriber = tracing_subscriber::registry().with(filter).with(quota.clone()).with(None);
        let subscriber = subscriber.with(lines(move || writer.clone()));
        let telemetry = Telemetry { level, quota };
        let refuse = |uid: u32, n: u32| {
            let call = tracing::info_span!(target: "scorpio::rpc", "call", scorpio_uid = uid);
            call.in_scope(
                || tracing::info!(target: "scorpio::rpc", message_id = event::REFUSED, "refused: {n}"),
            );
        };
        let count = |text: &str, uid: u32| {
            let of_user = format!("scorpio_uid={uid}");
            text.lines().filter(|line| line.contains("refused: ") && line.contains(&of_user)).count()
        };
        tracing::subscriber::with_default(subscriber, || {
            (0..10_000).for_each(|n| refuse(1000, n));
            (0..10).for_each(|n| refuse(1001, n));
            let text = written.take();
            assert_eq!((count(&text, 1000), count(&text, 1001), text.lines().count()), (20, 10, 30));
            telemetry.tell_held_back();
            let text = written.take();
            assert_eq!(text.lines().count(), 1, "{text}");
            for part in
                ["9980 more like this were not written: refused: 20", "like=\"REFUSED\"", "scorpio_uid=1000"]
            {
                assert!(text.contains(part), "{part}: {text}");
            }
            telemetry.tell_held_back();
            assert_eq!(written.take(), "", "nothing is told twice");

            // Warnings of which nobody is the author, by where they come from; the diary of a whole host; what was asked for.
            telemetry.set_level("debug").unwrap();
            for n in 0..1_000 {
                tracing::warn!(target: "scorpio::store", n, "an origin answered nonsense");
                tracing::info!(target: "scorpio::antares", message_id = event::MOUNTED, scorpio_uid = 7, "came up");
                tracing::warn!(target: "scorpio::antares", message_id = event::MOUNT_FAILED, scorpio_uid = 7, "did not");
                tracing::debug!(target: "scorpio::rpc", "done");
            }
            let text = written.take();
            let count = |what: &str| text.lines().filter(|line| line.contains(what)).count();
            let counts = ["nonsense", "came up", "did not", "done"].map(count);
            assert_eq!(counts, [20, 1_000, 1_000, 1_000]);
        });
    }

    #[test]
    fn a_bad_level_is_refused_and_the_old_one_stays() {
        let error = filter("scorpio=loud").unwrap_err().to_string();
        assert!(error.starts_with("`scorpio=loud` is no log level: "), "{error}");
    }

    #[test]
    fn only_the_stream_that_systemd_named_is_the_journal() {
        for (text, is_it) in [
            ("8:123", true),
            ("8:124", false),
            ("9:123", false),
            ("", false),
            ("8", false),
            ("8:123x", false),
        ] {
            assert_eq!(names_file(Some(OsStr::new(text)), 8, 123), is_it, "{text}");
        }
        assert!(!names_file(None, 8, 123));
    }
}
