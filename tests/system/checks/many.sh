# Many workspaces of two users on thirty roots: a restart and a kill, what they take, and that nobody notices.

# many_both VERB WORDS...: what both users do at once.
many_both() {
    local verb=$1 first
    shift
    as alice python3 /var/tmp/many/many.py "$verb" 0 "$count" "$@" >"$work/many.alice" 2>&1 &
    first=$!
    if ! as bob python3 /var/tmp/many/many.py "$verb" 1 "$count" "$@" >"$work/many.bob" 2>&1; then
        cat "$work/many.bob"
        return 1
    fi
    wait "$first" || { cat "$work/many.alice"; return 1; }
}

# The longest that one workspace took, in ms.
many_longest() { cat "$work/many.alice" "$work/many.bob" | sort -n | tail -n 1; }

# All mounts of ours as the host has them: the same ids before and after mean that nothing was mounted again.
many_mounts() { run grep -e ' - overlay scorpio:' -e ' - fuse.scorpio ' /proc/self/mountinfo; }

# Seconds of processor time that PID 1 has used.
pid1_time() { run sh -c 'awk -v hz="$(getconf CLK_TCK)" "{ print (\$14 + \$15) / hz }" /proc/1/stat'; }

since() { awk -v from="$1" -v to="$2" 'BEGIN { printf "%.2f", to - from }'; }

many_descriptors() { run sh -c "ls /proc/$(run systemctl show -P MainPID scorpio)/fd | wc -l"; }

many_holds() {
    local pid
    pid=$(run systemctl show -P MainPID scorpio)
    run awk '/^(RssAnon|VmRSS):/ { printf "%s %.1f MiB, ", $1, $2 / 1024 }' "/proc/$pid/status" | sed 's/VmRSS/Rss/; s/://g'
    echo "$(many_descriptors) descriptors, $(run systemctl show -P NFileDescriptorStore scorpio) in the store"
}

# How often the kernel has read content from the daemon that is there now.
many_reads() { run scorpioctl --json stats | jq '[.sessions[].by_opcode.READ // 0] | add'; }

# All are where they were: the same mounts, each can be written to and has something to read that is not in any cache.
many_stand() {
    local turn=$1 reads
    many_mounts | cmp - "$work/many.mounts"
    reads=$(many_reads)
    many_both visit "$turn"
    # One file of each at least came from the daemon.
    test $(($(many_reads) - reads)) -ge "$count"
    many_all_mounted
}

# What a stop and a start take: there everything is unmounted, and mounted again.
many_stop_and_start() {
    local begin stopped started left try
    begin=$(date +%s%3N)
    script 'systemctl stop scorpio.socket scorpio.service'
    stopped=$(($(date +%s%3N) - begin))
    left=$({ many_mounts || true; } | wc -l)
    test "$left" = 0 || { echo "$left mounts are left after $stopped ms"; return 1; }
    begin=$(date +%s%3N)
    script 'systemctl reset-failed scorpio 2>/dev/null || true; systemctl start scorpio.socket scorpio.service'
    for try in $(seq 600); do
        if many_all_mounted; then break; fi
        sleep 0.2
    done
    started=$(($(date +%s%3N) - begin))
    many_all_mounted
    many_both visit 3
    echo "FIGURE stop took $stopped ms, start with all mounted again $started ms"
}

many_all_mounted() {
    run scorpioctl --json list --all >"$work/many.list"
    jq -e --argjson all "$((count + 2))" 'length == $all and all(.[]; .state == "mounted")' "$work/many.list" >/dev/null && return
    # Who is not, and why.
    jq -c 'length, (.[] | select(.state != "mounted") | { id, state, reason, mount_point })' "$work/many.list"
    run journalctl -u scorpio -p warning -n 20 --no-pager
    return 1
}

many_workspaces() {
    local count=200 load begin time how took free
    case $suite in vm-*) count=40 ;; esac
    [ -z "${SCORPIO_LONG:-}" ] || count=1000
    script 'install -d -m 755 /var/tmp/many && rm -rf /var/tmp/many/* /srv/git/many?'
    run tee /var/tmp/many/many.py <tests/system/many.py >/dev/null
    script "python3 /var/tmp/many/many.py repositories $count /srv/git
        printf '[limits]\nworkspaces_per_user = $count\nworkspaces_per_host = $((count + 2))\n' >/etc/scorpio/scorpio.toml.d/many.toml
        for name in manya manyb; do
            printf '[origin.%s]\nkind = \"git\"\npath = \"/srv/git/%s\"\nallow = [\"@scorpio\"]\n' \$name \$name
        done >>/etc/scorpio/scorpio.toml.d/many.toml
        systemctl reset-failed scorpio 2>/dev/null || true
        systemctl restart scorpio"
    wait_for_service
    free=$(many_descriptors)
    time=$(pid1_time) begin=$(date +%s%3N)
    many_both make
    took=$(($(date +%s%3N) - begin))
    echo "FIGURE $count workspaces on $(run scorpioctl --json stats | jq .tree.roots) roots mounted in $((took / 1000)).$((took % 1000 / 100)) s, PID 1 $(since "$time" "$(pid1_time)") s of that"
    test "$(run scorpioctl --json stats | jq .tree.roots)" -ge 20
    many_all_mounted
    many_mounts >"$work/many.mounts"
    many_both visit 0
    echo "FIGURE $(many_holds)"
    # None for a workspace, but for some that come and go with calls and threads.
    test $(($(many_descriptors) - free)) -lt 20
    for how in restart kill; do
        # While both go on working everywhere.
        script 'touch /var/tmp/many/on; chmod 644 /var/tmp/many/on; rm -f /var/tmp/many/on.*; chmod 1777 /var/tmp/many
            systemctl reset-failed scorpio 2>/dev/null || true'
        many_both through /var/tmp/many/on >"$work/many.through" 2>&1 &
        load=$!
        until run sh -c 'test -e /var/tmp/many/on.0 && test -e /var/tmp/many/on.1'; do
            kill -0 "$load" || { cat "$work/many.through"; return 1; }
            sleep 0.1
        done
        time=$(pid1_time) begin=$(date +%s%3N)
        if [ "$how" = restart ]; then
            run systemctl restart scorpio
        else
            run sh -c "kill -9 $(run systemctl show -P MainPID scorpio)"
            # The socket is systemd's: the call waits in it.
            run sh -c 'until timeout 60 scorpioctl whoami >/dev/null; do sleep 0.05; done'
        fi
        took=$(($(date +%s%3N) - begin))
        # What was begun is answered, and there is time to fail.
        sleep 1
        run rm /var/tmp/many/on
        wait "$load" || { cat "$work/many.through"; return 1; }
        echo "FIGURE $how took $took ms and PID 1 $(since "$time" "$(pid1_time)") s; meanwhile $(cat "$work/many.alice"), $(cat "$work/many.bob")"
        case $how in restart) many_stand 1 ;; kill) many_stand 2 ;; esac
        echo "FIGURE $(many_holds); slowest cold visit afterwards $(many_longest) ms"
        test $(($(many_descriptors) - free)) -lt 20
    done
    nothing_stuck
    if [ -n "${SCORPIO_LONG:-}" ]; then many_stop_and_start; fi
    begin=$(date +%s%3N)
    many_both remove
    echo "FIGURE removed in $((($(date +%s%3N) - begin) / 1000)) s"
    script 'rm -rf /etc/scorpio/scorpio.toml.d/many.toml /var/tmp/many /srv/git/manya /srv/git/manyb
        systemctl reset-failed scorpio 2>/dev/null || true; systemctl restart scorpio'
    wait_for_service
}
