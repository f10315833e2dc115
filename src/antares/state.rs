//! The state machine of a workspace, pure: (phase, kind, input) → (phase, steps) or a refusal. Knows no disk, no kernel
//! and no clock; [`super::driver`] carries the steps out.

use super::State;

/// Where a workspace stands, as its record says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Being made; nobody has been told that it exists.
    Creating,
    /// Acknowledged, and being mounted.
    Mounting,
    /// Mounted.
    Mounted,
    /// Not mounted, by wish.
    Unmounted,
    /// Its mount point will not do; wants to be mounted.
    Displaced {
        /// What was found.
        reason: String,
    },
    /// Could not be mounted; wants to be.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What decides between the two sorts of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// Ends with its mount.
    pub(super) ephemeral: bool,
    /// Has no changes, whatever lies in its directory.
    pub(super) read_only: bool,
}

/// What happens to a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// A user asks for one.
    Create,
    /// It is to be mounted: by a user, or at a start.
    Mount,
    /// The mount stands.
    Stood,
    /// The mount did not come about, or its maker went away.
    Fell {
        /// Where the workspace stands now; nothing remains of one in [`Phase::Creating`].
        to: Phase,
    },
    /// A user asks to unmount.
    Unmount {
        /// Even if it is in use.
        lazy: bool,
    },
    /// A user asks to take it away.
    Remove {
        /// Even with changes.
        discard: bool,
        /// Even if it is in use.
        lazy: bool,
    },
    /// A user asks to give it away.
    Give,
    /// Its time is over.
    Expire,
    /// The daemon stops.
    Stop,
    /// Somebody else has unmounted it.
    Vanished,
    /// The kernel has ended the session under its mount; it is to be mounted again, whatever its kind: its user did not
    /// ask for its end.
    Died,
}

/// One thing to do. Steps are done in order; the first that fails ends the move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Take its directories, which must be new.
    Claim,
    /// Write the new phase to the record.
    Record,
    /// Make upper and work directory.
    Prepare,
    /// Mount; its outcome is the next input.
    Mount,
    /// End with [`super::WorkspaceError::UnsavedChanges`] if the upper holds anything.
    RefuseChanges,
    /// Unmount; with `lazy`, even if in use.
    Unmount {
        /// Even if in use.
        lazy: bool,
    },
    /// Unmount, lazily if it is in use: it ends in any case.
    Detach,
    /// Rename everything to trash.
    Discard,
    /// End with [`super::WorkspaceError::Held`] if a mount of it lives on unseen.
    RefuseHeld,
    /// Write the new owner to the record.
    HandOver,
}

/// What follows from an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Move {
    /// The new phase; `None` when nothing remains.
    pub(super) to: Option<Phase>,
    /// How to get there.
    pub(super) steps: Vec<Step>,
}

/// The input does not fit the phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What to do instead.
    pub(super) hint: &'static str,
}

/// What follows when `input` meets a workspace in `from` (`None`: there is none yet).
pub(super) fn transition(from: Option<&Phase>, kind: Kind, input: Input) -> Result<Move, Refusal> {
    use Phase::{Creating, Displaced, Failed, Mounted, Mounting, Unmounted};
    let Some(from) = from else {
        return match input {
            Input::Create => go(Creating, &[Step::Claim, Step::Record, Step::Prepare, Step::Mount]),
            _ => refuse("create it first"),
        };
    };
    match (from, input) {
        (_, Input::Create) => refuse("it exists already"),
        (Unmounted | Displaced { .. } | Failed { .. }, Input::Mount) => {
            go(Mounting, &[Step::Record, Step::Prepare, Step::Mount])
        }
        (Mounted, Input::Mount) => refuse("it is there already; unmount it first to move it"),
        (Creating | Mounting, Input::Stood) => go(Mounted, &[Step::Record]),
        (Creating, Input::Fell { .. }) => end(&[Step::Detach, Step::Discard]),
        (Mounting, Input::Fell { to }) => go(to, &[Step::Detach, Step::Record]),
        (Mounted, Input::Unmount { lazy }) => ends_mount(kind, Step::Unmount { lazy }),
        (Displaced { .. } | Failed { .. }, Input::Unmount { .. }) => go(Unmounted, &[Step::Record]),
        (Unmounted, Input::Unmount { .. }) => refuse("there is nothing to unmount"),
        (_, Input::Remove { discard, lazy }) => remove(from, kind, discard, lazy),
        (Mounted, Input::Expire) if kind.ephemeral => end(&[Step::Detach, Step::Discard]),
        (Mounted, Input::Expire) => go(Unmounted, &[Step::Unmount { lazy: false }, Step::Record]),
        (Displaced { .. } | Failed { .. }, Input::Expire) => go(Unmounted, &[Step::Record]),
        (Mounted, Input::Stop | Input::Vanished) if kind.ephemeral => end(&[Step::Detach, Step::Discard]),
        // The record goes on saying `Mounted`: that is what brings the workspace back at the next start. A mount that
        // vanished may have been the first to go in a shutdown of the host.
        (Mounted, Input::Stop | Input::Vanished | Input::Died) => go(Unmounted, &[Step::Detach]),
        (_, Input::Expire | Input::Stop | Input::Vanished | Input::Died) => go(from.clone(), &[]),
        (_, Input::Stood | Input::Fell { .. }) => refuse("nothing is being mounted"),
        (Creating | Mounting, Input::Mount | Input::Unmount { .. } | Input::Give) => {
            refuse("wait until it is mounted")
        }
        (_, Input::Give) => give(from, kind),
    }
}

