"""The log of milestones, as it is asked for: what was said of some companies, read from the topic `milestones`.

    companies -> their partitions -> what was read before, and what has come since -> the records of the companies

Any worker reads it, whoever owns the partition: the topic is the log, and holds what is acknowledged.  What was read
stays in memory, as bytes by company, up to a bound; beyond it each question reads anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import aclosing
from typing import Any, Final

from milepost.schemas.errors import ContractError
from milepost.schemas.keys import leaf_partition
from milepost.topology.recognitions import Recognition, company_of, load

RECORDS_MAX: Final = 200_000
"""Records that are kept at most, some 60 MB."""
FRESH_S: Final = 1.0
"""A partition is read again after so many seconds: a stream asks with each change of its numbers."""


class MilestoneLog:
    """See the module.

    chunks: (partition, first offset, end) -> its records, in chunks;  ends: partitions -> where they end
    """

    def __init__(
        self, partitions: int, chunks: Callable[[int, int, int], Any], ends: Callable[[Collection[int]], Any]
    ) -> None:
        self._partitions = partitions
        self._chunks = chunks
        self._ends = ends
        self._turn = asyncio.Lock()
        self._next: dict[int, int] = {}
        self._read_at: dict[int, float] = {}
        self._rows: dict[int, dict[bytes, dict[bytes, bytes]]] = {}
        self._kept = 0

    async def of(self, companies: Collection[bytes]) -> list[Recognition]:
        """What was said of companies (root leaves, then or now), in the order of its known time."""
        placed: dict[int, list[bytes]] = {}
        for leaf in companies:
            placed.setdefault(leaf_partition(leaf, self._partitions), []).append(leaf)
        async with self._turn:
            now = time.monotonic()
            stale = [number for number in placed if now - self._read_at.get(number, -FRESH_S) >= FRESH_S]
            if stale:
                ends: Mapping[int, int] = await self._ends(stale)
                for number in stale:
                    await self._read(number, ends[number])
                    self._read_at[number] = now
            values = [
                value
                for number, leaves in placed.items()
                for leaf in leaves
                for value in self._rows[number].get(leaf, {}).values()
            ]
            if self._kept > RECORDS_MAX:
                self._next.clear()
                self._read_at.clear()
                self._rows.clear()
                self._kept = 0
        found: list[Recognition] = []
        for value in values:
            with contextlib.suppress(ContractError):  # foreign bytes under our header say nothing
                one = load(value)
                assert isinstance(one, Recognition)
                found.append(one)
        return sorted(found, key=lambda one: (one.k, one.subject))

    async def _read(self, number: int, end: int) -> None:
        rows = self._rows.setdefault(number, {})
        async with aclosing(self._chunks(number, self._next.get(number, 0), end)) as chunks:
            async for records in chunks:
                for record in records:
                    company = company_of(record.value or b"")
                    if company is not None:
                        of = rows.setdefault(company, {})
                        self._kept += record.key not in of
                        of[record.key] = record.value
                self._next[number] = records[-1].offset + 1
                await asyncio.sleep(0)
        self._next[number] = max(end, self._next.get(number, 0))
