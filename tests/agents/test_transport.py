"""The transport: ranges, pieces, and what is neutralised of stock acknowledgement."""

from __future__ import annotations

import asyncio
import random
import struct
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import cramjam
import pytest
from aiokafka.consumer import fetcher
from aiokafka.errors import IllegalStateError
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import ConsumerRecord, TopicPartition
from faust.types import TP
from faust.types.tuples import ConsumerMessage
from hypothesis import given
from hypothesis import strategies as st

from milepost.agents.bindings import engine
from milepost.agents.records import BATCH_BYTES, lz4_decode, zstd_decode
from milepost.agents.transport import (
    BUSY_BYTES,
    BUSY_RECORDS_A_S,
    BUSY_WAIT_MS,
    FETCH_WAIT_MS,
    UNTAKEN_BYTES,
    ChunkConsumer,
    ChunkTransport,
    Ranges,
    size_of,
    split,
)
from milepost.ops.settings import Settings
from milepost.topology.decode import VALUE_BYTES_MAX


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 20)), min_size=1, max_size=12), st.randoms())
def test_what_is_committed_is_the_acknowledged_prefix(sizes: list[tuple[int, int]], chance: random.Random) -> None:
    """Acknowledged in any order, with gaps of the log between: never beyond a range that is in hand."""
    ranges, at, made = Ranges(), 0, []
    for size, gap in sizes:
        at += gap
        made.append((at, at + size - 1))
        ranges.add(*made[-1])
        at += size
    done: set[tuple[int, int]] = set()
    for one in chance.sample(made, len(made)):
        ranges.acknowledge(*one)
        done.add(one)
        prefix = next((i for i, two in enumerate(made) if two not in done), len(made))
        assert ranges.committable == (made[prefix - 1][1] + 1 if prefix else None)
    assert len(ranges) == 0


def test_a_range_that_has_landed_in_part_stays_in_hand() -> None:
    """A checkpoint in the middle of a chunk commits up to there and keeps the rest in hand."""
    ranges = Ranges()
    ranges.add(0, 9)
    ranges.add(10, 19)
    ranges.landed(15)
    assert (ranges.committable, len(ranges)) == (15, 1)
    ranges.landed(20)
    assert (ranges.committable, len(ranges)) == (20, 0)
    ranges.landed(5)
    assert ranges.committable == 20


@given(st.lists(st.integers(), max_size=60), st.integers(1, 20))
def test_pieces_are_the_whole_in_order(records: list[int], size: int) -> None:
    """A long fetch is split into chunks of at most the bound, nothing lost, nothing empty."""
    pieces = list(split(records, size))
    assert [one for piece in pieces for one in piece] == records
    assert all(0 < len(piece) <= size for piece in pieces)


@pytest.fixture
def consumer(tmp_path: Any) -> ChunkConsumer:
    app, _ = engine(Settings(home=tmp_path, broker="127.0.0.1:1"), web_enabled=False)

    async def nothing(*_args: Any) -> None: ...

    async def make() -> ChunkConsumer:
        return ChunkConsumer(app.transport, nothing, nothing, nothing)

    assert isinstance(app.transport, ChunkTransport)
    return asyncio.run(make())


def test_an_acknowledgement_of_a_stream_acknowledges_nothing(consumer: ChunkConsumer) -> None:
    """Stock streams acknowledge in a `finally`, an exception included: no offset moves."""
    tp = TP("numbers", 0)
    message = ConsumerMessage("numbers", 0, 7, 0.0, 0, [], None, None, None, 0, 0, tp)
    consumer._ranges[tp] = Ranges()
    consumer._ranges[tp].add(0, 7)
    consumer.ack(message)
    assert message.acked
    assert consumer._ranges[tp].committable is None
    assert not consumer._acked[tp]


def test_a_gap_of_the_log_advances_nothing(consumer: ChunkConsumer) -> None:
    """Stock book-keeping of gaps commits over unacknowledged ranges, so it does not run."""
    asyncio.run(consumer._add_gap(TP("numbers", 0), 3, 99))
    assert not consumer._gap


