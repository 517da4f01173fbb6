"""Achieve: the leg that says what is recognised of milestones (topology/recognition.py).

    the ticks of all raw partitions have passed K -> all that was known by K is sent, and decided here, too (`sure`)
        -> each company of my partitions, as shown at the bucket ends up to K -> records, acknowledged -> mark K

Who has measure partition p says what is to be said of the companies whose root lies in p, and reads p of `milestones`
when it is given it: what was said up to the last mark.  A record follows from the log and its key from what it says, so
who is killed between a record and its mark leaves nothing wrong behind: the next says the same again, and so does a
worker that has not noticed yet that it has lost the partition.

What is backdated behind the mark (topology/behind.py) opens it again: the leg goes back to before the least bucket end
that changed and walks anew.  What it says otherwise there is marked as backdated, what it does not say any more is
withdrawn.  Going back is in no record: until the next mark the last one stands, and who goes on finds the same.

It asks as HTTP does, and waits where HTTP answers 503: there is never a verdict from half of the tables.  Between two
companies it rests as long as the last one took, so that it has half of the loop at most.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import ChainMap
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final, Protocol, TypeVar

from milepost.agents import faults
from milepost.agents.breathing import Read, answered
from milepost.agents.turns import for_ever
from milepost.ops import logs
from milepost.schemas.errors import ContractError, StoreError
from milepost.schemas.keys import leaf_partition
from milepost.topology.bases import FOREVER, written
from milepost.topology.behind import Behind
from milepost.topology.panes import PANE_MS
from milepost.topology.parts import Told as TicksTold
from milepost.topology.reading import Progress, Reader, Unavailable
from milepost.topology.receipts import Reached
from milepost.topology.recognition import STRETCH_MAX, Recogniser, decided
from milepost.topology.recognitions import TOPIC, Mark, Past, Recognition, Said, Subject, Told, load
from milepost.topology.state import Output
from milepost.topology.steps import Steps, gather

log = logging.getLogger("milepost.agents.achieve")

T = TypeVar("T")
Behinds = tuple[int, ...]
"""Raw partition -> the last raw offset that brought something behind; -1: none did."""

LEG: Final = "achieve"
PAUSE_S: Final = 1.0
"""How often the ticks are looked at, seconds."""
WAIT_S_MAX: Final = 5.0
"""How long a question that found no answer waits until it is asked again, seconds at most."""
RANGE_MAX: Final = STRETCH_MAX
"""Bucket ends between two marks at most: what a crash says again."""
LOOK_S: Final = 5.0
"""How often it is looked at what came behind, seconds; while more comes each time, it waits."""
MORE_S_MAX: Final = 60.0
"""How long it waits so, seconds at most."""
REST_S_MAX: Final = 1.0


class Sending(Protocol):
    """What says records: a leg's producer."""

    async def send(self, outputs: Sequence[Output]) -> None: ...

    async def barrier(self) -> None: ...


class Lost(Exception):
    """The partition is no longer this worker's."""


