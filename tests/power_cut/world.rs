//! A host whose daemon keeps everything on disks that are logged, and which can be put together as they were at any moment.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    log::{self, Log},
    support::{ALICE, BOB, Host, PATIENCE},
};

/// What lies on which disk; paths begin at the host's directory.
pub struct Layout {
    pub disks: &'static [&'static str],
    pub state: &'static str,
    pub cache: &'static str,
    pub uppers: &'static str,
    pub homes: &'static str,
    /// Of the mounts of the disks.
    options: &'static str,
}

/// ext4 otherwise writes out what is renamed over another file, and commits every five seconds: a sync that is missing would be
/// seen less often.
pub const ONE_DISK: Layout = Layout {
    disks: &["disk"],
    state: "disk/state",
    cache: "disk/cache",
    uppers: "disk/state/workspaces",
    homes: "disk/homes",
    options: "noauto_da_alloc,commit=600",
};

/// A sync of one of them does nothing for the others.
pub const THREE_DISKS: Layout = Layout {
    disks: &["system", "work", "home"],
    state: "system/state",
    cache: "system/cache",
    uppers: "work/uppers",
    homes: "home/users",
    options: "noauto_da_alloc,commit=600,data=writeback",
};

const DISK_BYTES: u64 = 48 << 20;

/// `load.py` says what of it is changed how.
const REPOSITORY: &str = r#"
    head -c 3000 /dev/urandom > config
    mkdir changed gone mode tree
    for n in 0 1 2 3 4 5 6 7 8 9 10 11; do
        head -c $((n * 900 + 1)) /dev/urandom > changed/$n
        head -c 500 /dev/urandom > gone/$n
        head -c 5000 /dev/urandom > mode/$n
        mkdir tree/$n && head -c 2000 /dev/urandom > tree/$n/file
    done
    head -c 150000 /dev/urandom > changed/11
    git add -A && git commit -qm first
"#;

pub struct World {
    pub host: Host,
    pub layout: &'static Layout,
    /// While the disks are logged.
    server: Option<Server>,
    boots: u32,
}

/// The process that serves the disks.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What [`World::new`] starts the server with: where, what from, which disks.
pub const SERVE: &str = "SCORPIO_POWER_CUT_SERVE";

impl World {
    /// Disks with homes on them, logged, and a repository; no daemon yet. Also, how the disks were when they were new.
    pub fn new(layout: &'static Layout) -> (World, Vec<Vec<u8>>) {
        let mut host = Host::new("");
        host.sh("mkdir memory fuse repo && mount -t tmpfs -o size=1g,mode=755 tmpfs memory");
        host.sh(&format!(
            "cd repo && git init -q -b main . && git config user.name t && git config user.email t@t && git config gc.auto 0 && {REPOSITORY}"
        ));
        accounts(&host);
        host.sh("touch memory/boot_id && mount --bind memory/boot_id /proc/sys/kernel/random/boot_id");
        let keys = [("STATE_DIR", layout.state), ("CACHE_DIR", layout.cache), ("UPPER_ROOT", layout.uppers)];
        for (key, path) in keys {
            let path = host.path(path);
            host.set(&format!("SCORPIO_DAEMON__{key}"), path.to_str().unwrap());
        }
        for disk in layout.disks {
            let options = "-q -t ext4 -b 4096 -J size=4 -N 4096 -E lazy_itable_init=0,lazy_journal_init=0";
            host.sh(&format!(
                "mkdir {disk} && truncate -s {DISK_BYTES} memory/new-{disk} && mke2fs {options} -F memory/new-{disk}"
            ));
        }
        let new = |disk: &&str| fs::read(host.path(&format!("memory/new-{disk}"))).unwrap();
        let new: Vec<_> = layout.disks.iter().map(new).collect();
        let mut world = World { host, layout, server: None, boots: 0 };
        world.plug(&new);
        let homes = layout.homes;
        world.host.sh(&format!(
            "mkdir {homes} {homes}/{ALICE} {homes}/{BOB} && chown {ALICE}:{ALICE} {homes}/{ALICE} && \
             chown {BOB}:{BOB} {homes}/{BOB} && sync --file-system {}",
            layout.disks.join(" ")
        ));
        (world, new)
    }

    /// A directory of `uid`'s own, on the disk of the homes.
    pub fn home(&self, uid: u32) -> PathBuf {
        self.host.path(self.layout.homes).join(uid.to_string())
    }

