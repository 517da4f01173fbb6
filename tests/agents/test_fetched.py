"""Fetched records: our loop over a fetched partition hands out what aiokafka's own does."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from milepost.agents import records

STOCK: Any = records.Records.__mro__[1]
CONTROL = 0x20


def batch(first: int, offsets: range, *, attributes: int = 0) -> bytes:
    """A batch whose base offset is `first` with records at `offsets`: those between were removed by the cleaner."""
    made = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 20)
    for offset in offsets:
        made.append(offset - first, 1000 + offset, b"k%d" % offset, b"v%d" % offset, [("h", b"x")])
    data = bytearray(made.build())
    data[:8] = first.to_bytes(8, "big")
    data[22] |= attributes
    return bytes(data)


def read(kind: Any, data: bytes, start: int, most: int, *, check: bool = False) -> tuple[list[Any], int]:
    """(what the first `most` records say, the next offset)."""
    made = kind(TopicPartition("t", 0), MemoryRecords(data), [], start, None, None, check, 0)
    found = []
    for one in made:
        found.append((one.offset, one.timestamp, one.key, one.value, tuple(one.headers)))
        if len(found) == most:
            break
    return found, made.next_fetch_offset


@pytest.mark.parametrize("start", [0, 3, 7, 12, 30])
@pytest.mark.parametrize("most", [1, 4, 100])
def test_a_fetched_partition_is_read_as_the_stock_reader_does(start: int, most: int) -> None:
    """Gaps, a batch that begins before what was asked for, a control batch: records and the next offset are the same."""
    data = batch(0, range(5)) + batch(5, range(6, 10, 2)) + batch(12, range(12, 13), attributes=CONTROL)
    data += batch(20, range(20, 25))
    assert read(records.Records, data, start, most) == read(STOCK, data, start, most)


def test_a_damaged_batch_is_refused() -> None:
    """A flipped bit is found by the checksum."""
    data = bytearray(batch(0, range(3)))
    data[-1] ^= 1
    with pytest.raises(CorruptRecordException):
        read(records.Records, bytes(data), 0, 9, check=True)


def test_fetchers_use_our_reader() -> None:
    """Where records are fetched, aiokafka's fetcher makes ours."""
    records.adopt()
    assert fetcher.PartitionRecords is records.Records
