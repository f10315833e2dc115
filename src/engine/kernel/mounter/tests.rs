//! The mounter's verbs in this process, over a tree on the disk instead of a FUSE session. Needs root.

use std::{
    fs,
    io::BufRead as _,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, chown, symlink},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use super::{
    hooks::Hooks,
    overlay,
    protocol::{
        AbandonOrder, Failure, HolderReply, MountOrder, Owner, OwnersOrder, Reply, UnmountOrder, UpperOrder,
    },
    unmount, upper,
};
use crate::{
    engine::PointFault,
    sys::{
        identity::Identity,
        mount::{self, Unmount},
        mountinfo::{self, MountEntry, Whose},
    },
    types::WorkspaceId,
};

const ALICE: u32 = 61001;
const BOB: u32 = 61002;

struct Bench {
    dir: tempfile::TempDir,
    workspace: String,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let bench = Bench { workspace: WorkspaceId::from_random(rand_bytes()).to_string(), dir };
        fs::set_permissions(bench.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["lower", "lower/sub", "layers", "state", "state/upper", "state/work", "home", "home/ws"]
        {
            fs::create_dir(bench.at(name)).unwrap();
        }
        fs::write(bench.at("lower/file"), "from below").unwrap();
        fs::set_permissions(bench.at("state"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(bench.at("state/upper"), fs::Permissions::from_mode(0o700)).unwrap();
        for name in ["state/upper", "home/ws"] {
            chown(bench.at(name), Some(ALICE), Some(ALICE)).unwrap();
        }
        mount::make_private_mount(&bench.at("layers")).unwrap();
        bench
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn order(&self) -> MountOrder {
        MountOrder {
            workspace: self.workspace.clone(),
            owner: Owner { uid: ALICE, gid: ALICE, groups: Vec::new() },
            point: self.at("home/ws"),
            expect: None,
            lower: self.at("lower"),
            map_owner: true,
            layers: self.at("layers"),
            owners: OwnersOrder { stored: (ALICE, ALICE), seen: (ALICE, ALICE) },
            upper: UpperOrder::Writable {
                upper: self.at("state/upper"),
                work: self.at("state/work"),
                volatile: false,
            },
        }
    }

    fn mount(&self) -> u64 {
        mounted(overlay::mount(&self.order(), Hooks::default()))
    }

    fn unmount(&self, mount_id: u64, lazy: bool) -> Result<Reply, Failure> {
        unmount::unmount(&UnmountOrder { workspace: self.workspace.clone(), mount_id, lazy })
    }

    /// All mounts below the bench but the layers directory itself.
    fn left(&self) -> Vec<MountEntry> {
        let below = |entry: &MountEntry| {
            entry.mount_point.starts_with(self.dir.path()) && entry.mount_point != self.at("layers")
        };
        mountinfo::read(Whose::Own).unwrap().into_iter().filter(below).collect()
    }

    fn assert_clean(&self) {
        assert_eq!(self.left(), []);
        assert_eq!(fs::read_dir(self.at("layers")).unwrap().count(), 0);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for entry in self.left().iter().rev() {
            let _ = mount::unmount(&entry.mount_point, Unmount::Lazily);
        }
        let _ = mount::unmount(&self.at("layers"), Unmount::Lazily);
    }
}

fn rand_bytes() -> [u8; WorkspaceId::LEN] {
    let mut bytes = [0; WorkspaceId::LEN];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).unwrap();
    bytes
}

fn mounted(result: Result<Reply, Failure>) -> u64 {
    match result {
        Ok(Reply::Mounted { mount_id, .. }) => mount_id,
        other => panic!("not mounted: {other:?}"),
    }
}

fn fault(result: Result<Reply, Failure>) -> PointFault {
    match result {
        Err(Failure::Point { fault, .. }) => fault,
        other => panic!("no point fault: {other:?}"),
    }
}

fn acting<T>(uid: u32, work: impl FnOnce() -> T) -> T {
    let identity = Identity { uid, gid: uid, groups: Vec::new() };
    let _acting = identity.act().unwrap();
    work()
}

#[test]
fn the_owner_sees_the_tree_as_theirs_and_writes_to_the_upper() {
    let bench = Bench::new();
    let id = bench.mount();
    let ws = bench.at("home/ws");
    acting(ALICE, || {
        let meta = fs::metadata(ws.join("file")).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (ALICE, ALICE));
        assert_eq!(fs::read_to_string(ws.join("file")).unwrap(), "from below");
        fs::write(ws.join("file"), "changed").unwrap();
        fs::rename(ws.join("sub"), ws.join("moved")).unwrap();
        fs::set_permissions(ws.join("file"), fs::Permissions::from_mode(0o600)).unwrap();
        symlink("file", ws.join("link")).unwrap();
    });
    acting(BOB, || {
        assert_eq!(fs::read_dir(&ws).unwrap_err().raw_os_error(), Some(libc::EACCES));
        assert_eq!(fs::read(ws.join("file")).unwrap_err().raw_os_error(), Some(libc::EACCES));
    });
    assert_eq!(fs::read_to_string(bench.at("state/upper/file")).unwrap(), "changed");
    assert_eq!(fs::metadata(bench.at("state/upper/file")).unwrap().uid(), ALICE);
    assert_eq!(fs::read_to_string(bench.at("lower/file")).unwrap(), "from below");
    let entry = bench.left().into_iter().next().unwrap();
    assert_eq!(entry.mount_id, id);
    assert_eq!(entry.source.as_bytes(), format!("scorpio:{}", bench.workspace).as_bytes());
    let (options, of_fs) = (entry.options.to_str().unwrap(), entry.super_options.to_str().unwrap());
    assert!(options.contains("nosuid,nodev"), "{options}");
    for option in ["metacopy=on", "redirect_dir=on"] {
        assert!(of_fs.split(',').any(|found| found == option), "{option} in {of_fs}");
    }
    bench.unmount(id, false).unwrap();
    bench.assert_clean();
}

#[test]
fn layers_named_in_one_string_make_the_same_mount() {
    let bench = Bench::new();
    let args = ["--lower-by-string"].iter().map(Into::into);
    let id = mounted(overlay::mount(&bench.order(), Hooks::from_args(args).unwrap()));
    assert_eq!(fs::read_to_string(bench.at("home/ws/file")).unwrap(), "from below");
    bench.unmount(id, false).unwrap();
    bench.assert_clean();
}

#[test]
fn directories_with_odd_and_long_names_are_no_obstacle() {
    for naming in [&[][..], &["--lower-by-string"]] {
        let bench = Bench::new();
        let odd = bench.at(&format!("state/a:b,c\\d e\\040{}", "x".repeat(200)));
        for dir in [&odd, &odd.join("upper"), &odd.join("work"), &bench.at("home/w s\\040,:x")] {
            fs::create_dir(dir).unwrap();
        }
        chown(bench.at("home/w s\\040,:x"), Some(ALICE), Some(ALICE)).unwrap();
        let upper = UpperOrder::Writable { upper: odd.join("upper"), work: odd.join("work"), volatile: true };
        let order = MountOrder { upper, point: bench.at("home/w s\\040,:x"), ..bench.order() };
        let id = mounted(overlay::mount(&order, Hooks::from_args(naming.iter().map(Into::into)).unwrap()));
        fs::write(bench.at("home/w s\\040,:x/new"), "").unwrap();
        assert!(odd.join("upper/new").exists());
        bench.unmount(id, false).unwrap();
        bench.assert_clean();
    }
}

#[test]
fn a_read_only_mount_has_the_owner_and_mode_of_the_empty_directory() {
    let bench = Bench::new();
    let empty = bench.at("state/empty");
    fs::create_dir(&empty).unwrap();
    fs::set_permissions(&empty, fs::Permissions::from_mode(0o700)).unwrap();
    chown(&empty, Some(ALICE), Some(ALICE)).unwrap();
    let order = MountOrder { upper: UpperOrder::ReadOnly { empty }, ..bench.order() };
    let id = mounted(overlay::mount(&order, Hooks::default()));
    let ws = bench.at("home/ws");
    let root = fs::metadata(&ws).unwrap();
    assert_eq!((root.uid(), root.mode() & 0o7777), (ALICE, 0o700));
    acting(ALICE, || {
        assert_eq!(fs::read_to_string(ws.join("file")).unwrap(), "from below");
        assert_eq!(fs::metadata(ws.join("sub")).unwrap().uid(), ALICE);
        assert_eq!(fs::write(ws.join("file"), "").unwrap_err().raw_os_error(), Some(libc::EROFS));
    });
    acting(BOB, || {
        assert_eq!(fs::read(ws.join("file")).unwrap_err().raw_os_error(), Some(libc::EACCES));
    });
    bench.unmount(id, false).unwrap();
    bench.assert_clean();
}

/// An order of bob's for what alice stored.
fn bobs(bench: &Bench) -> MountOrder {
    let work = bench.at("state/work-1");
    fs::create_dir(&work).unwrap();
    chown(bench.at("home/ws"), Some(BOB), Some(BOB)).unwrap();
    MountOrder {
        owner: Owner { uid: BOB, gid: BOB, groups: Vec::new() },
        owners: OwnersOrder { stored: (ALICE, ALICE), seen: (BOB, BOB) },
        upper: UpperOrder::Writable { upper: bench.at("state/upper"), work, volatile: false },
        ..bench.order()
    }
}

#[test]
fn what_alice_stored_is_bobs_for_bob_and_stays_stored_as_hers() {
    for naming in [&[][..], &["--lower-by-string"]] {
        let bench = Bench::new();
        let (id, ws) = (bench.mount(), bench.at("home/ws"));
        acting(ALICE, || fs::write(ws.join("hers"), "alice").unwrap());
        bench.unmount(id, false).unwrap();
        let hooks = Hooks::from_args(naming.iter().map(Into::into)).unwrap();
        let id = mounted(overlay::mount(&bobs(&bench), hooks));
        acting(BOB, || {
            for name in ["", "hers", "file", "sub"] {
                let found = fs::metadata(ws.join(name)).unwrap();
                assert_eq!((found.uid(), found.gid()), (BOB, BOB), "{name}");
            }
            fs::write(ws.join("hers"), "bob").unwrap();
            fs::write(ws.join("file"), "copied up").unwrap();
            fs::write(ws.join("his"), "").unwrap();
            fs::remove_dir(ws.join("sub")).unwrap();
        });
        acting(ALICE, || {
            assert_eq!(fs::read_dir(&ws).unwrap_err().raw_os_error(), Some(libc::EACCES));
        });
        for name in ["", "hers", "file", "his"] {
            assert_eq!(fs::metadata(bench.at("state/upper").join(name)).unwrap().uid(), ALICE, "{name}");
        }
        assert!(is_whiteout(&bench.at("state/upper/sub")));
        // Only its own layers directory says whose mount it is.
        let entry = bench.left().into_iter().next().unwrap();
        assert!(crate::engine::kernel::survey::own_workspace_of(&entry, &bench.at("layers")).is_some());
        bench.unmount(id, false).unwrap();
        bench.assert_clean();
    }
}

fn is_whiteout(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let found = fs::symlink_metadata(path).unwrap();
    found.file_type().is_char_device() && found.rdev() == 0
}

#[test]
fn a_mapped_mount_that_fails_leaves_no_layer() {
    let bench = Bench::new();
    fs::create_dir(bench.at("elsewhere")).unwrap();
    let apart =
        UpperOrder::Writable { upper: bench.at("state/upper"), work: bench.at("elsewhere"), volatile: false };
    let absent = UpperOrder::Writable {
        upper: bench.at("state/absent"),
        work: bench.at("state/work"),
        volatile: false,
    };
    let order = bobs(&bench);
    for (upper, word) in [(apart, "one directory"), (absent, "upperdir")] {
        let failed = overlay::mount(&MountOrder { upper, ..order.clone() }, Hooks::default()).unwrap_err();
        let Failure::Step { step, source } = failed else { panic!("{failed:?}") };
        assert!(format!("{step}: {source}").contains(word), "{step}: {source}");
        bench.assert_clean();
    }
    let nobody = OwnersOrder { stored: (u32::MAX, 0), seen: (BOB, BOB) };
    assert!(overlay::mount(&MountOrder { owners: nobody, ..order }, Hooks::default()).is_err());
    bench.assert_clean();
}

#[test]
fn an_upper_is_held_as_long_as_an_overlay_stands_on_it_seen_or_not() {
    let bench = Bench::new();
    let held = || matches!(upper::is_held(&bench.at("state/upper"), &bench.at("layers")), Ok(Reply::Held));
    let listing = || {
        let of = |name: &str| fs::read_dir(bench.at(name)).unwrap().count();
        (of("state"), of("state/upper"), of("state/work"), of("layers"))
    };
    let before = listing();
    assert!(!held());
    assert_eq!(listing(), before, "asking leaves nothing behind");
    let id = bench.mount();
    assert!(held());
    let inside = fs::File::open(bench.at("home/ws/file")).unwrap();
    bench.unmount(id, true).unwrap();
    assert_eq!(bench.left(), []);
    assert!(held(), "detached, with a file open in it");
    drop(inside);
    // The kernel ends it when its last user has gone, which it does not wait for.
    let begin = Instant::now();
    while held() {
        assert!(begin.elapsed() < Duration::from_secs(20), "it never ends");
    }
    assert!(upper::is_held(&bench.at("absent"), &bench.at("layers")).is_err());
}

#[test]
fn whether_ids_can_be_shown_is_tried_and_leaves_nothing() {
    let bench = Bench::new();
    let owners = OwnersOrder { stored: (ALICE, ALICE), seen: (BOB, BOB) };
    assert!(matches!(upper::can_show(&bench.at("state"), owners), Ok(Reply::Done)));
    assert!(upper::can_show(&bench.at("absent"), owners).is_err());
    // A file system that the kernel maps no ids on.
    assert_eq!(upper::can_show(Path::new("/proc"), owners).unwrap_err().errno(), Some(libc::EINVAL));
    bench.assert_clean();
}

#[test]
fn a_point_inside_or_under_a_workspace_is_refused() {
    let (outer, other) = (Bench::new(), Bench::new());
    let id = outer.mount();
    let inner = outer.at("home/ws/inner");
    acting(ALICE, || fs::create_dir(&inner).unwrap());
    let over = |point: PathBuf, uid| MountOrder {
        point,
        owner: Owner { uid, gid: uid, groups: Vec::new() },
        ..other.order()
    };
    let try_over = |point, uid| fault(overlay::mount(&over(point, uid), Hooks::default()));
    assert_eq!(try_over(outer.at("home/ws"), ALICE), PointFault::Busy);
    assert_eq!(try_over(outer.at("home/ws"), BOB), PointFault::NotOwned);
    assert_eq!(try_over(inner.clone(), ALICE), PointFault::Nested);
    assert_eq!(try_over(inner, BOB), PointFault::Denied);
    assert_eq!(fault(overlay::mount(&outer.order(), Hooks::default())), PointFault::Busy);
    outer.unmount(id, false).unwrap();
    outer.assert_clean();
    other.assert_clean();
}

#[test]
fn a_mount_that_fails_late_leaves_nothing() {
    let bench = Bench::new();
    let upper =
        UpperOrder::Writable { upper: bench.at("absent"), work: bench.at("state/work"), volatile: false };
    let failed = overlay::mount(&MountOrder { upper, ..bench.order() }, Hooks::default()).unwrap_err();
    let Failure::Step { step, source } = failed else { panic!("{failed:?}") };
    assert_eq!(source.raw_os_error(), Some(libc::ENOENT), "{step}");
    assert!(step.contains("upperdir"), "{step}");
    bench.assert_clean();
}

#[test]
fn swapping_the_point_for_a_symlink_never_moves_the_mount() {
    let bench = Bench::new();
    let (point, aside, target) = (bench.at("home/ws"), bench.at("home/aside"), bench.at("target"));
    fs::create_dir(&target).unwrap();
    chown(&target, Some(ALICE), Some(ALICE)).unwrap();
    let stop = AtomicBool::new(false);
    let (mut landed, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if fs::rename(&point, &aside).is_ok() {
                    symlink(&target, &point).unwrap();
                    fs::remove_file(&point).unwrap();
                    while fs::rename(&aside, &point).is_err() && !stop.load(Ordering::Relaxed) {}
                }
            }
        });
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            match overlay::mount(&bench.order(), Hooks::default()) {
                Ok(Reply::Mounted { mount_id, .. }) => {
                    landed += 1;
                    let entries = bench.left();
                    let on = |path: &Path| path == point || path == aside;
                    assert!(entries.iter().all(|entry| on(&entry.mount_point)), "{entries:?}");
                    bench.unmount(mount_id, false).unwrap();
                }
                Err(Failure::Point { fault: PointFault::Symlink | PointFault::Missing, .. }) => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(landed > 0 && refused > 0, "{landed} mounted, {refused} refused: the race was not run");
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    bench.assert_clean();
}

