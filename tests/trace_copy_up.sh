#!/bin/bash
# trace_copy_up.sh [SIZE]
# Shows one copy-up to a person: for each step of its chain the system calls of the process (strace, where it is
# installed), the requests that the kernel sent to scorpiod for it, and what then lies in the upper. SIZE is the
# file's, in bytes (default 300000).
#
# Needs root, git, attr, and the programs: `cargo build` first, or BIN=/usr/bin for installed ones. It works with a
# daemon and directories of its own, and takes them down at its end.
set -euo pipefail
cd "$(dirname "$0")/.."

size=${1:-300000}
bin=${BIN:-${CARGO_TARGET_DIR:-target}/debug}
bin=$(realpath "$bin")
[ "$(id -u)" = 0 ] || { echo "trace_copy_up.sh: it mounts; run it as root" >&2; exit 1; }
[ -x "$bin/scorpiod" ] || { echo "trace_copy_up.sh: no $bin/scorpiod: run cargo build, or set BIN" >&2; exit 1; }

top=$(mktemp -d /var/tmp/scorpio-trace.XXXXXX)
daemon=
end() {
    if [ -n "$daemon" ]; then
        kill -TERM "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    fi
    rm -rf --one-file-system "$top"
}
trap end EXIT

mkdir -p "$top/repo/dir" "$top/mnt"
head -c "$size" /dev/urandom >"$top/repo/dir/file"
git -C "$top/repo" init -q -b main .
git -C "$top/repo" add -A
git -C "$top/repo" -c user.name=t -c user.email=t@t commit -q -m first
cat >"$top/scorpio.toml" <<TOML
[daemon]
socket = "$top/socket"
state_dir = "$top/state"
cache_dir = "$top/cache"
runtime_dir = "$top/run"
log_level = "warn,scorpio::fusedev::worker=debug"
[auth]
mode = "static"
mount = ["0"]
[origin.repo]
kind = "git"
path = "$top/repo"
TOML
"$bin/scorpiod" --config "$top/scorpio.toml" >"$top/log" 2>&1 &
daemon=$!
ctl() { "$bin/scorpioctl" --socket "$top/socket" "$@"; }
until ctl whoami >/dev/null 2>&1; do
    kill -0 "$daemon" || { cat "$top/log" >&2; exit 1; }
    sleep 0.05
done
ctl mount repo: "$top/mnt" >/dev/null
upper=$(echo "$top"/state/workspaces/*/upper)
# Cold, as after a boot.
sync
echo 3 >/proc/sys/vm/drop_caches
stat "$top/mnt" >/dev/null

# step TITLE CMD...: one step of the chain.
step() {
    local title=$1 begin
    shift
    begin=$(wc -l <"$top/log")
    printf '\n== %s:  %s\n' "$title" "${*//$top\/mnt\//}"
    if command -v strace >/dev/null; then
        strace -f -qq -o "$top/strace" -P "$top/mnt/dir/file" -- "$@" >/dev/null
        sed -E "s|^[0-9]+ +|  process  |; s|$top/mnt/||g" "$top/strace" | cut -c1-150
    else
        echo '  process  (strace is not installed)'
        "$@" >/dev/null
    fi
    # Answers are logged when they are written; the process went on after that.
    tail -n "+$((begin + 1))" "$top/log" | grep -F answered | sed 's/\x1b\[[0-9;]*m//g' |
        sed -E 's/.*answered */  daemon   /; s/unique=[0-9]+ *//' | uniq -c | sed -E 's/^ *([0-9]+)   daemon/  daemon  \1 ×/' || true
    find "$upper" -mindepth 1 \( -type d -printf '  upper    %M %P/\n' \) -o -printf '  upper    %M %P  %s bytes, %b blocks\n' | sort -k3
    (cd "$upper" && getfattr -R -h -d -m '^trusted[.]overlay[.](metacopy|redirect|opaque|origin)' . 2>/dev/null) |
        awk '/^# file/ { file = $3 } /^trusted/ { print "  mark     " file ": " $0 }'
}

file=$top/mnt/dir/file
step 'getattr' stat "$file"
step 'getattr again, warm' stat "$file"
step 'create: metadata alone' chmod 600 "$file"
step 'copy: open for writing' /usr/bin/python3 -c 'import os, sys; os.open(sys.argv[1], os.O_RDWR)' "$file"
step 'write' /usr/bin/python3 -c 'import os, sys; os.pwrite(os.open(sys.argv[1], os.O_RDWR), b"x", 0)' "$file"
step 'read' cat "$file"
ctl unmount "$top/mnt" >/dev/null
printf '\nThe daemon was asked what the lines "daemon" say; what is written never passes through it.\n'
