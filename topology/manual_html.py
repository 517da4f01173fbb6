"""Manual as HTML: headings, links and tables that need no script, under the content security policy of all answers.

Its anchors are those of the lineage's nodes, so `/docs#metric-departures` is an address that can be sent to somebody.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final

from milepost.topology.manual import Code, Entry, Link, Manual, Section, Table, Text

HEAD: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} · Milepost</title>
<link rel="icon" href="/page/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/page/manual.css">
</head>
<body>
<a class="skip" href="#content">Skip to the contents</a>
<header><a href="/">Milepost</a> <span>{title}</span></header>
"""
"""What stands before the contents."""


def html(manual: Manual, drawing: str = "", query: str = "") -> str:
    """The page.  drawing: SVG;  query: what links to the worker's page carry besides, as `&org=acme`"""
    return "".join(_page(manual, drawing, query))


def _page(manual: Manual, drawing: str, query: str) -> Iterator[str]:
    yield HEAD.format(title=escape(manual.title))
    yield '<nav aria-label="Contents">\n<ul>\n'
    for section in manual.sections:
        yield f'<li><a href="#{section.anchor}">{escape(section.title)}</a>'
        if section.entries:
            links = (f'<li><a href="#{_id(one.anchor)}">{escape(_name(one))}</a></li>' for one in section.entries)
            yield f"<ul>{''.join(links)}</ul>"
        yield "</li>\n"
    yield "</ul>\n</nav>\n"
    yield f'<main id="content" tabindex="-1">\n<h1>{escape(manual.title)}</h1>\n<p>{_line(manual.about)}</p>\n'
    if manual.first:
        yield '<section class="first" aria-labelledby="first">\n<h2 id="first">To look at first</h2>\n<ul>\n'
        yield from (f"<li>{_line(one)}</li>\n" for one in manual.first)
        yield "</ul>\n</section>\n"
    if drawing:
        yield f'<div class="scroll">{drawing}</div>\n'
    for section in manual.sections:
        yield from _section(section, query)
    yield "</main>\n</body>\n</html>\n"


def _section(section: Section, query: str) -> Iterator[str]:
    anchor = section.anchor
    yield f'<section aria-labelledby="{anchor}">\n<h2 id="{anchor}">{escape(section.title)}</h2>\n'
    yield f"<p>{escape(section.about)}</p>\n"
    if section.table is not None:
        yield from _table(section.table, section.title)
    for entry in section.entries:
        yield from _entry(entry, query)
    yield "</section>\n"


def _entry(entry: Entry, query: str) -> Iterator[str]:
    anchor = _id(entry.anchor)
    yield f'<article aria-labelledby="{anchor}">\n<h3 id="{anchor}">'
    yield f'<a href="#{anchor}">{escape(entry.title)}</a></h3>\n'
    yield f"<p>{_line(entry.meaning)}"
    if entry.page:
        yield f' <a href="{escape(entry.page + query)}">See it on the page</a>'
    yield "</p>\n"
    if entry.facts:
        rows = (f"<div><dt>{escape(label)}</dt><dd>{_line(said)}</dd></div>\n" for label, said in entry.facts)
        yield f"<dl>\n{''.join(rows)}</dl>\n"
    if entry.table is not None:
        yield from _table(entry.table, entry.title)
    for example in entry.examples:
        yield f"<details>\n<summary>Example</summary>\n<p>{_line(example.about)}</p>\n"
        yield f"<pre>{escape(example.json)}</pre>\n</details>\n"
    yield "</article>\n"


def _table(table: Table, caption: str) -> Iterator[str]:
    head = "".join(f'<th scope="col">{escape(one)}</th>' for one in table.head)
    yield f'<div class="scroll"><table aria-label="{escape(caption)}">\n<thead><tr>{head}</tr></thead>\n<tbody>\n'
    for row in table.rows:
        anchor = f' id="{_id(row.anchor)}"' if row.anchor else ""
        first, *rest = (_line(one) for one in row.cells)
        yield f'<tr{anchor}><th scope="row">{first}</th>{"".join(f"<td>{one}</td>" for one in rest)}</tr>\n'
    yield "</tbody>\n</table></div>\n"


def _line(text: Text) -> str:
    return "".join(map(_piece, text)).strip()


def _piece(piece: str | Link | Code) -> str:
    match piece:
        case Link(text=text, to=to):
            return f'<a href="#{_id(to)}">{escape(text)}</a>'
        case Code(text=text):
            return f"<code>{escape(text)}</code>"
    return escape(piece)


def _id(anchor: str) -> str:
    """An anchor as it stands in an attribute: names of definitions are letters, digits and ._-/ only."""
    return escape(anchor)


def _name(entry: Entry) -> str:
    return entry.title.partition(" ")[2]
