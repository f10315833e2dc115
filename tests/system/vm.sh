# A throw-away machine with a kernel of its own: Debian's, in qemu without hardware acceleration, which needs no rights but
# is some twenty times slower. machine.sh calls these for the suites `vm-*`; nothing else does.
#
#   vm_build SUITE DIR   a Debian root as machine_build makes it, with that suite's kernel beside it in DIR.kernel
#   vm_up DIR NAME       writes DIR.img from it, unless that is there already, and boots that
#   vm_run NAME CMD...   runs a command in it, by ssh with a key that was made for it, over one connection
#   vm_down NAME         powers it off; DIR.img stays for another vm_up
#
# The kernel is booted directly and without an initial ramdisk: NVMe and ext4 are built into Debian's cloud kernels.

# Where commands reach the machine; its network leads nowhere else.
VM_ADDRESS=10.0.2.15

vm_tools() {
    local missing=() package
    for package in mmdebstrap qemu-system-x86 kmod e2fsprogs openssh-client; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ "${#missing[@]}" = 0 ] && return
    # Debian 12's own qemu (7.2) makes Linux 6.12 panic within minutes.
    local backports=/etc/apt/sources.list.d/scorpio-test-backports.list from=()
    if grep -q '^VERSION_CODENAME=bookworm$' /etc/os-release; then
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(machine_mirror) bookworm-backports main" >"$backports"
        from=(--target-release bookworm-backports)
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${from[@]}" "${missing[@]}" >/dev/null
    rm -f "$backports"
}

vm_build() {
    local suite=$1 dir=$2 kernel=$2.kernel modules
    vm_tools
    machine_bootstrap "$suite" "$dir" minbase "$MACHINE_PACKAGES,openssh-server,iproute2,kmod"
    # Unpacked and never configured: nothing of it but the kernel and its modules is used.
    machine_bootstrap "$suite" "$kernel" extract linux-image-cloud-amd64
    mv "$kernel"/boot/vmlinuz-* "$kernel/vmlinuz"
    modules=$(find "$kernel" -path '*/lib/modules/*' -prune)
    mkdir -p "$dir/lib/modules"
    mv "$modules" "$dir/lib/modules/"
    # In a minimal system nothing unpacks them.
    find "$dir/lib/modules" \( -name '*virtio*.xz' -o -name '*failover*.xz' -o -name 'overlay*.xz' -o -name 'fuse*.xz' \) -exec xz -d {} +
    find "$kernel" -mindepth 1 -maxdepth 1 ! -name vmlinuz -exec rm -rf --one-file-system {} +
    depmod -b "$dir" "${modules##*/}"
    printf '%s\n' virtio_pci virtio_net overlay fuse >"$dir/etc/modules-load.d/test.conf"

    ssh-keygen -q -t ed25519 -N '' -C test -f "$kernel/key"
    install -d -m 700 "$dir/root/.ssh"
    install -m 600 "$kernel/key.pub" "$dir/root/.ssh/authorized_keys"
    # Without sessions, as in a machine that is entered by nsenter: who is asked about is judged by groups alone.
    printf 'UsePAM no\nPermitRootLogin prohibit-password\nUseDNS no\nMaxSessions 64\n' >"$dir/etc/ssh/sshd_config.d/test.conf"
    # There is no udev that would bring the network up or tell of terminals.
    cat >"$dir/etc/systemd/system/test-network.service" <<UNIT
[Unit]
After=systemd-modules-load.service
Before=ssh.service
[Service]
Type=oneshot
ExecStart=/sbin/ip address add $VM_ADDRESS/24 dev eth0
ExecStart=/sbin/ip link set eth0 up
[Install]
WantedBy=multi-user.target
UNIT
    mkdir -p "$dir/etc/systemd/system/multi-user.target.wants"
    ln -sf ../test-network.service "$dir/etc/systemd/system/multi-user.target.wants/"
    local unit
    # What needs udev or a terminal, and what would only take time.
    for unit in serial-getty@ttyS0.service getty@tty1.service systemd-binfmt.service \
        proc-sys-fs-binfmt_misc.automount apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer; do
        ln -sf /dev/null "$dir/etc/systemd/system/$unit"
    done
}

vm_up() {
    local dir=$1 name=$2 pid port state='' try
    if [ ! -f "$dir.img" ]; then
        truncate -s 4G "$dir.img"
        mke2fs -q -F -t ext4 -d "$dir" "$dir.img"
    fi
    cp "$dir.kernel/key" "$MACHINES/$name.key"
    # One processor: with two, a kernel that changes its own code while it runs (6.12 does) meets instructions that are half
    # changed, and panics. Another port when somebody has it already; qemu then ends at once.
    for try in 1 2 3 4 5; do
        port=$((20000 + RANDOM % 20000))
        setsid qemu-system-x86_64 -machine q35 -accel tcg,thread=multi -cpu max -m 2048 -smp 1 -nodefaults \
            -no-reboot -display none -serial "file:$MACHINES/$name.console" \
            -kernel "$dir.kernel/vmlinuz" \
            -append "root=/dev/nvme0n1 rw console=ttyS0 net.ifnames=0 mitigations=off panic=-1" \
            -drive "file=$dir.img,if=none,id=disk,format=raw,cache=unsafe" -device nvme,drive=disk,serial=test \
            -netdev "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:$port-$VM_ADDRESS:22" -device virtio-net-pci,netdev=net \
            >"$MACHINES/$name.qemu" 2>&1 </dev/null &
        pid=$!
        sleep 1
        if kill -0 "$pid" 2>/dev/null; then break; fi
    done
    echo "$pid" >"$MACHINES/$name.pid"
    echo "$port" >"$MACHINES/$name.port"
    for try in $(seq 150); do
        kill -0 "$pid" 2>/dev/null || { machine_fail "$name did not start: $(tail -n 20 "$MACHINES/$name.console" "$MACHINES/$name.qemu")"; return 1; }
        state=$(vm_run "$name" systemctl is-system-running 2>/dev/null) || true
        case $state in
        running)
            # Started by the first question, it would answer later than anybody waits.
            vm_run "$name" systemctl start polkit
            return
            ;;
        degraded) vm_run "$name" systemctl --failed --no-legend >&2; machine_fail "$name is degraded"; return 1 ;;
        esac
        sleep 1
    done
    machine_fail "$name is '$state', not running: $(tail -n 5 "$MACHINES/$name.console")"
}

vm_run() {
    local name=$1
    shift
    # The shell at the other end takes the words apart again.
    ssh -q -p "$(cat "$MACHINES/$name.port")" -i "$MACHINES/$name.key" -o ControlMaster=auto -o ControlPersist=yes \
        -o "ControlPath=$MACHINES/$name.ssh" -o ConnectTimeout=10 -o BatchMode=yes -o StrictHostKeyChecking=no \
        -o UserKnownHostsFile=/dev/null root@127.0.0.1 -- \
        "$(printf '%q ' env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb "$@")"
}

vm_down() {
    local name=$1 pid try
    pid=$(cat "$MACHINES/$name.pid")
    timeout 30 ssh -q -o "ControlPath=$MACHINES/$name.ssh" -p "$(cat "$MACHINES/$name.port")" root@127.0.0.1 \
        systemctl poweroff --no-wall </dev/null 2>/dev/null || true
    for try in $(seq 1200); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    ssh -q -O exit -o "ControlPath=$MACHINES/$name.ssh" root@127.0.0.1 2>/dev/null || true
    rm -f "$MACHINES/$name".*
}
