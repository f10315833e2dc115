# Who may do what, with whose workspaces and origins.

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
