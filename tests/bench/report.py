"""Raw samples as Markdown tables, and docs/BENCHMARKS.md with them between its markers."""

import os
import re

import goals
import peers
import plots
import scorpio

DOCUMENT = f"{scorpio.PROJECT}/docs/BENCHMARKS.md"
PLOTS = f"{scorpio.PROJECT}/docs/plots"
BEGIN, END = "<!-- measured: {} -->", "<!-- end -->"


class Notes:
    """Footnotes of one section: a text that comes again gets the same number."""

    def __init__(self):
        self.texts = []

    def mark(self, text):
        if text not in self.texts:
            self.texts.append(text)
        return f"<sup>{self.texts.index(text) + 1}</sup>"

    def lines(self):
        return "".join(f"\n<sup>{number}</sup> {text}  " for number, text in enumerate(self.texts, 1)).rstrip() + "\n"


def duration(seconds):
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds:.0f} s"


def size_of(count):
    for unit, name in ((2 ** 30, "GiB"), (2 ** 20, "MiB"), (2 ** 10, "KiB")):
        if abs(count) >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} B"


def table(*rows):
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]]) + "\n"


def spread(samples, show=duration):
    """The least sample, and how many times as large the largest is."""
    least = min(samples)
    return show(least) if len(samples) == 1 else f"{show(least)} (×{max(samples) / least:.1f})"


def shorter(reason):
    """A failure as a footnote: one line, no private paths."""
    text = re.sub(r"/var/tmp/scorpio-bench\.\w+[\w./-]*", "…", " ".join(reason.split()))
    text = re.sub(r"^(status \d+): .*: (\S.*)$", r"\1: \2", text) if text.startswith("status") else text
    return text[:300].replace("|", "\\|")


def about(raw):
    host = raw["machine"]
    rows = [["tree", "files", "directories", "content", "made in"]]
    for size, facts in raw["sizes"].items():
        made = duration(facts["making"]) if facts["making"] else "before"
        rows.append([f"{int(size):,}", f"{facts['files']:,}", f"{facts['directories']:,}", size_of(facts["bytes"]), made])
    left = raw["options"]["without"]
    return (f"{host['version']} at {host['commit']}; Linux {host['kernel']}, {host['cores']} cores ({host['cpu']}),"
            f" {host['memory'] / 2 ** 30:.0f} GiB, {host['disk']}; {host['git']}; load average {raw['load_before'][0]:.1f} at the start,"
            f" {raw['load_after'][0]:.1f} at the end (it counts the run itself); {raw['seconds'] / 60:.0f} minutes."
            + (f" **Left out by name:** {', '.join(peers.LABELS[name] for name in left)}." if left else "")
            + "\n\n" + table(*rows))


def cold_cell(passes, step, notes, entries=None):
    samples = [each[step]["seconds"] for each in passes if step in each]
    if not samples:
        failures = [each["failed"] for each in passes if "failed" in each]
        return "–" + notes.mark(shorter(failures[0]) if failures else "Not measured on a tree of this size.")
    cell = spread(samples)
    if entries:
        found = [each[step]["result"] for each in passes if step in each]
        if any(abs(count - entries) > 1 for count in found):
            cell += notes.mark(f"It found {min(found):,} of {entries:,} entries.")
    return cell


def obtained(raw):
    """One table for each size: from nothing to a tree, walked and read."""
    text = ""
    for size, facts in raw["sizes"].items():
        notes = Notes()
        entries = facts["files"] + facts["directories"]
        rows = [["", "until `ls` answers", "first `find`", "then `find -ls`", "again", "read everything",
                 "`find -ls` after the kernel forgot all", "on disk", "requests to the origin"]]
        for name, passes in facts["cold"].items():
            label = peers.LABELS[name]
            expected = entries
            if name == "sparse":
                label += notes.mark("Only the files of one directory of the top are there; the rest cannot be walked or read.")
                expected = None
            if name in ("overlay", "fuse-overlayfs"):
                label += notes.mark("Over a checkout that is there; the time and the room that it took are not counted.")
            if name == "scorpiofs" and passes and "ready" in passes[0]:
                ready = passes[0]["ready"]
                label += notes.mark("As root, to whom its files belong; the steps after `ls` began when it said that it was ready, "
                                    + (f"after {duration(ready)}." if ready else "or after a minute."))
            if name == "worktree":
                label += notes.mark("Of a clone that is there.")
            asked = [step["asked"] for each in passes for step in each.values() if isinstance(step, dict) and "asked" in step]
            disk = [each["disk"] for each in passes if "disk" in each]
            rows.append([label, cold_cell(passes, "usable", notes), cold_cell(passes, "names", notes, expected),
                         cold_cell(passes, "walk", notes, expected),
                         cold_cell(passes, "again", notes, expected), cold_cell(passes, "read", notes),
                         cold_cell(passes, "dropped", notes, expected), size_of(min(disk)) if disk else "–",
                         f"{max(asked):,}" + notes.mark(ASKED[name]) if asked else "–"])
        text += f"### {int(size):,} files\n\n" + table(*rows) + notes.lines() + "\n" + further(facts) + "\n"
    return text


ASKED = {
    "scorpio": "Objects: trees and blobs, asked of a repository on the same disk.",
    "scorpio-mega": "HTTP requests, counted by the server.",
    "scorpiofs": "HTTP requests, counted by the server.",
}


def further(facts):
    text = ""
    if times := sorted(facts.get("mount_speeds", [])):
        text += (f"Twenty further users of Scorpio, one after the other, each a new workspace of the same commit until `ls` answers:"
                 f" median {duration(times[len(times) // 2])}, least {duration(times[0])}, most {duration(times[-1])}.\n")
    if readers := facts.get("readers"):
        text += (f"\nEight readers at once, nothing cached, Scorpio: everything found and read in {duration(readers['seconds'])}"
                 f" with {readers['requests']:,} requests to the daemon.\n")
    return text


