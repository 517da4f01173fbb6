"""Checkpoints over a log and a store in memory: what one writes where, and what it does when the store refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from milepost.agents import store
from milepost.agents.changelog import Mark
from milepost.agents.checkpoint import Checkpointer
from milepost.agents.restore import Restore
from milepost.agents.store import TableBase
from milepost.topology.state import Partition, Store
from tests.agents.memory import MemoryLog, MemoryRocks, Rec
from tests.agents.test_changelog import OWN
from tests.agents.toy import SPEC, Count


class Bench(MemoryLog):
    """A changelog partition, a store, and the checkpointer between them."""

    def __init__(self) -> None:
        super().__init__()
        self.rocks = MemoryRocks()
        self.epoch = self.land([OWN])
        self.sent: Callable[[], None] | None = None
        self.checkpointer = Checkpointer(
            spec=SPEC, rocks=self.rocks, log=self, outputs=self, epoch=self.epoch, landed=lambda _next: None,  # type: ignore[arg-type]
        )  # fmt: skip
        self.leg = Count()
        self.at = Partition(
            number=0,
            stores={one.name: Store(one.name, TableBase(self.rocks, one.tag)) for one in SPEC.stores},  # type: ignore[arg-type]
            mark=self.leg.new_mark(),
        )

    async def barrier(self) -> None:
        """Nothing is sent here."""

    def checkpoint(self) -> None:
        mark = Mark(
            epoch=self.epoch, x=self.at.next_offset - 1, body=self.leg.dump_mark(self.at.mark),
            decisions={}, cluster="c", source_topic="t", ahead=7,
        )  # fmt: skip
        asyncio.run(self.checkpointer.write(self.at, self.checkpointer.take(self.at, mark, ())))


def test_a_write_that_a_full_disk_refused_is_whole_when_it_is_tried_again() -> None:
    """When there is room again the store holds the whole checkpoint: rows, mark and position."""
    bench = Bench()
    real, refused = bench.rocks.write, []

    def write(changes: Any) -> None:
        made = list(changes)
        if not refused:
            refused.append(made)
            raise store.DiskFull("no room")
        real(made)

    async def having(step: Callable[[], None]) -> None:
        try:
            step()
        except store.DiskFull:
            step()

    bench.rocks.write = write  # type: ignore[method-assign]
    bench.checkpointer.having = having
    bench.leg.fold(bench.at, [Rec(0, b"e0", b"g:1")])
    bench.checkpoint()
    assert refused
    assert {key for key, _ in refused[0]} == set(bench.rocks.rows)
    assert store.MARK in bench.rocks.rows


def test_the_checkpoints_of_an_announcement_do_not_replace_each_other() -> None:
    """Several checkpoints that have absorbed nothing, and the first that has, all outlive the cleaner."""
    bench = Bench()
    for number in range(3):
        bench.at.stores["seen"].put(b"announced%d" % number, bytes(16))
        bench.checkpoint()
    bench.leg.fold(bench.at, [Rec(0, b"e0", b"g:1")])
    bench.checkpoint()
    bench.compact(bench.end)
    rocks = MemoryRocks()
    restore = Restore(rocks, SPEC, bench.land([OWN]))  # type: ignore[arg-type]
    restore.apply(bench.records)
    assert restore.done
    assert sum(1 for key in rocks.rows if key[0] == 1) == 4