class Achieving:
    """The leg `achieve` of one worker.

    mine:  the partitions that are this worker's now
    sending: what says records; asked for when there is something to say
    told:  what a partition of `milestones` has said, up to its mark or, if given, to an earlier bucket end
    sure:  returns once all that was known by now is sent and decided here; False: not yet, look again
    """

    def __init__(
        self,
        reader: Reader,
        read: Read,
        sending: Callable[[], Sending],
        mine: Callable[[], set[int]],
        told: Callable[[int, int | None], Awaitable[Told]],
        sure: Callable[[], Awaitable[bool]],
    ) -> None:
        self.told: dict[int, Told] = {}
        self._reader = reader
        self._recogniser = Recogniser(reader)
        self._read = read
        self._sending = sending
        self._mine = mine
        self._tell = told
        self._sure = sure
        self._passed = -1  # the last bucket end that is sure
        self._looked: dict[int, float] = {}  # partition -> when it was looked at what came behind
        self._coming: dict[int, tuple[float, Behinds]] = {}  # partition -> since when more comes, and what came last

    async def run(self) -> None:
        """Recognise for ever."""
        await for_ever(self.turn, log, "recognition", pause_s=PAUSE_S, later=(Unavailable, StoreError, Lost))

    async def turn(self) -> None:
        """Everything that can be said now.  Raises Unavailable, StoreError, Lost: look again later."""
        mine = self._mine()
        for number in self.told.keys() - mine:
            del self.told[number]
            self._coming.pop(number, None)
        if not mine or self._begins() is None:
            return
        passed = await self._passed_by(mine)
        if passed < 0:
            return
        for number in sorted(mine):
            if number not in self.told:
                self.told[number] = await self._tell(number, None)
                self._looked.pop(number, None)
            await self._look_back(number, self.told[number])
            if self.told[number].mark is not None:
                await self._go_on(number, self.told[number], passed)

    def status(self) -> Mapping[str, Any]:
        """Partition -> the bucket end up to which everything is said."""
        return {
            str(number): written(told.mark.k * PANE_MS) if told.mark is not None and told.mark.until >= 0 else None
            for number, told in sorted(self.told.items())
        }

    @property
    def recognised_ms(self) -> int | None:
        """Known time up to which everything is said, or there was nothing to say; None: it is not known yet."""
        begins = self._begins()
        if begins is None or not self.told:
            return None
        return min(begins - 1 if told.mark is None else told.mark.k for told in self.told.values()) * PANE_MS

    # -- how far

    def _begins(self) -> int | None:
        """The first bucket end at which any organisation had plans; None: none has."""
        found = [self._recogniser.plans_begin(org) for org in self._reader.decisions.history]
        return min((one for one in found if one is not None), default=None)

    async def _passed_by(self, mine: set[int]) -> int:
        """The last bucket end that every partition has passed, and that is sure."""
        try:
            here = self._least([self._reader.progress(number) for number in mine])
        except Unavailable:
            return self._passed
        if here is None or here <= self._passed:
            return self._passed
        parts = [TicksTold(partition=number) for number in range(self._reader.partitions)]
        progresses, _ = await answered(gather(self._reader, parts), self._read)
        passed = self._least(progresses)
        if passed is not None and passed > self._passed and await self._sure():
            self._passed = passed
        return self._passed

    def _least(self, progresses: Sequence[Mapping[int, Progress]]) -> int | None:
        """The last bucket end that lies before all that may still come; None: not all raw partitions are heard of."""
        if any(len(one) < self._reader.partitions for one in progresses):
            return None
        least = min(one.k_ms for progress in progresses for one in progress.values())
        # What is decided at K holds at K, so K itself must have passed.
        return (least - 1) // PANE_MS

    # -- what came behind

    async def _look_back(self, number: int, told: Told) -> None:
        """Go back where something became known behind the mark; of a partition that says nothing yet, begin."""
        now = time.monotonic()
        if now - self._looked.get(number, -LOOK_S) < LOOK_S:
            return
        self._looked[number] = now
        before, bundles = told.mark, self._reader.decisions.applied
        least, behind = await self._behind(before)
        if before is not None and least is None and bundles == before.bundles:
            return
        since, last = self._coming.get(number, (now, None))
        self._coming[number] = since, behind
        if before is not None and last != behind and now - since < MORE_S_MAX:
            return
        if not await self._taken(behind):
            return
        del self._coming[number]
        begins = self._begins()
        assert begins is not None
        if before is None:
            told.mark = Mark(k=begins - 1, until=-1, behind=behind, bundles=bundles)
            return
        k = before.k if least is None else max(begins, min(least, before.k + 1)) - 1
        if k < before.k:
            log.info("achieve/%d: something came behind; recognised anew from %s", number, written((k + 1) * PANE_MS))
            told = self.told[number] = await self._tell(number, k)
        told.mark = replace(before, k=k, behind=behind, bundles=bundles)

    async def _behind(self, mark: Mark | None) -> tuple[int | None, Behinds]:
        """The least bucket end of which something came since the mark, and up to where it came."""
        count = self._reader.partitions
        since = mark.behind if mark is not None and len(mark.behind) == count else (-1,) * count
        parts = [Behind(partition=number, since=since[number]) for number in range(count)]
        found, _ = await answered(gather(self._reader, parts), self._read)
        ends = [end for end, _ in found if end is not None]
        for applied in (one for history in self._reader.decisions.history.values() for one in history):
            if mark is not None and applied.at >= mark.bundles:
                ends.append(decided(applied.k_ms))
        return min(ends, default=None), tuple(offset for _, offset in found)

    async def _taken(self, behind: Behinds) -> bool:
        """Whether what came behind is in the tables, and decided here."""
        parts = [Reached(partition=number, leg="measure") for number in range(self._reader.partitions)]
        found, _ = await answered(gather(self._reader, parts), self._read)
        taken = all(origins.get(raw, -1) >= offset for _, origins in found for raw, offset in enumerate(behind))
        return taken and await self._sure()

    # -- saying

    async def _go_on(self, number: int, told: Told, passed: int) -> None:
        assert told.mark is not None
        while told.mark.k < passed:
            first, last = told.mark.k + 1, min(passed, told.mark.k + RANGE_MAX)
            ahead = await self._range(number, told, first, last)
            marked = replace(told.mark, k=last, until=max(last, told.mark.until))
            await self._sending().barrier()
            faults.point("outputs_acked", LEG)
            await self._sending().send([marked.output(number)])
            faults.point("batch_sent", LEG)
            await self._sending().barrier()
            faults.point("committed", LEG)
            told.said.update(ahead)
            told.loose = {key: one for key, one in told.loose.items() if one.k > last}
            told.mark = marked

    async def _range(self, number: int, told: Told, first: int, last: int) -> dict[Subject, Said]:
        """Say everything of the bucket ends [first, last]: what was said, for when it is marked."""
        assert told.mark is not None
        until = told.mark.until
        ahead: dict[Subject, Said] = {}
        said: ChainMap[Subject, Said] = ChainMap(ahead, told.said)
        partitions = self._reader.partitions
        again: dict[Subject, list[Recognition]] = {}

        def here(root: bytes) -> bool:
            return leaf_partition(root, partitions) == number

        def known(org: str, stop: int) -> Steps[dict[bytes, int]]:
            return self._recogniser.companies_of(org, stop, here)

        def closings(org: str, start: int) -> Steps[list[Recognition]]:
            return self._recogniser.closings(org, start, said)

        def company(org: str, root: bytes, start: int, stop: int) -> Steps[list[Recognition]]:
            return self._recogniser.company(org, root, start, stop, said)

        def withdrawn(one: Recognition, instead: Past | None) -> Steps[Recognition]:
            return self._recogniser.withdrawn(one, instead)

        async def say(found: Sequence[Recognition]) -> None:
            if found:
                faults.point("after_fold", LEG)
            new = []
            for one in found:
                ahead[one.subject] = Said.after(said.get(one.subject), one)
                again.setdefault(one.subject, []).append(one)
                before = told.loose.get(one.key)
                if before is None or not before.holds_as(one):
                    new.append(replace(one, backdated=one.k <= until))
            await send(new)

        async def send(some: Sequence[Recognition]) -> None:
            if some:
                await self._sending().send([one.output(partitions) for one in some])
                told.loose.update((one.key, one) for one in some)

        for org in sorted(self._reader.decisions.history):
            for start, stop in self._recogniser.stretches(org, first, last):
                if not self._recogniser.has_plans(org, start):
                    continue
                await say(await self._ask(number, closings, org, start))
                for root, since in sorted((await self._ask(number, known, org, stop)).items()):
                    await say(await self._ask(number, company, org, root, max(start, since), stop))
        keys = {one.key for some in again.values() for one in some}
        for one in sorted(told.loose.values(), key=lambda one: (one.k, one.key)):
            if one.k <= last and one.withdrawn is None and one.key not in keys:
                before = told.said.get(one.subject)
                past = [each.now for each in again.get(one.subject, ()) if each.k <= one.k]
                instead = past[-1] if past else None if before is None else before.last
                await send([await self._ask(number, withdrawn, one, instead)])
        return ahead

    async def _ask(self, number: int, make: Callable[..., Steps[T]], *given: Any) -> T:
        """The answer to a question, asked until there is one.  Raises Lost."""
        pause_s = 0.1
        while True:
            if number not in self._mine():
                raise Lost(f"achieve/{number}: the partition is another worker's")
            began = time.perf_counter()
            try:
                answer, _ = await answered(make(*given), self._read)
            except (Unavailable, StoreError) as error:
                log.debug("achieve/%d: asked again in %.1f s: %s", number, pause_s, error)
                await asyncio.sleep(pause_s)
                pause_s = min(WAIT_S_MAX, pause_s * 2)
                continue
            await asyncio.sleep(min(REST_S_MAX, time.perf_counter() - began))
            return answer


