//! What a workspace's user wrote can be saved: the tar is the upper again, the patch is what git would say.
//!
//! Real overlays over a checkout of a real repository; needs root.

#![allow(clippy::unwrap_used)] // a test that fails panics

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use bytes::Bytes;
use scorpio::{
    manager::{
        changes::{Base, ChangesError},
        export::{self, ExportError},
        patch,
        upper::UpperDir,
    },
    types::{Oid, RepoPath, Tree},
};
use tempfile::TempDir;

/// A repository, a checkout of it as the lower, and an overlay over that.
struct Workspace {
    dir: TempDir,
}

/// Objects straight from git.
struct GitBase(PathBuf);

impl Base for GitBase {
    fn tree(&self, oid: Oid, path: &RepoPath) -> Result<Arc<Tree>, ChangesError> {
        let raw = git_bytes(&self.0, &["cat-file", "tree", &oid.to_string()]);
        Ok(Arc::new(Tree::parse(&raw).map_err(|source| ChangesError::Tree { path: path.clone(), source })?))
    }

    fn blob(&self, oid: Oid, _path: &RepoPath) -> Result<Bytes, ChangesError> {
        Ok(git_bytes(&self.0, &["cat-file", "blob", &oid.to_string()]).into())
    }
}

impl Workspace {
    fn new() -> Workspace {
        let workspace = Workspace { dir: tempfile::tempdir_in("/var/tmp").unwrap() };
        for dir in ["repo", "lower", "upper", "work", "merged"] {
            fs::create_dir(workspace.path(dir)).unwrap();
        }
        let repo = workspace.path("repo");
        sh(
            &repo,
            r#"git init -q -b main . && git config user.name t && git config user.email t@t
            mkdir -p src/deep/er docs old.d
            printf 'one\ntwo\nthree\n' > src/a.txt
            printf 'no newline' > src/deep/b.txt
            printf 'x\r\ny\rz\r\n' > src/deep/er/crlf
            printf '\0\1\2binary' > docs/bin
            printf 'int main(){}\n' > old.d/main.c; printf 'keep\n' > old.d/keep.c
            printf '#!/bin/sh\n' > run.sh; chmod 755 run.sh
            ln -s src/a.txt link; : > empty; printf 'sp\n' > 'a name'; printf 'q\n' > "$(printf 'q"\t\377')"
            mkdir gone; printf g > gone/1; printf g > gone/2
            git add -A && git commit -qm base"#,
        );
        sh(workspace.dir.path(), "git -C repo archive main | tar -x -C lower");
        workspace.mount("lower", "upper", "work", "merged");
        workspace
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn mount(&self, lower: &str, upper: &str, work: &str, merged: &str) {
        sh(
            self.dir.path(),
            &format!(
                "mount -t overlay scorpio-test -o \
                 lowerdir={lower},upperdir={upper},workdir={work},metacopy=on,redirect_dir=on,index=off,xino=on {merged}"
            ),
        );
    }

    /// In the merged tree.
    fn change(&self, script: &str) {
        sh(&self.path("merged"), script);
    }

    fn root(&self) -> Oid {
        String::from_utf8(git_bytes(&self.path("repo"), &["rev-parse", "main^{tree}"]))
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }

    fn patch(&self) -> Result<(Vec<u8>, Vec<RepoPath>), ExportError> {
        let mut text = Vec::new();
        let upper = UpperDir::open(&self.path("upper")).unwrap();
        let left_out = patch::write(&GitBase(self.path("repo")), self.root(), &upper, &mut text)?;
        Ok((text, left_out))
    }

    /// The patch makes of the commit what is in the merged tree.
    #[track_caller]
    fn assert_patch_says_it_all(&self) {
        let (text, left_out) = self.patch().unwrap();
        assert_eq!(left_out, []);
        fs::write(self.path("changes.patch"), &text).unwrap();
        sh(self.dir.path(), "rm -rf applied && git clone -q repo applied");
        if !text.is_empty() {
            sh(&self.path("applied"), "git apply --whitespace=nowarn --index ../changes.patch");
        }
        // git keeps no empty directories, so neither does the comparison.
        let said = listing(&self.path("applied"), false);
        assert_eq!(said, listing(&self.path("merged"), false), "{}", String::from_utf8_lossy(&text));
        // It applies backwards too. (git itself makes a regular file of a symlink whose deletion is reversed.)
        let deletes_symlink = text.windows(24).any(|line| line == b"deleted file mode 120000");
        if !text.is_empty() && !deletes_symlink {
            sh(
                &self.path("applied"),
                "git apply --whitespace=nowarn --index -R ../changes.patch && git diff --quiet HEAD",
            );
        }
    }

    /// The tar, unpacked by stock tar, is an upper that shows the same tree.
    #[track_caller]
    fn assert_tar_is_the_upper_again(&self) {
        let file = fs::File::create(self.path("changes.tar")).unwrap();
        let left_out = export::tar(&UpperDir::open(&self.path("upper")).unwrap(), file).unwrap();
        assert_eq!(left_out, []);
        sh(
            self.dir.path(),
            "mkdir upper2 work2 merged2 && tar -xp --xattrs '--xattrs-include=*' -f changes.tar -C upper2",
        );
        self.mount("lower", "upper2", "work2", "merged2");
        assert_eq!(listing(&self.path("merged2"), true), listing(&self.path("merged"), true));
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        for merged in ["merged", "merged2"] {
            let _ = Command::new("umount").arg("-l").arg(self.path(merged)).stderr(Stdio::null()).status();
        }
    }
}

/// Path → what is there: type, mode, owner (with `exact`), content or target. `.git` is left out.
fn listing(top: &Path, exact: bool) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    list(top, top, exact, &mut found);
    found
}

