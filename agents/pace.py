"""Pace: how long a fold may keep the loop.

Beside questions short slices, so that each is answered soon; alone longer ones, because a slice has its own cost (a
multi-get, a turn of the loop): 10 ms instead of 2 saved about a quarter of the work of an event.
"""

from __future__ import annotations

import time
from typing import Final

BESIDE_S: Final = 0.002
ALONE_S: Final = 0.010
REMEMBERED_S: Final = 1.0
"""A question so long ago, in seconds, is taken to be followed by others."""

_asked_at = float("-inf")


def asked() -> None:
    """A question has come."""
    global _asked_at
    _asked_at = time.monotonic()


def slice_s() -> float:
    """How long the next slice may take, in seconds."""
    return BESIDE_S if time.monotonic() - _asked_at < REMEMBERED_S else ALONE_S
