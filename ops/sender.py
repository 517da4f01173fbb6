"""Sender: a producer that leaves no gap and hides no failure.

Idempotent is not gapless: with a time-out for messages, five of them timed out and the next five were in the log.  So a
message waits as long as it takes, and the first failure that the broker reports is raised at the next call.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from milepost.schemas.errors import StoreError

GAPLESS: Final[Mapping[str, str | int | bool]] = {
    "enable.idempotence": True,
    "enable.gapless.guarantee": True,
    "acks": "all",
    "message.timeout.ms": 0,
    "reconnect.backoff.max.ms": 500,
    "compression.type": "lz4",
}
"""What makes a librdkafka producer gapless: no message times out, a gap is a fatal error (design §7.1)."""

PATIENCE_S: Final = 120.0
"""How long `flush` waits without a single acknowledgement before it gives up."""


class Sender:
    """Messages to explicit partitions.  As a context manager it flushes at the end, unless an exception is under way.

    waiting_max: messages held in memory; `send` waits when there are more.
    """

    def __init__(self, bootstrap: str, *, waiting_max: int = 100_000, linger_ms: int = 20) -> None:
        self.sent = 0
        self._failed: KafkaError | None = None
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                **GAPLESS,
                "linger.ms": linger_ms,
                "log_level": 2,  # what matters arrives in the callbacks; it would also warn of the guarantee we want
                "compression.type": "lz4",
                "queue.buffering.max.messages": waiting_max,
                "delivery.report.only.error": True,  # a callback for each message costs as much as sending it
                "on_delivery": self._delivered,
                "error_cb": self._broken,
            }
        )

    def send(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]] = (),
        timestamp_ms: int = 0,
    ) -> None:
        """Hand over one message; returns before it is acknowledged.  StoreError: an earlier one has failed.

        timestamp_ms: for topics that take the producer's time; 0: now
        """
        while True:
            self._check()
            try:
                self._producer.produce(topic, value, key, partition, headers=list(headers), timestamp=timestamp_ms)
                break
            except BufferError:  # the queue is full: librdkafka sends while we wait
                self._producer.poll(0.1)
        self.sent += 1
        if self.sent % 1000 == 0:
            self._producer.poll(0)

    def flush(self, patience_s: float = PATIENCE_S) -> None:
        """Wait until everything handed over is acknowledged; StoreError after `patience_s` without any progress."""
        left = len(self._producer)
        moved = time.monotonic()
        while left:
            now = self._producer.flush(0.25)
            self._check()
            if now < left:
                left, moved = now, time.monotonic()
            elif time.monotonic() - moved > patience_s:
                raise StoreError(f"the broker acknowledged nothing for {patience_s:.0f} s; {left} messages are waiting")
            left = now
        self._check()

    def __enter__(self) -> Sender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.flush()
        else:
            self._producer.purge()  # else the destructor would wait for messages that nobody wants any more

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None and self._failed is None:
            self._failed = error

    def _broken(self, error: KafkaError) -> None:
        if error.fatal() and self._failed is None:
            self._failed = error

    def _check(self) -> None:
        if self._failed is not None:
            raise StoreError(f"the broker did not take a message: {self._failed.str()}") from KafkaException(
                self._failed
            )
