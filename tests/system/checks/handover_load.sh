# A build, a database, eight readers and eight writers in the mounts of two users notice nothing when the daemon is restarted, killed,
# aborted by its watchdog, upgraded and downgraded. The programs are in ../load.

HANDOVER_STATE=/var/tmp/load
HANDOVER_PROGRAMS=/var/tmp/load-programs

# handover_load RESTARTS KILLS WATCHDOGS PACKAGES: in workspaces of its own, which are made on the sessions of now.
handover_load() {
    whatever_happens load_is_over load_meets "$@"
    wait_for_service
    no_stale_mount
}

load_meets() {
    local mounts patience=2 niceness=0
    # Twenty workers on one slow processor let systemd starve, whose answers everything else waits for: there they are last.
    case $suite in vm-*) patience=15 niceness=19 ;; esac
    run rm -rf "$HANDOVER_STATE" "$HANDOVER_PROGRAMS" /var/tmp/reference
    run mkdir -p "$HANDOVER_PROGRAMS" /var/tmp/reference /run/connections
    tar -C tests/system/load -c . | run tar -C "$HANDOVER_PROGRAMS" -x --no-same-owner
    script 'mountpoint -q /run/connections || mount -t fusectl none /run/connections
        git --git-dir /srv/git/project.git archive main | tar -C /var/tmp/reference -x'
    as_alice 'mkdir -p ~/load && scorpioctl mount project:/ ~/load && touch ~/load/counter'
    as bob bash -euc 'mkdir -p ~/load && scorpioctl mount project:/ ~/load && touch ~/load/counter'
    mounts=$(scorpio_mounts)
    run nice -n "$niceness" python3 "$HANDOVER_PROGRAMS/crew.py" start "$HANDOVER_STATE" /var/tmp/reference alice:/home/alice/load bob:/home/bob/load
    load_program blows.py "$HANDOVER_STATE" --restart "$1" --kill "$2" --watchdog "$3" --packages "$4" \
        --watchdog-s "$patience" --package /var/tmp/packages/"${package##*/}" --later /var/tmp/packages/"${later##*/}"
    load_program crew.py stop "$HANDOVER_STATE"
    nothing_stuck
    # Nothing was mounted again.
    test "$(scorpio_mounts)" = "$mounts"
    as_alice "python3 $HANDOVER_PROGRAMS/verify.py $HANDOVER_STATE ~/load /var/tmp/reference 0"
    as bob bash -euc "python3 $HANDOVER_PROGRAMS/verify.py $HANDOVER_STATE ~/load /var/tmp/reference 1"
    load_program report.py "$HANDOVER_STATE"
}

# Nothing of it is left for the checks that follow. What the workers met is told if nothing else told it.
load_is_over() {
    local user
    if run test -e "$HANDOVER_STATE/on"; then
        load_program crew.py stop "$HANDOVER_STATE" || true
        load_program report.py "$HANDOVER_STATE" || true
    fi
    # Who was not stopped, because the check failed before, would keep the workspaces in use.
    run pkill -KILL -f "$HANDOVER_PROGRAMS/|/home/(alice|bob)/load" || true
    for user in alice bob; do
        as "$user" bash -c 'cd; ! test -d load || { scorpioctl remove ~/load --discard --yes && rmdir load; }' || true
    done
}

load_program() {
    local program=$1
    shift
    run python3 "$HANDOVER_PROGRAMS/$program" "$@"
}

# whatever_happens AFTERWARDS CMD...: runs CMD, then AFTERWARDS even if it failed.
whatever_happens() {
    local afterwards=$1 status
    shift
    set +e
    (set -e; "$@")
    status=$?
    set -e
    "$afterwards"
    return "$status"
}

scorpio_mounts() { run grep -e 'overlay scorpio:' -e 'fuse.scorpio' /proc/self/mountinfo; }

