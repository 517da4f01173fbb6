"""Pace: folds of many partitions share a turn, so that a question goes on after each slice."""

from __future__ import annotations

import asyncio

import pytest

from milepost.agents import pace

PARTITIONS = 16


async def _counted(turn: pace.Turn, seconds: float) -> tuple[list[int], int]:
    """(slices between two steps of a question, slices in all) while 16 partitions fold as fast as they may."""
    folded, between, stop = 0, list[int](), False

    async def fold(busy: asyncio.Lock) -> None:
        nonlocal folded
        while not stop:
            async with turn.beside(busy) as held:
                folded += 1
                held.folded(seconds)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(fold(asyncio.Lock())) for _ in range(PARTITIONS)]
    for _ in range(200):
        before = folded
        await asyncio.sleep(0)
        between.append(folded - before)
    stop = True
    await asyncio.gather(*tasks)
    return between, folded


def test_a_question_goes_on_after_each_slice() -> None:
    """However many partitions are due: a slice that takes the whole time is the only one of its round."""
    between, folded = asyncio.run(_counted(pace.Turn(), pace.ALONE_S))
    assert max(between) == 1
    assert folded > 50


def test_short_slices_share_a_round_until_its_time_is_spent() -> None:
    """What takes no time waits for nobody; sixteen quarters of the time take at least four rounds."""
    between, _ = asyncio.run(_counted(pace.Turn(), 0.0))
    assert max(between) == PARTITIONS
    between, _ = asyncio.run(_counted(pace.Turn(), pace.ALONE_S / 4))
    assert 1 <= max(between) <= 4


def test_who_waits_for_a_question_keeps_nobody_from_the_turn() -> None:
    """A partition that is being read folds later; the others fold meanwhile."""

    async def scenario() -> list[str]:
        turn, read, free, order = pace.Turn(), asyncio.Lock(), asyncio.Lock(), list[str]()

        async def fold(name: str, busy: asyncio.Lock) -> None:
            async with turn.beside(busy) as held:
                order.append(name)
                held.folded(pace.ALONE_S)

        await read.acquire()
        waiting = asyncio.create_task(fold("read", read))
        await asyncio.sleep(0)
        await asyncio.wait_for(fold("free", free), 5)
        read.release()
        await asyncio.wait_for(waiting, 5)
        return order

    assert asyncio.run(scenario()) == ["free", "read"]


def test_a_slice_that_breaks_gives_the_turn_on() -> None:
    """An exception, or a partition taken away at that moment, leaves neither lock held."""

    async def scenario() -> None:
        turn, busy = pace.Turn(), asyncio.Lock()
        with pytest.raises(ValueError, match="bad"):
            async with turn.beside(busy):
                raise ValueError("bad")
        async with asyncio.timeout(5), turn.beside(busy):
            assert busy.locked()
        assert not busy.locked()

    asyncio.run(scenario())
