"""How far a source had sent by when, against a look at all events."""

from __future__ import annotations

import random
from typing import Any

import pytest

from milepost.topology.driver import Driver
from milepost.topology.heard import Complete, complete, steps
from milepost.topology.panes import DAY_MS, PANE_MS
from milepost.topology.steps import run
from tests.support.small import DAY, FILES, HOUR, ORG, SECRET, T0, visit

NOW = T0 + 30 * DAY
SENT = (ORG, "app")
FIRST, LAST = T0 // PANE_MS, (T0 + 4 * DAY) // PANE_MS


def history(seed: int) -> list[tuple[dict[str, Any], int]]:
    """(event, known time): some late by days."""
    chance = random.Random(seed)
    found = []
    for i in range(60):
        t_ms = T0 + chance.randrange(2 * DAY)
        found.append((visit(f"e{i}", t_ms), t_ms + chance.choice((0, 60_000, HOUR, DAY))))
    return found


def told(sent: list[tuple[dict[str, Any], int]], *, partitions: int = 3, chunk: int = 7) -> Driver:
    made = Driver(SECRET, partitions=partitions, chunk=chunk)
    made.apply(ORG, FILES, T0 - HOUR)
    for event, k_ms in sent:
        made.produce(event, NOW, known_ms=k_ms)
    made.run()
    return made


def rows(made: Driver) -> list[dict[bytes, bytes]]:
    found = []
    for number in range(made.partitions):
        store = made.state["ingest", number].stores["heard"]
        found.append({key: value[8:] for key, value in store.scan(b"", b"\xff" * 32)})
    return found


@pytest.mark.parametrize("seed", range(5))
def test_how_far_a_source_had_sent_is_known_for_each_bucket_end(seed: int) -> None:
    """At each K it is the pane of the latest event known by K, however the log was cut, and in whichever order."""
    sent = history(seed)
    made = told(sent)
    shuffled = sent.copy()
    random.Random(seed).shuffle(shuffled)
    other = told(shuffled, chunk=1, partitions=2)
    found = run(complete(made.reader, [SENT], FIRST, LAST))
    again = run(complete(other.reader, [SENT], FIRST, LAST))
    assert [again.at(k) for k in range(FIRST, LAST)] == [found.at(k) for k in range(FIRST, LAST)]
    times = [(k_ms, T0 + at) for (event, k_ms) in sent for at in [_t(event) - T0]]
    for k in range(FIRST, LAST + 1):
        known = [t_ms // PANE_MS for k_ms, t_ms in times if k_ms < k * PANE_MS]
        assert found.at(k) == (max(known) if known else None), k
    later = run(complete(made.reader, [SENT], LAST - 200, LAST))
    assert [later.at(k) for k in range(LAST - 200, LAST + 1)] == [found.at(k) for k in range(LAST - 200, LAST + 1)]


def test_a_source_of_which_nothing_was_heard_knows_of_nothing() -> None:
    """Two sources are complete to what the slower has sent; one that never sent anything makes the answer None."""
    made = told(history(1))
    assert run(complete(made.reader, [SENT, (ORG, "crm")], FIRST, LAST)).at(LAST) is None
    assert Complete((((1, 10), (3, 12)), ((2, 5),))).at(3) == 5
    assert Complete((((1, 10), (3, 12)), ((2, 5),))).at(1) is None


def test_events_in_their_order_make_a_step_a_pane() -> None:
    """A lively source costs one step a quarter of an hour, and a day of them is one row."""
    made = told([(visit(f"e{i}", T0 + i * 60_000), T0 + i * 60_000) for i in range(120)], partitions=1)
    (kept,) = rows(made)
    assert len(kept) == 1 and {len(value) for value in kept.values()} == {8 * 120 // 15}
    assert not made.state["ingest", 0].mark.heard  # type: ignore[attr-defined]


def test_what_says_less_than_before_is_no_step() -> None:
    """Of one bucket end the latest pane counts; one that does not rise is left out."""
    assert steps([(5, 10), (4, 8), (5, 9), (6, 10), (7, 3), (8, 11)]) == [(4, 8), (5, 10), (8, 11)]
    assert DAY_MS == DAY


def _t(event: dict[str, Any]) -> int:
    from milepost.schemas.times import time_ms

    return time_ms(event["time"])
