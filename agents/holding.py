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
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Final

from milepost.agents import faults, pace, store
from milepost.agents.careful import Careful, say_clean
from milepost.agents.changelog import OWN_KEY, ChangelogWriter, dump_own, read_range
from milepost.agents.checkpoint import Checkpointer
from milepost.agents.ending import end
from milepost.agents.landing import UNLANDED_MAX, Ahead, Landing, Place
from milepost.agents.opening import UNKNOWN, Bounds, announce, prepare
from milepost.agents.producer import LegProducer
from milepost.agents.restore import Restore
from milepost.agents.room import Room
from milepost.agents.suspicion import Suspicion, gate
from milepost.ops import logs, telemetry
from milepost.schemas.errors import StoreError
from milepost.topology import quarantine
from milepost.topology.line import LegSpec
from milepost.topology.quarantine import Verdict
from milepost.topology.state import Fold, Leg, Partition, Record

log = logging.getLogger("milepost.agents.holding")

SLICE_MAX: Final = 1000
SLICE_FIRST: Final = 32
PRESSING_S: Final = 10.0
"""For so many seconds a partition that is open and cannot be asked yet comes before those that can: a question
waits for the last of them, and the others' answers grow no older than that."""
STUCK_S: Final = 2.0
"""Not while it has not moved for so many seconds: it waits for something that others may have to bring."""
GATE_S: Final = 10.0
"""A partition that has not moved for so many seconds is asked in any case: its next record may wait for a decision.
While it moves it is not asked, however slow it is."""


