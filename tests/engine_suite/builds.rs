//! Real builds, and the same builds while the daemon is killed again and again.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use crate::{
    Case, Family, NOT_HERE, Outcome, cases, long,
    place::{Forgetful, Place},
    support::{ALICE, crates},
    table,
};

/// What is waited between a start of the daemon and its next death.
const LIFE: Duration = Duration::from_secs(2);

/// A C project, and a cargo package of a few modules with a dependency beside it.
fn tree() -> String {
    format!(
        r#"
        cp -R {crates}/lmdb-master-sys-*/lmdb/libraries/liblmdb liblmdb
        mkdir -p package/src package/dep/src
        printf '[package]\nname = "small"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\ndep = {{ path = "dep" }}\n[workspace]\n' > package/Cargo.toml
        printf '[package]\nname = "dep"\nversion = "0.1.0"\nedition = "2021"\n' > package/dep/Cargo.toml
        for n in $(seq 30); do echo "pub fn f$n() -> u32 {{ $n }}" > package/dep/src/m$n.rs; echo "pub mod m$n;" >> package/dep/src/lib.rs; done
        printf 'fn main() {{ println!("built here {{}}", dep::m7::f7()); }}\n#[test]\nfn passes() {{}}\n' > package/src/main.rs
        "#,
        crates = crates().display()
    )
}

const CASES: &[Case] = cases![
    make_builds_and_knows_what_it_built,
    cargo_builds_and_knows_what_it_built,
    builds_while_the_daemon_is_killed_every_two_seconds,
];

#[test]
fn builds_work() {
    table::check(&Family { title: "Builds", tree: tree(), users: &[ALICE], kept: true, cases: CASES });
}

const MAKE: &str = r#"
    cd liblmdb; make -s clean; make -s -j2 mtest mdb_stat >/dev/null; rm -rf testdb; mkdir testdb; ./mtest > /dev/null
    ./mdb_stat testdb | grep -q Entries; cd ..
"#;

fn cargo(place: &Place) -> String {
    let chain = place.tool_chain();
    format!(
        "export PATH='{}':$PATH CARGO_HOME=$HOME/cargo; cd package; rm -rf target
         test \"$(cargo run --offline -q)\" = 'built here 7'; cd ..",
        chain.display()
    )
}

fn make_builds_and_knows_what_it_built(place: &Place) -> Outcome {
    place.sh(&format!(
        "{MAKE} test -z \"$(make -C liblmdb mtest mdb_stat | grep -v 'is up to date\\|Entering\\|Leaving')\""
    ))
}

fn cargo_builds_and_knows_what_it_built(place: &Place) -> Outcome {
    place.sh(&format!(
        "{}; cd package; cargo test --offline -q | grep -q '1 passed'; \
         test \"$(cargo build --offline 2>&1 | grep -c Compiling)\" = 0 || exit 1
         touch src/main.rs; test \"$(cargo build --offline 2>&1 | grep -c Compiling)\" = 1",
        cargo(place)
    ))
}

fn builds_while_the_daemon_is_killed_every_two_seconds(place: &Place) -> Outcome {
    if !place.kind.is_scorpio() {
        return Ok(NOT_HERE.to_owned());
    }
    let wanted = if long() { 60 } else { 6 };
    let script = format!("{MAKE} {} ", cargo(place));
    let (_forgetful, done) = (Forgetful::new(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let builder = scope.spawn(|| {
            let mut outcome = Ok(String::new());
            while outcome.is_ok() && !done.load(Relaxed) {
                outcome = place.sh(&script);
            }
            done.store(true, Relaxed);
            outcome
        });
        for _ in 0..wanted {
            std::thread::sleep(LIFE);
            place.kill_daemon();
            if done.load(Relaxed) {
                break;
            }
        }
        done.store(true, Relaxed);
        builder.join().unwrap()
    })
}
