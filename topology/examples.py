"""Examples: where the log holds an event of each type, found by a short look at the facts.

    facts of one partition  -- the first few of each of the first leaves -->  (source, type) -> raw position

A look, not a search: types of which no rule makes signals have no facts, and rare ones may not be met.  Whoever shows
examples makes one from the contract then (`samples.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from milepost.schemas.serde import wire
from milepost.topology.reading import Reader
from milepost.topology.scans import after
from milepost.topology.state import UPTO
from milepost.topology.steps import Steps

LEAVES_MAX: Final = 64
FACTS_MAX: Final = 8
"""Facts of a leaf that are looked at."""
LEAF_BYTES: Final = 16
_END: Final = b"\xff" * LEAF_BYTES
Found = Mapping[tuple[str, str], tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Examples:
    """(source, type) -> (raw partition, offset) of an organisation's event, of a part of those in a partition."""

    partition: int
    org: str
    leg: str = "measure"

    def read(self, reader: Reader) -> Steps[dict[tuple[str, str], tuple[int, int]]]:
        found: dict[tuple[str, str], tuple[int, int]] = {}
        start = b""
        for _ in range(LEAVES_MAX):
            rows = list(islice(reader.stores("measure", self.partition)["facts"].scan(start, _END), FACTS_MAX))
            if not rows:
                break
            for _, row in rows:
                told = wire("Signals").decode(row[UPTO:])
                if told["org"] == self.org and not told["void"]:
                    found[told["source"], told["type"]] = told["first_partition"], told["first_offset"]
            start = after(rows[-1][0][:LEAF_BYTES])
            yield None
        return found

    def pack(self, value: Found) -> Any:
        return [[*names, *place] for names, place in value.items()]

    def unpack(self, data: Any) -> dict[tuple[str, str], tuple[int, int]]:
        return {(source, type): (partition, offset) for source, type, partition, offset in data}
