"""Holding: one leg in one partition, from being given to being taken away.

    take_over (own -> epoch) -> apply* (changelog) -> open (source, derived, owed) -> fold* / checkpoint* -> release
                                                                                 park -> resume, or release

A holding is readable and folds only between `open` and `release`.  It runs without Faust, which only tells it when
(agents/table.py, agents/bindings.py), so the tests drive it against a broker directly.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from milepost.agents import faults, pace, store
from milepost.agents.changelog import OWN_KEY, ChangelogWriter, Mark, Zombie, dump_own, read_range
from milepost.agents.checkpoint import Checkpointer, Taken
from milepost.agents.ending import ZOMBIE, end
from milepost.agents.opening import announce, check_source, restore_derived, restore_source
from milepost.agents.producer import LegProducer
from milepost.agents.reappend import again
from milepost.agents.restore import Restore
from milepost.ops import telemetry
from milepost.schemas.errors import StoreError
from milepost.topology.line import LegSpec
from milepost.topology.state import Leg, Owed, Partition, Record, Store

log = logging.getLogger("milepost.agents.holding")

SLICE_MAX: Final = 1000
SLICE_FIRST: Final = 32
IDLE_S: Final = 600.0
"""An idle owner writes an empty batch so often: it bounds how long late bytes go unnoticed (design §7.5)."""

State = Literal["new", "restoring", "opening", "open", "parked", "closed"]

UNLANDED_MAX: Final = 16_384
"""Records folded beyond the last checkpoint at most.  Whoever takes over after a kill restores that checkpoint, and is
asked only when it is so much further, or at the log's end: then no answer ever shows less than one before it."""
GATE_S: Final = 10.0
"""A partition is asked after so many seconds of being open in any case: its next record may wait for a decision."""


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


