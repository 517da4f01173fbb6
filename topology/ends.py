"""Ends: at which bucket ends something became known of a company, out of its cells.

Between two of them only time goes on, so whoever looks at a company's past need not look at each quarter of an hour.
Day rows keep the buckets of their panes; what a flagged row leaves out (aggregates.py) is told by the revisions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from milepost.topology.aggregates import Shape, decode
from milepost.topology.metrics import packed, prefix
from milepost.topology.panes import bucket_end
from milepost.topology.reading import Reader
from milepost.topology.revisions import load_known
from milepost.topology.scans import after, pieces
from milepost.topology.state import UPTO
from milepost.topology.steps import Steps

LEAF_BYTES: Final = 16


@dataclass(frozen=True, kw_only=True)
class Ends:
    """The bucket ends in (since, until] of a measure's rows of some leaves, in order; days in [start, stop)."""

    partition: int
    version: bytes
    shape: Shape
    leaves: tuple[bytes, ...]
    start: int
    stop: int
    since: int
    until: int
    leg: str = "measure"

    def read(self, reader: Reader) -> Steps[list[int]]:
        found: set[int] = set()
        for leaf in self.leaves:
            before = prefix(self.version, leaf, 0, packed(()))
            first, last = (before + day.to_bytes(4, "big") for day in (self.start, self.stop))
            for rows in pieces(reader.stores("measure", self.partition)["days"], first, last):
                for _, value in rows:
                    found.update(end for end, _ in decode(self.shape, value, self.until))
                yield None
            for rows in pieces(reader.stores("measure", self.partition)["revisions"], leaf, after(leaf)):
                for key, value in rows:
                    assert len(key) == 2 * LEAF_BYTES and len(value) >= UPTO
                    known = load_known(value)
                    found.update(bucket_end(one.pane, other.k_ms) for one in known for other in known)
                yield None
        return sorted(end for end in found if self.since < end <= self.until)

    def pack(self, value: list[int]) -> Any:
        return value

    def unpack(self, data: Any) -> list[int]:
        return list(data)
