"""What became known at a time that the log had passed."""

from __future__ import annotations

import random

import orjson
import pytest

from milepost.schemas.keys import raw_place
from milepost.topology.behind import Behind
from milepost.topology.driver import Driver
from milepost.topology.panes import PANE_MS
from milepost.topology.steps import run
from tests.support.small import DAY, FILES, HOUR, ORG, SECRET, T0, visit

NOW = T0 + 10 * DAY


def driver(chunk: int = 7, partitions: int = 1) -> Driver:
    made = Driver(SECRET, partitions=partitions, chunk=chunk)
    made.apply(ORG, FILES, T0 - HOUR)
    made.tick(NOW)
    made.run()
    return made


def came(made: Driver, since: int = -1, partition: int = 0) -> tuple[int | None, int]:
    return run(Behind(partition=partition, since=since).read(made.reader))


def test_what_is_known_in_its_turn_is_not_behind() -> None:
    """Neither events as they come, nor those backdated into the quarter of an hour that has not passed."""
    made = driver()
    made.produce(visit("a", NOW), NOW + 1)
    made.produce(visit("b", NOW), NOW + 60_000, known_ms=NOW - NOW % PANE_MS)
    made.run()
    assert came(made) == (None, -1)


def test_what_is_backdated_says_from_which_bucket_end_on() -> None:
    """It is the first of its day; `since` leaves out what was looked at."""
    made = driver()
    _, near = made.produce(visit("a", NOW - HOUR), NOW, known_ms=NOW - HOUR)
    made.run()
    assert came(made) == ((NOW - DAY) // PANE_MS, near) and came(made, near) == (None, near)
    _, far = made.produce(visit("b", T0), NOW, known_ms=T0 + 5 * HOUR)
    made.run()
    least, last = came(made, near)
    assert least == T0 // PANE_MS and last == far > near
    assert came(made, far) == (None, far)


def test_a_record_forwarded_over_the_end_of_a_quarter_of_an_hour_is_behind_at_its_place() -> None:
    """It is known since it came first, and its place may have told of that time."""
    made = driver(partitions=2)
    event = visit("x", NOW)
    _, place = raw_place(event["org"], event["source"], event["id"], 0, 0, 2)
    at = NOW // PANE_MS * PANE_MS + PANE_MS - 1
    made.append("raw-events", 1 - place, b"any key", orjson.dumps(event), (), at)
    made.tick(at + 2)
    made.run()
    assert came(made, partition=place)[0] == NOW // PANE_MS and came(made, partition=1 - place) == (None, -1)


@pytest.mark.parametrize("seed", range(4))
def test_the_rows_do_not_depend_on_how_the_log_is_cut(seed: int) -> None:
    """In slices of any size the same offsets stand beside the same ends."""
    rows = []
    for chunk in (1, 5, 1000):
        chance = random.Random(seed)
        made = driver(chunk)
        for i in range(60):
            now = NOW + i * 600_000
            if chance.random() < 0.3:
                made.tick(now)
            k_ms = now - chance.choice((0, 1, HOUR, DAY - HOUR, DAY + HOUR, 5 * DAY))
            made.produce(visit(f"e{i}", k_ms), now, known_ms=k_ms)
        made.run()
        rows.append(list(made.state["ingest", 0].stores["behind"].scan(b"", b"\xff" * 5)))
    assert rows[0] == rows[1] == rows[2] != []
