"""Gathering: the parts of a question, each from the worker that owns its partition.

    parts -> open here              -> read here
             another worker's       -> asked of it (agents/peers.py), all parts of one worker in one request
             neither, stale_ms given -> a standby that lags by no more (agents/standby.py)

Who owns what is told to every worker with its assignment; that is a hint.  The proof is the owner's: it answers only
for partitions that are open with it, while its lease on them holds (agents/lease.py), before and after it has read.
Whatever is missing makes the whole question Unavailable: never a partial sum.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol

from milepost.agents.breathing import breathing
from milepost.agents.lease import Lease
from milepost.agents.peers import Peers, Refused
from milepost.schemas.errors import StoreError
from milepost.topology.reading import Reader, Unavailable
from milepost.topology.steps import Got, Part

TURN_S: Final = 2.0
"""How long a question waits for a slice of the fold to end, seconds: milliseconds, but where it cannot write."""


class Replica(Reader, Protocol):
    """A standby of one partition (agents/standby.py).  It is read while `turn` is held."""

    @property
    def turn(self) -> asyncio.Lock: ...

    @property
    def lag_ms(self) -> int | None: ...


class Aside(Protocol):
    """The standbys of this worker."""

    def reader(self, leg: str, partition: int) -> Replica | None: ...


class Gathering:
    """Reads parts wherever they are.

    turn:   what is held while a partition of ours is read, so that nothing is folded meanwhile; None: no need to
    owner:  (leg, partition) -> the address of the worker that was given it, or None
    others: the addresses of all other workers
    aside:  the standbys of this worker
    """

    def __init__(
        self,
        reader: Reader,
        lease: Callable[[], Lease | None],
        peers: Peers,
        turn: Callable[[str, int], asyncio.Lock | None],
        owner: Callable[[str, int], str | None],
        others: Callable[[], Sequence[str]],
        aside: Aside | None = None,
    ) -> None:
        self._reader = reader
        self._lease = lease
        self._peers = peers
        self._turn = turn
        self._owner = owner
        self._others = others
        self._aside = aside

    async def read(self, parts: Sequence[Part], stale_ms: int | None = None) -> list[Got]:
        """What each part holds, in order.  Raises Unavailable when one of them cannot be had.

        stale_ms: how much an answer may lag, ms; None: not at all
        """
        places: dict[str | None, list[int]] = {}
        for index, part in enumerate(parts):
            places.setdefault(self._place(part), []).append(index)
        got: dict[int, Got] = {}
        missing: dict[int, Unavailable] = {}

        async def ask(url: str | None, indexes: Sequence[int]) -> None:
            some = [parts[index] for index in indexes]
            answers: Sequence[Got | Refused]
            try:
                answers = await self.here(some, stale_ms) if url is None else await self._peers.ask(url, some, stale_ms)
            except Unavailable as error:
                answers = [Refused(error.why)] * len(some)
            for index, part, answer in zip(indexes, some, answers, strict=True):
                if isinstance(answer, Got):
                    got[index] = answer
                    missing.pop(index, None)
                else:
                    missing[index] = Unavailable(part.leg, part.partition, answer.why)

        await _all([ask(url, indexes) for url, indexes in places.items()])
        if missing and stale_ms is not None:
            # Not the owner, then: this worker's own replica, or whoever else has one.
            for url in (None, *self._others()):
                left = sorted(missing)
                if left:
                    await ask(url, left)
        if missing:
            raise missing[min(missing)]
        return [got[index] for index in range(len(parts))]

    async def here(self, parts: Sequence[Part], stale_ms: int | None = None) -> list[Got | Refused]:
        """What this worker has of `parts`, as owner or, if `stale_ms` allows it, as standby.  Asks nobody.

        The parts of one partition are read together, as of one moment."""
        places: dict[tuple[str, int], list[int]] = {}
        for index, part in enumerate(parts):
            places.setdefault((part.leg, part.partition), []).append(index)
        answers: dict[int, Got | Refused] = {}
        for (leg, partition), indexes in places.items():
            some = [parts[index] for index in indexes]
            found: Sequence[Got | Refused] | None = None
            try:
                found = await self._own(leg, partition, some, stale_ms)
            except (Unavailable, StoreError) as error:
                if stale_ms is not None:
                    found = await self._replica(leg, partition, some, stale_ms)
                if found is None:
                    found = [Refused(error.why if isinstance(error, Unavailable) else "handed over")] * len(some)
            answers.update(zip(indexes, found, strict=True))
        return [answers[index] for index in range(len(parts))]

    def _place(self, part: Part) -> str | None:
        """None: here."""
        try:
            self._reader.epoch(part.leg, part.partition)
        except Unavailable:
            return self._owner(part.leg, part.partition)
        return None

    async def _own(self, leg: str, partition: int, parts: Sequence[Part], stale_ms: int | None) -> list[Got]:
        self._sure(leg, partition, stale_ms)
        async with _held(self._turn(leg, partition), leg, partition):
            epoch = self._reader.epoch(leg, partition)
            values = [await breathing(part.read(self._reader)) for part in parts]
            if self._reader.epoch(leg, partition) != epoch:
                raise Unavailable(leg, partition, "handed over")
        lag_ms = self._sure(leg, partition, stale_ms)
        return [Got(epoch, value, lag_ms) for value in values]

    def _sure(self, leg: str, partition: int, stale_ms: int | None) -> int:
        """How long, in ms, this worker has not known that the partition is its own; 0 while the lease holds.

        Raises Unavailable when that is longer than the question allows."""
        lease = self._lease()
        if lease is None or lease.held:
            return 0
        age_ms = lease.age_ms
        if age_ms is None or stale_ms is None or age_ms > stale_ms:
            raise Unavailable(leg, partition, "with this worker, which the broker has not heard of late")
        return age_ms

    async def _replica(self, leg: str, partition: int, parts: Sequence[Part], stale_ms: int) -> list[Got] | None:
        found = None if self._aside is None else self._aside.reader(leg, partition)
        if found is None:
            return None
        try:
            async with _held(found.turn, leg, partition):
                epoch = found.epoch(leg, partition)
                lag_ms = found.lag_ms
                if lag_ms is None or lag_ms > stale_ms:
                    return None
                return [Got(epoch, await breathing(part.read(found)), lag_ms) for part in parts]
        except (Unavailable, StoreError):
            return None  # it is being opened as the owner's, or was given up


@asynccontextmanager
async def _held(turn: asyncio.Lock | None, leg: str, partition: int) -> AsyncIterator[None]:
    """With `turn` held.  Raises Unavailable when it is not given: whoever has it waits for the broker, or the disk."""
    if turn is None:
        yield
        return
    try:
        if turn.locked():
            await asyncio.wait_for(turn.acquire(), TURN_S)
        else:
            await turn.acquire()
    except TimeoutError:
        raise Unavailable(leg, partition, "waiting to write what it has folded") from None
    try:
        yield
    finally:
        turn.release()


async def _all(work: Sequence[Awaitable[None]]) -> None:
    if len(work) == 1:
        await work[0]
    else:
        await asyncio.gather(*work)