class Holding(Landing):
    """See the module.  `stamp` says what the folder must belong to; `decisions` the followers' positions at any moment;
    `landed(next_offset)` is told of each checkpoint; `fed()` says since when records come (monotonic; now: they do not,
    other partitions of the worker are still being opened)."""

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
        fed: Callable[[], float] = lambda: 0.0,
    ) -> None:
        super().__init__(
            leg=leg, spec=spec, number=number, place=place, stamp=stamp, outputs=outputs, decisions=decisions,
            landed=landed,
        )  # fmt: skip
        self.skipped = 0
        self.restore: Restore | None = None
        self.folder = place.folder / f"{spec.name}-{number}"
        self.room = Room(self.folder, self._touch)
        self.careful: Careful | None = None  # after an unclean end, until what was in hand then has passed
        self.gate = gate()
        self._pace = pace.turn()
        self._fed = fed
        self._taken_at = 0.0
        self._opened_at = 0.0
        self._log = writer.at(place.changelog, number)
        self._slice = SLICE_FIRST
        self._answers_from = (0, 0)  # asked from so many records on, or from this offset on

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
        faults.point("own_appended", self.spec.name)
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
    def memtable_bytes(self) -> int:
        return 0 if self._rocks is None else self._rocks.memtable_bytes

    @property
    def applied(self) -> int:
        """Changelog offset up to which nobody needs to read for us: our `own`, which `open` restores up to by itself.

        What stock recovery brings all the same is never applied (agents/table.py)."""
        if self.state in ("open", "parked"):
            return self.expected - 1
        return -1 if self.restore is None else self.restore.own_at

    async def open(self, bounds: Bounds = UNKNOWN) -> None:
        """Finish restoring (source and derived stores, rows to write again, what is owed) and open the partition.
        State that the logs, within their `bounds` of now, do not bear out is refused or rebuilt."""
        async with self.busy:
            if self.state != "restoring":
                return
            assert self.restore is not None and self._rocks is not None
            place = self.place
            start, stop = self.restore.position + 1, self.restore.own_at + 1
            async with aclosing(read_range(place.bootstrap, place.changelog, self.number, start, stop)) as changelog:
                async for records in changelog:
                    await self.room.having(partial(self.restore.apply, records))
                    self._touch()
                    faults.point("restoring", self.spec.name)
                    await asyncio.sleep(0)
                    if self._is_closed():
                        return
            if not self.restore.done:
                raise StoreError(f"{self!r}: the changelog ends at {self.restore.position}, before its own `own`")
            self.state = "opening"
            if anew := self.restore.cut(bounds.changelog_start):
                await self._begin_anew(bounds.changelog_start)
            at = await prepare(
                self.leg, self.spec, self.number, self._rocks, self.restore, self._write,
                stamp=self.stamp, bootstrap=place.bootstrap, source=place.source, changelog=place.changelog,
                bounds=bounds,
            )  # fmt: skip
            faults.point("restored", self.spec.name)
            self._taken_to = at.next_offset
            source_end = bounds.source_end or 0
            mark = self.restore.mark
            if anew:  # owners before were anywhere
                self.ahead = Ahead(max(UNLANDED_MAX, source_end - at.next_offset))
            elif mark is not None:
                self.ahead = Ahead(mark.ahead)
            if self.restore.unclean or mark is None:
                self._answers_from = self.ahead.limit, source_end
            if self.restore.rewrite:
                await self._rewrite(at)
            if at.next_offset == 0 and bounds.source_end:
                await announce(
                    self.leg, at, lambda: self._note(at), bootstrap=place.bootstrap, source=place.source,
                    source_end=bounds.source_end, bytes_max=place.checkpoint_bytes,
                )  # fmt: skip
            owed = list(self.leg.owed(at))
            if self.restore.unclean:
                count = self.ahead.limit
                until = at.next_offset + count if bounds.source_end is None else bounds.source_end
                self.careful = Careful(self, at, Suspicion(self.restore.trying, at.next_offset - 1, count, until))
            if not self._set_open(at):
                return
            log.info("%r: open at %d", self, at.next_offset)
            telemetry.restored(self.spec.name, time.monotonic() - self._taken_at, self.restore.applied)
        await self._append_again(owed)

    async def _begin_anew(self, start: int) -> None:
        """The changelog lacks its beginning: say that it is void, and fold the source from its first record again."""
        assert self.restore is not None and self._checkpointer is not None
        log.error("%r: %s begins at %d: state is rebuilt from the source", self, self.place.changelog, start)
        await self._checkpointer.begin_anew()
        await self.room.having(partial(self.restore.begin_anew, self._checkpointer.expected - 1))

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

    def lacks(self, offset: int) -> bool:
        """Whether the partition is open and records before `offset` are still to be folded."""
        return self.state == "open" and self.partition is not None and self.partition.next_offset < offset

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
            if self.ahead.left == 0:
                await self._full()
                continue
            if self.careful is not None:
                taken = await self.careful.fold(fresh[done:])
                if taken == 0:
                    break
                done += taken
                continue
            if self.gate.closed:
                await self.gate.opened()
            part = fresh[done : done + min(self._slice, self.ahead.left)]
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
            if at.size >= self.place.checkpoint_bytes:
                await self._full()
            elif self._flight is None and self.ahead.due:
                self._start()
            await asyncio.sleep(0)
        return len(records) - len(fresh) + done

    async def _fold_slice(self, at: Partition, part: Sequence[Record]) -> bool:
        async with self._pace.beside(self.busy) as turn:
            if not self._is_open():
                return False
            begin = time.perf_counter()
            fold = self.leg.fold(at, part)
            spent = time.perf_counter() - begin
            turn.folded(spent)
            faults.point("after_fold", self.spec.name)
            assert at.next_offset > part[-1].offset, f"{self!r}: the leg did not move on"
            await self.take_in(fold, len(part))
        wanted = len(part) * pace.slice_s() / max(spent, 1e-6)
        self._slice = int(min(SLICE_MAX, max(1, min(wanted, self._slice * 2))))
        self._touch()
        if self._timer is None or self._idle:
            self._arm(self._pause_s())
        return True

    async def take_in(self, fold: Fold, count: int) -> None:
        """What a fold of so many records asks for beside its changes."""
        self.ahead.folded += count
        if fold.before:
            await self._outputs.send(fold.before)
        self._owed += fold.after
        for fate, count in fold.fates.items():
            self.fates[fate] += count

    async def pass_over(self, at: Partition, record: Record, found: Verdict | None = None) -> None:
        """Instead of folding `record`: what the verdict on it says.  found: a new verdict, which goes into the log."""
        async with self.busy:
            if not self._is_open():
                return
            await self.passed_over(at, record, found)
        self._touch()
        if self._timer is None or self._idle:
            self._arm(self._pause_s())

    async def passed_over(self, at: Partition, record: Record, found: Verdict | None) -> None:
        """The same for who holds `busy` and writes a checkpoint behind it."""
        verdict = found if found is not None else quarantine.condemned(at, record)
        assert verdict is not None
        if found is not None:
            quarantine.remember(at, found, record.offset)
            await self._outputs.send([self.leg.sentence(at, found)])
            log.error("%r: a record is passed over: %s", self, found.detail, extra=self.of(record))
        await self.take_in(self.leg.pass_over(at, record, verdict), 1)

    def of(self, record: Record) -> dict[str, str]:
        """The place of a record of this partition, for a line of the log."""
        return logs.place(self.spec.reads, self.number, record.offset)

    async def _full(self) -> None:
        """The changes are as large as a checkpoint may be: write one, and fold on only while the one before is away."""
        if self._flight is not None:
            await asyncio.wait([self._flight])
        if self._is_open() and self._flight is None:
            self._start()

    # -- writing while it opens

    async def _write(self, changes: Sequence[store.Change]) -> None:
        def write() -> None:
            if self._is_closed() or self._rocks is None:
                raise StoreError(f"{self!r}: taken away while opening")
            self._rocks.write(changes)

        await self.room.having(write)
        self._touch()

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
        count, offset = self._answers_from
        if offset:
            behind = at.next_offset < offset and self.ahead.folded < count
            if behind and self._still_s() < GATE_S:
                return False
            self._answers_from = 0, 0
            log.info("%r: asked from %d on", self, at.next_offset)
        return True

    @property
    def presses(self) -> bool:
        """Whether its records come before those of partitions that can be asked."""
        if self.state != "open" or self.answers:
            return False
        return time.monotonic() - max(self._opened_at, self._fed()) < PRESSING_S and self._still_s() < STUCK_S

    def _still_s(self) -> float:
        """For how many seconds it has not moved, although it could have."""
        return time.monotonic() - max(self.moved_at, self._fed())

    @property
    def turn(self) -> asyncio.Lock:
        """Held while a question reads: nothing is folded meanwhile, so that its parts are of one moment."""
        return self.busy

    # -- a rebalance

    async def park(self) -> None:
        """Fold no more and write a checkpoint, but keep the store: the partition may stay with us.  See `resume`."""
        if self.state != "open" or self.room.full:
            await self.release()
            return
        self.state = "parked"  # the slice in hand is the last
        async with self.busy:
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
        was_open = self.state in ("open", "parked")
        self.state = "closed"  # the slice in hand is the last
        self.room.close()
        async with self.busy:
            self._disarm()
        if was_open and not self.room.full:
            await self.checkpoint()
        await self.flown()
        if was_open and not self.room.full:
            await say_clean(self)
        async with self.busy:
            self.partition = None
            if self._rocks is not None:
                await asyncio.to_thread(self._rocks.close)
                self._rocks = None
        log.info("%r: released", self)

    def trust(self) -> None:
        """Fold as ever from here on."""
        log.info("%r: everything that was in hand before has passed", self)
        self.careful = None