fn give(from: &Phase, kind: Kind) -> Result<Move, Refusal> {
    let mut steps = Vec::new();
    match (from, kind) {
        (_, Kind { ephemeral: true, .. }) => {
            return refuse(
                "it is ephemeral: it cannot be unmounted to be given away without being thrown away",
            );
        }
        (Phase::Mounted, _) => steps.push(Step::Unmount { lazy: false }),
        _ => {}
    }
    if !kind.read_only {
        steps.push(Step::RefuseHeld);
    }
    steps.push(Step::HandOver);
    go(Phase::Unmounted, &steps)
}

fn ends_mount(kind: Kind, how: Step) -> Result<Move, Refusal> {
    if kind.ephemeral { end(&[how, Step::Discard]) } else { go(Phase::Unmounted, &[how, Step::Record]) }
}

fn remove(from: &Phase, kind: Kind, discard: bool, lazy: bool) -> Result<Move, Refusal> {
    let expendable = discard || kind.ephemeral || kind.read_only;
    // What a process that still holds the mount writes after the last look at the upper would be lost, so a lazy
    // removal needs the word that changes may go.
    let unmount = Step::Unmount { lazy: lazy && expendable };
    match (from, expendable) {
        (Phase::Creating | Phase::Mounting, _) => refuse("wait until it is mounted"),
        (Phase::Mounted, true) => end(&[unmount, Step::Discard]),
        (Phase::Mounted, false) => end(&[Step::RefuseChanges, unmount, Step::RefuseChanges, Step::Discard]),
        (_, true) => end(&[Step::Discard]),
        (_, false) => end(&[Step::RefuseChanges, Step::Discard]),
    }
}

fn go(to: Phase, steps: &[Step]) -> Result<Move, Refusal> {
    Ok(Move { to: Some(to), steps: steps.to_vec() })
}

fn end(steps: &[Step]) -> Result<Move, Refusal> {
    Ok(Move { to: None, steps: steps.to_vec() })
}

fn refuse(hint: &'static str) -> Result<Move, Refusal> {
    Err(Refusal { hint })
}

impl Phase {
    /// The phase in a word, for people.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Phase::Creating | Phase::Mounting => "being mounted",
            Phase::Mounted => "mounted",
            Phase::Unmounted => "not mounted",
            Phase::Displaced { .. } => "displaced",
            Phase::Failed { .. } => "failed",
        }
    }
}

