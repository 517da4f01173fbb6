"""The demo's year in the pure driver: how its milestones stand, and what its local days hold, as polars has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from milepost.topology.driver import Driver
from milepost.topology.questions import Question, Questions
from milepost.topology.standings import Asks, Standings
from milepost.topology.steps import run
from tests.support import flights_expected as csv
from tests.support.flights_driver import year_driver
from tests.support.flights_milestones import LAST, TERMS, Stands, courses, stands

pytestmark = [pytest.mark.slow, pytest.mark.campaign]

NOW: Final = datetime(2014, 2, 5, tzinfo=UTC)
COMPLETE: Final = datetime(2014, 1, 5, tzinfo=UTC)
PLAN: Final = "on_time_2013"
SOME: Final = ("OO", "UA")
"""The airlines that flew least and most: asked at other moments too."""


@pytest.fixture(scope="module")
def year() -> Iterator[Driver]:
    yield year_driver(ms(NOW))


@pytest.fixture(scope="module")
def flights() -> pl.DataFrame:
    return csv.read_csv()


@pytest.fixture(scope="module")
def by_airline(flights: pl.DataFrame) -> dict[str, pl.DataFrame]:
    return courses(flights)


@pytest.fixture(scope="module")
def complete_to(flights: pl.DataFrame) -> datetime:
    """Up to when the source is complete: not the last event that it sent, but the time that the import's end names."""
    latest = flights.select(pl.coalesce("departed", "scheduled").max()).item()
    assert latest < COMPLETE
    return COMPLETE


def ms(at: datetime) -> int:
    return int(at.timestamp()) * 1000


def told(row: dict[str, Any]) -> tuple[Stands, int]:
    """A row of an answer as polars says it, and how many lapses it counts: it lists the last hundred."""
    achieved = None if row["achieved_at"] is None else datetime.fromisoformat(row["achieved_at"])
    lapses = tuple(datetime.fromisoformat(one) for one in row["lapses"])
    return Stands(state=row["state"], achieved_at=achieved, lapses=lapses), row["lapsed"]


def wanted(one: Stands) -> tuple[Stands, int]:
    listed = Stands(state=one.state, achieved_at=one.achieved_at, lapses=one.lapses[-100:])
    return listed, len(one.lapses)


# --- milestones


def test_every_milestone_of_every_airline_stands_as_the_csv_says(
    year: Driver, by_airline: dict[str, pl.DataFrame], complete_to: datetime
) -> None:
    """State, date and lapses of the four milestones for sixteen airlines, and the year's known truths among them."""
    questions = Standings(year.reader)
    found: dict[str, dict[str, Stands]] = {name: {} for name in TERMS}
    for carrier, course in sorted(by_airline.items()):
        answer = run(questions.states(Asks(now_ms=ms(NOW), plan=PLAN, company=f"carrier_code:{carrier}")))
        rows = {row["milestone"]: row for row in answer["milestones"]}
        assert set(rows) == set(TERMS)
        for name, terms in TERMS.items():
            one = stands(course, terms, NOW, complete_to)
            assert told(rows[name]) == wanted(one), (carrier, name)
            assert rows[name]["complete_to"] == "2014-01-05T00:00:00Z"
            found[name][carrier] = one
    assert len(by_airline) == 16
    twenty, five, idle, punctual = (found[name] for name in TERMS)
    last = max((one.achieved_at, carrier) for carrier, one in twenty.items() if one.achieved_at is not None)
    assert {one.state for one in twenty.values()} == {"achieved"}
    assert last == (datetime(2013, 9, 19, 22, tzinfo=UTC), "OO")
    assert {one.state for one in five.values()} == {"missed"}
    assert max(course["month"].max() for course in by_airline.values()) == by_airline["UA"]["month"].max() == 4690
    assert all(one.lapses for one in idle.values())
    assert sum(one.state == "achieved" for one in idle.values()) == 12
    assert {carrier for carrier, one in punctual.items() if one.state == "missed"} == {"9E", "EV", "OO", "YV"}
    assert sum(one.state == "achieved" for one in punctual.values()) == 12


@pytest.mark.parametrize("at", [
    datetime(2012, 12, 31, 23, 45, tzinfo=UTC), datetime(2013, 2, 2, 9, 30, tzinfo=UTC), datetime(2013, 3, 1, tzinfo=UTC),
    datetime(2013, 9, 19, 21, 45, tzinfo=UTC), LAST,
])  # fmt: skip
def test_at_other_moments_too(
    year: Driver, by_airline: dict[str, pl.DataFrame], complete_to: datetime, at: datetime
) -> None:
    """Before the start, within it, at a deadline and a quarter of an hour before the last airline's twentieth flight."""
    questions = Standings(year.reader)
    for carrier in SOME:
        asks = Asks(now_ms=ms(NOW), at_ms=ms(at), plan=PLAN, company=f"carrier_code:{carrier}")
        rows = {row["milestone"]: row for row in run(questions.states(asks))["milestones"]}
        for name, terms in TERMS.items():
            assert told(rows[name]) == wanted(stands(by_airline[carrier], terms, at, complete_to)), (carrier, name)


