"""Decisions: a one-partition topic that every worker follows whole, without a group.

    definitions, identity-links -> follow -> on_record -> the fold in memory (topology/decisions.py)

There is no changelog: the topic is the log, read from its beginning at each start.  (Faust's GlobalTable loops in
recovery with several workers.)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from milepost.agents.ending import end

log = logging.getLogger("milepost.agents.decisions")

PAUSE_S_MAX: Final = 5.0


class Follower:
    """Follows `topic` (its full name at the broker), partition 0, and hands each record to `on_record`, in order.

    position:  the next offset to be read
    caught_up: set once everything that was in the topic at the start has been handed over
    """

    def __init__(self, bootstrap: str, topic: str, on_record: Callable[[Any], None]) -> None:
        self.topic = topic
        self.position = 0
        self.caught_up = asyncio.Event()
        self._bootstrap = bootstrap
        self._on_record = on_record
        self._moved = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to follow; returns at once.  A second call does nothing."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"follow {self.topic}")

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def wait_beyond(self, position: int, timeout_s: float) -> bool:
        """Wait until something at or behind `position` has been handed over; False when time ran out first."""

        async def moved() -> None:
            async with self._moved:
                await self._moved.wait_for(lambda: self.position > position)

        try:
            await asyncio.wait_for(moved(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def _run(self) -> None:
        pause_s = 0.1
        while True:
            try:
                await self._follow()
            except (KafkaError, OSError) as error:
                log.warning("%s@%d: interrupted, goes on in %.1f s: %r", self.topic, self.position, pause_s, error)
            except Exception as error:  # noqa: BLE001 - any failure of the fold, whatever it is
                # A decision that one worker cannot take must not be passed over: the workers would differ for ever.
                end(f"{self.topic}@{self.position}: the decision cannot be taken: {error!r}", error=error)
            await asyncio.sleep(pause_s)
            pause_s = min(PAUSE_S_MAX, pause_s * 2)

    async def _follow(self) -> None:
        tp = TopicPartition(self.topic, 0)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=8 * 1024 * 1024,
            fetch_max_wait_ms=500,
        )
        await consumer.start()
        try:
            consumer.assign([tp])
            consumer.seek(tp, max(self.position, (await consumer.beginning_offsets([tp]))[tp]))
            target = (await consumer.end_offsets([tp]))[tp]
            while True:
                if await consumer.position(tp) >= target:
                    self.caught_up.set()
                for record in (await consumer.getmany(tp, timeout_ms=1000)).get(tp, ()):
                    self._on_record(record)
                    self.position = record.offset + 1
                async with self._moved:
                    self._moved.notify_all()
        finally:
            await consumer.stop()