class Holding:
    """See the module.  `stamp` says what the folder must belong to; `decisions` the followers' positions at any moment;
    `landed(next_offset)` is told of each checkpoint."""

    def __init__(
        self,
        *,
        leg: Leg,
        spec: LegSpec,
        number: int,
        place: Place,
        stamp: store.Stamp,
        writer: ChangelogWriter,
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
        self.skipped = 0
        self.moved_at = time.monotonic()
        self.partition: Partition | None = None
        self.restore: Restore | None = None
        self._taken_at = 0.0
        self._outputs = outputs
        self._decisions = decisions
        self._landed = landed
        self._log = writer.at(place.changelog, number)
        self._rocks: store.Rocks | None = None
        self._checkpointer: Checkpointer | None = None
        self._owed: list[Owed] = []
        self._slice = SLICE_FIRST
        self._busy = asyncio.Lock()  # a slice and its outputs, or the taking of a checkpoint, or opening, or closing
        self._flight: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._idle = False
        self._due = False
        self._taken_to = 0
        self._landed_to = 0
        self._opened_at = 0.0
        self._answers_from = 0

    def __repr__(self) -> str:
        return f"{self.spec.name}/{self.number}"

    # -- being given

    async def take_over(self) -> None:
        """Open the store and append `own`; its offset is the epoch, and how far to restore."""
        folder = self.place.folder / f"{self.spec.name}-{self.number}"
        rocks = await asyncio.to_thread(store.open_store, folder, self.stamp)
        own = dump_own(
            worker=self.place.worker, incarnation=self.place.incarnation, leg=self.spec.name, partition=self.number
        )
        self._taken_at = time.monotonic()
        epoch = await self._log.append([(OWN_KEY, own, 0)])
        faults.point("own_appended")
        try:
            restore = Restore(rocks, self.spec, epoch)
        except StoreError as error:
            rocks.close()
            store.quarantine(folder, str(error))
            rocks = await asyncio.to_thread(store.open_store, folder, self.stamp)
            restore = Restore(rocks, self.spec, epoch)
        if self._is_closed():  # the worker stops while it is given partitions
            rocks.close()
            return
        self._rocks, self.restore = rocks, restore
        self._checkpointer = Checkpointer(
            spec=self.spec, rocks=rocks, log=self._log, outputs=self._outputs, epoch=epoch, landed=self._on_landed
        )
        self.state = "restoring"
        self._touch()
        log.info("%r: epoch %d, restoring from %d", self, epoch, restore.position + 1)

    @property
    def applied(self) -> int:
        """Changelog offset up to which nobody needs to read for us: our `own`, which `open` restores up to by itself.

        Stock recovery reads through the worker's one consumer, whose fetches may be dropped in a rebalance; a chunk
        that is missing in the middle would go unnoticed, because compaction leaves gaps too."""
        if self.state in ("open", "parked"):
            return self.expected - 1
        return -1 if self.restore is None else self.restore.own_at

    def apply(self, records: Sequence[Any]) -> None:
        """Apply a chunk of the changelog; does nothing unless restoring."""
        if self.state != "restoring" or self.restore is None:
            return
        self.restore.apply(records)
        self._touch()
        faults.point("restoring")

    async def open(self, source_end: int | None = None) -> None:
        """Finish restoring (source stores, derived stores, rows to write again, what is owed) and open the partition.

        source_end: where the source partition ends now, if known: state that is ahead of its log is refused.
        """
        async with self._busy:
            if self.state != "restoring":
                return
            assert self.restore is not None and self._rocks is not None
            place = self.place
            start, stop = self.restore.position + 1, self.restore.own_at + 1
            async with aclosing(read_range(place.bootstrap, place.changelog, self.number, start, stop)) as changelog:
                async for records in changelog:
                    self.apply(records)
                    await asyncio.sleep(0)
                    if self._is_closed():
                        return
            if not self.restore.done:
                raise StoreError(f"{self!r}: the changelog ends at {self.restore.position}, before its own `own`")
            self.state = "opening"
            mark = self.restore.mark
            check_source(mark, self.stamp, source=place.source, changelog=place.changelog, source_end=source_end)
            at = Partition(
                number=self.number,
                stores={
                    one.name: Store(one.name, store.TableBase(self._rocks, one.tag), one.remember_bytes)
                    for one in self.spec.stores
                },
                mark=self.leg.new_mark() if mark is None else self.leg.load_mark(mark.body),
                next_offset=self.restore.x + 1,
            )
            leg, spec, rocks = self.leg, self.spec, self._rocks
            await restore_source(leg, spec, at, rocks, self._write, bootstrap=place.bootstrap, source=place.source)
            await restore_derived(leg, spec, at, rocks, self._write, self.restore)
            faults.point("restored")
            self._taken_to = self._landed_to = at.next_offset
            self._answers_from = min(source_end or 0, at.next_offset + UNLANDED_MAX)
            if self.restore.rewrite:
                await self._rewrite(at)
            if at.next_offset == 0 and source_end:
                await announce(
                    leg, at, lambda: self._note(at), bootstrap=place.bootstrap, source=place.source,
                    source_end=source_end, bytes_max=place.checkpoint_bytes,
                )  # fmt: skip
            owed = list(self.leg.owed(at))
            if not self._set_open(at):
                return
            log.info("%r: open at %d", self, at.next_offset)
            telemetry.restored(self.spec.name, time.monotonic() - self._taken_at, self.restore.applied)
        await self._append_again(owed)

    def _set_open(self, at: Partition) -> bool:
        if self._is_closed():
            return False
        self.partition = at
        self.state = "open"
        self._opened_at = time.monotonic()
        self._touch()
        self._arm_idle()
        return True

    # -- folding

    async def fold(self, records: Sequence[Record]) -> int:
        """Fold `records` slice by slice; returns how many were folded (fewer: not ready, or released meanwhile)."""
        done = 0
        at = self.partition
        if at is None:
            return 0
        first = at.next_offset
        fresh = [one for one in records if one.offset >= first] if records and records[0].offset < first else records
        self.skipped += len(records) - len(fresh)
        while done < len(fresh) and self._is_open():
            part = fresh[done : done + self._slice]
            ready = self.leg.ready(part)
            if ready == 0:
                break
            if not await self._fold_slice(at, part[:ready]):
                break
            done += ready
            if at.size >= self.place.checkpoint_bytes or at.next_offset - self._landed_to >= UNLANDED_MAX:
                await self._full()
            await asyncio.sleep(0)
        return len(records) - len(fresh) + done

    async def _fold_slice(self, at: Partition, part: Sequence[Record]) -> bool:
        async with self._busy:
            if not self._is_open():
                return False
            begin = time.perf_counter()
            fold = self.leg.fold(at, part)
            spent = time.perf_counter() - begin
            faults.point("after_fold")
            assert at.next_offset > part[-1].offset, f"{self!r}: the leg did not move on"
            if fold.before:
                await self._outputs.send(fold.before)
            self._owed += fold.after
            for fate, count in fold.fates.items():
                self.fates[fate] += count
        wanted = len(part) * pace.slice_s() / max(spent, 1e-6)
        self._slice = int(min(SLICE_MAX, max(1, min(wanted, self._slice * 2))))
        self._touch()
        if self._timer is None or self._idle:
            self._arm(self.place.checkpoint_ms / 1000)
        return True

    async def _full(self) -> None:
        """The changes are as large as a checkpoint may be: write one, and fold on only while the one before is away."""
        if self._flight is not None:
            await asyncio.wait([self._flight])
        if self._is_open() and self._flight is None:
            self._start()

    # -- checkpoints

    async def checkpoint(self) -> None:
        """Write what has changed, and return when it has landed."""
        await self._flown()
        if self.partition is not None and self.partition.next_offset > self._taken_to:
            self._start()
            await self._flown()

    async def _flown(self) -> None:
        while self._flight is not None:
            await asyncio.wait([self._flight])

    def _start(self) -> None:
        assert self._flight is None
        self._disarm()
        self._due = False
        self._flight = asyncio.create_task(self._checkpoint(), name=f"checkpoint {self!r}")
        self._flight.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._flight = None
        if task.cancelled():
            return
        error = task.exception()
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
                self._arm(self.place.checkpoint_ms / 1000)
        else:
            self._arm_idle()

    async def _checkpoint(self) -> None:
        at, checkpointer = self.partition, self._checkpointer
        assert at is not None and checkpointer is not None
        async with self._busy:
            owed, self._owed = self._owed, []
            taken = self._take(at, owed)
        await checkpointer.write(at, taken)
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

    def _on_time(self) -> None:
        self._timer = None
        self._idle = False
        if self.state != "open":
            return
        if self._flight is None:
            self._start()
        else:
            self._due = True

    # -- what is asked of the log

    async def _append_again(self, owed: Sequence[Owed]) -> None:
        at = self.partition
        if owed and at is not None:
            place = self.place
            outputs, lost = await again(self.leg, at, owed, bootstrap=place.bootstrap, source=place.source)
            if lost:
                self.fates["owed_lost"] += lost
            await self._outputs.send(outputs)

    def _write(self, changes: Sequence[store.Change]) -> None:
        if self._is_closed() or self._rocks is None:
            raise StoreError(f"{self!r}: taken away while opening")
        self._rocks.write(changes)
        self._touch()

    def _on_landed(self, next_offset: int) -> None:
        self._landed_to = next_offset
        self._landed(next_offset)

    # -- being asked

    @property
    def epoch(self) -> int:
        """Offset of our `own`; -1: none yet."""
        return -1 if self._checkpointer is None else self._checkpointer.epoch

    @property
    def answers(self) -> bool:
        """Whether the partition may be asked: it is open, and as far as any owner before it can have been."""
        at = self.partition
        if self.state != "open" or at is None:
            return False
        if self._answers_from:
            if at.next_offset < self._answers_from and time.monotonic() - self._opened_at < GATE_S:
                return False
            self._answers_from = 0
        return True

    # -- a rebalance

    async def park(self) -> None:
        """Fold no more and write a checkpoint, but keep the store: the partition may stay with us.  See `resume`."""
        if self.state != "open":
            await self.release()
            return
        self.state = "parked"  # the slice in hand is the last
        async with self._busy:
            self._disarm()
        await self.checkpoint()

    @property
    def expected(self) -> int:
        """Where the changelog partition ends if nobody has written since our last batch."""
        return -1 if self._checkpointer is None else self._checkpointer.expected

    def resume(self) -> None:
        """Go on where `park` stopped: the partition has stayed with us and nobody else has written."""
        assert self.state == "parked", self.state
        self.state = "open"
        self._touch()
        self._arm_idle()
        log.info("%r: stays open at %d", self, 0 if self.partition is None else self.partition.next_offset)

    # -- being taken away

    async def release(self) -> None:
        """Write a last checkpoint if the partition was open, and close the store."""
        was_open = self.state == "open"
        self.state = "closed"  # the slice in hand is the last
        async with self._busy:
            self._disarm()
        if was_open:
            await self.checkpoint()
        async with self._busy:
            self.partition = None
            if self._rocks is not None:
                await asyncio.to_thread(self._rocks.close)
                self._rocks = None
        log.info("%r: released", self)

    def _is_open(self) -> bool:
        return self.state == "open"

    def _is_closed(self) -> bool:
        return self.state == "closed"  # another task may have set it while this one waited

    def _touch(self) -> None:
        self.moved_at = time.monotonic()
