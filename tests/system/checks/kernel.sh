# What takes a kernel of the machine's own: its clock, and its limits of memory.

# Time to live is counted by a clock that nobody sets; everything else has no opinion on what time it is.
clock_steps() {
    local step
    as_alice 'mkdir ~/timed && scorpioctl mount --ephemeral --ttl 2h project: ~/timed >/dev/null && echo hers >~/timed/new'
    for step in "+1 day" "-3 days" "+2 days"; do
        script "date -s '$step' >/dev/null; echo 3 >/proc/sys/vm/drop_caches"
        as_alice 'test "$(cat ~/timed/new)" = hers && cat ~/timed/src/lib.rs >/dev/null && echo more >>~/timed/new && sed -i 2d ~/timed/new
            cat ~/w/lib/Makefile >/dev/null && scorpioctl info ~/timed'
        # Cached answers of polkit and waiting requests have their ends too.
        as bob bash -euc 'mkdir -p ~/now && scorpioctl mount project: ~/now && test -f ~/now/lib/Makefile && cd && scorpioctl remove ~/now --yes && rmdir ~/now'
        sleep 2
        run scorpioctl --json list --all | jq -e 'length == 3 and all(.[]; .state == "mounted")'
        run scorpioctl --json health | jq -e '.problems == []'
    done
    as_alice 'cd; scorpioctl remove ~/timed --discard --yes; rmdir ~/timed'
}

# The kernel ends the daemon for want of memory; those who work in the mounts wait for the next one.
memory_limit() {
    local before try
    before=$(run systemctl show -P MainPID scorpio)
    script 'systemctl reset-failed scorpio; echo 3 >/proc/sys/vm/drop_caches; systemctl set-property --runtime scorpio MemoryMax=1M MemorySwapMax=0'
    # To answer takes memory.
    as alice timeout 120 bash -euc 'find ~/w -type f -exec cat {} + | sha256sum' >"$work/sum" &
    for try in $(seq 300); do
        [ "$(run systemctl show -P MainPID scorpio)" = "$before" ] || break
        sleep 0.1
    done
    script 'systemctl set-property --runtime scorpio MemoryMax=infinity; systemctl reset-failed scorpio'
    wait $!
    test "$(run systemctl show -P MainPID scorpio)" != "$before"
    run journalctl -u scorpio -n 200 --no-pager >"$work/journal"
    grep -i 'oom' "$work/journal"
    wait_for_service
    no_stale_mount
    as_alice 'find ~/w -type f -exec cat {} + | sha256sum' | cmp - "$work/sum"
    script 'rm -rf /run/systemd/system.control/scorpio.service.d; systemctl daemon-reload; systemctl show -P MemoryMax scorpio | grep infinity'
}
