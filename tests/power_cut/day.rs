//! What is logged, and cut: a day's work, or a start of the daemon on what a cut has left.

use nix::sys::signal::Signal::SIGTERM;

use crate::{
    after::{self, Seen},
    dice::Dice,
    hand,
    log::{Cut, Disks, Entry, Log, Unflushed, What},
    promises::Promises,
    world::{Layout, World},
};

/// Two users' work, commands that were given meanwhile, and what must not be lost of it.
pub struct Day {
    pub world: World,
    pub log: Log,
    pub promises: Promises,
    /// The log's length before and after.
    pub from: u64,
    pub upto: u64,
    disks: Disks,
}

impl Day {
    pub fn new(layout: &'static Layout, rounds: u32, seed: u64) -> Day {
        let (mut world, new) = World::new(layout);
        let from = world.position();
        world.host.start();
        let promises = Promises::new(hand::work(&world, rounds, seed));
        let upto = world.position();
        world.host.end(SIGTERM);
        let log = world.unplug();
        Day { world, log, disks: Disks::new(new), promises, from, upto }
    }

    /// Cuts, in order: after each command when it has just been acknowledged, and `more` of them when anything has, after
    /// flushes, and at any moment.
    pub fn cuts(&self, more: usize, dice: &mut Dice) -> Vec<Cut> {
        let after = |deed: &str| self.promises.moments(|told| told.deed == deed);
        let deeds = self.promises.deeds().into_iter().map(|deed| dice.pick(&after(deed)));
        let deeds: Vec<_> = deeds.map(|at| Cut { at, unflushed: Unflushed::Lost }).collect();
        let moments = self.moments(more, dice).into_iter();
        let any: Vec<_> = moments.map(|at| Cut { at, unflushed: Unflushed::any(dice) }).collect();
        in_order([deeds, any].concat())
    }

    fn moments(&self, count: usize, dice: &mut Dice) -> Vec<u64> {
        let within = |entry: &&Entry| (self.from..=self.upto).contains(&entry.end);
        let entries = || self.log.entries.iter().filter(within);
        let any: Vec<_> = entries().map(|entry| entry.end).collect();
        let flushes = entries().filter(|entry| matches!(entry.what, What::Flush));
        let flushes: Vec<_> = flushes.map(|entry| entry.end).collect();
        let told = self.promises.moments(|_| true);
        let pick = |number| match number % 4 {
            0 | 1 => dice.pick(&told),
            2 => dice.pick(&flushes),
            _ => dice.pick(&any),
        };
        (0..count).map(pick).collect()
    }

    /// What is seen after `cut`, which does not lie before an earlier one, and what it left on the disks.
    pub fn after(&mut self, cut: &Cut) -> (Seen, Vec<Vec<u8>>) {
        let images = self.disks.after(&self.log, cut);
        self.world.boot_with(&images);
        let seen = after::look(&mut self.world, &self.promises, cut.at);
        self.world.unmount();
        (seen, images)
    }
}

/// What disks are told while their journals are replayed, and a daemon comes up and ends.
pub struct Start {
    log: Log,
    disks: Disks,
}

impl Start {
    pub fn new(world: &mut World, images: Vec<Vec<u8>>) -> Start {
        world.plug(&images);
        world.host.start();
        world.host.end(SIGTERM);
        Start { log: world.unplug(), disks: Disks::new(images) }
    }

    /// Cuts at any moments of it, in order.
    pub fn cuts(&self, count: usize, dice: &mut Dice) -> Vec<Cut> {
        let ends: Vec<_> = self.log.entries.iter().map(|entry| entry.end).collect();
        in_order((0..count).map(|_| Cut { at: dice.pick(&ends), unflushed: Unflushed::any(dice) }).collect())
    }

    /// What is seen of what was promised before the first cut, after a second one in this start.
    pub fn after(&mut self, world: &mut World, promises: &Promises, first: &Cut, second: &Cut) -> Seen {
        let images = self.disks.after(&self.log, second);
        world.boot_with(&images);
        let seen = after::look(world, promises, first.at);
        world.unmount();
        seen
    }
}

fn in_order(mut cuts: Vec<Cut>) -> Vec<Cut> {
    cuts.sort_unstable_by_key(|cut| cut.at);
    cuts
}
