"""A partition through a rebalance: parked while nobody knows whose it will be, then gone on with or given away."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from milepost.agents import holding as module
from milepost.agents import landing
from milepost.agents.changelog import MARK_KEY, load_mark, read_range
from milepost.agents.opening import Bounds
from milepost.ops.settings import Settings
from tests.agents.harness import events, read_topic, send
from tests.agents.test_holding import Bench, bench, check
from tests.agents.toy import SPEC, tables

pytestmark = pytest.mark.broker


def test_what_stays_goes_on_where_it_stopped(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parked, a partition has everything in the changelog, folds nothing and is not asked; resumed, it goes on under
    the same epoch, and nothing was restored."""
    made = events(900, seed=51, partitions=1, repeats=0)

    async def body(on: Bench) -> None:
        send(settings, made[:400])
        held = await on.opened()
        await on.fold_all(held)
        assert held.partition is not None and held.answers
        await held.park()
        epoch, at = held.epoch, held.partition.next_offset
        assert held.state == "parked" and not held.answers
        assert held.expected == len(read_topic(settings, SPEC.changelog, 1))
        assert await held.fold([]) == 0
        held.resume()
        assert held.answers and held.epoch == epoch and held.partition.next_offset == at
        send(settings, made[400:])
        await on.fold_all(held)
        check(held, made)
        await held.release()

    on = bench(settings, body, monkeypatch)
    assert on.ended == []
    keys = [key for _, _, key, _ in read_topic(settings, SPEC.changelog, 1)]
    assert keys.count(b"\x00own") == 1


def test_what_another_has_had_meanwhile_can_be_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """When somebody took the partition while it was parked, the changelog is longer than what its owner wrote; given
    away then, it writes nothing that counts."""
    made = events(300, seed=52, partitions=1, repeats=0)

    async def body(on: Bench) -> None:
        send(settings, made)
        held = await on.opened("one")
        await on.fold_all(held)
        await held.park()
        assert held.expected == len(read_topic(settings, SPEC.changelog, 1))
        other = await on.opened("two")
        assert held.expected < len(read_topic(settings, SPEC.changelog, 1))
        found = tables(other.partition)  # type: ignore[arg-type]
        await held.release()
        assert held.state == "closed"
        assert tables(other.partition) == found  # type: ignore[arg-type]
        await other.release()
        again = await on.opened("three")
        assert tables(again.partition) == found  # type: ignore[arg-type]

    assert bench(settings, body, monkeypatch).ended == []


def test_after_a_kill_nobody_is_told_less_than_before(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition that is opened behind the end of its log is asked only when it is as far as the owner before it can
    have been: at the end that the log had, or as many records on as that one's last mark allowed."""
    made = events(600, seed=53, partitions=1, repeats=0)

    async def body(on: Bench) -> None:
        send(settings, made)
        end = len(read_topic(settings, "numbers", 1))
        first = on.holding()
        await first.take_over()
        await first.open(replace(BOUNDS, source_end=end))
        assert first.partition is not None and not first.answers
        await on.fold_all(first)
        assert first.answers
        await first.checkpoint()
        first.state = "closed"  # killed: nothing says that it left in order
        second = on.holding("two")
        await second.take_over()
        await second.open(replace(BOUNDS, source_end=end + 1000))
        assert not second.answers, "the log is longer than what was restored"
        monkeypatch.setattr(module, "GATE_S", 0.5)
        send(settings, events(40, seed=54, partitions=1, repeats=0))
        async for some in read_range(settings.bootstrap, second.place.source, 0, end, end + 40):
            for start in range(0, len(some), 5):
                await second.fold(some[start : start + 5])
                await asyncio.sleep(0.1)
                assert not second.answers, "it moves, slowly"
        await asyncio.sleep(0.6)
        assert second.answers, "its next record may wait for a decision: it is not silent for ever"

    assert bench(settings, body, monkeypatch).ended == []


def test_who_rebuilds_from_the_source_is_asked_at_its_end(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the changelog lost its beginning, nobody knows how far its owners had come: however much is folded, the
    partition is not asked before the end that the source had."""
    made = events(600, seed=55, partitions=1, repeats=0)
    monkeypatch.setattr(module, "UNLANDED_MAX", 100)

    async def body(on: Bench) -> None:
        send(settings, made)
        end = len(read_topic(settings, "numbers", 1))
        first = await on.opened()
        await on.fold_all(first)
        await first.checkpoint()
        first.state = "closed"
        second = on.holding("two")
        await second.take_over()
        await second.open(replace(BOUNDS, source_end=end, changelog_start=3))
        assert second.partition is not None and second.partition.next_offset == 0
        asked: list[tuple[int, bool]] = []
        async for some in read_range(settings.bootstrap, second.place.source, 0, 0, end):
            for start in range(0, len(some), 50):
                await second.fold(some[start : start + 50])
                asked.append((second.partition.next_offset, second.answers))
        assert asked == [(at, at == end) for at in (*range(50, end, 50), end)]
        check(second, made)

    bench(settings, body, monkeypatch)


def test_no_more_is_folded_beyond_a_mark_than_it_says(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound by which a successor waits holds: however slow the checkpoints, no more records are folded than the last
    mark in the log allows, and no mark allows less far than the one before it."""
    made = events(900, seed=54, partitions=1, repeats=0)
    monkeypatch.setattr(landing, "UNLANDED_MAX", 100)
    monkeypatch.setattr(landing, "UNLANDED_MIN", 20)
    beyond: list[tuple[int, int]] = []
    allowed: dict[int, int] = {}

    async def body(on: Bench) -> None:
        send(settings, made)
        held = await on.opened()
        assert held.partition is not None
        held.ahead = landing.Ahead(100)
        slice_of = held._fold_slice

        async def watched(at: object, part: object) -> bool:
            done = await slice_of(at, part)  # type: ignore[arg-type]
            assert held.partition is not None
            beyond.append((on.landed[-1] if on.landed else 0, held.partition.next_offset))
            return done

        monkeypatch.setattr(held, "_fold_slice", watched)
        await on.fold_all(held)
        check(held, made)
        end = len(read_topic(settings, SPEC.changelog, 1))
        async for records in read_range(settings.bootstrap, held.place.changelog, 0, 0, end):
            for mark in [load_mark(one) for one in records if one.key == MARK_KEY]:
                assert mark is not None
                allowed[mark.x + 1] = mark.x + 1 + mark.ahead

    bench(settings, body, monkeypatch)
    allowed.setdefault(0, 100)
    assert [end for landed, end in beyond if end > allowed[landed]] == []
    assert len([end for landed, end in beyond if end == allowed[landed]]) > 3, "the bound was not reached"
    assert sorted(allowed.values()) == [allowed[x] for x in sorted(allowed)]


BOUNDS = Bounds(source_start=0, source_end=None, changelog_start=0)
