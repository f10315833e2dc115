//! Git repositories on bad days: forbidden, hostile, damaged, coming and going, on a file system that hangs.
#![allow(missing_docs, clippy::unwrap_used)]

mod origin_fixture;

use std::{
    fs,
    os::{
        fd::AsRawFd as _,
        unix::fs::{PermissionsExt as _, symlink},
    },
    path::Path,
    time::Duration,
};

use origin_fixture::{
    Objects, assert_root, build, git, git_with_input, myself, name, nobody, oid, open_dir, want, wants,
};
use scorpio::{
    origin::{
        FetchError, Limits, Origin, ResolveError, Snapshot,
        git::{GitOrigin, OpenError},
        limits::Limited,
    },
    sys::identity::Identity,
    types::{ObjectKind, Oid, RepoPath},
};

fn open_as(path: &Path, reader: Identity) -> GitOrigin {
    GitOrigin::open(name("repo"), path, reader).unwrap()
}

fn open(path: &Path) -> GitOrigin {
    open_as(path, myself())
}

async fn head(origin: &GitOrigin) -> Result<Snapshot, ResolveError> {
    origin.resolve(None, &RepoPath::root()).await
}

async fn blob(origin: &impl Origin, oid: Oid) -> Result<Vec<u8>, FetchError> {
    origin.blobs(&[want(oid)]).await.pop().unwrap().map(|blob| blob.to_vec())
}

async fn size(origin: &impl Origin, oid: Oid) -> Result<u64, FetchError> {
    origin.sizes(&[want(oid)]).await.pop().unwrap().map(|size| size.bytes)
}

/// A repository with one commit that has the file `f`; the file's blob.
fn small(dir: &Path, content: &str) -> Oid {
    fs::create_dir_all(dir).unwrap();
    git(dir, &["init", "-q", "-b", "main"]);
    fs::write(dir.join("f"), content).unwrap();
    git(dir, &["add", "-A"]);
    git(dir, &["commit", "-q", "-m", "one"]);
    oid(dir, "HEAD:f")
}

fn loose(repository: &Path, oid: Oid) -> std::path::PathBuf {
    let hex = oid.to_string();
    repository.join(".git/objects").join(&hex[..2]).join(&hex[2..])
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn is_denied(error: &FetchError, uid: u32) -> bool {
    matches!(error, FetchError::Denied { reason, .. } if reason.ends_with(&format!("may not be read by uid {uid}")))
}

fn is_unreachable(error: &FetchError) -> bool {
    matches!(error, FetchError::Unreachable { .. })
}

#[tokio::test]
async fn what_the_reader_may_not_read_is_denied_though_root_may() {
    assert_root();
    let dir = open_dir();
    let (secret, own) = (dir.path().join("secret"), dir.path().join("own"));
    let hidden = small(&secret, "hidden\n");
    let shown = small(&own, "shown\n");
    chmod(&secret.join(".git"), 0o700);
    let origin = open_as(&secret, nobody());
    assert!(is_denied(&blob(&origin, hidden).await.unwrap_err(), 65_534));
    assert!(is_denied(&size(&origin, hidden).await.unwrap_err(), 65_534));
    assert!(matches!(origin.probe().await, Err(OpenError::Denied { .. })));
    let Err(ResolveError::Fetch(error)) = head(&origin).await else { panic!("resolved what is forbidden") };
    assert!(is_denied(&error, 65_534));
    assert_eq!(blob(&open(&secret), hidden).await.unwrap(), b"hidden\n");

    // Alternates and links do not lend root's rights either.
    let objects = secret.join(".git/objects");
    let origin = open_as(&own, nobody());
    fs::write(own.join(".git/objects/info/alternates"), format!("{}\n", objects.display())).unwrap();
    assert_eq!(blob(&origin, shown).await.unwrap(), b"shown\n");
    assert!(is_denied(&blob(&origin, hidden).await.unwrap_err(), 65_534));
    fs::remove_file(own.join(".git/objects/info/alternates")).unwrap();
    assert!(matches!(blob(&origin, hidden).await, Err(FetchError::Absent { .. })));
    fs::create_dir_all(loose(&own, hidden).parent().unwrap()).unwrap();
    symlink(loose(&secret, hidden), loose(&own, hidden)).unwrap();
    assert!(is_denied(&blob(&origin, hidden).await.unwrap_err(), 65_534));
    fs::rename(own.join(".git/objects"), own.join(".git/former")).unwrap();
    symlink(&objects, own.join(".git/objects")).unwrap();
    assert!(is_denied(&blob(&origin, hidden).await.unwrap_err(), 65_534));
}

#[tokio::test]
async fn a_pack_that_may_not_be_read_makes_nothing_absent() {
    assert_root();
    let dir = open_dir();
    let repository = dir.path().join("repo");
    let packed = small(&repository, "packed\n");
    git(&repository, &["repack", "-q", "-a", "-d"]);
    let pack = repository.join(".git/objects/pack");
    let files: Vec<_> = fs::read_dir(&pack).unwrap().map(|entry| entry.unwrap().path()).collect();
    for extension in ["idx", "pack"] {
        let file = files.iter().find(|path| path.extension().unwrap() == extension).unwrap();
        chmod(file, 0o400);
        let error = blob(&open_as(&repository, nobody()), packed).await.unwrap_err();
        assert!(is_denied(&error, 65_534), "{extension}: {error}");
        chmod(file, 0o444);
    }
    chmod(&pack, 0o700);
    let origin = open_as(&repository, nobody());
    assert!(is_denied(&blob(&origin, packed).await.unwrap_err(), 65_534));
    chmod(&pack, 0o755);
    assert_eq!(blob(&origin, packed).await.unwrap(), b"packed\n");
}

#[tokio::test]
async fn an_origin_that_is_not_there_yet_works_as_soon_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let repository = dir.path().join("later");
    let origin = open(&repository);
    assert_eq!(origin.probe().await, Err(OpenError::Missing { path: repository.clone() }));
    let Err(ResolveError::Fetch(error)) = head(&origin).await else { panic!("resolved what is not there") };
    assert!(is_unreachable(&error));
    fs::create_dir(&repository).unwrap();
    assert!(matches!(origin.probe().await, Err(OpenError::NotARepository { .. })));
    git(&repository, &["init", "-q", "-b", "main"]);
    assert_eq!(origin.probe().await, Ok(()));
    let unborn = head(&origin).await.unwrap_err();
    assert_eq!(unborn.to_string(), "origin `repo` has no revision `HEAD`");
    let blob_oid = small(&repository, "here\n");
    assert_eq!(head(&origin).await.unwrap().commit, oid(&repository, "HEAD"));
    assert_eq!(blob(&origin, blob_oid).await.unwrap(), b"here\n");
}

