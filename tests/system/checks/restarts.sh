# Work goes on while the daemon restarts or is killed.

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
