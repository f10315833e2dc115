//! What cannot be mounted is refused with one clear answer, and leaves nothing behind. Needs root.

#![allow(clippy::unwrap_used)] // a test that fails panics

mod support;

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use serde_json::{Value, json};
use support::{ALICE, BOB, Host, LOWERS, lower};

const REPOSITORY: &str =
    "mkdir dir && echo x > dir/file && ln -s dir link && git add . && git commit -q -m first && git tag v1";

/// That there is nothing but what `ids` names, and that the daemon is well.
#[track_caller]
fn assert_only(host: &Host, ids: &[&str], after: &str) {
    let listed = host.json(0, &["list", "--all"]);
    let listed: Vec<_> = listed.as_array().unwrap().iter().map(|view| view["id"].as_str().unwrap()).collect();
    assert_eq!(listed, ids, "workspaces after {after}");
    assert_eq!(host.mounts().len(), ids.len(), "mounts after {after}");
    assert_eq!(host.json(0, &["orphans", "list"]), json!([]), "orphans after {after}");
    let kept = fs::read_dir(host.path("state/workspaces")).unwrap();
    let kept =
        kept.filter(|entry| !entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".trash-"));
    assert_eq!(kept.count(), ids.len(), "directories after {after}");
    assert_eq!(fs::read_dir(host.path("run/layers")).unwrap().count(), 0, "layers after {after}");
    assert_eq!(host.json(ALICE, &["health"])["problems"], json!([]), "problems after {after}");
}

/// Kind and code of the error with which the daemon itself refuses to mount at `point`.
fn refusal(host: &Host, uid: u32, point: &str) -> (String, i64) {
    let answer = host.call(uid, "workspace.create", &json!({"origin": "repo", "mount_point": point}));
    let error = &answer["error"];
    assert!(error.is_object(), "{point}: {answer}");
    (error["data"]["kind"].as_str().unwrap_or("-").to_owned(), error["code"].as_i64().unwrap())
}

#[test]
fn what_does_not_exist_is_not_found() {
    let host = Host::with_repo("", REPOSITORY);
    let rows: &[(&[&str], i32, &str)] = &[
        (&["nowhere:"], 3, "NoSuchOrigin"),
        (&["repo"], 2, "-"),
        (&["Repo:"], 2, "-"),
        (&["repo:../x"], 2, "-"),
        (&["repo:a//b"], 2, "-"),
        (&["repo:absent"], 3, "NoSuchPath"),
        (&["repo:dir/absent/deeper"], 3, "NoSuchPath"),
        (&["repo:dir/file"], 3, "NoSuchPath"),
        (&["repo:dir/file/x"], 3, "NoSuchPath"),
        (&["repo:link"], 3, "NoSuchPath"),
        (&["repo:link/file"], 3, "NoSuchPath"),
        (&["repo:@v2"], 3, "NoSuchRevision"),
        (&["repo:dir@v2"], 3, "NoSuchRevision"),
        (&["repo:absent@v1"], 3, "NoSuchPath"),
        (&["repo:", "--rev", "v2"], 3, "NoSuchRevision"),
        (&["repo:", "--rev", ""], 2, "-"),
        (&["repo:", "--rev=--upload-pack=x"], 3, "NoSuchRevision"),
        (&["repo:", "--rev=-x"], 3, "NoSuchRevision"),
        (&["repo:", "--rev", "../../etc/passwd"], 3, "NoSuchRevision"),
        (&["repo:", "--rev", "0000000000000000000000000000000000000000"], 3, "NoSuchRevision"),
        (&["repo:", "--rev", "v1:dir/file"], 3, "NoSuchRevision"),
    ];
    for (number, (args, code, kind)) in rows.iter().enumerate() {
        let point = host.point(ALICE, &format!("p{number}"));
        let args = [&["mount"], &args[..1], &[point.to_str().unwrap()], &args[1..]].concat();
        assert_eq!(host.refused(ALICE, &args), (*code, (*kind).to_owned()), "{args:?}");
        assert_only(&host, &[], &format!("{args:?}"));
    }
    for verb in [&["info", "zzzzzzzzzzzz"], &["unmount", "zzzzzzzzzzzz"], &["export", "zzzzzzzzzzzz"]] {
        assert_eq!(host.refused(ALICE, verb), (3, "NoSuchWorkspace".to_owned()), "{verb:?}");
    }
}

