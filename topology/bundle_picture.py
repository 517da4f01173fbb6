"""Bundle picture: sources to plans as a Mermaid flow chart.

Fields and contracts are left out: they are in the manual's tables.  A bundle of more nodes than can be read is drawn by
its kinds alone, with how many there are of each.
"""

from __future__ import annotations

from typing import Final

from milepost.topology.definitions import Catalog
from milepost.topology.lineage import Lineage, What

DRAWN: Final[tuple[What, ...]] = ("source", "type", "rule", "metric", "record", "milestone", "plan", "reaction")
NODES_MAX: Final = 150
_BOX: Final = '["{}"]'
_SHAPES: Final = {"source": '(["{}"])', "type": '>"{}"]', "plan": '{{{{"{}"}}}}', "record": '[("{}")]'}


def mermaid(catalog: Catalog) -> str:
    """The flow chart."""
    lineage = Lineage(catalog)
    nodes = [one for one in lineage.nodes.values() if one.what in DRAWN]
    if len(nodes) > NODES_MAX:
        return _kinds(lineage)
    names = {node: f"n{i}" for i, node in enumerate(nodes)}
    out = ["flowchart LR"]
    out += [f"  {names[node]}{_SHAPES.get(node.what, _BOX).format(node.name)}" for node in nodes]
    arrows = dict.fromkeys((edge.start, edge.end) for edge in lineage.edges)
    out += [f"  {names[start]} --> {names[end]}" for start, end in arrows if start in names and end in names]
    return "\n".join(out) + "\n"


def _kinds(lineage: Lineage) -> str:
    counts: dict[str, int] = {}
    for node in lineage.nodes.values():
        if node.what in DRAWN:
            counts[node.what] = counts.get(node.what, 0) + 1
    out = ["flowchart LR"]
    out += [f'  {what}["{count} {what}{"s" if count > 1 else ""}"]' for what, count in counts.items()]
    arrows = dict.fromkeys((edge.start.what, edge.end.what) for edge in lineage.edges)
    out += [f"  {start} --> {end}" for start, end in arrows if start in counts and end in counts and start != end]
    return "\n".join(out) + "\n"
