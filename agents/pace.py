"""Pace: how long folds may keep the loop.

Beside questions short slices, so that each is answered soon; alone longer ones, because a slice has its own cost (a
multi-get, a turn of the loop): 10 ms instead of 2 saved about a quarter of the work of an event.

All partitions of a process share one turn: when so much time is spent, whoever comes next waits for the next round of
the loop.  Else sixteen partitions that are due at once would each fold their slice before a question goes on by a step.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Final
from weakref import WeakKeyDictionary

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


class Turn:
    """What a slice is folded under: given on at once, or in the loop's next round when this one's time is spent."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._spent_s = 0.0

    def beside(self, busy: asyncio.Lock) -> Slice:
        """The turn together with `busy`, which questions hold too: whoever waits for it keeps nobody from the turn."""
        return Slice(self, busy)

    async def acquire(self, busy: asyncio.Lock) -> None:
        while True:
            await self._lock.acquire()
            if not busy.locked():
                break
            self._lock.release()
            async with busy:
                pass
        try:
            await busy.acquire()
        except BaseException:
            self._lock.release()
            raise

    def release(self, seconds: float) -> None:
        """seconds: what the slice took."""
        self._spent_s += seconds
        if self._spent_s < slice_s():
            self._lock.release()
            return
        self._spent_s = 0.0
        asyncio.get_running_loop().call_soon(self._lock.release)


class Slice:
    """One slice: `async with`, and `folded` as soon as the loop may go on with others."""

    __slots__ = ("_busy", "_has_turn", "_turn")

    def __init__(self, turn: Turn, busy: asyncio.Lock) -> None:
        self._turn = turn
        self._busy = busy
        self._has_turn = False

    async def __aenter__(self) -> Slice:
        await self._turn.acquire(self._busy)
        self._has_turn = True
        return self

    def folded(self, seconds: float) -> None:
        """It took so long; `busy` is still held."""
        self._has_turn = False
        self._turn.release(seconds)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._busy.release()
        if self._has_turn:
            self.folded(0.0)


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, Turn] = WeakKeyDictionary()


def turn() -> Turn:
    """The turn of the running loop: one a process."""
    return _turns.setdefault(asyncio.get_running_loop(), Turn())