def warmed(raw):
    """One table for each size: ratios to ext4, with spread, and the requests that reached the daemon."""
    text = ""
    for size, facts in raw["sizes"].items():
        if "warm" not in facts:
            continue
        notes, measured = Notes(), facts["warm"]
        names = [name for name in peers.WORKING if any(name in by for by in measured["seconds"].values())
                 or any(name in by for by in measured["refused"].values())]
        rows = [["", "ext4", *(peers.LABELS[name] for name in names[1:]), "Scorpio / overlayfs", "requests to scorpiod"]]
        for test, title in measured["titles"].items():
            seconds = measured["seconds"].get(test, {})
            rows.append([title, spread(seconds["native"]), *(ratio(seconds, name, measured["refused"].get(test, {}), notes)
                                                             for name in names[1:]),
                         f"{min(seconds['scorpio']) / min(seconds['overlay']):.2f}" if {"scorpio", "overlay"} <= set(seconds) else "–",
                         requests(measured["requests"].get(test))])
        text += f"### {int(size):,} files\n\n![ratios to ext4](plots/warm-{size}.svg)\n\n" + table(*rows) + notes.lines() + "\n"
        if measured.get("disturbed"):
            text += f"{measured['disturbed']} samples were taken again, or left out, because something else dropped the kernel's caches.\n\n"
    return text


def ratio(seconds, name, refused, notes):
    if not seconds.get(name):
        return "–" + notes.mark(shorter(refused.get(name, "Left out.")))
    least = min(seconds[name])
    return f"{least / min(seconds['native']):.2f} (×{max(seconds[name]) / least:.1f})"


def requests(counts):
    """The least and the most of all samples."""
    if not counts:
        return "–"
    return f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"


def memory(raw):
    rows = [["tree", "", "idle", "after the first walk", "after reading everything", "30 s later", "kernel slab after the walk"]]
    for size, facts in raw["sizes"].items():
        for name in ("scorpio", "scorpio-mega", "fuse-overlayfs", "scorpiofs", "overlay", "worktree"):
            passes = [each for each in facts["cold"].get(name, []) if "walk" in each]
            if not passes:
                continue
            told = passes[0]
            cell = lambda step: size_of(told[step]["rss"]) if "rss" in told.get(step, {}) else "–"
            rows.append([f"{int(size):,}", peers.LABELS[name], size_of(told["rss_idle"]) if "rss_idle" in told else "–", cell("walk"),
                         cell("read_again"), size_of(told["rss_later"]) if "rss_later" in told else "–",
                         size_of(told["walk"]["slab"])])
    return table(*rows)


def first(raw, key):
    return next((facts[key] for facts in raw["sizes"].values() if key in facts), None)


def together(raw):
    """Sharing, idle workspaces, kills."""
    shared, idle, kills = first(raw, "sharing"), first(raw, "idle"), first(raw, "restart")
    rows = [["", ""]]
    if shared:
        rows += [[f"{shared['users']} users read all of one commit at once, empty cache",
                  f"{duration(shared['seconds'])} for {shared['users']} × {size_of(shared['bytes'])}"],
                 [f"objects fetched; the commit has {shared['trees']:,} trees and {shared['blobs']:,} blobs", f"{shared['fetched']:,}"],
                 ["on disk for all of them: cache, state and uppers", size_of(shared["disk"])],
                 [f"{shared['users']} clones instead", size_of(shared["users"] * shared["clone_disk"])]]
    if idle:
        rows += [[f"{idle['count']:,} idle workspaces of one user, mounted one after the other", duration(idle["seconds"])],
                 ["each: RssAnon of the daemon", size_of(idle["rss_each"])],
                 ["each: the kernel's slab and per-cpu memory", size_of(idle["kernel_each"])]]
    if kills:
        longest = sorted(each["longest_ms"] for each in kills["killed"])
        rows += [[f"`kill -9` and a new process at once, {len(longest)} times under a reader with caches dropped in a loop: failed reads",
                  f"{sum(each['failures'] for each in kills['killed'])} of {sum(each['operations'] for each in kills['killed']):,}"],
                 ["longest read of each time: least, median, most",
                  f"{longest[0]:.0f}, {longest[len(longest) // 2]:.0f}, {longest[-1]:.0f} ms"],
                 ["longest read with nobody killed", f"{kills['undisturbed']['longest_ms']:.0f} ms"]]
    return table(*rows)


SECTIONS = {"machine": about, "obtain": obtained, "warm": warmed, "memory": memory, "together": together,
            "goals": lambda raw: table(*goals.rows(raw))}


def everything(raw):
    return "\n".join(f"## {name}\n\n{make(raw)}" for name, make in SECTIONS.items())


def write_docs(raw):
    with open(DOCUMENT, encoding="utf-8") as file:
        text = file.read()
    for name, make in SECTIONS.items():
        begin = BEGIN.format(name)
        if begin not in text:
            raise SystemExit(f"{DOCUMENT} has no {begin}")
        head, rest = text.split(begin, 1)
        text = head + begin + "\n" + make(raw).strip() + "\n" + END + rest.split(END, 1)[1]
    with open(DOCUMENT, "w", encoding="utf-8") as file:
        file.write(text)
    os.makedirs(PLOTS, exist_ok=True)
    for name, drawing in plots.all_of(raw).items():
        with open(f"{PLOTS}/{name}.svg", "w", encoding="utf-8") as file:
            file.write(drawing)
