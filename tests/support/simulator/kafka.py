"""Kafka: a broker's logs: append order, batches appended whole, and the cleaner.

The cleaner keeps what is younger than the topic's lag, and of what is older the last of each key; an old deletion goes
after a while too.  Time is the world's, in seconds; a record's timestamp is what the broker's clock said, in ms.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

Message = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]
"""Key, value, headers."""


class Rec(NamedTuple):
    """A record as a reader sees it; `at` is the world's time when it was appended."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    at: float


def _offset(record: Rec) -> int:
    return record.offset


class Log:
    """One partition.  every: all that was ever appended, as a log that is never cleaned would hold it."""

    __slots__ = ("cleaned", "end", "every", "name", "partition", "records")

    def __init__(self, name: str, partition: int) -> None:
        self.name = name
        self.partition = partition
        self.records: list[Rec] = []
        self.every: list[Rec] = []
        self.end = 0
        self.cleaned = 0

    def append(self, batch: Sequence[Message], timestamp: int, at: float) -> int:
        """Append all of `batch`; the offset of the first."""
        base = self.end
        for key, value, headers in batch:
            record = Rec(self.end, timestamp, key, value, headers, at)
            self.records.append(record)
            self.every.append(record)
            self.end += 1
        return base

    def read(self, start: int, stop: int) -> list[Rec]:
        """The records with start <= offset < stop that are still there."""
        records = self.records
        return records[bisect_left(records, start, key=_offset) : bisect_left(records, stop, key=_offset)]

    def compact(self, before: float, deletions_before: float) -> int:
        """Clean what was appended before `before`; deletions go when they are older than `deletions_before`.

        Returns how many records went.  The last record of the log always stays, as the active segment's does.
        """
        last: dict[bytes | None, int] = {}
        for record in self.records:
            if record.at < before:
                last[record.key] = record.offset
        kept = [
            one
            for one in self.records
            if one.at >= before
            or (last[one.key] == one.offset and (one.value is not None or one.at >= deletions_before))
        ]
        if self.records and (not kept or kept[-1].offset != self.records[-1].offset):
            kept.append(self.records[-1])
        gone = len(self.records) - len(kept)
        self.records = kept
        self.cleaned += gone
        return gone
