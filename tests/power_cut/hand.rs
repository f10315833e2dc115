//! Whoever gives commands to the daemon, and remembers what was acknowledged.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use scorpio::{
    auth::vault::{Secret, Vault},
    types::OriginName,
};

use crate::{
    promises::{State, Sum, Told},
    support::{ALICE, BOB},
    world::World,
};

/// The key of what became of a workspace itself.
pub const ITSELF: &str = "itself";

pub struct Hand<'a> {
    world: &'a World,
    told: Vec<Told>,
}

/// Two users work, and meanwhile workspaces come and go. Everything that was promised.
pub fn work(world: &World, rounds: u32, seed: u64) -> Vec<Told> {
    let mut hand = Hand { world, told: Vec::new() };
    let users = [ALICE, BOB].map(|uid| {
        let (id, point) = hand.create(uid, "main", &[]);
        (uid, load(world, uid, &id, &point, seed))
    });
    for round in 0..rounds {
        hand.round(round);
    }
    fs::write(world.host.path("memory/stop"), "").unwrap();
    let mut told = hand.told;
    for (uid, user) in users {
        let output = user.wait_with_output().unwrap();
        assert!(output.status.success(), "user {uid}\n{}", world.host.log());
        let notes = fs::read_to_string(notes(world, uid)).unwrap();
        told.extend(notes.lines().map(|line| serde_json::from_str::<Told>(line).expect(line)));
    }
    told
}

fn notes(world: &World, uid: u32) -> PathBuf {
    world.host.path(&format!("memory/notes-{uid}"))
}

/// A user at work; see `load.py`.
fn load(world: &World, uid: u32, id: &str, point: &Path, seed: u64) -> Child {
    let mut command = Command::new("python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/power_cut/load.py"));
    command.args([&uid.to_string(), id]).arg(point);
    command.arg(world.host.path("memory/log")).arg(notes(world, uid)).arg(world.host.path("memory/stop"));
    command.arg((seed ^ u64::from(uid)).to_string()).stdout(Stdio::null()).spawn().unwrap()
}

impl Hand<'_> {
    /// One workspace's life, of six kinds, and a credential's.
    fn round(&mut self, round: u32) {
        let uid = if round.is_multiple_of(2) { ALICE } else { BOB };
        let other = ALICE + BOB - uid;
        let name = format!("w{round}");
        if round % 6 == 4 {
            self.create(uid, &name, &["--ephemeral"]);
            return self.secret(uid, round);
        }
        let (id, point) = self.create(uid, &name, &[]);
        self.write(uid, &id, &point, "mine");
        match round % 6 {
            0 => self.unmount(uid, &id),
            1 => {
                self.unmount(uid, &id);
                self.mount(uid, &id, None);
                self.write(uid, &id, &point, "more");
            }
            2 => self.give(&id, other),
            3 => self.remove(uid, &id),
            _ => {
                self.give(&id, other);
                let point = self.world.home(other).join(&name);
                self.mount(other, &id, Some(point.to_str().unwrap()));
                self.write(other, &id, &point, "more");
            }
        }
    }

    /// Does something, and remembers how it left what it was done to.
    fn promise<T>(
        &mut self,
        deed: &str,
        done: impl FnOnce(&World) -> T,
        about: impl FnOnce(&T) -> (String, String, State),
    ) -> T {
        let from = self.world.position();
        let result = done(self.world);
        let upto = self.world.position();
        let (workspace, key, state) = about(&result);
        self.told.push(Told { workspace, key, from, upto, deed: deed.to_owned(), torn: false, state });
        result
    }

    fn command(&mut self, uid: u32, args: &[&str], id: &str, state: State) {
        let done = |world: &World| world.host.json(uid, args);
        self.promise(args[0], done, |_| (id.to_owned(), ITSELF.to_owned(), state));
    }

    /// At a directory that `scorpioctl` makes.
    fn create(&mut self, uid: u32, name: &str, options: &[&str]) -> (String, PathBuf) {
        let point = self.world.home(uid).join(name);
        let state = if options.contains(&"--ephemeral") { State::Gone } else { State::Stands { uid } };
        let deed = ["create", "--ephemeral"][usize::from(state == State::Gone)];
        let id = self.promise(
            deed,
            |world| {
                let args = [&["mount", "repo:/", point.to_str().unwrap()], options].concat();
                world.host.json(uid, &args)["id"].as_str().unwrap().to_owned()
            },
            |id| (id.clone(), ITSELF.to_owned(), state),
        );
        (id, point)
    }

    fn write(&mut self, uid: u32, id: &str, point: &Path, name: &str) {
        let script = format!("cd '{}'; head -c 3000 /dev/urandom > {name}; sync {name} .", point.display());
        self.promise(
            "write",
            |world| world.host.sh_as(uid, &script),
            |_| {
                let sum = Sum::of(&fs::read(point.join(name)).unwrap());
                let state = State::Is { path: name.to_owned(), sum, mode: None, gone: None };
                (id.to_owned(), name.to_owned(), state)
            },
        );
    }

    fn unmount(&mut self, uid: u32, id: &str) {
        self.command(uid, &["unmount", id], id, State::Rests { uid });
    }

    fn mount(&mut self, uid: u32, id: &str, point: Option<&str>) {
        let args = [&["mount", "--workspace", id], point.as_slice()].concat();
        self.command(uid, &args, id, State::Stands { uid });
    }

    fn give(&mut self, id: &str, to: u32) {
        self.command(0, &["give", id, &to.to_string()], id, State::Rests { uid: to });
    }

    fn remove(&mut self, uid: u32, id: &str) {
        self.command(uid, &["remove", id, "--discard", "--yes"], id, State::Gone);
    }

    /// What a user reads an origin with is stored, or taken away.
    fn secret(&mut self, uid: u32, round: u32) {
        let token = (round % 12 == 4).then(|| format!("token-{round}"));
        let about = State::Secret { uid, token: token.clone() };
        self.promise(
            if token.is_some() { "login" } else { "logout" },
            |world| {
                let vault = vault(world);
                match token {
                    Some(token) => vault.store(&origin(), uid, &Secret::new(&token).unwrap()).unwrap(),
                    None => assert!(vault.forget(&origin(), uid).unwrap()),
                }
            },
            |()| (String::new(), format!("secret of {uid}"), about),
        );
    }
}

pub fn vault(world: &World) -> Vault {
    Vault::new(&world.host.path(world.layout.state))
}

pub fn origin() -> OriginName {
    "repo".parse().unwrap()
}
