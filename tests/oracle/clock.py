"""Time as the oracle sees it: RFC 3339 to milliseconds, panes, known-time buckets, windows and local days."""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

MINUTE = 60_000
QUARTER = 15 * MINUTE
HOUR = 60 * MINUTE
DAY = 24 * HOUR
UNITS = {"ms": 1, "s": 1000, "m": MINUTE, "h": HOUR, "d": DAY}
CALENDAR = ("year", "month", "week", "day")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


class Refused(ValueError):
    """A question that has no exact answer at 15 minutes, or makes no sense."""


def ms(text: str) -> int:
    """Milliseconds since the epoch of an RFC 3339 time with zone; digits beyond the millisecond are cut."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"not an RFC 3339 time with a zone: {text!r}")
    day, clock, fraction, zone = match.groups()
    moment = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in 'Zz' else zone}")
    return (moment - _EPOCH) // timedelta(milliseconds=1) + int(((fraction or ".")[1:] + "000")[:3])


def rfc3339(at_ms: int) -> str:
    """The inverse of `ms`, in UTC."""
    moment = _EPOCH + timedelta(milliseconds=at_ms)
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + f".{at_ms % 1000:03d}Z"


def duration(text: str) -> int:
    """Milliseconds of a duration such as 15m, 1h, 7d."""
    match = re.fullmatch(r"(\d+)(ms|s|m|h|d)", text)
    if match is None:
        raise Refused(f"not a duration: {text!r}")
    return int(match.group(1)) * UNITS[match.group(2)]


def floor(at_ms: int, width_ms: int = QUARTER) -> int:
    return at_ms // width_ms * width_ms


def ceiling(at_ms: int, width_ms: int = QUARTER) -> int:
    return -(-at_ms // width_ms) * width_ms


def pane_end(t_ms: int) -> int:
    """The end of the 15-minute pane that holds `t_ms`."""
    return floor(t_ms) + QUARTER


def bucket_end(t_ms: int, k_ms: int) -> int:
    """The end of the known-time bucket that holds `k_ms` for an event at `t_ms`."""
    end = pane_end(t_ms)
    width = QUARTER if k_ms < end + DAY else HOUR if k_ms < end + 90 * DAY else DAY
    return floor(k_ms, width) + width


def window(text: str, end_ms: int, tz: str) -> int | None:
    """The start of the window that ends at `end_ms`; None for `all`."""
    if text == "all":
        return None
    if text in CALENDAR:
        return unit_start(text, end_ms - 1, tz)
    length = duration(text)
    if length % QUARTER or not 0 < length <= 3660 * DAY:
        raise Refused(f"a window is a multiple of 15 minutes up to 3660 days: {text!r}")
    return end_ms - length


@lru_cache(maxsize=4096)
def unit_start(unit: str, instant_ms: int, tz: str) -> int:
    """The start of the calendar unit of `tz` that holds an instant: found by walking along the zone's clock.

    Where a clock is turned back across midnight it shows the old date again; the new unit goes on, for it has begun.
    Refused when the unit does not begin on a quarter of an hour.
    """
    here = max(_label(unit, instant_ms - back * QUARTER, tz) for back in range(4 * 24))
    at_ms = instant_ms
    while _label(unit, at_ms, tz) >= here:  # back by days until an earlier unit
        at_ms -= DAY
    at_ms = floor(at_ms - DAY)  # a day more: the old date may have come twice
    while _label(unit, at_ms, tz) < here:  # and forth to the first quarter of an hour of this one
        at_ms += QUARTER
    if _label(unit, at_ms - 1, tz) >= here:
        raise Refused(f"the {unit} of {tz} does not begin on a quarter of an hour")
    return at_ms


@lru_cache(maxsize=65536)
def _label(unit: str, instant_ms: int, tz: str) -> tuple[int, ...]:
    """The name of a unit, such that later units have greater names."""
    day = (_EPOCH + timedelta(milliseconds=instant_ms)).astimezone(ZoneInfo(tz)).date()
    if unit == "week":
        return day.isocalendar()[:2]
    return {"year": (day.year,), "month": (day.year, day.month), "day": (day.year, day.month, day.day)}[unit]


def starts(from_ms: int, to_ms: int, every: str, tz: str) -> list[int]:
    """The starts of the points of a series in [from, to), and behind them the end of the last point.

    Minutes and hours are elapsed time; days, and calendar units, are local: the same wall clock on later days.
    """
    if from_ms % QUARTER:
        raise Refused("a series begins on a quarter of an hour")
    moments = [from_ms]
    count = 0
    while moments[-1] < to_ms:
        count += 1
        moments.append(_step(from_ms, every, count, tz))
    return moments


def _step(from_ms: int, every: str, count: int, tz: str) -> int:
    zone = ZoneInfo(tz)
    wall = (_EPOCH + timedelta(milliseconds=from_ms)).astimezone(zone).replace(tzinfo=None)
    if every in ("month", "year"):
        for _ in range(count * (12 if every == "year" else 1)):
            wall += timedelta(days=monthrange(wall.year, wall.month)[1])
        if wall.day != (_EPOCH + timedelta(milliseconds=from_ms)).astimezone(zone).day:
            raise Refused("a series of months begins on a day that all of them have")
    elif every in ("day", "week") or every.endswith("d"):
        days = {"day": 1, "week": 7}.get(every) or duration(every) // DAY
        wall += timedelta(days=days * count)
    else:
        length = duration(every)
        if length % QUARTER or length == 0:
            raise Refused(f"a point is a multiple of 15 minutes: {every!r}")
        return from_ms + length * count
    moment = (wall.replace(tzinfo=zone, fold=0).astimezone(UTC) - _EPOCH) // timedelta(milliseconds=1)
    if moment % QUARTER:
        raise Refused(f"days of {tz} do not begin on a quarter of an hour")
    return moment