def test_one_flight_less_is_seen(flights: pl.DataFrame, by_airline: dict[str, pl.DataFrame]) -> None:
    """Positive control: without the first flight of the airline that flew least, its twentieth comes later."""
    own = flights.filter((pl.col("carrier") == "OO") & pl.col("dep_time").is_not_null()).sort("departed")
    terms = TERMS["twenty_departures"]
    whole, fewer = (stands(one["OO"], terms, NOW, NOW) for one in (by_airline, courses(own[1:])))
    assert whole.achieved_at is not None and fewer.achieved_at is not None and fewer.achieved_at > whole.achieved_at


# --- local days

ZONES: Final = {
    "America/New_York": (date(2013, 3, 10), date(2013, 11, 3)),
    "Europe/Berlin": (date(2013, 3, 31), date(2013, 10, 27)),
    "Asia/Kathmandu": (),
    "America/St_Johns": (date(2013, 3, 10), date(2013, 11, 3)),
}
"""Zone -> the days on which its clocks were changed, the short one first."""


def local_days(zone: str) -> list[tuple[date, datetime, datetime]]:
    """Each day from 31 December 2012 to 1 January 2014 with its two midnights, by zoneinfo."""
    days = [date(2012, 12, 31) + timedelta(days=number) for number in range(367)]
    return [(day, midnight(day, zone), midnight(day + timedelta(days=1), zone)) for day in days]


def midnight(day: date, zone: str) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).astimezone(UTC)


def dates_in(zone: str, moments: Iterable[datetime]) -> Counter[date]:
    """How many of the moments lie on each date of a zone."""
    tz = ZoneInfo(zone)
    return Counter(one.astimezone(tz).date() for one in moments)


def by_day(year: Driver, metric: str, zone: str, company: str | None = None) -> dict[tuple[str, str], int | None]:
    """(start, end) -> value of every day of the series."""
    days = local_days(zone)
    question = Question(metric=metric, now_ms=ms(NOW), company=company, tz=zone)
    answer = run(Questions(year.reader).series(question, ms(days[0][1]), ms(days[-1][2]), "1d"))
    return {(one["start"], one["end"]): one["value"] for one in answer["points"]}


def expected_days(zone: str, counts: Counter[date]) -> dict[tuple[str, str], int | None]:
    return {
        (f"{start:%Y-%m-%dT%H:%M:%SZ}", f"{end:%Y-%m-%dT%H:%M:%SZ}"): counts[day] or None
        for day, start, end in local_days(zone)
    }


@pytest.mark.parametrize("zone", sorted(ZONES))
def test_a_local_day_holds_what_happened_on_its_date(year: Driver, flights: pl.DataFrame, zone: str) -> None:
    """DST days in Europe/Berlin, Asia/Kathmandu, America/St_Johns: departures by local day are those whose schedule and
    delay fall on that date, of all airlines and of one, on the days of 23 and 25 hours too."""
    gone = flights.filter(pl.col("dep_time").is_not_null())
    for company, rows in ((None, gone), ("carrier_code:UA", gone.filter(pl.col("carrier") == "UA"))):
        counts = dates_in(zone, rows["departed"])
        assert by_day(year, "departures", zone, company) == expected_days(zone, counts)
        assert sum(counts.values()) == rows.height
    hours = {day: (end - start) // timedelta(hours=1) for day, start, end in local_days(zone)}
    assert [day for day, length in hours.items() if length != 24] == list(ZONES[zone])
    assert [hours[day] for day in ZONES[zone]] == [23, 25][: len(ZONES[zone])]


@pytest.mark.parametrize("zone", sorted(ZONES))
def test_cancellations_by_local_day(year: Driver, flights: pl.DataFrame, zone: str) -> None:
    """Cancellations lie on the local date of their schedule, and in New York on the date that the file itself has."""
    lost = flights.filter(pl.col("dep_time").is_null())
    counts = dates_in(zone, lost["scheduled"])
    assert by_day(year, "cancellations", zone) == expected_days(zone, counts)
    dates = Counter(date(*row) for row in lost.select("year", "month", "day").iter_rows())
    assert (counts == dates) == (zone == "America/New_York")