#[tokio::test]
async fn a_repository_put_in_anothers_place_is_seen_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("repo"), dir.path().join("other"));
    let (first, second) = (small(&path, "first\n"), small(&other, "second\n"));
    for repository in [&path, &other] {
        git(repository, &["repack", "-q", "-a", "-d"]);
    }
    let origin = open(&path);
    assert_eq!(blob(&origin, first).await.unwrap(), b"first\n");
    fs::rename(&path, dir.path().join("away")).unwrap();
    fs::rename(&other, &path).unwrap();
    assert_eq!(blob(&origin, second).await.unwrap(), b"second\n");
    assert!(matches!(blob(&origin, first).await, Err(FetchError::Absent { .. })));
}

#[tokio::test]
async fn objects_and_packs_that_come_later_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    small(&path, "first\n");
    let origin = open(&path);
    let mut commits = vec![head(&origin).await.unwrap().commit];
    for round in 0..30 {
        let text = format!("round {round}\n");
        let body = text.as_bytes();
        let later = Oid::of(ObjectKind::Blob, body).unwrap();
        assert!(matches!(blob(&origin, later).await, Err(FetchError::Absent { .. })));
        fs::write(path.join("f"), body).unwrap();
        git(&path, &["commit", "-q", "-a", "-m", &text]);
        // Packs appear within one tick of the file system's clock, one after the other.
        git(&path, &["repack", "-q", "-d"]);
        assert!(!loose(&path, later).exists());
        assert_eq!(blob(&origin, later).await.unwrap(), body);
        commits.push(head(&origin).await.unwrap().commit);
    }
    commits.dedup();
    assert_eq!(commits.len(), 31);
}

