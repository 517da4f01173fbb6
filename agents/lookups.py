"""Look-ups: what the broker says about topics, over a connection of its own.  They block: call them in a thread."""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from faust.types import TP

from milepost.schemas.errors import DeclarationError


def end_offsets(admin: AdminClient, tps: set[TP]) -> dict[TP, int]:
    """Where partitions end.  Blocks."""
    return _offsets(admin, tps, OffsetSpec.latest())  # type: ignore[no-untyped-call]


def start_offsets(admin: AdminClient, tps: set[TP]) -> dict[TP, int]:
    """Where partitions begin: not at 0 where somebody deleted records; compaction does not move it.  Blocks."""
    return _offsets(admin, tps, OffsetSpec.earliest())  # type: ignore[no-untyped-call]


def asker(bootstrap: str, group: str) -> Consumer:
    """What asks for a group's offsets; it joins nothing.

    Not the admin client: librdkafka 2.16 aborts the process when the coordinator goes away while that asks (its issues
    3663 and 4605), which ended workers in the middle of a broker's restart.
    """
    return Consumer(
        {"bootstrap.servers": bootstrap, "group.id": group, "client.id": "milepost-offsets", "log_level": 3}
    )


def committed(consumer: Consumer, tps: set[TP]) -> dict[TP, int]:
    """What a group has committed: behind it every checkpoint has landed, and its outputs before it; below 0: nothing.

    Blocks.  KafkaException when the broker does not say."""
    found = consumer.committed([TopicPartition(tp.topic, tp.partition) for tp in tps], timeout=30)
    for one in found:
        if one.error is not None:
            raise KafkaException(one.error)
    return {TP(one.topic, one.partition): int(one.offset) for one in found}


def _offsets(admin: AdminClient, tps: set[TP], where: OffsetSpec) -> dict[TP, int]:
    wanted = {TopicPartition(tp.topic, tp.partition): where for tp in tps}
    found = admin.list_offsets(wanted, request_timeout=30)
    return {TP(one.topic, one.partition): int(future.result().offset) for one, future in found.items()}


def describe(admin: AdminClient, names: Sequence[str]) -> tuple[str, dict[str, tuple[str, int]]]:
    """(cluster id, topic -> (topic id, partitions)).  Blocks.  DeclarationError when a topic is missing."""
    cluster = admin.describe_cluster(request_timeout=30).result().cluster_id
    topics: dict[str, tuple[str, int]] = {}
    for name, future in admin.describe_topics(TopicCollection(list(names)), request_timeout=30).items():
        try:
            found = future.result()
        except Exception as error:
            raise DeclarationError(f"topic {name} cannot be read: {error}; fix: provision the topics first") from error
        topics[name] = (str(found.topic_id), len(found.partitions))
    return str(cluster), topics