#[test]
fn options_out_of_bounds_are_refused() {
    let host = Host::with_repo("", REPOSITORY);
    let long = format!("k={}", "v".repeat(129));
    let many: Vec<String> = (0..17).map(|number| format!("--label=k{number}=v")).collect();
    let rows: &[&[&str]] = &[
        &["--ttl", "0s"],
        &["--ttl", "soon"],
        &["--ttl", "100years"],
        &["--mode", "1777"],
        &["--mode", "4755"],
        &["--mode", "0077"],
        &["--mode", "rwx"],
        &["--mode", ""],
        &["--label", "k"],
        &["--label", "=v"],
        &["--label", "k=a\nb"],
        &["--label", &long],
        &many.iter().map(String::as_str).collect::<Vec<_>>(),
    ];
    let point = host.point(ALICE, "p");
    for options in rows {
        let args = [&["mount", "repo:", point.to_str().unwrap()], *options].concat();
        assert_eq!(host.ctl(ALICE, &args).status.code(), Some(2), "{options:?}");
        assert_only(&host, &[], &format!("{options:?}"));
    }
    // The same from a client with no scruples.
    let point = point.to_str().unwrap();
    for (name, value) in [
        ("ttl_s", json!(0)),
        ("ttl_s", json!(-1)),
        ("ttl_s", json!(u64::MAX)),
        ("mode", json!("1777")),
        ("mode", json!("-1")),
        ("mode", json!(493)),
        ("labels", json!({"": "v"})),
        ("labels", json!({"k": "v".repeat(129)})),
        ("labels", json!(["k"])),
        ("rev", json!("a\u{0}b")),
        ("rev", json!("r".repeat(1025))),
        ("path", json!("../..")),
        ("path", json!("a\u{0}b")),
        ("unheard_of", json!(true)),
    ] {
        let mut params = json!({"origin": "repo", "mount_point": point});
        params[name] = value;
        let answer = host.call(ALICE, "workspace.create", &params);
        assert_eq!(answer["error"]["data"]["kind"], "BadParameter", "{params}: {answer}");
        assert_only(&host, &[], &params.to_string());
    }
}

