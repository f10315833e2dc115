//! What a plain checkout is, made by stock `git archive | tar x`, and whether a mount is the same: names, types, modes,
//! targets and every byte, read cold by many.

use std::{path::Path, process::Output};

use super::{Host, crates};

/// Readers released together.
const READERS: usize = 8;

/// Everything a repository can hold that a mount, a URL or a listing might get wrong.
pub const ODD_THINGS: &str = r#"
    mkdir odd 'odd/a b' odd/%41 odd/deep 'odd/c++#1' 'odd/x&y=z?' odd/目录 "$(printf 'odd/d\nd')"
    printf x > 'odd/a b/c  d'; printf x > odd/%41/%2f%00; printf x > "$(printf 'odd/new\nline')"
    printf x > 'odd/c++#1/f'; printf x > 'odd/x&y=z?/f'; printf x > odd/目录/文件; printf x > "$(printf 'odd/d\nd/f')"
    printf x > "$(printf 'odd/\377\376 not UTF-8')"; printf x > "odd/$(printf 'n%.0s' $(seq 255))"
    printf x > 'odd/-rf'; printf x > 'odd/*'; printf x > 'odd/back\slash'; printf x > odd/..., ; printf x > 'odd/"'
    mkdir odd/Case odd/case; printf 1 > odd/Case/f; printf 2 > odd/case/F; printf 3 > odd/case/f; printf x > odd/CASE
    ln -s /etc/hostname odd/absolute; ln -s nowhere/at/all odd/dangling; ln -s 'a b' odd/relative; ln -s loop odd/loop
    ln -s "$(printf 't%.0s' $(seq 4000))" odd/long-target
    printf '#!/bin/sh\necho ran\n' > odd/run; chmod 755 odd/run; : > odd/empty; : > odd/empty-too
    head -c 5242880 /dev/urandom > odd/random; head -c 65536 /dev/urandom > odd/inline; head -c 65537 /dev/urandom > odd/file
    at=odd/deep; for level in $(seq 60); do at=$at/level-$level-of-a-deep-path; done; mkdir -p $at; printf deep > $at/end
"#;

/// A script that copies crates' sources, none larger than `largest_kib`, until there are so many files.
pub fn real_files(files: usize, largest_kib: usize) -> String {
    format!(
        r#"
        files=0
        for crate in {crates}/*/; do
            [ $(du -sk "$crate" | cut -f1) -le {largest_kib} ] || continue
            cp -R "$crate" . ; files=$((files + $(find "$crate" -type f | wc -l)))
            [ $files -lt {files} ] || break
        done
        # What they say about archives and line ends is for git; a mount shows the bytes that git holds.
        find . -name .gitattributes -delete
        "#,
        crates = crates().display()
    )
}

/// A host's `<dir>/reference`.
pub struct Reference<'h> {
    host: &'h Host,
    hashes: Vec<Vec<u8>>,
}

impl<'h> Reference<'h> {
    /// Checks out the heads of repositories, each at its place below the top.
    pub fn check_out(host: &'h Host, repositories: &[(&Path, &str)]) -> Reference<'h> {
        for (repository, below) in repositories {
            host.sh(&format!(
                "umask 022; mkdir -p 'reference/{below}'
                git -c safe.directory='*' -c tar.umask=0022 -C '{}' archive HEAD | tar -xp -C 'reference/{below}'",
                repository.display()
            ));
        }
        host.sh("cd reference && find . -type f -print0 > ../names");
        Reference { host, hashes: hashes(host, 0, &host.path("reference")) }
    }

    /// How many files it has.
    pub fn files(&self) -> usize {
        self.hashes.len()
    }

    /// What lies below `point` is the same, for many who read it as `uid` at the same time.
    #[track_caller]
    pub fn assert_read_by_many(&self, uid: u32, point: &Path) {
        let found: Vec<_> = std::thread::scope(|scope| {
            let readers: Vec<_> =
                (0..READERS).map(|_| scope.spawn(|| hashes(self.host, uid, point))).collect();
            readers.into_iter().map(|reader| reader.join().unwrap()).collect()
        });
        for found in found {
            assert_same(&found, &self.hashes, "content");
        }
        let (found, expected) =
            (shape(self.host, uid, point), shape(self.host, 0, &self.host.path("reference")));
        assert_same(&found, &expected, "names, types, modes, targets, sizes");
    }

    /// Every byte below `point` is the same for `uid`.
    #[track_caller]
    pub fn assert_content(&self, uid: u32, point: &Path) {
        assert_same(&hashes(self.host, uid, point), &self.hashes, "content");
    }
}

/// One NUL-ended line for each thing below `at`: path, type, mode, target, and size where it is one of content.
fn shape(host: &Host, uid: u32, at: &Path) -> Vec<Vec<u8>> {
    let find = "find . -mindepth 1 \\( -type d -printf '%p %y %m\\0' -o -printf '%p %y %m %l %s\\0' \\)";
    lines(&host.try_sh_as(uid, &format!("cd '{}' && {find}", at.display())))
}

/// Hashes of all files below `at`, whose names are taken from the reference and read in random order.
fn hashes(host: &Host, uid: u32, at: &Path) -> Vec<Vec<u8>> {
    let (at, names) = (at.display(), host.path("names"));
    let read = format!("shuf -z '{}' | xargs -0 sha256sum -z --", names.display());
    lines(&host.try_sh_as(uid, &format!("cd '{at}' && {read}")))
}

fn lines(output: &Output) -> Vec<Vec<u8>> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut lines: Vec<_> = output.stdout.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    lines.sort();
    lines
}

/// Both are the same, or the first difference.
#[track_caller]
fn assert_same(found: &[Vec<u8>], expected: &[Vec<u8>], what: &str) {
    if let Some((found, expected)) = found.iter().zip(expected).find(|(found, expected)| found != expected) {
        panic!("{what}: {} instead of {}", found.escape_ascii(), expected.escape_ascii());
    }
    assert_eq!(found.len(), expected.len(), "{what}");
}
