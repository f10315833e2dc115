#!/bin/bash
# linux_tree.sh [REPOSITORY]
# Mounts a whole large repository (one made from Debian's linux-source package unless one is named), lets 8 readers read all
# of it in random order with an empty cache, and compares names, types, modes, symlink targets, sizes and every file's
# SHA-256 with what stock `git archive | tar x` makes of the same commit. Needs root, and a release build.
# Takes some minutes and, for the package, 6 GB below /var/tmp; not part of tests/run.sh, where a tree of some thousand files
# does the same (tests/mount_tree.rs).
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${CARGO_TARGET_DIR:-target}/release
[ "$(id -u)" = 0 ] || { echo "this mounts: run it as root" >&2; exit 1; }
[ -x "$bin/scorpiod" ] || { echo "build first: cargo build --release" >&2; exit 1; }
bin=$(realpath "$bin")

uid=61001
readers=8
base=$(mktemp -d /var/tmp/scorpio-linux.XXXXXX)
chmod 755 "$base"
daemon=
clean_up() {
    [ -z "$daemon" ] || { kill "$daemon" && wait "$daemon" || true; } 2>/dev/null
    rm -rf --one-file-system "$base"
}
trap clean_up EXIT

repository=${1:-}
if [ -z "$repository" ]; then
    if ! ls /usr/src/linux-source-*.tar.xz >/dev/null 2>&1; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends linux-source xz-utils >/dev/null
    fi
    repository=$base/linux
    mkdir "$repository"
    tar -xf "$(ls /usr/src/linux-source-*.tar.xz | sort | tail -n 1)" --strip-components=1 -C "$repository"
    git -C "$repository" init -q -b main
    git -C "$repository" add -A -f
    git -C "$repository" -c user.name=test -c user.email=test@invalid -c gc.auto=0 commit -qm linux
fi
repository=$(realpath "$repository")

mkdir "$base/reference" "$base/mount" "$base/sums"
chown "$uid:$uid" "$base/mount"
git -C "$repository" -c tar.umask=0022 archive HEAD | tar -xp -C "$base/reference"
listing() { find . -mindepth 1 \( -type d -printf '%P\t%y\t%m\n' \) -o -printf '%P\t%y\t%m\t%s\t%l\n' | LC_ALL=C sort; }
(cd "$base/reference" && listing >"$base/listing" &&
    find . -type f -print0 | xargs -0 sha256sum | LC_ALL=C sort >"$base/reference.sums")
echo "$(wc -l <"$base/listing") entries, $(wc -l <"$base/reference.sums") files in the reference"

cat >"$base/scorpio.toml" <<TOML
[daemon]
socket = "$base/scorpio.sock"
state_dir = "$base/state"
cache_dir = "$base/cache"
runtime_dir = "$base/run"
[auth]
mode = "static"
mount = ["$uid"]
[origin.linux]
kind = "git"
path = "$repository"
TOML
"$bin/scorpiod" --config "$base/scorpio.toml" 2>"$base/log" &
daemon=$!
as_user() { setpriv --reuid "$uid" --regid "$uid" --clear-groups "$@"; }
until as_user "$bin/scorpioctl" --socket "$base/scorpio.sock" whoami >/dev/null 2>&1; do
    kill -0 "$daemon" || { cat "$base/log"; exit 1; }
    sleep 0.05
done
as_user "$bin/scorpioctl" --socket "$base/scorpio.sock" mount linux:/ "$base/mount"

begin=$(date +%s)
for reader in $(seq "$readers"); do
    (cd "$base/mount" && as_user find . -type f -print0 | shuf -z | as_user xargs -0 sha256sum |
        LC_ALL=C sort >"$base/sums/$reader") &
    pids[reader]=$!
done
for pid in "${pids[@]}"; do wait "$pid"; done
echo "$readers readers read everything in $(($(date +%s) - begin)) s"
for reader in $(seq "$readers"); do cmp "$base/reference.sums" "$base/sums/$reader"; done
(cd "$base/mount" && as_user bash -c "$(declare -f listing); listing") | cmp - "$base/listing"
"$bin/scorpioctl" --socket "$base/scorpio.sock" stats
echo "identical"
