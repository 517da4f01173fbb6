"""The demo's events hold what the CSV holds, counted by another library."""

from __future__ import annotations

import hashlib
import random
import zipfile
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import orjson
import polars as pl
import pytest

from milepost.ops import flights
from milepost.ops.flights import FlightEvent, Flights, import_order, read_flights
from milepost.schemas.errors import DeclarationError
from tests.support import flights_expected as other

HEAD = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,origin,"
    "dest,air_time,distance,hour,minute,time_hour"
)
ROW = "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z"


@pytest.fixture(scope="module")
def year() -> Flights:
    return read_flights()


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return other.read_csv()


def tally(events: Iterable[FlightEvent]) -> dict[str, float | None]:
    """The demo's metrics over events, counted by hand."""
    count: Counter[str] = Counter()
    aircraft, delays = set(), []
    for event in events:
        count[event.type] += 1
        if event.type == "flight.departed":
            delays.append(event.data["dep_delay"])
            if "tailnum" in event.data:
                aircraft.add(event.data["tailnum"])
    departures = count["flight.departed"]
    on_time = sum(delay <= 15 for delay in delays)
    return {
        "departures": departures or None,
        "cancellations": count["flight.cancelled"] or None,
        "on_time_departures": on_time or None,
        "departure_delay_sum": sum(delays) if delays else None,
        "departure_delay_avg": sum(delays) / departures if delays else None,
        "departure_delay_max": max(delays, default=None),
        "aircraft_in_service": len(aircraft) or None,
        "on_time_rate": on_time / departures if departures else None,
    }


@pytest.mark.campaign
def test_the_year_adds_up(year: Flights, frame: pl.DataFrame) -> None:
    """Over everything the events give the known totals, and each airline's are those of the CSV."""
    everything = list(year)
    totals = tally(everything)
    assert totals["departures"] == 328_521
    assert totals["cancellations"] == 8_255
    assert totals["on_time_departures"] == 257_747
    assert totals["aircraft_in_service"] == 4_037
    assert totals["departure_delay_sum"] == 4_152_200
    assert totals["departure_delay_max"] == 1_301
    expected = other.expected(frame)
    assert totals == expected.totals
    assert year.carriers == tuple(expected.by_company)
    for carrier, numbers in expected.by_company.items():
        own = [event for event in everything if event.source == flights.FLIGHTS and event.data["carrier"] == carrier]
        assert tally(own) == numbers, carrier
    assert all(
        year.identity(number) == (everything[number].source, everything[number].id) for number in range(0, 664_138, 101)
    )
    assert year.identity(664_137) == ("registry", "airline-YV")
    assert len({(event.source, event.id) for event in everything}) == len(everything) == 664_138
    assert Counter(event.type for event in everything)["flight.landed"] == 327_346

    for zone, numbers_of_year in (
        ("America/New_York", (328_518, 8_255, 257_746)),
        ("UTC", (328_432, 8_252, 257_681)),
    ):
        start, end = (int(at.timestamp() * 1000) for at in other.year_2013(zone))
        inside = tally(event for event in everything if start <= event.t_ms < end)
        found = tuple(inside[name] for name in ("departures", "cancellations", "on_time_departures"))
        assert found == numbers_of_year, zone
        assert inside == other.numbers(other.between(frame, *other.year_2013(zone))), zone


def test_the_first_week_is_chosen_by_the_rows_own_date(frame: pl.DataFrame) -> None:
    """The first week holds 6,099 rows, and its events give the numbers of those rows."""
    week = read_flights(week=True)
    assert week.rows == 6_099
    assert tally(week) == other.numbers(other.first_week(frame))


def test_a_row_becomes_the_events_of_its_flight(tmp_path: Path) -> None:
    """A flight that left and flew is two events; its body is the raw event of the interface."""
    found = read_flights(write(tmp_path, ROW))
    departed, landed, united = list(found)
    assert orjson.loads(departed.body()) == {
        "org": "port-authority",
        "source": "flights",
        "id": "UA1545-2013-01-01-EWR-dep",
        "type": "flight.departed",
        "time": "2013-01-01T10:17:00Z",
        "revision": 0,
        "void": False,
        "data": {
            "carrier": "UA",
            "flight": 1545,
            "tailnum": "N14228",
            "origin": "EWR",
            "dest": "IAH",
            "dep_delay": 2,
        },
    }
    assert (landed.data["air_time"], landed.data["arr_delay"]) == (227, 11)
    assert (landed.id, flights.rfc3339(landed.t_ms)) == ("UA1545-2013-01-01-EWR-land", "2013-01-01T14:04:00Z")
    assert (united.source, united.type, united.data) == (
        "registry",
        "airline.listed",
        {"carrier": "UA", "name": "United Air Lines Inc."},
    )
    assert united.t_ms == int(datetime(2013, 1, 1, tzinfo=UTC).timestamp() * 1000)


