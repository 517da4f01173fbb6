"""Room: what a partition does while the disk under its store is full.

    a step raises DiskFull -> say so -> wait -> try the same step again -> room: go on where it stood

Nothing is acknowledged meanwhile and nothing more is folded: what is in memory is bounded by the checkpoint in flight
and the one behind it.  Questions are answered from what is readable.  RocksDB takes up to five seconds to notice that
there is room again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from milepost.agents import store

T = TypeVar("T")

log = logging.getLogger("milepost.agents.room")

PAUSE_S: Final = 0.5


class Room:
    """The disk as one holding sees it.

    full:  what waits for room, in words for people, or ""
    moved: is told while waiting, so that nobody takes the wait for a restore that stands still
    """

    def __init__(self, folder: Path, moved: Callable[[], None]) -> None:
        self.full = ""
        self._folder = folder
        self._moved = moved
        self._free = asyncio.Event()
        self._closing = False

    async def having(self, step: Callable[[], T]) -> T:
        """`step()`, again and again until the disk has room for it.  Raises DiskFull when it is to be given up."""
        while True:
            try:
                done = step()
            except store.DiskFull as error:
                await self.wait(error)
                continue
            self.found()
            return done

    async def opened(self, stamp: store.Stamp) -> store.Rocks | None:
        """The store, once the disk has room to open it; None: the partition was taken away meanwhile."""
        while not self._closing:
            try:
                return await asyncio.to_thread(store.open_store, self._folder, stamp)
            except store.DiskFull as error:
                if not self._closing:
                    await self.wait(error)
        return None

    async def wait(self, error: store.DiskFull) -> None:
        """Wait a little for room; raises `error` when the partition is taken away."""
        if self._closing:
            raise error
        self.say(error)
        self._moved()
        if not await asyncio.to_thread(store.make_room, self._folder):
            await asyncio.sleep(PAUSE_S)

    def say(self, error: store.DiskFull) -> None:
        """There is no room.  Logged once, until there is room again."""
        if not self.full:
            log.error("%s; nothing is acknowledged until there is room again; fix: free or add space", error)
            self._free.clear()
        self.full = str(error)

    def found(self) -> None:
        """There is room."""
        if self.full:
            self.full = ""
            self._free.set()
            log.warning("%s: there is room again", self._folder)

    async def free(self) -> None:
        """Return when there is room, or when nobody shall wait for it any more."""
        if self.full and not self._closing:
            await self._free.wait()

    def close(self) -> None:
        """Wait no more."""
        self._closing = True
        self._free.set()
