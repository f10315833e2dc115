# Stop, start, reboot, and starts that are refused.

uppers() {
    run sh -c 'cd /var/lib/scorpio/workspaces && find . -path "*/upper/*" -type f | sort | xargs sha256sum'
}

stop_and_start() {
    uppers >"$work/before"
    test -s "$work/before"
    script 'systemctl stop scorpio.socket scorpio.service
        ! grep -e "overlay scorpio:" -e "fuse.scorpio" /proc/self/mountinfo
        test ! -e /home/alice/w/lib'
    uppers | cmp - "$work/before"
    script 'systemctl start scorpio.socket scorpio.service'
    wait_for_service
    uppers | cmp - "$work/before"
    as_alice 'test -f ~/w/mine && test -f ~/w/lib/Makefile'
}

numbers_are_not_mixed_up() {
    as_alice 'cd ~/n
        for n in {10..19}; do for f in {10..29}; do test "$(cat $n/$f)" = "of $n/$f
hers"; done; done
        for n in {20..29}; do for f in {10..29}; do test "$(cat $n/$f)" = "of $n/$f"; done; done'
}

# Numbers of files are given in the order in which directories are listed, from the first one on after each boot. After this
# one, files that nobody changed get the numbers that changed ones had.
reboot() {
    script 'printf "[origin.numbers]\nkind = \"git\"\npath = \"/srv/git/numbers.git\"\nallow = [\"@scorpio\"]\n" >/etc/scorpio/scorpio.toml.d/numbers.toml
        systemctl reload scorpio'
    as_alice 'mkdir ~/n && scorpioctl mount numbers:/ ~/n && for n in {10..29}; do ls -l ~/n/$n >/dev/null; done
        for n in {10..19}; do for file in ~/n/$n/*; do echo hers >>$file; done; done'
    uppers >"$work/before"
    machine_down "$machine"
    machine_up "$work/$suite" "$machine"
    wait_for_service 3
    uppers | cmp - "$work/before"
    # The names alone, so that the kernel knows numbers and not yet whose they are.
    as_alice 'cd ~/n; for n in {29..10}; do ls $n >/dev/null; done'
    numbers_are_not_mixed_up
    run sysctl -q vm.drop_caches=2 2>/dev/null || sysctl -q vm.drop_caches=2
    as_alice 'cd ~/n; for n in {29..10}; do ls -l $n >/dev/null; done'
    numbers_are_not_mixed_up
    as_alice 'scorpioctl remove ~/n --discard --yes; rmdir ~/n'
    no_stale_mount
    as_alice 'test -f ~/w/mine && make -C ~/w/lib -s clean liblmdb.a'
}

wrong_configuration() {
    local before
    # While workspaces are mounted, somebody has to serve them.
    before=$(run grep 'overlay scorpio:' /proc/self/mountinfo)
    script 'echo "[limits]
workspaces_per_user = \"many\"" >/etc/scorpio/scorpio.toml.d/wrong.toml
        before=$(systemctl show -P MainPID scorpio)
        systemctl restart scorpio
        test "$(systemctl show -P MainPID scorpio)" != "$before"
        systemctl show -P StatusText scorpio | grep "the configuration is wrong"
        scorpioctl doctor | grep "the configuration is wrong"
        journalctl -u scorpio -n 20 --no-pager >/tmp/journal
        grep "in force before the restart stays so: .*wrong.toml:2: limits.workspaces_per_user" /tmp/journal
        ! systemctl reload scorpio'
    all_mounted
    test "$(run grep 'overlay scorpio:' /proc/self/mountinfo)" = "$before"
    as_alice 'echo on >~/w/on && cat ~/w/lib/Makefile >/dev/null'
    script 'rm /etc/scorpio/scorpio.toml.d/wrong.toml
        systemctl reload scorpio
        test "$(systemctl show -P StatusText scorpio)" = "2 of 2 workspaces mounted"
        scorpioctl health'
    # After a stop there is nothing to go on with.
    script 'echo "[limits]
workspaces_per_user = \"many\"" >/etc/scorpio/scorpio.toml.d/wrong.toml
        systemctl stop scorpio.socket scorpio.service
        systemctl start scorpio.socket scorpio.service || true
        sleep 1
        test "$(systemctl show -P ExecMainStatus scorpio)" = 78
        test "$(systemctl show -P NRestarts scorpio)" = 0
        journalctl -u scorpio -n 20 --no-pager >/tmp/journal
        grep "wrong.toml:2: limits.workspaces_per_user" /tmp/journal
        rm /etc/scorpio/scorpio.toml.d/wrong.toml
        systemctl reset-failed scorpio.socket scorpio.service; systemctl start scorpio.socket scorpio.service'
    wait_for_service
}

private_namespace() {
    script 'mkdir -p /etc/systemd/system/scorpio.service.d
        printf "[Service]\nPrivateTmp=yes\n" >/etc/systemd/system/scorpio.service.d/wrong.conf
        systemctl daemon-reload; systemctl restart scorpio || true
        sleep 1
        test "$(systemctl show -P ExecMainStatus scorpio)" = 78
        journalctl -u scorpio -n 20 --no-pager | grep -q "mount namespace of its own"
        rm -r /etc/systemd/system/scorpio.service.d; systemctl daemon-reload
        systemctl reset-failed scorpio; systemctl start scorpio'
    wait_for_service
}
