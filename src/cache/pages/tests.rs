//! No false alarm on what LMDB writes, and no crash of LMDB on what passes.
#![allow(clippy::cast_possible_truncation)] // bytes made from counters

use std::{fs, path::PathBuf};

use tempfile::TempDir;

use super::*;
use crate::cache::database::{DATA_FILE, Database, TABLE_NAMES, put_sealed};

/// Few enough that keys are met again, many enough for trees of several levels.
const KEYS: u64 = 300;

/// A small generator of numbers, the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn data(dir: &TempDir) -> PathBuf {
    dir.path().join(DATA_FILE)
}

/// Writes, overwrites and deletes values of all sizes; some transactions are dropped, some run beside a reader.
fn churn(dir: &TempDir, seed: u64, transactions: u64, mut after_each: impl FnMut()) {
    let database = Database::open(dir.path(), 1 << 30).unwrap();
    database.begin_epoch(&format!("boot {seed}")).unwrap();
    let mut dice = Dice(seed);
    let mut reader = None;
    for _ in 0..transactions {
        match dice.below(6) {
            0 => reader = Some(database.env.read_txn().unwrap()),
            1 => reader = None,
            _ => {}
        }
        let mut txn = database.env.write_txn().unwrap();
        for _ in 0..dice.below(40) {
            let table = [database.trees, database.blobs, database.index][dice.below(3) as usize];
            let key = (dice.below(KEYS) * 0x9e37_79b9).to_be_bytes();
            let largest = [40, 600, 9000][dice.below(3) as usize];
            match dice.below(3) {
                0 => drop(table.delete(&mut txn, &key).unwrap()),
                _ => put_sealed(table, &mut txn, &key, &vec![7; dice.below(largest) as usize]).unwrap(),
            }
        }
        match dice.below(8) {
            0 => txn.abort(),
            _ => txn.commit().unwrap(),
        }
        after_each();
    }
    drop(reader);
}

#[test]
fn whatever_lmdb_wrote_passes() {
    let dir = TempDir::new().unwrap();
    for seed in 0..3 {
        churn(&dir, seed, 80, || check(&data(&dir), &TABLE_NAMES).unwrap());
    }
}

#[test]
fn a_new_database_passes_and_a_foreign_table_does_not() {
    let dir = TempDir::new().unwrap();
    let database = Database::open(dir.path(), 1 << 30).unwrap();
    database.begin_epoch("boot").unwrap();
    drop(database);
    check(&data(&dir), &TABLE_NAMES).unwrap();
    assert!(check(&data(&dir), &TABLE_NAMES[1..]).is_err());
}

/// What passes may be read and written by LMDB in this very process: a crash here is the failure.
#[test]
fn what_passes_does_not_crash_lmdb() {
    let template = TempDir::new().unwrap();
    churn(&template, 9, 60, || {});
    let whole = fs::read(data(&template)).unwrap();
    // Content is of no interest here: branches, leaves and meta pages, old and new.
    let is_structure = |page: &u64| {
        let head = &whole[*page as usize * 4096..][..12];
        u64_at(head, 0) == *page && [PAGE_BRANCH, PAGE_LEAF, PAGE_META].contains(&u16_at(head, 10))
    };
    let pages: Vec<u64> = (0..whole.len() as u64 / 4096).filter(is_structure).collect();
    let mut dice = Dice(1);
    let (mut passed, mut refused) = (0, 0);
    for round in 0..300 {
        let dir = TempDir::new().unwrap();
        let mut bytes = whole.clone();
        let page = pages[dice.below(pages.len() as u64) as usize] * 4096;
        // Mostly the head of a page, sometimes anywhere in it.
        let at = page + dice.below([16, 48, 152, 4096][round % 4]);
        bytes[at as usize] ^= 1 << dice.below(8);
        fs::write(data(&dir), &bytes).unwrap();
        if check(&data(&dir), &TABLE_NAMES).is_err() {
            refused += 1;
            continue;
        }
        passed += 1;
        read_and_write(&dir);
    }
    assert!(passed > 20 && refused > 40, "{passed} passed, {refused} refused");
}

fn read_and_write(dir: &TempDir) {
    let database = Database::open(dir.path(), 1 << 30).unwrap();
    let tables = [database.trees, database.blobs, database.index];
    let txn = database.env.read_txn().unwrap();
    for table in tables {
        let read: usize = table
            .iter(&txn)
            .unwrap()
            .map(|entry| entry.unwrap().1.iter().map(|byte| usize::from(*byte)).sum::<usize>())
            .sum();
        assert!(read > 0);
    }
    drop(txn);
    for round in 0u64..10 {
        let mut txn = database.env.write_txn().unwrap();
        for table in tables {
            for number in 0u64..20 {
                let key = ((round * 20 + number) * 0x9e37_79b9).to_be_bytes();
                put_sealed(table, &mut txn, &key, &[1; 3000]).unwrap();
            }
        }
        txn.commit().unwrap();
    }
}
