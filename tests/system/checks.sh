# The promises that take a real systemd, one function each; run.sh runs them in the order of run_checks.

run_checks() {
    check "the package installs and the service comes up" installs
    check "capabilities are cut to what is needed" capabilities_are_cut
    check "polkit lets a member of the group mount, and nobody else" polkit_decides
    check "the journal tells who mounted what, and who was refused" journal_tells
    check "two users see their own workspaces only" two_users
    check "root gives a workspace of one user to another" give_away
    check "a private origin is read with a credential, and by nobody else" private_origins
    check "restart and kill -9 under load, $rounds times" restarts_under_load
    check "sessions are made and gone on with in the way this kernel can" kernel_decides
    check "an upgrade leaves the workspaces mounted" upgrade
    check "stop unmounts, start brings every workspace back" stop_and_start
    check "after a reboot every workspace is there again" reboot
    check "a wrong configuration ends with 78 and no loop" wrong_configuration
    check "a private mount namespace is refused" private_namespace
    check "removing unmounts, purging keeps unsaved work" remove_and_purge
    check "purging deletes it when told to" purge_everything
}

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
    chroot "$root" chown -R root: /srv/git
    # A Mega server for private_origins. A debug build: the tests have made it already.
    cargo build --quiet --locked --example mega-server
    install -m 755 "${CARGO_TARGET_DIR:-target}/debug/examples/mega-server" "$root/usr/local/bin/mega-server"
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

polkit_decides() {
    as_alice 'mkdir ~/w && scorpioctl mount project:/ ~/w && test -f ~/w/lib/Makefile && touch ~/w/mine'
    as bob bash -c 'mkdir ~/w; scorpioctl mount project:/ ~/w; test $? = 4'
    run test ! -e /home/bob/w/lib
    # Revoked, then granted again.
    script 'gpasswd -d alice scorpio >/dev/null'
    as alice bash -c 'mkdir ~/no; scorpioctl mount project:/ ~/no; test $? = 4; rmdir ~/no'
    script 'usermod -aG scorpio alice'
}

journal_tells() {
    local id
    id=$(as_alice 'scorpioctl --json info ~/w | jq -r .id')
    script "journalctl -u scorpio SCORPIO_WORKSPACE=$id SCORPIO_UID=1000 -o json --no-pager | jq -e -s 'any(.[]; .MESSAGE | test(\"created\"))'"
    script "journalctl -u scorpio SCORPIO_UID=1001 -o json --no-pager | jq -e -s 'any(.[]; .MESSAGE | test(\"refused\"))'"
    script "journalctl -u scorpio -x -n 200 --no-pager | grep -q 'Subject: Scorpio is ready'"
}

two_users() {
    script 'usermod -aG scorpio bob'
    as bob bash -euc 'scorpioctl mount project:/ ~/w; echo mine >~/w/bobs; ! cat /home/alice/w/mine; ! ls /home/alice/w
        test "$(stat -c %U ~/w/lib/Makefile)" = bob; test "$(scorpioctl --json list | jq length)" = 1'
    as_alice 'test "$(stat -c %U ~/w/lib/Makefile)" = alice
        id=$(scorpioctl --json list | jq -r .[0].id); test -n "$id"; ! ls /home/bob/w'
    # Another user's workspace looks like none at all.
    local id
    id=$(as bob bash -euc 'scorpioctl --json info ~/w | jq -r .id')
    as alice bash -c "scorpioctl unmount $id; test \$? = 3; scorpioctl info $id; test \$? = 3"
}

