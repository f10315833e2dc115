# What polkit says holds, at once or within the bound that is promised, and the journal names who was refused what.

# scorpio-ask hold FIELD           one connection: `whoami` until FIELD is false; how long that took from a line on stdin on
# scorpio-ask repeat METHOD N      one connection: N calls; how many were answered by which error
ask_program() {
    run tee /usr/local/bin/scorpio-ask >/dev/null <<'PROGRAM'
#!/usr/bin/perl
use strict;
use IO::Socket::UNIX;

my $connection = IO::Socket::UNIX->new(Peer => "/run/scorpio/scorpio.sock") or die "cannot connect: $!";

sub call {
    my ($method, $params) = @_;
    my $body = qq({"jsonrpc":"2.0","id":1,"method":"$method","params":$params});
    my $head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s";
    $connection->print(sprintf $head, length $body, $body);
    my $length = 0;
    while (defined(my $line = <$connection>)) {
        last if $line =~ /^\r?$/;
        $length = $1 if $line =~ /^content-length: *(\d+)/i;
    }
    my $answer = "";
    read($connection, $answer, $length) == $length or die "the connection broke off";
    return $answer;
}

sub may {
    return (call("whoami", "{}") =~ /"$ARGV[1]":(true|false)/ or die "no answer") && $1 eq "true";
}

if ($ARGV[0] eq "hold") {
    may() or die "not even at first";
    $| = 1;
    print "held\n";
    <STDIN>;
    my $begin = time;
    select undef, undef, undef, 0.1 while may();
    print time - $begin, "\n";
} else {
    my %errors;
    for (1 .. $ARGV[2]) {
        my $answer = call($ARGV[1], '{"origin":"project","mount_point":"/nowhere"}');
        my ($kind) = $answer =~ /"kind":"(\w+)"/;
        my ($action) = $answer =~ /"action":"([^"]*)"/;
        $errors{"$kind $action"}++;
    }
    print "$errors{$_} $_\n" for sort keys %errors;
}
PROGRAM
    script 'chmod 755 /usr/local/bin/scorpio-ask'
}

# until_may USER FIELD true|false: polkit reads rules when it notices them.
until_may() {
    local try
    for try in $(seq 100); do
        if [ "$(as "$1" scorpioctl --json whoami | jq -r ".$2")" = "$3" ]; then return 0; fi
        sleep 0.1
    done
    as "$1" scorpioctl --json whoami
    return 1
}

# refused USER ACTION WORDS...: scorpioctl WORDS is refused, and says which right is missing; so does the journal.
refused() {
    local user=$1 action=$2 uid
    shift 2
    uid=$(run id -u "$user")
    as "$user" bash -c 'cd; scorpioctl "$@" 2>"/tmp/refused-$(id -un)"; test $? = 4' refused "$@"
    run cat "/tmp/refused-$user" | grep -F "($action)"
    script "journalctl --sync; journalctl MESSAGE_ID=2942e3b336a0142c10446c0cf3d29514 SCORPIO_UID=$uid ACTION=$action -o json --no-pager | jq -e -s 'any(.[]; .MESSAGE | test(\"refused\"))'"
}

