"""Tail: the messages of a topic as they come, decoded (messages.py), without joining a group.

--from start · end · a time · -10   ──▶   an offset for each partition   ──▶   its messages
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from milepost.ops.apply import tables
from milepost.ops.broker import Say, silent
from milepost.ops.messages import decoded
from milepost.ops.provision import cluster_topics
from milepost.ops.settings import Settings
from milepost.schemas.errors import DeclarationError, StoreError
from milepost.topology.bases import instant
from milepost.topology.line import all_topics
from milepost.topology.refusals import BadParameter, closest

ANSWER_S: Final = 10.0
LAST_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """Where to begin.  number: of `time`, ms since the epoch; of `last`, how many messages of each partition."""

    kind: Literal["start", "end", "time", "last"]
    number: int = 0


END: Final = Beginning(kind="end")


def beginning(text: str) -> Beginning:
    """Where `--from` says to begin.  Raises DeclarationError."""
    if text in ("start", "end"):
        return Beginning(kind="start" if text == "start" else "end")
    if text[:1] == "-" and text[1:].isascii() and text[1:].isdigit() and 0 < int(text[1:]) <= LAST_MAX:
        return Beginning(kind="last", number=int(text[1:]))
    try:
        return Beginning(kind="time", number=instant(text, "--from"))
    except BadParameter as error:
        expected = "start, end, a time as 2013-05-12T12:00:00Z, or -10 for the last ten of each partition"
        raise DeclarationError(f"--from {text[:64]!r}: expected {expected}") from error


def tail(
    settings: Settings, name: str, *, begin: Beginning = END, wait: bool = True, say: Say = silent
) -> Iterator[dict[str, Any]]:
    """Messages of the line's topic `name`, decoded.  Without `wait` up to its end of this moment.

    Raises DeclarationError for a name that is not of the line, StoreError when the broker fails.
    """
    known = [topic.name for topic in all_topics()]
    bare = name.removeprefix(settings.topic("")) if settings.namespace else name
    if bare not in known:
        guess = closest(bare, known)
        meant = f"; did you mean {guess}? Known" if guess else "; known"
        raise DeclarationError(f"{name!r} is no topic of the line{meant}: {', '.join(known)}")
    topic = settings.topic(bare)
    there = cluster_topics(settings)
    if topic not in there:
        raise StoreError(f"{topic} is not at {settings.bootstrap}; fix: `milepost up` makes it")
    consumer = Consumer(
        {
            "bootstrap.servers": settings.bootstrap,
            "group.id": "milepost-tail",  # required by the client, joined by nobody: partitions are assigned by hand
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    try:
        table = cache(lambda: tables(settings))  # what ids mean when the first framed message is met
        for message in _read(consumer, topic, there[topic], begin, wait, say):
            yield decoded(message, bare, table)
    except KafkaException as error:
        cause: Any = error.args[0]
        raise StoreError(f"reading {topic} at {settings.bootstrap}: {cause.str()}") from error
    finally:
        consumer.close()


def _read(consumer: Consumer, topic: str, partitions: int, begin: Beginning, wait: bool, say: Say) -> Iterator[Any]:
    ends: dict[int, int] = {}
    starts = []
    for number in range(partitions):
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=ANSWER_S)
        first = _first(consumer, TopicPartition(topic, number), begin, low, high)
        if first < high:
            ends[number] = high
        # What comes while we look is not passed over: "end" is the end of this moment, not of the first fetch.
        starts.append(TopicPartition(topic, number, first))
    if not wait and not ends:
        return
    consumer.assign(starts)
    if wait and not ends:
        say(f"waiting for messages of {topic}; Ctrl-C ends it, --from start shows what it holds")
    while wait or ends:
        message = consumer.poll(0.5)
        if not wait:
            for place in consumer.position([TopicPartition(topic, number) for number in ends]):
                if place.offset >= ends[place.partition]:
                    del ends[place.partition]
        if message is None:
            continue
        if (error := message.error()) is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                ends.pop(message.partition() or 0, None)  # compaction may have taken the last record before `ends`
                continue
            if error.code() in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
                time.sleep(0.5)
                continue
            raise StoreError(f"reading {topic}: {error.str()}")
        yield message


def _first(consumer: Consumer, place: TopicPartition, begin: Beginning, low: int, high: int) -> int:
    """The offset at which a partition is read from."""
    match begin.kind:
        case "start":
            return low
        case "end":
            return high
        case "last":
            return max(low, high - begin.number)
    asked = TopicPartition(place.topic, place.partition, begin.number)
    (found,) = consumer.offsets_for_times([asked], timeout=ANSWER_S)
    return high if found.offset == OFFSET_END or found.offset < 0 else int(found.offset)
