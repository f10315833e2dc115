//! Saving what a workspace's user wrote: as a tar or as a patch. Works on the upper directory alone (tar) or on it and
//! the base tree (patch); with or without a mount, with or without a daemon.
//!
//! The tar is exact: every entry of the upper with owner, mode, times, hard links and extended attributes (as the PAX
//! records that `tar --xattrs` reads and writes), overlayfs's own marks included. Unpacked by root with
//! `tar -xp --xattrs --xattrs-include='*' -f FILE -C DIR` it is an upper again.

use std::{
    collections::HashMap,
    ffi::OsString,
    io::{self, Read, Write},
    path::PathBuf,
};

use rustix::fs::Stat;

use crate::{
    manager::{
        changes::ChangesError,
        upper::{UpperDir, UpperEntry, os_path},
    },
    types::{FileName, RepoPath},
};

/// Deeper than any path the kernel resolves; ends recursion on a hostile upper.
const MAX_DEPTH: usize = 2048;

/// What an export is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Exact copy of the upper.
    Tar,
    /// For `git apply`.
    Patch,
}

/// Why an export is incomplete; what was written so far must not be used.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// An entry of the upper cannot be read.
    #[error("cannot read {path} in the upper: {source}")]
    Read {
        /// Which entry.
        path: RepoPath,
        /// What the system said.
        source: io::Error,
    },
    /// A file got shorter while it was read.
    #[error("{path} changed while it was read; stop what writes to it and export again")]
    Changed {
        /// Which file.
        path: RepoPath,
    },
    /// A file is too large for a patch.
    #[error("{path} has {size} bytes, too many for a patch; export a tar instead")]
    TooLarge {
        /// Which file.
        path: RepoPath,
        /// Its size.
        size: u64,
    },
    /// The changes cannot be listed.
    #[error(transparent)]
    Changes(#[from] ChangesError),
    /// The export cannot be written.
    #[error("cannot write the export: {0}")]
    Write(#[from] io::Error),
}

/// Writes the upper as a tar and returns the names of sockets, which a tar cannot hold.
pub fn tar(upper: &UpperDir, out: impl Write) -> Result<Vec<RepoPath>, ExportError> {
    let mut writer = TarWriter { tar: ::tar::Builder::new(out), links: HashMap::new(), left_out: Vec::new() };
    writer.directory(upper, &RepoPath::root())?;
    writer.tar.into_inner()?.flush()?;
    Ok(writer.left_out)
}

struct TarWriter<W: Write> {
    tar: ::tar::Builder<W>,
    /// First path of each file with several names.
    links: HashMap<(u64, u64), PathBuf>,
    left_out: Vec<RepoPath>,
}

impl<W: Write> TarWriter<W> {
    fn directory(&mut self, dir: &UpperDir, path: &RepoPath) -> Result<(), ExportError> {
        if path.names().len() > MAX_DEPTH {
            return Err(ChangesError::TooDeep(path.clone()).into());
        }
        let failed = |source| ExportError::Read { path: path.clone(), source };
        let mut header = header(&dir.stat().map_err(failed)?, ::tar::EntryType::Directory);
        header.set_size(0);
        self.attributes(dir, None, path)?;
        self.tar.append_data(&mut header, tar_path(path), io::empty())?;
        for name in dir.names().map_err(failed)? {
            self.entry(dir, &name, &path.join(name.clone()))?;
        }
        Ok(())
    }

    fn entry(&mut self, dir: &UpperDir, name: &FileName, path: &RepoPath) -> Result<(), ExportError> {
        let failed = |source| ExportError::Read { path: path.clone(), source };
        // Gone since the directory was listed: then it is not part of what is saved.
        let Some(entry) = dir.entry(name).map_err(failed)? else { return Ok(()) };
        match entry {
            UpperEntry::Directory { .. } => self.directory(&dir.open_dir(name).map_err(failed)?, path),
            UpperEntry::File(stat) | UpperEntry::Metacopy { stat, .. } => self.file(dir, name, &stat, path),
            UpperEntry::Symlink(stat, target) => {
                let mut header = header(&stat, ::tar::EntryType::Symlink);
                header.set_size(0);
                Ok(self.tar.append_link(&mut header, tar_path(path), os_path(&target))?)
            }
            UpperEntry::Whiteout => self.device(::tar::EntryType::Char, None, path),
            UpperEntry::Special(stat) => self.special(&stat, path),
        }
    }

    fn file(
        &mut self,
        dir: &UpperDir,
        name: &FileName,
        stat: &Stat,
        path: &RepoPath,
    ) -> Result<(), ExportError> {
        let to = tar_path(path);
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                let mut header = header(stat, ::tar::EntryType::Link);
                header.set_size(0);
                return Ok(self.tar.append_link(&mut header, to, first)?);
            }
            self.links.insert((stat.st_dev, stat.st_ino), to.clone());
        }
        self.attributes(dir, Some(name), path)?;
        let file = dir.open_file(name).map_err(|source| ExportError::Read { path: path.clone(), source })?;
        let mut header = header(stat, ::tar::EntryType::Regular);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        header.set_size(size);
        let mut content = Counted { inner: file.take(size), read: 0 };
        self.tar.append_data(&mut header, to, &mut content)?;
        if content.read == size { Ok(()) } else { Err(ExportError::Changed { path: path.clone() }) }
    }

    fn special(&mut self, stat: &Stat, path: &RepoPath) -> Result<(), ExportError> {
        use rustix::fs::FileType;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Fifo => self.device(::tar::EntryType::Fifo, Some(stat), path),
            FileType::CharacterDevice => self.device(::tar::EntryType::Char, Some(stat), path),
            FileType::BlockDevice => self.device(::tar::EntryType::Block, Some(stat), path),
            _ => {
                self.left_out.push(path.clone());
                Ok(())
            }
        }
    }

    /// Without `stat` it is a whiteout: device 0:0, root's, mode 0.
    fn device(
        &mut self,
        kind: ::tar::EntryType,
        stat: Option<&Stat>,
        path: &RepoPath,
    ) -> Result<(), ExportError> {
        let mut header = match stat {
            Some(stat) => header(stat, kind),
            None => {
                let mut header = ::tar::Header::new_ustar();
                header.set_entry_type(kind);
                header.set_mode(0);
                header.set_mtime(0);
                header
            }
        };
        header.set_size(0);
        let device = stat.map_or(0, |stat| stat.st_rdev);
        header.set_device_major(rustix::fs::major(device))?;
        header.set_device_minor(rustix::fs::minor(device))?;
        Ok(self.tar.append_data(&mut header, tar_path(path), io::empty())?)
    }

    fn attributes(
        &mut self,
        dir: &UpperDir,
        name: Option<&FileName>,
        path: &RepoPath,
    ) -> Result<(), ExportError> {
        let attributes =
            dir.attributes(name).map_err(|source| ExportError::Read { path: path.clone(), source })?;
        let named: Vec<(String, Vec<u8>)> = attributes
            .into_iter()
            .map(|(name, value)| (format!("SCHILY.xattr.{}", name.to_string_lossy()), value))
            .collect();
        let records = named.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        Ok(self.tar.append_pax_extensions(records)?)
    }
}

/// Counts what was read, and pads with zeros what is missing: a tar entry must have the length that stands in its header.
struct Counted<R> {
    inner: io::Take<R>,
    read: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read += read as u64;
        Ok(read)
    }
}

fn header(stat: &Stat, kind: ::tar::EntryType) -> ::tar::Header {
    let mut header = ::tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(u64::from(stat.st_uid));
    header.set_gid(u64::from(stat.st_gid));
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header
}

/// `./a/b`, as tar itself names what lies below `.`; for a directory's top just `.`.
fn tar_path(path: &RepoPath) -> PathBuf {
    let mut name = OsString::from(".");
    if !path.names().is_empty() {
        name.push("/");
        name.push(os_path(&path.to_bytes()));
    }
    name.into()
}
