"""What the demo sends beside the flights: aircraft as records, the weather of airports, and that its sources are complete."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from milepost.ops.apply import demo_bundle
from milepost.ops.demo_data import DemoData, observed, read_demo
from milepost.ops.flights import ORG, FlightEvent, listed
from milepost.schemas.errors import DeclarationError
from milepost.topology import by_hand
from milepost.topology.driver import Driver
from milepost.topology.questions import Question, Questions
from milepost.topology.record_questions import RecordQuestion, RecordQuestions
from milepost.topology.refusals import UnknownCompany
from milepost.topology.steps import run
from tests.support import flights_expected as csv
from tests.support.flights_driver import FIRST_MS, beside_driver, send_flight
from tests.support.workers import SECRET

AT: Final = datetime(2014, 1, 5, tzinfo=UTC)
NOW: Final = datetime(2014, 2, 5, tzinfo=UTC)
NEW_YORK: Final = ZoneInfo("America/New_York")
ABOUT: Final = 1e-6
"""What an average of readings may miss, in part: a metric keeps six decimals of each."""


@pytest.fixture(scope="module")
def data() -> DemoData:
    return read_demo()


@pytest.fixture(scope="module")
def beside(data: DemoData) -> list[FlightEvent]:
    return [data[number] for number in range(len(data.flights), len(data))]


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    yield beside_driver(ms(NOW))


@pytest.fixture(scope="module")
def planes() -> pl.DataFrame:
    return csv.read_planes()


@pytest.fixture(scope="module")
def weather() -> pl.DataFrame:
    return csv.read_weather()


def ms(at: datetime) -> int:
    return int(at.timestamp()) * 1000


# --- the events


def test_there_is_an_event_for_each_row_and_one_for_each_source(
    data: DemoData, beside: list[FlightEvent], planes: pl.DataFrame, weather: pl.DataFrame
) -> None:
    """Beside the flights: 3,322 aircraft, 26,115 hours of weather, and three sources that are complete; no id twice."""
    assert Counter(event.type for event in beside) == {
        "aircraft.listed": planes.height, "weather.observed": weather.height, "milepost.source_complete": 3,
    }  # fmt: skip
    assert (planes.height, weather.height, len(data)) == (3_322, 26_115, 664_138 + 29_440)
    assert len({(event.source, event.id) for event in beside}) == len(beside)
    start = len(data.flights)
    for number in (0, start - 1, *range(start, len(data), 997), len(data) - 1):
        assert data.identity(number) == (data[number].source, data[number].id)


def test_the_sources_are_complete_at_the_end_of_the_import(data: DemoData, beside: list[FlightEvent]) -> None:
    """The last events, one for each source of the bundle, say so of a time by which everything is known, and at it."""
    frame, last = csv.read_csv(), beside[-data.closing :]
    assert [event.data["source"] for event in last] == ["flights", "registry", "weather"]
    assert {event.data["until"] for event in last} == {"2014-01-05T00:00:00Z"}
    assert {event.k_ms for event in last} == {ms(AT)}
    landed = frame.select((pl.col("departed") + pl.duration(minutes=pl.col("air_time"))).max()).item()
    latest = max(landed, frame["scheduled"].max(), datetime.fromtimestamp(beside[-4].t_ms / 1000, UTC))
    assert latest + timedelta(days=3) < AT


def test_the_first_week_has_its_weather_and_all_aircraft(weather: pl.DataFrame) -> None:
    """The week is that of the rows' own dates; the registry knows all aircraft at once."""
    found = read_demo(week=True)
    types = Counter(found[number].type for number in range(len(found.flights), len(found)))
    assert types == {
        "aircraft.listed": 3_322, "weather.observed": csv.first_week(weather).height, "milepost.source_complete": 3,
    }  # fmt: skip


def test_a_folder_has_what_it_holds(tmp_path: Path) -> None:
    """Without planes.csv and weather.csv there are no aircraft and no weather; what a file holds is read, gaps too."""
    head = "year,month,day,dep_time,dep_delay,carrier,flight,tailnum,origin,dest,air_time,arr_delay,minute,time_hour"
    row = "2013,1,1,517,2,UA,1545,N14228,EWR,IAH,227,11,15,2013-01-01T10:00:00Z"
    (tmp_path / "flights.csv").write_text(f"{head}\n{row}\n")
    assert len(read_demo(tmp_path)) == len(read_demo(tmp_path).flights) + 3
    (tmp_path / "planes.csv").write_text(
        "tailnum,year,type,manufacturer,model,engines,seats,speed,engine\r\nN1,NA,Fixed,BOEING,737,2.0,149,,Turbo-fan\r\n"
    )
    weather = "origin,year,month,day,time_hour,temp,humid,wind_speed,wind_gust,precip,pressure,visib\n"
    (tmp_path / "weather.csv").write_text(weather + "JFK,2013,5,12,2013-05-12T04:00:00Z,NA,,6.9,NA,0,1012,10\n")
    found = read_demo(tmp_path)
    plane, hour = (found[len(found.flights) + number] for number in range(2))
    assert plane.data == {
        "tailnum": "N1", "type": "Fixed", "manufacturer": "BOEING", "model": "737", "engines": 2, "seats": 149,
        "engine": "Turbo-fan",
    }  # fmt: skip
    assert hour.data == {"origin": "JFK", "wind_speed": 6.9, "precip": 0.0, "pressure": 1012.0, "visib": 10.0}
    assert (hour.source, hour.id, hour.t_ms) == (
        "weather", "JFK-2013-05-12T04:00:00Z", ms(datetime(2013, 5, 12, 4, tzinfo=UTC)),
    )  # fmt: skip


