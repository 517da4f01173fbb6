"""Manual: the documentation of a bundle, generated from what runs; the pages that people read are written from it.

    catalog ─▶ Lineage ─┐
                        ├─▶ Manual (sections, entries, facts)  ─▶ Markdown (manual_markdown.py), HTML (/docs)
    what is so now ─────┘   Live: who was heard when, since when versions hold, real events; only on the worker's page

Without `Live` the manual follows from the bundle alone, so that a committed copy changes when the definitions do and at
no other time, and a comparison with it is a test.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from milepost.topology.lineage import Lineage, Node

NAMED_MAX: Final = 50
"""Names that a list shows; how many more there are is said."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link within the manual.  to: an anchor"""

    text: str
    to: str


@dataclass(frozen=True, slots=True)
class Code:
    """Text as it is written in a definition."""

    text: str


Text = tuple["str | Link | Code", ...]
"""What is read as one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of a table.  anchor: what leads to it, "" for none"""

    cells: tuple[Text, ...]
    anchor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    head: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A piece of JSON.  about: what it is and where it comes from"""

    about: Text
    json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is said of one part of the bundle under a heading of its own.

    page: where the worker's page shows it, as `/?metric=departures`; "" where it does not
    """

    anchor: str
    title: str
    meaning: Text
    facts: tuple[tuple[str, Text], ...] = ()
    table: Table | None = None
    examples: tuple[Example, ...] = ()
    page: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    anchor: str
    title: str
    about: str
    entries: tuple[Entry, ...] = ()
    table: Table | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manual:
    """first: what to look at first, a line each"""

    title: str
    about: Text
    first: tuple[Text, ...]
    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """An event of the log.  position: of the raw log;  event: with personal data masked"""

    position: str
    event: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What is so now, beside the definitions.  Times are ms.

    heard:    source -> (largest event time, known time of the newest event)
    defined:  source -> when definitions first named it
    since:    node id -> when its version came into force
    examples: event type -> an event of the log
    """

    org: str
    bundle: str
    now_ms: int
    heard: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    defined: Mapping[str, int] = field(default_factory=dict)
    since: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, Seen] = field(default_factory=dict)


def text(*parts: str | Link | Code | Text) -> Text:
    """One line of pieces and of other lines."""
    out: list[str | Link | Code] = []
    for one in parts:
        out += one if isinstance(one, tuple) else (one,)
    return tuple(one for one in out if one != "")


def joined(parts: Iterable[Text | str | Link | Code], between: str = ", ", last: str = "") -> Text:
    """Pieces with commas between them; `last` stands before the last one instead."""
    all_ = list(parts)
    out: list[Text | str | Link | Code] = []
    for i, one in enumerate(all_):
        if i:
            out.append(last if last and i == len(all_) - 1 else between)
        out.append(one)
    return text(*out)


def link(node: Node) -> Link:
    return Link(node.name, node.id)


def named(nodes: Sequence[Node], nothing: str = "nothing") -> Text:
    """Nodes by their kinds, with links: `2 rules: departed, cancelled; 1 metric: departures`."""
    groups: dict[str, list[Node]] = {}
    for one in nodes[:NAMED_MAX]:
        groups.setdefault(one.what, []).append(one)
    lines: list[Text | str] = []
    for what, some in groups.items():
        many = sum(one.what == what for one in nodes)
        lines.append(text(f"{many} {what}{'s' if many > 1 else ''}: ", joined(map(link, some))))
    if len(nodes) > NAMED_MAX:
        lines.append(f"{len(nodes) - NAMED_MAX} more")
    return joined(lines, "; ") if lines else (nothing,)


def owner_line(lineage: Lineage, node: Node) -> Text:
    """Who answers for what a node is made of, each with the way from his sources to it."""
    lines = []
    for owner, sources in lineage.owners_of(node).items():
        ways = [lineage.path(Node("source", one.name), node) for one in sources[:NAMED_MAX]]
        said = joined((joined(map(link, one), " → ") for one in ways if len(one) > 1), "; ")
        lines.append(text(owner or "nobody", " (", said, ")") if said else (owner or "nobody",))
    return joined(lines, "; ") if lines else ("nobody",)
