//! Where a mount may go, and how it ends.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{chown, symlink},
    },
    path::PathBuf,
    process::{Command, Stdio},
};

use scorpio::{
    config::LowerKind,
    engine::{MountPoint, MountSpec, OverlayEngine, PointFault, PointIdentity, UnmountError},
};

use crate::stack::{ALICE, BOB, Plan, Stack, fault_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_point_that_will_not_do_is_refused_by_name() {
    use PointFault::{
        Busy, Denied, Displaced, Filesystem, Malformed, Missing, Nested, NotADirectory, NotEmpty, NotOwned,
        Relative, Symlink,
    };
    let stack = Stack::start(Plan::new(LowerKind::Auto)).await;
    let (alice, bob, spare) = (stack.place(ALICE, "ws"), stack.place(BOB, "ws"), stack.place(ALICE, "spare"));
    let (own, other) = (stack.mount(&alice).await, stack.mount(&bob).await);
    alice.run_as(ALICE, "mkdir new");
    let home = spare.point.parent().unwrap();
    let at = |name: &str| home.join(name);
    fs::write(at("file"), "").unwrap();
    fs::create_dir(at("full")).unwrap();
    fs::write(at("full/x"), "").unwrap();
    chown(at("full"), Some(ALICE), Some(ALICE)).unwrap();
    symlink(&spare.point, at("link")).unwrap();
    symlink(home, at("detour")).unwrap();
    fs::create_dir(at("roots")).unwrap();
    let text = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    let shown = |path: &std::path::Path, suffix: &[u8]| text(&[path.as_os_str().as_bytes(), suffix].concat());
    let cases = [
        (PathBuf::from("/"), NotOwned),
        (PathBuf::from("/etc"), NotOwned),
        (PathBuf::from("/tmp"), NotOwned),
        (PathBuf::from("/proc"), Filesystem),
        (PathBuf::from("/proc/self/root/etc"), Symlink),
        (PathBuf::from("/sys/kernel"), Filesystem),
        (PathBuf::new(), Relative),
        (PathBuf::from("ws"), Relative),
        (PathBuf::from("../ws"), Relative),
        (at("../61001/spare"), Malformed),
        (shown(&spare.point, b"/"), Malformed),
        (shown(&spare.point, b"/."), Malformed),
        (shown(home, b"//spare"), Malformed),
        (shown(&spare.point, b"\n"), Malformed),
        (shown(&spare.point, b"\0"), Malformed),
        (shown(&spare.point, b"\x7f"), Malformed),
        (text(&[b"/".as_slice(), &[b'x'; 5000]].concat()), Malformed),
        (at(&"x".repeat(256)), Malformed),
        (at("\\040"), Missing),
        (shown(home, b"/\xff"), Missing),
        (at("absent"), Missing),
        (at("file"), NotADirectory),
        (at("file/below"), NotADirectory),
        (at("full"), NotEmpty),
        (at("link"), Symlink),
        (at("detour/spare"), Symlink),
        (at("roots"), NotOwned),
        (bob.point.clone(), Denied),
        (stack.at("state"), NotOwned),
        (spare.state.clone(), Denied),
        (alice.point.clone(), Busy),
        (alice.point.join("new"), Nested),
        (alice.point.join("src"), Nested),
        (bob.point.join("src"), Denied),
        (stack.at("run/fs/shared"), Denied),
    ];
    for (path, expected) in cases {
        let point = MountPoint { path: path.clone(), expect: None };
        let found = fault_of(stack.engine.mount(&MountSpec { point, ..stack.spec(&spare) }).await);
        assert_eq!(found, expected, "{}", path.display());
    }
    let expect = Some(PointIdentity { ino: spare.identity().ino + 1, ..spare.identity() });
    let point = MountPoint { path: spare.point.clone(), expect };
    assert_eq!(fault_of(stack.engine.mount(&MountSpec { point, ..stack.spec(&spare) }).await), Displaced);
    let again =
        MountSpec { point: MountPoint { path: spare.point.clone(), expect: None }, ..stack.spec(&alice) };
    assert_eq!(fault_of(stack.engine.mount(&again).await), Busy, "a workspace is mounted once");
    assert_eq!(
        stack.engine.survey().unwrap().iter().filter(|live| live.alive).count(),
        2,
        "nothing else was harmed"
    );
    stack.engine.unmount(&alice.id, own.mount_id, false).await.unwrap();
    stack.engine.unmount(&bob.id, other.mount_id, false).await.unwrap();
    let expected_point = spare.identity();
    let point = MountPoint { path: spare.point.clone(), expect: Some(expected_point) };
    let mounted = stack.engine.mount(&MountSpec { point, ..stack.spec(&spare) }).await.unwrap();
    assert_eq!(mounted.point, expected_point);
    stack.engine.unmount(&spare.id, mounted.mount_id, false).await.unwrap();
    stack.assert_nothing_left();
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_workspace_names_its_holders_and_can_be_left_lazily() {
    let stack = Stack::start(Plan::new(LowerKind::Auto)).await;
    let alice = stack.place(ALICE, "ws");
    let mounted = stack.mount(&alice).await;
    let mut holder = Command::new("sh")
        .args([
            "-c",
            "cd \"$0\" && exec 3< README && echo ready && { read line || cat <&3; } && ls wide | wc -l",
        ])
        .arg(&alice.point)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = std::io::BufReader::new(holder.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    assert_eq!(line, "ready\n");
    match stack.engine.unmount(&alice.id, mounted.mount_id, false).await {
        Err(UnmountError::Busy { path, holders }) => {
            assert_eq!(path, alice.point);
            let found: Vec<_> = holders.iter().map(|holder| (holder.pid, holder.name.as_str())).collect();
            assert_eq!(found, [(holder.id(), "sh")]);
        }
        other => panic!("it is busy: {other:?}"),
    }
    assert!(
        stack.engine.survey().unwrap().iter().any(|live| live.mount_id == mounted.mount_id && live.alive)
    );
    stack.engine.unmount(&alice.id, mounted.mount_id, true).await.unwrap();
    stack.assert_nothing_left();
    // Who is inside goes on, and the tree below stays.
    stack.engine.release_root(stack.root.id);
    drop(holder.stdin.take());
    line.clear();
    std::io::Read::read_to_string(&mut said, &mut line).unwrap();
    assert_eq!(line, "hello\n500\n");
    holder.wait().unwrap();
    stack.engine.unmount(&alice.id, mounted.mount_id, false).await.unwrap();
    assert_eq!(stack.dicfuse.roots().unwrap().len(), 1);
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_is_released_when_no_mount_stands_on_it() {
    let stack = Stack::start(Plan::new(LowerKind::Auto)).await;
    let alice = stack.place(ALICE, "ws");
    let mounted = stack.mount(&alice).await;
    stack.engine.release_root(stack.root.id);
    assert_eq!(stack.dicfuse.roots().unwrap(), std::slice::from_ref(&stack.root));
    stack.engine.unmount(&alice.id, mounted.mount_id, false).await.unwrap();
    stack.engine.release_root(stack.root.id);
    assert_eq!(stack.dicfuse.roots().unwrap(), []);
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_that_went_behind_our_back_is_gone() {
    let stack = Stack::start(Plan::new(LowerKind::Auto)).await;
    let alice = stack.place(ALICE, "ws");
    let mounted = stack.mount(&alice).await;
    assert!(Command::new("umount").arg("-l").arg(&alice.point).status().unwrap().success());
    assert!(stack.engine.survey().unwrap().iter().all(|live| live.workspace != alice.id));
    stack.engine.unmount(&alice.id, mounted.mount_id, false).await.unwrap();
    let again = stack.mount(&alice).await;
    stack.engine.unmount(&alice.id, again.mount_id, false).await.unwrap();
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_workspaces_are_mounted_at_once() {
    let stack = Stack::start(Plan::new(LowerKind::Auto)).await;
    let places: Vec<_> =
        (0..24).map(|n| stack.place(if n % 2 == 0 { ALICE } else { BOB }, &format!("ws {n}"))).collect();
    let specs: Vec<_> = places.iter().map(|place| stack.spec(place)).collect();
    let mounts = futures_util::future::join_all(specs.iter().map(|spec| stack.engine.mount(spec))).await;
    let mounts: Vec<_> = mounts.into_iter().map(Result::unwrap).collect();
    for place in &places {
        assert_eq!(place.run_as(place.uid, "cat README"), "hello\n");
    }
    let ending = places
        .iter()
        .zip(&mounts)
        .map(|(place, mounted)| stack.engine.unmount(&place.id, mounted.mount_id, false));
    for ended in futures_util::future::join_all(ending).await {
        ended.unwrap();
    }
    stack.assert_nothing_left();
    stack.end().await;
}
