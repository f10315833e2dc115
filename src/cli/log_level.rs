//! `scorpioctl log-level`: more in the journal, for a while.

use std::time::Duration;

use clap::Args;

use super::{Session, exit::Exit, failure::Failure, text::plain};
use crate::api::{LogLevelView, SetLogLevel, method};

const EXAMPLES: &str = "\
Examples:
  scorpioctl log-level debug --for 10m                      then scorpioctl logs -f
  scorpioctl log-level info,scorpio::fusedev=debug --for 1m
  scorpioctl log-level --reset                              the configuration's again, now";

/// Have the daemon log more, or less, for a while.
///
/// It falls back to `daemon.log_level` of the configuration by itself. For administrators: at `debug` the journal tells
/// what users do, and much of it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LogLevel {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a list of filters
    #[arg(required_unless_present = "reset")]
    level: Option<String>,

    /// For how long, a day at most
    #[arg(long = "for", value_name = "TIME", value_parser = time, default_value = "10m")]
    time: Duration,

    /// The configuration's level, now
    #[arg(long, conflicts_with_all = ["level", "time"])]
    reset: bool,
}

fn time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if (1..=86_400).contains(&time.as_secs()) => Ok(time),
        Ok(_) => Err("from one second to a day".to_owned()),
        Err(_) => Err("write a time such as 90s, 10m or 2h".to_owned()),
    }
}

impl LogLevel {
    /// Runs the verb.
    pub(crate) async fn run(self, session: &Session) -> Result<Exit, Failure> {
        let for_s = self.level.as_ref().map(|_| self.time.as_secs());
        let request = SetLogLevel { level: self.level, for_s };
        let told: LogLevelView = session.daemon().call(method::LOG_SET_LEVEL, &request).await?;
        session.screen.data(&told, text)?;
        Ok(Exit::Ok)
    }
}

fn text(told: &LogLevelView) -> String {
    let LogLevelView { level, configured, ends } = told;
    match ends {
        Some(ends) => format!(
            "The daemon logs at {} until {}, then at {} again.",
            plain(level),
            plain(ends),
            plain(configured)
        ),
        None => format!("The daemon logs at {}, as it is configured.", plain(level)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_between_a_second_and_a_day() {
        assert_eq!(time("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(time("1d"), Ok(Duration::from_secs(86_400)));
        assert!(["100ms", "25h", "soon"].iter().all(|text| time(text).is_err()));
    }

    #[test]
    fn the_level_is_told_with_its_end() {
        let ends = Some("2026-01-02T03:04:05Z".to_owned());
        let lent = LogLevelView { level: "debug".into(), configured: "info".into(), ends };
        assert_eq!(text(&lent), "The daemon logs at debug until 2026-01-02T03:04:05Z, then at info again.");
        let back = LogLevelView { level: "info".into(), ends: None, ..lent };
        assert_eq!(text(&back), "The daemon logs at info, as it is configured.");
    }
}
