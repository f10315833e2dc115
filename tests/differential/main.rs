//! Random operations in a workspace and in a plain directory of the same files: the same answers, and the same tree.
//!
//! The plain directory is ext4's, made by `git archive`: it stands for what a program may expect. After some operations
//! everything in both is compared, the kernel's caches are dropped on the way, and at the end the workspace is unmounted,
//! mounted, and compared again. What fails is made shorter before it is told. Needs root.
//!
//! `SCORPIO_DIFFERENTIAL_SEED` begins with another seed, `SCORPIO_DIFFERENTIAL_SECONDS` goes on for so long.
#![allow(clippy::unwrap_used, unreachable_pub)] // tests may

mod known;
mod operations;
mod sides;
#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use operations::Dice;
use serde_json::{Value, json};
use sides::Sides;
use support::{ALICE, Host, LOWERS, lower};

/// Sequences for each kind of lower, if nothing is said.
const SEQUENCES: u64 = 8;
/// Operations of a sequence.
const OPERATIONS: usize = 400;
/// Operations after which everything is compared.
const EVERY: usize = 50;
/// Runs that may be spent on making a failure shorter.
const SHORTER: usize = 150;

/// What it begins with: a file of each size that matters, an executable, symlinks, odd names, directories in one another.
const REPOSITORY: &str = r"
    mkdir -p d0/sub d1/deep/er
    for dir in . d0 d0/sub d1 d1/deep/er; do
        printf 'a of %s\n' $dir > $dir/a; : > $dir/empty
        head -c 70000 /dev/zero | tr '\0' x > $dir/big; printf '#!/bin/sh\n' > $dir/exec; chmod 755 $dir/exec
    done
    printf same > same; cp same d0/same; ln -s a link; ln -s d0 to-d0; ln -s ../a d0/link; ln -s nowhere d1/link
    odd=$(printf 'odd \n%%\377'); printf odd > $odd; printf odd > d1/$odd
    git add -A; git commit -q -m all";

/// Where two sides differ: after how many operations, in what, and both answers.
struct Difference {
    after: usize,
    asked: Value,
    plain: Value,
    mount: Value,
}

#[test]
fn random_operations_do_what_they_do_in_a_plain_directory() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let first = number("SCORPIO_DIFFERENTIAL_SEED").unwrap_or(1);
    let seconds = number("SCORPIO_DIFFERENTIAL_SECONDS").map(Duration::from_secs);
    let hosts = LOWERS.map(|kind| {
        let host = Host::with_repo(&lower(kind), &format!("IFS=''; {REPOSITORY}"));
        host.sh("chmod 755 . && mkdir plain && chmod 755 plain");
        (kind, host)
    });
    let begin = Instant::now();
    let more = |done: u64| seconds.map_or(done < SEQUENCES, |limit| begin.elapsed() < limit);
    let (mut done, mut worked) = (0, 0);
    while more(done) {
        for (kind, host) in &hosts {
            let seed = first + done;
            let mut dice = Dice::new(seed);
            let operations: Vec<_> = (0..OPERATIONS).map(|_| dice.operation()).collect();
            if let Some(difference) = run(host, &operations, EVERY, &mut worked) {
                fail(host, kind, seed, &operations, &difference);
            }
        }
        done += 1;
    }
    let all = done * (OPERATIONS * LOWERS.len()) as u64;
    println!("{all} operations, {worked} of which worked, on {LOWERS:?} in {:?}", begin.elapsed());
    assert!(worked > all / 5, "most of what is done must not fail at once: {worked} of {all}");
}

/// Both do the operations; whatever differs first.
fn run(host: &Host, operations: &[Value], every: usize, worked: &mut u64) -> Option<Difference> {
    let mut sides = Sides::new(host);
    for (number, piece) in operations.chunks(every).enumerate() {
        let before = number * every;
        for (at, (plain, mount)) in sides.both(piece).into_iter().enumerate() {
            let asked = &piece[at];
            *worked += u64::from(!plain.as_str().is_some_and(|answer| answer.starts_with('E')));
            if plain != mount && !known::is_known(asked, &plain, &mount) {
                return Some(Difference { after: before + at + 1, asked: asked.clone(), plain, mount });
            }
        }
        let after = before + piece.len();
        if number % 2 == 1 {
            sides::drop_names();
        }
        if let Some((asked, plain, mount)) = sides.trees() {
            return Some(Difference { after, asked, plain, mount });
        }
    }
    sides.remount();
    sides.trees().map(|(asked, plain, mount)| Difference {
        after: operations.len(),
        asked: json!(["after a remount", asked]),
        plain,
        mount,
    })
}

fn fail(host: &Host, kind: &str, seed: u64, operations: &[Value], difference: &Difference) -> ! {
    let (shortest, difference) = shortened(host, operations, difference);
    let told: Vec<_> = shortest.iter().map(Value::to_string).collect();
    panic!(
        "seed {seed}, lower {kind}: {}\n  plain directory {}\n  workspace       {}\nafter\n{}",
        difference.asked,
        difference.plain,
        difference.mount,
        told.join("\n")
    );
}

