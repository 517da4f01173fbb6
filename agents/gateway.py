"""Gateway: messages from the web views and the ticker into topics, each with its acknowledged offset.

A producer of its own, gapless like the legs' (agents/producer.py): what was answered `accepted` is in the log.  A
caller waits at most `WAIT_S`; then it hears SendFailed and sends again, which the ids make harmless.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from milepost.agents.ending import end
from milepost.agents.views.services import SendFailed
from milepost.ops.sender import GAPLESS
from milepost.topology.state import Output

WAIT_S: Final = 10.0
QUEUED_MAX: Final = 100_000


class Gateway:
    """See the module.  `namespace` is the deployment's; topics are named as in the line."""

    def __init__(self, bootstrap: str, namespace: str = "") -> None:
        self._prefix = f"{namespace}." if namespace else ""
        self._loop = asyncio.get_running_loop()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": "milepost-gateway",
                **GAPLESS,
                "linger.ms": 2,
                "message.max.bytes": 8 * 1024 * 1024,
                "queue.buffering.max.messages": QUEUED_MAX,
                "error_cb": _on_error,
                "log_level": 2,  # what matters comes through error_cb and the delivery reports
            }
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="milepost-gateway-delivery", daemon=True)
        self._thread.start()

    async def send(self, outputs: Sequence[Output]) -> list[int]:
        """Append `outputs` and wait for their acknowledgements: the offsets, in order.  Raises SendFailed."""
        offsets: list[int | None] = [None] * len(outputs)
        done: asyncio.Future[None] = self._loop.create_future()
        left = len(outputs)
        if not outputs:
            return []

        def finish(failed: KafkaError | None) -> None:
            if not done.done():
                if failed is None:
                    done.set_result(None)
                else:
                    done.set_exception(SendFailed(f"the broker refused it: {failed}"))

        def delivered(place: int) -> Any:
            def report(error: KafkaError | None, message: Any) -> None:
                nonlocal left
                if error is not None:
                    self._loop.call_soon_threadsafe(finish, error)
                    return
                offsets[place] = message.offset()
                left -= 1
                if left == 0:
                    self._loop.call_soon_threadsafe(finish, None)

            return report

        for place, one in enumerate(outputs):
            try:
                self._producer.produce(
                    self._prefix + one.topic, value=one.value, key=one.key, partition=one.partition,
                    headers=list(one.headers) or None, on_delivery=delivered(place),
                )  # fmt: skip
            except BufferError as error:
                raise SendFailed("the broker is behind: the queue towards it is full") from error
            except KafkaException as error:
                raise SendFailed(f"the message cannot be sent: {error}") from error
        try:
            await asyncio.wait_for(asyncio.shield(done), WAIT_S)
        except TimeoutError as error:
            raise SendFailed(f"the broker did not acknowledge within {WAIT_S:.0f} s") from error
        return [offset for offset in offsets if offset is not None]

    async def stop(self) -> None:
        self._stopping.set()
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._producer.flush, WAIT_S)

    def _poll(self) -> None:
        while not self._stopping.is_set():
            self._producer.poll(0.1)


def _on_error(error: KafkaError) -> None:
    if error.fatal():
        end(f"the gateway's producer cannot go on: {error}")
