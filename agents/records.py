"""Records: what the fetch hands out are the records as aiokafka's compiled reader made them.

    bytes -> DefaultRecord (offset, timestamp, key, value, headers)        stock: -> ConsumerRecord, eleven fields more

A ConsumerRecord copies each of them in Python and adds what nobody here reads: two microseconds a record and topic.
`adopt` changes that one step of aiokafka's fetcher, for the whole process; the version is pinned, and a test holds the
seam.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException


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
                for record in batch:
                    offset = record.offset
                    if offset >= self.next_fetch_offset:  # a batch may begin before what was asked for
                        self.next_fetch_offset = offset + 1
                        yield record
            self.next_fetch_offset = batch.next_offset  # the last may have been removed by the cleaner


def adopt() -> None:
    """Make aiokafka's fetchers use `Records`.  A second call does nothing."""
    fetcher.PartitionRecords = Records
