"""Clients: what stands in for Kafka's clients in a simulated process: the stream, the producers, the changelog's writer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from faust.types import TP

from milepost.agents import faults
from milepost.agents.changelog import EPOCH_HEADER, Row
from milepost.agents.transport import Chunk
from milepost.topology.state import Output

if TYPE_CHECKING:
    from tests.support.simulator.group import Place
    from tests.support.simulator.kafka import Rec
    from tests.support.simulator.process import Process


class Stream:
    """What Faust's stream is to an agent: chunks of the leg's partitions, some of them more than once."""

    def __init__(self, process: Process, leg: str) -> None:
        self.process = process
        self.leg = leg
        self._handed_to: dict[Place, int] = {}  # behind the last record handed on, or where reading began
        self._waiting: asyncio.Future[Any] | None = None

    def begins(self, place: Place, offset: int) -> None:
        """Reading of a place begins at `offset`."""
        self._handed_to[place] = self.process.placed[place] = offset

    def wake(self) -> None:
        """There may be something to read."""
        if self._waiting is not None:
            self.process.post(resolve, self._waiting)
            self._waiting = None

    async def events(self) -> AsyncIterator[Any]:
        process = self.process
        world, placed = process.world, process.placed
        topic = process.runtime.legs[self.leg].source
        while True:
            due = [at for at in placed if at[0] == self.leg and world.log(topic, at[1]).end > placed[at]]
            if not due:
                self._waiting = process.loop.create_future()
                await self._waiting
                continue
            place = due[0] if len(due) == 1 else world.random.choice(due)
            generation, start = process.generation, placed[place]
            log = world.log(topic, place[1])
            if start and world.chance(world.plan.redelivered):
                start = world.random.randrange(start)
                world.count("redelivered")
            stop = min(log.end, start + world.random.randint(1, world.plan.chunk_max))
            records = log.read(start, stop)
            await process.pause()
            if process.generation != generation or placed.get(place) is None:
                continue  # of another generation: Faust drops it, and the new owner's seek reads it again
            placed[place] = max(placed[place], stop)
            if records:
                self._count_again(place, records)
                faults.point("after_fetch", self.leg)
                tp = TP(topic, place[1])
                chunk = Chunk(records, min(start, self._handed_to[place]))
                self._handed_to[place] = max(self._handed_to[place], records[-1].offset + 1)
                yield SimpleNamespace(message=SimpleNamespace(tp=tp, value=chunk, generation_id=generation))

    def _count_again(self, place: Place, records: Sequence[Rec]) -> None:
        """Records that will be folded although they were folded before: what faults cost."""
        world, at = self.process.world, self.process.runtime.legs[self.leg].partitions.get(place[1])
        highest = world.highest.get(place, -1)
        if at is not None:
            world.stats["records processed again"] += sum(
                1 for one in records if at.next_offset <= one.offset <= highest
            )
            world.highest[place] = max(highest, records[-1].offset)


class Outputs:
    """A leg's producer, with the interface of `LegProducer`: in order on each partition, answers awaited by `barrier`."""

    def __init__(self, process: Process, leg: str) -> None:
        self._process = process
        self._leg = leg
        self._number = 0
        self._open: set[int] = set()
        self._barriers: list[tuple[set[int], int, asyncio.Future[Any]]] = []

    @property
    def waiting(self) -> int:
        return len(self._open)

    async def send(self, outputs: Iterable[Output]) -> None:
        process = self._process
        for one in outputs:
            process.io("send")
            self._number += 1
            self._open.add(self._number)
            wire = process.wire(self._leg, one.topic, one.partition)
            wire.send(((one.key, one.value, one.headers),), partial(self._landed, self._number))

    def _landed(self, number: int, _base: int) -> None:
        self._open.discard(number)
        for left, count, done in self._barriers:
            if number in left:
                left.discard(number)
                if len(left) == count // 2:
                    faults.point("outputs_half", self._leg)
                if not left:
                    resolve(done)
        self._barriers = [one for one in self._barriers if one[0]]

    async def barrier(self) -> None:
        if self._open:
            done = self._process.loop.create_future()
            self._barriers.append((set(self._open), len(self._open), done))
            await done

    async def stop(self) -> None:
        await self.barrier()


class ChangelogLog:
    """One partition of a changelog, as `ChangelogPartition`: whole batches, and the answer names the first offset."""

    def __init__(self, process: Process, topic: str, partition: int) -> None:
        self._process = process
        self.topic = topic
        self.partition = partition
        self.sent: Callable[[], None] | None = None

    async def append(self, rows: Sequence[Row]) -> int:
        process = self._process
        process.io("append")
        batch = [
            (key, value, () if value is not None else ((EPOCH_HEADER, epoch.to_bytes(8, "big")),))
            for key, value, epoch in rows
        ]
        done = process.loop.create_future()
        process.wire("changelog", self.topic, self.partition).send(batch, lambda base: resolve(done, base))
        if self.sent is not None:
            self.sent()
        return int(await done)

    async def read(self, start: int, stop: int) -> list[Rec]:
        await self._process.pause()
        return self._process.world.log(self.topic, self.partition).read(start, stop)


class Writer:
    """As `ChangelogWriter`."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def at(self, topic: str, partition: int) -> ChangelogLog:
        return ChangelogLog(self._process, topic, partition)

    async def stop(self) -> None:
        """Nothing to close."""


def resolve(future: asyncio.Future[Any], value: Any = None) -> None:
    """Set a future's result, once."""
    if not future.done():
        future.set_result(value)
