"""Ticks: who made the last tick of an action, out of its fact.  (That it was made is in the cells: acts.py.)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from milepost.topology import acts, scans
from milepost.topology.panes import PANE_MS
from milepost.topology.reading import Reader
from milepost.topology.refold import fact_counts, facts_of
from milepost.topology.steps import Steps


@dataclass(frozen=True, kw_only=True)
class TickedBy:
    """Who made a tick, as they said; None: it does not lie under one of these leaves, or nobody was named.

    t_ms, event: of the tick;  until: quarter hours of known time
    """

    partition: int
    leaves: tuple[bytes, ...]
    t_ms: int
    event: bytes
    until: int
    leg: str = "measure"

    def read(self, reader: Reader) -> Steps[str | None]:
        pane = (self.t_ms // PANE_MS).to_bytes(4, "big")
        for number, leaf in enumerate(self.leaves):
            stores = reader.stores("measure", self.partition)
            first = leaf + pane + self.event
            rows = list(stores["facts"].scan(first, scans.after(first)))
            told, known = facts_of(leaf, rows, stores["revisions"])
            for _, message in told:
                if fact_counts(message, known[message.event], self.until):
                    for rule, _, fields in message.signals:
                        if rule == acts.ACTION:
                            by = fields.get("by")
                            return by if isinstance(by, str) else None
            if number % 100 == 99:
                yield None
        return None

    def pack(self, value: str | None) -> Any:
        return value

    def unpack(self, data: Any) -> str | None:
        assert data is None or isinstance(data, str)
        return data
