# The promises that take a real systemd, one function each, by topic in checks/; run.sh runs them in the order of run_checks.

for topic in tests/system/checks/*.sh; do . "$topic"; done

run_checks() {
    check "the package installs and the service comes up" installs
    check "capabilities are cut to what is needed" capabilities_are_cut
    check "polkit lets a member of the group mount, and nobody else" polkit_decides
    check "the journal tells who mounted what, and who was refused" journal_tells
    check "two users see their own workspaces only" two_users
    check "a refusal names the right that is missing, to the user and in the journal" refusals_are_named
    check "a right that is taken away is gone, on open connections too" revocation_takes_effect
    check "without polkit, or with wrong rules, users are refused and root is not" polkit_away_is_no
    check "a caller in another mount namespace is refused" other_namespaces_are_refused
    check "refusals do not fill the journal" journal_is_not_filled
    check "root gives a workspace of one user to another" give_away
    check "what was written is counted as du counts it" usage_is_counted
    check "a drained host takes no new mounts, over a restart and a stop" draining
    check "a user's workspaces outlive the account, and go to somebody else" account_removed
    check "a private origin is read with a credential, and by nobody else" private_origins
    check "restarts, kills, the watchdog and packages under load: nobody notices" handover_under_load
    check "sessions are made and gone on with in the way this kernel can" kernel_decides
    check "nobody notices where the kernel does not ask again" handover_with_slots
    check "nobody notices where every user has a session" handover_with_owners
    check "what users may try harms nobody, as docs/ABUSE.md has it" abuse
    check "many workspaces: a restart takes a moment, and nobody notices" many_workspaces
    check "an upgrade leaves the workspaces mounted" upgrade
    check "stop unmounts, start brings every workspace back" stop_and_start
    check "a crash loop ends in a failed unit, nobody is stuck, one command repairs it" crash_loop
    check "daemons that hang one after the other let their sessions go" hang_loop
    check "a session that an administrator aborted is replaced" aborted_session
    check "a reload takes up what it can, and a log level falls back" reload
    case $suite in
    # A container's clock is that of the host, and its limits do not hold.
    vm-*)
        check "a clock that is set forward and back ends nothing" clock_steps
        check "a daemon that is ended for want of memory is followed by another" memory_limit
        ;;
    esac
    check "after a reboot every workspace is there again" reboot
    check "a wrong configuration is passed over at a restart, and refused after a stop" wrong_configuration
    check "a private mount namespace is refused" private_namespace
    check "removing unmounts, purging keeps unsaved work" remove_and_purge
    check "purging deletes it when told to" purge_everything
}

# Files for the tests in the root directory $1, before it boots.
prepare() {
    local root=$1 source
    mkdir -p "$root/srv/git" "$root/var/tmp/packages"
    cp "$package" "$later" "$root/var/tmp/packages/"
    # A real C project that make builds: the one our own build has fetched anyway.
    source=$(find "${CARGO_HOME:-$HOME/.cargo}/registry/src" -maxdepth 2 -type d -name 'lmdb-master-sys-*' | sort | tail -n 1)
    [ -n "$source" ] || { echo "no C project among the crates" >&2; return 1; }
    chroot "$root" chown root: /srv/git
    mkdir "$work/project"
    cp -r "$source/lmdb/libraries/liblmdb" "$work/project/lib"
    cp -r src "$work/project/src"
    (
        cd "$work/project"
        chmod 755 lib/tooltag 2>/dev/null || true
        git init -q -b main . && git add -A -f
        git -c user.name=test -c user.email=test@invalid commit -qm project
        git clone -q --bare . "$root/srv/git/project.git"
    )
    rm -rf "$work/project"
    mkdir "$work/numbers"
    (
        cd "$work/numbers"
        for n in {10..29}; do mkdir "$n"; for f in {10..29}; do echo "of $n/$f" >"$n/$f"; done; done
        git init -q -b main . && git add -A
        git -c user.name=test -c user.email=test@invalid commit -qm numbers
        git clone -q --bare . "$root/srv/git/numbers.git"
    )
    rm -rf "$work/numbers"
    chroot "$root" chown -R root: /srv/git
    # A Mega server for private_origins. A debug build: the tests have made it already.
    cargo build --quiet --locked --example mega-server
    install -m 755 "${CARGO_TARGET_DIR:-target}/debug/examples/mega-server" "$root/usr/local/bin/mega-server"
}

# No process waits for an answer that nobody will give.
nothing_stuck() {
    local try
    for try in $(seq 100); do
        if ! run ps -eo stat,args --no-headers | grep -q '^D'; then return 0; fi
        sleep 0.1
    done
    run ps -eo pid,stat,wchan:30,args
    return 1
}

# All that there are, two unless it is said.
all_mounted() {
    run scorpioctl --json list --all | jq -e --argjson n "${1:-2}" 'length == $n and all(.[]; .state == "mounted")'
}

no_stale_mount() {
    # One overlay per workspace, and no FUSE session but those in use.
    test "$(run grep -c ' - overlay scorpio:' /proc/self/mountinfo)" = 2
    test "$(run grep -c ' - fuse.scorpio ' /proc/self/mountinfo)" -le 2
}

wait_for_service() {
    local try
    for try in $(seq 200); do
        if run timeout 10 scorpioctl health >/dev/null 2>&1 && all_mounted "$@" >/dev/null; then return 0; fi
        sleep 0.1
    done
    run systemctl status scorpio --no-pager || true
    run scorpioctl list --all
    return 1
}