/// Places for mounts, and how the daemon refuses each.
fn places(host: &Host, mounted: &Path, bobs: &Path) -> Vec<(String, &'static str)> {
    let make = |name: &str, uid: u32, mode: u32| {
        let path = host.point(uid, name);
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    };
    let good = make("good", ALICE, 0o755);
    let full = make("full", ALICE, 0o755);
    fs::write(full.join(".x"), "").unwrap();
    let file = host.path("mnt/file");
    fs::write(&file, "").unwrap();
    chown(&file, Some(ALICE), Some(ALICE)).unwrap();
    for (target, name) in
        [(&good, "link"), (&host.path("mnt"), "detour"), (&host.path("nowhere"), "dangling")]
    {
        symlink(target, host.path("mnt").join(name)).unwrap();
    }
    let private = make("private", BOB, 0o700);
    fs::create_dir(private.join("in")).unwrap();
    chown(private.join("in"), Some(ALICE), Some(ALICE)).unwrap();
    fs::create_dir(mounted.join("inner")).unwrap();
    chown(mounted.join("inner"), Some(ALICE), Some(ALICE)).unwrap();
    fs::create_dir(bobs.join("inner")).unwrap();
    chown(bobs.join("inner"), Some(ALICE), Some(ALICE)).unwrap();
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    let at = |name: &str| text(host.path("mnt").join(name));
    let wrong = "BadMountPoint";
    vec![
        (String::new(), wrong),
        ("/".to_owned(), wrong),
        ("/etc".to_owned(), wrong),
        ("/proc/self".to_owned(), wrong),
        ("/proc/self/fd".to_owned(), wrong),
        ("/proc/sys".to_owned(), wrong),
        ("/proc/self/cwd".to_owned(), wrong),
        ("/sys/kernel".to_owned(), wrong),
        ("/dev/null".to_owned(), wrong),
        ("mnt/good".to_owned(), wrong),
        ("./good".to_owned(), wrong),
        (at("file"), wrong),
        (at("file/x"), wrong),
        (at("full"), wrong),
        (at("link"), wrong),
        (at("link/"), wrong),
        (at("detour/good"), wrong),
        (at("dangling"), wrong),
        (at("absent"), wrong),
        (at("absent/deeper"), wrong),
        (at("good/../good"), wrong),
        (at("./good"), wrong),
        (at("good/"), wrong),
        (at("/good"), wrong),
        (at("good\n"), wrong),
        (at("go\u{0}od"), wrong),
        (at(&"x".repeat(256)), wrong),
        (format!("/{}", "x/".repeat(2500)), wrong),
        (format!("/{}", "x".repeat(5000)), wrong),
        (at("private"), wrong),
        (at("private/in"), wrong),
        (text(host.path("state")), wrong),
        (text(host.path("run/fs")), wrong),
        (text(mounted.to_owned()), wrong),
        (text(mounted.join("inner")), wrong),
        (text(mounted.join("dir")), wrong),
        (text(bobs.to_owned()), wrong),
        (text(bobs.join("inner")), wrong),
    ]
}

fn every_bad_mount_point_is_refused(kind: &str) {
    let host = Host::with_repo(&lower(kind), REPOSITORY);
    let (mounted, alices_id) = host.mount(ALICE, "mounted", &["--mode", "0755"]);
    let (bobs, bobs_id) = host.mount(BOB, "bobs", &["--mode", "0755"]);
    let mut ids = [alices_id.as_str(), bobs_id.as_str()];
    ids.sort_unstable();
    for (point, expected) in places(&host, &mounted, &bobs) {
        let code = if expected == "BadMountPoint" { 1002 } else { 1001 };
        let shown: String = point.chars().take(80).collect();
        assert_eq!(refusal(&host, ALICE, &point), (expected.to_owned(), code), "{shown:?}");
        assert_only(&host, &ids, &shown);
    }
    // Refused as long as it is bad, and not a moment longer.
    let good = host.path("mnt/good");
    assert_eq!(host.json(ALICE, &["mount", "repo:", good.to_str().unwrap()])["state"], "mounted");
    assert_eq!(fs::read(good.join("dir/file")).unwrap(), b"x\n");
}

#[test]
fn every_bad_mount_point_is_refused_on_both_lowers() {
    LOWERS.into_iter().for_each(every_bad_mount_point_is_refused);
}

/// Ends another thread's loop, also when this one panics.
struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Attempts to mount while the place is being swapped.
const SWAPS: usize = 60;

