"""One airline's year in a hundred orders: how its milestones stood, at any time and on each basis, is always the same.

flights, shuffled, some twice ─▶ pure driver (partitions, chunks, turns at random) ─▶ standings at moments, digest
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

import pytest

from milepost.ops.apply import demo_bundle
from milepost.ops.flights import ORG, FlightEvent, read_flights
from milepost.topology.digest import digest
from milepost.topology.driver import Driver
from milepost.topology.standings import Asks, Standings
from milepost.topology.steps import run
from tests.support import flights_expected as csv
from tests.support.flights_driver import FIRST_MS, send_flight
from tests.support.flights_milestones import TERMS, courses, stands
from tests.support.workers import SECRET

Sized = Callable[[int, int], int]

pytestmark = pytest.mark.slow

AIRLINE: Final = "HA"
NOW: Final = datetime(2014, 2, 5, tzinfo=UTC)
FEWER: Final = 4
"""Orders outside the campaign."""

DAY_MS: Final = 86_400_000

History = tuple[list[dict[str, Any]], ...]
"""The milestones' rows at each moment."""


@cache
def flights() -> tuple[FlightEvent, ...]:
    """The airline's year: every departure, landing and cancellation."""
    return tuple(one for one in read_flights() if one.data["carrier"] == AIRLINE)


@cache
def moments() -> tuple[tuple[datetime | None, str], ...]:
    """Now; the end of February; and a day after the first departure that the log learned of late, as seen then and now."""
    late = min(one.t_ms for one in flights() if one.type == "flight.departed" and one.k_ms > one.t_ms)
    then = datetime.fromtimestamp((late + DAY_MS) // 1000 // 900 * 900, UTC)
    return ((None, "latest"), (datetime(2013, 3, 1, tzinfo=UTC), "as_shown"), (then, "as_shown"), (then, "corrected"))


def told(events: Sequence[FlightEvent], chance: random.Random) -> tuple[History, str]:
    """The history, and the digest of all tables, of events in an order, partitions, chunks and turns that chance draws."""
    order = [*events, *chance.sample(events, len(events) // 10)]
    chance.shuffle(order)
    driver = Driver(
        SECRET.encode(), partitions=chance.randint(1, 4), chunk=chance.choice((3, 50, 4000)), seed=chance.randrange(99)
    )
    driver.apply(ORG, demo_bundle(), FIRST_MS)
    for event in order:
        send_flight(driver, event)
    driver.run()
    driver.tick(ms(NOW))
    driver.run()
    questions = Standings(driver.reader)
    asked = [
        Asks(now_ms=ms(NOW), at_ms=None if at is None else ms(at), basis=basis, company=f"carrier_code:{AIRLINE}")
        for at, basis in moments()
    ]
    return tuple(run(questions.states(one))["milestones"] for one in asked), digest(driver.reader)["total"]


def ms(at: datetime) -> int:
    return int(at.timestamp()) * 1000


def test_a_hundred_orders_have_one_history(sized: Sized) -> None:
    """100 shuffles, identical histories: states, dates, lapses and values at every moment, and every table, are those of
    the first order; and that one's are what polars finds in the CSV."""
    first, tables = told(flights(), random.Random(0))
    for seed in range(1, sized(100, FEWER)):
        history, again = told(flights(), random.Random(seed))
        assert history == first, f"seed {seed}"
        assert again == tables, f"seed {seed}"
    frame = csv.read_csv()
    complete_to = frame.filter(carrier=AIRLINE)["departed"].max()
    course = courses(frame)[AIRLINE]
    rows = {row["milestone"]: row for row in first[0]}
    for name, terms in TERMS.items():
        found = stands(course, terms, NOW, complete_to)
        achieved = None if found.achieved_at is None else f"{found.achieved_at:%Y-%m-%dT%H:%M:%SZ}"
        assert (rows[name]["achieved_at"], rows[name]["lapsed"]) == (achieved, len(found.lapses)), name


def test_what_came_late_was_not_seen_then() -> None:
    """The moments differ, so that a history says something: a departure that arrived late is in the corrected one alone."""
    history, _ = told(flights(), random.Random(0))
    shown, corrected = ({row["milestone"]: row["actions"][0]["value"] for row in rows} for rows in history[2:])
    assert shown["five_thousand"] == corrected["five_thousand"] - 1


def test_one_flight_less_is_another_history() -> None:
    """Positive control: without one departure of the year neither history nor tables are the same."""
    left_out = next(one for one in flights() if one.type == "flight.departed")
    first, tables = told(flights(), random.Random(0))
    fewer, others = told([one for one in flights() if one is not left_out], random.Random(0))
    assert first != fewer and tables != others
