"""Two airlines merged by hand over a running worker, and taken apart: every kind of answer, against sums over the CSV.

    a week of flights ─▶ worker ─▶ link by command ─▶ flights in between ─▶ unlink over HTTP
    flights.csv ─▶ polars: each airline's rows, both airlines' rows as one

Of two airlines the last day is held back: it comes in while they are one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from typer.testing import CliRunner

from milepost.ops import cli
from milepost.ops.flights import FlightEvent
from milepost.ops.settings import Settings
from tests.support import flights_expected as csv
from tests.support.flights_milestones import TERMS, Stands, courses, stands
from tests.support.invariants import same_number
from tests.support.workers import AT, Deployment, week

pytestmark = [pytest.mark.broker, pytest.mark.slow]

ZONE: Final = "America/New_York"
UNITED, AMERICAN = "airline_name:United Air Lines Inc.", "carrier_code:AA"
HELD: Final = ("UA", "AA")
LAST_DAY: Final = 7
DAYS: Final = tuple(date(2012, 12, 31) + timedelta(days=number) for number in range(10))
BY_DAY: Final = (
    "departures",
    "departure_delay_sum",
    "departure_delay_avg",
    "aircraft_in_service",
    "on_time_rate",
    "cancellations",
)
BY_ORIGIN: Final = ("departures", "on_time_departures", "departure_delay_avg", "departure_delay_max", "on_time_rate")


@dataclass(frozen=True)
class Told:
    """Every answer about one company, or about all (`value` alone)."""

    value: Mapping[str, Any]
    series: Mapping[tuple[str, date], Any]
    origins: Mapping[tuple[str, str], Any]
    milestones: Mapping[str, Any]

    def differs(self, other: Told) -> list[str]:
        """Where another has another number, or stands otherwise."""
        wrong = []
        for what in ("value", "series", "origins"):
            mine, theirs = getattr(self, what), getattr(other, what)
            wrong += [
                f"{what} {one}: {mine.get(one)}, expected {theirs.get(one)}"
                for one in {**mine, **theirs}
                if not same_number(theirs.get(one), mine.get(one))
            ]
        both = {**self.milestones, **other.milestones}
        return wrong + [
            f"{one}: {self.milestones.get(one)}, expected {other.milestones.get(one)}"
            for one in both
            if self.milestones.get(one) != other.milestones.get(one)
        ]


def expected(rows: pl.DataFrame, complete_to: datetime) -> Told:
    """The answers about a company of which these are the flights."""
    at = pl.coalesce("departed", "scheduled").dt.convert_time_zone(ZONE).dt.date()
    course = courses(rows.with_columns(carrier=pl.lit("one")))["one"]
    now = datetime.now(UTC)
    return Told(
        value=csv.numbers(rows),
        series={(metric, day): csv.numbers(rows.filter(at == day))[metric] for day in DAYS for metric in BY_DAY},
        origins={
            (metric, str(origin)): numbers[metric]
            for (origin,), group in rows.group_by("origin")
            for numbers in [csv.numbers(group)]
            for metric in BY_ORIGIN
        },
        milestones={name: stands(course, terms, now, complete_to) for name, terms in TERMS.items()},
    )


class Asked:
    """The running worker, asked over HTTP."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment

    def get(self, path: str, **parameters: Any) -> Any:
        with self.deployment.worker.client() as client:
            return client.get(path, **parameters)

    def value(self, metric: str, **asked: Any) -> Any:
        return self.get(f"/v1/metrics/{metric}/value", **asked)["value"]

    def told(self, company: str) -> Told:
        return Told(
            value={metric: self.value(metric, company=company) for metric in csv.NUMBERS},
            series={
                (metric, day): point["value"]
                for metric in BY_DAY
                for day, point in zip(DAYS, self._series(metric, company), strict=True)
            },
            origins={
                (metric, row["key"]): row["value"]
                for metric in BY_ORIGIN
                for row in self.get(f"/v1/metrics/{metric}/breakdown", company=company, by="origin")["rows"]
            },
            milestones={row["milestone"]: stands_of(row) for row in self._milestones(company)},
        )

    def by_company(self, metric: str) -> dict[str, Any]:
        rows = self.get(f"/v1/metrics/{metric}/breakdown", by="company", limit="100")["rows"]
        return {row["key"]: row["value"] for row in rows}

    def metakey(self, company: str) -> str:
        kind, _, value = company.partition(":")
        found: str = self.get("/v1/identity/resolve", key=kind, value=value)["metakey"]
        return found

    def shown(self, company: str) -> list[Any]:
        """What was shown before anybody merged anything."""
        asked = {"company": company, "at": AT, "basis": "as_shown"}
        milestones = [stands_of(row) for row in self._milestones(**asked)]
        return [*(self.value(metric, **asked) for metric in csv.NUMBERS), milestones]

    def _series(self, metric: str, company: str) -> list[dict[str, Any]]:
        first, end = (datetime(one.year, one.month, one.day, tzinfo=ZoneInfo(ZONE)) for one in (DAYS[0], DAYS[-1]))
        span = {"from": first.isoformat(), "to": (end + timedelta(days=1)).isoformat(), "every": "1d", "tz": ZONE}
        points: list[dict[str, Any]] = self.get(f"/v1/metrics/{metric}/series", company=company, **span)["points"]
        return points

    def _milestones(self, company: str, **asked: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.get("/v1/milestones", company=company, **asked)["milestones"]
        return rows


def stands_of(row: Mapping[str, Any]) -> Stands:
    achieved = None if row["achieved_at"] is None else datetime.fromisoformat(row["achieved_at"])
    return Stands(
        state=row["state"], achieved_at=achieved, lapses=tuple(datetime.fromisoformat(one) for one in row["lapses"])
    )


def held_back(event: FlightEvent) -> bool:
    return event.data.get("carrier") in HELD and f"-2013-01-{LAST_DAY:02d}-" in event.id


def test_two_airlines_merged_by_hand_and_taken_apart(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Merge `airline_name:…` and `carrier_code:…` of two airlines by hand, see every answer add up; unlink, see every
    answer as before; events received in between on their own side."""
    frame = csv.first_week(csv.read_csv())
    fell = pl.col("carrier").is_in(HELD) & (pl.col("day") == LAST_DAY)
    early, held = frame.filter(~fell), frame.filter(fell)
    landed = frame.select((pl.col("departed") + pl.duration(minutes=pl.col("air_time"))).max()).item()
    events = list(week())
    kept = [event for event in events if held_back(event)]
    assert len([one for one in kept if one.type != "flight.landed"]) == held.height > 100

    def of(rows: pl.DataFrame, *carriers: str) -> Told:
        return expected(rows.filter(pl.col("carrier").is_in(carriers)), landed)

    with Deployment(settings) as deployment:
        deployment.apply()
        deployment.send(event for event in events if not held_back(event))
        deployment.start()
        deployment.settle()
        asked = Asked(deployment)

        def changes(company: str, departures: int) -> None:
            deployment.wait(lambda: asked.value("departures", company=company) == departures, "it is not in force")

        before = {company: asked.told(company) for company in (UNITED, AMERICAN)}
        assert before[UNITED].differs(of(early, "UA")) == [] == before[AMERICAN].differs(of(early, "AA"))
        shown = {company: asked.shown(company) for company in (UNITED, AMERICAN)}
        roots = {company: asked.metakey(company) for company in (UNITED, AMERICAN)}
        rows, cells = {one: asked.by_company(one) for one in BY_ORIGIN}, deployment.digest()["cells"]
        whole = asked.value("aircraft_in_service")

        for name, text in deployment.settings.environment().items():
            monkeypatch.setenv(name, text)

        def link() -> None:
            linked = CliRunner().invoke(cli.app, ["identity", "link", UNITED, AMERICAN, "--by", "ann"])
            assert linked.exit_code == 0, linked.output
            changes(AMERICAN, departures(early, "UA", "AA"))

        def unlink(rows: pl.DataFrame) -> None:
            with deployment.worker.client() as client:
                body = {"keys": [AMERICAN, "airline_name:American Airlines Inc."], "by": "ann"}
                assert client.post("/v1/identity/unlink", body)["receipt"].startswith("raw-events/")
            changes(AMERICAN, departures(rows, "AA"))

        link()
        one = of(early, "UA", "AA")
        assert [asked.told(company).differs(one) for company in (UNITED, AMERICAN)] == [[], []]
        root = asked.metakey(UNITED)
        assert root == asked.metakey(AMERICAN) and root in roots.values()
        for metric, told in rows.items():
            others = {key: value for key, value in told.items() if key not in roots.values()}
            assert asked.by_company(metric) == pytest.approx({**others, root: one.value[metric]}), metric
        assert deployment.digest()["cells"] == cells and asked.value("aircraft_in_service") == whole
        assert {company: asked.shown(company) for company in (UNITED, AMERICAN)} == shown, (
            "as shown there are still two"
        )

        unlink(early)
        assert {company: asked.told(company) for company in (UNITED, AMERICAN)} == before
        assert {metric: asked.by_company(metric) for metric in BY_ORIGIN} == rows

        link()
        now_ms = int(time.time() * 1000)
        deployment.send(kept, shift=lambda event: now_ms - event.k_ms)
        deployment.settle()
        assert asked.told(UNITED).differs(of(frame, "UA", "AA")) == []
        unlink(frame)
        assert asked.told(UNITED).differs(of(frame, "UA")) == [] == asked.told(AMERICAN).differs(of(frame, "AA"))
        assert {company: asked.metakey(company) for company in (UNITED, AMERICAN)} == roots
        assert {company: asked.shown(company) for company in (UNITED, AMERICAN)} == shown


def departures(rows: pl.DataFrame, *carriers: str) -> int:
    return rows.filter(pl.col("carrier").is_in(carriers) & pl.col("dep_time").is_not_null()).height
