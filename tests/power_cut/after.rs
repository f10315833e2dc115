//! What a daemon finds on disks from which the power went, held against what was promised.

use std::{collections::BTreeMap, path::PathBuf};

use nix::sys::signal::Signal::SIGTERM;
use scorpio::auth::vault::Secret;
use serde_json::{Value, json};

use crate::{
    hand::{ITSELF, origin, vault},
    promises::{Promises, State},
    world::World,
};

/// What was seen after a cut.
#[derive(Debug, Default)]
pub struct Seen {
    /// After how many cuts.
    pub cuts: u32,
    /// Promises that do not hold.
    pub broken: Vec<Broken>,
    /// All that were looked for.
    pub promises: u64,
    /// Files that nobody synced.
    pub unsynced: u64,
    /// Of them, those that are not there as they were written.
    pub lost: u64,
}

/// What it says is for whoever reads why a test failed.
#[allow(dead_code)]
#[derive(Debug)]
pub enum Broken {
    /// Of a workspace itself.
    Workspace(String),
    /// Of a file in one.
    File(String),
    /// Of a credential.
    Secret(String),
    /// There is something that nobody was promised.
    Besides(String),
}

struct Found {
    state: State,
    point: PathBuf,
    view: Value,
}

/// Starts the daemon and looks for all that was promised by `at`; then it ends.
pub fn look(world: &mut World, promises: &Promises, at: u64) -> Seen {
    world.host.start();
    let mut seen = Seen { cuts: 1, ..Seen::default() };
    let mut found = listed(world);
    for id in promises.workspaces().filter(|id| !id.is_empty()) {
        let about: BTreeMap<_, _> = promises.of(id, at).collect();
        let Some(fates) = about.get(ITSELF) else { continue };
        seen.promises += 1;
        let state = found.get(id).map_or(&State::Gone, |found| &found.state);
        if !fates.contains(&state) {
            let view = found.get(id).map(|found| &found.view);
            seen.broken.push(Broken::Workspace(format!("{id}: {view:?} instead of {fates:?}")));
        }
        let Some(found) = found.get_mut(id) else { continue };
        if let State::Rests { uid } = found.state
            && let Err(broken) = mount(world, id, uid, found)
        {
            seen.broken.push(Broken::Workspace(broken));
        }
        let files = about.into_iter().filter(|(key, _)| *key != ITSELF);
        files.for_each(|(_, states)| seen.file(id, found, &states));
    }
    promises.of("", at).for_each(|(_, states)| seen.secret(world, &states));
    seen.besides(world);
    world.host.end(SIGTERM);
    assert_eq!(world.host.mounts(), Vec::<PathBuf>::new());
    seen
}

/// All workspaces by id. One that should stand and does not is of no state that was promised.
fn listed(world: &World) -> BTreeMap<String, Found> {
    let views = world.host.json(0, &["list", "--all"]);
    let found = |view: &Value| {
        let uid = u32::try_from(view["uid"].as_u64().unwrap()).unwrap();
        let state = match view["state"].as_str().unwrap() {
            "mounted" => State::Stands { uid },
            "unmounted" => State::Rests { uid },
            other => State::Absent { path: other.to_owned() },
        };
        let point = view["mount_point"].as_str().unwrap().into();
        (view["id"].as_str().unwrap().to_owned(), Found { state, point, view: view.clone() })
    };
    views.as_array().unwrap().iter().map(found).collect()
}

/// A workspace that is kept can be mounted.
fn mount(world: &World, id: &str, uid: u32, found: &mut Found) -> Result<(), String> {
    let point = world.home(uid).join(format!("again-{id}"));
    let output = world.host.ctl(uid, &["mount", "--workspace", id, point.to_str().unwrap()]);
    found.point = point;
    if output.status.success() { Ok(()) } else { Err(format!("{id} cannot be mounted: {output:?}")) }
}

impl Seen {
    /// Takes in what was seen after other cuts.
    pub fn add(&mut self, other: Seen) {
        self.cuts += other.cuts;
        self.broken.extend(other.broken);
        self.promises += other.promises;
        self.unsynced += other.unsynced;
        self.lost += other.lost;
    }

    fn file(&mut self, id: &str, found: &Found, states: &[&State]) {
        let held: Vec<_> = states.iter().map(|state| state.holds(&found.point)).collect();
        if matches!(states, [State::Unsynced { .. }, ..]) {
            self.unsynced += 1;
            self.lost += u64::from(held[0].is_err());
            return;
        }
        self.promises += 1;
        if held.iter().all(Result::is_err) {
            self.broken.push(Broken::File(format!("{id}: {held:?}")));
        }
    }

    fn secret(&mut self, world: &World, states: &[&State]) {
        self.promises += 1;
        let holds = |state: &&State| {
            let State::Secret { uid, token } = state else { panic!("{state:?}") };
            let kept = vault(world).get(&origin(), *uid);
            kept.is_ok_and(|kept| kept.as_ref().map(Secret::expose) == token.as_deref())
        };
        if !states.iter().any(holds) {
            self.broken.push(Broken::Secret(format!("{states:?}")));
        }
    }

    /// Nothing is mounted but what is listed as mounted, and no upper is without its record.
    fn besides(&mut self, world: &World) {
        let orphans = world.host.json(0, &["orphans", "list"]);
        if orphans != json!([]) {
            self.broken.push(Broken::Besides(orphans.to_string()));
        }
        let mut stand: Vec<_> = listed(world)
            .into_values()
            .filter(|found| matches!(found.state, State::Stands { .. }))
            .map(|found| found.point)
            .collect();
        let mut mounts = world.host.mounts();
        stand.sort();
        mounts.sort();
        if stand != mounts {
            self.broken.push(Broken::Besides(format!("{mounts:?} are mounted, {stand:?} listed")));
        }
    }
}
