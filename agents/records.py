"""Records: what the fetch hands out are the records as aiokafka's compiled reader made them.

    bytes -> DefaultRecord (offset, timestamp, key, value, headers)        stock: -> ConsumerRecord, eleven fields more

A ConsumerRecord copies each of them in Python and adds what nobody here reads: two microseconds a record and topic.
`adopt` changes that one step of aiokafka's fetcher, for the whole process; the version is pinned, and a test holds the
seam.
"""

from __future__ import annotations

from typing import Any

from aiokafka.consumer import fetcher


class Records(fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of one fetched partition."""

    def _consumer_record(self, tp: Any, record: Any) -> Any:
        return record


def adopt() -> None:
    """Make aiokafka's fetchers use `Records`.  A second call does nothing."""
    fetcher.PartitionRecords = Records
