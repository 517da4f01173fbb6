"""Proposals: what an event says of two keys being one thing, told once for each pair a partition.

A pair that was told is told again only if it is known earlier now; an event that is taken again tells what it told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import attrgetter

from milepost.schemas.records import Event, Identified
from milepost.topology import outputs
from milepost.topology.definitions import Kind
from milepost.topology.state import Output, Partition


def told(
    at: Partition, event: Event, who: Identified, ranks: Mapping[Kind, int], k_ms: int, offset: int
) -> Iterator[Output]:
    """The links that the event at `offset`, known since `k_ms`, proposes; the store notes them."""
    edges = at.stores["edges"]
    for one, other in who.edges:
        first, second = sorted((one, other), key=attrgetter("leaf"))
        edge = first.leaf + second.leaf
        row = edges.get(edge)
        if row is not None:
            known_ms, by = int.from_bytes(row[8:16], "big", signed=True), int.from_bytes(row[16:24], "big")
            if known_ms < k_ms or (known_ms == k_ms and by != offset):
                continue
        here = offset.to_bytes(8, "big")
        edges.put(edge, here + k_ms.to_bytes(8, "big", signed=True) + here)
        yield outputs.link(event.org, first, second, ranks, k_ms, at.number, offset)