def test_a_flight_that_never_left_is_cancelled_at_its_schedule(tmp_path: Path) -> None:
    """Without dep_time there is one event, at the schedule, and an aircraft only if one was named."""
    row = "2013,1,1,,1630,,,1815,,EV,4308,,EWR,RDU,,416,16,30,2013-01-01T21:00:00Z"
    cancelled, _ = list(read_flights(write(tmp_path, row)))
    assert cancelled.type == "flight.cancelled"
    assert cancelled.id == "EV4308-2013-01-01-EWR-can"
    assert flights.rfc3339(cancelled.t_ms) == "2013-01-01T21:30:00Z"
    assert cancelled.data == {"carrier": "EV", "flight": 4308, "origin": "EWR", "dest": "RDU"}


def test_an_early_departure_of_the_next_day_keeps_the_rows_date(tmp_path: Path) -> None:
    """A delay past midnight moves the time, not the id."""
    row = "2013,1,1,106,2245,141,201,2356,125,B6,608,N192JB,JFK,PWM,44,273,22,45,2013-01-02T03:00:00Z"
    departed, *_ = list(read_flights(write(tmp_path, row)))
    assert departed.id == "B6608-2013-01-01-JFK-dep"
    assert flights.rfc3339(departed.t_ms) == "2013-01-02T06:06:00Z"


def test_one_event_in_fifty_is_known_three_days_late(year: Flights) -> None:
    """k is t, but for ids whose hash is a multiple of fifty."""
    late = 0
    for number in range(0, len(year), 97):
        event = year[number]
        hashed = int(hashlib.blake2b(event.id.encode(), digest_size=8).hexdigest(), 16)
        assert event.k_ms - event.t_ms == (3 * 86_400_000 if hashed % 50 == 0 else 0)
        late += event.k_ms != event.t_ms
    assert 0.015 < late / (len(year) / 97) < 0.025


def test_the_order_of_sending_is_a_shuffle_with_repeats() -> None:
    """Every event is sent, one in twenty twice, in an order that the seed decides."""
    order = import_order(10_000, seed=7)
    count = Counter(order)
    assert sorted(count) == list(range(10_000))
    assert Counter(count.values()) == {1: 9_500, 2: 500}
    assert order == import_order(10_000, seed=7)
    assert order != import_order(10_000, seed=8)
    assert list(order[:100]) != sorted(order[:100])
    assert Counter(import_order(1_000, seed=1, repeats=0.5).tolist()).most_common(1)[0][1] == 2


def test_a_folder_may_hold_what_another_tool_wrote(tmp_path: Path) -> None:
    """Columns in another order, numbers as 517.0, NA, quotes and CRLF mean the same; a zip is read too."""
    plain = list(read_flights(write(tmp_path, ROW)))
    head, row = HEAD.split(","), ROW.split(",")
    pairs = sorted(zip(head, row, strict=True))
    other_row = [
        f"{value}.0" if name in {"dep_time", "dep_delay", "air_time", "arr_delay"} else value for name, value in pairs
    ]
    text = "\r\n".join([",".join(f'"{name}"' for name, _ in pairs), ",".join(f'"{value}"' for value in other_row), ""])
    with zipfile.ZipFile(tmp_path / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", text)
    (tmp_path / "flights.csv").unlink()
    assert list(read_flights(tmp_path)) == plain


def test_rows_removed_and_an_airline_renamed_are_followed(tmp_path: Path, frame: pl.DataFrame) -> None:
    """The events follow the file they are given: a copy without some rows and with another name for an airline."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    week = other.first_week(frame).sample(fraction=1.0, seed=seed, shuffle=True)
    kept = week.head(week.height - 100).with_columns(carrier=pl.col("carrier").replace({"UA": "UX"}))
    kept.drop("scheduled", "departed").write_csv(tmp_path / "flights.csv")
    found = read_flights(tmp_path)
    assert "UX" in found.carriers
    assert "UA" not in found.carriers
    assert tally(found) == other.numbers(kept)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("year,month\n1,2", "line 1: the column day is missing"),
        (f"{HEAD}\n{ROW}\n2013,1,1,517", "line 3: 4 columns"),
        (f"{HEAD}\n{ROW.replace('2013-01-01T10', 'yesterday')}", "line 2: Invalid isoformat"),
        (f"{HEAD}\n{ROW.replace(',227,', ',22.5,')}", "line 2: expected a whole number"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, content: str, said: str) -> None:
    """A file that cannot be read says where and what was expected."""
    (tmp_path / "flights.csv").write_text(content)
    with pytest.raises(DeclarationError, match=said):
        list(read_flights(tmp_path))


def test_a_folder_without_flights_is_refused(tmp_path: Path) -> None:
    """A folder that holds no flights is named."""
    with pytest.raises(DeclarationError, match=r"neither flights\.csv nor flights\.csv\.zip"):
        read_flights(tmp_path)


def write(folder: Path, *rows: str) -> Path:
    (folder / "flights.csv").write_text("\n".join([HEAD, *rows, ""]))
    (folder / "airlines.csv").write_text("carrier,name\nUA,United Air Lines Inc.\n")
    return folder
