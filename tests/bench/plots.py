"""Small SVG bar charts that read on a light and on a dark page."""

import math

import peers

WIDTH, LEFT, BAR, GAP = 860, 330, 11, 9
COLOURS = {"native": "#8a8f98", "overlay": "#4c8eda", "fuse-overlayfs": "#c78b1f", "scorpio": "#d1495b", "scorpiofs": "#7a6fc4",
           "clone": "#8a8f98", "worktree": "#a9aeb5", "sparse": "#3f9c6d", "scorpio-mega": "#e58a95"}
TEXT = "#7d8590"


def escape(text):
    return text.replace("`", "").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def label(x, y, text, anchor="start", colour=TEXT):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="11"'
            f' font-family="system-ui, sans-serif">{escape(text)}</text>')


def bars(title, groups, show, low, high):
    """`groups` are (name, [(peer, value)]); lengths are logarithms between `low` and `high`."""
    span = WIDTH - LEFT - 70
    reach = lambda value: span * min(1, max(0.004, math.log(max(value, low) / low) / math.log(high / low)))
    named = [peer for peer in peers.LABELS if any(peer == each for _, values in groups for each, _ in values)]
    parts, x, y = [label(0, 14, title)], 0, 30
    for peer in named:
        if x + 40 + 6.2 * len(peers.LABELS[peer]) > WIDTH:
            x, y = 0, y + 16
        parts.append(f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{COLOURS[peer]}"/>' + label(x + 14, y, peers.LABELS[peer]))
        x += 30 + 6.2 * len(peers.LABELS[peer])
    top = y = y + 14
    for name, values in groups:
        parts.append(label(LEFT - 8, y + BAR * len(values) / 2 + 4, name, "end"))
        for peer, value in values:
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{reach(value):.1f}" height="{BAR - 2}" fill="{COLOURS[peer]}"/>')
            parts.append(label(LEFT + reach(value) + 4, y + BAR - 3, show(value)))
            y += BAR
        y += GAP
    for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1):
        at = LEFT + span * math.log(10 ** power / low) / math.log(high / low)
        parts.insert(0, f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top - 4}" y2="{y}" stroke="{TEXT}" stroke-opacity="0.35"/>')
        parts.append(label(at, y + 10, show(10 ** power), "middle"))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 18}" width="{WIDTH}" height="{y + 18}" role="img"'
            f' aria-label="{escape(title)}">' + "".join(parts) + "</svg>\n")


def scale(values):
    """Powers of ten around all values."""
    return 10 ** math.floor(math.log10(min(values)) - 0.05), 10 ** math.ceil(math.log10(max(values)) + 0.05)


def seconds(value):
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"


def cold(raw, step, title):
    """Seconds of one step by size of tree and peer."""
    groups = []
    for size, facts in raw["sizes"].items():
        values = [(name, min(each[step]["seconds"] for each in passes if step in each))
                  for name, passes in facts["cold"].items() if any(step in each for each in passes) and not partial(name, step)]
        if values:
            groups.append((f"{int(size):,} files", values))
    found = [value for _, values in groups for _, value in values]
    return bars(title, groups, seconds, *scale(found)) if found else None


def partial(name, step):
    """A sparse checkout is obtained, but no walk of it is one of the tree."""
    return name == "sparse" and step != "usable"


def warm(measured, size):
    groups = []
    for test, title in measured["titles"].items():
        by = measured["seconds"].get(test, {})
        values = [(name, min(by[name]) / min(by["native"])) for name in peers.WORKING if name != "native" and by.get(name)]
        if values:
            groups.append((title, values))
    found = [value for _, values in groups for _, value in values]
    low, high = scale([*found, 1.0])
    return bars(f"time against ext4, warm, {int(size):,} files; less is better", groups, lambda value: f"{value:.3g}", max(low, 0.1), high)


def all_of(raw):
    drawings = {"until-ls": cold(raw, "usable", "from nothing until ls answers; less is better"),
                "first-find": cold(raw, "names", "first find over the whole tree; less is better"),
                "first-find-ls": cold(raw, "walk", "then find -ls, which asks for the size of every file; less is better")}
    for size, facts in raw["sizes"].items():
        if "warm" in facts:
            drawings[f"warm-{size}"] = warm(facts["warm"], size)
    return {name: drawing for name, drawing in drawings.items() if drawing}
