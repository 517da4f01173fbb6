"""Letters: the topic `dead-letters` as this worker has read it, and the records that its letters are about.

    asked -> read on to the topic's ends -> problems (topology/problems.py)      places -> their bytes in the raw log

Read without a group, when somebody asks: so any worker tells of all partitions, and one that nobody asks reads nothing.
The first question reads the whole topic (about 50,000 letters a second), later ones what has come since.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from milepost.agents.changelog import EMPTY_MAX, read_range
from milepost.schemas.errors import ContractError, StoreError
from milepost.topology.problems import Problems, place

JUMP: Final = 2_000
"""Further apart than so many offsets, records are looked for one by one; nearer, what lies between is read too."""
READ_BYTES: Final = 16 * 1024 * 1024
READ_MIN, READ_MAX = 16, 1_000
"""Records of the raw log that are read for one answer."""

Ends = Callable[[], Awaitable[Mapping[int, int]]]


class Letters:
    """See the module.  ends: partition of `dead-letters` -> where it ends now;  dead, raw: the topics' names."""

    def __init__(self, bootstrap: str, dead: str, raw: str, ends: Ends) -> None:
        self._bootstrap, self._dead, self._raw, self._ends = bootstrap, dead, raw, ends
        self._read: dict[int, int] = {}
        self._turn = asyncio.Lock()
        self._problems = Problems()
        self._size = READ_BYTES // 100

    async def problems(self) -> Problems:
        """All problems, as of now.  Bytes that are neither letter nor repair say nothing."""
        async with self._turn:
            for partition, end in (await self._ends()).items():
                start = self._read.get(partition, 0)
                async for records in read_range(self._bootstrap, self._dead, partition, start, end):
                    for number, record in enumerate(records):
                        if number % 200 == 199:
                            await asyncio.sleep(0)
                        try:
                            self._problems.take(partition, record.value)
                        except ContractError:
                            continue  # not ours
                    self._read[partition] = records[-1].offset + 1
                self._read[partition] = max(start, end)
        return self._problems

    async def records(self, places: Sequence[int]) -> list[tuple[int, bytes | None]]:
        """The bytes of records of the raw log, in the order of `places`; None: compaction has removed it.

        Of the first of them, as many as are about `READ_BYTES` together, going by the size of those before."""
        places = places[: max(READ_MIN, min(READ_MAX, READ_BYTES // self._size))]
        wanted: dict[int, list[int]] = {}
        for packed in places:
            here = place(packed)
            wanted.setdefault(here.partition, []).append(here.offset)
        found: dict[tuple[int, int], bytes | None] = {}
        for partition, offsets in wanted.items():
            async for record in read_places(self._bootstrap, self._raw, partition, sorted(offsets)):
                found[partition, record.offset] = record.value
        self._size = 1 + max((len(value) for value in found.values() if value is not None), default=self._size)
        named = ((packed, place(packed)) for packed in places)
        return [(packed, found.get((here.partition, here.offset))) for packed, here in named]


async def read_places(bootstrap: str, topic: str, partition: int, offsets: Sequence[int]) -> AsyncGenerator[Any, None]:
    """The records at some offsets (ascending) of a partition, as far as they are there.

    StoreError when the broker brings nothing for 30 s."""
    tp, wanted = TopicPartition(topic, partition), list(reversed(offsets))
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest", fetch_max_wait_ms=100
    )
    await consumer.start()
    try:
        consumer.assign([tp])
        stop = (await consumer.end_offsets([tp]))[tp]
        at, empty = -JUMP, 0
        while wanted and wanted[-1] < stop:
            if wanted[-1] - at > JUMP or wanted[-1] < at:
                at = wanted[-1]
                consumer.seek(tp, at)
            fetched = (await consumer.getmany(tp, timeout_ms=500, max_records=2_000)).get(tp, [])
            if not fetched and (now := await consumer.position(tp)) <= at:
                if (empty := empty + 1) >= EMPTY_MAX:
                    raise StoreError(f"{topic}/{partition}: {empty} fetches brought no record from {at} on")
                continue
            empty = 0
            for record in fetched:
                while wanted and wanted[-1] < record.offset:
                    wanted.pop()  # compaction left nothing there
                if wanted and wanted[-1] == record.offset:
                    wanted.pop()
                    yield record
            at = fetched[-1].offset + 1 if fetched else now
            while wanted and wanted[-1] < at:
                wanted.pop()
    finally:
        await consumer.stop()
