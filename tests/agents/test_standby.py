"""Standby replicas: the tables of a partition that another owns, kept up from its changelog, and taken over from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from milepost.agents import store
from milepost.agents.changelog import read_range
from milepost.agents.standby import Replica, chosen
from milepost.ops.settings import Settings
from milepost.schemas.errors import StoreError
from milepost.topology.line import LegSpec
from milepost.topology.reading import Unavailable
from milepost.topology.state import Leg
from tests.agents.harness import events, send
from tests.agents.test_holding import STAMP, Bench, bench
from tests.agents.toy import SPEC, Count, tables

URLS = [f"http://10.0.0.{number}:6066" for number in range(5)]


def test_every_worker_chooses_the_same_replicas_and_never_the_owner() -> None:
    """Whoever asks, in whatever order it knows the workers: as many as wanted, none of them the owner's."""
    for number in range(50):
        owner = URLS[number % 5]
        found = chosen(URLS, owner, number, 2)
        assert found == chosen(reversed(URLS), owner, number, 2)
        assert len(set(found)) == 2 and owner not in found
    assert chosen(URLS[:1], URLS[0], 3, 1) == []
    assert {chosen(URLS, URLS[0], number, 1)[0] for number in range(50)} == set(URLS[1:])


def test_a_worker_that_comes_takes_few_replicas_from_others() -> None:
    """What is held by those who were there stays there, but for what the new one takes."""
    for number in range(50):
        before, after = (chosen(urls, "", number, 1) for urls in (URLS[:4], URLS))
        assert after in (before, [URLS[4]])


@dataclass(frozen=True)
class Toy:
    """The toy leg as the replicas see it."""

    source: str
    changelog: str
    leg: Leg = field(default_factory=Count)
    spec: LegSpec = SPEC


async def decided(_: Mapping[str, int]) -> bool:
    return True


async def undecided(_: Mapping[str, int]) -> bool:
    return False


def replica(on: Bench, settings: Settings, node: str, ready: Any = decided) -> Replica:
    rocks = store.open_store(settings.home / node / f"{SPEC.name}-0", STAMP)
    toy = Toy(settings.topic("numbers"), settings.topic(SPEC.changelog))
    return Replica(toy, 0, rocks, None, 100, ready)  # type: ignore[arg-type]


async def follow(one: Replica, settings: Settings, chunk: int) -> None:
    changelog = settings.topic(SPEC.changelog)
    async for records in read_range(settings.bootstrap, changelog, 0, one.next_offset, 1 << 60, records_max=chunk):
        await one.apply(records)


@pytest.mark.broker
@pytest.mark.parametrize("chunk", [3, 4000])
def test_a_replica_has_the_tables_of_the_owner(settings: Settings, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """After every stretch of the changelog, in chunks of any size, it holds what the owner holds; a take-over in its
    folder restores nothing, and the tables are the same."""
    made = events(900, seed=61, partitions=1)

    async def body(on: Bench) -> None:
        owner = await on.opened("one")
        one = replica(on, settings, "two")
        for start in range(0, 900, 300):
            send(settings, made[start : start + 300])
            await on.fold_all(owner)
            await follow(one, settings, chunk)
            one._source_at = float("-inf")
            await one.bring_up(settings.bootstrap)
            assert owner.partition is not None
            assert tables(one._partition()) == tables(owner.partition)
            assert one.restore.x == owner.partition.next_offset - 1
        with pytest.raises(Unavailable):
            one.epoch(SPEC.name, 0)
        assert one.lag_ms is None, "it was never said to be whole"
        one.whole(0.0)
        assert one.epoch(SPEC.name, 0) == owner.epoch and (one.lag_ms or 0) > 10**12
        wanted = tables(owner.partition)  # type: ignore[arg-type]
        await owner.release()
        position = one.next_offset
        await one.close()
        with pytest.raises(Unavailable):
            one.stores(SPEC.name, 0)
        after = on.holding("two")
        await after.take_over()
        assert after.restore is not None and after.restore.position + 1 >= position
        await after.open()
        assert tables(after.partition) == wanted  # type: ignore[arg-type]

    assert bench(settings, body, monkeypatch).ended == []


@pytest.mark.broker
def test_a_replica_waits_for_decisions_that_its_owner_has(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Derived rows made without a definition would lack: the replica is given up instead, and whoever opens its folder
    derives them all."""
    made = events(200, seed=62, partitions=1)

    async def body(on: Bench) -> None:
        send(settings, made)
        owner = await on.opened("one")
        await on.fold_all(owner)
        one = replica(on, settings, "two", undecided)
        with pytest.raises(StoreError, match="decisions that have not come"):
            await follow(one, settings, 4000)
        wanted = tables(owner.partition)  # type: ignore[arg-type]
        await owner.release()
        await one.close()
        after = await on.opened("two")
        assert tables(after.partition) == wanted  # type: ignore[arg-type]

    assert bench(settings, body, monkeypatch).ended == []