impl From<&Phase> for State {
    fn from(phase: &Phase) -> State {
        match phase.clone() {
            Phase::Creating | Phase::Mounting => State::Mounting,
            Phase::Mounted => State::Mounted,
            Phase::Unmounted => State::Unmounted,
            Phase::Displaced { reason } => State::Displaced { reason },
            Phase::Failed { reason } => State::Failed { reason },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DURABLE: Kind = Kind { ephemeral: false, read_only: false };
    const EPHEMERAL: Kind = Kind { ephemeral: true, read_only: false };
    const READ_ONLY: Kind = Kind { ephemeral: false, read_only: true };

    fn displaced() -> Phase {
        Phase::Displaced { reason: "moved".into() }
    }

    fn failed() -> Phase {
        Phase::Failed { reason: "broken".into() }
    }

    #[test]
    fn every_input_in_every_phase_has_its_answer() {
        use Phase::*;
        use Step::*;
        let unmount = Input::Unmount { lazy: false };
        let lazily = Input::Unmount { lazy: true };
        let remove = |discard, lazy| Input::Remove { discard, lazy };
        let fell = || Input::Fell { to: displaced() };
        let hard = Unmount { lazy: false };
        let soft = Unmount { lazy: true };
        type Row = (Option<Phase>, Kind, Input, Option<(Option<Phase>, Vec<Step>)>);
        let rows: Vec<Row> = vec![
            (None, DURABLE, Input::Create, Some((Some(Creating), vec![Claim, Record, Prepare, Mount]))),
            (None, DURABLE, Input::Mount, None),
            (None, DURABLE, unmount.clone(), None),
            (None, DURABLE, remove(true, true), None),
            (Some(Creating), DURABLE, Input::Create, None),
            (Some(Creating), DURABLE, Input::Mount, None),
            (Some(Creating), DURABLE, unmount.clone(), None),
            (Some(Creating), DURABLE, remove(true, true), None),
            (Some(Creating), DURABLE, Input::Stood, Some((Some(Mounted), vec![Record]))),
            (Some(Creating), DURABLE, fell(), Some((None, vec![Detach, Discard]))),
            (Some(Creating), DURABLE, Input::Stop, Some((Some(Creating), vec![]))),
            (Some(Mounting), DURABLE, Input::Stood, Some((Some(Mounted), vec![Record]))),
            (Some(Mounting), DURABLE, fell(), Some((Some(displaced()), vec![Detach, Record]))),
            (Some(Mounting), DURABLE, Input::Mount, None),
            (Some(Mounting), DURABLE, remove(true, false), None),
            (Some(Mounted), DURABLE, Input::Mount, None),
            (Some(Mounted), DURABLE, Input::Stood, None),
            (Some(Mounted), DURABLE, fell(), None),
            (Some(Mounted), DURABLE, unmount.clone(), Some((Some(Unmounted), vec![hard, Record]))),
            (Some(Mounted), DURABLE, lazily.clone(), Some((Some(Unmounted), vec![soft, Record]))),
            (Some(Mounted), EPHEMERAL, unmount.clone(), Some((None, vec![hard, Discard]))),
            (Some(Mounted), EPHEMERAL, lazily, Some((None, vec![soft, Discard]))),
            (Some(Mounted), DURABLE, remove(true, true), Some((None, vec![soft, Discard]))),
            (Some(Mounted), DURABLE, remove(true, false), Some((None, vec![hard, Discard]))),
            (
                Some(Mounted),
                DURABLE,
                remove(false, false),
                Some((None, vec![RefuseChanges, hard, RefuseChanges, Discard])),
            ),
            (
                Some(Mounted),
                DURABLE,
                remove(false, true),
                Some((None, vec![RefuseChanges, hard, RefuseChanges, Discard])),
            ),
            (Some(Mounted), EPHEMERAL, remove(false, true), Some((None, vec![soft, Discard]))),
            (Some(Mounted), READ_ONLY, remove(false, true), Some((None, vec![soft, Discard]))),
            (Some(Mounted), DURABLE, Input::Expire, Some((Some(Unmounted), vec![hard, Record]))),
            (Some(Mounted), EPHEMERAL, Input::Expire, Some((None, vec![Detach, Discard]))),
            (Some(Mounted), DURABLE, Input::Stop, Some((Some(Unmounted), vec![Detach]))),
            (Some(Mounted), EPHEMERAL, Input::Stop, Some((None, vec![Detach, Discard]))),
            (Some(Mounted), DURABLE, Input::Vanished, Some((Some(Unmounted), vec![Detach]))),
            (Some(Mounted), EPHEMERAL, Input::Vanished, Some((None, vec![Detach, Discard]))),
            (Some(Mounted), DURABLE, Input::Died, Some((Some(Unmounted), vec![Detach]))),
            (Some(Mounted), EPHEMERAL, Input::Died, Some((Some(Unmounted), vec![Detach]))),
            (Some(Unmounted), DURABLE, Input::Died, Some((Some(Unmounted), vec![]))),
            (Some(Unmounted), DURABLE, Input::Mount, Some((Some(Mounting), vec![Record, Prepare, Mount]))),
            (Some(Unmounted), DURABLE, unmount.clone(), None),
            (Some(Unmounted), DURABLE, remove(false, true), Some((None, vec![RefuseChanges, Discard]))),
            (Some(Unmounted), DURABLE, remove(true, false), Some((None, vec![Discard]))),
            (Some(Unmounted), DURABLE, Input::Expire, Some((Some(Unmounted), vec![]))),
            (Some(Unmounted), DURABLE, Input::Stop, Some((Some(Unmounted), vec![]))),
            (Some(displaced()), DURABLE, Input::Mount, Some((Some(Mounting), vec![Record, Prepare, Mount]))),
            (Some(displaced()), DURABLE, unmount.clone(), Some((Some(Unmounted), vec![Record]))),
            (Some(displaced()), DURABLE, Input::Expire, Some((Some(Unmounted), vec![Record]))),
            (Some(displaced()), DURABLE, Input::Stop, Some((Some(displaced()), vec![]))),
            (Some(failed()), DURABLE, Input::Mount, Some((Some(Mounting), vec![Record, Prepare, Mount]))),
            (Some(failed()), DURABLE, unmount, Some((Some(Unmounted), vec![Record]))),
            (Some(failed()), DURABLE, remove(false, false), Some((None, vec![RefuseChanges, Discard]))),
            (Some(failed()), DURABLE, Input::Vanished, Some((Some(failed()), vec![]))),
            (None, DURABLE, Input::Give, None),
            (Some(Creating), DURABLE, Input::Give, None),
            (Some(Mounting), DURABLE, Input::Give, None),
            (Some(Mounted), DURABLE, Input::Give, Some((Some(Unmounted), vec![hard, RefuseHeld, HandOver]))),
            (Some(Mounted), READ_ONLY, Input::Give, Some((Some(Unmounted), vec![hard, HandOver]))),
            (Some(Mounted), EPHEMERAL, Input::Give, None),
            (Some(Unmounted), EPHEMERAL, Input::Give, None),
            (Some(Unmounted), DURABLE, Input::Give, Some((Some(Unmounted), vec![RefuseHeld, HandOver]))),
            (Some(displaced()), DURABLE, Input::Give, Some((Some(Unmounted), vec![RefuseHeld, HandOver]))),
            (Some(failed()), READ_ONLY, Input::Give, Some((Some(Unmounted), vec![HandOver]))),
        ];
        for (from, kind, input, expected) in rows {
            let told = transition(from.as_ref(), kind, input.clone()).ok().map(|next| (next.to, next.steps));
            assert_eq!(told, expected, "{from:?} {kind:?} {input:?}");
        }
    }

    #[test]
    fn a_record_is_written_before_the_kernel_is_asked_to_mount() {
        for from in [None, Some(Phase::Unmounted), Some(failed()), Some(displaced())] {
            let input = if from.is_none() { Input::Create } else { Input::Mount };
            let steps = transition(from.as_ref(), DURABLE, input).unwrap().steps;
            let place = |step| steps.iter().position(|other| *other == step).unwrap();
            assert!(place(Step::Record) < place(Step::Prepare) && place(Step::Prepare) < place(Step::Mount));
        }
    }

    #[test]
    fn no_move_discards_changes_of_a_durable_workspace_without_the_word_for_it() {
        let phases = [Phase::Mounted, Phase::Unmounted, displaced(), failed()];
        let mut inputs =
            vec![Input::Mount, Input::Expire, Input::Stop, Input::Vanished, Input::Died, Input::Give];
        inputs.extend([false, true].map(|lazy| Input::Unmount { lazy }));
        inputs.extend([false, true].map(|lazy| Input::Remove { discard: false, lazy }));
        for (phase, input) in phases.iter().flat_map(|phase| inputs.iter().map(move |input| (phase, input))) {
            let Ok(next) = transition(Some(phase), DURABLE, input.clone()) else { continue };
            let before = next.steps.split(|step| *step == Step::Discard).next().unwrap();
            let looked = before.last() == Some(&Step::RefuseChanges);
            assert!(!next.steps.contains(&Step::Discard) || looked, "{phase:?} {input:?}");
            assert!(!looked || !before.contains(&Step::Unmount { lazy: true }), "{phase:?} {input:?}");
        }
    }
}
