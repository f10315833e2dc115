"""docs/ABUSE.md, as the table and a run of it make it."""

HEAD = """# Abuse

What unprivileged users may try against the service, and what comes of it. A row is one case and one test. Those of
`tests/system/abuse/` are tried against the installed package on a machine with a real systemd, by processes that really are
the users named; after each of them the daemon is the same process, PID 1 sees the same mounts, there are the same workspaces,
directories, layers and no more descriptors and children than before, and bob has mounted, read, written, listed and unmounted
within 5 s. The other rows name the test that proves them.

The page is written by a run and compared with every later one, which fails on a difference:

```text
SCORPIO_BLESS=1 ONLY=ABUSE tests/system/run.sh bookworm     writes it
tests/system/run.sh                                         compares; so does tests/run.sh
```

Numbers are the codes of [PROTOCOL.md](PROTOCOL.md#errors). *Allowed* is an answer too: what looks odd and harms nobody
works, and leaves nothing behind when it is over. Cases of the long run (`tests/run.sh --long`) take a minute or more, and races
go on for longer there.
"""

COLUMNS = "| case | tried by | what comes of it | where it is tested |\n|---|---|---|---|\n"


def written(rows):
    parts, groups = [HEAD], []
    groups += [row.group for row in rows if row.group not in groups]
    for group in dict.fromkeys(groups):
        lines = [f"| {row.name} | {row.who} | {row.expected} | {row.where} |\n" for row in rows if row.group == group]
        parts.append(f"\n## {group}\n\n{COLUMNS}{''.join(lines)}")
    return "".join(parts)
