//! What users see in a mount.

use std::{fs, process::Command, time::Duration};

use scorpio::{config::LowerKind, engine::OverlayEngine, origin::faults::Fault};

use crate::stack::{ALICE, BOB, MTIME, Plan, Stack};

const BOTH: [LowerKind; 2] = [LowerKind::Shared, LowerKind::PerOwner];

/// Type, mode, size, target and name of everything, and the digest of every file, in one order.
const INVENTORY: &str = "find . -mindepth 1 -type d -printf '%y %m %P\\0' -o -mindepth 1 -printf '%y %m %s %l %P\\0' | LC_ALL=C sort -z
    find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum -z";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_types_modes_and_bytes_are_those_of_a_checkout() {
    for lower in BOTH {
        let stack = Stack::start(Plan::new(lower)).await;
        let reference = stack.place(ALICE, "reference");
        let unpack = format!(
            "git -C {} -c tar.umask=0022 archive HEAD | tar x -C {} --no-same-owner -m",
            stack.at("repository").display(),
            reference.point.display()
        );
        assert!(Command::new("sh").args(["-c", &unpack]).status().unwrap().success());
        let alice = stack.place(ALICE, "ws");
        let mounted = stack.mount(&alice).await;
        let seen = alice.run_as(ALICE, INVENTORY);
        let expected = reference.run_as(0, INVENTORY);
        assert_eq!(seen.replace('\0', "\n"), expected.replace('\0', "\n"));
        assert!(seen.matches('\0').count() > 1000);
        let times = alice.run_as(ALICE, "find . -mindepth 1 -printf '%T@ %U %G\\n' | sort -u");
        assert_eq!(times, format!("{MTIME}.0000000000 {ALICE} {ALICE}\n"));
        assert_eq!(stack.faults.most_asked(), 1, "every object is fetched once");
        stack.engine.unmount(&alice.id, mounted.mount_id, false).await.unwrap();
        stack.assert_nothing_left();
        stack.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_walk_and_read_ask_the_daemon_nothing() {
    const WALK: &str = "find . -ls > /dev/null; find . -type f -print0 | xargs -0 cat > /dev/null
        stat absent 2> /dev/null || true; readlink src/link; ./run.sh";
    for lower in BOTH {
        let stack = Stack::start(Plan::new(lower)).await;
        let alice = stack.place(ALICE, "ws");
        let mounted = stack.mount(&alice).await;
        alice.run_as(ALICE, WALK);
        // Others on the host may drop the kernel's caches meanwhile: one quiet walk of a few shows what it remembers.
        let mut before = stack.requests();
        let quiet = (0..5).any(|_| {
            alice.run_as(ALICE, WALK);
            let former = std::mem::replace(&mut before, stack.requests());
            former == before
        });
        assert!(quiet, "the daemon is asked again and again: {before:?}");
        assert!(before["LOOKUP"] > 50, "{before:?}: the counter counts");
        stack.engine.unmount(&alice.id, mounted.mount_id, false).await.unwrap();
        stack.end().await;
    }
    // The counter is worth something: it moves when the kernel may not remember.
    let stack = Stack::start(Plan { entry_ttl: Duration::ZERO, ..Plan::new(LowerKind::Shared) }).await;
    let alice = stack.place(ALICE, "ws");
    let mounted = stack.mount(&alice).await;
    alice.run_as(ALICE, WALK);
    let before = stack.requests();
    alice.run_as(ALICE, WALK);
    assert!(stack.requests()["LOOKUP"] > before["LOOKUP"] + 500);
    stack.engine.unmount(&alice.id, mounted.mount_id, false).await.unwrap();
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_user_works_in_a_tree_of_their_own() {
    for lower in BOTH {
        let stack = Stack::start(Plan::new(lower)).await;
        let (alice, bob) = (stack.place(ALICE, "ws"), stack.place(BOB, "ws"));
        for home in [&alice, &bob] {
            // The mount must be closed by itself, not by the home above it.
            let above = home.point.parent().unwrap();
            fs::set_permissions(above, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        let mounts = (stack.mount(&alice).await, stack.mount(&bob).await);
        for (place, uid) in [(&alice, ALICE), (&bob, BOB)] {
            assert_eq!(
                place.run_as(uid, "stat -c '%u %g %a' . README run.sh"),
                format!("{uid} {uid} 700\n{uid} {uid} 644\n{uid} {uid} 755\n")
            );
            place.run_as(
                uid,
                "echo mine >> README; rm empty; mv wide broad; mv odd/100% moved; chmod 600 src/main.c
                 ln -s README new-link; ln README hard; mkdir -p a/b; touch -d @1000000000 src/Makefile
                 rm -r deep; mkdir deep; test ! -e deep/d; ./run.sh | grep -qx ran
                 test \"$(stat -c %Y src/Makefile)\" = 1000000000; test \"$(cat hard)\" = \"hello\nmine\"
                 test \"$(ls broad | wc -l)\" = 500; test ! -e wide; rm -r broad/file-1*; test \"$(ls broad | wc -l)\" = 400
                 make -s -C src main; test \"$(src/main)\" = built",
            );
            place.run_as(
                uid,
                "git init -q .; git add -A; git -c user.name=x -c user.email=x@x commit -qm all; git fsck --strict
                 git mv src source; git -c user.name=x -c user.email=x@x commit -qm move; test -z \"$(git status --porcelain)\"",
            );
            place.run_as(
                uid,
                "sqlite3 db 'pragma journal_mode=wal; create table t(n)' > /dev/null
                 for writer in 1 2 3 4; do
                   (for n in 1 2 3 4 5 6 7 8 9 10; do sqlite3 -cmd '.timeout 20000' db \"insert into t values($n)\"; done) &
                 done; wait; test \"$(sqlite3 db 'select count(*) from t; pragma integrity_check' | xargs)\" = '40 ok'",
            );
            assert_eq!(place.run_as(uid, "find . -not -user $(id -u) | head -n 3"), "");
            assert_eq!(place.run_as(uid, "find . -printf '%D\\n' | sort -u | wc -l"), "1\n", "one st_dev");
        }
        for (place, other) in [(&alice, BOB), (&bob, ALICE)] {
            for script in
                ["ls $0", "cat $0/README", "cat $0/src/link", "echo x > $0/new", "rm $0/README", "cd $0"]
            {
                let refused = place.beside_as(other, script);
                assert!(!refused.status.success(), "{script}");
            }
            let said = place.beside_as(other, "cat $0/README").stderr;
            assert!(String::from_utf8_lossy(&said).contains("Permission denied"));
        }
        assert_eq!(fs::read_to_string(alice.state.join("upper/README")).unwrap(), "hello\nmine\n");
        assert_eq!(stack.faults.most_asked(), 1, "one fetch per object for both users");
        stack.engine.unmount(&alice.id, mounts.0.mount_id, false).await.unwrap();
        stack.engine.unmount(&bob.id, mounts.1.mount_id, false).await.unwrap();
        stack.assert_nothing_left();
        stack.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_is_there_after_mounting_again() {
    let stack = Stack::start(Plan::new(LowerKind::Auto)).await;
    let alice = stack.place(ALICE, "ws");
    let first = stack.mount(&alice).await;
    alice.run_as(
        ALICE,
        "echo more >> README; mv wide broad; rm -r odd; mkdir odd; chmod 755 empty; ln -s x y",
    );
    let before = alice.run_as(ALICE, INVENTORY);
    stack.engine.unmount(&alice.id, first.mount_id, false).await.unwrap();
    fs::remove_dir_all(alice.state.join("work")).unwrap();
    fs::create_dir(alice.state.join("work")).unwrap();
    let second = stack.mount(&alice).await;
    assert_eq!(alice.run_as(ALICE, INVENTORY), before);
    stack.engine.unmount(&alice.id, second.mount_id, false).await.unwrap();
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_only_and_root_owned_workspaces_are_what_they_say() {
    for lower in BOTH {
        let stack = Stack::start(Plan::new(lower)).await;
        let alice = stack.place(ALICE, "ro");
        let spec = scorpio::engine::MountSpec { upper: alice.read_only(), ..stack.spec(&alice) };
        let mounted = stack.engine.mount(&spec).await.unwrap();
        alice.run_as(
            ALICE,
            "test \"$(stat -c '%u %a' .)\" = \"$(id -u) 700\"; cat README src/link > /dev/null; ./run.sh",
        );
        let refused = alice.try_as(ALICE, "echo x >> README").stderr;
        assert!(String::from_utf8_lossy(&refused).contains("Read-only file system"));
        assert!(!alice.try_as(BOB, "cat README").status.success());
        stack.engine.unmount(&alice.id, mounted.mount_id, false).await.unwrap();
        let root = stack.place(0, "ws");
        let mounted = stack.mount(&root).await;
        assert_eq!(root.run_as(0, "stat -c '%u %g' README; echo x >> README; tail -n 1 README"), "0 0\nx\n");
        let names: Vec<_> = stack.engine.sessions().into_iter().map(|session| session.name).collect();
        let expected =
            if lower == LowerKind::Shared { ["owner-0", "shared"] } else { ["owner-0", "owner-61001"] };
        assert_eq!(names, expected);
        stack.engine.unmount(&root.id, mounted.mount_id, false).await.unwrap();
        stack.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_fails_is_an_error_and_works_again_without_a_remount() {
    let plan = Plan { deadline: Duration::from_secs(6), ..Plan::new(LowerKind::Auto) };
    let stack = Stack::start(plan).await;
    let alice = stack.place(ALICE, "ws");
    let mounted = stack.mount(&alice).await;
    // Sizes cannot be checked against an id: those of the top are learned before the origin lies.
    assert_eq!(alice.run_as(ALICE, "ls -l > /dev/null; cat README"), "hello\n");
    for fault in [Fault::Refusing, Fault::BlackHole, Fault::Truncating, Fault::WrongBytes, Fault::Absent] {
        stack.faults.set(fault);
        for script in ["cat wide/file-007", "ls odd", "cat src/link", "cp large ../copy"] {
            let output = alice.try_as(ALICE, script);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains("Input/output error"), "{fault:?}: {script}: {said}");
        }
        assert_eq!(alice.run_as(ALICE, "cat README"), "hello\n", "what is cached stays");
        stack.faults.set(Fault::None);
    }
    assert_eq!(alice.run_as(ALICE, "cat wide/file-007; ls odd | wc -l; sha256sum < large"), {
        let repository = stack.at("repository");
        let text = "cat wide/file-007; ls odd | wc -l; sha256sum < large";
        let output = Command::new("sh").args(["-c", text]).current_dir(repository).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    });
    stack.engine.unmount(&alice.id, mounted.mount_id, false).await.unwrap();
    stack.end().await;
}
