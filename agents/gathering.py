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
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from milepost.agents.breathing import breathing
from milepost.agents.lease import Lease
from milepost.agents.peers import Peers, Refused
from milepost.schemas.errors import StoreError
from milepost.topology.reading import Reader, Unavailable
from milepost.topology.steps import Got, Part

LAG_MS_MAX: Final = 2**53


class Aside(Protocol):
    """Standby replicas of this worker (agents/standby.py)."""

    def reader(self, leg: str, partition: int) -> tuple[Reader, int] | None:
        """A reader over the replica and how far it lags, ms; None: there is none to be read."""
        ...


class Gathering:
    """Reads parts wherever they are.

    owner: (leg, partition) -> the address of the worker that was given it, or None
    others: the addresses of all other workers
    """

    def __init__(
        self,
        reader: Reader,
        lease: Callable[[], Lease | None],
        peers: Peers,
        owner: Callable[[str, int], str | None],
        others: Callable[[], Sequence[str]],
        aside: Aside | None = None,
    ) -> None:
        self._reader = reader
        self._lease = lease
        self._peers = peers
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
        """What this worker has of `parts`, as owner or, if `stale_ms` allows it, as standby.  Asks nobody."""
        answers: list[Got | Refused] = []
        for part in parts:
            try:
                answers.append(await self._own(part, stale_ms))
            except (Unavailable, StoreError) as error:
                found = None if stale_ms is None else await self._replica(part, stale_ms)
                why = error.why if isinstance(error, Unavailable) else "handed over"
                answers.append(found or Refused(why))
        return answers

    def _place(self, part: Part) -> str | None:
        """None: here."""
        try:
            self._reader.epoch(part.leg, part.partition)
        except Unavailable:
            return self._owner(part.leg, part.partition)
        return None

    async def _own(self, part: Part, stale_ms: int | None) -> Got:
        self._sure(part, stale_ms)
        epoch = self._reader.epoch(part.leg, part.partition)
        value = await breathing(part.read(self._reader))
        if self._reader.epoch(part.leg, part.partition) != epoch:
            raise Unavailable(part.leg, part.partition, "handed over")
        return Got(epoch, value, self._sure(part, stale_ms))

    def _sure(self, part: Part, stale_ms: int | None) -> int:
        """How long, in ms, this worker has not known that the partition is its own; 0 while the lease holds.

        Raises Unavailable when that is longer than the question allows."""
        lease = self._lease()
        if lease is None or lease.held:
            return 0
        age_ms = lease.age_ms
        if age_ms is None or stale_ms is None or age_ms > stale_ms:
            raise Unavailable(part.leg, part.partition, "with this worker, which the broker has not heard of late")
        return age_ms

    async def _replica(self, part: Part, stale_ms: int) -> Got | None:
        found = None if self._aside is None else self._aside.reader(part.leg, part.partition)
        if found is None or found[1] > stale_ms:
            return None
        reader, lag_ms = found
        try:
            epoch = reader.epoch(part.leg, part.partition)
            value = await breathing(part.read(reader))
        except (Unavailable, StoreError):
            return None  # it is being opened as the owner's, or was given up
        return Got(epoch, value, min(lag_ms, LAG_MS_MAX))


async def _all(work: Sequence[Awaitable[None]]) -> None:
    if len(work) == 1:
        await work[0]
    else:
        await asyncio.gather(*work)
