# What users may try, and what comes of it: the table of tests/system/abuse, whose page is docs/ABUSE.md.

# ABUSE_ONLY=REGEX tries a few cases, while working on them.
abuse() {
    case $suite in
    vm-*)
        echo "FIGURE left out: its bounds on time are not those of an emulated machine"
        return
        ;;
    esac
    tar -C tests/system -c --exclude=__pycache__ abuse | run tar -C /var/tmp -x --no-same-owner
    if [ -n "${ABUSE_ONLY:-}" ]; then
        run env SCORPIO_LONG="${SCORPIO_LONG:-}" python3 /var/tmp/abuse --only "$ABUSE_ONLY"
        return
    fi
    run env SCORPIO_LONG="${SCORPIO_LONG:-}" python3 /var/tmp/abuse --page >"$work/abuse.md"
    if [ "${SCORPIO_BLESS:-}" = 1 ]; then cp "$work/abuse.md" docs/ABUSE.md; fi
    diff docs/ABUSE.md "$work/abuse.md"
}
