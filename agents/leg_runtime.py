"""A bound leg: its holdings by partition, the agent that feeds them, and what became of the records.

    chunk -> holding of its partition -> fold, until all is folded or the partition is taken away
                                          |_ not ready: wait for a decision, ask again

It is what the table asks when partitions come and go (`agents.table.Holder`), and what the web views read.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from faust.types import TP

from milepost.agents.changelog import Zombie
from milepost.agents.ending import STUCK, ZOMBIE, end
from milepost.agents.holding import Holding
from milepost.agents.opening import Bounds
from milepost.agents.store import Stamp
from milepost.schemas.errors import StoreError
from milepost.topology import quarantine
from milepost.topology.line import LegSpec
from milepost.topology.reading import Unavailable
from milepost.topology.state import Leg, Partition

if TYPE_CHECKING:
    from milepost.agents.bindings import Runtime

log = logging.getLogger("milepost.agents")

OPENED_AT_ONCE: Final = 2
"""Partitions of a leg that restore at a time: more would share the same processor and hold their chunks in memory."""

TURN_S: Final = 0.01
"""How soon a leg looks again, in seconds, whether another one still has what comes first."""

WAITING_MAX: Final = 64
"""Chunks of a leg that wait; the transport holds each partition to a few."""

READY_S: Final = 5.0
"""How long, in seconds, a leg waits for a decision before the wait is logged."""


class LegRuntime:
    """One bound leg: its holdings by partition, what was folded, what became of it."""

    def __init__(self, runtime: Runtime, leg: Leg, spec: LegSpec) -> None:
        self.leg = leg
        self.spec = spec
        self.source = runtime.settings.topic(spec.reads)
        self.changelog = runtime.settings.topic(spec.changelog)
        self.holdings: dict[int, Holding] = {}
        self.records = 0
        self.checkpoints = 0
        self._runtime = runtime
        self._opening = asyncio.Semaphore(OPENED_AT_ONCE)
        self._fates: Counter[str] = Counter()
        self._waiting: deque[Any] = deque()
        self._came, self._went = asyncio.Event(), asyncio.Event()
        self._hand: Any = None

    @property
    def partitions(self) -> dict[int, Partition]:
        """The open partitions, by number."""
        return {
            number: one.partition
            for number, one in self.holdings.items()
            if one.state == "open" and one.partition is not None
        }

    @property
    def restoring(self) -> set[int]:
        """Partitions that are ours and cannot be asked yet."""
        return {number for number, one in self.holdings.items() if not one.answers}

    def asked(self, number: int) -> Holding:
        """The holding to be read by a question.  Raises Unavailable."""
        holding = self.holdings.get(number)
        if holding is None:
            raise Unavailable(self.spec.name, number, "not with this worker")
        if not holding.answers:
            raise Unavailable(self.spec.name, number, "being restored or handed over")
        return holding

    @property
    def memtable_bytes(self) -> int:
        """Memory that the memtables of the leg's stores take."""
        return sum(one.memtable_bytes for one in self.holdings.values())

    @property
    def stalled(self) -> dict[str, str]:
        """Partition -> what it waits for on a full disk."""
        return {str(number): one.room.full for number, one in sorted(self.holdings.items()) if one.room.full}

    @property
    def fates(self) -> Counter[str]:
        """Fate -> records (or pairs) since the process started."""
        total = Counter(self._fates)
        for one in self.holdings.values():
            total.update(one.fates)
        return total

    def lag(self) -> dict[int, int]:
        """Records between what is folded and the end of the log, by partition; those not known yet are left out."""
        found: dict[int, int] = {}
        for number, at in self.partitions.items():
            end_offset = self._runtime.highwater(TP(self.source, number))
            if end_offset is not None:
                found[number] = max(0, end_offset - at.next_offset)
        return found

    # -- what the table asks (agents/table.py)

    def applied(self, number: int) -> int:
        holding = self.holdings.get(number)
        return -1 if holding is None else holding.applied

    async def take_over(self, numbers: set[int]) -> None:
        """Take `numbers` and no others; partitions that were parked and that nobody else has had stay open."""
        await self._runtime.start()
        stamps = await self._runtime.stamps(self, numbers)
        kept = await self._kept(numbers, stamps)
        gone = {number: one for number, one in self.holdings.items() if number not in kept}
        self.holdings = kept
        await self._release(gone.values())
        for one in kept.values():
            one.resume()
        new = sorted(numbers - kept.keys())
        await self._runtime.standbys_give_up(self.spec.name, new)
        fresh = {number: self._runtime.holding(self, number, stamps[number]) for number in new}
        self.holdings |= fresh
        await asyncio.gather(*(one.take_over() for one in fresh.values()))
        self._runtime.assigned = True

    async def _kept(self, numbers: set[int], stamps: Mapping[int, Stamp]) -> dict[int, Holding]:
        """Parked partitions that are still ours.  While we waited for the assignment another may have had them: then
        there is an `own` behind our last batch, and ours is opened anew.  One that lands later still is met by the
        proof of the next checkpoint."""
        parked = {number: one for number, one in self.holdings.items() if one.state == "parked" and number in numbers}
        ends = await self._runtime.ends({TP(self.changelog, number) for number in parked})
        return {
            number: one
            for number, one in parked.items()
            if ends.get(TP(self.changelog, number)) == one.expected and one.stamp == stamps[number]
        }

    async def park(self) -> None:
        """Fold no more and write what is folded; the assignment to come says what stays (`take_over`)."""
        self._drop_waiting()
        await asyncio.gather(*(one.park() for one in self.holdings.values()))
        self._drop_closed()

    async def open(self, numbers: set[int]) -> None:
        # Derived rows need the definitions they were made by, and a fold must not wait for what is in the log already.
        await self._runtime.caught_up()
        sources, changelogs = ({TP(topic, number) for number in numbers} for topic in (self.source, self.changelog))
        ends, starts = await self._runtime.ends(sources), await self._runtime.starts(sources | changelogs)

        async def one(number: int) -> None:
            holding = self.holdings.get(number)
            if holding is None:
                return
            try:
                bounds = Bounds(
                    source_start=starts[TP(self.source, number)],
                    source_end=ends[TP(self.source, number)],
                    changelog_start=starts[TP(self.changelog, number)],
                )
                async with self._opening:
                    await holding.open(bounds)
            except StoreError:
                if holding.state != "closed":
                    raise
                log.info("%r was taken away while opening", holding)

        await asyncio.gather(*(one(number) for number in sorted(numbers)))

    async def release(self) -> None:
        self._drop_waiting()
        holdings, self.holdings = self.holdings, {}
        await self._release(holdings.values())

    async def _release(self, holdings: Collection[Holding]) -> None:
        await asyncio.gather(*(one.release() for one in holdings))
        for one in holdings:
            self._fates.update(one.fates)

    def _drop_waiting(self) -> None:
        """Chunks that wait come again: the transport seeks."""
        self._waiting.clear()
        self._went.set()

    def _drop_closed(self) -> None:
        closed = {number: one for number, one in self.holdings.items() if one.state == "closed"}
        for number, one in closed.items():
            del self.holdings[number]
            self._fates.update(one.fates)

    # -- the agent

    async def run(self, stream: Any) -> None:
        """Take chunks, fold them, for as long as the process lives."""
        folding = asyncio.create_task(self._fold_for_ever(), name=f"folds {self.spec.name}")
        try:
            async for event in stream.events():
                self._waiting.append(event.message)
                self._came.set()
                while len(self._waiting) >= WAITING_MAX:
                    self._went.clear()
                    await self._went.wait()
        except Exception as error:  # noqa: BLE001 - Faust would start the agent again, without what it had in hand
            end(f"{self.spec.name}: its records could not be read: {error}", error=error)
        finally:
            folding.cancel()

    async def _fold_for_ever(self) -> None:
        try:
            while True:
                await self._take(await self._next())
        except Zombie as error:
            end(f"{self.spec.name}: another worker has the partition: {error}", ZOMBIE)
        except Exception as error:  # noqa: BLE001 - whatever it is, the record must not be acknowledged
            end(f"{self.spec.name}: a record could not be folded: {error}", error=error)

    async def _next(self) -> Any:
        """The chunk to take: of partitions that press first, of this leg or another, else as they came."""
        while True:
            while not self._waiting:
                self._came.clear()
                await self._came.wait()
            number = next((n for n, one in enumerate(self._waiting) if self._presses(one)), 0)
            if self._presses(self._waiting[number]) or not self._runtime.pressed:
                message = self._waiting[number]
                del self._waiting[number]
                self._went.set()
                return message
            await asyncio.sleep(TURN_S)

    @property
    def pressed(self) -> bool:
        """Whether a chunk is here of a partition that presses."""
        return any(map(self._presses, self._waiting)) or (self._hand is not None and self._presses(self._hand))

    def _presses(self, message: Any) -> bool:
        holding = self.holdings.get(message.tp.partition)
        return holding is not None and holding.presses

    async def _take(self, message: Any) -> None:
        self._hand = message
        try:
            if self._runtime.of_now(message):
                await self._fold(message)
        finally:
            self._hand = None

    async def _fold(self, message: Any) -> None:
        tp, records = message.tp, message.value
        holding = self.holdings.get(tp.partition)
        if holding is not None and holding.lacks(records.begins):
            end(f"{holding!r}: records before {records.begins} were not folded; they are read again", STUCK)
        left: Sequence[Any] = records
        waited = 0.0
        try:
            while left and holding is not None and holding.state == "open":
                seen = self._runtime.decided
                done = await holding.fold(left)
                self.records += done
                left = left[done:]
                if done or not left or holding.state != "open":
                    continue
                if await self._never(holding, left[0]):
                    left = left[1:]
                    continue
                if not await self._runtime.wait_for_decision(seen, READY_S):
                    waited += READY_S
                    log.warning("%r waits for a decision: %.0f s so far", holding, waited, extra=holding.of(left[0]))
        finally:
            self._runtime.consumer.taken(tp, records)

    async def _never(self, holding: Holding, record: Any) -> bool:
        """Pass over a message that waits for definitions nobody has applied.

        One of ours follows its bundle into the log: where `definitions` is read to its end and does not hold it, the
        message is somebody else's.  (Unless that log was cut: then nothing is condemned.)
        """
        at, follower = holding.partition, self._runtime.followers.get("definitions")
        if not self.leg.waits_unproved or at is None or follower is None or self.leg.ready((record,)):
            return False  # (also while a suspect waits for others: that record is ready)
        tp = TP(follower.topic, 0)
        ends = await self._runtime.ends({tp})
        mark = holding.restore.mark if holding.restore is not None else None
        if follower.position < max(ends[tp], 1 if mark is None else mark.decisions.get("definitions", 1)):
            return False
        if self.leg.ready((record,)):
            return False
        why = "it names definitions that were never applied"
        await holding.pass_over(at, record, quarantine.verdict(record, "unknown_schema", why))
        return True
