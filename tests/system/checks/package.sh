# The package as a file, and installed, upgraded and taken away.

static_checks() {
    local security
    # verify exits with 0 for unknown keys, so its words count. Man pages and binaries are not installed here.
    systemd-analyze verify systemd/scorpio.service systemd/scorpio.socket 2>&1 |
        grep -v -e 'is not executable' -e 'Command /usr/libexec' -e 'man:' -e "Command 'man " -e '^$' -e 'Failed to.*scorpiod' >"$work/verify" || true
    if grep -i scorpio "$work/verify"; then return 1; fi
    security=$(systemd-analyze security --offline=yes systemd/scorpio.service --no-pager 2>/dev/null | tail -n 1 | grep -o '[0-9]\.[0-9]')
    echo "FIGURE systemd-analyze security: $security"
    # What is left is the price of mounting into the host's namespace.
    awk -v score="$security" 'BEGIN { exit !(score <= 5.2) }'
    xmllint --noout --nonet --nodefdtd polkit/org.scorpio.policy
    lintian --fail-on error --suppress-tags-from-file tests/system/lintian-accepted "$package"
}

installs() {
    script 'dpkg -i /var/tmp/packages/scorpio_0.1.0_*.deb
        mkdir -p /etc/scorpio/scorpio.toml.d
        printf "[origin.project]\nkind = \"git\"\npath = \"/srv/git/project.git\"\nallow = [\"@scorpio\"]\n" >/etc/scorpio/scorpio.toml.d/project.toml
        usermod -aG scorpio alice
        systemctl restart scorpio
        systemctl is-active scorpio.service scorpio.socket
        systemctl is-enabled scorpio.service scorpio.socket
        scorpioctl health
        man -w scorpioctl 2>/dev/null || test -s /usr/share/man/man1/scorpioctl.1.gz'
}

capabilities_are_cut() {
    local pid
    pid=$(run systemctl show -P MainPID scorpio)
    # sys_admin dac_read_search dac_override chown fowner fsetid setuid setgid mknod setfcap
    run grep -E 'Cap(Prm|Eff|Bnd):\s00000000882000df$' "/proc/$pid/status" | wc -l | grep -qx 3
    run grep -E 'Cap(Inh|Amb):\s0000000000000000$' "/proc/$pid/status" | wc -l | grep -qx 2
    run grep -qx 'NoNewPrivs:.1' "/proc/$pid/status"
}

upgrade() {
    local before
    before=$(run stat -c %d:%i /home/alice/w/lib/Makefile)
    script 'dpkg -i /var/tmp/packages/scorpio_0.1.0+again_*.deb'
    wait_for_service
    no_stale_mount
    as_alice 'test -f ~/w/mine && cat ~/w/lib/Makefile >/dev/null'
    echo "FIGURE $before before, $(run stat -c %d:%i /home/alice/w/lib/Makefile) after"
}

remove_and_purge() {
    uppers >"$work/before"
    script 'dpkg -r scorpio
        ! grep -e "overlay scorpio:" -e "fuse.scorpio" /proc/self/mountinfo'
    script 'dpkg -P scorpio' 2>&1 | tee "$work/purge"
    grep -q 'work that was not saved elsewhere is kept' "$work/purge"
    uppers | cmp - "$work/before"
    run test ! -e /var/cache/scorpio
    # What was kept comes back with the service.
    script 'dpkg -i /var/tmp/packages/scorpio_0.1.0_*.deb
        mkdir -p /etc/scorpio/scorpio.toml.d
        printf "[origin.project]\nkind = \"git\"\npath = \"/srv/git/project.git\"\nallow = [\"@scorpio\"]\n" >/etc/scorpio/scorpio.toml.d/project.toml
        systemctl restart scorpio'
    wait_for_service
    as_alice 'test -f ~/w/mine'
}

purge_everything() {
    script 'SCORPIO_PURGE_UNSAVED=1 dpkg -P scorpio; rm -rf /etc/scorpio
        test ! -e /var/lib/scorpio; test ! -e /var/cache/scorpio; ! systemctl cat scorpio.service'
    run sh -c '! grep -e "overlay scorpio:" -e "fuse.scorpio" /proc/self/mountinfo'
}

# From the packed sources alone: no network, and no crates of this machine's cargo.
builds_offline() {
    local tree
    packaging/build-source.sh "$work/source" >"$work/packed"
    tar -C "$work/source" -xf "$(cat "$work/packed")"
    tree=$(echo "$work"/source/scorpio-*/)
    mkdir "$work/source/cargo"
    (
        cd "$tree"
        CARGO_HOME=$work/source/cargo CARGO_TARGET_DIR=$tree/target unshare --net packaging/build-deb.sh --offline
        dpkg-deb --contents target/debian/scorpio_*.deb | grep -c usr/libexec/scorpio/scorpiod
    )
    echo "FIGURE $(du -h "$(cat "$work/packed")" | cut -f 1) of sources"
    rm -rf "$work/source"
}
