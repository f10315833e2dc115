//! What is mounted, from `/proc/<pid>/mountinfo`: parsing apart from reading.
//!
//! Reading the table touches no file system, so it is safe for a thread that must not hang on a dead mount. Paths and
//! sources are bytes: users choose the names of their mount points, and the kernel escapes only blank, tab, newline,
//! backslash and `#`. Knows no workspace.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    fs::File,
    io::{self, BufRead, BufReader},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
    str::FromStr,
};

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// The mount's id, unique among the mounts of this moment; the kernel gives it again later.
    pub mount_id: u64,
    /// Id of the mount it is attached to; its own for the top of the tree.
    pub parent_id: u64,
    /// The file system's device number: the same for all mounts of one superblock.
    pub device: DeviceNumber,
    /// The directory of the file system that is shown here.
    pub root: PathBuf,
    /// Where it is attached, from the root directory of the process that read the table.
    pub mount_point: PathBuf,
    /// Options of this mount, separated by commas.
    pub options: OsString,
    /// How mounting and unmounting below it spreads.
    pub propagation: Propagation,
    /// Type and subtype, as in `fuse.scorpio`.
    pub fs_type: OsString,
    /// What was given as the source.
    pub source: OsString,
    /// Options of the file system, separated by commas, as the kernel escaped them.
    pub super_options: OsString,
}

/// A device number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceNumber {
    /// Major number; 0 for file systems without a device.
    pub major: u32,
    /// Minor number; that of a FUSE mount is also its connection's name in `/sys/fs/fuse/connections`.
    pub minor: u32,
}

/// The optional fields. All absent: a private mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Propagation {
    /// `shared:N`: member of peer group N.
    pub shared: Option<u64>,
    /// `master:N`: receives from peer group N.
    pub master: Option<u64>,
    /// `propagate_from:N`: the nearest dominant peer group that can be seen.
    pub propagate_from: Option<u64>,
    /// `unbindable`.
    pub unbindable: bool,
}

/// A line that is none of mountinfo's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of mountinfo has no valid {field}")]
pub struct BadLine {
    /// Counted from 1.
    pub line: usize,
    /// Which field could not be read.
    pub field: &'static str,
}

/// Whose table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The calling process's.
    Own,
    /// That of another process, seen from our root.
    Process(u32),
}

/// Reads and parses a whole table. A line that cannot be parsed fails all of it: half a table would show mounts as
/// gone that stand.
pub fn read(whose: Whose) -> io::Result<Vec<MountEntry>> {
    let bytes = std::fs::read(path_of(whose))?;
    let entries: Result<Vec<_>, BadLine> = parse(&bytes).collect();
    entries.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Whether this process lives in the mount namespace of process 1, so that what it mounts is seen by the host.
///
/// Compares the ids of the first mount of both tables: ids are unique on a host, and the table is readable where the
/// link `/proc/1/ns/mnt` is not.
pub fn in_host_namespace() -> io::Result<bool> {
    Ok(first_mount(Whose::Own)? == first_mount(Whose::Process(1))?)
}

/// The entries of a table's bytes, one per line.
pub fn parse(bytes: &[u8]) -> impl Iterator<Item = Result<MountEntry, BadLine>> + '_ {
    let lines = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let count = if bytes.is_empty() { 0 } else { usize::MAX };
    lines
        .split(|byte| *byte == b'\n')
        .take(count)
        .enumerate()
        .map(|(index, line)| parse_line(line).map_err(|field| BadLine { line: index + 1, field }))
}

fn path_of(whose: Whose) -> PathBuf {
    match whose {
        Whose::Own => PathBuf::from("/proc/self/mountinfo"),
        Whose::Process(pid) => PathBuf::from(format!("/proc/{pid}/mountinfo")),
    }
}

fn first_mount(whose: Whose) -> io::Result<u64> {
    let mut line = Vec::new();
    BufReader::new(File::open(path_of(whose))?).read_until(b'\n', &mut line)?;
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    let entry = parse_line(line).map_err(|field| BadLine { line: 1, field });
    Ok(entry.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?.mount_id)
}

fn parse_line(line: &[u8]) -> Result<MountEntry, &'static str> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut next = |field: &'static str| fields.next().ok_or(field);
    let mount_id = number(next("mount id")?).ok_or("mount id")?;
    let parent_id = number(next("parent id")?).ok_or("parent id")?;
    let device = parse_device(next("device")?).ok_or("device")?;
    let root = filled(next("root")?, "root")?;
    let mount_point = filled(next("mount point")?, "mount point")?;
    let options = OsStr::from_bytes(next("options")?).to_owned();
    let mut propagation = Propagation::default();
    loop {
        match next("separator")? {
            b"-" => break,
            field => propagation.add(field).ok_or("optional field")?,
        }
    }
    let fs_type = OsString::from_vec(unescape(next("file system type")?));
    let source = OsString::from_vec(unescape(next("source")?));
    let super_options = OsStr::from_bytes(next("file system options")?).to_owned();
    Ok(MountEntry {
        mount_id,
        parent_id,
        device,
        root: root.into(),
        mount_point: mount_point.into(),
        options,
        propagation,
        fs_type,
        source,
        super_options,
    })
}