fn list(top: &Path, dir: &Path, exact: bool, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(top).unwrap().to_owned();
        if name == Path::new(".git") {
            continue;
        }
        let mode = meta.permissions().mode();
        let shown = match () {
            () if exact => format!("{mode:o} {}:{} {} ", meta.uid(), meta.gid(), meta.mtime()),
            () if meta.is_dir() => String::new(),
            () => format!("{:o} ", mode & 0o170100),
        };
        let content = match () {
            () if meta.is_dir() => {
                list(top, &path, exact, found);
                if !exact {
                    continue;
                }
                String::new()
            }
            () if meta.is_symlink() => fs::read_link(&path).unwrap().display().to_string(),
            () if meta.is_file() => fs::read(&path).unwrap().escape_ascii().to_string(),
            () => "special".to_owned(),
        };
        found.insert(name, shown + &content);
    }
}

#[track_caller]
fn sh(dir: &Path, script: &str) {
    let status = Command::new("sh").args(["-ec", script]).current_dir(dir).status().unwrap();
    assert!(status.success(), "{script}");
}

fn git_bytes(repo: &Path, args: &[&str]) -> Vec<u8> {
    let output = Command::new("git").arg("-C").arg(repo).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}");
    output.stdout
}

const EVERYTHING: &str = r#"
    printf 'one\n2\nthree\nfour\n' > src/a.txt
    printf 'with newline\n' > src/deep/b.txt
    printf 'x\r\ny\rZ\r\n' > src/deep/er/crlf
    printf '\0\3changed' > docs/bin; head -c 3000 /dev/zero > docs/new.bin
    printf 'new\n' > 'new name'; printf 'qq\n' > "$(printf 'q"\t\377')"
    chmod 755 empty; chmod 644 run.sh
    ln -sfn docs link; ln -s nowhere dangling
    rm -r gone; mkdir gone; printf 'other\n' > gone/3
    mv old.d new.d; printf 'int main(){return 1;}\n' > new.d/main.c
    mv 'a name' 'b name'
    mkdir -p made/by/hand; printf 'x' > made/by/hand/x; mkdir made/empty
    mkdir "$(printf 'd%0150d' 0)"; printf 'deep\n' > "$(printf 'd%0150d' 0)/$(printf 'f%0150d' 0)"
