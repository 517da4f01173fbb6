"""Landing: how what a holding has folded reaches the changelog and the disk: when, what, one checkpoint at a time.

fold -> due (by time, by size) -> take -> write (agents/checkpoint.py) -> landed -> re-appends
                                   |_ folding goes on over what was taken
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from milepost.agents import store
from milepost.agents.changelog import Mark, Zombie
from milepost.agents.checkpoint import Checkpointer, Taken
from milepost.agents.ending import ZOMBIE, end
from milepost.agents.producer import LegProducer
from milepost.agents.reappend import again
from milepost.agents.restore import Restore
from milepost.agents.room import Room
from milepost.agents.suspicion import TRY_KEY, Trying
from milepost.topology.line import LegSpec
from milepost.topology.state import Leg, Owed, Partition

log = logging.getLogger("milepost.agents.holding")

CHECKPOINT_S_MAX: Final = 1.0
UNLANDED_MAX: Final = 16_384
UNLANDED_MIN: Final = 512
"""Records folded beyond the last mark in the log: at most, and what is always allowed.  See `Ahead`."""
IDLE_S: Final = 600.0
"""An idle owner writes an empty batch so often: it bounds how long late bytes go unnoticed (design §7.5)."""

State = Literal["new", "restoring", "opening", "open", "parked", "closed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a leg's holdings live: full topic names, the folder above the stores, and the pace of checkpoints."""

    bootstrap: str
    source: str
    changelog: str
    folder: Path
    worker: str
    incarnation: str
    checkpoint_ms: int
    checkpoint_bytes: int
    idle_s: float = IDLE_S


