"""Manual as Markdown: one page that reads well as text, on a code host, and line by line in a difference.

Anchors are written out (`<a id>`), because hosts make their own of headings, each another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from milepost.topology.manual import Code, Entry, Link, Manual, Section, Table, Text

_SPECIAL = re.compile(r"([\\`*\[\]<>|#&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
"""What Markdown would take for a sign; `_` within a word is none."""


def markdown(manual: Manual, picture: str = "") -> str:
    """The page.  picture: Mermaid"""
    return "\n".join(_page(manual, picture)).rstrip() + "\n"


def _page(manual: Manual, picture: str) -> Iterator[str]:
    yield f"# {_plain(manual.title)}"
    yield ""
    yield _line(manual.about)
    yield ""
    if manual.first:
        yield "## To look at first"
        yield ""
        yield from (f"* {_line(one)}" for one in manual.first)
        yield ""
    yield "## Contents"
    yield ""
    for section in manual.sections:
        names = ", ".join(f"[{_plain(one.title.partition(' ')[2])}](#{one.anchor})" for one in section.entries)
        yield f"* [{section.title}](#{section.anchor}){': ' if names else ''}{names}"
    yield ""
    if picture:
        yield from ("```mermaid", picture.rstrip(), "```", "")
    for section in manual.sections:
        yield from _section(section)


def _section(section: Section) -> Iterator[str]:
    yield f'<a id="{section.anchor}"></a>'
    yield ""
    yield f"## {section.title}"
    yield ""
    yield _plain(section.about)
    yield ""
    if section.table is not None:
        yield from _table(section.table)
    for entry in section.entries:
        yield from _entry(entry)


def _entry(entry: Entry) -> Iterator[str]:
    yield f'<a id="{entry.anchor}"></a>'
    yield ""
    yield f"### {_plain(entry.title)}"
    yield ""
    yield _line(entry.meaning)
    yield ""
    for label, said in entry.facts:
        yield f"* **{label}:** {_line(said)}"
    if entry.facts:
        yield ""
    if entry.table is not None:
        yield from _table(entry.table)
    for example in entry.examples:
        yield from (_line(example.about), "", "```json", example.json, "```", "")


def _table(table: Table) -> Iterator[str]:
    yield f"| {' | '.join(table.head)} |"
    yield f"|{'---|' * len(table.head)}"
    for row in table.rows:
        first, *rest = (_line(one) for one in row.cells)
        anchor = f'<a id="{row.anchor}"></a>' if row.anchor else ""
        yield f"| {' | '.join([anchor + first, *rest])} |"
    yield ""


def _line(text: Text) -> str:
    return "".join(_piece(one) for one in text).strip()


def _piece(piece: str | Link | Code) -> str:
    match piece:
        case Link(text=text, to=to):
            return f"[{_plain(text)}](#{to})"
        case Code(text=text):
            return _code(text)
    return _plain(piece)


def _code(text: str) -> str:
    """Code within a line; a fence longer than any run of back quotes in it."""
    text = " ".join(text.split()).replace("|", "\\|")
    fence = "`" * (1 + max((len(one) for one in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _plain(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text.replace("\n", " "))