#[tokio::test]
async fn nothing_in_a_repository_is_obeyed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    let original = small(&path, "original\n");
    let first = oid(&path, "HEAD");
    fs::write(path.join("f"), "other\n").unwrap();
    git(&path, &["commit", "-q", "-a", "-m", "two"]);
    let other = oid(&path, "HEAD:f");
    git(&path, &["replace", &original.to_string(), &other.to_string()]);
    assert_eq!(git(&path, &["cat-file", "blob", &original.to_string()]), "other");
    let head_oid = oid(&path, "HEAD");
    fs::write(path.join(".git/info/grafts"), format!("{head_oid}\n")).unwrap();
    let ran = dir.path().join("ran");
    let config = format!(
        "[include]\n\tpath = /dev/zero\n[core]\n\tfsmonitor = touch {0}\n\tsshCommand = touch {0}\n\tworktree = /nowhere\n\
         [extensions]\n\tpartialClone = origin\n[remote \"origin\"]\n\turl = ext::touch {0}\n\tpromisor = true\n",
        ran.display()
    );
    let before = fs::read_to_string(path.join(".git/config")).unwrap();
    fs::write(path.join(".git/config"), before + &config).unwrap();
    let origin = open(&path);
    assert_eq!(blob(&origin, original).await.unwrap(), b"original\n");
    assert_eq!(origin.resolve(Some("HEAD~1"), &RepoPath::root()).await.unwrap().commit, first);
    let absent = Oid::from_bytes([7; 20]);
    assert!(matches!(blob(&origin, absent).await, Err(FetchError::Absent { .. })));
    assert!(!ran.exists());
}

#[tokio::test]
async fn what_stands_in_a_files_place_neither_hangs_nor_fills_memory() {
    let dir = tempfile::tempdir().unwrap();
    let part = |name: &str| dir.path().join("repo/.git").join(name);
    let blob_oid = small(&dir.path().join("repo"), "x\n");
    let object = loose(&dir.path().join("repo"), blob_oid);
    let object = object.strip_prefix(part("")).unwrap().to_str().unwrap().to_owned();
    let origin = open(&dir.path().join("repo"));
    for file in ["HEAD", "config", "refs/heads/main", "objects/info/alternates", "packed-refs", &object] {
        let kept = fs::read(part(file)).ok();
        for put in [
            &|path: &Path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            &|path: &Path| symlink("/dev/zero", path).unwrap(),
            &|path: &Path| fs::File::create(path).unwrap().set_len(1 << 40).unwrap(),
        ] as [&dyn Fn(&Path); 3]
        {
            let _ = fs::remove_file(part(file));
            put(&part(file));
            let main = origin.resolve(Some("heads/nothing"), &RepoPath::root()).await;
            let head = head(&origin).await;
            let read = blob(&origin, blob_oid).await;
            let absent = blob(&origin, Oid::from_bytes([7; 20])).await.unwrap_err();
            match file {
                "HEAD" => assert!(head.is_err(), "{file}"),
                "config" => assert!(head.is_err() && read.is_err() && is_unreachable(&absent), "{file}"),
                "refs/heads/main" => {
                    assert!(matches!(head, Err(ResolveError::Fetch(_))) && read.is_ok(), "{file}");
                }
                "objects/info/alternates" => assert!(read.is_ok() && is_unreachable(&absent), "{file}"),
                "packed-refs" => {
                    assert!(matches!(main, Err(ResolveError::Fetch(_))) && read.is_ok(), "{file}");
                }
                _ => assert!(read.is_err(), "{file}"),
            }
        }
        fs::remove_file(part(file)).unwrap();
        if let Some(kept) = kept {
            fs::write(part(file), kept).unwrap();
        }
        assert!(head(&origin).await.is_ok() && blob(&origin, blob_oid).await.is_ok(), "{file} put back");
    }
}

#[tokio::test]
async fn a_wrong_object_on_the_way_to_a_directory_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    small(&path, "first\n");
    let (first, tree) = (oid(&path, "HEAD"), oid(&path, "HEAD^{tree}"));
    fs::write(path.join("f"), "second\n").unwrap();
    fs::create_dir(path.join("d")).unwrap();
    fs::write(path.join("d/g"), "third\n").unwrap();
    git(&path, &["add", "-A"]);
    git(&path, &["commit", "-q", "-m", "two"]);
    let (second, top) = (oid(&path, "HEAD"), oid(&path, "HEAD^{tree}"));
    let origin = open(&path);
    let swap = |one: Oid, by: Oid| {
        let kept = fs::read(loose(&path, one)).unwrap();
        fs::remove_file(loose(&path, one)).unwrap();
        fs::copy(loose(&path, by), loose(&path, one)).unwrap();
        kept
    };
    let restore = |one: Oid, kept: Vec<u8>| {
        fs::remove_file(loose(&path, one)).unwrap();
        fs::write(loose(&path, one), kept).unwrap();
    };
    let kept = swap(second, first);
    let answer = head(&origin).await;
    assert!(matches!(answer, Err(ResolveError::Fetch(FetchError::Mismatch { oid, .. })) if oid == second));
    restore(second, kept);
    let kept = swap(top, tree);
    let answer = origin.resolve(None, &"d".parse().unwrap()).await;
    assert!(matches!(answer, Err(ResolveError::Fetch(FetchError::Mismatch { oid, .. })) if oid == top));
    restore(top, kept);
    assert_eq!(origin.resolve(None, &"d".parse().unwrap()).await.unwrap().tree, oid(&path, "HEAD:d"));
}

