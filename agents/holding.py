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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from milepost.agents import faults, pace, store
from milepost.agents.careful import Careful, say_clean
from milepost.agents.changelog import OWN_KEY, ChangelogWriter, Mark, Zombie, dump_own, read_range
from milepost.agents.checkpoint import Checkpointer, Taken
from milepost.agents.ending import ZOMBIE, end
from milepost.agents.opening import announce, prepare
from milepost.agents.producer import LegProducer
from milepost.agents.reappend import again
from milepost.agents.restore import Restore
from milepost.agents.room import Room
from milepost.agents.suspicion import TRY_KEY, ZONE, Suspicion, Trying, gate
from milepost.ops import telemetry
from milepost.schemas.errors import StoreError
from milepost.topology import quarantine
from milepost.topology.line import LegSpec
from milepost.topology.quarantine import Verdict
from milepost.topology.state import Fold, Leg, Owed, Partition, Record

log = logging.getLogger("milepost.agents.holding")

SLICE_MAX: Final = 1000
SLICE_FIRST: Final = 32
CHECKPOINT_S_MAX: Final = 1.0
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
        self.folder = place.folder / f"{spec.name}-{number}"
        self.room = Room(self.folder, self._touch)
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
        self._wrote_s = 0.0  # how long the last checkpoint took
        self._landed_to = 0
        self._opened_at = 0.0
        self._answers_from = 0
        self.careful: Careful | None = None  # after an unclean end, until what was in hand then has passed
        self.gate = gate()

    def __repr__(self) -> str:
        return f"{self.spec.name}/{self.number}"

    # -- being given

    async def take_over(self) -> None:
        """Open the store and append `own`; its offset is the epoch, and how far to restore."""
        rocks = await self.room.opened(self.stamp)
        if rocks is None:  # taken away while it waited for room
            return
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
            store.quarantine(self.folder, str(error))
            telemetry.quarantined(self.spec.name)
            rocks = await self.room.opened(self.stamp)
            if rocks is None:
                return
            restore = Restore(rocks, self.spec, epoch)
        if self._is_closed():  # the worker stops while it is given partitions
            rocks.close()
            return
        self._rocks, self.restore = rocks, restore
        self._checkpointer = Checkpointer(
            spec=self.spec, rocks=rocks, log=self._log, outputs=self._outputs, epoch=epoch, landed=self._on_landed
        )
        self._checkpointer.having = self.room.having
        self.state = "restoring"
        self._touch()
        log.info("%r: epoch %d, restoring from %d", self, epoch, restore.position + 1)

    @property
    def applied(self) -> int:
        """Changelog offset up to which the store holds everything; -1: nothing."""
        if self.state in ("open", "parked"):
            return self.expected - 1
        return -1 if self.restore is None else self.restore.position

    def apply(self, records: Sequence[Any]) -> None:
        """Apply a chunk of the changelog; does nothing unless restoring.

        Without room on the disk the rest is left to `open`, which can wait for it."""
        if self.state != "restoring" or self.restore is None:
            return
        self._touch()
        if self.room.full:
            return
        try:
            self.restore.apply(records)
        except store.DiskFull as error:
            self.room.say(error)
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
            if not self.restore.done:
                # Recovery said it was through and was not: read the rest ourselves, whatever the reason.
                start, stop = self.restore.position + 1, self.restore.own_at + 1
                async for records in read_range(place.bootstrap, place.changelog, self.number, start, stop):
                    await self.room.having(partial(self.restore.apply, records))
                    self._touch()
            if not self.restore.done:
                raise StoreError(f"{self!r}: the changelog ends at {self.restore.position}, before its own `own`")
            self.state = "opening"
            at = await prepare(
                self.leg, self.spec, self.number, self._rocks, self.restore, self._write,
                stamp=self.stamp, bootstrap=place.bootstrap, source=place.source, changelog=place.changelog,
                source_end=source_end,
            )  # fmt: skip
            faults.point("restored")
            self._taken_to = self._landed_to = at.next_offset
            self._answers_from = min(source_end or 0, at.next_offset + UNLANDED_MAX)
            if self.restore.rewrite:
                await self._rewrite(at)
            if at.next_offset == 0 and source_end:
                await announce(
                    self.leg, at, lambda: self._note(at), bootstrap=place.bootstrap, source=place.source,
                    source_end=source_end, bytes_max=place.checkpoint_bytes,
                )  # fmt: skip
            owed = list(self.leg.owed(at))
            if self.restore.unclean:
                until = min(at.next_offset + ZONE, at.next_offset + ZONE if source_end is None else source_end)
                self.careful = Careful(self, at, Suspicion(self.restore.trying, at.next_offset - 1, until))
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
            if self.room.full:
                await self.room.free()
                continue
            if self.careful is not None:
                taken = await self.careful.fold(fresh[done:])
                if taken == 0:
                    break
                done += taken
                continue
            if self.gate.closed:
                await self.gate.opened()
            part = fresh[done : done + self._slice]
            if at.poison and (before := quarantine.clear(at, part)) < len(part):
                if before == 0:
                    await self.pass_over(at, part[0])
                    done += 1
                    continue
                part = part[:before]
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
            await self.take_in(fold)
        wanted = len(part) * pace.slice_s() / max(spent, 1e-6)
        self._slice = int(min(SLICE_MAX, max(1, min(wanted, self._slice * 2))))
        self._touch()
        if self._timer is None or self._idle:
            self._arm(self._pause_s())
        return True

    async def take_in(self, fold: Fold) -> None:
        """What a fold asks for beside its changes."""
        if fold.before:
            await self._outputs.send(fold.before)
        self._owed += fold.after
        for fate, count in fold.fates.items():
            self.fates[fate] += count

    async def pass_over(self, at: Partition, record: Record, found: Verdict | None = None) -> None:
        """Instead of folding `record`: what the verdict on it says.  found: a new verdict, which goes into the log."""
        async with self._busy:
            if not self._is_open():
                return
            verdict = found if found is not None else quarantine.condemned(at, record)
            assert verdict is not None
            if found is not None:
                quarantine.remember(at, found, record.offset)
                await self._outputs.send([self.leg.sentence(at, found)])
                log.error("%r: %s@%d is passed over: %s", self, self.place.source, record.offset, found.detail)
            await self.take_in(self.leg.pass_over(at, record, verdict))
        self._touch()
        if self._timer is None or self._idle:
            self._arm(self._pause_s())

    async def _full(self) -> None:
        """The changes are as large as a checkpoint may be: write one, and fold on only while the one before is away."""
        if self._flight is not None:
            await asyncio.wait([self._flight])
        if self._is_open() and self._flight is None:
            self._start()

    # -- checkpoints

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
        self._flight = asyncio.create_task(self._checkpoint(), name=f"checkpoint {self!r}")
        self._flight.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._flight = None
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
        async with self._busy:
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

    # -- what is asked of the log

    async def _append_again(self, owed: Sequence[Owed]) -> None:
        at = self.partition
        if owed and at is not None:
            place = self.place
            outputs, lost = await again(self.leg, at, owed, bootstrap=place.bootstrap, source=place.source)
            if lost:
                self.fates["owed_lost"] += lost
            await self._outputs.send(outputs)

    async def _write(self, changes: Sequence[store.Change]) -> None:
        def write() -> None:
            if self._is_closed() or self._rocks is None:
                raise StoreError(f"{self!r}: taken away while opening")
            self._rocks.write(changes)

        await self.room.having(write)
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

    def look(self) -> None:
        """End the process when the store's folder is no longer the one that was opened: it comes back and restores."""
        reason = "" if self._rocks is None else self._rocks.gone()
        if reason:
            end(f"{self!r}: {self.folder}: {reason} under the running worker; it is restored from the changelog")

    # -- being taken away

    async def release(self) -> None:
        """Write a last checkpoint if the partition was open, and close the store."""
        was_open = self.state == "open"
        self.state = "closed"  # the slice in hand is the last
        self.room.close()
        async with self._busy:
            self._disarm()
        if was_open and not self.room.full:
            await self.checkpoint()
        await self.flown()
        if was_open and not self.room.full:
            await say_clean(self)
        async with self._busy:
            self.partition = None
            if self._rocks is not None:
                await asyncio.to_thread(self._rocks.close)
                self._rocks = None
        log.info("%r: released", self)

    @property
    def busy(self) -> asyncio.Lock:
        """Held while a slice is folded and its outputs handed over, and while the partition is opened or given back."""
        return self._busy

    @property
    def idle(self) -> bool:
        """Open, and no checkpoint is away."""
        return self._is_open() and self._flight is None

    async def still(self) -> bool:
        """Wait until no checkpoint is away and none is due; False: the partition is being given back."""
        self._disarm()
        await self.flown()
        self._disarm()
        return self._is_open()

    def trust(self) -> None:
        """Fold as ever from here on."""
        log.info("%r: everything that was in hand before has passed", self)
        self.careful = None

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
