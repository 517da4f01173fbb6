"""Changelog: what a partition's changelog holds, its one writer, and the proof that it is the only one.

    00 "own"   -> Own            someone takes the partition; the record's offset is the epoch
    00 "mark"  -> Mark           first record of a checkpoint's batch
    00 "reset" -> Trying         everything before is void: the state begins anew from the source
    00 "try"   -> Trying         what the owner has in hand after an unclean end, or that it gave the partition back
    tag + key  -> epoch(8) value             a row; value begins with upto(8)
    tag + key  -> null, header epoch         a deleted row
    tag + epoch(8) n(8) -> epoch(8) upto(8) rows    a packed store (topology/packed.py)

Every acknowledgement proves that nobody else wrote: the base offset must be the one expected.  If it is not, what lies
between says what to do (design §7.5).  Numbers are big-endian.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError

from milepost.agents import records as records_of
from milepost.schemas.errors import ContractError, StoreError
from milepost.schemas.serde import wire
from milepost.topology.line import LegSpec
from milepost.topology.packed import DELETED, ROW

log = logging.getLogger("milepost.agents.changelog")

OWN_KEY: Final = b"\x00own"
MARK_KEY: Final = b"\x00mark"
RESET_KEY: Final = b"\x00reset"
EPOCH_HEADER: Final = "epoch"
BATCH_BYTES_MAX: Final = 15 * 1024 * 1024
METADATA_S: Final = 0.1
"""Seconds between two attempts to find the broker."""

EMPTY_MAX: Final = 60
"""Fetches of half a second each that may bring nothing, one after the other."""

_u64 = struct.Struct(">Q")
records_of.adopt()

Row = tuple[bytes, bytes | None, int]
"""A changelog record to write: key, value, epoch (which a deletion carries in a header)."""


class Zombie(Exception):
    """Someone else has taken the partition: write nothing more, here or anywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How far a partition has come.

    x:     last source offset absorbed, -1 for none;  body: the leg's own mark
    ahead: records behind X that the owner may fold, and show in answers, before its next mark is in the log
    """

    epoch: int
    x: int
    body: bytes
    decisions: Mapping[str, int]
    cluster: str
    source_topic: str
    ahead: int

    def dump(self) -> bytes:
        return wire("Mark").encode(
            {
                "epoch": self.epoch,
                "x": self.x,
                "body": self.body,
                "decisions": dict(self.decisions),
                "cluster": self.cluster,
                "source_topic": self.source_topic,
                "ahead": self.ahead,
            }
        )

    @classmethod
    def load(cls, data: bytes) -> Mark:
        """ContractError when the bytes are no mark."""
        return cls(**wire("Mark").decode(data))


def dump_own(*, worker: str, incarnation: str, leg: str, partition: int) -> bytes:
    return wire("Own").encode({"worker": worker, "incarnation": incarnation, "leg": leg, "partition": partition})


def dump_row(tag: bytes, key: bytes, value: bytes | None, epoch: int) -> Row:
    return tag + key, None if value is None else _u64.pack(epoch) + value, epoch


def dump_packed(tag: bytes, rows: Iterable[tuple[bytes, bytes | None]], epoch: int, x: int, number: int = 0) -> Row:
    """One record with all changed rows of a packed store.

    number: of the checkpoint within the epoch.  With it the key is never written twice but with the same bytes; X says
    too little, a log is announced in several checkpoints that have absorbed nothing.
    """
    head = _u64.pack(epoch)
    parts = [head, _u64.pack(max(x, 0))]
    append, pack = parts.append, ROW.pack
    for key, value in rows:
        if value is None:
            append(pack(len(key), DELETED))
            append(key)
        else:
            append(pack(len(key), len(value)))
            append(key)
            append(value)
    return tag + head + _u64.pack(number), b"".join(parts), epoch


def epoch_of(record: Any) -> int | None:
    """The epoch a row was written in, or None: the record is not ours.  An epoch is an offset before its rows."""
    if record.value is None:
        found = next((value for name, value in record.headers if name == EPOCH_HEADER), b"")
        epoch = _u64.unpack(found)[0] if len(found) == 8 else None
    else:
        epoch = _u64.unpack_from(record.value)[0] if len(record.value) >= 16 else None
    return epoch if epoch is not None and epoch < record.offset else None


def load_mark(record: Any) -> Mark | None:
    """The mark in a record, or None: the record is not ours."""
    try:
        mark = Mark.load(record.value or b"")
    except ContractError:
        return None
    return mark if 0 <= mark.epoch < record.offset else None


class Log(Protocol):
    """What the proof needs of a changelog partition; the tests have one in memory."""

    async def append(self, rows: Sequence[Row]) -> int:
        """Append all rows as one batch, whole or not at all; returns the offset of the first."""
        ...

    async def read(self, start: int, stop: int) -> list[Any]:
        """The records with start <= offset < stop that are still there."""
        ...


async def append_proved(
    to: Log,
    *,
    spec: LegSpec,
    rows: Sequence[Row],
    mark: Row,
    epoch: int,
    x: int,
    expected: int,
    newest: Callable[[Sequence[bytes]], Sequence[Row]],
) -> int:
    """Append `mark` and `rows` and prove that nobody else wrote since; returns the offset to expect next.

    newest: rows to write again for keys (tag and all) that a dead predecessor's late bytes have covered.
    Raises Zombie, StoreError.
    """
    batch = [mark, *rows]
    while True:
        base = await to.append(batch)
        if base < expected:
            raise StoreError(
                f"the changelog of {spec.name} is shorter than it was: appended at {base}, expected {expected}; "
                f"fix: if the topic was made anew, start the worker again"
            )
        covered = foreign_keys(await to.read(expected, base), spec=spec, epoch=epoch, x=x) if base > expected else []
        expected = base + len(batch)
        if not covered:
            return expected
        log.warning("%s: late bytes of a dead owner cover %d keys: written again", spec.name, len(covered))
        batch = [mark, *newest(covered)]


def foreign_keys(gap: Sequence[Any], *, spec: LegSpec, epoch: int, x: int) -> list[bytes]:
    """Keys that records between two batches of mine have covered.  My own batch, sent twice, covers nothing."""
    each = {one.tag for one in spec.stores if one.changelog == "each"}
    keys: dict[bytes, None] = {}
    mine = False
    for record in gap:
        key = record.key or b""
        if key == OWN_KEY:
            raise Zombie(f"{spec.name}: another owner at offset {record.offset}")
        if key == MARK_KEY:
            mark = load_mark(record)
            mine = mark is not None and mark.epoch == epoch and mark.x == x
        elif key and key[0] in each and not (mine and epoch_of(record) == epoch):
            keys[key] = None
    return list(keys)


class ChangelogWriter:
    """Appends whole batches.  aiokafka's `send_batch` is the one call of either client that returns the base offset."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        # Not idempotent on purpose: a batch that was sent twice is recognised by the proof, and a failed batch of an
        # idempotent producer would leave it without a way to go on.
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            client_id="milepost-changelog",
            acks="all",
            linger_ms=0,
            max_batch_size=BATCH_BYTES_MAX,
            max_request_size=BATCH_BYTES_MAX + 1024 * 1024,
            compression_type="snappy",  # aiokafka's lz4 is level 9: 35 times slower on a batch of 35,000 rows
        )

    async def start(self) -> None:
        await self._producer.start()
        client = self._producer.client
        update = client._metadata_update

        async def paced(*asked: Any) -> bool:
            # Without a broker the sender asks again at once: a thousand refused connections a second.
            found = bool(await update(*asked))
            if not found:
                await asyncio.sleep(METADATA_S)
            return found

        client._metadata_update = paced

    async def stop(self) -> None:
        await self._producer.stop()

    def at(self, topic: str, partition: int) -> ChangelogPartition:
        return ChangelogPartition(self, topic, partition)

    async def append(
        self, topic: str, partition: int, rows: Sequence[Row], sent: Callable[[], None] | None = None
    ) -> int:
        """Append `rows` as one record batch; returns its base offset.  Waits for the broker as long as it takes."""
        pause_s = 0.1
        while True:
            batch = self._producer.create_batch()
            append, now_ms = batch._builder.append, int(time.time() * 1000)  # its wrapper costs as much as it does
            for number, (key, value, epoch) in enumerate(rows):
                if number % 2000 == 1999:
                    await asyncio.sleep(0)  # questions are answered beside it
                headers = [] if value is not None else [(EPOCH_HEADER, _u64.pack(epoch))]
                if append(number, now_ms, key, value, headers) is None:
                    raise StoreError(
                        f"{topic}/{partition}: {len(rows)} rows are over {BATCH_BYTES_MAX} bytes in one batch"
                    )
            batch._relative_offset = len(rows)
            batch.close()
            try:
                future = await self._producer.send_batch(batch, topic, partition=partition)
                if sent is not None:
                    sent()
                metadata = await future
                if metadata.offset >= 0:
                    return int(metadata.offset)
                raise StoreError(f"{topic}/{partition}: the broker did not say where the batch lies")
            except KafkaError as error:
                # A time-out is not "retriable" to aiokafka: the batch may have landed.  The proof tells.
                if not (error.retriable or isinstance(error, KafkaTimeoutError)):
                    raise StoreError(f"{topic}/{partition}: the batch was refused: {error}") from error
                log.warning("%s/%s: the broker did not answer, the batch is sent again: %r", topic, partition, error)
            await asyncio.sleep(pause_s)
            pause_s = min(2.0, pause_s * 2)


