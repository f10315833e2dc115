//! The daemon is killed while workspaces are made, unmounted and removed. What was acknowledged holds afterwards.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{
    assert_nothing_half_made,
    support::{ALICE, BOB, Host, LOWERS, lower},
    workspaces,
};

/// Kills of each lower; with the two of them some 30.
const ROUNDS: u32 = 15;
/// Users' threads that give commands until the daemon is gone.
const HANDS: u32 = 4;
/// Workspaces of one user that are left over for the next round.
const KEPT: usize = 12;

/// What is known of a workspace from what was acknowledged.
#[derive(Clone, Debug)]
struct Known {
    id: String,
    uid: u32,
    point: PathBuf,
    /// What its file holds, when the write was acknowledged.
    content: Option<String>,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Mounted,
    Unmounted,
    /// An unmount or a mount was asked for and not answered.
    There,
    /// A removal was asked for and not answered.
    Unsure,
    Gone,
}

/// Numbers that are not the same in each run; the seed is told when the test fails.
struct Dice(AtomicU32);

impl Dice {
    fn roll(&self, sides: u32) -> u32 {
        let next = |seed: u32| Some(seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        (self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap() >> 8) % sides
    }
}

/// Commands one after the other until one is not answered. Returns what is known then.
fn work(host: &Host, uid: u32, name: &str, dice: &Dice, killed: &AtomicU32) -> Vec<Known> {
    let mut known = Vec::new();
    for number in 0.. {
        let point = host.point(uid, &format!("{name}-{number}"));
        let output = host.ctl(uid, &["--json", "mount", "repo:", point.to_str().unwrap()]);
        if !output.status.success() {
            assert_eq!(output.status.code(), Some(5), "{output:?}");
            killed.fetch_add(1, Ordering::Relaxed);
            return known;
        }
        let view: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let id = view["id"].as_str().unwrap().to_owned();
        let content = format!("{name} {number}\n");
        let written =
            host.try_sh_as(uid, &format!("cd '{}'; printf '{content}' > mine; sync mine", point.display()));
        let content = written.status.success().then_some(content);
        let mut workspace = Known { id, uid, point, content, fate: Fate::Mounted };
        let go_on = act(host, &mut workspace, dice);
        known.push(workspace);
        if !go_on {
            killed.fetch_add(1, Ordering::Relaxed);
            return known;
        }
    }
    unreachable!("the daemon is killed before the numbers end");
}

/// One or two more commands; whether all were answered.
fn act(host: &Host, workspace: &mut Known, dice: &Dice) -> bool {
    let commands: &[(&[&str], Fate, Fate)] = match dice.roll(4) {
        0 => &[],
        1 => &[(&["unmount"], Fate::Unmounted, Fate::There)],
        2 => &[(&["remove", "--yes", "--discard"], Fate::Gone, Fate::Unsure)],
        _ => &[
            (&["unmount"], Fate::Unmounted, Fate::There),
            (&["mount", "--workspace"], Fate::Mounted, Fate::There),
        ],
    };
    for (command, done, unanswered) in commands {
        let output = host.ctl(workspace.uid, &[*command, &[&workspace.id]].concat());
        match output.status.code() {
            Some(0) => workspace.fate = *done,
            Some(5) => {
                workspace.fate = *unanswered;
                return false;
            }
            _ => panic!("{command:?}: {output:?}"),
        }
    }
    true
}

fn check(host: &Host, known: &[Known]) {
    let listed = workspaces(host);
    for workspace in known {
        let state = listed.iter().find(|(id, ..)| *id == workspace.id).map(|(_, state, _)| state.as_str());
        let fits = match workspace.fate {
            Fate::Mounted => state == Some("mounted"),
            Fate::Unmounted => state == Some("unmounted"),
            Fate::There => matches!(state, Some("mounted" | "unmounted")),
            Fate::Unsure => matches!(state, None | Some("mounted" | "unmounted")),
            Fate::Gone => state.is_none(),
        };
        assert!(fits, "{workspace:?} is {state:?}");
        if state.is_none() {
            assert!(!host.path("state/workspaces").join(&workspace.id).exists(), "{workspace:?}");
            continue;
        }
        let Some(content) = &workspace.content else { continue };
        let upper = host.path("state/workspaces").join(&workspace.id).join("upper/mine");
        assert_eq!(&fs::read_to_string(upper).unwrap(), content, "{workspace:?}");
        if state == Some("mounted") {
            let script = format!(
                "cd '{}'; cat mine file; test $(stat -c %u mine) = {}",
                workspace.point.display(),
                workspace.uid
            );
            assert_eq!(host.sh_as(workspace.uid, &script), format!("{content}base\n"), "{workspace:?}");
        }
    }
}

/// Takes all but some away, so that no limit is ever met.
fn tidy(host: &Host, known: &mut Vec<Known>) {
    for uid in [ALICE, BOB] {
        let listed = host.json(uid, &["list"]);
        let ids = listed.as_array().unwrap().iter().map(|view| view["id"].as_str().unwrap());
        for id in ids.skip(KEPT) {
            assert!(host.ctl(uid, &["remove", "--yes", "--discard", id]).status.success());
            known.retain(|workspace| workspace.id != id);
        }
    }
    known.retain(|workspace| workspace.fate != Fate::Gone);
    // What one round could not tell is settled now.
    let listed = workspaces(host);
    known.retain(|workspace| listed.iter().any(|(id, ..)| *id == workspace.id));
    for workspace in known {
        let mounted = listed.iter().any(|(id, state, _)| *id == workspace.id && state == "mounted");
        workspace.fate = if mounted { Fate::Mounted } else { Fate::Unmounted };
    }
}

fn what_was_acknowledged_holds(kind: &str) {
    let mut host = Host::with_repo(&lower(kind), "echo base > file && git add . && git commit -q -m first");
    let seed = std::process::id();
    let dice = Dice(AtomicU32::new(seed));
    let mut known = Vec::new();
    let mut hits = 0;
    for round in 0..ROUNDS {
        let (unanswered, learned) = (AtomicU32::new(0), Mutex::new(Vec::new()));
        let pid = nix::unistd::Pid::from_raw(i32::try_from(host.pid()).unwrap());
        let delay = Duration::from_millis(u64::from(40 + dice.roll(500)));
        std::thread::scope(|scope| {
            for hand in 0..HANDS {
                let (host, dice, unanswered, learned) = (&host, &dice, &unanswered, &learned);
                let uid = if hand % 2 == 0 { ALICE } else { BOB };
                scope.spawn(move || {
                    let known = work(host, uid, &format!("r{round}-h{hand}"), dice, unanswered);
                    learned.lock().unwrap().extend(known);
                });
            }
            std::thread::sleep(delay); // the moment of the kill is what the test is about
            nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
        });
        host.end(Signal::SIGKILL);
        hits += u32::from(unanswered.into_inner() > 0);
        known.extend(learned.into_inner().unwrap());
        host.start();
        eprintln!(
            "{kind}, seed {seed}, round {round}: killed after {delay:?}, {} workspaces known",
            known.len()
        );
        check(&host, &known);
        assert_nothing_half_made(&host, "state/workspaces");
        tidy(&host, &mut known);
    }
    assert_eq!(hits, ROUNDS, "each kill came while commands were given");
}

#[test]
fn what_was_acknowledged_holds_after_kills_at_any_moment() {
    LOWERS.into_iter().for_each(what_was_acknowledged_holds);
}
