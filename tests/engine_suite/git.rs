//! git at work inside, while the kernel is made to forget what it can.

use crate::{
    Case, Family, OK, Outcome, cases,
    names::compare,
    place::{Forgetful, Place},
    support::ALICE,
    table,
};

const TREE: &str = r#"
    for d in $(seq 0 9); do mkdir -p src/d$d; for f in $(seq 0 9); do echo "line $d $f" > src/d$d/f$f; done; done
    seq 2000 > long; printf '#!/bin/sh\n' > run; chmod 755 run; ln -s long link
"#;

/// Numbers of files are not looked at: caches are dropped four times a second, and a file that was copied up has another
/// number then, which git would take for a change between two looks of one command. What it does by itself is in
/// `unlike.rs`, `what_git_says_of_a_file_after_its_copy_up`.
const SETTINGS: &str =
    "git config --global user.name n; git config --global user.email e@e; git config --global gc.auto 0;
    git config --global core.checkStat minimal;";

const CASES: &[Case] = cases![
    init_and_commit_of_what_is_there,
    checkout_back_and_forth,
    rebase_and_merge,
    clone_inside,
    gc_and_fsck_while_caches_are_dropped,
    the_repository_is_whole_after_a_remount,
];

#[test]
fn git_finds_nothing_missing() {
    let users = &[ALICE];
    table::check(&Family { title: "git", tree: TREE.to_owned(), users, kept: false, cases: CASES });
}

fn git(place: &Place, script: &str) -> Outcome {
    let _forgetful = Forgetful::new();
    place.sh(&format!("{SETTINGS} {script}"))
}

fn init_and_commit_of_what_is_there(place: &Place) -> Outcome {
    git(
        place,
        r#"
        git init -q -b main . && git add -A && git commit -q -m first; test -z "$(git status --porcelain)"
        test "$(git ls-files | wc -l)" = 103; git ls-files -s run link | cut -c1-6 | tr '\n' ' '
        "#,
    )
}

fn checkout_back_and_forth(place: &Place) -> Outcome {
    git(
        place,
        r#"
        git mv src/d0 src/moved; sed -i 's/^100$/one hundred/' long; git rm -q -r src/d1; mkdir src/d1; echo new > src/d1/new
        git add -A; git commit -q -m second
        for round in 1 2; do
            git checkout -q HEAD~1; test -z "$(git status --porcelain)"; test -e src/d0/f0; test ! -e src/moved
            git checkout -q main; test -z "$(git status --porcelain)"; test ! -e src/d0; test -e src/moved/f0
            test "$(ls src/d1)" = new
        done
        "#,
    )
}

fn rebase_and_merge(place: &Place) -> Outcome {
    git(
        place,
        r#"
        git checkout -q -b topic HEAD~1
        for n in 2 3 4 5 6; do echo "topic $n" >> src/d$n/f0; git commit -q -a -m "topic $n"; done
        git rebase -q main; test "$(git log --format=%s | tr '\n' ' ')" = 'topic 6 topic 5 topic 4 topic 3 topic 2 second first '
        git checkout -q -b other HEAD~3; echo other >> src/d9/f9; git commit -q -a -m other; git merge -q -m merge topic
        test "$(tail -n 1 src/d6/f0)" = 'topic 6'; test -z "$(git status --porcelain)"
        echo change >> long; git stash -q; test -z "$(git status --porcelain)"; git stash pop -q; git checkout -q long
        "#,
    )
}

fn clone_inside(place: &Place) -> Outcome {
    git(
        place,
        r#"
        git clone -q --no-local . src/clone; git clone -q --shared . linked; git -C src/clone fsck --strict --no-dangling
        diff -r --exclude .git --exclude clone --exclude linked . src/clone; git worktree add -q tree main; test -e tree/long
        git worktree remove tree; rm -rf linked
        "#,
    )
}

fn gc_and_fsck_while_caches_are_dropped(place: &Place) -> Outcome {
    git(
        place,
        r#"
        rm -rf src/clone
        for round in 1 2 3; do
            echo $round >> src/d7/f7; git commit -q -a -m "round $round"; git repack -q -a -d; git gc -q --prune=now
            git fsck --full --strict --no-dangling; test -z "$(git status --porcelain)"
        done
        git reflog expire --expire=now --all; git gc -q --aggressive --prune=now; git fsck --full --strict
        test "$(git log --format=%s | wc -l)" = 12
        "#,
    )
}

fn the_repository_is_whole_after_a_remount(place: &Place) -> Outcome {
    let before = place.everything();
    place.mount_again();
    compare(&before, &place.everything())?;
    git(
        place,
        "git fsck --full --strict; test -z \"$(git status --porcelain)\"; git checkout -q main; git checkout -q topic",
    )?;
    Ok(OK.to_owned())
}