#[test]
fn a_place_swapped_for_a_symlink_while_the_daemon_looks_leads_nowhere_else() {
    let host = Host::with_repo("", REPOSITORY);
    let (alices, bobs) = (host.point(ALICE, "alices"), host.point(BOB, "bobs"));
    let trap = host.point(ALICE, "trap");
    host.sh_as(
        ALICE,
        &format!(
            "cd '{0}'; mkdir ws; ln -s '{1}' to-bob; ln -s '{2}' to-trap",
            alices.display(),
            bobs.display(),
            trap.display()
        ),
    );
    let (point, aside) = (alices.join("ws"), alices.join("aside"));
    let stop = AtomicBool::new(false);
    let mut mounted = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for link in ["to-bob", "to-trap"].into_iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                // Fails while something is mounted there, and that is as well.
                if fs::rename(&point, &aside).is_ok() {
                    let _ = fs::rename(alices.join(link), &point);
                    let _ = fs::rename(&point, alices.join(link));
                    // What was mounted meanwhile is taken away again first.
                    while !stop.load(Ordering::Relaxed) && fs::rename(&aside, &point).is_err() {
                        std::thread::yield_now();
                    }
                }
            }
        });
        let _stop = SetWhenDropped(&stop);
        for _ in 0..SWAPS {
            let wanted = json!({"origin": "repo", "mount_point": point});
            let answer = host.call(ALICE, "workspace.create", &wanted);
            let kind = answer["error"]["data"]["kind"].as_str().unwrap_or("-").to_owned();
            let Some(id) = answer["result"]["id"].as_str() else {
                assert_eq!(kind, "BadMountPoint", "{answer}");
                continue;
            };
            mounted += 1;
            for mount in host.mounts() {
                assert!(mount == point || mount == aside, "mounted at {}", mount.display());
            }
            assert!(host.ctl(ALICE, &["remove", "--yes", id]).status.success());
        }
    });
    assert!(mounted > 0 && mounted < SWAPS, "{mounted} of {SWAPS} attempts met the directory");
    assert_only(&host, &[], "swaps");
}

#[test]
fn the_command_finds_the_directory_that_the_user_means() {
    let host = Host::with_repo("", REPOSITORY);
    host.point(ALICE, "good");
    symlink(host.path("mnt"), host.path("detour")).unwrap();
    let point = host.path("detour/../mnt/./good/");
    let view = host.json(ALICE, &["mount", "repo:", point.to_str().unwrap()]);
    assert_eq!(view["mount_point"], host.path("mnt/good").to_str().unwrap());
    // One that is not there is made, and taken away again when nothing comes of it.
    let parent = host.point(ALICE, "parent");
    let new = parent.join("new");
    assert_eq!(host.refused(ALICE, &["mount", "repo:absent", new.to_str().unwrap()]).0, 3);
    assert!(!new.exists());
    host.json(ALICE, &["mount", "repo:", new.to_str().unwrap()]);
    assert_eq!(fs::read(new.join("dir/file")).unwrap(), b"x\n");
}

#[test]
fn the_fourth_of_three_workspaces_is_refused() {
    let host = Host::with_repo("[limits]\nworkspaces_per_user = 3\nworkspaces_per_host = 5\n", REPOSITORY);
    let mount = |uid: u32, name: &str| {
        let point = host.point(uid, name);
        host.ctl(uid, &["--json", "mount", "repo:", point.to_str().unwrap()])
    };
    let ids: Vec<_> = (0..3).map(|number| host.mount(ALICE, &format!("a{number}"), &[]).1).collect();
    let point = host.point(ALICE, "a3");
    let fourth = ["mount", "repo:", point.to_str().unwrap()];
    assert_eq!(host.refused(ALICE, &fourth), (6, "LimitReached".to_owned()));
    // Unmounted ones count: what was written in them is kept.
    assert!(host.ctl(ALICE, &["unmount", &ids[0]]).status.success());
    assert_eq!(host.refused(ALICE, &fourth), (6, "LimitReached".to_owned()));
    assert!(mount(BOB, "b0").status.success());
    assert!(mount(BOB, "b1").status.success());
    let point = host.point(BOB, "b2");
    assert_eq!(
        host.refused(BOB, &["mount", "repo:", point.to_str().unwrap()]),
        (6, "LimitReached".to_owned())
    );
    assert!(host.ctl(ALICE, &["remove", "--yes", &ids[0]]).status.success());
    assert_eq!(host.json(ALICE, &fourth)["state"], "mounted");
}

