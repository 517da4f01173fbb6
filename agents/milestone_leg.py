"""The leg `achieve` with a running body: what agents/achieve.py and agents/milestone_log.py need of the worker.

Of one partition of `milestones` the owner is who has the partition of `measure` with the same number.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from aiokafka.errors import KafkaError
from confluent_kafka import KafkaException
from faust.types import TP

from milepost.agents.achieve import LEG, Achieving, told_by
from milepost.agents.bindings import Runtime
from milepost.agents.breathing import Read
from milepost.agents.changelog import read_range
from milepost.agents.milestone_log import MilestoneLog
from milepost.agents.producer import LegProducer
from milepost.schemas.errors import StoreError
from milepost.topology.reading import Reader
from milepost.topology.recognitions import TOPIC, Recognition, Told

SURE_S: Final = 20.0
"""How long, in seconds, recognition waits for the commit of what lies before a bucket end, until it looks again."""


class MilestoneLeg:
    """See the module.  It lives as long as the worker."""

    def __init__(self, runtime: Runtime, reader: Reader, read: Read) -> None:
        self._runtime = runtime
        self._reader = reader
        self._read = read
        self._topic = runtime.settings.topic(TOPIC)
        self._log = MilestoneLog(reader.partitions, self._records, self._ends)
        self._achieving: Achieving | None = None
        self._task: asyncio.Task[None] | None = None
        self._producer: LegProducer | None = None

    def start(self) -> None:
        """Begin to recognise."""
        self._achieving = Achieving(self._reader, self._read, self._sending, self._mine, self._told, self.sure)
        self._task = asyncio.create_task(self._achieving.run(), name="achieve")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._producer is not None:
            await self._producer.stop()

    def status(self) -> Mapping[str, Any]:
        """Partition -> the bucket end up to which everything is said."""
        return {} if self._achieving is None else self._achieving.status()

    @property
    def recognised_ms(self) -> int | None:
        """Known time up to which everything is said; None: it is not known, or nobody has plans."""
        return None if self._achieving is None else self._achieving.recognised_ms

    async def recognitions(self, companies: Collection[bytes]) -> Sequence[Recognition]:
        """What was said of companies (root leaves, then or now), in the order of its known time.  Raises StoreError."""
        with self._asking():
            return await self._log.of(companies)

    def _sending(self) -> LegProducer:
        """The leg's producer, made when the first record is said."""
        if self._producer is None:
            settings = self._runtime.settings
            self._producer = LegProducer(settings.bootstrap, LEG, namespace=settings.namespace)
        return self._producer

    def _mine(self) -> set[int]:
        return set(self._runtime.legs["measure"].partitions)

    def _records(self, partition: int, start: int, stop: int) -> AsyncIterator[list[Any]]:
        return read_range(self._runtime.settings.bootstrap, self._topic, partition, start, stop)

    async def _ends(self, numbers: Collection[int]) -> dict[int, int]:
        found = await self._runtime.ends({TP(self._topic, number) for number in numbers})
        return {tp.partition: end for tp, end in found.items()}

    async def _told(self, partition: int, k: int | None) -> Told:
        with self._asking():
            end = (await self._ends({partition}))[partition]
            return await told_by(lambda: self._records(partition, 0, end), k, partition)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """What the broker refuses, or does not answer, is a StoreError: later it will."""
        try:
            yield
        except (KafkaException, KafkaError, OSError) as error:
            raise StoreError(f"{self._topic}: the broker does not answer: {error}") from error

    async def sure(self) -> bool:
        """Whether all that was known when the last ticks were taken is in the tables, and decided here, too.

        ticks -> ingest has committed what lies before them: links and copies of misrouted records are in their logs
              -> ingest has committed the copies, known when they first came: so are their signals and links
              -> measure has landed the signals: whoever is given a partition next is no less far
              -> the decisions are read to their ends of then
        """
        mine = self._mine()
        if not mine:
            return False
        with self._asking():
            return await self._decided(min(mine))

    async def _decided(self, number: int) -> bool:
        _, reached = self._reader.reached("measure", number)
        raw, signals = (self._runtime.legs[name].source for name in ("ingest", "measure"))
        numbers = range(self._reader.partitions)
        until = time.monotonic() + SURE_S
        if not await self._committed({TP(raw, number): offset + 1 for number, offset in reached.items()}, until):
            return False
        for topic in (raw, signals):
            if not await self._committed(await self._runtime.ends({TP(topic, number) for number in numbers}), until):
                return False
        followers = self._runtime.followers
        ends = await self._runtime.ends({TP(one.topic, 0) for one in followers.values()})
        return await self._runtime.decided_to({name: ends[TP(one.topic, 0)] for name, one in followers.items()})

    async def _committed(self, places: Mapping[TP, int], until: float) -> bool:
        """Whether each partition is committed up to its offset before the time is over."""
        while True:
            done = await self._runtime.committed(set(places))
            if all(done.get(tp, -1) >= offset for tp, offset in places.items() if offset):
                return True
            if time.monotonic() > until:
                return False
            await asyncio.sleep(0.25)