def test_a_broken_row_is_named_with_its_line(tmp_path: Path) -> None:
    """A reading that is no number says where it stands."""
    head = "year,month,day,dep_time,dep_delay,carrier,flight,tailnum,origin,dest,air_time,arr_delay,minute,time_hour"
    (tmp_path / "flights.csv").write_text(f"{head}\n")
    weather = "origin,year,month,day,time_hour,temp,humid,wind_speed,wind_gust,precip,pressure,visib\n"
    (tmp_path / "weather.csv").write_text(weather + "JFK,2013,5,12,2013-05-12T04:00:00Z,,,calm,,0,1012,10\n")
    with pytest.raises(DeclarationError, match=r"weather\.csv, line 2: could not convert string to float: 'calm'"):
        list(read_demo(tmp_path))


# --- aircraft


@pytest.mark.campaign
def test_every_aircraft_is_the_record_that_its_row_is(driver: Driver, planes: pl.DataFrame) -> None:
    """Value and history of all 3,322: the fields of the row, written once, on the first day of the year."""
    questions, late = RecordQuestions(driver.reader), 0
    for row in planes.iter_rows(named=True):
        tail = row.pop("tailnum")
        question = RecordQuestion(type="aircraft", id=tail, now_ms=ms(NOW))
        assert run(questions.value(question))["value"] == row, tail
        (version,) = run(questions.history(question, 0, 10))["versions"]
        assert (version["op"], version["time"], version["value"]) == ("upsert", "2013-01-01T00:00:00Z", row), tail
        assert version["event"] == {"source": "registry", "id": f"aircraft-{tail}", "type": "aircraft.listed"}
        late += version["known"] == "2013-01-04T00:00:00Z"
    assert 40 < late < 90  # one in fifty


def test_an_aircraft_of_which_the_log_learned_late_was_not_seen_before(
    driver: Driver, beside: list[FlightEvent]
) -> None:
    """As shown two days after its listing there is no record, as corrected there is; before the year there is none."""
    late = next(event for event in beside if event.type == "aircraft.listed" and event.k_ms > event.t_ms)
    questions = RecordQuestions(driver.reader)
    found: dict[tuple[int, str], Any] = {}
    for day in (-1, 2):
        for basis in ("as_shown", "corrected"):
            at = ms(datetime(2013, 1, 1, tzinfo=UTC) + timedelta(days=day))
            asked = RecordQuestion(type="aircraft", id=late.data["tailnum"], now_ms=ms(NOW), at_ms=at, basis=basis)
            found[day, basis] = run(questions.value(asked))["value"]
    model = found.pop((2, "corrected"))["model"]
    assert model == late.data["model"] and set(found.values()) == {None}


# --- weather


def value(driver: Driver, metric: str, **asked: Any) -> dict[str, Any]:
    question = Question(metric=metric, now_ms=ms(NOW), at_ms=asked.pop("at_ms", ms(AT)), **asked)
    return run(Questions(driver.reader).value(question))


def test_the_years_weather_of_each_airport_is_the_csvs(driver: Driver, weather: pl.DataFrame) -> None:
    """Each metric by airport, and of all airports together, which is the organisation's."""
    expected = csv.weather(weather)
    assert list(expected) == ["EWR", "JFK", "LGA"]
    (everywhere,) = csv.weather(weather.with_columns(origin=pl.lit("all"))).values()
    for metric, whole in everywhere.items():
        found = value(driver, metric)
        assert found["value"] == pytest.approx(whole, rel=ABOUT), metric
        assert (found["complete_to"], found["finality"]) == ("2014-01-05T00:00:00Z", "final")
        question = Question(metric=metric, now_ms=ms(NOW), at_ms=ms(AT))
        rows = run(Questions(driver.reader).breakdown(question, "origin"))["rows"]
        by_airport = {row["key"]: row["value"] for row in rows}
        assert by_airport == pytest.approx({name: own[metric] for name, own in expected.items()}, rel=ABOUT), metric