/// The shortest beginning that still fails, without what it fails without.
fn shortened(host: &Host, operations: &[Value], first: &Difference) -> (Vec<Value>, Difference) {
    // One comparison after each operation finds which of the last ones it was.
    let found = run(host, &operations[..first.after], 1, &mut 0).unwrap_or(Difference {
        after: first.after,
        asked: first.asked.clone(),
        plain: first.plain.clone(),
        mount: first.mount.clone(),
    });
    let mut kept = operations[..found.after].to_vec();
    let mut difference = found;
    let (mut runs, mut size) = (0, kept.len() / 2);
    while size > 0 && runs < SHORTER {
        let mut from = kept.len().saturating_sub(size);
        loop {
            let to = (from + size).min(kept.len());
            let fewer = [&kept[..from], &kept[to..]].concat();
            runs += 1;
            if let Some(shorter) = run(host, &fewer, EVERY, &mut 0).filter(|_| runs < SHORTER) {
                kept = fewer[..shorter.after].to_vec();
                difference = shorter;
            }
            if from == 0 {
                break;
            }
            from = from.min(kept.len()).saturating_sub(size);
        }
        size /= 2;
    }
    (kept, difference)
}

/// What is said to be found is found: one byte more, one mode, one name.
#[test]
fn a_difference_is_found_and_told_with_the_operations_that_lead_to_it() {
    let host = Host::with_repo("", &format!("IFS=''; {REPOSITORY}"));
    host.sh("chmod 755 . && mkdir plain && chmod 755 plain");
    let mut sides = Sides::new(&host);
    assert!(sides.trees().is_none());
    for script in ["printf x >> a", "chmod 600 d0/a", "touch new", "rm -r d1/deep", "touch -d @5 same"] {
        let mut sides = Sides::new(&host);
        host.sh_as(ALICE, &format!("cd {} && {script}", sides.mount_point().display()));
        assert!(sides.trees().is_some(), "{script}");
    }
    let answers = sides.both(&[json!(["mkdir", "d0", 0o755]), json!(["readall", "same"])]);
    assert_eq!(answers[0].0, json!("EEXIST"));
    assert!(answers.iter().all(|(plain, mount)| plain == mount));
}

/// Every difference that is forgiven, or kept out of the way of, happens as `docs/SEMANTICS.md` says.
#[test]
fn what_differs_is_what_the_page_says() {
    let host = Host::with_repo("", &format!("IFS=''; {REPOSITORY}"));
    host.sh("chmod 755 . && mkdir plain && chmod 755 plain");
    let mut sides = Sides::new(&host);
    let mut differs = |operation: Value, on_plain: Value, on_mount: Value| {
        let answer = sides.both(std::slice::from_ref(&operation)).remove(0);
        assert_eq!(answer, (on_plain, on_mount), "{operation}");
    };
    // What was removed and never changed cannot be copied up any more.
    differs(json!(["open", 0, "d0/a", libc::O_RDONLY, 0]), json!("ok"), json!("ok"));
    differs(json!(["unlink", "d0/a"]), json!(null), json!(null));
    let links = |links: u32| json!(["0o100644", ALICE, ALICE, 8, links]);
    differs(json!(["fstat", 0]), links(0), links(1));
    differs(json!(["exactly fchmod", 0, 0o600]), json!(null), json!("EEXIST"));
    differs(json!(["exactly futimens", 0, 100_000_000]), json!(null), json!("EEXIST"));
    // The two lie on different file systems.
    differs(json!(["open", 1, "same", libc::O_RDONLY, 0]), json!("ok"), json!("ok"));
    differs(json!(["open", 2, "new", libc::O_RDWR | libc::O_CREAT, 0o644]), json!("ok"), json!("ok"));
    differs(json!(["exactly copyrange", 1, 2, 4]), json!(4), json!("EXDEV"));
    // Data that is copied up after its metadata does not bring its time along.
    let timed = json!(["0o100644", ALICE, ALICE, 8, 1, 100_000_000_000_000_000_u64]);
    let untimed = json!(["0o100644", ALICE, ALICE, 8, 1]);
    differs(json!(["exactly utimens", "d1/a", 100_000_000]), json!(null), json!(null));
    differs(json!(["stat", "d1/a"]), timed.clone(), timed.clone());
    differs(json!(["open", 3, "d1/a", libc::O_RDWR, 0]), json!("ok"), json!("ok"));
    differs(json!(["stat", "d1/a"]), timed, untimed);
    // Attributes: none, and told in other words.
    differs(json!(["xattrs", "exec"]), json!({}), json!("ENOTSUP"));
    differs(json!(["getxattr", "exec", "user.one"]), json!("ENODATA"), json!("ENOTSUP"));
    differs(json!(["removexattr", "exec", "user.one"]), json!("ENODATA"), json!("ENOTSUP"));
}