class Ahead:
    """How many records may be folded, and so be shown in answers, beyond the last mark in the log.

    Each mark says how many, about half as many again as lay between the two before it.  Whoever takes over after a kill
    is asked only when it has folded so many behind the mark that it restored: then no answer shows less than one
    before.  Counted in records, not offsets: what compaction has removed since makes a successor go further.

    folded: records since the partition was opened;  limit: how many there may be until the next mark has landed
    """

    def __init__(self, limit: int = UNLANDED_MAX) -> None:
        self.folded = 0
        self.limit = limit
        self._taken = 0
        self._promised = limit
        self._landed = 0

    @property
    def left(self) -> int:
        return max(0, self.limit - self.folded)

    @property
    def due(self) -> bool:
        """Three quarters of what was allowed are used: a mark should be on its way."""
        return self.folded - self._landed >= min(UNLANDED_MAX, (self.limit - self._landed) * 3 // 4)

    def take(self) -> int:
        """A mark is made: what it says.  No promise goes back: the one before may be all that a successor sees."""
        allowed = max(UNLANDED_MIN, min(UNLANDED_MAX, (self.folded - self._taken) * 3 // 2 + UNLANDED_MIN))
        self._taken = self.folded
        self._promised = max(self.limit, self.folded + allowed)
        return self._promised - self.folded

    def landed(self) -> None:
        self.limit, self._landed = self._promised, self._taken


class Landing:
    """The half of a holding (agents/holding.py) that writes."""

    room: Room
    restore: Restore | None

    def __init__(
        self,
        *,
        leg: Leg,
        spec: LegSpec,
        number: int,
        place: Place,
        stamp: store.Stamp,
        outputs: LegProducer,
        decisions: Callable[[], Mapping[str, int]],
        landed: Callable[[int], None],
    ) -> None:
        self.leg = leg
        self.spec = spec
        self.number = number
        self.place = place
        self.stamp = stamp
        self.state: State = "new"
        self.fates: Counter[str] = Counter()
        self.moved_at = time.monotonic()
        self.partition: Partition | None = None
        self.busy = asyncio.Lock()  # a slice and its outputs, or the taking of a checkpoint, or opening, or closing
        self._outputs = outputs
        self._decisions = decisions
        self._landed = landed
        self._rocks: store.Rocks | None = None
        self._checkpointer: Checkpointer | None = None
        self._owed: list[Owed] = []
        self._flight: asyncio.Task[None] | None = None
        self.away_since: float | None = None  # since when a checkpoint is on its way (monotonic)
        self._timer: asyncio.TimerHandle | None = None
        self._idle = False
        self._due = False
        self._taken_to = 0
        self._wrote_s = 0.0  # how long the last checkpoint took
        self.ahead = Ahead()

    def __repr__(self) -> str:
        return f"{self.spec.name}/{self.number}"

    async def checkpoint(self) -> None:
        """Write what has changed, and return when it has landed."""
        await self.flown()
        if self.partition is not None and self.partition.next_offset > self._taken_to:
            self._start()
            await self.flown()

    async def flown(self) -> None:
        while self._flight is not None:
            await asyncio.wait([self._flight])

    def _start(self) -> None:
        assert self._flight is None
        self._disarm()
        self._due = False
        self.away_since = time.monotonic()
        self._flight = asyncio.create_task(self._checkpoint(), name=f"checkpoint {self!r}")
        self._flight.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._flight, self.away_since = None, None
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, store.DiskFull) and self._is_closed():
            log.warning("%r: given back without its last changes on this disk; the changelog holds them", self)
            return
        if isinstance(error, Zombie):
            end(f"{self!r}: another worker has the partition: {error}", ZOMBIE)
        if error is not None:
            end(f"{self!r}: a checkpoint failed: {error}", error=error)
        if self.state != "open" or self.partition is None:
            return
        if self.partition.next_offset > self._taken_to:
            if self._due:
                self._start()
            elif self._timer is None:
                self._arm(self._pause_s())
        else:
            self._arm_idle()

    async def _checkpoint(self) -> None:
        at, checkpointer = self.partition, self._checkpointer
        assert at is not None and checkpointer is not None
        async with self.busy:
            owed, self._owed = self._owed, []
            taken = self._take(at, owed)
        begun = time.monotonic()
        await checkpointer.write(at, taken)
        self._wrote_s = time.monotonic() - begun
        await self._append_again(taken.owed)

    def _take(self, at: Partition, owed: Sequence[Owed], rewrite: frozenset[bytes] = frozenset()) -> Taken:
        assert self._checkpointer is not None
        mark = Mark(
            epoch=self._checkpointer.epoch,
            x=at.next_offset - 1,
            body=self.leg.dump_mark(at.mark),
            decisions=self._decisions(),
            cluster=self.stamp.cluster,
            source_topic=self.stamp.source_topic,
            ahead=self.ahead.take(),
        )
        self._taken_to = at.next_offset
        return self._checkpointer.take(at, mark, owed, rewrite)

    async def _rewrite(self, at: Partition) -> None:
        assert self.restore is not None and self._checkpointer is not None
        log.warning("%r: %d keys were covered by late bytes: written again", self, len(self.restore.rewrite))
        await self._checkpointer.write(at, self._take(at, (), frozenset(self.restore.rewrite)))

    async def _note(self, at: Partition) -> None:
        """A checkpoint of an empty prefix: notes about the log, with nothing of it absorbed."""
        assert self._checkpointer is not None
        await self._checkpointer.write(at, self._take(at, ()))
        self._touch()

    # -- timers

    def _arm(self, seconds: float, *, idle: bool = False) -> None:
        self._disarm()
        self._idle = idle
        self._timer = asyncio.get_running_loop().call_later(seconds, self._on_time)

    def _arm_idle(self) -> None:
        self._arm(self.place.idle_s, idle=True)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._idle = False

    def _pause_s(self) -> float:
        """How long after the first change a checkpoint is due.

        At the pace that was asked for while checkpoints are quick; under load ten times as long as the last one took,
        so that they leave room for folding, and never longer than a second.  What is folded can be asked for at once.
        """
        least = self.place.checkpoint_ms / 1000
        return max(least, min(10 * self._wrote_s, CHECKPOINT_S_MAX))

    def _on_time(self) -> None:
        self._timer = None
        self._idle = False
        if self.state != "open":
            return
        if self._flight is None:
            self._start()
        else:
            self._due = True

    async def _append_again(self, owed: Sequence[Owed]) -> None:
        at = self.partition
        if owed and at is not None:
            place = self.place
            outputs, lost = await again(self.leg, at, owed, bootstrap=place.bootstrap, source=place.source)
            if lost:
                self.fates["owed_lost"] += lost
            await self._outputs.send(outputs)

    def _on_landed(self, next_offset: int) -> None:
        self.ahead.landed()
        self._landed(next_offset)

    async def still(self) -> None:
        """Wait until no checkpoint is away and none is due."""
        self._disarm()
        await self.flown()
        self._disarm()

    def rest(self) -> None:
        """Checkpoints are due again as ever."""
        self._touch()
        if self._is_open() and self._flight is None and self._timer is None:
            self._arm_idle()

    async def note(self, at: Partition, note: Trying) -> None:
        """Write what is in hand to the changelog, then to the store: whoever restores from either must know it."""
        checkpointer, rocks = self._checkpointer, self._rocks
        assert checkpointer is not None and rocks is not None and self._flight is None
        data = note.dump()
        await checkpointer.note(at, (TRY_KEY, data, checkpointer.epoch), self._taken_to - 1)
        if not self.room.full:
            await self.room.having(lambda: rocks.write([(store.TRY, data)]))

    def _is_open(self) -> bool:
        return self.state == "open"

    def _is_closed(self) -> bool:
        return self.state == "closed"  # another task may have set it while this one waited

    def _touch(self) -> None:
        self.moved_at = time.monotonic()