#[tokio::test]
async fn damaged_packs_fail_object_by_object() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    build(&path);
    git(&path, &["gc", "-q", "--prune=now"]);
    let objects = Objects::of(&path);
    let blobs: Vec<Oid> = objects.blobs.keys().copied().step_by(50).collect();
    let pack_dir = path.join(".git/objects/pack");
    for extension in ["pack", "idx"] {
        let file = fs::read_dir(&pack_dir).unwrap().map(|entry| entry.unwrap().path());
        let file = file.into_iter().find(|path| path.extension().unwrap() == extension).unwrap();
        let good = fs::read(&file).unwrap();
        let replace = |bytes: &[u8]| {
            // As a new file: what is open is never written to.
            let beside = file.with_extension("new");
            fs::write(&beside, bytes).unwrap();
            fs::rename(&beside, &file).unwrap();
        };
        for round in 0..24 {
            let mut bad = good.clone();
            match round {
                0 => bad.truncate(good.len() / 2),
                1 => bad.truncate(10),
                2 => bad.fill(0),
                3 => bad.fill(0xff),
                // Every part of the file is hit in some round.
                _ => (0..200).for_each(|hit| {
                    let at = (hit * 7919 + round * 104_729) % bad.len();
                    bad[at] ^= 0xff;
                }),
            }
            replace(&bad);
            let origin = open(&path);
            let answers = origin.blobs(&wants(&blobs)).await;
            let sizes = origin.sizes(&wants(&blobs)).await;
            assert_eq!((answers.len(), sizes.len()), (blobs.len(), blobs.len()));
            for answer in answers.iter().filter_map(|answer| answer.as_ref().err()) {
                let damage = matches!(answer, FetchError::Mismatch { .. } | FetchError::Absent { .. });
                assert!(damage || is_unreachable(answer), "{extension} {round}: {answer}");
            }
            if let Ok(snapshot) = head(&origin).await {
                assert_eq!(snapshot.commit, oid_of_head(&path), "{extension} {round}");
            }
        }
        replace(&good);
        let answers = open(&path).blobs(&wants(&blobs)).await;
        assert!(
            blobs.iter().zip(answers).all(|(oid, blob)| blob.is_ok_and(|blob| blob == objects.blobs[oid]))
        );
    }
}

/// Without reading objects, which are damaged.
fn oid_of_head(path: &Path) -> Oid {
    git(path, &["for-each-ref", "--format=%(objectname)", "refs/heads/main"]).parse().unwrap()
}

/// A FUSE file system whose server never answers; what waits for it fails when this is dropped.
struct Hanging {
    device: Option<fs::File>,
    at: std::path::PathBuf,
}

