"""Careful: a partition folded after an unclean end, one noted piece at a time (agents/suspicion.py says why).

    control (others, folded to nothing) -> note -> fold -> held -> outputs, checkpoint
                                                   |_ an exception: taken back, its record searched for in dry runs

Before each piece everything has landed, so a fold that raises is taken back by forgetting what it changed.  Its
record is searched for in the same process, without another crash.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from milepost.agents import faults
from milepost.agents.changelog import Zombie, read_range
from milepost.agents.store import DiskFull
from milepost.agents.suspicion import CONTROL_MAX, CRASHES_MAX, Kind, Suspicion, Trying
from milepost.schemas.errors import StoreError
from milepost.topology import quarantine
from milepost.topology.state import Fold, Partition, Record, Store

if TYPE_CHECKING:
    from milepost.agents.holding import Holding

log = logging.getLogger("milepost.agents.careful")

CLEAN_S: Final = 5.0
"""How long a release waits, in seconds, to tell the next owner that nothing was in hand."""

_MACHINE: Final = (StoreError, OSError, MemoryError)
"""Errors that are not a record's fault: they end the process, as in any fold."""


class Careful:
    """Folds for `holding` until what was in hand at the end before has passed."""

    def __init__(self, holding: Holding, at: Partition, suspicion: Suspicion) -> None:
        self.holding = holding
        self.at = at
        self.suspicion = suspicion
        log.warning("%r: the owner before ended uncleanly: folded with care for a while", holding)

    async def fold(self, records: Sequence[Record]) -> int:
        """Fold the next piece of `records` and wait until it has landed; returns how many were taken (0: not now)."""
        held, at = self.holding, self.at
        async with held.gate.lock:
            await held.still()
            async with held.busy:
                if held.state != "open":
                    return 0
                part = self.suspicion.part(records)[: held.ahead.left]
                before = quarantine.clear(at, part)
                if before == 0:
                    await held.passed_over(at, part[0], None)
                    part = part[:1]
                else:
                    try:
                        part = await self._try(part[:before])
                    except DiskFull as error:
                        # Given back while it waited for room.  Nothing more is written: what is folded may lack its
                        # outputs.
                        held.room.say(error)
                        return 0
        await held.checkpoint()
        held.rest()
        if not part:
            return 0
        if self.suspicion.passed(part):
            held.trust()
        return len(part)

    async def _try(self, part: Sequence[Record]) -> Sequence[Record]:
        """Take `part` in hand; what of it is folded or passed over."""
        held, at = self.holding, self.at
        suspect, crashes = part[0], self.suspicion.crashes(part[0])
        others: bool | None = True
        if crashes:
            await self.note("control", part, crashes)
            others = await self._others_pass(suspect)
            if others is False:
                return ()
            if others and crashes >= CRASHES_MAX:
                if held.leg.repeats(at, suspect):
                    log.info("%r: it repeats what was folded before: no record's fault", held, extra=held.of(suspect))
                    at.next_offset = suspect.offset + 1
                    held.ahead.folded += 1
                    return part
                await self._condemn(suspect, f"the process ended {crashes} times with it alone in hand")
                return part
        if others:
            await self.note("alone" if len(part) == 1 else "range", part, crashes)
        whole, part = part, part[: held.leg.ready(part)]
        if not part:  # it waits for a decision, it is not tried
            await self.note("control" if crashes else "held", whole, crashes)
            return ()
        fold = self._fold(part)
        if fold is None:
            good = self._good(part)
            if good == 0:
                return part[:1] if await self._raises(suspect) else ()
            part = part[:good]
            fold = held.leg.fold(at, part)
        if len(part) == 1:
            await self.note("held", part)
        faults.point("after_fold", held.spec.name)
        await held.take_in(fold, len(part))
        return part

    async def _condemn(self, record: Record, why: str) -> None:
        await self.holding.passed_over(self.at, record, quarantine.verdict(record, "poison", why))

    # -- exceptions: found without a crash

    def _fold(self, part: Sequence[Record]) -> Fold | None:
        """Fold `part`; None: a record of it raised.  What raises, the machine's errors too, changes nothing."""
        at, leg = self.at, self.holding.leg
        if at.size:  # something has not landed that must not be forgotten
            return None if self._error(part) is not None else leg.fold(at, part)
        mark, next_offset, poison = leg.dump_mark(at.mark), at.next_offset, dict(at.poison)
        try:
            return leg.fold(at, part)
        except Exception as error:
            for one in at.stores.values():
                one.forget()
            at.mark, at.next_offset, at.poison = leg.load_mark(mark), next_offset, poison
            if isinstance(error, _MACHINE):
                raise
            log.info("%r: a piece is taken back: %r", self.holding, error)
            return None

    def _good(self, part: Sequence[Record]) -> int:
        """How many of `part`, which raises, fold without an exception, found by halving."""
        low, high = 0, len(part)  # the first `low` fold, the first `high` do not
        while high - low > 1:
            middle = (low + high) // 2
            if self._error(part[:middle]) is None:
                low = middle
            else:
                high = middle
        return low

    async def _raises(self, suspect: Record) -> bool:
        """Whether `suspect` raises each time, others passing in between; then it is passed over."""
        held, errors = self.holding, []
        for _ in range(CRASHES_MAX):
            error = self._error((suspect,))
            if error is None or not await self._others_pass(suspect):
                return False
            errors.append(error)
        log.error("%r: a record cannot be folded", held, exc_info=errors[0], extra=held.of(suspect))
        await self._condemn(
            suspect, f"the fold raised {type(errors[0]).__name__} {len(errors)} times with it alone in hand"
        )
        return True

    async def _others_pass(self, suspect: Record) -> bool | None:
        """Whether another record of the partition can be folded; None: there is no other.

        Those before the suspect have passed once and are taken first.  Where there are none, the last of the log: its
        neighbours may be of its kind.
        """
        others = await self._some(max(0, suspect.offset - CONTROL_MAX), suspect.offset)
        if not others:
            end = max(self.suspicion.until, suspect.offset + 1 + CONTROL_MAX)
            others = await self._some(max(suspect.offset + 1, end - CONTROL_MAX), end)
        if not others:
            held = self.holding
            log.warning("%r: there is nothing beside it to try: a crash does not count", held, extra=held.of(suspect))
            return None
        return any(self._error((one,), again=True) is None for one in others)

    async def _some(self, start: int, stop: int) -> list[Record]:
        place, found = self.holding.place, list[Record]()
        async for records in read_range(place.bootstrap, place.source, self.at.number, start, stop):
            found += quarantine.without(self.at, records)
        return [one for one in found if self.holding.leg.ready((one,))]

    def _error(self, part: Sequence[Record], *, again: bool = False) -> Exception | None:
        """What folding `part` raises; nothing is kept of it.  again: as if it had not been folded before."""
        leg, at = self.holding.leg, self.at
        dry = Partition(
            number=at.number,
            stores={name: Store(name, one) for name, one in at.stores.items()},
            mark=leg.load_mark(leg.dump_mark(at.mark)),
            next_offset=min(at.next_offset, part[0].offset),
            poison=dict(at.poison),
        )
        try:
            if again:
                leg.rewind(dry.mark, part)
            leg.fold(dry, part)
        except _MACHINE:
            raise
        except Exception as error:  # noqa: BLE001 - any other is the record's, which is what is asked
            return error
        return None

    async def note(self, kind: Kind, part: Sequence[Record], crashes: int = 0) -> None:
        await self.holding.note(
            self.at,
            Trying(
                epoch=self.holding.epoch, kind=kind, first=part[0].offset, last=part[-1].offset, count=len(part),
                crashes=crashes,
            ),
        )  # fmt: skip


async def say_clean(holding: Holding) -> None:
    """Tell the next owner that nothing was in hand.  Without it that one is careful for a while: no more."""
    at = holding.partition
    if at is None or holding.careful is not None:
        return
    note = Trying(epoch=holding.epoch, kind="clean")
    try:
        await asyncio.wait_for(holding.note(at, note), CLEAN_S)
    except (TimeoutError, Zombie, StoreError) as error:
        log.info("%r: given back without a word to the next owner: %r", holding, error)
