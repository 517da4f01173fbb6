"""A changelog partition in memory, with a network: batches that land late, and compaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from milepost.agents.changelog import EPOCH_HEADER, Row


@dataclass(frozen=True)
class Rec:
    """A record as a reader sees it."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp: int = 0


class MemoryLog:
    """Satisfies `changelog.Log`.  `air` holds batches that were sent and have not landed."""

    def __init__(self) -> None:
        self.records: list[Rec] = []
        self.end = 0
        self.air: list[Sequence[Row]] = []
        self.before_append: Any = None

    def land(self, rows: Sequence[Row]) -> int:
        base = self.end
        for key, value, epoch in rows:
            headers = () if value is not None else ((EPOCH_HEADER, epoch.to_bytes(8, "big")),)
            self.records.append(Rec(self.end, key, value, headers))
            self.end += 1
        return base

    async def append(self, rows: Sequence[Row]) -> int:
        if self.before_append is not None:
            self.before_append(rows)
        return self.land(rows)

    async def read(self, start: int, stop: int) -> list[Rec]:
        return [one for one in self.records if start <= one.offset < stop]

    def compact(self, up_to: int) -> None:
        """Of the records below `up_to` keep the last of each key."""
        last = {one.key: one.offset for one in self.records if one.offset < up_to}
        self.records = [one for one in self.records if one.offset >= up_to or last[one.key] == one.offset]


class MemoryRocks:
    """What Restore and Checkpointer need of a store, in a dict; `copy` is what a crash leaves."""

    def __init__(self, rows: dict[bytes, bytes] | None = None) -> None:
        self.rows = dict(rows or {})
        self.folder = "memory"

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.rows.get(key) for key in keys]

    def scan(self, start: bytes, stop: bytes) -> Any:
        yield from sorted((k, v) for k, v in self.rows.items() if start <= k < stop)

    def write(self, changes: Any) -> None:
        for key, value in changes:
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
