"""Producer: one gapless librdkafka producer a leg, for everything but the changelog.

    send -> librdkafka -> broker
              |  (poll thread)
    barrier <-+ the last message of each partition is acknowledged, so all before it are; one error ends the process

A partition's messages are acknowledged in their order, and any that is not is a fatal error.  So a delivery report is
asked for only with the last message of each partition that one `send` hands over: a report costs more than a message.

Idempotent alone is not gapless: messages 1-5 timed out and 6-10 were in the log.  So no message ever times out
(`message.timeout.ms=0`), a gap is a fatal error (`enable.gapless.guarantee`), and `barrier` counts acknowledgements
itself: `flush()` of other clients returned with a message in hand.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from milepost.agents import faults
from milepost.agents.ending import end
from milepost.ops import telemetry
from milepost.ops.sender import GAPLESS
from milepost.topology.state import Output

log = logging.getLogger("milepost.agents.producer")

FULL_S: Final = 0.005
"""How long to wait, in seconds, when librdkafka's queue is full."""


class _Group:
    """The last messages of each `send` between two barriers.

    sent: written by the loop;  acked: by the poll thread
    """

    __slots__ = ("acked", "closed", "done", "leg", "loop", "sent")

    def __init__(self, leg: str, loop: asyncio.AbstractEventLoop) -> None:
        self.leg = leg
        self.loop = loop
        self.done: asyncio.Future[None] = loop.create_future()
        self.sent = 0
        self.acked = 0
        self.closed = False

    def delivered(self, error: KafkaError | None, message: Any) -> None:
        if error is not None:
            end(f"a message to {message.topic()}/{message.partition()} was not delivered: {error}")
        self.acked += 1
        if self.acked * 2 == self.sent + self.sent % 2:
            faults.point("outputs_half", self.leg)
        if self.closed and self.acked == self.sent:
            self.loop.call_soon_threadsafe(self.finish)

    def close(self) -> None:
        self.closed = True
        if self.acked == self.sent:  # the poll thread may see it too: `finish` may run twice
            self.finish()

    def finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class LegProducer:
    """The producer of one leg.  Topic names are the line's; `prefix` puts them under the deployment's namespace."""

    def __init__(self, bootstrap: str, name: str, *, namespace: str = "", extra: dict[str, Any] | None = None) -> None:
        self._prefix = f"{namespace}." if namespace else ""
        self._loop = asyncio.get_running_loop()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": f"milepost-{name}",
                **GAPLESS,
                "linger.ms": 5,
                "message.max.bytes": 8 * 1024 * 1024,
                "queue.buffering.max.messages": 500_000,
                "log_level": 3,  # its own lines go past our log; what matters comes through error_cb
                "error_cb": self._on_error,
                **(extra or {}),
            }
        )
        self._name = name
        self._sent: Counter[str] = Counter()  # topic -> messages since the last barrier
        self._turn = asyncio.Lock()
        self._group = _Group(name, self._loop)
        self._open: list[_Group] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._poll, name=f"milepost-{name}-delivery", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Messages that are not acknowledged yet, about."""
        return len(self._producer)

    async def send(self, outputs: Sequence[Output]) -> None:
        """Hand `outputs` to the client, in order; waits while its queue is full.  `barrier` says when they landed."""
        last = set({(one.topic, one.partition): number for number, one in enumerate(outputs)}.values())
        async with self._turn:  # who waits for room is not overtaken
            self._sent.update([one.topic for one in outputs])
            group = self._group
            for number, one in enumerate(outputs):
                report = None
                if number in last:
                    report = group.delivered
                    group.sent += 1  # before the call: the report may come during it
                if not self._produce(one, report):
                    await self._until_produced(one, report)

    async def barrier(self) -> None:
        """Return when everything sent before this call is acknowledged by the broker."""
        async with self._turn:
            group, self._group = self._group, _Group(self._name, self._loop)
        if group.sent:
            self._open.append(group)
        group.close()
        self._open = [one for one in self._open if not one.done.done()]
        sent, self._sent = self._sent, Counter()
        for open_one in list(self._open):
            await asyncio.shield(open_one.done)
        for topic, count in sent.items():
            telemetry.sent(self._name, topic, count)

    def _produce(self, one: Output, on_delivery: Any) -> bool:
        """False when the client's queue is full."""
        try:
            self._producer.produce(
                self._prefix + one.topic,
                one.value,
                one.key,
                one.partition,
                on_delivery,
                headers=list(one.headers) if one.headers else None,
            )
        except BufferError:
            return False
        except KafkaException as error:
            end(f"a message to {self._prefix + one.topic}/{one.partition} was refused: {error}", error=error)
        return True

    async def _until_produced(self, one: Output, on_delivery: Any) -> None:
        while True:
            await asyncio.sleep(FULL_S)
            if self._produce(one, on_delivery):
                return

    async def stop(self) -> None:
        """Wait for what is on its way and end the poll thread."""
        await self.barrier()
        self._stopping.set()
        await asyncio.to_thread(self._thread.join)

    def _poll(self) -> None:
        try:
            while not self._stopping.is_set():
                self._producer.poll(0.1)
        except Exception as error:  # noqa: BLE001 - without this thread no barrier would ever return
            end(f"delivery reports can no longer be read: {error}", error=error)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            end(f"the producer cannot go on: {error}")
        log.warning("producer: %s", error)
