//! The log level: the configuration's, or another one for a while.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use crate::{
    rpc::{LogLevels, backends::LogLevel},
    telemetry::{self, event},
};

/// Makes a level that was found to be one take effect.
pub type Switch = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Who decides how much is logged. Falls back to the configuration's level by itself.
pub struct Levels {
    switch: Switch,
    state: Mutex<State>,
}

struct State {
    configured: String,
    lent: Option<Lent>,
    /// Grows with each change, so that the end of one that was replaced means nothing.
    turn: u64,
}

struct Lent {
    level: String,
    until: SystemTime,
}

impl Levels {
    /// With the level that is in force now.
    pub fn new(configured: &str, switch: Switch) -> Arc<Levels> {
        let state = State { configured: configured.to_owned(), lent: None, turn: 0 };
        Arc::new(Levels { switch, state: Mutex::new(state) })
    }

    /// The configuration has another level now. One that is lent goes on until its end.
    pub fn configure(&self, level: &str) {
        let mut state = self.state();
        level.clone_into(&mut state.configured);
        if state.lent.is_none()
            && let Err(error) = (self.switch)(level)
        {
            tracing::warn!(level, error, "the log level stays as it was");
        }
    }

    /// Ends what was lent at `turn`, unless something else has been since.
    fn end(&self, turn: u64) {
        let mut state = self.state();
        if state.turn == turn && state.lent.is_some() {
            self.fall_back(&mut state);
        }
    }

    fn fall_back(&self, state: &mut State) {
        state.turn += 1;
        state.lent = None;
        match (self.switch)(&state.configured) {
            Ok(()) => tracing::info!(
                message_id = event::LOG_LEVEL,
                level = state.configured,
                "the log level is the configuration's again"
            ),
            Err(error) => tracing::warn!(error, "the log level stays as it was"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The fields are whole between any two instructions.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As callers of the control socket reach it.
pub struct Reached(pub Arc<Levels>);

impl LogLevels for Reached {
    fn lend(&self, level: &str, time: Duration) -> Result<LogLevel, String> {
        telemetry::check_level(level).map_err(|error| error.to_string())?;
        let mut state = self.0.state();
        // Before: the new level may hide it.
        tracing::info!(
            message_id = event::LOG_LEVEL,
            level,
            seconds = time.as_secs(),
            "the log level is changed for a while"
        );
        (self.0.switch)(level)?;
        state.turn += 1;
        let until = SystemTime::now().checked_add(time).unwrap_or(SystemTime::UNIX_EPOCH);
        state.lent = Some(Lent { level: level.to_owned(), until });
        let (levels, turn) = (Arc::downgrade(&self.0), state.turn);
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            if let Some(levels) = levels.upgrade() {
                levels.end(turn);
            }
        });
        Ok(view(&state))
    }

    fn reset(&self) -> LogLevel {
        let mut state = self.0.state();
        self.0.fall_back(&mut state);
        view(&state)
    }
}

fn view(state: &State) -> LogLevel {
    let lent = state.lent.as_ref();
    LogLevel {
        level: lent.map_or_else(|| state.configured.clone(), |lent| lent.level.clone()),
        configured: state.configured.clone(),
        until: lent.map(|lent| lent.until),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Switched = Arc<Mutex<Vec<String>>>;

    fn levels() -> (Reached, Switched) {
        let switched = Switched::default();
        let note = Arc::clone(&switched);
        let switch: Switch = Box::new(move |level| {
            note.lock().unwrap().push(level.to_owned());
            Ok(())
        });
        (Reached(Levels::new("info", switch)), switched)
    }

    fn taken(switched: &Switched) -> Vec<String> {
        std::mem::take(&mut *switched.lock().unwrap())
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_level_that_is_lent_falls_back_by_itself() {
        let (levels, switched) = levels();
        let told = levels.lend("debug", 10 * MINUTE).unwrap();
        assert_eq!((told.level.as_str(), told.configured.as_str()), ("debug", "info"));
        assert!(told.until.is_some());
        tokio::time::sleep(9 * MINUTE).await;
        assert_eq!(taken(&switched), ["debug"]);
        tokio::time::sleep(2 * MINUTE).await;
        assert_eq!(taken(&switched), ["info"]);
        tokio::time::sleep(60 * MINUTE).await;
        assert_eq!(taken(&switched), Vec::<String>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_one_to_lend_says_when_it_ends() {
        let (levels, switched) = levels();
        levels.lend("debug", 10 * MINUTE).unwrap();
        levels.lend("warn", 30 * MINUTE).unwrap();
        tokio::time::sleep(20 * MINUTE).await;
        assert_eq!(taken(&switched), ["debug", "warn"]);
        // A reload meanwhile takes effect at the end.
        levels.0.configure("error");
        assert_eq!(taken(&switched), Vec::<String>::new());
        tokio::time::sleep(20 * MINUTE).await;
        assert_eq!(taken(&switched), ["error"]);
    }

    #[tokio::test(start_paused = true)]
    async fn it_can_be_taken_back_before_its_time() {
        let (levels, switched) = levels();
        levels.lend("trace", 10 * MINUTE).unwrap();
        let told = levels.reset();
        assert_eq!((told.level.as_str(), told.until), ("info", None));
        levels.0.configure("warn");
        tokio::time::sleep(20 * MINUTE).await;
        assert_eq!(taken(&switched), ["trace", "info", "warn"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_level_changes_nothing() {
        let (levels, switched) = levels();
        assert!(levels.lend("scorpio=loud", MINUTE).unwrap_err().contains("is no log level"));
        assert_eq!(taken(&switched), Vec::<String>::new());
    }
}
