//! Sequences of operations, the same for the same seed: on names of the repository and on new ones, in places that are
//! few enough for most of them to meet what earlier ones left.

use serde_json::{Value, json};

/// Descriptors that are open at a time, at most.
const SLOTS: u64 = 6;

/// Directories of the repository, one that a symlink leads to, and ones that operations may make or move.
/// What stands here more than once is met more often.
const DIRS: [&str; 12] =
    [".", ".", "d0", "d0", "d0/sub", "d1", "d1", "d1/deep/er", "n0", "n1", "d0/n0", "to-d0"];

/// Leaves: some are files or directories of the repository in some of the directories, some never are.
const LEAVES: [&str; 17] = [
    "a",
    "a",
    "big",
    "empty",
    "exec",
    "sub",
    "d0",
    "d1",
    "deep",
    "n0",
    "n0",
    "n1",
    "n2",
    "link",
    "to-d0",
    "odd \n%\u{ff}",
    "same",
];

/// Directories that are removed with all that is in them, moved and made again: all but the top.
const MOVED: [&str; 8] = ["d0", "d0/sub", "d1", "d1/deep", "d1/deep/er", "n0", "n1", "d0/n0"];

/// Lengths and offsets: around pages and the sizes of the repository's files.
const LENGTHS: [u64; 10] = [0, 1, 10, 511, 4095, 4096, 4097, 10_000, 70_001, 140_000];

/// Makes operations from a seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.roll(of.len() as u64)).unwrap()]
    }

    fn length(&mut self) -> u64 {
        self.pick(&LENGTHS)
    }

    fn slot(&mut self) -> u64 {
        self.roll(SLOTS)
    }

    fn dir(&mut self) -> String {
        self.pick(&DIRS).to_owned()
    }

    fn path(&mut self) -> String {
        match self.roll(60) {
            0 => format!("{}/{}", self.dir(), "n".repeat(255)),
            1 => format!("{}/{}", self.dir(), "n".repeat(256)),
            2 => self.dir(),
            3 => format!("{}/{}/", self.dir(), self.pick(&LEAVES)),
            _ => format!("{}/{}", self.dir(), self.pick(&LEAVES)),
        }
    }

    fn mode(&mut self) -> u64 {
        self.pick(&[0o644, 0o600, 0o755, 0o700, 0o444, 0o640, 0o4755, 0o2755])
    }

    /// Modes that let the owner go on working in a directory.
    fn dir_mode(&mut self) -> u64 {
        self.pick(&[0o755, 0o700, 0o711, 0o2755, 0o1777])
    }

    fn open_flags(&mut self) -> i32 {
        let access = self.pick(&[libc::O_RDONLY, libc::O_RDONLY, libc::O_RDWR, libc::O_RDWR, libc::O_WRONLY]);
        let more = [
            0,
            0,
            0,
            libc::O_CREAT,
            libc::O_CREAT,
            libc::O_CREAT | libc::O_EXCL,
            libc::O_TRUNC,
            libc::O_APPEND,
            libc::O_DIRECTORY,
            libc::O_NOFOLLOW,
        ];
        access | self.pick(&more)
    }

    fn rename_flags(&mut self) -> u32 {
        self.pick(&[0, 0, 0, libc::RENAME_NOREPLACE, libc::RENAME_EXCHANGE])
    }

    /// Long ago: times that only operations give.
    fn time(&mut self) -> u64 {
        100_000_000 + self.roll(1_000_000)
    }

    /// The next operation.
    pub(crate) fn operation(&mut self) -> Value {
        match self.roll(100) {
            0..=15 => json!(["open", self.slot(), self.path(), self.open_flags(), self.mode()]),
            16..=22 => json!(["write", self.slot(), self.length(), self.length(), self.roll(1000)]),
            23..=25 => json!(["append", self.slot(), self.length(), self.roll(1000)]),
            26..=28 => json!(["read", self.slot(), self.length(), self.length()]),
            29..=30 => json!(["mapwrite", self.slot(), self.length(), self.length(), self.roll(1000)]),
            31..=32 => json!(["ftruncate", self.slot(), self.length()]),
            33..=34 => json!(["truncate", self.path(), self.length()]),
            35..=36 => {
                let mode = self.pick(&[0, 1, 3, 16, 0]);
                json!(["fallocate", self.slot(), mode, self.length(), self.length()])
            }
            37..=38 => {
                let (from, to) = (self.slot(), self.slot());
                json!(["copyrange", from, to, self.length(), self.length(), self.length()])
            }
            39 if self.roll(2) == 0 => json!(["fsync", self.slot()]),
            39 => json!(["close", self.slot()]),
            40..=42 => json!(["fstat", self.slot()]),
            43 => json!(["fchmod", self.slot(), self.mode()]),
            44 => json!(["futimens", self.slot(), self.time()]),
            45 => json!(["fdlist", self.slot()]),
            46..=47 => json!(["openat", self.slot(), self.slot(), self.pick(&LEAVES), self.open_flags()]),
            48 => json!(["open", self.slot(), self.dir(), libc::O_DIRECTORY, 0]),
            49 => json!(["tmpfile", self.slot(), self.dir(), self.mode()]),
            50 => json!(["linkfd", self.slot(), self.path()]),
            51..=52 => json!(["stat", self.path()]),
            53..=54 => json!(["readall", self.path()]),
            55 => json!(["list", self.dir()]),
            56..=57 => json!(["mkdir", self.path(), self.dir_mode()]),
            58..=60 => json!(["mkdir", self.pick(&MOVED), self.dir_mode()]),
            61 => json!(["rmdir", self.path()]),
            62 => json!(["rmtree", self.pick(&MOVED)]),
            63..=67 => json!(["unlink", self.path()]),
            68..=72 => json!(["rename", self.path(), self.path(), self.rename_flags()]),
            73..=76 => json!(["rename", self.pick(&MOVED), self.pick(&MOVED), self.rename_flags()]),
            77..=80 => json!(["link", self.path(), self.path()]),
            81..=82 => json!(["symlink", self.pick(&["a", "../d1/a", "/nowhere", "d0"]), self.path()]),
            83 => json!(["mkfifo", self.path()]),
            84 => json!(["readlink", self.path()]),
            85..=87 => json!(["chmod", self.file(), self.mode()]),
            88 => json!(["chmod", self.dir(), self.dir_mode()]),
            89 => json!(["utimens", self.path(), self.time()]),
            90..=91 => json!(["touch", self.file(), self.time()]),
            92 => json!(["access", self.path(), self.roll(8)]),
            93..=95 => {
                let (name, value) = (self.attribute(), format!("value {}", self.roll(100)));
                json!(["setxattr", self.path(), name, value, self.roll(3)])
            }
            96 => json!(["getxattr", self.path(), self.attribute()]),
            97..=98 => json!(["removexattr", self.path(), self.attribute()]),
            _ => json!(["xattrs", self.path()]),
        }
    }

    /// A path that is no directory of the repository, so that its mode shuts nobody out.
    fn file(&mut self) -> String {
        format!("{}/{}", self.dir(), self.pick(&["a", "big", "empty", "exec", "n2", "same"]))
    }

    fn attribute(&mut self) -> &'static str {
        self.pick(&["user.one", "user.two", "user.overlay.x", "trusted.one"])
    }
}
