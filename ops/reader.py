"""Reader: a topic from its beginning (or from given offsets) to the end of this moment, outside any consumer group."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from milepost.ops.settings import Settings
from milepost.schemas.errors import DeclarationError, StoreError

PATIENCE_S: Final = 30.0
NEW_S_MAX: Final = 5.0
_NOT_YET: Final = frozenset(
    {
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
    }
)


def partition_count(settings: Settings, topic: str) -> int:
    """How many partitions the topic has at the broker; DeclarationError when it is not there."""
    name = settings.topic(topic)
    consumer = plain_consumer(settings.bootstrap)
    try:
        found = consumer.list_topics(name, timeout=PATIENCE_S).topics.get(name)
    except KafkaException as error:
        raise StoreError(f"the broker at {settings.bootstrap} does not answer: {error}") from error
    finally:
        consumer.close()
    if found is None or found.error is not None or not found.partitions:
        raise DeclarationError(f"the topic {name} is not at {settings.bootstrap}; fix: start with `milepost up`")
    return len(found.partitions)


def read_to_end(
    consumer: Any,
    topic: str,
    partitions: int,
    start: Mapping[int, int] | None = None,
    stop: Mapping[int, int] | None = None,
) -> Iterator[Any]:
    """Messages of all partitions from the beginning (or from `start`) to the ends of this moment, in batches.

    The order holds within a partition.  A partition that `start` leaves out is not read; one that `stop` names is read
    up to that offset.
    """
    ends, assigned = {}, []
    try:
        for partition in range(partitions):
            low, high = _ends(consumer, TopicPartition(topic, partition))
            high = min(high, (stop or {}).get(partition, high))
            first = low if start is None else max(low, start.get(partition, high))
            if first < high:
                ends[partition] = high
                assigned.append(TopicPartition(topic, partition, first))
        consumer.assign(assigned)
    except KafkaException as error:
        raise StoreError(f"{topic} cannot be read: {error}") from error
    heard = time.monotonic()
    while ends:
        batch = consumer.consume(10_000, timeout=0.2)  # it waits for so many messages, or for so long
        if batch:
            heard = time.monotonic()
        elif time.monotonic() - heard > PATIENCE_S:
            raise StoreError(f"{topic} cannot be read: the broker sent nothing for {PATIENCE_S:.0f} s")
        for message in batch:
            partition, fault = message.partition(), message.error()
            if fault is not None:
                if fault.code() != KafkaError._PARTITION_EOF:
                    raise StoreError(f"{topic} cannot be read: {fault}")
                ends.pop(partition, None)  # the end of the log: what lay before `high` may have been compacted away
            elif partition in ends:
                if message.offset() < ends[partition]:
                    yield message
                if message.offset() >= ends[partition] - 1:
                    del ends[partition]


def topic_ends(settings: Settings, topic: str) -> dict[int, int]:
    """The end of each partition of a topic of the line: the offset that the next record gets."""
    count = partition_count(settings, topic)
    consumer = plain_consumer(settings.bootstrap)
    try:
        return {number: _ends(consumer, TopicPartition(settings.topic(topic), number))[1] for number in range(count)}
    except KafkaException as error:
        raise StoreError(f"{settings.topic(topic)} cannot be read: {error}") from error
    finally:
        consumer.close()


def _ends(consumer: Any, place: TopicPartition) -> tuple[int, int]:
    """The first offset and the end.  A topic that was made a moment ago is not known to each part of the broker yet."""
    until = time.monotonic() + NEW_S_MAX
    while True:
        try:
            low, high = consumer.get_watermark_offsets(place, timeout=PATIENCE_S)
            return low, high
        except KafkaException as error:
            if error.args[0].code() not in _NOT_YET or time.monotonic() > until:
                raise
            time.sleep(0.1)


def plain_consumer(bootstrap: str, **more: Any) -> Any:
    """A consumer that belongs to no group: it is assigned to partitions by hand, and commits nothing."""
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "milepost-none",  # librdkafka wants a name; without subscription nothing is joined
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "allow.auto.create.topics": False,
            "reconnect.backoff.max.ms": 500,
            **more,
        }
    )
