//! Files whose sizes cannot be had: their names stay, whatever is done with them fails, and nothing of it lasts. Needs root.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails
#![allow(missing_docs)]

mod origin_fixture;
mod stack_fixture;

use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

use origin_fixture::{git, oid, want};
use scorpio::{config::LowerKind, origin::faults::Fault};
use stack_fixture::{ALICE, Ground, Plan, Stack, says, spawn};

const DEADLINE: Duration = Duration::from_secs(2);
/// How often the top is listed, each time anew.
const LISTINGS: usize = 10;
/// Files before and as many behind those of unknown size.
const AROUND: usize = 15;

const LOWERS: [LowerKind; 2] = [LowerKind::Shared, LowerKind::PerOwner];
const FAULTS: [Fault; 3] = [Fault::Refusing, Fault::BlackHole, Fault::Absent];

/// Ways to the content. Each gets a file of its own, so that each is the first to come after the origin is back: a program
/// that writes the file `m-NAME` to standard output, with and without asking for its size before.
const WAYS: [(&str, &str); 6] = [
    ("cat", "cat m-cat"),
    (
        "pread",
        "python3 -c \"$IN\nimport sys; f = open_('m-pread'); sys.stdout.buffer.write(os.pread(f, 1 << 20, 0))\"",
    ),
    (
        "splice",
        "python3 -c \"$IN\nf = open_('m-splice'); r, w = os.pipe()\nwhile n := os.splice(f, w, 4096): os.write(1, os.read(r, n))\"",
    ),
    ("sendfile", "python3 -c \"$IN\nf = open_('m-sendfile')\nwhile os.sendfile(1, f, None, 1 << 20): pass\""),
    (
        "mmap",
        "python3 -c \"$IN\nimport mmap, sys; f = open_('m-mmap'); sys.stdout.buffer.write(mmap.mmap(f, 0, prot=mmap.PROT_READ))\"",
    ),
    ("copy", "cp m-copy c && cat c && rm c"),
];

/// What these programs begin with.
const PROLOGUE: &str = "IN='import os; open_ = lambda name: os.open(name, os.O_RDONLY)'\n";

fn content(way: &str) -> String {
    // Neither empty nor whole pages.
    way.repeat(3000)
}

fn make_repository(path: &Path) {
    fs::create_dir_all(path).unwrap();
    for n in 0..AROUND {
        fs::write(path.join(format!("a-{n}")), format!("before {n}\n")).unwrap();
        fs::write(path.join(format!("z-{n}")), format!("behind {n}\n")).unwrap();
    }
    for (way, _) in WAYS {
        fs::write(path.join(format!("m-{way}")), content(way)).unwrap();
    }
    fs::write(path.join("m-removed"), "removed\n").unwrap();
    fs::write(path.join("m-appended"), "appended\n").unwrap();
    symlink("a-1", path.join("m-link")).unwrap();
    git(path, &["init", "-q", "-b", "main"]);
    git(path, &["add", "-A"]);
    git(path, &["commit", "-q", "-m", "all"]);
}

/// A host on which the sizes of the files around are known, and those of the `m-…` are not.
async fn stack(lower: LowerKind) -> Stack {
    let ground = Ground::new();
    let repository = ground.at("ill");
    make_repository(&repository);
    let stack = Stack::start(ground, Plan::new(lower, DEADLINE), &["ill"]).await;
    stack.mount(ALICE, "ill", "w").await;
    let (ill, blob) =
        ("ill".parse().unwrap(), |name: String| want(oid(&repository, &format!("HEAD:{name}"))));
    stack.store.fetch_tree(&ill, want(oid(&repository, "HEAD^{tree}"))).await.unwrap();
    let around = (0..AROUND).flat_map(|n| [blob(format!("a-{n}")), blob(format!("z-{n}"))]).collect();
    stack.store.fetch_sizes(&ill, around, 0).await.unwrap();
    let unknown = oid(&repository, "HEAD:m-cat");
    assert_eq!(stack.store.cached_size(&ill, unknown).unwrap(), None);
    stack
}

fn forget() {
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_whose_size_cannot_be_had_keeps_its_name_and_is_eio_until_it_is_there() {
    for (lower, fault) in LOWERS.into_iter().flat_map(|lower| FAULTS.map(|fault| (lower, fault))) {
        let context = format!("{lower:?} {fault:?}");
        let stack = stack(lower).await;
        let (at, truth) = (stack.at(&format!("home/{ALICE}/w")), stack.at("ill"));
        let names = says(0, &truth, "ls").await;
        stack.faults("ill").set(fault);
        for n in 0..LISTINGS {
            let ended = spawn(ALICE, &at, "ls").end().await;
            assert_eq!(ended.stderr(), "", "{context}: listing {n}");
            assert_eq!(ended.stdout(), names, "{context}: listing {n}");
            forget();
        }
        for (_, script) in WAYS {
            spawn(ALICE, &at, &format!("{PROLOGUE}{script}")).end().await.assert_eio(&context);
        }
        let others = ["stat m-cat", "printf more >> m-appended", "readlink -v m-link", "chmod 755 m-copy"];
        for script in others {
            spawn(ALICE, &at, script).end().await.assert_eio(&context);
        }
        if fault != Fault::BlackHole {
            let listed = says(ALICE, &at, "ls -l 2> /dev/null | wc -l || :").await;
            assert_eq!(listed, format!("{}\n", names.lines().count() + 1), "{context}: ls -l");
        }
        let rest = names.replace("m-removed\n", "");
        assert_eq!(says(ALICE, &at, "rm -f m-removed; ls").await, rest, "{context}: it can be removed");
        assert_eq!(says(ALICE, &at, "cat a-1 z-1 2>&1 || :").await.matches("Input/output").count(), 2);

        stack.faults("ill").set(Fault::None);
        for (way, script) in WAYS {
            let found = says(ALICE, &at, &format!("{PROLOGUE}{script}")).await;
            assert!(found == content(way), "{context}: {way}: {} bytes", found.len());
        }
        let sizes = "stat -c '%n %s' m-[a-ln-qs-z]*";
        assert_eq!(says(ALICE, &at, sizes).await, says(0, &truth, sizes).await, "{context}");
        let more = "printf more >> m-appended; cat m-appended; readlink m-link; cat m-link";
        assert_eq!(says(ALICE, &at, more).await, "appended\nmorea-1\nbefore 1\n", "{context}");
        stack.stop().await;
    }
}
