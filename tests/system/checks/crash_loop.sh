# A daemon that cannot be started, sessions that an administrator ends, a configuration that is read again.

# Alice reads what is not cached, makes files and appends to one, each until it fails or is told to stop; what was synced is
# written down outside of the workspace.
start_askers() {
    run tee /var/tmp/asker.py >/dev/null <<'ASKER'
import os, random, sys
role, home = sys.argv[1], os.path.expanduser("~/w/")
files = [os.path.join(top, name) for top, _, names in os.walk(home + "src") for name in names]
def read():
    with open(random.choice(files), "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.read()
def make(number):
    # Where the lower has a directory too: it is asked whether it has the name.
    with open(f"{home}src/made.{number}", "w") as file:
        file.write(str(number))
def append(number):
    os.write(log, f"{number}\n".encode())
    os.fsync(log)
    with open("/var/tmp/asked/acknowledged", "a") as file:
        file.write(f"{number}\n")
if role == "appender":
    log = os.open(home + "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
number = 0
try:
    while os.path.exists("/var/tmp/asked/on"):
        {"reader": lambda number: read(), "maker": make, "appender": append}[role](number)
        number += 1
        if number == 1:
            open(f"/var/tmp/asked/begun.{sys.argv[2]}", "w").close()
    print(f"{role}: stopped after {number}")
except OSError as error:
    print(f"{role}: {os.strerror(error.errno)} after {number}")
ASKER
    script 'rm -rf /var/tmp/asked; install -d -o alice /var/tmp/asked; touch /var/tmp/asked/on'
    as_alice 'n=0; for role in reader reader reader reader maker appender; do
        n=$((n + 1)); setsid python3 /var/tmp/asker.py $role $n >/var/tmp/asked/out.$n 2>&1 </dev/null & done'
    script 'for n in 1 2 3 4 5 6; do until [ -e /var/tmp/asked/begun.$n ]; do sleep 0.05; done; done'
}

# Ends when all of them have ended; those who need the daemon do so by themselves.
askers_end() {
    local try
    for try in $(seq 200); do
        case $try in 20) run rm -f /var/tmp/asked/on ;; esac
        run pgrep -u alice -f asker.py >/dev/null || return 0
        sleep 0.1
    done
    run ps -u alice -o pid,stat,wchan:30,args
    return 1
}

await_unit() {
    local state=$1 try
    for try in $(seq 200); do
        [ "$(run systemctl show -P ActiveState scorpio)" != "$state" ] || return 0
        sleep 0.1
    done
    run systemctl status scorpio --no-pager
    return 1
}

crash_loop() {
    local begin
    script 'systemctl reset-failed scorpio.socket scorpio.service'
    start_askers
    script 'mkdir -p /etc/systemd/system/scorpio.service.d
        printf "[Service]\nExecStart=\nExecStart=/bin/false\n" >/etc/systemd/system/scorpio.service.d/wrong.conf
        systemctl daemon-reload; kill -9 "$(systemctl show -P MainPID scorpio)"'
    begin=$(date +%s%N)
    await_unit failed
    echo "FIGURE failed $((($(date +%s%N) - begin) / 1000000)) ms after the kill, result $(run systemctl show -P Result scorpio)"
    # Nobody waits any more, and systemd keeps nothing.
    askers_end
    nothing_stuck
    test "$(run systemctl show -P NFileDescriptorStore scorpio)" = 0
    run sh -c 'cat /var/tmp/asked/out.*' | tee "$work/asked"
    test "$(grep -e '^reader: ' -e '^maker: ' "$work/asked" | grep -vc stopped)" = 5
    grep -q '^appender: stopped after [1-9]' "$work/asked"
    # Callers are told at once, and doctor names the command.
    run bash -c 'timeout 10 scorpioctl list; test $? = 5'
    run bash -c 'timeout 30 scorpioctl doctor >/var/tmp/doctor; test $? = 1'
    script 'grep -q "2 workspaces are mounted and no daemon answers" /var/tmp/doctor
        grep -q "systemctl reset-failed scorpio.socket scorpio.service; systemctl start scorpio.socket scorpio.service" /var/tmp/doctor'
    uppers >"$work/before"
    # The cause is mended; then the one command of docs/OPERATIONS.md.
    script 'rm -r /etc/systemd/system/scorpio.service.d; systemctl daemon-reload'
    script 'systemctl reset-failed scorpio.socket scorpio.service; systemctl start scorpio.socket scorpio.service'
    wait_for_service
    uppers | cmp - "$work/before"
    no_stale_mount
    as_alice 'cmp ~/w/log /var/tmp/asked/acknowledged; test -f ~/w/mine; make -C ~/w/lib -s clean liblmdb.a
        for file in ~/w/src/made.*; do test "$(cat "$file")" = "${file##*.}" || test ! -s "$file"; done; rm ~/w/src/made.* ~/w/log'
    echo "FIGURE $(run sh -c 'wc -l </var/tmp/asked/acknowledged') synced writes, all there"
}

aborted_session() {
    local before kept id
    run sh -c 'mkdir -p /run/connections; mountpoint -q /run/connections || mount -t fusectl none /run/connections'
    before=$(run grep 'overlay scorpio:' /proc/self/mountinfo)
    kept=$(run systemctl show -P NFileDescriptorStore scorpio)
    run sh -c 'cd /home/bob/w && rm -rf mine && cp -r lib mine && find mine -type f | sort | xargs sha256sum >/var/tmp/bob.sum'
    script 'for line in $(grep " - fuse.scorpio " /proc/self/mountinfo | cut -d " " -f 3); do echo 1 >/run/connections/${line#*:}/abort; done'
    for id in $(seq 100); do
        [ "$(run grep 'overlay scorpio:' /proc/self/mountinfo | grep -cvxF "$before")" != 2 ] || break
        sleep 0.1
    done
    wait_for_service
    no_stale_mount
    test "$(run grep 'overlay scorpio:' /proc/self/mountinfo | grep -cvxF "$before")" = 2
    run sh -c 'cd /home/bob/w && sha256sum --quiet -c /var/tmp/bob.sum'
    as_alice 'test -f ~/w/mine && make -C ~/w/lib -s clean liblmdb.a'
    script 'journalctl -u scorpio MESSAGE_ID=46cab9feb3f94161a2b898f618f34b0e -x -n 5 --no-pager | grep -q "Subject: A FUSE session of Scorpio is over"
        scorpioctl doctor'
    # What systemd keeps is as it was, and a restart goes on with the new sessions.
    test "$(run systemctl show -P NFileDescriptorStore scorpio)" = "$kept"
    before=$(run grep -e 'overlay scorpio:' -e 'fuse.scorpio' /proc/self/mountinfo)
    script 'systemctl reset-failed scorpio; systemctl restart scorpio'
    wait_for_service
    test "$(run grep -e 'overlay scorpio:' -e 'fuse.scorpio' /proc/self/mountinfo)" = "$before"
}

reload() {
    local pid
    pid=$(run systemctl show -P MainPID scorpio)
    # A wrong file fails the command, and changes nothing.
    script 'printf "[origin.again]\nkind = \"git\"\npath = \"/srv/git/project.git\"\n[limits]\nmax_ttl = \"soon\"\n" >/etc/scorpio/scorpio.toml.d/again.toml
        if systemctl reload scorpio; then exit 1; fi
        journalctl -u scorpio -n 20 --no-pager | grep -q "again.toml:5: limits.max_ttl"
        test "$(systemctl show -P ActiveState scorpio)" = active; scorpioctl health
        if scorpioctl origins | grep again; then exit 1; fi'
    # So does a signal without the command.
    script 'kill -HUP "$(systemctl show -P MainPID scorpio)"
        for _ in $(seq 100); do journalctl -u scorpio MESSAGE_ID=441bcfa2c538459a97f5c67abf957e39 -o cat --no-pager | grep -q "again.toml:5: limits.max_ttl" && break; sleep 0.1; done
        journalctl -u scorpio MESSAGE_ID=441bcfa2c538459a97f5c67abf957e39 -o cat --no-pager | grep -q "again.toml:5: limits.max_ttl"'
    script 'sed -i "s/soon/30d/" /etc/scorpio/scorpio.toml.d/again.toml; printf "[engine]\nworkers = 3\n" >>/etc/scorpio/scorpio.toml.d/again.toml
        systemctl reload scorpio
        for _ in $(seq 100); do scorpioctl origins | grep -q again && break; sleep 0.1; done
        test "$(systemctl show -P ActiveState scorpio)" = active
        journalctl -u scorpio -n 20 -o cat --no-pager | grep -qx "engine.workers changed; it takes effect at the next restart"'
    as_alice 'mkdir ~/again; scorpioctl mount again:/ ~/again; cmp ~/again/lib/Makefile ~/w/lib/Makefile; scorpioctl remove ~/again; rmdir ~/again'
    script 'rm /etc/scorpio/scorpio.toml.d/again.toml; systemctl reload scorpio
        for _ in $(seq 100); do scorpioctl origins | grep -q again || break; sleep 0.1; done; if scorpioctl origins | grep again; then exit 1; fi'
    test "$(run systemctl show -P MainPID scorpio)" = "$pid"
    all_mounted
    # More in the journal for a while.
    as alice bash -c 'scorpioctl log-level debug; test $? = 4'
    script 'scorpioctl log-level debug --for 2s; scorpioctl whoami
        for _ in $(seq 100); do journalctl -u scorpio MESSAGE_ID=8b149f6e71c64eae89d1c117fd0207b5 -o cat --no-pager | grep -q "configuration.s again" && break; sleep 0.1; done
        test "$(journalctl -u scorpio MESSAGE_ID=8b149f6e71c64eae89d1c117fd0207b5 -o cat --no-pager | wc -l)" = 2
        journalctl -u scorpio PRIORITY=6 -n 5 -o cat --no-pager | grep -q .'
}

# What hangs here is each daemon as soon as it is up, as if what somebody waits for made it hang; no start fails by that.
hang_loop() {
    local before pid try
    script 'systemctl reset-failed scorpio.socket scorpio.service; mkdir -p /etc/systemd/system/scorpio.service.d
        printf "[Service]\nWatchdogSec=3\n" >/etc/systemd/system/scorpio.service.d/hungry.conf
        systemctl daemon-reload; systemctl restart scorpio'
    before=$(run grep 'overlay scorpio:' /proc/self/mountinfo)
    uppers >"$work/before"
    for _ in 1 2 3 4 5; do
        test "$(run grep 'overlay scorpio:' /proc/self/mountinfo)" = "$before"
        pid=$(run systemctl show -P MainPID scorpio)
        script "systemctl reset-failed scorpio; kill -STOP $pid"
        for try in $(seq 300); do
            [ "$(run systemctl show -P MainPID -P ActiveState scorpio | sort | tr '\n' ' ')" = "$pid active " ] || break
            sleep 0.1
        done
        for try in $(seq 300); do
            [ "$(run systemctl show -P ActiveState scorpio)" != active ] || break
            sleep 0.1
        done
    done
    wait_for_service
    # Let go: every workspace is mounted anew, and nobody waits.
    test "$(run grep 'overlay scorpio:' /proc/self/mountinfo | grep -cvxF "$before")" = 2
    no_stale_mount
    nothing_stuck
    uppers | cmp - "$work/before"
    as_alice 'test -f ~/w/mine && make -C ~/w/lib -s clean liblmdb.a'
    script 'journalctl -u scorpio MESSAGE_ID=46cab9feb3f94161a2b898f618f34b0e -o cat --no-pager >/tmp/journal
        grep "5 processes served it and hung, one after the other" /tmp/journal'
    # The next one that ends in order is no part of that row.
    script 'rm -r /etc/systemd/system/scorpio.service.d; systemctl daemon-reload; systemctl reset-failed scorpio; systemctl restart scorpio
        test ! -e /run/scorpio/daemon/hung'
    wait_for_service
}