give_away() {
    local id
    id=$(as_alice 'mkdir ~/gift && scorpioctl mount project:/ ~/gift
        cd ~/gift && echo hers >made && chmod 640 made && rm lib/Makefile && mv src moved && echo >>lib/lmdb.h')
    # Owners may not; polkit wants an administrator.
    as alice bash -c "scorpioctl give $id bob; test \$? = 4"
    script "scorpioctl give $id bob"
    as alice bash -c "scorpioctl info $id; test \$? = 3; ! ls /home/alice/gift/made"
    as bob bash -euc "mkdir ~/gift; scorpioctl mount --workspace $id ~/gift; cd ~/gift
        test \"\$(stat -c '%U %G %a' made)\" = 'bob bob 640'; test \"\$(cat made)\" = hers
        test -z \"\$(find . ! -user bob)\"; test ! -e lib/Makefile; test -f moved/lib.rs
        echo his >>made; echo >>lib/mdb.c; mkdir new"
    as alice bash -c '! ls /home/bob/gift'
    # Quotas go on counting for alice.
    script "cd /var/lib/scorpio/workspaces/$id/upper && test \"\$(stat -c %U made)\" = alice && test -z \"\$(find . ! -type c ! -user alice)\""
    script "journalctl -u scorpio SCORPIO_WORKSPACE=$id SCORPIO_UID=1001 FROM_UID=1000 BY_UID=0 -o json --no-pager | jq -e -s 'any(.[]; .MESSAGE | test(\"given\"))'"
    script "journalctl -u scorpio -x -n 200 --no-pager | grep -q 'Subject: Workspace $id was given to user 1001'"
    as bob bash -euc "cd /; scorpioctl remove $id --discard --yes; rmdir ~/gift"
    as_alice 'rmdir ~/gift'
}

# `/lib` opens with the token `a` alone, everything else with `b` too. The service has `a` from systemd, and later loses it;
# users log in for themselves at the same server under another name.
private_origins() {
    local id
    # So many starts within seconds are more than the unit allows, which is not what is shown here.
    script 'useradd --system mega; chown -R mega: /srv/git
        systemd-run --quiet --unit mega --uid mega /usr/local/bin/mega-server /srv/git/project.git --listen 127.0.0.1:8000 \
            --restrict /=a --restrict /=b --restrict /lib=a
        for _ in $(seq 100); do curl -sf http://127.0.0.1:8000/api/v1/status >/dev/null && break; sleep 0.1; done
        printf "[origin.server]\nkind = \"mega\"\nurl = \"http://127.0.0.1:8000\"\ncredential = \"mega-token\"\nallow = [\"alice\"]\n[origin.users]\nkind = \"mega\"\nurl = \"http://127.0.0.1:8000\"\nread_with = \"user\"\n" >/etc/scorpio/scorpio.toml.d/mega.toml
        systemctl reset-failed scorpio; systemctl restart scorpio'
    # Nobody gave the service a token yet.
    as alice bash -c 'mkdir ~/s ~/u; scorpioctl mount server:/lib ~/s; test $? = 4'
    script "journalctl -u scorpio SCORPIO_CREDENTIAL=mega-token -o json --no-pager | jq -e -s 'any(.[]; .MESSAGE | test(\"credential\"))'"
    script 'echo a >/etc/scorpio/token; chmod 600 /etc/scorpio/token; mkdir -p /etc/systemd/system/scorpio.service.d
        printf "[Service]\nLoadCredential=mega-token:/etc/scorpio/token\n" >/etc/systemd/system/scorpio.service.d/mega.conf
        systemctl daemon-reload; systemctl reset-failed scorpio; systemctl restart scorpio; scorpioctl health'
    id=$(as_alice 'scorpioctl mount server:/lib ~/s && cmp ~/s/Makefile ~/w/lib/Makefile')
    as bob bash -c 'mkdir -p ~/u; scorpioctl mount server:/ ~/u; test $? = 3'
    # Logins of users: what alice may read and has read is not there for bob.
    as alice bash -c 'scorpioctl mount users:/ ~/u; test $? = 4'
    as alice bash -euc 'echo a | scorpioctl login users; scorpioctl mount users:/ ~/u; cmp ~/u/lib/Makefile ~/w/lib/Makefile'
    as bob bash -c 'echo wrong | scorpioctl login users; test $? = 4'
    as bob bash -euc 'echo b | scorpioctl login users; scorpioctl mount users:/ ~/u; cmp ~/u/src/lib.rs ~/w/src/lib.rs
        cat ~/u/lib/Makefile 2>&1 | grep -q "Input/output error"'
    # Over a restart without a descriptor kept, what is stored is used.
    script 'systemctl stop scorpio; systemctl reset-failed scorpio; systemctl start scorpio'
    as_alice 'cmp ~/u/src/cli.rs ~/w/src/cli.rs'
    # An expired token is EIO and a line; what is here stays.
    script 'curl -sf --data "{\"token\": \"a\", \"expired\": true}" http://127.0.0.1:8000/control/token'
    as_alice 'cmp ~/u/lib/Makefile ~/w/lib/Makefile; cat ~/u/src/api/views.rs 2>&1 | grep -q "Input/output error"'
    script "journalctl -u scorpio SCORPIO_CREDENTIAL='login of user 1000' -o json --no-pager | jq -e -s 'any(.[]; .MESSAGE | test(\"credential\"))'"
    script 'curl -sf --data "{\"token\": \"a\", \"expired\": false}" http://127.0.0.1:8000/control/token'
    as_alice 'cmp ~/u/src/api/views.rs ~/w/src/api/views.rs'
    as_alice "cd; scorpioctl remove $id; scorpioctl remove ~/u; rmdir ~/s ~/u; scorpioctl logout users"
    as bob bash -euc 'cd; scorpioctl remove ~/u; rmdir ~/u; scorpioctl logout users'
    script 'rm /etc/scorpio/scorpio.toml.d/mega.toml /etc/systemd/system/scorpio.service.d/mega.conf /etc/scorpio/token
        systemctl stop mega; systemctl daemon-reload; systemctl reset-failed scorpio; systemctl restart scorpio; chown -R root: /srv/git'
}

# A build, a database and cold reads in alice's workspace; what the database acknowledged is written down outside of it.
start_load() {
    run tee /var/tmp/reader.py >/dev/null <<'READER'
import hashlib, os, random, time
files = [os.path.join(top, name) for top, _, names in os.walk(os.path.expanduser("~/w/src")) for name in names]
def read(path):
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return hashlib.sha256(file.read()).digest()
sums, reads, longest = {path: read(path) for path in files}, 0, 0
while os.path.exists("/var/tmp/load/on"):
    path, begin = random.choice(files), time.monotonic()
    if read(path) != sums[path]:
        raise SystemExit("other content: " + path)
    reads, longest = reads + 1, max(longest, time.monotonic() - begin)
    if reads == 1:
        open("/var/tmp/load/reading", "w").close()
print(f"{reads} cold reads, longest {longest:.1f} s")
READER
    script 'install -d -o alice /var/tmp/load && rm -f /var/tmp/load/* && touch /var/tmp/load/on && chown alice /var/tmp/load/on'
    as_alice 'cd ~/w && rm -f db* && sqlite3 db "PRAGMA journal_mode=WAL; CREATE TABLE t (n INTEGER PRIMARY KEY)"'
    as_alice 'setsid bash -c '\''
        n=0
        while [ -e /var/tmp/load/on ]; do
            n=$((n + 1))
            if sqlite3 ~/w/db "PRAGMA busy_timeout=2000; PRAGMA synchronous=FULL; INSERT INTO t VALUES ($n)" >/dev/null 2>>/var/tmp/load/errors; then
                echo $n >>/var/tmp/load/acknowledged
            fi
        done'\'' >/dev/null 2>&1 </dev/null &
        setsid bash -c '\''
        while [ -e /var/tmp/load/on ]; do
            if make -C ~/w/lib -s clean liblmdb.a >/dev/null 2>>/var/tmp/load/make.errors; then echo >>/var/tmp/load/builds; else echo >>/var/tmp/load/broken; fi
        done'\'' >/dev/null 2>&1 </dev/null &
        setsid python3 /var/tmp/reader.py /var/tmp/load/on >/var/tmp/load/reader 2>&1 </dev/null &'
    until run test -e /var/tmp/load/reading; do sleep 0.1; done
}

stop_load() {
    run rm -f /var/tmp/load/on
    local try
    for try in $(seq 600); do
        run pgrep -u alice -f /var/tmp/load/on >/dev/null || return 0
        sleep 0.1
    done
    run ps -u alice -o pid,stat,wchan:30,args
    return 1
}

count() { run sh -c "wc -l </var/tmp/load/$1" 2>/dev/null || echo 0; }

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

all_mounted() {
    run scorpioctl --json list --all | jq -e 'length == 2 and all(.[]; .state == "mounted")'
}

no_stale_mount() {
    # One overlay per workspace, and no FUSE session but those in use.
    test "$(run grep -c ' - overlay scorpio:' /proc/self/mountinfo)" = 2
    test "$(run grep -c ' - fuse.scorpio ' /proc/self/mountinfo)" -le 2
}

wait_for_service() {
    local try
    for try in $(seq 200); do
        if run timeout 10 scorpioctl health >/dev/null 2>&1 && all_mounted >/dev/null; then return 0; fi
        sleep 0.1
    done
    run systemctl status scorpio --no-pager || true
    run scorpioctl list --all
    return 1
}

restarts_under_load() {
    local round pid before mounts sessions waiting busy=0 kills=0
    run sh -c 'cd /home/bob/w && cp -r lib mine && find mine -type f | sort | xargs sha256sum >/var/tmp/bob.sum'
    start_load
    run sh -c 'mkdir -p /run/connections; mountpoint -q /run/connections || mount -t fusectl none /run/connections'
    sessions=$(run sh -c "grep ' - fuse.scorpio ' /proc/self/mountinfo | cut -d ' ' -f 3 | cut -d : -f 2 | xargs")
    mounts=$(run grep -e 'overlay scorpio:' -e 'fuse.scorpio' /proc/self/mountinfo)
    for round in $(seq "$rounds"); do
        before=$(count acknowledged)
        # The load is really on before the next blow.
        until [ "$(count acknowledged)" -gt "$((before + 3))" ]; do sleep 0.05; done
        if [ $((round % 2)) = 0 ]; then
            run systemctl restart scorpio
        else
            pid=$(run systemctl show -P MainPID scorpio)
            kills=$((kills + 1))
            # No answer is written any more, so that requests which the daemon has read are unanswered when it is killed. How
            # many the kernel waits for is asked while nobody is there to answer.
            waiting=$(run sh -c "strace -f -qq -o /dev/null -e trace=writev -e inject=writev:delay_enter=3000000 -p $pid 2>/dev/null &
                sleep 2; kill -9 $pid; sleep 0.05; for session in $sessions; do cat /run/connections/\$session/waiting; done")
            case $waiting in *[1-9]*) busy=$((busy + 1)) ;; esac
        fi
        script 'systemctl reset-failed scorpio 2>/dev/null || true'
        wait_for_service
    done
    stop_load
    nothing_stuck
    no_stale_mount
    # Every acknowledged row is there, and bob's files are as he left them.
    as_alice 'cd ~/w && sqlite3 db "PRAGMA integrity_check" | grep -qx ok
        sqlite3 db "SELECT n FROM t" | sort >/var/tmp/load/found; sort /var/tmp/load/acknowledged | comm -23 - /var/tmp/load/found | (! grep .)'
    run sh -c 'cd /home/bob/w && sha256sum --quiet -c /var/tmp/bob.sum'
    echo "FIGURE $(count acknowledged) commits acknowledged, all found; $(count errors) failed; $(count builds) builds done, $(count broken) broken; $(run cat /var/tmp/load/reader); $busy of $kills kills met requests in flight"
    run cat /var/tmp/load/errors /var/tmp/load/make.errors 2>/dev/null || true
    test "$(count errors)" = 0
    test "$(count broken)" = 0
    run grep -q '^[1-9][0-9]* cold reads' /var/tmp/load/reader
    test $((busy * 2)) -gt "$kills"
    # Nothing was mounted again.
    test "$(run grep -e 'overlay scorpio:' -e 'fuse.scorpio' /proc/self/mountinfo)" = "$mounts"
    as_alice 'make -C ~/w/lib -s clean liblmdb.a'
}

# Before 6.9 the kernel does not ask again what the dead daemon had read, before 6.12 a session belongs to one user.
kernel_decides() {
    local kernel resend=true sessions=shared
    kernel=$(run uname -r)
    case $kernel in
    6.[0-8].*) resend=false sessions='owner-1000 owner-1001' ;;
    6.9.* | 6.1[01].*) sessions='owner-1000 owner-1001' ;;
    esac
    run sh -c "grep ' - fuse.scorpio ' /proc/self/mountinfo | cut -d ' ' -f 5 | xargs -n 1 basename | sort | xargs" | grep -qx "$sessions"
    run journalctl -u scorpio -o json --no-pager >"$work/journal"
    jq -es "map(select(.MESSAGE == \"FUSE session resumed\")) | length > 0 and all(.[]; .RESEND == \"$resend\")" "$work/journal"
    if [ "$resend" = false ]; then
        jq -es 'any(.[]; .MESSAGE == "FUSE session resumed" and (.REPLAYED | tonumber) > 0)' "$work/journal"
    fi
    (! grep 'not gone on with' "$work/journal")
    echo "FIGURE Linux $kernel: $sessions; resend: $resend; $(jq -s 'map(select(.MESSAGE == "FUSE session resumed") | .REPLAYED | tonumber) | add' "$work/journal") requests replayed"
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

reboot() {
    uppers >"$work/before"
    machine_down "$machine"
    machine_up "$work/${machine#scorpio-}" "$machine"
    wait_for_service
    uppers | cmp - "$work/before"
    no_stale_mount
    as_alice 'test -f ~/w/mine && make -C ~/w/lib -s clean liblmdb.a'
}

wrong_configuration() {
    script 'echo "[limits]
workspaces_per_user = \"many\"" >/etc/scorpio/scorpio.toml.d/wrong.toml
        systemctl restart scorpio || true
        sleep 1
        test "$(systemctl show -P ExecMainStatus scorpio)" = 78
        test "$(systemctl show -P NRestarts scorpio)" = 0
        journalctl -u scorpio -n 20 --no-pager | grep -q "wrong.toml:2: limits.workspaces_per_user"
        rm /etc/scorpio/scorpio.toml.d/wrong.toml
        systemctl reset-failed scorpio; systemctl start scorpio'
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
