#!/bin/bash
# Installs what the tests need on Debian, then runs all of them. As root, or as a user who may sudo.
#
#   tests/run.sh            what a change must pass before it lands; within 30 minutes
#   tests/run.sh --long     everything, in full size: a gigabyte through the lower, a minute of kills and more, fsx with fsync,
#                           emulated machines with Debian's own kernels, and what the tests notice when a guard is taken away
#   tests/run.sh --quick    the landing run without the machine with a real systemd
set -euo pipefail
cd "$(dirname "$0")/.."

quick=no
machines=(bookworm trixie)
case ${1:-} in
--quick) quick=yes ;;
--long) export SCORPIO_LONG=1; machines+=(vm-bookworm vm-trixie) ;;
'') ;;
*) echo "usage: tests/run.sh [--quick | --long]" >&2; exit 2 ;;
esac

if [ "$(id -u)" != 0 ]; then
    exec sudo --preserve-env=PATH,CARGO_HOME,RUSTUP_HOME,HOME,CARGO_TARGET_DIR,CARGO_INCREMENTAL "$0" "$@"
fi

say() { printf '\n== %s\n' "$*"; }

work=$(mktemp -d /var/tmp/scorpio-tests.XXXXXX)
ahead=
containers=()
clean_up() {
    # In the background they do not hear of Ctrl-C.
    [ "${#containers[@]}" = 0 ] || { kill "${containers[@]}" 2>/dev/null && wait "${containers[@]}" 2>/dev/null; } || true
    if [ -n "$ahead" ]; then
        kill -- "-$ahead" 2>/dev/null || true
        wait "$ahead" 2>/dev/null || true
        # Those at idle priority take a while to die, and hold what they have mounted until then.
        for _ in $(seq 100); do pgrep -g "$ahead" >/dev/null || break; sleep 0.1; done
    fi
    rm -rf --one-file-system "$work" || echo "tests/run.sh: $work is left" >&2
}
trap clean_up EXIT

say "installing what the tests need"
packages=(ca-certificates git make gcc libc6-dev python3 sqlite3 procps util-linux acl attr curl e2fsprogs dbus-daemon polkitd)
[ "$quick" = yes ] || packages+=(mmdebstrap systemd-container systemd lintian libxml2-utils)
missing=()
for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ "${#missing[@]}" != 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# Suites of others that are run in our mounts; a version is raised on purpose, with the table of docs/ENGINE-SUITE.md.
tools=${CARGO_TARGET_DIR:-target}/tools
for tool in pjdfstest@0.2.2 fsx@0.3.2; do
    # Does nothing where that version is installed already.
    cargo install --locked --quiet --version "${tool#*@}" --root "$tools" "${tool%@*}"
done

say "formatting"
cargo fmt --check

say "lints"
cargo clippy --locked --all-targets -- -D warnings

if [ "$quick" = no ]; then
    # The next step's builds, on what this one leaves of the processors: tests wait for half of their time. A process group
    # of its own, to be ended as a whole; not a session, which the kernel would give an equal share of the processors.
    export MACHINE_CACHE=${MACHINE_CACHE:-$work/roots}
    set -m
    chrt --idle 0 tests/system/run.sh --ahead "${machines[@]}" >"$work/ahead.log" 2>&1 &
    ahead=$!
    set +m
fi

say "library, socket and mount tests"
# All that fails, not the first of it.
cargo test --locked --no-fail-fast

if [ "$quick" = no ]; then
    say "package and machine tests"
    wait "$ahead" || { tail -n 60 "$work/ahead.log"; exit 1; }
    ahead=
    # Containers beside each other: their checks mostly wait. Emulated machines take all there is.
    for machine in "${machines[@]}"; do
        case $machine in
        vm-*) ;;
        *)
            tests/system/run.sh "$machine" > >(exec sed -u "s/^/$machine  /") 2>&1 &
            containers+=($!)
            ;;
        esac
    done
    failed=no
    for container in "${containers[@]}"; do wait "$container" || failed=yes; done
    for machine in "${machines[@]}"; do
        # Twenty times slower: what there is to find out is whether it works on these kernels, which small sizes tell too.
        case $machine in vm-*) SCORPIO_LONG='' tests/system/run.sh "$machine" || failed=yes ;; esac
    done
    containers=()
    [ "$failed" = no ]
fi

if [ "${SCORPIO_LONG:-}" = 1 ]; then
    say "tests that must fail"
    tests/mutants.py
fi
