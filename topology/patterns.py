"""Patterns: regular expressions of `matches`, bounded, and the part of RE2 that Python's `re` says the same about.

    pattern -> bytes and size within bounds -> RE2 takes it (library) -> atoms, each in a spelling that both read alike
                                                                     └── anything else: the library evaluates

`matches` asks whether a pattern is found somewhere in a text.  That is a question about a regular language, so greedy
or lazy, leftmost or longest do not matter: the two engines agree when each atom means the same characters.  In RE2 the
classes d, w and s are ASCII and `$` is the end of the text, so they are written out.

RE2 takes linear time.  Python goes back, so a pattern has at most one part of variable length (two behind `^`), a group
is not repeated, and a text beyond a short length is the library's.

Source: RE2, "Syntax"; Python, "re".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from milepost.topology.meanings import Unsure

PATTERN_MAX: Final = 256
"""Bytes of a pattern, at most."""
SIZE_MAX: Final = 1000
"""Size of an expression's patterns, at most: their characters, with what is repeated n times counted n times."""
LOOPED_SIZE_MAX: Final = 128
"""The same for the patterns inside its loops."""
ZONE: Final = re.compile(r"([+-]?)(0[0-9]|1[0-4]):([0-5][0-9])")
"""A zone as a fixed offset."""
_UNICODE_CLASS: Final = 300
_TEXT_MAX: Final = 256
_TEXT_MAX_STARRED: Final = 64
"""Characters of a text that Python's `re` is given: time is their number, or its square, times the pattern."""

_CLASSES: Final = {"d": "0-9", "w": "0-9A-Za-z_", "s": "\\t\\n\\f\\r "}
_PUNCTUATION: Final = frozenset("!\"#%&'(),-./:;<=>@[]^_`{|}~$*+?\\")
_ATOM: Final = re.compile(
    r"""
      (?P<plain>[^\\.^$*+?()\[\]{}|])
    | (?P<dot>\.)
    | \\(?P<known>[dws])
    | \\(?P<escaped>[^0-9A-Za-z\s])
    | \[(?P<class>\^?(?:[0-9A-Za-z_ @:;,<>=!%"'/#-]|\\[dws.\-])+)\]
    """,
    re.VERBOSE,
)
_TIMES: Final = re.compile(r"\{(0|[1-9][0-9]{0,3})(,)?(0|[1-9][0-9]{0,3})?\}|[*+?]")
_RANGE: Final = re.compile(r"[0-9A-Za-z]-[0-9A-Za-z]")


def size(pattern: str) -> int:
    """What a pattern grows to: characters, each as often as it and the groups around it are repeated."""
    total, groups, last = 0, [], 0
    at = 0
    while at < len(pattern):
        letter, begun = pattern[at], at
        times = _TIMES.match(pattern, at)
        if times is not None and times[0][0] == "{":
            total += last * (max(int(times[1]), int(times[3] or 0)) - 1)
            at = times.end()
            continue
        at += 2 if letter == "\\" else 1
        weight = 1
        if letter == "(":
            groups.append(total)
        elif letter == ")" and groups:
            last = total - groups.pop() + 1
        elif letter == "[":
            end = pattern.find("]", at + 1)
            at = len(pattern) if end < 0 else end + 1
            last, weight = 1, at - begun
        elif pattern[begun : begun + 2] in ("\\p", "\\P"):
            end = pattern.find("}", at) if pattern.startswith("{", at) else at
            at = len(pattern) if end < 0 else end + 1
            last = weight = _UNICODE_CLASS
        elif letter not in "*+?|^$":
            last = 1
        total += weight
    return total


def as_python(pattern: str) -> Callable[[str], bool] | None:
    """A pattern's test in Python, which raises Unsure for a text that is too long; None: it is the library's."""
    starts, ends = pattern.startswith("^"), pattern.endswith("$") and not pattern.endswith("\\$")
    body = pattern[1 if starts else 0 : -1 if ends else None]
    read = _sequences(body, bare=not (starts or ends))
    if read is None or read[1] > (2 if starts else 1):
        return None
    source, stars = read
    search = re.compile(("^" if starts else "") + source + (r"\Z" if ends else "")).search
    limit = _TEXT_MAX if stars + (not starts) <= 1 else _TEXT_MAX_STARRED

    def matches(text: str) -> bool:
        if len(text) > limit:
            raise Unsure
        return search(text) is not None

    return matches


def _sequences(body: str, *, bare: bool) -> tuple[str, int] | None:
    """Python's spelling and how many parts are of variable length; `bare`: | may stand outside of brackets."""
    out, stars, inside, at = [], 0, False, 0
    while at < len(body):
        letter = body[at]
        if letter == "(" and not inside and not body.startswith("(?", at):
            inside, at = True, at + 1
            out.append("(?:")
            continue
        if letter == ")" and inside:
            inside, at = False, at + 1
            out.append(")")
            if at < len(body) and body[at] in "*+?{":
                return None
            continue
        if letter == "|" and (inside or bare):
            at += 1
            out.append("|")
            continue
        found = _ATOM.match(body, at)
        atom = _atom(found) if found is not None else None
        if found is None or atom is None:
            return None
        out.append(atom)
        at = found.end()
        times = _TIMES.match(body, at)
        if times is not None:
            if times[0][0] == "{" and not _ordered(times):
                return None
            stars += times[0] in ("*", "+", "?") or times[2] is not None
            out.append(times[0])
            at = times.end()
        if at < len(body) and body[at] in "*+?{":
            return None
    return None if inside else ("".join(out), stars)


def _atom(found: re.Match[str]) -> str | None:
    if found["plain"] is not None:
        return re.escape(found["plain"])
    if found["dot"] is not None:
        return r"[^\n]"
    if found["known"] is not None:
        return f"[{_CLASSES[found['known']]}]"
    if found["escaped"] is not None:
        return re.escape(found["escaped"]) if found["escaped"] in _PUNCTUATION else None
    return _class(found["class"])


def _class(inner: str) -> str | None:
    negated, inner = inner.startswith("^"), inner.removeprefix("^")
    out, at = [], 0
    while at < len(inner):
        if inner[at] == "\\":
            letter = inner[at + 1]
            out.append(_CLASSES.get(letter) or "\\" + letter)
            at += 2
        elif _RANGE.match(inner, at):
            low, high = inner[at], inner[at + 2]
            if low > high:
                return None
            out.append(f"{low}-{high}")
            at += 3
        elif inner[at] == "-" and 0 < at < len(inner) - 1:
            return None  # which of the two reads it as a range is not worth knowing
        else:
            out.append(re.escape(inner[at]))
            at += 1
    return f"[{'^' * negated}{''.join(out)}]" if out else None


def _ordered(times: re.Match[str]) -> bool:
    """{n}, {n,} and {n,m} with n <= m; {,m} and {00} are text to RE2."""
    low, high = int(times[1]), int(times[3]) if times[3] else None
    return high is None or (times[2] is not None and low <= high)
