"""What the demo and its worker must answer, for the flights and the weather of a frame: computed by polars."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, Final

import polars as pl
import pytest

from milepost.ops.client import Client, Refused
from tests.support import flights_expected as csv
from tests.support.flights_milestones import TERMS, courses, stands

AT: Final = datetime(2014, 1, 5, tzinfo=UTC)
"""The moment of the demo's questions, up to which its sources are complete."""
ABOUT: Final = 1e-6
"""What an average of readings may miss, in part: a metric keeps six decimals of each."""


def right(answers: Mapping[str, Any], flights: pl.DataFrame, weather: pl.DataFrame) -> None:
    """The JSON of the demo: totals, airlines, airports, milestones, and that all of it is final."""
    expected = csv.expected(flights)
    assert answers["totals"] == pytest.approx(expected.totals)
    assert answers["by_company"].keys() == expected.by_company.keys()
    for carrier, numbers in expected.by_company.items():
        assert answers["by_company"][carrier] == pytest.approx(numbers), carrier
    by_airport = csv.weather(weather)
    assert answers["by_place"].keys() == by_airport.keys()
    for airport, numbers in by_airport.items():
        assert answers["by_place"][airport] == pytest.approx(numbers, rel=ABOUT), airport
    for carrier, course in courses(flights).items():
        for name, terms in TERMS.items():
            found = stands(course, terms, AT, AT)
            achieved = None if found.achieved_at is None else f"{found.achieved_at:%Y-%m-%dT%H:%M:%SZ}"
            told = {"state": found.state, "achieved_at": achieved, "lapsed": len(found.lapses)}
            assert answers["milestones"][name][carrier] == told, (name, carrier)
    assert answers["complete_to"] == f"{AT:%Y-%m-%dT%H:%M:%SZ}"
    names = {*expected.totals, *(metric for numbers in by_airport.values() for metric in numbers)}
    assert answers["finality"] == dict.fromkeys(names, "final")


def known(client: Client, weather: pl.DataFrame) -> None:
    """The worker of the first week: a few aircraft are the records that their rows are, a day's visibility at an airport
    can be asked, and no airport is a company."""
    planes = {row.pop("tailnum"): row for row in csv.read_planes().iter_rows(named=True)}
    for tail in ("N14228", *sorted(planes)[::1000]):
        assert client.get(f"/v1/records/aircraft/{tail}")["value"] == planes[tail]
        (version,) = client.get(f"/v1/records/aircraft/{tail}/history")["versions"]
        assert (version["time"], version["value"]) == ("2013-01-01T00:00:00Z", planes[tail])
    with pytest.raises(Refused, match="no records of the type 'aircrafts'"):
        client.get("/v1/records/aircrafts/N14228")
    asked = {"at": "2013-01-07T00:00-05:00", "window": "day", "tz": "America/New_York", "dim.origin": "JFK"}
    rows = weather.filter(origin="JFK", date=date(2013, 1, 6))
    assert client.value("visibility_min", **asked)["value"] == rows["visib"].min() == 3
    assert rows.height == 24
    companies = client.get("/v1/companies")["companies"]
    assert {one["keys"][0] for one in companies} >= {"carrier_code:UA", "carrier_code:OO"}
    assert len(companies) == 16
