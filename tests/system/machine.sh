# A throw-away machine with a real systemd as PID 1, for the system tests. Source this; needs root, mmdebstrap and
# systemd-container.
#
#   machine_build SUITE DIR     a Debian root with what the tests need, users alice and bob
#   machine_up DIR NAME         boots a copy-on-write view of it, returns when it is `running`
#   machine_run NAME CMD...     runs a command in it as root
#   machine_as NAME USER CMD... the same as a user, without a session
#   machine_down NAME           powers it off and leaves nothing behind
#
# Each machine has a loopback network of its own and writes its console to $MACHINES/NAME.console. It runs on this kernel;
# the suites `vm-*` (vm-bookworm) are booted with Debian's own, see vm.sh.

MACHINES=${MACHINES:-/run/scorpio-test-machines}
mkdir -p "$MACHINES"

MACHINE_PACKAGES=systemd,systemd-sysv,dbus,polkitd,libpam-systemd,login,passwd,util-linux,procps,curl,jq,git,make,gcc,libc6-dev,sqlite3,strace,python3

machine_fail() {
    echo "machine: $*" >&2
    return 1
}

. tests/system/vm.sh

# Where this host gets its packages from.
machine_mirror() {
    awk '/^URIs:/ { print $2; exit } $1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /^[a-z]+:\//) { print $i; exit } }' \
        /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null
}

# machine_bootstrap SUITE DIR VARIANT PACKAGES
machine_bootstrap() {
    local suite=$1 dir=$2 variant=$3 packages=$4 mirror
    mirror=$(machine_mirror)
    rm -rf "$dir"
    mmdebstrap --quiet --variant="$variant" --mode=root --skip=check/empty --include="$packages" \
        --aptopt='Acquire::Languages "none"' --dpkgopt=force-unsafe-io \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        "$suite" "$dir" "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
}

# A suite's root directory as an archive in MACHINE_CACHE, made unless it is there; prints where. Nothing without a cache, and
# for emulated machines.
machine_keep() {
    local suite=$1 kept
    case ${MACHINE_CACHE:+$suite} in '' | vm-*) return ;; esac
    kept=$MACHINE_CACHE/$suite-$(cksum <<<"$MACHINE_PACKAGES" | cut -d ' ' -f 1).tar
    if ! [ -s "$kept" ]; then
        mkdir -p "$MACHINE_CACHE" && rm -rf --one-file-system "$kept.root" &&
            machine_bootstrap "$suite" "$kept.root" minbase "$MACHINE_PACKAGES" >&2 &&
            tar -C "$kept.root" -cpf "$kept.new" . && mv "$kept.new" "$kept" || return
        rm -rf --one-file-system "$kept.root"
    fi
    echo "$kept"
}

machine_build() {
    local suite=$1 dir=$2 user kept
    case $suite in
    vm-*) vm_build "${suite#vm-}" "$dir" ;;
    *)
        kept=$(machine_keep "$suite") || return
        if [ -n "$kept" ]; then
            mkdir -p "$dir" && tar -C "$dir" -xpf "$kept" || return
        else
            machine_bootstrap "$suite" "$dir" minbase "$MACHINE_PACKAGES" || return
        fi
        # There are no modules to load in a container, and a failed unit would make it "degraded".
        ln -sf /dev/null "$dir/etc/systemd/system/systemd-modules-load.service"
        ;;
    esac
    for user in alice bob; do
        chroot "$dir" useradd --create-home --shell /bin/bash "$user"
    done
}

# The child of nspawn that is PID 1 in a pid namespace of its own; others are nspawn's own helpers.
machine_leader() {
    local child task
    for task in /proc/"$1"/task/*; do
        for child in $(cat "$task/children" 2>/dev/null); do
            if awk '/^NSpid:/ { own = (NF == 3 && $3 == 1) } END { exit !own }' "/proc/$child/status" 2>/dev/null &&
                [ "$(cat "/proc/$child/comm" 2>/dev/null)" = systemd ]; then
                echo "$child"
                return
            fi
        done
    done
}

machine_up() {
    local dir=$1 name=$2 pid leader='' state='' tree try
    if [ -d "$dir.kernel" ]; then
        vm_up "$dir" "$name"
        return
    fi
    for tree in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
        if [ -d "$tree" ]; then mkdir -p "$tree/scorpio-test-$name"; fi
    done
    (
        for tree in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
            if [ -d "$tree" ]; then echo "$BASHPID" >"$tree/scorpio-test-$name/cgroup.procs"; fi
        done
        exec setsid systemd-nspawn --quiet --register=no --keep-unit --directory="$dir" --boot --machine="$name" \
            --capability=all --private-network --console=pipe
    ) >"$MACHINES/$name.console" 2>&1 </dev/null &
    pid=$!
    echo "$pid" >"$MACHINES/$name.pid"
    for try in $(seq 1000); do
        kill -0 "$pid" 2>/dev/null || { machine_fail "$name did not start: $(tail -n 3 "$MACHINES/$name.console")"; return 1; }
        leader=$(machine_leader "$pid")
        [ -z "$leader" ] || break
        sleep 0.02
    done
    [ -n "$leader" ] || { machine_fail "$name has no PID 1"; return 1; }
    echo "$leader" >"$MACHINES/$name.leader"
    for try in $(seq 1000); do
        state=$(machine_run "$name" systemctl is-system-running 2>/dev/null) || true
        case $state in
        running) break ;;
        degraded) machine_run "$name" systemctl --failed --no-legend >&2; machine_fail "$name is degraded"; return 1 ;;
        esac
        sleep 0.05
    done
    [ "$state" = running ] || { machine_fail "$name is '$state', not running"; return 1; }
    machine_run "$name" sh -c 'test -c /dev/fuse || mknod -m 666 /dev/fuse c 10 229'
}

machine_run() {
    local name=$1
    if [ -f "$MACHINES/$name.port" ]; then
        vm_run "$@"
        return
    fi
    shift
    nsenter --target "$(cat "$MACHINES/$name.leader")" --mount --uts --ipc --net --pid --cgroup \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb "$@"
}

machine_as() {
    local name=$1 user=$2
    shift 2
    machine_run "$name" runuser -u "$user" -- env HOME="/home/$user" "$@"
}

machine_down() {
    local name=$1 pid tree try
    [ -f "$MACHINES/$name.pid" ] || return 0
    if [ -f "$MACHINES/$name.port" ]; then
        vm_down "$name"
        return
    fi
    pid=$(cat "$MACHINES/$name.pid")
    machine_run "$name" systemctl poweroff --no-wall 2>/dev/null || true
    for try in $(seq 600); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.05
    done
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    for tree in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
        find "$tree/scorpio-test-$name" -depth -type d -exec rmdir {} \; 2>/dev/null || true
    done
    rm -f "$MACHINES/$name".*
}
