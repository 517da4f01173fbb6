"""Standby: replicas of partitions that others own, kept up from their changelogs, for reads that may lag.

    changelog of a partition -> batches by the restore rules (agents/restore.py) -> a folder of our own -> derived rows
                                                                                  |_ reads that allow stale_ms

A replica is the folder that this worker would restore into if it were given the partition: then the restore is short.
It follows without a group, over one consumer for all replicas of the worker.  `lag_ms` is the age of the newest moment
at which everything in the changelog was in the replica, so a broken connection makes it grow; what the owner has not
written yet, at most a checkpoint, comes on top.  A replica that fails is given up and begun again: it is a cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from milepost.agents import store
from milepost.agents.changelog import Mark
from milepost.agents.opening import restore_derived, restore_source
from milepost.agents.restore import Restore
from milepost.schemas.errors import MilepostError, StoreError
from milepost.topology import quarantine
from milepost.topology.decisions import Decisions
from milepost.topology.line import LegSpec
from milepost.topology.measure import MeasureMark
from milepost.topology.reading import Progress, Reader, Unavailable
from milepost.topology.state import Leg, Partition, Store

log = logging.getLogger("milepost.agents.standby")

LOOK_S: Final = 0.5
"""How often it is looked at what there should be replicas of, seconds."""
SOURCE_S: Final = 10.0
"""How often stores whose changelog is the source topic are brought up, seconds; a take-over reads the rest."""
FETCH_MS: Final = 100
AGAIN_S: Final = 5.0
"""How long a partition whose replica has failed is left alone, seconds."""
ENDLESS: Final = 2**62
DECIDED_S: Final = 5.0
Place = tuple[str, int]
"""Leg and partition."""
Decided = Callable[[Mapping[str, int]], Awaitable[bool]]
"""Waits until this worker has read the decision topics as far as given; False when that takes too long."""


class Following(Protocol):
    """A leg as the replicas see it (agents/leg_runtime.py)."""

    @property
    def leg(self) -> Leg: ...
    @property
    def spec(self) -> LegSpec: ...
    @property
    def source(self) -> str: ...
    @property
    def changelog(self) -> str: ...


class Replica:
    """One partition of one leg.  Reads and batches take turns: `turn` is held by either.

    lag_ms: see the module; None: it has never had everything
    """

    def __init__(
        self, leg: Following, number: int, rocks: store.Rocks, whole: Reader, checkpoint_ms: int, decided: Decided
    ) -> None:
        self.leg = leg
        self.number = number
        self.turn = asyncio.Lock()
        self.restore = Restore(rocks, leg.spec, ENDLESS)
        self._rocks = rocks
        self._whole = whole
        self._checkpoint_ms = checkpoint_ms
        self._decided = decided
        self._whole_at: float | None = None
        self._source_at = time.monotonic()
        self._source_x = -2
        self._at: Partition | None = None
        self._mark: Mark | None = None

    def __repr__(self) -> str:
        return f"standby {self.leg.spec.name}/{self.number}"

    @property
    def next_offset(self) -> int:
        """The next offset of the changelog to apply."""
        return self.restore.position + 1

    @property
    def lag_ms(self) -> int | None:
        if self._whole_at is None:
            return None
        return max(0, int((time.time() - self._whole_at) * 1000)) + self._checkpoint_ms

    async def apply(self, records: Sequence[Any]) -> None:
        """Apply a chunk of the changelog, with the derived rows that follow from it."""
        async with self.turn:
            self.restore.apply(records)
            mark = self.restore.mark
            if mark is not None and not await self._decided(mark.decisions):
                raise StoreError(f"{self!r}: the owner has decisions that have not come here in {DECIDED_S:.0f} s")
            at = self._partition()
            await restore_derived(self.leg.leg, self.leg.spec, at, self._rocks, self._write, self.restore)
            self.restore.changed = set()

    async def bring_up(self, bootstrap: str) -> None:
        """Bring up the stores whose changelog is the source topic, if it is time to."""
        if time.monotonic() - self._source_at < SOURCE_S or self._source_x == self.restore.x:
            return
        self._source_at, self._source_x = time.monotonic(), self.restore.x
        async with self.turn:
            await restore_source(
                self.leg.leg, self.leg.spec, self._partition(), self._rocks, self._write,
                bootstrap=bootstrap, source=self.leg.source,
            )  # fmt: skip

    def whole(self, at_s: float) -> None:
        """Everything that was in the changelog at `at_s` (seconds since the epoch) has been applied."""
        self._whole_at = at_s

    async def close(self) -> None:
        async with self.turn:
            self._at = None
            self._rocks.close()

    async def _write(self, changes: Sequence[store.Change]) -> None:
        self._rocks.write(changes)

    def _partition(self) -> Partition:
        """The partition as of the last mark applied."""
        held = self.restore.mark
        if self._at is None or held is not self._mark:
            stores = (
                {one.name: Store(one.name, store.TableBase(self._rocks, one.tag)) for one in self.leg.spec.stores}
                if self._at is None
                else self._at.stores
            )
            mark = self.leg.leg.new_mark() if held is None else self.leg.leg.load_mark(held.body)
            self._at = Partition(number=self.number, stores=stores, mark=mark, next_offset=self.restore.x + 1)
            quarantine.load(self._at)
            self._mark = held
        return self._at

    # -- topology.reading.Reader, of this partition only

    @property
    def partitions(self) -> int:
        return self._whole.partitions

    @property
    def decisions(self) -> Decisions:
        return self._whole.decisions

    @property
    def org_key(self) -> Mapping[str, bytes]:
        return self._whole.org_key

    def _readable(self, leg: str, partition: int) -> Partition:
        if (leg, partition) != (self.leg.spec.name, self.number) or self._rocks.closed or self._whole_at is None:
            raise Unavailable(leg, partition, "not with this worker")
        return self._partition()

    def epoch(self, leg: str, partition: int) -> int:
        self._readable(leg, partition)
        return self.restore.high

    def stores(self, leg: str, partition: int) -> Mapping[str, Store]:
        return self._readable(leg, partition).stores

    def reached(self, leg: str, partition: int) -> tuple[int, Mapping[int, int]]:
        return self._readable(leg, partition).reached

    def progress(self, partition: int) -> Mapping[int, Progress]:
        mark = self._readable("measure", partition).mark
        assert isinstance(mark, MeasureMark)
        return mark.progress


class Standbys:
    """The replicas of one worker.

    wanted: the places to hold replicas of now, from the last assignment
    stamp:  what a place's folder must belong to;  folder: above the folders of all places
    """

    def __init__(
        self,
        *,
        bootstrap: str,
        legs: Mapping[str, Following],
        whole: Reader,
        wanted: Callable[[], set[Place]],
        stamp: Callable[[str, int], Awaitable[store.Stamp]],
        folder: Path,
        caught_up: Callable[[], Awaitable[None]],
        decided: Decided,
        checkpoint_ms: int,
    ) -> None:
        self._bootstrap = bootstrap
        self._legs = legs
        self._whole = whole
        self._wanted = wanted
        self._stamp = stamp
        self._folder = folder
        self._caught_up = caught_up
        self._decided = decided
        self._checkpoint_ms = checkpoint_ms
        self._held: dict[Place, Replica] = {}
        self._given_up: dict[Place, float] = {}
        self._changing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def reader(self, leg: str, partition: int) -> Replica | None:
        """The replica of a partition, or None when there is none that can be read."""
        held = self._held.get((leg, partition))
        return None if held is None or held.lag_ms is None else held

    def status(self) -> dict[str, dict[str, int | None]]:
        """Leg -> partition -> lag_ms (None: not read to its end yet)."""
        told: dict[str, dict[str, int | None]] = {}
        for (leg, number), one in sorted(self._held.items()):
            told.setdefault(leg, {})[str(number)] = one.lag_ms
        return told

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="standbys")

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.give_up(list(self._held))

    async def give_up(self, places: Iterable[Place]) -> None:
        """Close replicas: their folders are free when this returns."""
        async with self._changing:
            for place in places:
                held = self._held.pop(place, None)
                if held is not None:
                    await held.close()
                    log.info("%r: given up at %d", held, held.next_offset)

    async def _run(self) -> None:
        while True:
            try:
                await self._caught_up()  # derived rows need the definitions
                await self._follow()
            except (KafkaError, OSError, MilepostError) as error:
                log.warning("replicas are interrupted: %r", error)
            await asyncio.sleep(LOOK_S)

    async def _follow(self) -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="none",  # a changelog that was cut must not be passed over
            max_partition_fetch_bytes=4 * 1024 * 1024,
            fetch_max_wait_ms=FETCH_MS,
        )
        await consumer.start()
        try:
            looked_at = float("-inf")
            while True:
                if time.monotonic() - looked_at >= LOOK_S:
                    await self._change(consumer)
                    looked_at = time.monotonic()
                if not self._held:
                    await asyncio.sleep(LOOK_S)
                    continue
                fetched = await consumer.getmany(timeout_ms=FETCH_MS, max_records=4000)
                await self._apply(consumer, fetched)
        finally:
            await consumer.stop()

    async def _apply(self, consumer: AIOKafkaConsumer, fetched: Mapping[Any, Sequence[Any]]) -> None:
        for (leg, number), held in list(self._held.items()):
            tp = TopicPartition(held.leg.changelog, number)
            try:
                if fetched.get(tp):
                    await held.apply(fetched[tp])
                await held.bring_up(self._bootstrap)
                end_offset, polled_ms = consumer.highwater(tp), consumer.last_poll_timestamp(tp)
                position = await consumer.position(tp) if tp in consumer.assignment() else -1
                if end_offset is not None and polled_ms and position >= end_offset:
                    held.whole((polled_ms - FETCH_MS) / 1000)
            except (MilepostError, KafkaError) as error:
                if self._held.get((leg, number)) is held:
                    log.warning("%r: given up: %r", held, error)
                    self._given_up[leg, number] = time.monotonic()
                    await self.give_up([(leg, number)])

    async def _change(self, consumer: AIOKafkaConsumer) -> None:
        """Hold what is wanted and nothing else."""
        wanted = self._wanted()
        await self.give_up([place for place in self._held if place not in wanted])
        now = time.monotonic()
        for leg, number in sorted(wanted - self._held.keys()):
            if now - self._given_up.get((leg, number), float("-inf")) < AGAIN_S:
                continue
            async with self._changing:
                if (leg, number) in self._wanted():
                    await self._open(leg, number)
        tps = {TopicPartition(one.leg.changelog, one.number): place for place, one in self._held.items()}
        if set(tps) == consumer.assignment():
            return
        starts = await consumer.beginning_offsets(list(tps)) if tps else {}
        for tp, start in starts.items():
            if self._held[tps[tp]].next_offset < start:
                # What lies between is lost to us; the owner has it, and a take-over would find the same.
                log.warning("%r: %s begins at %d: no replica", self._held[tps[tp]], tp.topic, start)
                self._given_up[tps[tp]] = time.monotonic()
                await self.give_up([tps.pop(tp)])
        consumer.assign(list(tps))
        for tp, place in tps.items():
            consumer.seek(tp, self._held[place].next_offset)

    async def _open(self, leg: str, number: int) -> None:
        following = self._legs[leg]
        rocks: store.Rocks | None = None
        try:
            stamp = await self._stamp(leg, number)
            rocks = await asyncio.to_thread(store.open_store, self._folder / f"{leg}-{number}", stamp)
            held = Replica(following, number, rocks, self._whole, self._checkpoint_ms, self._decided)
        except MilepostError as error:
            if rocks is not None:
                rocks.close()
            # The holding before it may be closing still, or the log was made anew: a take-over would see to it.
            log.info("no standby of %s/%d yet: %s", leg, number, error)
            self._given_up[leg, number] = time.monotonic()
            return
        self._held[leg, number] = held
        log.info("%r: follows from %d", held, held.next_offset)


def chosen(urls: Iterable[str], owner: str, number: int, replicas: int) -> list[str]:
    """Which workers hold replicas of a partition: the highest by hash of those that do not own it.  Every worker says
    the same, and little changes when one comes or goes."""

    def rank(url: str) -> bytes:
        return hashlib.blake2b(f"{number} {url}".encode(), digest_size=8).digest()

    return sorted((url for url in urls if url != owner), key=rank, reverse=True)[:replicas]
