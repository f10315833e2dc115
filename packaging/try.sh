#!/bin/bash
# try.sh [--once] [REPOSITORY]
# Builds Scorpio, starts a private daemon on a git repository (this project's own unless one is given), mounts a
# workspace of it for you, and shows what that took. Ctrl-C ends it and cleans up; with --once it ends by itself.
# Nothing is installed but build tools that are missing; the daemon needs root, so sudo may ask for your password.
set -euo pipefail
project=$(cd "$(dirname "$0")/.." && pwd)

once=no
repository=$project
for argument in "$@"; do
    case $argument in
    --once) once=yes ;;
    -h | --help) sed -n '2,5s/^# //p' "$0"; exit 0 ;;
    -*) echo "try.sh: unknown option $argument; see try.sh --help" >&2; exit 2 ;;
    *) repository=$(realpath -e -- "$argument") || exit 2 ;;
    esac
done

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -- "$@"; fi; }
say() { printf '%s\n' "$*" >&2; }

missing=()
for package in gcc libc6-dev git; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ "${#missing[@]}" != 0 ]; then
    say "Installing ${missing[*]} …"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
command -v cargo >/dev/null || { say "Scorpio is built with Rust: install it from https://rustup.rs, then run this again."; exit 1; }
git -C "$repository" rev-parse --git-dir >/dev/null 2>&1 || [ "$(id -u)" = 0 ] ||
    { say "$repository is not a git repository that you can read."; exit 1; }

say "Building (the first time this takes some minutes) …"
(cd "$project" && cargo build --release --locked --bins --quiet)
bin=${CARGO_TARGET_DIR:-$project/target}/release

# Uppers need a real file system (ext4, xfs, btrfs): /tmp is often a tmpfs, and a container's root another overlay.
base=$(mktemp -d /var/tmp/scorpio-try.XXXXXX)
chmod 755 "$base"
name=$(basename "$repository" .git)
mount=$base/${name:-repository}
mkdir "$mount"
ctl() { "$bin/scorpioctl" --socket "$base/scorpio.sock" "$@"; }

workspace=
daemon=
sleeper=
clean_up() {
    trap '' INT TERM
    trap - EXIT
    [ -z "$sleeper" ] || kill "$sleeper"
    if [ -n "$workspace" ]; then
        # What was written here is not thrown away unasked.
        if ! ctl remove "$workspace" --lazy --yes >/dev/null 2>&1; then
            saved=$PWD/scorpio-changes-$workspace.tar
            if ctl export "$workspace" --format tar --output "$saved" >/dev/null 2>&1; then
                say "Your changes are saved in $saved."
                ctl remove "$workspace" --discard --lazy --yes >/dev/null
            else
                say "Your changes are kept in $base (they could not be exported)."
                keep=yes
            fi
        fi
    fi
    if [ -n "$daemon" ]; then
        as_root kill -TERM "$daemon" 2>/dev/null || true
        wait 2>/dev/null || true
    fi
    [ "${keep:-no}" = yes ] || as_root rm -rf --one-file-system "$base"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

cat >"$base/scorpio.toml" <<TOML
[daemon]
socket = "$base/scorpio.sock"
state_dir = "$base/state"
cache_dir = "$base/cache"
runtime_dir = "$base/run"
[auth]
mode = "static"
mount = ["$(id -u)"]
[origin.here]
kind = "git"
path = "$repository"
TOML

as_root sh -c 'echo $$ >"$1/pid"; exec setsid "$2" --config "$1/scorpio.toml"' sh "$base" "$bin/scorpiod" \
    >"$base/log" 2>&1 </dev/null &
for _ in $(seq 200); do
    daemon=$(cat "$base/pid" 2>/dev/null || true)
    ctl health >/dev/null 2>&1 && break
    [ -z "$daemon" ] || [ -d "/proc/$daemon" ] || { say "The daemon did not start:"; cat "$base/log" >&2; exit 1; }
    sleep 0.05
done

begin=$(date +%s%N)
workspace=$(ctl --json mount here:/ "$mount" | sed -n 's/^ *"id": *"\([a-z0-9]*\)".*/\1/p;s/^{"id":"\([a-z0-9]*\)".*/\1/p' | head -n 1)
took=$((($(date +%s%N) - begin) / 1000000))
[ -n "$workspace" ] || { say "The workspace could not be mounted; the daemon said:"; tail -n 5 "$base/log" >&2; exit 1; }

fetched() { ctl --json stats | tr ',{}' '\n' | awk -F: '/"origins"/ { on = 1 } on && /"bytes"/ { gsub(/[^0-9]/, "", $2); print $2; exit }'; }
say ""
say "  mounted in        $took ms (with the start of scorpioctl)"
say "  bytes fetched     $(fetched) before anything was looked at"
say "  files visible     $(find "$mount" -type f | wc -l)"
first=$(find "$mount" -type f -size +0 -print -quit)
[ -z "$first" ] || cat "$first" >/dev/null
say "  bytes fetched     $(fetched) after listing everything and reading one file"
say ""
say "Your workspace is $mount"
say ""
say "  cd $mount                     # it is yours: edit, build, run git in it"
say "  alias sc='$bin/scorpioctl --socket $base/scorpio.sock'"
say "  sc list; sc info $workspace; sc stats; sc doctor"
say "  sc export $workspace -o changes.patch    # save what you changed"
say ""
if [ "$once" = no ]; then
    say "Ctrl-C unmounts it, stops the daemon and cleans up; changes are saved first."
    # Waited for rather than run: a signal must not have to wait for it.
    sleep infinity &
    sleeper=$!
    wait "$sleeper"
fi
