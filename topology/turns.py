"""Turns: whether a message is the next that its raw partition sends to this partition (design §7.2).

prev <= highest origin taken < origin -> taken, and noted      origin <= highest -> sent again      else -> a gap
"""

from __future__ import annotations

from milepost.topology.state import Fold


def in_turn(origins: dict[int, int], raw: int, origin: int, prev: int, out: Fold) -> bool:
    """Whether a message of the raw partition `raw` is to be taken; then its origin is noted in `origins`."""
    highest = origins.get(raw, -1)
    if origin <= highest:
        out.count("reemitted")
        return False
    if prev > highest:
        out.count("gap")
        return False
    origins[raw] = origin
    return True
