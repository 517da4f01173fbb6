"""The digest: one for the same records, in whatever order, chunks and partitions; another for anything else."""

from __future__ import annotations

import random
from typing import Any

import pytest

from milepost.topology.digest import digest
from milepost.topology.driver import Driver
from tests.support.small import DAY, FILES, HOUR, ORG, SECRET, T0, visit

EVENTS = [
    (visit(f"e{i}", T0 + i * 7 * 60_000, company=str(i % 5), device=f"d{i % 7}", minutes=i * 0.25, page=f"p{i % 3}",
           plan=("free", "pro")[i % 2], **({"domain": f"{i % 5}.example"} if i % 9 == 0 else {})), T0 + i * 7 * 60_000 + (3 * DAY if i % 10 == 0 else 0))
    for i in range(300)
]  # fmt: skip


def run(order: int = 0, repeats: float = 0.0, events: list[Any] | None = None, **options: Any) -> Driver:
    chance = random.Random(order)
    made = Driver(SECRET, **options)
    made.apply(ORG, FILES, T0 - HOUR)
    todo = list(events or EVENTS)
    todo += [one for one in todo if chance.random() < repeats]
    chance.shuffle(todo)
    for event, k_ms in todo:
        made.produce(event, T0 + 30 * DAY, known_ms=k_ms)
    made.run()
    return made


@pytest.mark.parametrize(
    "options",
    [
        {"order": 1},
        {"order": 2, "repeats": 0.5},
        {"order": 3, "chunk": 1},
        {"order": 4, "chunk": 7, "seed": 9},
        {"order": 5, "partitions": 1},
        {"order": 6, "partitions": 3, "repeats": 0.5, "chunk": 4000},
        {"order": 7, "partitions": 8, "seed": 5},
    ],
)
def test_the_same_records_have_one_digest(options: dict[str, Any]) -> None:
    """Order, repeats, chunks, interleaving and the number of partitions do not show in any table."""
    assert digest(run(**options).reader) == digest(run().reader)


def test_one_event_more_shows() -> None:
    """Positive control: one event more changes seen, facts, cells and the total."""
    one, more = digest(run().reader), digest(run(events=[*EVENTS, (visit("x", T0), T0)]).reader)
    assert {name for name in one if one[name] != more[name]} >= {"seen", "facts", "cells", "days", "total"}


def test_one_second_on_one_known_time_shows() -> None:
    """Positive control: an event known one second later changes the total, though no answer need change."""
    events = [*EVENTS[:-1], (EVENTS[-1][0], EVENTS[-1][1] + 1000)]
    assert digest(run(events=events).reader)["total"] != digest(run().reader)["total"]
