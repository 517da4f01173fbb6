"""Tail: the messages of a topic as they come, decoded, without joining a group."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any

from confluent_kafka import OFFSET_END, Consumer, KafkaError, TopicPartition

from milepost.ops.apply import tables
from milepost.ops.provision import admin_client
from milepost.ops.settings import Settings
from milepost.schemas import serde, stamps
from milepost.schemas.errors import ContractError, DeclarationError, StoreError
from milepost.schemas.framing import FRAME, NO_TABLE, PREFIX_BYTES, Table
from milepost.topology.line import all_topics


def tail(settings: Settings, name: str, *, from_start: bool = False, wait: bool = True) -> Iterator[dict[str, Any]]:
    """Messages of the line's topic `name`, decoded.  From its end on, or from its start; without `wait` up to its end
    of this moment.  Raises DeclarationError for a name that is not of the line, StoreError when the broker fails."""
    known = [topic.name for topic in all_topics()]
    if name not in known:
        raise DeclarationError(f"{name!r} is no topic of the line; known: {', '.join(known)}")
    topic = settings.topic(name)
    metadata = admin_client(settings).list_topics(timeout=10)
    if topic not in metadata.topics:
        raise StoreError(f"{topic} is not at {settings.bootstrap}; fix: `milepost up` makes it")
    consumer = Consumer(
        {
            "bootstrap.servers": settings.bootstrap,
            "group.id": "milepost-tail",  # required by the client, joined by nobody: partitions are assigned by hand
            "enable.auto.commit": False,
            "enable.partition.eof": False,
            "log_level": 0,
        }
    )
    try:
        table = cache(lambda: tables(settings))  # what ids mean when the first framed message is met
        yield from _read(consumer, topic, len(metadata.topics[topic].partitions), from_start, wait, table)
    finally:
        consumer.close()


def _read(
    consumer: Consumer, topic: str, partitions: int, from_start: bool, wait: bool, known: Callable[[], Table]
) -> Iterator[dict[str, Any]]:
    ends: dict[int, int] = {}
    starts = []
    for number in range(partitions):
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)
        if low < high:
            ends[number] = high
        starts.append(TopicPartition(topic, number, low if from_start else OFFSET_END))
    if not wait and not from_start:
        return
    consumer.assign(starts)
    while wait or ends:
        message = consumer.poll(0.5)
        if not wait:
            # Compaction may have taken the last record: the position says when the end of that moment is passed.
            for place in consumer.position([TopicPartition(topic, number) for number in ends]):
                if place.offset >= ends[place.partition]:
                    del ends[place.partition]
        if message is None:
            continue
        if (error := message.error()) is not None:
            if error.code() in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
                time.sleep(0.5)
                continue
            raise StoreError(f"reading {topic}: {error.str()}")
        yield decoded(message, known)


def decoded(message: Any, known: Callable[[], Table] = lambda: NO_TABLE) -> dict[str, Any]:
    """One message for people: position, time, key in hex, what the value says, and the engine's stamp."""
    _kind, moment = message.timestamp()
    value = message.value()
    line: dict[str, Any] = {
        "at": f"{message.topic()}/{message.partition()}@{message.offset()}",
        "time": datetime.fromtimestamp(moment / 1000, UTC).isoformat(timespec="milliseconds"),
        "key": _hex(message.key()),
        "value": None if value is None else _value(_bytes(value), known),
    }
    for name, content in message.headers() or ():
        if name == stamps.HEADER and content is not None and len(_bytes(content)) == stamps.SIZE:
            line["first"] = _plain(stamps.unpack(_bytes(content)))
    return line


def _value(value: bytes, known: Callable[[], Table]) -> Any:
    if value[:1] == FRAME:
        schema = known().schemas.get(int.from_bytes(value[1:PREFIX_BYTES], "big"))
        if schema is not None and (plain := _unframed(value, known())) is not None:
            return {"schema": schema.id, "subject": schema.subject, **_value(plain, known)}
    if value[:2] == serde.MAGIC:
        try:
            contract, fields = serde.decode_any(value)
        except ContractError as error:
            return {"undecodable": str(error), "bytes": len(value)}
        return {"contract": contract, **_plain(fields)}
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return {"hex": value[:64].hex(), "bytes": len(value)}


def _unframed(value: bytes, table: Table) -> bytes | None:
    try:
        return table.plain(value)
    except ContractError:  # no event: what the schema says, if it is one of ours
        return table.unframed(value)


def _plain(value: Any) -> Any:
    """Anything decoded as what JSON can say: bytes as text of their JSON, else as hex."""
    if isinstance(value, stamps.Stamp):
        return {
            "kind": value.kind.decode("ascii", "replace"),
            "k": value.k_ms,
            "partition": value.partition,
            "offset": value.offset,
            "bundle": value.bundle.hex(),
        }
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return _hex(value)
    return value


def _hex(value: object) -> str | None:
    return None if value is None else _bytes(value)[:64].hex()


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