impl Hanging {
    fn mount(at: &Path) -> Hanging {
        let device = fs::File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let flags = nix::mount::MsFlags::MS_NODEV | nix::mount::MsFlags::MS_NOSUID;
        nix::mount::mount(Some("hanging"), at, Some("fuse"), flags, Some(options.as_str())).unwrap();
        Hanging { device: Some(device), at: at.to_owned() }
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        // The last descriptor gone, everything that waits gets ENOTCONN.
        drop(self.device.take());
        nix::mount::umount2(&self.at, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_on_a_hanging_file_system_stops_nobody_else_and_comes_back() {
    assert_root();
    let dir = tempfile::tempdir().unwrap();
    let (hung, well) = (dir.path().join("hung"), dir.path().join("well"));
    let (in_hung, in_well) = (small(&hung, "hung\n"), small(&well, "well\n"));
    let other = open(&well);
    let hanging = Hanging::mount(&hung);
    let after = Duration::from_millis(300);
    let limited = Limited::new(open(&hung), Limits { deadline: after, requests: 2 });
    let timed_out = FetchError::TimedOut { origin: name("repo"), after };
    for _ in 0..3 {
        // Three at once: the third waits for its turn, and no longer than the others.
        let asked = [want(in_hung)];
        let (one, two, three) =
            tokio::join!(limited.blobs(&asked), limited.sizes(&asked), limited.trees(&asked));
        assert_eq!(
            (one, two, three),
            (vec![Err(timed_out.clone())], vec![Err(timed_out.clone())], vec![Err(timed_out.clone())])
        );
        let unresolved = limited.resolve(None, &RepoPath::root()).await.unwrap_err();
        assert!(matches!(unresolved, ResolveError::Fetch(error) if error == timed_out));
        assert_eq!(blob(&other, in_well).await.unwrap(), b"well\n");
    }
    let threads = fs::read_dir("/proc/self/task").unwrap().filter(|task| {
        let comm = task.as_ref().unwrap().path().join("comm");
        fs::read_to_string(comm).is_ok_and(|comm| comm.starts_with("origin-repo-"))
    });
    assert_eq!(threads.count(), 8, "four threads for each of two origins, however many requests hang");
    drop(hanging);
    // The mount is gone, and the repository beneath is there again.
    assert_eq!(blob(&limited, in_hung).await.unwrap(), b"hung\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_a_hanging_origin_has_room_for_are_refused_at_once() {
    use futures_util::{FutureExt as _, future::join_all};
    assert_root();
    let dir = tempfile::tempdir().unwrap();
    let repository = dir.path().join("repo");
    let blob_oid = small(&repository, "x\n");
    let hanging = Hanging::mount(&repository);
    let origin = open(&repository);
    let asked = [want(blob_oid)];
    let mut waiting = Vec::new();
    let mut refused = 0;
    for _ in 0..400 {
        let mut request = Box::pin(origin.blobs(&asked));
        match request.as_mut().now_or_never() {
            None => waiting.push(request),
            Some(answer) => {
                let error = answer[0].as_ref().unwrap_err();
                assert!(
                    is_unreachable(error) && error.to_string().contains("too many requests wait"),
                    "{error}"
                );
                refused += 1;
            }
        }
    }
    // 256 in the queue, and what the four threads took from it meanwhile. One of them looks at the repository since the
    // start, or that is still one of those in the queue.
    assert!((255..=259).contains(&waiting.len()) && refused == 400 - waiting.len(), "{} wait", waiting.len());
    drop(hanging);
    for answer in join_all(waiting).await {
        assert!(answer[0].as_ref().map_or_else(is_unreachable, |blob| blob == "x\n".as_bytes()));
    }
    assert_eq!(blob(&origin, blob_oid).await.unwrap(), b"x\n");
}

#[tokio::test]
async fn a_size_is_told_without_reading_the_blob() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    fs::create_dir(&path).unwrap();
    git(&path, &["init", "-q"]);
    // 256 MiB of zeros are a quarter of a megabyte deflated; decoding them takes a hundred times longer than a header.
    let giant = git_with_input(&path, &["hash-object", "-w", "--stdin"], &vec![0; 256 << 20]);
    let giant: Oid = std::str::from_utf8(&giant).unwrap().trim_end().parse().unwrap();
    // Cut behind the header: the size can still be told, the blob cannot be read.
    let file = loose(&path, giant);
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    fs::write(&file, &bytes[..4096]).unwrap();
    let origin = open(&path);
    assert_eq!(size(&origin, giant).await, Ok(256 << 20));
    assert!(matches!(blob(&origin, giant).await, Err(FetchError::Mismatch { .. })));
}

/// The files of the one pack of a repository.
/// A tree of so many bytes, at least 64, of entries for the blob `file`.
fn tree_of(repository: &Path, file: Oid, bytes: usize) -> Oid {
    // 7 bytes of mode, the name, a NUL and 20 bytes of id.
    let longer = "x".repeat(bytes % 32);
    let names = (0..bytes / 32).map(|n| if n == 0 { format!("0000{longer}") } else { format!("{n:04}") });
    let lines: String = names.map(|name| format!("100644 blob {file}\t{name}\n")).collect();
    let said = git_with_input(repository, &["mktree"], lines.as_bytes());
    String::from_utf8(said).unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn a_large_tree_is_left_to_who_asks_for_it() {
    let dir = open_dir();
    let file = small(dir.path(), "content\n");
    let [fits, large] = [65_536, 65_537].map(|bytes| tree_of(dir.path(), file, bytes));
    let absent: Oid = "00000000000000000000000000000000000000aa".parse().unwrap();
    let asked = [want(fits), want(large), want(absent), want(file)];
    let limits = Limits { deadline: Duration::from_secs(10), requests: 4 };
    let origin: std::sync::Arc<dyn Origin> = std::sync::Arc::new(Limited::new(open(dir.path()), limits));
    for kept in ["loose", "packed"] {
        let told = origin.small_trees(&asked).await;
        let [Ok(Some(small)), Ok(None), Err(FetchError::Absent { .. }), Err(_)] = &told[..] else {
            panic!("{kept}: {told:?}");
        };
        assert_eq!(small.body.len(), 65_536);
        let all = origin.trees(&asked[..2]).await.into_iter().map(|tree| tree.unwrap().body.len());
        assert_eq!(all.collect::<Vec<_>>(), [65_536, 65_537], "{kept}");
        let both = format!("{fits}\n{large}\n{file}\n");
        git_with_input(dir.path(), &["pack-objects", "-q", ".git/objects/pack/pack"], both.as_bytes());
        git(dir.path(), &["prune-packed"]);
        assert!(!loose(dir.path(), large).exists());
    }
}

fn pack_files(repository: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(repository.join(".git/objects/pack")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| ["pack", "idx"].iter().any(|wanted| file.extension().is_some_and(|e| e == *wanted)));
    assert_eq!(files.len(), 2, "{files:?}");
    files
}

/// A process of the repository's owner that cuts `file` short and fills it again, in place and for ever.
struct Cutter(std::process::Child);

impl Cutter {
    fn start(file: &Path, uid: u32) -> Cutter {
        use std::os::unix::process::CommandExt as _;
        let whole = file.with_extension("whole");
        fs::copy(file, &whole).unwrap();
        chmod(file, 0o600);
        let script = "while :; do truncate -s 4096 \"$0\"; truncate -s 0 \"$0\"; cat \"$1\" > \"$0\"; done";
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", script]).args([file, &whole]).uid(uid).gid(uid).process_group(0);
        Cutter(shell.spawn().unwrap())
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        use nix::sys::signal::{Signal, killpg};
        let group = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        killpg(group, Signal::SIGKILL).unwrap();
        self.0.wait().unwrap();
        // Until the one that it had started, and that may be in the middle of writing, is gone too.
        while killpg(group, None).is_ok() {
            std::thread::yield_now();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_who_cuts_a_pack_short_while_it_is_read_harms_nobody() {
    const OWNER: u32 = 61_001;
    assert_root();
    let dir = open_dir();
    let path = dir.path().join("repo");
    build(&path);
    git(&path, &["gc", "-q", "--prune=now"]);
    let objects = Objects::of(&path);
    let blobs: Vec<Oid> = objects.blobs.keys().copied().step_by(40).collect();
    let owner = format!("{OWNER}:{OWNER}");
    let given = std::process::Command::new("chown").args(["-R", &owner]).arg(&path).status().unwrap();
    assert!(given.success());
    for file in pack_files(&path) {
        let origin = open_as(&path, Identity { uid: OWNER, gid: OWNER, groups: Vec::new() });
        let warm = origin.blobs(&wants(&blobs)).await;
        assert!(warm.iter().all(Result::is_ok), "the files are open and were read");
        let cutter = Cutter::start(&file, OWNER);
        let (mut right, mut failed) = (0, 0);
        let end = std::time::Instant::now() + Duration::from_secs(60);
        // Each kind often enough that a mapping would have been met at its end many times.
        while right < 20 || failed < 500 {
            assert!(std::time::Instant::now() < end, "{}: {right} right, {failed} failed", file.display());
            let sizes = origin.sizes(&wants(&blobs)).await;
            for ((oid, answer), size) in blobs.iter().zip(origin.blobs(&wants(&blobs)).await).zip(sizes) {
                match answer {
                    Ok(blob) if blob == objects.blobs[oid] => right += 1,
                    // Zeros where the file was filled again meanwhile: the store would see that by the id.
                    Ok(_) => {}
                    Err(FetchError::Mismatch { .. } | FetchError::Absent { .. }) => failed += 1,
                    Err(error) => {
                        assert!(is_unreachable(&error), "{error}");
                        failed += 1;
                    }
                }
                drop(size);
            }
        }
        drop(cutter);
        fs::copy(file.with_extension("whole"), &file).unwrap();
        let answers = origin.blobs(&wants(&blobs)).await;
        assert!(
            blobs.iter().zip(answers).all(|(oid, blob)| blob.is_ok_and(|blob| blob == objects.blobs[oid])),
            "{}: whole again",
            file.display()
        );
    }
}