class ChangelogPartition:
    """One partition of a changelog, as the proof sees it."""

    def __init__(self, writer: ChangelogWriter, topic: str, partition: int) -> None:
        self._writer = writer
        self.topic = topic
        self.partition = partition
        self.sent: Callable[[], None] | None = None

    async def append(self, rows: Sequence[Row]) -> int:
        return await self._writer.append(self.topic, self.partition, rows, self.sent)

    async def read(self, start: int, stop: int) -> list[Any]:
        found: list[Any] = []
        async for records in read_range(self._writer.bootstrap, self.topic, self.partition, start, stop):
            found.extend(records)
        return found


async def read_range(
    bootstrap: str, topic: str, partition: int, start: int, stop: int, *, records_max: int = 4000
) -> AsyncGenerator[list[Any], None]:
    """Chunks of the records with start <= offset < stop, read without a group.

    StoreError after 60 fetches in a row that waited half a second for nothing.  (Not after 30 s of the clock: of those
    a process that restores many partitions may spend most elsewhere.)
    """
    if start >= stop:
        return
    tp = TopicPartition(topic, partition)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=8 * 1024 * 1024,
        fetch_max_wait_ms=100,
    )
    await consumer.start()
    try:
        consumer.assign([tp])
        begin = (await consumer.beginning_offsets([tp]))[tp]
        stop = min(stop, (await consumer.end_offsets([tp]))[tp])
        position = max(start, begin)
        consumer.seek(tp, position)
        empty = 0
        while position < stop:
            fetched = (await consumer.getmany(tp, timeout_ms=500, max_records=records_max)).get(tp, [])
            if fetched:
                empty = 0
                kept = [record for record in fetched if record.offset < stop]
                if kept:
                    yield kept
                position = fetched[-1].offset + 1
            elif (now := await consumer.position(tp)) > position:
                position, empty = now, 0  # compaction left nothing here
            elif (empty := empty + 1) >= EMPTY_MAX:
                raise StoreError(
                    f"{topic}/{partition}: {empty} fetches brought no record between {position} and {stop}"
                )
    finally:
        await consumer.stop()
