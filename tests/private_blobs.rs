//! A file of one user's repository stays unknown to another user of the same daemon, whose own repository names its id.
//! Needs root.

#![allow(clippy::unwrap_used)] // a test that fails panics

mod support;

use std::path::Path;

use support::{ALICE, BOB, Host, LOWERS, lower};

/// What bob's repository says in each directory: the id of a file of alice's, the id of her large one, that of her
/// directory, and one that nobody has.
const STOLEN: [&str; 2] = ["small", "large"];

/// Two repositories, each for one user. Bob's names objects that it does not have.
fn host(kind: &str) -> Host {
    let extra = format!(
        r#"
        allow = ["{ALICE}"]
        [origin.bobs]
        kind = "git"
        path = "TOP/bobs"
        allow = ["{BOB}"]
        {}
        "#,
        lower(kind)
    );
    let mut host = Host::new("");
    let config = std::fs::read_to_string(host.path("scorpio.toml")).unwrap();
    let top = host.path("").display().to_string();
    let extra = extra.replace("TOP", top.trim_end_matches('/'));
    std::fs::write(host.path("scorpio.toml"), format!("{}\n{extra}", config.trim_end())).unwrap();
    host.sh(r#"
        export GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@t GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@t
        for repo in repo bobs; do git init -q -b main $repo; git -C $repo config gc.auto 0; done
        cd repo; mkdir dir
        echo "a secret" > small; head -c 300000 /dev/zero | tr '\0' x > large; echo inside > dir/inside
        git add -A; git commit -q -m private
        small=$(git rev-parse HEAD:small); large=$(git rev-parse HEAD:large); dir=$(git rev-parse HEAD:dir)
        nowhere=1234567890123456789012345678901234567890
        cd ../bobs
        one() { printf "100644 blob $1\tfile\n" | git mktree --missing; }
        deep() { printf "040000 tree $1\tdir\n" | git mktree --missing; }
        entry() { printf "040000 tree $2\t$1\n"; }
        top=$( { entry small $(one $small); entry large $(one $large); entry nofile $(one $nowhere);
                 entry deep $(deep $dir); entry nodeep $(deep $nowhere); } | git mktree)
        git update-ref refs/heads/main $(git commit-tree -m thief $top)
    "#);
    host.start();
    host
}

/// What `script` tells bob, and what he sees his origin's counters do meanwhile.
fn told(host: &Host, point: &Path, script: &str) -> (Option<i32>, String, [u64; 3]) {
    let counters = || {
        let stats = host.json(BOB, &["stats"]);
        assert!(stats["origins"].get("repo").is_none(), "alice's counters are not bob's to see");
        assert!(stats.get("cache").is_none(), "nor are those of the cache");
        ["fetched", "bytes", "failed"].map(|name| stats["origins"]["bobs"][name].as_u64().unwrap())
    };
    let before = counters();
    let output = host.try_sh_as(BOB, &format!("cd {}; {script}", point.display()));
    let after = counters();
    let text = [output.stdout, output.stderr].concat();
    let counted = [0, 1, 2].map(|index| after[index] - before[index]);
    (output.status.code(), String::from_utf8_lossy(&text).into_owned(), counted)
}

#[test]
fn a_private_file_is_to_others_like_one_that_exists_nowhere() {
    for kind in LOWERS {
        let host = host(kind);
        let (alices, _) = host.mount(ALICE, "alices", &[]);
        let read = format!("cd {}; cat small dir/inside; cat large | wc -c", alices.display());
        assert_eq!(host.sh_as(ALICE, &read), "a secret\ninside\n300000\n");
        let no = host.point(BOB, "no");
        let refused = |origin| host.refused(BOB, &["mount", origin, no.to_str().unwrap()]);
        assert_eq!(refused("repo:/"), refused("nothing:/"));

        let bobs = host.point(BOB, "bobs");
        host.json(BOB, &["mount", "bobs:/", bobs.to_str().unwrap()]);
        // The top directory, which they have in common.
        told(&host, &bobs, "ls");
        for script in ["stat -c %s DIR/file", "cat DIR/file", "cat DIR/file", "ls DIR"] {
            let nowhere = told(&host, &bobs, &script.replace("DIR", "nofile"));
            for dir in STOLEN {
                let (code, text, counted) = told(&host, &bobs, &script.replace("DIR", dir));
                let expected = (nowhere.0, nowhere.1.replace("nofile", dir), nowhere.2);
                assert_eq!((code, text, counted), expected, "{kind}: {script} in {dir}");
            }
        }
        let nowhere = told(&host, &bobs, "ls nodeep/dir");
        assert!(nowhere.1.contains("Input/output error"), "{nowhere:?}");
        let (code, text, counted) = told(&host, &bobs, "ls deep/dir");
        assert_eq!(
            (code, text, counted),
            (nowhere.0, nowhere.1.replace("nodeep", "deep"), nowhere.2),
            "{kind}"
        );

        // What his repository really gets is his.
        host.sh("cd repo; git cat-file blob HEAD:small > ../copy; cd ../bobs; git hash-object -w ../copy");
        assert_eq!(host.sh_as(BOB, &format!("cat {}/small/file", bobs.display())), "a secret\n");
        assert_eq!(host.sh_as(ALICE, &format!("cat {}/small", alices.display())), "a secret\n");
        let blobs = host.json(0, &["stats"])["cache"]["blobs"].as_u64().unwrap();
        assert_eq!(blobs, 3, "and is kept once");
    }
}