def test_the_worst_visibility_at_kennedy_on_the_twelfth_of_may(driver: Driver, weather: pl.DataFrame) -> None:
    """A day at an airport is asked with its zone and `dim.origin`."""
    midnight = ms(datetime(2013, 5, 13, tzinfo=NEW_YORK))
    asked = {"at_ms": midnight, "window": "day", "tz": NEW_YORK.key, "dims": {"origin": "JFK"}}
    rows = weather.filter(origin="JFK", date=date(2013, 5, 12))
    assert value(driver, "visibility_min", **asked)["value"] == rows["visib"].min() == 6
    assert value(driver, "precipitation", **asked)["value"] == pytest.approx(rows["precip"].sum())


@pytest.mark.parametrize("airport", ["EWR", "JFK", "LGA"])
def test_every_day_of_every_airport(driver: Driver, weather: pl.DataFrame, airport: str) -> None:
    """The least visibility of each local day, on the days of 23 and 25 hours too, is the least of that date's rows."""
    first, last = (ms(datetime(2013 + more, 1, 1, tzinfo=NEW_YORK)) for more in (0, 1))
    question = Question(metric="visibility_min", now_ms=ms(NOW), tz=NEW_YORK.key, dims={"origin": airport})
    points = run(Questions(driver.reader).series(question, first, last, "1d"))["points"]
    found = {
        datetime.fromisoformat(one["start"]).astimezone(NEW_YORK).date(): one["value"]
        for one in points
        if one["value"] is not None
    }
    days = weather.filter(origin=airport).group_by("date").agg(pl.col("visib").min())
    assert len(points) == 365 and found == dict(days.iter_rows())


def test_an_hour_less_is_seen(weather: pl.DataFrame) -> None:
    """Positive control: without one reading of the worst hour the expected numbers are others."""
    worst = weather.filter(pl.col("visib") == pl.col("visib").min()).row(0, named=True)
    fewer = weather.filter(~((pl.col("origin") == worst["origin"]) & (pl.col("at") == worst["at"])))
    assert csv.weather(fewer)[worst["origin"]] != csv.weather(weather)[worst["origin"]]


def test_an_airport_is_no_company(driver: Driver) -> None:
    """Nobody lists it among companies, no breakdown has it, it cannot be asked as one; its key resolves as a site's."""
    questions = Questions(driver.reader)
    companies = questions.companies()
    assert run(companies.all()) == []
    question = Question(metric="visibility_min", now_ms=ms(NOW), at_ms=ms(AT))
    assert run(questions.breakdown(question, "company"))["rows"] == []
    with pytest.raises(UnknownCompany, match="companies have no key 'airport_code'"):
        value(driver, "visibility_min", company="airport_code:JFK")
    found = run(companies.resolve("site", "airport_code", "JFK", None))
    assert (found["entity"], found["leaf"]) == ("site", found["metakey"])
    with pytest.raises(UnknownCompany, match="is a site, not a company"):
        value(driver, "visibility_min", company=found["metakey"])


def test_an_airport_that_belongs_to_a_company_counts_for_it() -> None:
    """A membership of a site gives a company its weather from then on; without one a company has none."""
    driver = Driver(SECRET.encode(), partitions=2)
    driver.apply(ORG, demo_bundle(), FIRST_MS)
    send_flight(driver, listed("B6", "JetBlue Airways"))
    for hour, visib in (("2013-05-12T04:00:00Z", "3"), ("2013-05-13T04:00:00Z", "6")):
        send_flight(driver, observed(("JFK", "2013", "5", "12", hour, "NA", "NA", "7", "NA", "0", "1012", visib)))
    driver.run()
    assert value(driver, "visibility_min", company="carrier_code:B6")["reason"] == "no_events"
    belongs = {
        "entity": "site",
        "member": "airport_code:JFK",
        "company": "carrier_code:B6",
        "from": "2013-05-13T00:00:00Z",
    }
    driver.produce(by_hand.event(ORG, "membership", belongs, "m", ms(AT), {}), ms(AT))
    driver.run()
    assert driver.dead_letters == []
    assert value(driver, "visibility_min", company="carrier_code:B6")["value"] == 6
    assert value(driver, "visibility_min")["value"] == 3


def test_every_record_comes_to_one_end(driver: Driver, beside: list[FlightEvent]) -> None:
    """All are accepted; an aircraft is a change of a record, an hour a signal, and nothing is dead."""
    fates = driver.fates["ingest"]
    assert driver.dead_letters == []
    assert (fates["read"], fates["accepted"]) == (len(beside), len(beside))
    assert (fates["change"], driver.fates["record"]["taken"]) == (3_322, 3_322)
    assert (fates["signal"], fates["no_rule"]) == (26_115, 3_322 + 3)
