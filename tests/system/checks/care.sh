# What administrators do for a host: who takes how much, no new mounts, accounts that go.

usage_is_counted() {
    local id
    id=$(as_alice 'cd ~/w && head -c 3000000 /dev/urandom >large && ln large again && mkdir -p deep/er && echo >deep/er/file
        rm src/store/pin.rs && sync -f . && scorpioctl --json info . | jq -r .id')
    # What du says of the upper, to the byte, without a look into the mount.
    run sh -c "cd /var/lib/scorpio/workspaces/$id && echo \$(du -s -B1 upper | cut -f 1) \$(du -s --inodes upper | cut -f 1)" >"$work/du"
    as_alice 'scorpioctl --json du ~/w | jq -r ".workspaces[] | \"\(.bytes) \(.inodes) \(.partial)\""' >"$work/usage"
    echo "$(cat "$work/du") null" | cmp - "$work/usage"
    as_alice 'test "$(scorpioctl --json du | jq ".workspaces | length")" = 1; scorpioctl --json du | jq -e ".cache == null"'
    as bob bash -c "scorpioctl du $id; test \$? = 3; scorpioctl du --all; test \$? = 4"
    run scorpioctl --json du --all | jq -e '(.workspaces | length) == 2 and .cache.database_limit_bytes == 68719476736'
    run scorpioctl du --all | grep -c "^$id .*/home/alice/w  *alice$"
    as_alice 'cd ~/w && rm -r large again deep'
    echo "FIGURE $(cat "$work/usage" | cut -d ' ' -f 1,2) (bytes, inodes)"
}

draining() {
    local id
    id=$(as_alice 'mkdir ~/kept && scorpioctl mount project:/ ~/kept && cd ~/kept && echo hers >made && cd && scorpioctl unmount ~/kept
        scorpioctl list --json | jq -r ".[] | select(.state == \"unmounted\") | .id"' | tail -n 1)
    as alice bash -c 'scorpioctl drain; test $? = 4'
    run scorpioctl drain >"$work/left"
    grep -q '^alice .*mounted  /home/alice/w$' "$work/left"
    grep -q '^bob .*mounted  /home/bob/w$' "$work/left"
    test "$(wc -l <"$work/left")" = 3
    refused_while_draining "$id"
    # Over a restart, and over a stop, after which what was mounted is mounted again.
    script 'systemctl reset-failed scorpio; systemctl restart scorpio'
    refused_while_draining "$id"
    script 'systemctl stop scorpio.socket scorpio.service; systemctl start scorpio.socket scorpio.service'
    refused_while_draining "$id"
    as_alice 'test -f ~/w/mine && test -f ~/w/lib/Makefile'
    run sh -c 'scorpioctl drain --timeout 1s; test $? = 6'
    script "scorpioctl drain --undo; scorpioctl health | (! grep -i drain); test ! -e /var/lib/scorpio/drain
        journalctl -u scorpio BY_UID=0 -o json --no-pager | jq -e -s 'any(.[]; .MESSAGE == \"no new mounts are taken\") and any(.[]; .MESSAGE == \"mounts are taken again\")'
        journalctl -u scorpio -x -n 200 --no-pager | grep -q 'Subject: Mounts are taken again'"
    as_alice "scorpioctl mount --workspace $id && test \"\$(cat ~/kept/made)\" = hers; cd; scorpioctl remove $id --discard --yes; rmdir ~/kept"
}

refused_while_draining() {
    as alice bash -c "mkdir -p ~/new; scorpioctl mount project:/ ~/new; test \$? = 6; scorpioctl mount --workspace $1; test \$? = 6; rmdir ~/new"
    run scorpioctl --json health | jq -e '.draining and .problems == []'
    run grep -c ' - overlay scorpio:' /proc/self/mountinfo | grep -qx 2
}

# The account goes, its work does not.
account_removed() {
    local id uid
    script 'useradd --create-home --shell /bin/bash -G scorpio dora'
    uid=$(run id -u dora)
    id=$(as dora bash -euc 'mkdir ~/w && scorpioctl mount project:/ ~/w && cd ~/w && echo precious >made && rm lib/Makefile')
    run userdel dora
    # Nothing of it depends on the account: it is there after a restart, and after a stop; the list has a number, and the
    # journal says that nobody has it.
    script 'systemctl reset-failed scorpio; systemctl restart scorpio'
    run scorpioctl --json list --all | jq -e ".[] | select(.id == \"$id\") | .state == \"mounted\" and .uid == $uid and .user == null"
    run scorpioctl list --all | grep -c "^$id .* $uid\$"
    run grep -q " /home/dora/w .* - overlay scorpio:$id " /proc/self/mountinfo
    script 'systemctl stop scorpio.socket scorpio.service; systemctl start scorpio.socket scorpio.service'
    run grep -q " /home/dora/w .* - overlay scorpio:$id " /proc/self/mountinfo
    script "journalctl -u scorpio SCORPIO_UID=$uid -o json --no-pager | jq -e -s 'any(.[]; .MESSAGE | startswith(\"these workspaces belong to a number that no account has\"))'"
    # Without its home it is displaced; what was written is kept.
    script "scorpioctl unmount $id; rm -r /home/dora"
    run sh -c "scorpioctl mount --workspace $id; test \$? = 1"
    run grep -q precious "/var/lib/scorpio/workspaces/$id/upper/made"
    # Somebody takes the work over.
    script "scorpioctl give $id alice"
    as_alice "mkdir ~/doras && scorpioctl mount --workspace $id ~/doras && cd ~/doras && test \"\$(cat made)\" = precious
        test ! -e lib/Makefile && test -z \"\$(find . ! -user alice)\"; cd; scorpioctl remove $id --discard --yes; rmdir ~/doras"
}