# How many of each: all that is promised, or few enough to land with.
handover_under_load() {
    if [ -n "${SCORPIO_LONG:-}" ]; then
        handover_load "$rounds" "$rounds" 3 3
    else
        # Two of the restarts are those before and after the watchdog's.
        handover_load $((rounds * 2 / 5 + 1)) $((rounds * 2 / 5 + 1)) 1 1
    fi
}

handover_variant() {
    if [ -n "${SCORPIO_LONG:-}" ]; then
        handover_load "$rounds" "$rounds" 3 3
    else
        handover_load $((rounds / 5 + 1)) $((rounds / 5 + 1)) 0 0
    fi
}

# with_engine KEY VALUE CMD...: with all sessions made anew under this configuration, and again without it afterwards.
with_engine() {
    script "printf '[engine]\n$1 = \"$2\"\n' >/etc/scorpio/scorpio.toml.d/engine.toml"
    sessions_anew
    shift 2
    whatever_happens engine_as_it_was "$@"
}

engine_as_it_was() {
    script 'rm /etc/scorpio/scorpio.toml.d/engine.toml'
    sessions_anew
}

sessions_anew() {
    script 'systemctl stop scorpio.socket scorpio.service; systemctl reset-failed scorpio; systemctl start scorpio.socket scorpio.service'
    wait_for_service
}

# What this kernel does unasked has been shown already.
handover_with_slots() {
    case $(run uname -r) in 6.[0-8].*) echo "FIGURE it is what this kernel needs anyway"; return ;; esac
    with_engine replay slots slots_are_used
}

slots_are_used() {
    local since
    since=$(run date '+%Y-%m-%d %H:%M:%S')
    handover_variant
    run journalctl -u scorpio -o json --no-pager --since "$since" >"$work/journal"
    jq -es 'map(select(.MESSAGE == "FUSE session resumed")) | length > 0 and all(.[]; .RESEND == "false")' "$work/journal"
    jq -es 'any(.[]; .MESSAGE == "FUSE session resumed" and (.REPLAYED | tonumber) > 0)' "$work/journal"
    echo "FIGURE $(jq -s 'map(select(.MESSAGE == "FUSE session resumed") | .REPLAYED | tonumber) | add' "$work/journal") requests replayed"
}

handover_with_owners() {
    case $(run uname -r) in 6.[0-9].* | 6.1[01].*) echo "FIGURE it is what this kernel needs anyway"; return ;; esac
    with_engine lower per-owner owners_have_sessions
}

owners_have_sessions() {
    handover_variant
    test "$(session_names)" = 'owner-1000 owner-1001'
}

session_names() { run sh -c "grep ' - fuse.scorpio ' /proc/self/mountinfo | cut -d ' ' -f 5 | xargs -n 1 basename | sort | xargs"; }

# Before 6.9 the kernel does not ask again what the dead daemon had read, before 6.12 a session belongs to one user.
kernel_decides() {
    local kernel resend=true sessions=shared
    kernel=$(run uname -r)
    case $kernel in
    6.[0-8].*) resend=false sessions='owner-1000 owner-1001' ;;
    6.9.* | 6.1[01].*) sessions='owner-1000 owner-1001' ;;
    esac
    test "$(session_names)" = "$sessions"
    run journalctl -u scorpio -o json --no-pager >"$work/journal"
    jq -es "map(select(.MESSAGE == \"FUSE session resumed\")) | length > 0 and all(.[]; .RESEND == \"$resend\")" "$work/journal"
    if [ "$resend" = false ]; then
        jq -es 'any(.[]; .MESSAGE == "FUSE session resumed" and (.REPLAYED | tonumber) > 0)' "$work/journal"
    fi
    (! grep 'not gone on with' "$work/journal")
    echo "FIGURE Linux $kernel: $sessions; resend: $resend; $(jq -s 'map(select(.MESSAGE == "FUSE session resumed") | .REPLAYED | tonumber) | add' "$work/journal") requests replayed"
}
