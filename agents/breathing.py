"""Breathing: steps (topology/steps.py) driven beside everything else in the loop.

steps -- None --> every 2 ms the loop goes on          steps -- Gather --> read -> what was gathered is sent back
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from milepost.topology.reading import Unavailable
from milepost.topology.steps import Got, Part, Steps

T = TypeVar("T")
Read = Callable[[Sequence[Part]], Awaitable[Sequence[Got]]]

BREATH_S: Final = 0.002
"""After so long a question lets the loop fold the log, seconds."""


async def breathing(steps: Steps[T]) -> T:
    """The result of steps that gather nothing, letting the loop go on every 2 ms."""
    value, _ = await answered(steps, _nothing)
    return value


async def answered(steps: Steps[T], read: Read) -> tuple[T, int]:
    """The result of steps, and by how many ms it may lag.

    Raises Unavailable, also when two parts of one partition were read under different owners: they do not belong
    together."""
    epochs: dict[tuple[str, int], int] = {}
    answer: Sequence[Got] | None = None
    lag_ms = 0
    began = time.perf_counter()
    while True:
        try:
            wanted = steps.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result, lag_ms
        answer = None
        if wanted is not None:
            answer = await read(wanted.parts)
            for part, got in zip(wanted.parts, answer, strict=True):
                lag_ms = max(lag_ms, got.lag_ms)
                if epochs.setdefault((part.leg, part.partition), got.epoch) != got.epoch:
                    raise Unavailable(part.leg, part.partition, "handed over")
        elif time.perf_counter() - began > BREATH_S:
            await asyncio.sleep(0)
        else:
            continue
        began = time.perf_counter()


async def _nothing(parts: Sequence[Part]) -> Sequence[Got]:
    raise AssertionError(f"{parts[0]} gathers within a part")
