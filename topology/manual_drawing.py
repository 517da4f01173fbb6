"""Manual, its drawing: sources to plans from left to right, as an SVG whose boxes are links to the headings.

A node stands in the column behind the last one that it is made of, in the middle of what it is made of.  Colours are in
the style sheet; nothing needs a script.  A bundle of more nodes than can be read is not drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Final

from milepost.topology.bundle_picture import DRAWN, NODES_MAX
from milepost.topology.lineage import Lineage, Node

WIDTH: Final = 118
HEIGHT: Final = 26
ACROSS: Final = 18
"""Between columns, where the lines run."""
DOWN: Final = 8
LETTERS_MAX: Final = 19
"""Letters of a name that a box shows; the whole name is its title."""


def svg(lineage: Lineage) -> str:
    """The drawing; "" for a bundle that is too large."""
    nodes = [one for one in lineage.nodes.values() if one.what in DRAWN]
    if not nodes or len(nodes) > NODES_MAX:
        return ""
    below = {
        node: list(dict.fromkeys(edge.start for edge in lineage.below.get(node, ()) if edge.start.what in DRAWN))
        for node in nodes
    }
    columns = _columns(nodes, below)
    places = {
        node: (column * (WIDTH + ACROSS), row * (HEIGHT + DOWN))
        for column, some in enumerate(columns)
        for row, node in enumerate(some)
    }
    width = len(columns) * (WIDTH + ACROSS) - ACROSS
    height = max(len(one) for one in columns) * (HEIGHT + DOWN) - DOWN
    lines = (_line(places[start], places[node]) for node in nodes for start in below[node])
    return (
        f'<svg class="drawing" role="group" aria-label="How the definitions hang together" '
        f'viewBox="-1 -1 {width + 2} {height + 2}" width="{width + 2}" height="{height + 2}">\n'
        f"{''.join(lines)}{''.join(_box(node, *places[node]) for node in nodes)}</svg>\n"
    )


def _columns(nodes: list[Node], below: Mapping[Node, list[Node]]) -> list[list[Node]]:
    """The nodes by column, in each by where what they are made of stands."""
    depth: dict[Node, int] = {}

    def deep(node: Node) -> int:
        if node not in depth:
            depth[node] = 1 + max(map(deep, below[node]), default=-1)
        return depth[node]

    columns: list[list[Node]] = []
    for node in nodes:
        while len(columns) <= deep(node):
            columns.append([])
        columns[deep(node)].append(node)
    rows: dict[Node, float] = {}
    for some in columns:
        middle = {one: sum(rows[each] for each in below[one]) / max(1, len(below[one])) for one in some}
        some.sort(key=lambda one: middle[one])
        rows |= {one: float(row) for row, one in enumerate(some)}
    return columns


def _box(node: Node, x: int, y: int) -> str:
    name = node.name if len(node.name) <= LETTERS_MAX else f"{node.name[: LETTERS_MAX - 1]}…"
    return (
        f'<a href="#{escape(node.id)}" class="{node.what}"><title>{escape(str(node))}</title>'
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
        f'<text x="{x + 6}" y="{y + 17}">{escape(name)}</text></a>\n'
    )


def _line(start: tuple[int, int], end: tuple[int, int]) -> str:
    x, y = start[0] + WIDTH, start[1] + HEIGHT // 2
    to_x, to_y = end[0], end[1] + HEIGHT // 2
    half = ACROSS // 2
    return f'<path d="M{x} {y}C{x + half} {y} {to_x - half} {to_y} {to_x} {to_y}"/>\n'