refusals_are_named() {
    local id
    id=$(as_alice 'scorpioctl --json info ~/w | jq -r .id')
    script 'id carol 2>/dev/null || useradd --create-home --shell /bin/bash carol; usermod -aG sudo alice'
    as carol bash -c 'mkdir -p ~/w'
    refused carol org.scorpio.mount mount project:/ w
    # An administrator would have to authenticate, and nobody is asked: who looks at a terminal is not known here.
    refused alice org.scorpio.manage-others list --all
    refused alice org.scorpio.give give "$id" bob
    script 'gpasswd -d alice sudo >/dev/null; scorpioctl --json list --all | jq -e "length >= 2"'
    # Somebody who is named in a rule may what it names, and no more.
    script 'echo "polkit.addRule(function (action, subject) {
        if (action.id == \"org.scorpio.manage-others\" && subject.user == \"bob\") { return polkit.Result.YES; } });" >/etc/polkit-1/rules.d/10-bob.rules'
    until_may bob may_manage_others true
    as bob bash -euc "scorpioctl --json list --all | jq -e 'any(.[]; .id == \"$id\")'; scorpioctl --json info $id | jq -e '.user == \"alice\"'"
    refused bob org.scorpio.give give "$id" bob
    refused alice org.scorpio.manage-others list --all
}

# Of connections that were allowed what they ask until then.
revocation_takes_effect() {
    ask_program
    until_may bob may_manage_others true
    script 'rm -f /tmp/go-* /tmp/held-*; mkfifo /tmp/go-alice /tmp/go-bob
        runuser -u alice -- scorpio-ask hold may_mount </tmp/go-alice >/tmp/held-alice & one=$!
        runuser -u bob -- scorpio-ask hold may_manage_others </tmp/go-bob >/tmp/held-bob & two=$!
        exec 3>/tmp/go-alice 4>/tmp/go-bob
        for user in alice bob; do
            for _ in $(seq 100); do ! grep -q held /tmp/held-$user || break; sleep 0.1; done
            grep -q held /tmp/held-$user
        done
        gpasswd -d alice scorpio >/dev/null; rm /etc/polkit-1/rules.d/10-bob.rules
        echo >&3; echo >&4
        wait $one; wait $two; rm /tmp/go-*'
    # Consent is remembered for 5 s; the rest is for polkit to notice, and for the next question.
    script 'for user in alice bob; do awk "NR == 2 { ok = \$1 <= 7 } END { exit !ok }" /tmp/held-$user || { cat /tmp/held-*; exit 1; }; done'
    echo "FIGURE revoked on open connections after $(run tail -qn 1 /tmp/held-alice /tmp/held-bob | paste -sd' ') s"
    # New connections know nothing of what was.
    refused bob org.scorpio.manage-others list --all
    as alice bash -c 'mkdir ~/no; scorpioctl mount project:/ ~/no; test $? = 4; rmdir ~/no'
    script 'usermod -aG scorpio alice'
}

# Without polkit, or with rules that are wrong, users are refused and root is not; what is mounted is not touched.
polkit_away_is_no() {
    script 'systemctl mask --runtime --now polkit 2>/dev/null'
    as alice bash -c 'mkdir ~/no; scorpioctl --json mount project:/ ~/no 2>/tmp/refused-alice; test $? = 4; rmdir ~/no'
    run grep -F 'cannot be asked' /tmp/refused-alice
    as_alice 'test -f ~/w/lib/Makefile; echo still >~/w/still; scorpioctl info ~/w >/dev/null; scorpioctl list >/dev/null'
    script 'scorpioctl health; scorpioctl --json list --all | jq -e "length >= 2"
        systemctl unmask --runtime polkit 2>/dev/null; systemctl start polkit'
    until_may alice may_mount true
    # A file that is no program is passed over, and the others hold.
    script 'echo "polkit.addRule(function (action {" >/etc/polkit-1/rules.d/05-broken.rules
        echo "polkit.addRule(function (action, subject) {
        if (action.id == \"org.scorpio.manage-others\" && subject.user == \"bob\") { return polkit.Result.YES; } });" >/etc/polkit-1/rules.d/10-bob.rules'
    until_may bob may_manage_others true
    until_may alice may_mount true
    refused carol org.scorpio.mount mount project:/ w
    # A rule that fails is a no to everybody but root.
    script 'rm /etc/polkit-1/rules.d/10-bob.rules; echo "polkit.addRule(function () { throw new Error(\"broken\"); });" >/etc/polkit-1/rules.d/05-broken.rules'
    until_may alice may_mount false
    script 'scorpioctl --json list --all | jq -e "length >= 2"; rm /etc/polkit-1/rules.d/05-broken.rules'
    until_may alice may_mount true
}

# Paths of another mount namespace mean something else there; another user namespace alone is harmless.
other_namespaces_are_refused() {
    as_alice 'mkdir ~/ns
        if unshare --user --map-root-user --mount scorpioctl mount project:/ ~/ns 2>~/told; then exit 1; fi
        grep -qF "another file system than this host" ~/told
        test -z "$(ls -A ~/ns)"; test "$(scorpioctl --json list | jq length)" = 1
        unshare --user --map-root-user scorpioctl mount project:/ ~/ns; test -f ~/ns/lib/Makefile
        scorpioctl --json info ~/ns | jq -e ".uid == 1000"
        scorpioctl remove ~/ns; rmdir ~/ns; rm ~/told'
}

# Hundreds of refusals are twenty entries and one that says how many more there were.
journal_is_not_filled() {
    local times=400 cursor uid answered
    [ "${SCORPIO_LONG:-}" != 1 ] || times=10000
    ask_program
    uid=$(run id -u carol)
    run journalctl --sync
    cursor=$(run journalctl -n 1 --show-cursor --no-pager | sed -n 's/^-- cursor: //p')
    answered=$(as carol scorpio-ask repeat workspace.create "$times")
    echo "answered: $answered"
    test "$answered" = "$times NotAuthorised org.scorpio.mount"
    # Not matched by journalctl: with a cursor whose entry does not match, that of systemd 252 leaves out the first that does.
    script "for _ in \$(seq 150); do
            journalctl --sync
            journalctl --after-cursor '$cursor' -o json --no-pager | jq -c 'select(.SCORPIO_UID == \"$uid\")' >/tmp/of-carol
            written=\$(jq -s '[.[] | select(.ACTION == \"org.scorpio.mount\")] | length' /tmp/of-carol)
            unsaid=\$(jq -s '[.[] | select(.UNSAID) | .UNSAID | tonumber] | add // 0' /tmp/of-carol)
            test \$((written + unsaid)) != $times || break
            sleep 0.1
        done
        echo \$written written, \$unsaid held back
        test \$((written + unsaid)) = $times; test \$written -le 25
        echo \$written >/tmp/written
        jq -e -s 'any(.[]; .LIKE == \"REFUSED\" and (.MESSAGE | test(\"more like this were not written: refused: \")))' /tmp/of-carol >/dev/null"
    echo "FIGURE $times refusals: $(run cat /tmp/written) entries and their number"
}