"#;

#[test]
fn an_untouched_workspace_has_no_changes() {
    let workspace = Workspace::new();
    workspace.change("find . -type f -exec cat {} + >/dev/null; ls -lR >/dev/null");
    assert_eq!(workspace.patch().unwrap().0, b"");
}

#[test]
fn a_patch_says_all_that_git_can_hold() {
    let workspace = Workspace::new();
    workspace.change(EVERYTHING);
    workspace.assert_patch_says_it_all();
}

#[test]
fn a_patch_keeps_bytes_that_are_not_utf8() {
    let workspace = Workspace::new();
    workspace.change(
        r"printf 'caf\351\n\377' > latin; printf 'na\357ve\n' >> src/a.txt; printf '\200' >> src/deep/b.txt",
    );
    workspace.assert_patch_says_it_all();
}

#[test]
fn renamed_and_replaced_directories_are_followed() {
    for script in [
        "mv src/deep moved",
        "mv src/deep moved && mv moved/er er && rm moved/b.txt",
        "mv src/deep/er src/er && mv src/er src/deep/er2",
        "mv src s2 && mkdir src && printf 'n\\n' > src/a.txt",
        "mv src s2 && mv docs src && mv s2 docs",
        "rm -r docs && printf 'a file now\\n' > docs",
        "rm empty && mkdir empty && printf 'x\\n' > empty/x",
        "rm link && mkdir link && mv src/a.txt link/",
        "chmod 755 src/a.txt && mv src/a.txt src/deep/c.txt && mv src/deep top",
        "touch src/a.txt && printf 'x' >> src/a.txt && truncate -s -1 src/a.txt",
    ] {
        let workspace = Workspace::new();
        workspace.change(script);
        workspace.assert_patch_says_it_all();
    }
}

#[test]
fn a_tar_is_the_upper_again() {
    let workspace = Workspace::new();
    workspace.change(EVERYTHING);
    workspace.change(
        "setfattr -n user.mark -v here src/a.txt; ln src/a.txt hard; mkfifo pipe; touch -d @1 docs/bin; \
         chown 61001:61002 made; setfattr -n user.long -v there d*/f*",
    );
    workspace.assert_tar_is_the_upper_again();
    // Both names of the hard link are one file again.
    let link = fs::metadata(workspace.path("upper2/hard")).unwrap();
    assert_eq!(link.ino(), fs::metadata(workspace.path("upper2/src/a.txt")).unwrap().ino());
}

#[test]
fn what_git_cannot_hold_is_named() {
    let workspace = Workspace::new();
    workspace.change("mkfifo pipe; printf 'x\\n' > src/x");
    let (text, left_out) = workspace.patch().unwrap();
    assert_eq!(left_out, ["/pipe".parse().unwrap()]);
    assert!(text.starts_with(b"diff --git a/src/x b/src/x\nnew file mode 100644\n"));
}

#[test]
fn a_symlink_in_the_upper_leads_nowhere() {
    let workspace = Workspace::new();
    // As if the owner had put it there while we read.
    std::os::unix::fs::symlink("/etc", workspace.path("upper/etc")).unwrap();
    let upper = UpperDir::open(&workspace.path("upper")).unwrap();
    let name = scorpio::types::FileName::new(b"etc").unwrap();
    assert_eq!(upper.open_dir(&name).unwrap_err().raw_os_error(), Some(libc::ENOTDIR));
    std::os::unix::fs::symlink("/etc/passwd", workspace.path("upper/passwd")).unwrap();
    let name = scorpio::types::FileName::new(b"passwd").unwrap();
    assert_eq!(upper.open_file(&name).unwrap_err().raw_os_error(), Some(libc::ELOOP));
}
