"""JSON, for a Python that came without its library: Debian's python3-minimal."""

import re

TOKEN = re.compile(
    r'\s*(?:([{}\[\],:])|"((?:[^"\\]|\\.)*)"|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(true|false|null))', re.S
)
ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.S)
SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
WORDS = {"true": True, "false": False, "null": None}


def dumps(value):
    if isinstance(value, str):
        return '"' + "".join(map(_escaped, value)) + '"'
    if isinstance(value, dict):
        return "{" + ",".join(f"{dumps(key)}:{dumps(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(dumps, value)) + "]"
    for word, meaning in WORDS.items():
        if value is meaning:
            return word
    return str(value)


def loads(text):
    value, end = _value(text, 0)
    if text[end:].strip():
        raise ValueError(f"more than one JSON value: {text[end:end + 80]!r}")
    return value


def _escaped(char):
    return char if char >= " " and char not in '"\\' else f"\\u{ord(char):04x}"


def _unescaped(text):
    return ESCAPE.sub(lambda found: _meant(found.group(1)), text)


def _meant(code):
    return chr(int(code[1:], 16)) if len(code) == 5 else SHORT.get(code, code)


def _token(text, at):
    found = TOKEN.match(text, at)
    if not found:
        raise ValueError(f"no JSON: {text[at:at + 80]!r}")
    return found


def _value(text, at):
    found = _token(text, at)
    mark, string, number, word = found.groups()
    if string is not None:
        return _unescaped(string), found.end()
    if number is not None:
        return (float(number) if set(number) & set(".eE") else int(number)), found.end()
    if word is not None:
        return WORDS[word], found.end()
    if mark == "[":
        return _items(text, found.end(), "]", _value)
    if mark == "{":
        members, at = _items(text, found.end(), "}", _member)
        return dict(members), at
    raise ValueError(f"no JSON value: {text[at:at + 80]!r}")


def _member(text, at):
    key, at = _value(text, at)
    colon = _token(text, at)
    if colon.group(1) != ":":
        raise ValueError(f"no colon: {text[at:at + 80]!r}")
    value, at = _value(text, colon.end())
    return (key, value), at


def _items(text, at, close, read):
    found = _token(text, at)
    if found.group(1) == close:
        return [], found.end()
    items = []
    while True:
        item, at = read(text, at)
        items.append(item)
        found = _token(text, at)
        at = found.end()
        if found.group(1) == close:
            return items, at
        if found.group(1) != ",":
            raise ValueError(f"no comma: {text[at:at + 80]!r}")
