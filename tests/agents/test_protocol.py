"""The checkpoint protocol under random crashes, zombies, late bytes, lost disks and compaction: one seed, one history.

The machine's own parts run here (Restore, Checkpointer, the proof) against a log and disks in memory; time is steps.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from milepost.agents import changelog, checkpoint, store
from milepost.agents.changelog import Mark, Row, Zombie
from milepost.agents.checkpoint import Checkpointer
from milepost.agents.restore import Restore
from milepost.agents.store import TableBase
from milepost.topology.state import Partition, Store
from tests.agents.memory import MemoryLog, MemoryRocks, Rec
from tests.agents.test_changelog import OWN
from tests.agents.toy import SPEC, Count, tables

SEEDS = 400
AIR_STEPS = 15  # how long bytes may stay on the way
LAG_STEPS = 80  # min.compaction.lag.ms, in steps: well above the above


class Crash(Exception):
    """kill -9."""


def run(coro: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that waits for nothing but its turn."""
    while True:
        try:
            assert coro.send(None) is None, "it waited"
        except StopIteration as done:
            return done.value


class World:
    """One source partition, one changelog partition, two nodes."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.log = MemoryLog()
        self.flying: list[tuple[int, Sequence[Row]]] = []
        self.times: list[int] = []  # step at which each changelog offset was appended
        self.now = 0
        n = self.random.randint(10, 50)
        ids = [b"e%d" % (i if self.random.random() < 0.9 else self.random.randrange(i + 1)) for i in range(n)]
        self.source = [Rec(i, key, b"g%d:%d" % (self.random.randrange(4), i)) for i, key in enumerate(ids)]
        self.disks: list[dict[bytes, bytes]] = [{}, {}]
        self.seen: Counter[str] = Counter()

    def land(self, *, everything: bool = False) -> None:
        for one in list(self.flying):
            if everything or self.now - one[0] >= AIR_STEPS or self.random.random() < 0.15:
                self.flying.remove(one)
                self.log.land(one[1])
                self.seen["late batch"] += 1

    def tick(self) -> None:
        self.now += 1
        self.land()
        self.times += [self.now] * (self.log.end - len(self.times))
        if self.random.random() < 0.02:
            self.compact()

    def compact(self) -> None:
        self.log.compact(sum(1 for at in self.times if at < self.now - LAG_STEPS))


class Owner:
    """One incarnation of a worker, from `own` to its end.  It satisfies `Log`, so its bytes can be caught in the air."""

    def __init__(self, world: World, node: int) -> None:
        self.world = world
        self.node = node
        self.fault = ""
        self.rocks = MemoryRocks()
        self.rocks.rows = world.disks[node]
        self.leg = Count()
        self.outputs: list[int] = []
        self.sent: Callable[[], None] | None = None
        self.touched_at = world.now
        world.land()
        epoch = world.log.land([OWN])
        try:
            restore = Restore(self.rocks, SPEC, epoch)  # type: ignore[arg-type]
        except store.StoreError:
            raise AssertionError("a store ahead of its changelog") from None
        records = list(world.log.records)
        while records:
            size = world.random.randint(1, 20)
            restore.apply(records[:size])
            records = records[size:]
            if world.random.random() < 0.05:
                raise Crash
        assert restore.done
        self.checkpointer = Checkpointer(
            spec=SPEC,
            rocks=self.rocks,
            log=self,
            outputs=self,
            epoch=epoch,
            landed=self.outputs.append,  # type: ignore[arg-type]
        )
        self.at = Partition(
            number=0,
            stores={one.name: Store(one.name, TableBase(self.rocks, one.tag)) for one in SPEC.stores},  # type: ignore[arg-type]
            mark=self.leg.new_mark() if restore.mark is None else self.leg.load_mark(restore.mark.body),
            next_offset=restore.x + 1,
        )
        facts = self.leg.from_source(world.source[: self.at.next_offset])  # as Holding does, which is not here
        self.rocks.write([(b"\x04" + key, value) for _, key, value in facts])
        if restore.rewrite:
            world.seen["rewritten at restore"] += 1
            self.checkpoint(frozenset(restore.rewrite))

    async def barrier(self) -> None:
        """Outputs are not what this test is about."""

    async def append(self, rows: Sequence[Row]) -> int:
        world = self.world
        if self.fault == "before the batch":
            raise Crash
        if self.fault == "in the air":
            world.flying.append((world.now, rows))
            raise Crash
        world.land()
        base = world.log.land(rows)
        if self.fault == "sent twice":
            base = world.log.land(rows)
        if self.fault == "before the local write":
            raise Crash
        return base

    async def read(self, start: int, stop: int) -> list[Rec]:
        return await self.world.log.read(start, stop)

    def work(self) -> None:
        size = self.world.random.randint(0, 5)
        part = self.world.source[self.at.next_offset : self.at.next_offset + size]
        if part:
            self.leg.fold(self.at, part)
        elif self.world.now - self.touched_at < 10:
            return  # idle: the batch that bounds how long late bytes go unnoticed is not due yet
        self.checkpoint()

    def checkpoint(self, rewrite: frozenset[bytes] = frozenset()) -> None:
        self.touched_at = self.world.now
        mark = Mark(
            epoch=self.checkpointer.epoch, x=self.at.next_offset - 1, body=self.leg.dump_mark(self.at.mark),
            decisions={}, cluster="c", source_topic="t", ahead=7,
        )  # fmt: skip
        run(self.checkpointer.write(self.at, self.checkpointer.take(self.at, mark, (), rewrite)))


FAULTS = ("before the batch", "in the air", "before the local write", "sent twice")


def history(seed: int) -> tuple[list[str], Counter[str]]:
    """Live through one history; returns what is wrong at its end, and what happened in it."""
    world = World(seed)
    owner: Owner | None = None
    zombies: list[Owner] = []
    for _ in range(world.random.randint(60, 250)):
        world.tick()
        chance = world.random.random()
        try:
            if owner is None:
                free = [node for node in (0, 1) if all(one.node != node for one in zombies)]
                if chance < 0.05 and free:
                    world.disks[world.random.choice(free)].clear()
                    world.seen["disk lost"] += 1
                owner = Owner(world, world.random.choice(free)) if free else None
            else:
                if chance < 0.12:
                    owner.fault = world.random.choice(FAULTS)
                    world.seen[owner.fault] += 1
                elif chance < 0.15 and not zombies:
                    owner.leg.fold(owner.at, world.source[owner.at.next_offset : owner.at.next_offset + 3])
                    zombies.append(owner)
                    owner = None
                    continue
                owner.work()
                owner.fault = ""
        except Crash:
            owner = None
        for one in list(zombies):
            if owner is not None and world.random.random() < 0.1:
                zombies.remove(one)
                world.seen["zombie"] += 1
                before = dict(one.rocks.rows)
                try:
                    one.checkpoint()
                except Zombie:
                    world.seen["zombie stopped"] += 1
                    assert one.rocks.rows == before, "a zombie wrote to its disk"
                if world.random.random() < 0.5 and world.random.random() < 0.5:
                    world.disks[one.node].clear()
    return _healed(world, owner), world.seen


def _healed(world: World, owner: Owner | None) -> list[str]:
    """All bytes land, an owner finishes and finds what lies behind its last batch; then from the changelog alone."""
    while owner is None or owner.at.next_offset < len(world.source):
        world.tick()
        try:
            if owner is None:
                owner = Owner(world, 0)
            owner.work()
        except (Crash, Zombie):
            owner = None
    world.land(everything=True)
    try:
        owner.checkpoint()
    except Zombie:
        return _healed(world, None)
    plain = Partition(
        number=0, stores={one.name: Store(one.name, DictRows()) for one in SPEC.stores}, mark={"firsts": 0}
    )
    Count().fold(plain, world.source)
    wrong = [f"live {name}" for name in _wrong(tables(owner.at), tables(plain))]
    world.now += 10 * LAG_STEPS
    world.times += [0] * (world.log.end - len(world.times))
    world.compact()
    world.disks = [{}, {}]
    while True:
        try:
            last = Owner(world, 0)
            break
        except Crash:
            world.disks = [{}, {}]
    last.leg.fold(last.at, world.source[last.at.next_offset :])
    return wrong + [f"restored {name}" for name in _wrong(tables(last.at), tables(plain))]


def _wrong(held: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    # copies are derived: Holding restores them (test_holding.py)
    return [name for name in ("sums", "firsts", "seen", "next_offset") if held[name] != wanted[name]]


class DictRows:
    """An empty base."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [None] * len(keys)

    def scan(self, start: bytes, stop: bytes) -> Any:
        return iter(())


