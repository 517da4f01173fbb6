"""Latest: the newest events of some leaves and their signals, read where they lie.

Facts of a leaf lie by quarter hours.  The last quarter hour that has any is found by halving what is left of the time,
so a page costs what it shows, not what the company has done: some thirty seeks for each quarter hour with events.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from milepost.schemas.serde import wire
from milepost.schemas.signal_message import SignalMessage
from milepost.topology import scans
from milepost.topology.bases import FOREVER
from milepost.topology.panes import PANE_MS
from milepost.topology.reading import Reader
from milepost.topology.refold import fact_counts, facts_of
from milepost.topology.state import UPTO, Store
from milepost.topology.steps import Steps

FACTS_MAX: Final = 20_000
"""Facts that one part reads at most."""

_ORDER: Final = struct.Struct(">Q16sii")
ORDER_BYTES: Final = _ORDER.size


class Latest(NamedTuple):
    """An event with its signals.  order: its place;  signals: [name, version, fields as JSON]"""

    order: bytes
    leaf: bytes
    source: str
    id: str
    type: str
    t_ms: int
    k_ms: int
    revision: int
    repair: int
    partition: int
    offset: int
    signals: list[list[Any]]


@dataclass(frozen=True, kw_only=True)
class LatestSignals:
    """(whether all that was needed was read, the newest `take` events before a place, the newest first).

    places: (leaf, start, stop): leaves and the panes of theirs that are asked about
    until:  quarter hours: what is known by then;  before: a place in the order; "": there is none
    """

    partition: int
    places: tuple[tuple[bytes, int, int], ...]
    until: int
    before: bytes
    take: int
    leg: str = "measure"

    def read(self, reader: Reader) -> Steps[tuple[bool, list[Latest]]]:
        found: list[Latest] = []
        seen = 0
        for leaf, start, stop in self.places:
            if self.before:
                stop = min(stop, _ORDER.unpack(self.before)[0] // PANE_MS + 1)
            some: list[Latest] = []
            while (
                len(some) < self.take and (pane := _last(self._store(reader, "facts"), leaf, start, stop)) is not None
            ):
                for rows in scans.pieces(self._store(reader, "facts"), _at(leaf, pane), _at(leaf, pane + 1)):
                    seen += len(rows)
                    if seen > FACTS_MAX:
                        return False, newest([*found, *some], self.take)
                    some += self._counting(reader, leaf, rows)
                    yield None
                stop = pane
            found = newest([*found, *some], self.take)
            yield None
        return True, found

    def _counting(self, reader: Reader, leaf: bytes, rows: Sequence[scans.Pair]) -> list[Latest]:
        told, known = facts_of(leaf, rows, self._store(reader, "revisions"))
        return [
            _latest(row, message, order)
            for row, message in told
            if message.signals
            and (order := _order(message))
            and (not self.before or order < self.before)
            and fact_counts(message, known[message.event], self.until)
        ]

    def _store(self, reader: Reader, name: str) -> Store:
        return reader.stores("measure", self.partition)[name]

    def pack(self, value: tuple[bool, list[Latest]]) -> Any:
        return [value[0], [list(one) for one in value[1]]]

    def unpack(self, data: Any) -> tuple[bool, list[Latest]]:
        return data[0], [Latest._make(one) for one in data[1]]


def _last(facts: Store, leaf: bytes, start: int, stop: int) -> int | None:
    """The last pane of [start, stop) in which a leaf has facts."""
    last = None
    end = _at(leaf, stop)
    while start < stop:
        middle = (start + stop) // 2 if last is not None else start
        found = next(facts.scan(_at(leaf, middle), end), None)
        if found is None:
            if last is None:
                return None
            stop = middle
        else:
            last = int.from_bytes(found[0][len(leaf) : len(leaf) + 4], "big")
            start = last + 1
    return last


def _at(leaf: bytes, pane: int) -> bytes:
    return leaf + min(pane, FOREVER).to_bytes(4, "big")


def _order(message: SignalMessage) -> bytes:
    return _ORDER.pack(max(message.t_ms, 0), message.event, message.revision, message.repair)


def newest(found: list[Latest], take: int) -> list[Latest]:
    return sorted(found, key=lambda one: one.order, reverse=True)[:take]


def _latest(row: bytes, message: SignalMessage, order: bytes) -> Latest:
    names = wire("Signals").decode(row[UPTO:])
    return Latest(
        order=order,
        leaf=message.leaf,
        source=names["source"],
        id=names["id"],
        type=names["type"],
        t_ms=message.t_ms,
        k_ms=message.k_ms,
        revision=message.revision,
        repair=message.repair,
        partition=message.first_partition,
        offset=message.first_offset,
        signals=[[one["rule"], one["version"], one["fields"]] for one in names["signals"]],
    )