#[test]
fn kinds_of_workspaces_keep_their_word() {
    let host = Host::with_repo("", REPOSITORY);
    let (ephemeral, id) = host.mount(ALICE, "ephemeral", &["--ephemeral", "--label", "k=v"]);
    host.sh_as(ALICE, &format!("echo y > '{0}/new' && cat '{0}/new' '{0}/dir/file'", ephemeral.display()));
    assert_eq!(host.json(ALICE, &["list", "--label", "k=v"])[0]["id"], id.as_str());
    assert_eq!(host.json(ALICE, &["list", "--label", "k=w"]), json!([]));
    assert!(host.ctl(ALICE, &["unmount", &id]).status.success());
    assert_only(&host, &[], "unmounting what is ephemeral");

    let (sealed, id) = host.mount(ALICE, "sealed", &["--read-only"]);
    for write in [
        "echo x > new",
        "echo x >> dir/file",
        "rm dir/file",
        "mkdir d",
        "chmod 600 dir/file",
        "mv dir d",
        "ln -s a b",
    ] {
        let output = host.try_sh_as(ALICE, &format!("cd '{}'; {write}", sealed.display()));
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains("Read-only file system"), "{write}: {output:?}");
    }
    assert_eq!(
        host.sh_as(ALICE, &format!("cat '{}/dir/file'; ls -A '{0}'", sealed.display())),
        "x\ndir\nlink\n"
    );
    assert!(host.ctl(ALICE, &["remove", "--yes", &id]).status.success());

    let (open, id) = host.mount(ALICE, "open", &["--mode", "0755"]);
    let open = open.display();
    assert_eq!(
        host.sh_as(BOB, &format!("cat '{open}/dir/file'; stat -c '%a %u' '{open}'")),
        format!("x\n755 {ALICE}\n")
    );
    for write in [
        format!("echo x > '{open}/new'"),
        format!("echo x >> '{open}/dir/file'"),
        format!("rm '{open}/dir/file'"),
    ] {
        let output = host.try_sh_as(BOB, &write);
        assert!(String::from_utf8_lossy(&output.stderr).contains("ermission denied"), "{write}: {output:?}");
    }
    assert!(host.ctl(ALICE, &["remove", "--yes", &id]).status.success());
    assert_only(&host, &[], "removing all");
}

#[test]
fn a_workspace_ends_when_its_time_is_over() {
    let host = Host::with_repo("", REPOSITORY);
    let (kept, id) = host.mount(ALICE, "kept", &["--ttl", "2s"]);
    let (_, gone) = host.mount(ALICE, "gone", &["--ttl", "2s", "--ephemeral"]);
    host.sh_as(ALICE, &format!("echo y > '{}/new'", kept.display()));
    let begin = std::time::Instant::now();
    while !host.mounts().is_empty() || host.json(ALICE, &["list"]).as_array().unwrap().len() > 1 {
        assert!(begin.elapsed() < support::PATIENCE, "{}", host.json(ALICE, &["list"]));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(host.json(ALICE, &["info", &id])["state"], "unmounted");
    assert_eq!(host.refused(ALICE, &["info", &gone]), (3, "NoSuchWorkspace".to_owned()));
    assert_eq!(fs::read(host.path("state/workspaces").join(&id).join("upper/new")).unwrap(), b"y\n");
}

#[test]
fn who_may_not_is_told_so() {
    let host = Host::with_repo("", REPOSITORY);
    const STRANGER: u32 = 61003;
    let point = host.point(STRANGER, "p");
    assert_eq!(
        host.refused(STRANGER, &["mount", "repo:", point.to_str().unwrap()]),
        (4, "NotAuthorised".to_owned())
    );
    let me: Value = host.json(STRANGER, &["whoami"]);
    assert_eq!(
        [&me["uid"], &me["may_mount"], &me["may_manage_others"]],
        [&json!(STRANGER), &json!(false), &json!(false)]
    );
    assert_only(&host, &[], "a stranger's attempt");
}
