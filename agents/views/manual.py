"""Manual over HTTP: the generated documentation at `/docs`, and the graph that it is made from at `/v1/lineage`.

    definitions in force ─▶ Lineage ─▶ JSON, paged
                         ─▶ Manual, with what is so now (freshness, since when, events of the log) ─▶ HTML

Both show the definitions of now: what is documented is what runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from aiohttp import web

from milepost.agents.views.asking import Asking, Doors, Parameter, answer, found, paged
from milepost.agents.views.openapi import Route
from milepost.agents.views.parameters import ORG, PAGING
from milepost.ops.access import Role
from milepost.schemas.records import Envelope
from milepost.topology import completeness, decode, manual_drawing, manual_html, samples
from milepost.topology.asked import organisation
from milepost.topology.bases import written
from milepost.topology.definitions import Catalog
from milepost.topology.examples import Examples
from milepost.topology.lineage import WHATS, Edge, Lineage, Node, since, versions_of
from milepost.topology.manual import Live, Seen
from milepost.topology.manual_entries import manual
from milepost.topology.parts import Told
from milepost.topology.refusals import BadParameter, NotFound, closest
from milepost.topology.steps import Steps, gather

EXAMPLES_MAX: Final = 12
"""Events of the log that a page shows; of further types the example is made from the contract."""
EXAMPLES_S_MAX: Final = 2.0
"""So long the page waits for them: each is read from the broker."""
KEPT_S: Final = 60.0
"""They are read anew after so long."""
ORGS_MAX: Final = 16
"""Organisations whose examples are kept."""


class UnknownNode(NotFound):
    title = "unknown node"


class Manuals:
    """The handlers, with the examples that were read last: organisation -> (read at, bundle, examples)."""

    def __init__(self) -> None:
        self._examples: dict[str, tuple[float, bytes, dict[str, Seen]]] = {}

    async def lineage(self, doors: Doors, asking: Asking) -> web.Response:
        """The graph, or what lies above or below one node of it."""
        offset, limit = asking.page()
        org, catalog, history = _in_force(doors, asking)
        graph = Lineage(catalog)
        nodes, edges, broken = _part(graph, asking)
        page, further = paged(nodes, offset, limit)
        held, came = versions_of(catalog), since(history)
        shown = set(page)
        return answer(
            {
                "org": org,
                "bundle": catalog.bundle_id.hex(),
                "nodes": [_row(graph, one, held, came, broken) for one in page],
                "edges": [
                    {"from": one.start.id, "to": one.end.id, "how": one.how, "needed": one.needed}
                    for one in edges
                    if one.end in shown
                ],
                "next": further,
            }
        )

    async def docs(self, doors: Doors, asking: Asking) -> web.Response:
        """The page."""
        org, catalog, history = _in_force(doors, asking)
        heard = await found(doors, asking, lambda: _heard(doors, org))
        live = Live(
            org=org,
            bundle=catalog.bundle_id.hex(),
            now_ms=doors.services.now_ms(),
            heard=heard,
            defined={name: _defined_ms(history, name) for name in catalog.sources},
            since=since(history),
            examples=await self._seen(doors, asking, org, catalog),
        )
        named = asking.text("org")
        query = f"&org={quote(named, safe='')}" if named else ""
        page = await asyncio.to_thread(_page, catalog, live, query)
        return web.Response(text=page, content_type="text/html")

    async def _seen(self, doors: Doors, asking: Asking, org: str, catalog: Catalog) -> Mapping[str, Seen]:
        """Event type -> an event of the log: what can be had in time, kept for a minute."""
        kept = self._examples.get(org)
        if kept is not None and kept[1] == catalog.bundle_id and time.monotonic() - kept[0] < KEPT_S:
            return kept[2]
        places = await found(doors, asking, lambda: _places(doors, org))
        wanted = [one for one in places.items() if _known(catalog, *one[0])][:EXAMPLES_MAX]
        examples: dict[str, Seen] = {}

        async def read() -> None:
            for (source, event_type), (partition, offset) in wanted:
                event = await _event(doors, catalog, source, event_type, partition, offset)
                if event is not None:
                    examples.setdefault(event_type, Seen(position=f"raw-events/{partition}@{offset}", event=event))

        with contextlib.suppress(TimeoutError):  # what was read by then is shown
            await asyncio.wait_for(read(), EXAMPLES_S_MAX)
        while len(self._examples) >= ORGS_MAX:
            self._examples.pop(next(iter(self._examples)))
        self._examples[org] = time.monotonic(), catalog.bundle_id, examples
        return examples


def routes() -> tuple[Route, ...]:
    """The calls."""
    manuals = Manuals()
    node = Parameter(name="node", about="only what hangs together with this node, as metric-departures")
    direction = Parameter(
        name="direction",
        about="of node: up (what it is made of), down (what is made of it), both (default), or breaks (if it goes)",
        schema={"type": "string", "enum": ["up", "down", "both", "breaks"]},
    )
    fields = Parameter(
        name="fields", about="true: fields of contracts, too", schema={"type": "string", "enum": ["true", "false"]}
    )
    return (
        Route(
            path="/v1/lineage",
            role=Role.READ,
            about="What of the definitions is made of what: sources to plans, with owners and versions",
            answers=manuals.lineage,
            parameters=(ORG, node, direction, fields, *PAGING),
        ),
        Route(
            path="/docs",
            role=Role.READ,
            about="The definitions in force as a page to read",
            answers=manuals.docs,
            parameters=(ORG,),
            gives="text/html",
        ),
    )


def _page(catalog: Catalog, live: Live, query: str) -> str:
    """Written in a thread: of a large bundle it takes a while, and the loop folds."""
    return manual_html.html(manual(catalog, live), manual_drawing.svg(Lineage(catalog)), query)


def _in_force(doors: Doors, asking: Asking) -> tuple[str, Catalog, list[tuple[int, Catalog]]]:
    """The organisation asked for, its definitions of now, and all that were in force, the newest last."""
    reader = doors.services.reader
    org = organisation(reader, asking.text("org"))
    history = [(one.k_ms, one.catalog) for one in reader.decisions.history[org]]
    return org, history[-1][1], history


def _part(graph: Lineage, asking: Asking) -> tuple[list[Node], list[Edge], set[Node]]:
    """The nodes and edges asked for, and of them those that break with `node`."""
    name, direction = asking.text("node"), asking.text("direction") or "both"
    if direction not in ("up", "down", "both", "breaks"):
        raise BadParameter(f"direction is up, down, both or breaks, not {direction[:32]!r}", fix="direction=down")
    if name is None:
        if asking.text("direction") is not None:
            raise BadParameter("direction is asked of a node", fix="node=metric-…")
        with_fields = asking.text("fields") == "true"
        nodes = [one for one in graph.nodes.values() if with_fields or one.what != "field"]
        return nodes, _between(graph, set(nodes)), set()
    if name not in graph.nodes:
        kinds = ", ".join(WHATS)
        raise UnknownNode(
            f"nothing is named {name[:128]!r}; a node is KIND-NAME, KIND one of {kinds}",
            guess=closest(name, graph.nodes),
            fix="GET /v1/lineage lists them",
        )
    node = graph.nodes[name]
    broken = graph.breaks(node)
    wanted = {node}
    if direction == "breaks":
        wanted |= set(broken)
    if direction in ("up", "both"):
        wanted |= set(graph.made_of(node))
    if direction in ("down", "both"):
        wanted |= set(graph.leads_to(node))
    nodes = [one for one in graph.nodes.values() if one in wanted]
    return nodes, _between(graph, wanted), set(broken)


def _between(graph: Lineage, nodes: set[Node]) -> list[Edge]:
    return [one for one in graph.edges if one.start in nodes and one.end in nodes]


def _row(
    graph: Lineage, node: Node, held: Mapping[str, str], came: Mapping[str, int], broken: set[Node]
) -> dict[str, Any]:
    """A node as it is told.  owners: owner -> the sources of his that it is made of"""
    owners = {owner: [one.name for one in sources] for owner, sources in graph.owners_of(node).items()}
    row: dict[str, Any] = {"id": node.id, "kind": node.what, "name": node.name, "owners": owners}
    if node.id in held:
        row["version"] = held[node.id]
        row["since"] = written(came[node.id])
    if node in broken:
        row["breaks"] = True
    row["docs"] = f"/docs#{quote(node.id, safe='/')}"
    return row


def _heard(doors: Doors, org: str) -> Steps[dict[str, tuple[int, int]]]:
    """Source -> (largest event time, known time of its newest event), as the ticks have told."""
    reader = doors.services.reader
    progresses = yield from gather(reader, [Told(partition=0)])
    (told,) = completeness.told(progresses)
    return {source: sent for (whose, source), sent in told.items() if whose == org}


def _places(doors: Doors, org: str) -> Steps[dict[tuple[str, str], tuple[int, int]]]:
    """(source, type) -> where an event of it lies."""
    reader = doors.services.reader
    parts = [Examples(partition=number, org=org) for number in range(reader.partitions)]
    looked: Sequence[Mapping[tuple[str, str], tuple[int, int]]] = yield from gather(reader, parts)
    return {names: place for one in looked for names, place in one.items()}


def _known(catalog: Catalog, source: str, event_type: str) -> bool:
    return source in catalog.sources and event_type in catalog.sources[source].types


async def _event(
    doors: Doors, catalog: Catalog, source: str, event_type: str, partition: int, offset: int
) -> dict[str, Any] | None:
    """The event at a position of the raw log as it may be shown; None where another lies there, or none any more."""
    record = await doors.services.raw(partition, offset)
    if record is None or record.value is None:
        return None
    event = decode.envelope(record.value)
    if not isinstance(event, Envelope) or (event.source, event.type) != (source, event_type):
        return None
    known = catalog.sources[source]
    return samples.masked(event, known.types[event_type], known)


def _defined_ms(history: Sequence[tuple[int, Catalog]], source: str) -> int:
    """When the first definitions that name a source became known."""
    return next(k_ms for k_ms, catalog in history if source in catalog.sources)
