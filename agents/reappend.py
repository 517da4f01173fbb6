"""Re-appends: first records that the log is owed (design §3), appended to their own partition again.

They come after the commit of the checkpoint that took the repeat, and again at each restore until they are seen coming
back: once too often changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from milepost.agents.changelog import read_range
from milepost.ops import logs
from milepost.topology.state import Leg, Output, Owed, Partition

log = logging.getLogger("milepost.agents.reappend")

GAP_MAX: Final = 5000
"""Offsets between two records that are still fetched in one go."""


async def again(
    leg: Leg, at: Partition, owed: Sequence[Owed], *, bootstrap: str, source: str
) -> tuple[list[Output], int]:
    """(the records to append, how many are no longer where they should be)."""
    found = await _fetch(bootstrap, source, at.number, sorted({one.at for one in owed if one.value is None}))
    outputs: list[Output] = []
    lost = 0
    for one in owed:
        value = one.value
        if value is None:
            record = found.get(one.at)
            if record is None or record.key != one.key or record.value is None:
                gone = logs.place("raw-events", at.number, one.at)
                log.error("a first record is gone and cannot be appended again", extra=gone)
                lost += 1
                continue
            value = record.value
        assert value is not None
        outputs.append(leg.again(at, one, value))
    return outputs, lost


async def _fetch(bootstrap: str, source: str, number: int, offsets: Sequence[int]) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for start, stop in runs(offsets, gap_max=GAP_MAX):
        wanted = {one for one in offsets if start <= one < stop}
        async for records in read_range(bootstrap, source, number, start, stop):
            found.update((one.offset, one) for one in records if one.offset in wanted)
    return found


def runs(offsets: Sequence[int], *, gap_max: int) -> list[tuple[int, int]]:
    """Half-open ranges that cover the ascending `offsets`, joined over gaps of at most `gap_max`."""
    found: list[tuple[int, int]] = []
    for one in offsets:
        if found and one - found[-1][1] <= gap_max:
            found[-1] = (found[-1][0], one + 1)
        else:
            found.append((one, one + 1))
    return found