/// Mounters of one user at once.
const CROWD: usize = 4;

#[test]
fn of_mounts_made_for_one_directory_at_once_one_stays_and_the_others_are_refused() {
    let benches: Vec<_> = (0..CROWD).map(|_| Bench::new()).collect();
    let point = benches[0].at("home/ws");
    let ready = std::sync::Barrier::new(CROWD);
    let mount = &|bench: &Bench| {
        let order = MountOrder { point: point.clone(), ..bench.order() };
        ready.wait();
        overlay::mount(&order, Hooks::default())
    };
    for _ in 0..50 {
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = benches.iter().map(|bench| scope.spawn(move || mount(bench))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(benches[0].left().len(), 1, "{results:?}");
        let mut stayed = 0;
        for (bench, result) in benches.iter().zip(results) {
            match result {
                Ok(Reply::Mounted { mount_id, .. }) => {
                    stayed += 1;
                    bench.unmount(mount_id, false).unwrap();
                }
                // Nested is what it is called where two were there already.
                refused => {
                    let fault = fault(refused);
                    assert!(matches!(fault, PointFault::Busy | PointFault::Nested), "{fault:?}");
                }
            }
        }
        assert_eq!(stayed, 1);
        benches.iter().for_each(Bench::assert_clean);
    }
}

#[test]
fn a_busy_mount_names_who_holds_it_and_goes_lazily() {
    let bench = Bench::new();
    let id = bench.mount();
    // Not this process: what it has open, children of other tests have for a moment too.
    let mut holder = std::process::Command::new("sh")
        .args(["-c", "exec 3<file; cd sub; echo there; read word; exec cat <&3"])
        .current_dir(bench.at("home/ws"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = std::io::BufReader::new(holder.stdout.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    assert_eq!(line, "there\n");
    let Err(Failure::Busy { path, holders }) = bench.unmount(id, false) else { panic!("it is busy") };
    assert_eq!(path, bench.at("home/ws"));
    assert_eq!(holders, [HolderReply { pid: holder.id(), name: "sh".to_owned() }]);
    bench.unmount(id, true).unwrap();
    drop(holder.stdin.take());
    assert_eq!(std::io::read_to_string(told).unwrap(), "from below");
    holder.wait().unwrap();
    bench.unmount(id, false).unwrap();
    bench.assert_clean();
}

#[test]
fn a_sweep_ends_what_nobody_uses_and_stands_on_these_layers() {
    let (idle, used) = (Bench::new(), Bench::new());
    idle.mount();
    let id = used.mount();
    let open = fs::File::open(used.at("home/ws/file")).unwrap();
    for bench in [&idle, &used] {
        assert!(matches!(unmount::sweep(&bench.at("layers")), Ok(Reply::Done)));
        idle.assert_clean();
        assert_eq!(used.left().iter().map(|entry| entry.mount_id).collect::<Vec<_>>(), [id]);
    }
    drop(open);
    used.unmount(id, false).unwrap();
    used.assert_clean();
}

#[test]
fn another_mount_with_the_same_id_or_source_is_left_alone() {
    let (bench, other) = (Bench::new(), Bench::new());
    let (id, other_id) = (bench.mount(), other.mount());
    bench.unmount(other_id, true).unwrap();
    other.unmount(id, true).unwrap();
    assert_eq!((bench.left().len(), other.left().len()), (1, 1));
    bench.unmount(id, false).unwrap();
    other.unmount(other_id, false).unwrap();
}

#[test]
fn a_mount_under_another_one_is_not_mistaken_for_it() {
    let bench = Bench::new();
    let id = bench.mount();
    let ws = bench.at("home/ws");
    let top = mount::FsContext::open("tmpfs").unwrap().mount(mount::MountFlags::TAME).unwrap();
    let point = mount::open_beneath_no_links(rustix::fs::CWD, &ws, rustix::fs::OFlags::PATH).unwrap();
    mount::attach(std::os::fd::AsFd::as_fd(&top), std::os::fd::AsFd::as_fd(&point)).unwrap();
    drop((top, point));
    for lazy in [false, true] {
        let Err(Failure::Step { source, .. }) = bench.unmount(id, lazy) else { panic!("it is covered") };
        assert_eq!(source.to_string(), "another file system is mounted over it");
    }
    assert_eq!(bench.left().len(), 2);
    mount::unmount(&ws, Unmount::IfUnused).unwrap();
    bench.unmount(id, false).unwrap();
    bench.assert_clean();
}

#[test]
fn a_mount_is_found_after_its_parents_were_renamed() {
    let bench = Bench::new();
    let id = bench.mount();
    fs::rename(bench.at("home"), bench.at("new home")).unwrap();
    bench.unmount(id, false).unwrap();
    bench.assert_clean();
}

#[test]
fn a_mount_shown_in_two_places_ends_in_both() {
    let bench = Bench::new();
    let shared = bench.at("home");
    mount::make_private_mount(&shared).unwrap();
    rustix::mount::mount_change(&shared, rustix::mount::MountPropagationFlags::SHARED).unwrap();
    fs::create_dir(bench.at("second")).unwrap();
    rustix::mount::mount_bind(&shared, bench.at("second")).unwrap();
    let id = bench.mount();
    let shown = |bench: &Bench| bench.left().iter().filter(|entry| entry.fs_type == "overlay").count();
    assert_eq!(shown(&bench), 2);
    bench.unmount(id, false).unwrap();
    assert_eq!(shown(&bench), 0);
}

#[test]
fn abandoning_removes_the_layer_and_the_mount() {
    let bench = Bench::new();
    bench.mount();
    let stale = bench.at("layers").join(&bench.workspace);
    fs::create_dir(&stale).unwrap();
    rustix::mount::mount_bind(bench.at("lower"), &stale).unwrap();
    let order = AbandonOrder { workspace: bench.workspace.clone(), layers: bench.at("layers") };
    unmount::abandon(&order).unwrap();
    bench.assert_clean();
    unmount::abandon(&order).unwrap();
}
