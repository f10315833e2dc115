//! SQLite: four processes write at once, in both kinds of journal, in a new file and in one that is copied up.

use crate::{
    Case, Family, Outcome, cases,
    place::Place,
    support::{ALICE, BOB},
    table,
};

/// Commits that the writers make together, and the writers.
const COMMITS: u32 = 600;
const WRITERS: u32 = 4;

const TREE: &str = r#"
    for mode in wal delete; do
        sqlite3 $mode.db "PRAGMA journal_mode=$mode; CREATE TABLE t(writer, n, UNIQUE(writer, n)); INSERT INTO t VALUES(9, 0)" >/dev/null
        sqlite3 $mode.db 'PRAGMA wal_checkpoint(TRUNCATE)' >/dev/null; rm -f $mode.db-*
    done
"#;

const CASES: &[Case] = cases![
    four_writers_with_wal_in_a_new_database,
    four_writers_with_wal_in_a_database_of_the_lower,
    four_writers_with_a_rollback_journal_in_a_new_database,
    four_writers_with_a_rollback_journal_in_a_database_of_the_lower,
    a_killed_writer_leaves_a_whole_database,
];

#[test]
fn databases_lose_nothing() {
    let users = &[ALICE, BOB];
    table::check(&Family { title: "Databases", tree: TREE.to_owned(), users, kept: false, cases: CASES });
}

/// Says how many rows are there, and what the check says.
fn four_writers(place: &Place, mode: &str, file: &str) -> Outcome {
    let each = COMMITS / WRITERS;
    place.sh(&format!(
        r#"
        test "$(sqlite3 {file} 'PRAGMA journal_mode={mode}')" = {mode}
        sqlite3 {file} 'CREATE TABLE IF NOT EXISTS t(writer, n, UNIQUE(writer, n))'
        before=$(sqlite3 {file} 'SELECT count(*) FROM t')
        for writer in $(seq {WRITERS}); do
            (echo .timeout 120000; for n in $(seq {each}); do echo "INSERT INTO t VALUES($writer, $n);"; done) \
                | sqlite3 -bail {file} & pids="$pids $!"
        done
        for pid in $pids; do wait $pid; done
        echo $(($(sqlite3 {file} 'SELECT count(*) FROM t') - before)) of {COMMITS}, \
            $(sqlite3 {file} 'SELECT count(DISTINCT writer) FROM t WHERE writer < 9') writers, \
            $(sqlite3 {file} 'PRAGMA journal_mode; PRAGMA integrity_check')
        "#
    ))
}

fn four_writers_with_wal_in_a_new_database(place: &Place) -> Outcome {
    four_writers(place, "wal", "new-wal.db")
}

fn four_writers_with_wal_in_a_database_of_the_lower(place: &Place) -> Outcome {
    four_writers(place, "wal", "wal.db")
}

fn four_writers_with_a_rollback_journal_in_a_new_database(place: &Place) -> Outcome {
    four_writers(place, "delete", "new-delete.db")
}

fn four_writers_with_a_rollback_journal_in_a_database_of_the_lower(place: &Place) -> Outcome {
    four_writers(place, "delete", "delete.db")
}

/// Every row whose commit was told is there; then the same after a remount.
fn a_killed_writer_leaves_a_whole_database(place: &Place) -> Outcome {
    place.sh(r#"
        sqlite3 killed.db 'PRAGMA journal_mode=wal; CREATE TABLE t(n PRIMARY KEY)' >/dev/null
        for round in 1 2 3 4 5; do
            rm -f told
            /usr/bin/python3 -c '
import sqlite3, sys
base = sqlite3.connect("killed.db", timeout=60, isolation_level=None)
n = base.execute("select coalesce(max(n), 0) from t").fetchone()[0]
while True:
    n += 1
    base.execute("insert into t values (?)", (n,))
    print(n, flush=True)' > told &
            writer=$!
            until [ "$(cat told 2>/dev/null | wc -l)" -ge 20 ]; do sleep 0.01; done
            kill -9 $writer; wait $writer || true
            told=$(grep -E '^[0-9]+$' told | tail -n 2 | head -n 1)
            test "$(sqlite3 killed.db 'SELECT max(n) FROM t')" -ge "$told"
            test "$(sqlite3 killed.db 'SELECT max(n) - count(*) FROM t')" = 0
            test "$(sqlite3 killed.db 'PRAGMA integrity_check')" = ok
        done
        "#)
}
