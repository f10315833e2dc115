#!/bin/bash
# run.sh [--no-build | --ahead] [SUITE...]
# Builds the Debian package, installs it on machines with a real systemd (bookworm unless other suites are named) and
# works there as two users. Needs root, mmdebstrap, systemd-container, lintian, libxml2-utils and what a build needs.
# A suite `vm-bookworm` or `vm-trixie` is that Debian with its own kernel (6.1, 6.12) in an emulated machine: slow, so it
# restarts three times instead of twenty unless ROUNDS says otherwise. It installs what it needs besides.
# With --ahead it tests nothing: it only builds what a run builds first, the machines' root directories in MACHINE_CACHE.
#   ONLY=REGEX            while working on a check: those whose names match, after what they all stand on
#   SCORPIO_LONG=1        checks that have a full size have it
#   MACHINE_PREFIX=NAME   so that several may run beside each other
#   MACHINE_CACHE=DIR     keep the machines' root directories there as they are before anything is installed
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/system/machine.sh

build=
ahead=no
case ${1:-} in
--no-build) build=$1; shift ;;
--ahead) ahead=yes; shift ;;
esac
suites=("${@:-bookworm}")
if [ "$ahead" = yes ]; then
    cargo build --release --locked --bins
    for suite in "${suites[@]}"; do machine_keep "$suite" >/dev/null; done
    exit
fi
work=$(mktemp -d /var/tmp/scorpio-system.XXXXXX)
machine=
passed=0
failed=0
skipped=0

clean_up() {
    [ -z "$machine" ] || machine_down "$machine" || true
    rm -rf --one-file-system "$work"
}
trap clean_up EXIT

# check NAME CMD...: one promise; its output is shown when it does not hold.
check() {
    local name=$1 begin=$SECONDS status
    shift
    if ! [[ $name =~ ${ONLY:-} || $1 =~ ^(installs|polkit_decides|two_users)$ ]]; then
        skipped=$((skipped + 1))
        return
    fi
    # Not as a condition: there the shell would ignore every failure but the last.
    set +e
    (set -e; "$@") >"$work/output" 2>&1
    status=$?
    set -e
    if [ "$status" = 0 ]; then
        passed=$((passed + 1))
        echo "ok      $name ($((SECONDS - begin)) s)$(sed -n 's/^FIGURE / — /p' "$work/output" | tr -d '\n')"
    else
        failed=$((failed + 1))
        echo "FAILED  $name"
        tail -n 60 "$work/output" | sed 's/^/        /'
        [ -z "$machine" ] || run journalctl -u scorpio --no-pager -n 60 | sed 's/^/        | /' || true
    fi
}

run() { machine_run "$machine" "$@"; }
as() { machine_as "$machine" "$@"; }
script() { run bash -euc "$1"; }
as_alice() { as alice bash -euc "$1"; }

. tests/system/checks.sh

echo "building the package"
packaging/build-deb.sh $build "$work" >"$work/build.log" 2>&1 || { tail -n 40 "$work/build.log"; exit 1; }
packaging/build-deb.sh --version 0.1.0+again --no-build "$work" >"$work/build.log" 2>&1 || { tail -n 40 "$work/build.log"; exit 1; }
package=$work/scorpio_0.1.0_$(dpkg --print-architecture).deb
later=$work/scorpio_0.1.0+again_$(dpkg --print-architecture).deb
check "the units, the policy and the package are well-formed" static_checks
# Once: the second machine of a long run packs the same.
if [ "${SCORPIO_LONG:-}" = 1 ] && [ "${suites[0]}" = bookworm ]; then
    check "the package builds from packed sources without a network" builds_offline
fi

for suite in "${suites[@]}"; do
    echo "building a machine with $suite"
    begin=$SECONDS
    case $suite in
    vm-*) rounds=${ROUNDS:-3} ;;
    *) rounds=${ROUNDS:-20} ;;
    esac
    machine_build "$suite" "$work/$suite" >"$work/build.log" 2>&1 || { tail -n 20 "$work/build.log"; exit 1; }
    prepare "$work/$suite"
    machine=${MACHINE_PREFIX:-scorpio}-$suite
    machine_up "$work/$suite" "$machine"
    run_checks
    machine_down "$machine"
    machine=
    rm -rf --one-file-system "${work:?}/$suite"{,.img,.kernel}
    echo "$suite took $((SECONDS - begin)) s"
done

echo "$passed passed, $failed failed$([ "$skipped" = 0 ] || echo ", $skipped left out")"
[ "$failed" = 0 ]
