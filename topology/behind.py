"""Behind: what became known at a time that the log had passed, so that whoever told of that time looks again.

    record with a known time of its own (backdated, forwarded) -> known (noted in the mark, a slice long) -> keep
    store `behind`: day of known time -> the last raw offset that brought something of it when it had passed

A backdated record is known at the time its header says (design §3), and a forwarded one when it came first; so what is
as shown at a time that has passed may change.  Cells, links and completeness change by themselves, because they are
read as known by then.  What was told of that time cannot: it has to be looked for again, from the least day on.  (Days,
so that a large import writes few rows; to walk over a day costs hardly more than over an hour of it.)  What is known in
its turn costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from milepost.schemas import stamps
from milepost.schemas.stamps import Stamp
from milepost.topology.ingest_mark import IngestMark
from milepost.topology.panes import PANE_MS, PANES_A_DAY
from milepost.topology.reading import Reader
from milepost.topology.state import Partition
from milepost.topology.steps import Steps

ROWS_A_STEP: Final = 500

Found = tuple[int | None, int]
"""(the first bucket end of the least day of which something came since, the last raw offset that brought something)."""


def known(mark: IngestMark, stamp: Stamp, offset: int) -> int:
    """The known time of a record that has one of its own; that it lies behind what the log has come to is noted."""
    k_ms = stamp.k_ms
    if k_ms < mark.k_ms and stamp.kind != stamps.AGAIN:  # a first record appended again says nothing new
        end, now = k_ms // PANE_MS + 1, mark.k_ms // PANE_MS + 1
        if end < now:
            mark.behind[end // PANES_A_DAY] = offset
    return k_ms


def keep(at: Partition, mark: IngestMark) -> None:
    """Put the rows of a slice."""
    if mark.behind:
        noted, mark.behind = mark.behind, {}
        at.stores["behind"].put_many({day.to_bytes(4, "big"): upto.to_bytes(8, "big") for day, upto in noted.items()})


@dataclass(frozen=True, kw_only=True)
class Behind:
    """What came behind in a raw partition after the raw offset `since`; -1 where nothing ever did."""

    partition: int
    since: int
    leg: str = "ingest"

    def read(self, reader: Reader) -> Steps[Found]:
        least: int | None = None
        last, first = -1, b""
        while True:
            rows = []
            for pair in reader.stores("ingest", self.partition)["behind"].scan(first, b"\xff" * 5):
                rows.append(pair)
                if len(rows) == ROWS_A_STEP:
                    break
            for key, value in rows:
                offset = int.from_bytes(value, "big")
                last = max(last, offset)
                if least is None and offset > self.since:
                    least = int.from_bytes(key, "big") * PANES_A_DAY
            if len(rows) < ROWS_A_STEP:
                return least, last
            first = rows[-1][0] + b"\x00"
            yield None

    def pack(self, value: Found) -> Any:
        return value

    def unpack(self, data: Any) -> Found:
        return data[0], data[1]