impl Propagation {
    /// Takes one optional field in; unknown ones are the future's and are passed over.
    fn add(&mut self, field: &[u8]) -> Option<()> {
        let mut parts = field.splitn(2, |byte| *byte == b':');
        let (tag, value) = (parts.next()?, parts.next());
        match tag {
            b"shared" => self.shared = Some(number(value?)?),
            b"master" => self.master = Some(number(value?)?),
            b"propagate_from" => self.propagate_from = Some(number(value?)?),
            b"unbindable" => self.unbindable = true,
            _ => {}
        }
        Some(())
    }
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

fn parse_device(field: &[u8]) -> Option<DeviceNumber> {
    let colon = field.iter().position(|byte| *byte == b':')?;
    Some(DeviceNumber { major: number(&field[..colon])?, minor: number(&field[colon + 1..])? })
}

fn number<N: FromStr>(field: &[u8]) -> Option<N> {
    let digits = !field.is_empty() && field.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(field).ok().filter(|_| digits)?.parse().ok()
}

fn filled(field: &[u8], name: &'static str) -> Result<OsString, &'static str> {
    if field.is_empty() { Err(name) } else { Ok(OsString::from_vec(unescape(field))) }
}

/// The bytes behind a value among [`MountEntry::super_options`].
pub fn unescaped(value: &[u8]) -> OsString {
    OsString::from_vec(unescape(value))
}

/// Turns `\ooo` back into bytes. A backslash that no three octal digits follow stands for itself.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let escape = (first == b'\\').then(|| octal(after)).flatten();
        bytes.push(escape.unwrap_or(first));
        rest = if escape.is_some() { &after[3..] } else { after };
    }
    bytes
}

fn octal(digits: &[u8]) -> Option<u8> {
    let value = digits.get(..3)?.iter().try_fold(0_u32, |value, digit| {
        matches!(digit, b'0'..=b'7').then(|| value * 8 + u32::from(digit - b'0'))
    })?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &[u8]) -> Result<MountEntry, BadLine> {
        let mut entries = parse(line);
        let entry = entries.next().unwrap();
        assert!(entries.next().is_none());
        entry
    }

    #[test]
    fn every_field_is_read() {
        let entry = one(
            b"36 35 98:7 /sub /mnt/two rw,noatime master:1 propagate_from:9 new:x - ext4 /dev/root rw,errors=continue\n",
        )
        .unwrap();
        assert_eq!(
            entry,
            MountEntry {
                mount_id: 36,
                parent_id: 35,
                device: DeviceNumber { major: 98, minor: 7 },
                root: "/sub".into(),
                mount_point: "/mnt/two".into(),
                options: "rw,noatime".into(),
                propagation: Propagation {
                    master: Some(1),
                    propagate_from: Some(9),
                    ..Propagation::default()
                },
                fs_type: "ext4".into(),
                source: "/dev/root".into(),
                super_options: "rw,errors=continue".into(),
            }
        );
        let shared = one(b"1 1 0:1 / / rw shared:2 unbindable - tmpfs  rw").unwrap();
        assert_eq!(shared.propagation.shared, Some(2));
        assert!(shared.propagation.unbindable);
        assert_eq!(shared.source, "");
    }

    #[test]
    fn any_bytes_in_a_path_come_back() {
        let cases: [(&[u8], &[u8]); 8] = [
            (br"/a\040b", b"/a b"),
            (br"/a\011b", b"/a\tb"),
            (br"/a\012b", b"/a\nb"),
            (br"/a\134040b", br"/a\040b"),
            (br"/a\043,b=c", b"/a#,b=c"),
            (b"/\xff\xfe", b"/\xff\xfe"),
            (br"/a\04", br"/a\04"),
            (br"/a\777\89", br"/a\777\89"),
        ];
        for (escaped, path) in cases {
            let line =
                [b"1 2 0:3 ".as_slice(), escaped, b" ", escaped, b" rw - a ", escaped, b" rw"].concat();
            let entry = one(&line).unwrap();
            assert_eq!(entry.mount_point.as_os_str().as_bytes(), path);
            assert_eq!(entry.root.as_os_str().as_bytes(), path);
            assert_eq!(entry.source.as_bytes(), path);
        }
    }

    #[test]
    fn bad_lines_say_which_field() {
        let cases: [(&[u8], &str); 14] = [
            (b"", "mount id"),
            (b"x 2 0:3 / / rw - a b rw", "mount id"),
            (b"+1 2 0:3 / / rw - a b rw", "mount id"),
            (b"99999999999999999999 2 0:3 / / rw - a b rw", "mount id"),
            (b"1", "parent id"),
            (b"1 -2 0:3 / / rw - a b rw", "parent id"),
            (b"1 2 03 / / rw - a b rw", "device"),
            (b"1 2 0:4294967296 / / rw - a b rw", "device"),
            (b"1 2 0:3  / rw - a b rw", "root"),
            (b"1 2 0:3 /", "mount point"),
            (b"1 2 0:3 / / rw shared:x - a b rw", "optional field"),
            (b"1 2 0:3 / / rw shared:1 a b rw", "separator"),
            (b"1 2 0:3 / / rw - a", "source"),
            (b"1 2 0:3 / / rw - a b", "file system options"),
        ];
        for (bad, field) in cases {
            let table = [b"1 2 0:3 / / rw - a b rw\n".as_slice(), bad, b"\n"].concat();
            let error = parse(&table).nth(1).unwrap().unwrap_err();
            assert_eq!(error, BadLine { line: 2, field }, "{}", bad.escape_ascii());
        }
        assert_eq!(parse(b"").count(), 0);
    }

    #[test]
    fn our_own_table_is_readable_and_ours() {
        let entries = read(Whose::Own).unwrap();
        assert!(entries.iter().any(|entry| entry.mount_point == *"/"));
        assert_eq!(read(Whose::Process(std::process::id())).unwrap().len(), entries.len());
        assert!(in_host_namespace().is_ok());
    }
}