    /// The log's length.
    pub fn position(&self) -> u64 {
        fs::metadata(self.host.path("memory/log")).unwrap().len()
    }

    /// Another boot, with these disks, and a log of what they are told from now on.
    pub fn plug(&mut self, images: &[Vec<u8>]) {
        self.save("disk", images);
        self.server = Some(serve(&self.host, self.layout));
        self.mount("fuse/");
        self.new_boot();
    }

    /// Takes the disks away, which nothing uses any more. Returns what they were told.
    pub fn unplug(&mut self) -> Log {
        self.unmount();
        self.host.sh("umount fuse");
        let mut server = self.server.take().expect("the disks are logged");
        assert!(server.0.wait().unwrap().success());
        Log::read(&self.host.path("memory/log")).unwrap()
    }

    /// Another boot, with these disks: their journals are replayed, then nothing is wrong with them.
    pub fn boot_with(&mut self, images: &[Vec<u8>]) {
        self.save("cut", images);
        self.mount("memory/cut-");
        self.unmount();
        for disk in self.layout.disks {
            let file = self.host.path(&format!("memory/cut-{disk}"));
            let output = Command::new("e2fsck").arg("-fn").arg(file).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
        self.mount("memory/cut-");
        self.new_boot();
    }

    /// Takes the disks away, which nothing uses any more.
    pub fn unmount(&self) {
        for disk in self.layout.disks {
            self.host.sh(&format!("umount {disk}"));
        }
    }

    fn save(&self, kind: &str, images: &[Vec<u8>]) {
        for (disk, image) in self.layout.disks.iter().zip(images) {
            let path = self.host.path(&format!("memory/{kind}-{disk}"));
            // A new file: a loop device may not have let go of the one before.
            let _ = fs::remove_file(&path);
            log::save(image, &path).unwrap();
        }
    }

    fn mount(&self, files: &str) {
        for disk in self.layout.disks {
            self.host.sh(&format!("mount -t ext4 -o loop,{} {files}{disk} {disk}", self.layout.options));
            let device = self.host.sh(&format!("findmnt -n -o SOURCE -M \"$PWD/{disk}\""));
            let device = Path::new(device.trim()).file_name().unwrap().to_owned();
            let options =
                fs::read_to_string(Path::new("/proc/fs/ext4").join(&device).join("options")).unwrap();
            assert!(options.lines().any(|option| option == "barrier"), "{options}");
            let cache = Path::new("/sys/block").join(&device).join("queue/write_cache");
            assert_eq!(fs::read_to_string(cache).unwrap(), "write back\n");
        }
    }

    /// What does not outlive a boot: its id, and the runtime directory.
    fn new_boot(&mut self) {
        self.boots += 1;
        let id = format!("00000000-0000-4000-8000-{:012x}\n", self.boots);
        fs::write(self.host.path("memory/boot_id"), id).unwrap();
        self.host.sh(
            "mkdir -p run; ! mountpoint -q run || umount -R -l run; mount -t tmpfs -o mode=755 tmpfs run",
        );
    }
}

/// Only who has an account can be given something.
fn accounts(host: &Host) {
    for (file, user) in [("passwd", "x:@:@::/:/bin/sh"), ("group", "x:@:")] {
        let lines = [ALICE, BOB].map(|uid| format!("test{uid}:{}\n", user.replace('@', &uid.to_string())));
        let all = fs::read_to_string(Path::new("/etc").join(file)).unwrap() + &lines.concat();
        fs::write(host.path("memory").join(file), all).unwrap();
        host.sh(&format!("mount --bind memory/{file} /etc/{file}"));
    }
}

/// Starts this binary again to serve the disks, and waits until it does.
fn serve(host: &Host, layout: &Layout) -> Server {
    let [at, memory] = ["fuse", "memory"].map(|name| host.path(name).to_str().unwrap().to_owned());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(crate::ignored("serves_the_disks"));
    // What it says about itself as a test is nothing that anybody waits for.
    command.env(SERVE, format!("{at}:{memory}:{}", layout.disks.join(","))).stdout(Stdio::null());
    let server = Server(command.spawn().unwrap());
    let begin = Instant::now();
    while !host.path("fuse").join(layout.disks[0]).exists() {
        assert!(begin.elapsed() < PATIENCE, "the disks are not served");
        std::thread::sleep(Duration::from_millis(5));
    }
    server
}