def test_a_seek_during_a_rebalance_is_no_failure(consumer: ChunkConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the partitions leave while we seek, nothing is placed and nothing is raised."""
    tp = TP("numbers", 0)

    sought: list[Any] = []

    async def seek_wait(partitions: Any) -> None:
        sought.append(partitions)
        raise IllegalStateError("no longer assigned")

    hooks = SimpleNamespace(next_offset=lambda _tp: 5, chunk_max=10, pressing=set)
    monkeypatch.setattr(consumer.transport, "hooks", hooks)
    monkeypatch.setattr(consumer, "assignment", lambda: {tp})
    monkeypatch.setattr(consumer._thread, "seek_wait", seek_wait)
    assert asyncio.run(consumer.seek_to_committed()) == {}
    assert sought == [{tp: 5}]
    assert consumer._placed == set()


def test_a_fetch_that_waited_for_a_rebalance_is_of_the_new_generation(
    consumer: ChunkConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for before a rebalance, fetched after it: the records are handed on.  Dropped, a restore would wait for
    ever: recovery seeks once."""
    tp = TP("count-changelog", 0)
    records = [SimpleNamespace(offset=3, timestamp=0, timestamp_type=0)]

    async def run() -> list[Any]:
        made = ChunkConsumer(consumer.transport, *3 * [_nothing])
        monkeypatch.setattr(made.transport, "hooks", SimpleNamespace(chunk_max=10, pressing=set))
        monkeypatch.setattr(made, "_is_changelog_tp", lambda _tp: True)
        monkeypatch.setattr(made, "_get_active_partitions", lambda: {tp})

        async def fetched(_active: Any, _timeout: float) -> Any:
            return {tp: records}

        monkeypatch.setattr(made, "_getmany", fetched)
        made.app.consumer_generation_id = 1
        made.stop_flow()
        found: list[Any] = []

        async def drain() -> None:
            async for at, message in made.getmany(1.0):
                found.append((at, message.value, message.generation_id))

        draining = asyncio.create_task(drain())
        await asyncio.sleep(0.01)
        made.app.consumer_generation_id = 2
        made.resume_flow()
        await asyncio.wait_for(draining, 5)
        return found

    assert asyncio.run(run()) == [(tp, records, 2)]


def test_a_seek_beside_a_fetch_is_repeated(consumer: ChunkConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fetch of the assignment before, which still waits when the new one is sought, takes the first records behind
    the seek: nothing of it is handed on, and the seek is repeated, so they are read again."""
    tp = TP("numbers", 0)
    records = [SimpleNamespace(offset=5, timestamp=0, timestamp_type=0)]
    sought: list[Any] = []

    async def run() -> list[Any]:
        made = ChunkConsumer(consumer.transport, *3 * [_nothing])
        made._placed.add(tp)

        async def seek_wait(partitions: Any) -> None:
            sought.append(partitions)

        async def fetched(_active: Any, _timeout: float) -> Any:
            await made.seek_to_committed()  # the rebalance ends while the fetch waits
            return {tp: records}

        monkeypatch.setattr(
            made.transport, "hooks", SimpleNamespace(next_offset=lambda _tp: 5, chunk_max=10, pressing=set)
        )
        monkeypatch.setattr(made, "assignment", lambda: {tp})
        monkeypatch.setattr(made, "_is_changelog_tp", lambda _tp: False)
        monkeypatch.setattr(made, "_get_active_partitions", lambda: {tp})
        monkeypatch.setattr(made, "_getmany", fetched)
        monkeypatch.setattr(made, "_committed_below", _nothing)
        monkeypatch.setattr(made._thread, "seek_wait", seek_wait)
        monkeypatch.setattr(made._thread, "call_thread", _nothing)
        made.resume_flow()
        return [one async for one in made.getmany(1.0)]

    assert asyncio.run(run()) == []
    assert sought == [{tp: 5}, {tp: 5}]


async def _nothing(*_args: Any) -> None: ...


def test_each_chunk_says_what_lies_before_it(consumer: ChunkConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The offset behind the chunk before, through the gaps of a compacted log, or the one that was sought."""
    tp = TP("numbers", 0)
    offsets = [5, 6, 9, 14, 15]

    async def run() -> list[Any]:
        made = ChunkConsumer(consumer.transport, *3 * [_nothing])
        hooks = SimpleNamespace(next_offset=lambda _tp: 3, chunk_max=2, pressing=set)
        monkeypatch.setattr(made.transport, "hooks", hooks)

        async def fetched(_active: Any, _timeout: float) -> Any:
            return {tp: [SimpleNamespace(offset=one, timestamp=0, timestamp_type=0, value=b"") for one in offsets]}

        monkeypatch.setattr(made, "assignment", lambda: {tp})
        monkeypatch.setattr(made, "_is_changelog_tp", lambda _tp: False)
        monkeypatch.setattr(made, "_get_active_partitions", lambda: {tp})
        monkeypatch.setattr(made, "_getmany", fetched)
        monkeypatch.setattr(made, "_committed_below", _nothing)
        monkeypatch.setattr(made, "_pace", lambda _records: None)
        monkeypatch.setattr(made._thread, "seek_wait", _nothing)
        monkeypatch.setattr(made._thread, "call_thread", _nothing)
        made.resume_flow()
        found: list[Any] = []
        for _ in range(2):
            await made.seek_to_committed()
            found += [one.value async for _, one in made.getmany(1.0)]
        return found

    found = asyncio.run(run())
    assert [[one.offset for one in chunk] for chunk in found] == [[5, 6], [9, 14], [15]] * 2
    assert [chunk.begins for chunk in found] == [3, 7, 15] * 2


def test_a_partition_that_is_not_restored_is_not_read(consumer: ChunkConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Assigned and without X+1: it is neither sought nor fetched."""
    monkeypatch.setattr(consumer.transport, "hooks", SimpleNamespace(next_offset=lambda _tp: None, chunk_max=10))
    monkeypatch.setattr(consumer, "assignment", lambda: {TP("numbers", 0)})
    assert asyncio.run(consumer.seek_to_committed()) == {}
    assert consumer._placed == set()


def test_names_cannot_leave_the_data_folder() -> None:
    """Store folders are named from declared legs and numbers alone."""
    from milepost.topology.line import LEGS

    for spec in LEGS:
        assert spec.name.isidentifier()


def test_fetched_records_are_those_of_the_compiled_reader() -> None:
    """What a fetch hands out has offset, timestamp, key, value and headers, and was not copied into another object."""
    batch = MemoryRecords(bytes(made_batch([(b"k", b"v"), (None, None)])))
    found = list(fetcher.PartitionRecords(TopicPartition("t", 0), batch, None, 0, None, None, True, 0))
    assert [(one.offset, one.key, one.value) for one in found] == [(0, b"k", b"v"), (1, None, None)]
    assert found[0].headers == [("h", b"x")] and found[0].timestamp == 7
    assert not isinstance(found[0], ConsumerRecord)


@pytest.mark.parametrize("codec", [1, 3, 4], ids=["gzip", "lz4", "zstd"])
def test_a_batch_that_unpacks_beyond_its_bound_reads_as_records_that_are_too_large(codec: int) -> None:
    """Offsets and times of its records are told, none of its bytes; the batches before and behind it are as they were."""
    sizes = (10, BATCH_BYTES // 2, 20)
    batches = b"".join(packed_batch(3 * n, codec, [bytes([n]) * size] * 3) for n, size in enumerate(sizes))
    found = list(fetcher.PartitionRecords(TopicPartition("t", 0), MemoryRecords(batches), None, 1, None, None, True, 0))
    told = [(one.offset, len(one.value), one.timestamp) for one in found]
    too_large = [(offset, VALUE_BYTES_MAX + 1, 7) for offset in (3, 4, 5)]
    assert told == [(1, 10, 7), (2, 10, 7), *too_large, (6, 20, 7), (7, 20, 7), (8, 20, 7)]
    assert [one.value for one in found[-3:]] == [bytes([2]) * 20] * 3


@pytest.mark.parametrize("decode", [lz4_decode, zstd_decode], ids=["lz4", "zstd"])
def test_a_batch_that_is_damaged_is_not_taken_for_one_that_is_too_large(decode: Callable[[bytes], bytes]) -> None:
    """What cannot be unpacked at all is an error of its own: nothing of it may end as a dead letter."""
    with pytest.raises(cramjam.DecompressionError):
        decode(b"no frame of any kind" * 20_000)


def packed_batch(base: int, codec: int, values: list[bytes]) -> bytes:
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, 0, 2**30)
    for number, value in enumerate(values):
        assert builder.append(number, 7, None, value, []) is not None
    batch = bytearray(builder.build())
    struct.pack_into(">q", batch, 0, base)
    return bytes(batch)


def test_no_more_is_fetched_while_many_bytes_wait(consumer: ChunkConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition whose records in hand are large is held back until its agent has taken some, however few they are."""
    tp = TP("numbers", 0)
    monkeypatch.setattr(consumer, "_get_active_partitions", lambda: {tp})
    monkeypatch.setattr(consumer.transport, "hooks", SimpleNamespace(chunk_max=1000, pressing=set))
    consumer._placed.add(tp)
    chunk = [SimpleNamespace(value=bytes(UNTAKEN_BYTES // 2)), SimpleNamespace(value=None)]
    assert consumer._has_room(tp)
    consumer._untaken[tp], consumer._untaken_bytes[tp] = 4, 2 * size_of(chunk)
    assert not consumer._has_room(tp)
    consumer.taken(tp, chunk)
    assert consumer._has_room(tp) and consumer._untaken_bytes[tp] == UNTAKEN_BYTES // 2


def test_what_presses_is_fetched_first(consumer: ChunkConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a partition presses, no records of others are asked for; then all are again."""
    tps = {TP("numbers", number) for number in range(3)}
    pressing = {TP("numbers", 1), TP("numbers", 7)}
    asked: list[set[TP]] = []

    async def fetched(active: set[TP], _timeout: float) -> Any:
        asked.append(set(active))
        return {}

    monkeypatch.setattr(consumer, "_get_active_partitions", lambda: tps)
    monkeypatch.setattr(consumer, "_is_changelog_tp", lambda _tp: False)
    monkeypatch.setattr(consumer, "_getmany", fetched)
    hooks = SimpleNamespace(chunk_max=10, pressing=lambda: set(pressing))
    monkeypatch.setattr(consumer.transport, "hooks", hooks)
    consumer._placed |= tps
    asyncio.run(consumer._wait_next_records(1.0))
    pressing.clear()
    asyncio.run(consumer._wait_next_records(1.0))
    assert asked == [{TP("numbers", 1)}, tps]


def made_batch(pairs: list[tuple[bytes | None, bytes | None]]) -> bytearray:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, 10_000)
    for number, (key, value) in enumerate(pairs):
        assert builder.append(number, 7, key, value, [("h", b"x")]) is not None
    return bytearray(builder.build())


def test_fetches_are_few_and_large_under_load(consumer: ChunkConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a rate on a fetch waits for many records; when little comes it is answered at once again."""
    fetcher_of = SimpleNamespace(_fetch_min_bytes=1, _fetch_max_wait_ms=0)
    inner = SimpleNamespace(_ensure_consumer=lambda: SimpleNamespace(_fetcher=fetcher_of))
    monkeypatch.setattr(consumer, "_thread", inner)
    for records, expected in (
        (10 * BUSY_RECORDS_A_S, (BUSY_BYTES, BUSY_WAIT_MS)),
        (10, (1, FETCH_WAIT_MS)),
    ):
        consumer._fetched_at = time.monotonic() - 1.0
        consumer._pace(records)
        assert (fetcher_of._fetch_min_bytes, fetcher_of._fetch_max_wait_ms) == expected