async def told_by(chunks: Callable[[], Any], k: int | None = None, partition: int = 0) -> Told:
    """What a partition of `milestones` has said up to its last mark, or to an earlier bucket end `k`.

    What lies behind the mark and is of before it was said by a worker that had lost the partition, or was killed while
    it went back: the mark counts up to there.  It is read twice, so that nothing has to be kept."""
    told = Told()
    until = FOREVER if k is None else k
    async for _, value in _values(chunks):
        if isinstance(value, Mark):
            told.mark, until = value, FOREVER if k is None else k
        elif isinstance(value, Recognition):
            until = min(until, value.k - 1)
    if told.mark is not None:
        told.mark = replace(told.mark, k=min(told.mark.k, until))
    async for at, value in _values(chunks):
        if isinstance(value, Recognition):
            told.add(value)
        elif value is None:
            log.error("a record is not ours and is passed over", extra=logs.place(TOPIC, partition, at))
    faults.point("restored", LEG)
    return told


async def _values(chunks: Callable[[], Any]) -> AsyncIterator[tuple[int, Recognition | Mark | None]]:
    """(offset, what it says) of each record; None: it is not ours."""
    async with aclosing(chunks()) as records:
        async for some in records:
            for record in some:
                try:
                    yield record.offset, load(record.value or b"")
                except ContractError:
                    yield record.offset, None
            faults.point("restoring", LEG)
            await asyncio.sleep(0)