def wrong_histories(seeds: range) -> tuple[int, Counter[str]]:
    wrong, total = 0, Counter[str]()
    for seed in seeds:
        try:
            found, seen = history(seed)
        except AssertionError:
            found, seen = ["assertion"], Counter()
        total.update(seen)
        wrong += bool(found)
    return wrong, total


def test_no_history_ends_wrong() -> None:
    """Whatever crashes, lands late or is lost: the tables live and restored are those of a plain fold."""
    wrong, seen = wrong_histories(range(SEEDS))
    assert wrong == 0
    for what in (*FAULTS, "late batch", "zombie stopped", "disk lost", "rewritten at restore"):
        assert seen[what] > 0, f"the histories never met: {what}"


def _no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changelog, "foreign_keys", lambda *_args, **_kwargs: [])


def _no_own(monkeypatch: pytest.MonkeyPatch) -> None:
    real = changelog.foreign_keys
    monkeypatch.setattr(
        changelog,
        "foreign_keys",
        lambda gap, **rest: real([one for one in gap if one.key != changelog.OWN_KEY], **rest),
    )


def _late_rows_count(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Restore._row

    def row(self: Restore, record: Any, *rest: Any) -> None:
        high, self.high, self._late = self.high, -1, False
        real(self, record, *rest)
        self.high = high

    monkeypatch.setattr(Restore, "_row", row)


def _late_marks_count(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Restore._mark

    def mark(self: Restore, record: Any, held: Any) -> Any:
        high, self.high = self.high, -1
        found = real(self, record, held)
        self.high = high
        return found

    monkeypatch.setattr(Restore, "_mark", mark)


def _local_first(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Checkpointer.write

    async def write(self: Checkpointer, at: Partition, taken: checkpoint.Taken) -> None:
        self._rocks.write(self._changes(taken, (store.MARK, taken.mark.dump(), self.epoch)))
        await real(self, at, taken)

    monkeypatch.setattr(Checkpointer, "write", write)


def _no_upto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Count, "broken", "no guard by upto")


@pytest.mark.parametrize("mutate", [_no_proof, _no_own, _late_rows_count, _late_marks_count, _local_first, _no_upto])
def test_each_rule_is_needed(mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Positive control: with any one rule left out, some history ends wrong."""
    mutate(monkeypatch)
    for start in range(0, 10 * SEEDS, 50):
        if wrong_histories(range(start, start + 50))[0]:
            return
    pytest.fail("the mutant lived")
