"""Records: what a fetch hands out are the records as aiokafka's compiled reader made them, of batches of bounded size.

    bytes -> DefaultRecord (offset, timestamp, key, value, headers)        stock: -> ConsumerRecord, eleven fields more
    a batch that unpacks to more than `BATCH_BYTES`  ->  an `Unread` for each of its offsets

A ConsumerRecord copies each of them in Python and adds what nobody here reads: two microseconds a record and topic.
A few kilobytes of a packed batch can unpack to gigabytes, which would end each worker that ever fetches them, so
unpacking stops at a bound; what lies in such a batch reads as too large, with its offset, and ends as dead letters.
`adopt` changes these steps of aiokafka, for the whole process; the version is pinned, and tests hold the seams.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import cramjam
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record._crecords import default_records

from milepost.topology.decode import VALUE_BYTES_MAX

BATCH_BYTES: Final = 64 * 1024 * 1024
"""Of one batch, unpacked.  A topic takes 2 MiB packed; a producer's batch is a megabyte or so before it is packed."""
LZ4_RATIO: Final = 255
"""The most that lz4 can save; what is shorter than a bound by that much needs no guard."""
NO_ROOM: Final = "failed to write whole buffer"
"""What cramjam says where the room it is given is too small."""
GZIP: Final = zlib.MAX_WBITS | 16


class BatchTooLarge(Exception):
    """A batch would unpack to more than `BATCH_BYTES`."""


class Unread(NamedTuple):
    """Stands for a record of a batch that was not unpacked."""

    offset: int
    timestamp: int
    timestamp_type: int | None = None
    key: bytes | None = None
    value: bytes | None = bytes(VALUE_BYTES_MAX + 1)
    headers: tuple[tuple[str, bytes], ...] = ()


class Records(fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of one fetched partition."""

    next_fetch_offset: int

    def __iter__(self) -> Iterator[Any]:
        return self._records_iterator  # type: ignore[no-any-return]

    def _unpack_records(self) -> Iterator[Any]:
        """As the stock one for who reads what is not committed, too, without a call and a test of each record."""
        assert self._isolation_level != fetcher.READ_COMMITTED, "nothing of ours is a transaction"
        while self._records.has_next():
            batch = self._records.next_batch()
            if self._check_crcs and not batch.validate_crc():
                raise CorruptRecordException(f"Invalid CRC - {self._tp}")
            if not batch.is_control_batch:
                try:
                    for record in batch:
                        offset = record.offset
                        if offset >= self.next_fetch_offset:  # a batch may begin before what was asked for
                            self.next_fetch_offset = offset + 1
                            yield record
                except BatchTooLarge:
                    for offset in range(max(batch.base_offset, self.next_fetch_offset), batch.next_offset):
                        self.next_fetch_offset = offset + 1
                        yield Unread(offset, batch.max_timestamp, batch.timestamp_type)
            self.next_fetch_offset = batch.next_offset  # the last may have been removed by the cleaner


_room = threading.local()
"""Where a thread unpacks what could be large: made once, its pages taken as they are written."""


def _into(decompress_into: Callable[[Any, bytearray], int], payload: Any) -> bytes:
    room: bytearray | None = getattr(_room, "bytes", None)
    if room is None:
        room = _room.bytes = bytearray(BATCH_BYTES)
    try:
        size = decompress_into(payload, room)
    except cramjam.DecompressionError as error:
        if NO_ROOM not in str(error):
            raise  # damaged, which is another matter
        raise BatchTooLarge(f"at most {BATCH_BYTES} bytes a batch are expected: {error}") from error
    return bytes(memoryview(room)[:size])


def lz4_decode(payload: Any) -> bytes:
    """As aiokafka's; raises BatchTooLarge."""
    if len(payload) * LZ4_RATIO <= BATCH_BYTES:
        return bytes(cramjam.lz4.decompress(payload))
    return _into(cramjam.lz4.decompress_into, payload)


def zstd_decode(payload: Any) -> bytes:
    """As aiokafka's; raises BatchTooLarge."""
    return _into(cramjam.zstd.decompress_into, payload)


def gzip_decode(payload: Any) -> bytes:
    """As aiokafka's; raises BatchTooLarge."""
    out = bytearray()
    rest = bytes(payload)
    while rest:  # one member after another, as gzip allows
        member = zlib.decompressobj(GZIP)
        out += member.decompress(rest, BATCH_BYTES + 1 - len(out))
        if len(out) > BATCH_BYTES:
            raise BatchTooLarge(f"at most {BATCH_BYTES} bytes a batch are expected")
        if not member.eof:
            raise EOFError("a gzip stream ends before its end")
        rest = member.unused_data
    return bytes(out)


def adopt() -> None:
    """Make aiokafka's fetchers use `Records` and the bounded codecs.  A second call does nothing.

    Snappy needs no guard: it saves less than 22 times, of 2 MiB.
    """
    fetcher.PartitionRecords = Records
    default_records.lz4_decode = lz4_decode
    default_records.zstd_decode = zstd_decode
    default_records.gzip_decode = gzip_decode
