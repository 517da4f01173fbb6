"""Bases: the time of a question, cut into exact reads.

    basis       events with   known by               identity and definitions of
    latest      all           now                    now
    corrected   t < T         now                    now
    as_shown    t < T         a bucket ends <= T     T

T (`at`) is floored to 15 minutes for corrected and as_shown; the answer names the one it used.  A pane counts when it
ends <= T.  Windows are half-open, [T-N, T); `year month week day` is the unit of the zone that holds the last instant
before T, [start, T).  Of `latest` the window `all` has no upper bound; other windows end at now's ceiling to 15 min.

A window becomes whole UTC days (read as day rows) and 15-minute panes before and after them.  A local day is the sum of
the panes between two zone instants, so a zone whose midnights lie off the quarter hours is refused, never approximated.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Final, Literal, get_args
from zoneinfo import ZoneInfo, available_timezones

from milepost.topology.panes import DAY_MS, PANE_MS, PANES_A_DAY
from milepost.topology.refusals import BadParameter, GrainTooCoarse, UnknownBasis, UnknownZone, closest

Basis = Literal["latest", "corrected", "as_shown"]
BASES: Final[tuple[str, ...]] = get_args(Basis)
CALENDAR: Final = ("year", "month", "week", "day")

WINDOW_MS_MAX: Final = 3_660 * DAY_MS
POINTS_MAX: Final = 4_000
FOREVER: Final = 2**32 - 1
"""The pane number behind all panes: what an unbounded window reads up to."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS: Final = {"m": 60_000, "h": 3_600_000, "d": DAY_MS}
_LENGTH: Final = re.compile(r"([1-9][0-9]{0,6})(m|h|d)")
# Seconds may be left out; a space stands where a form decoder ate the plus sign of an offset.
_INSTANT: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2})(:[0-9]{2})?(\.[0-9]{1,9})?([Zz]|[ +-][0-9]{2}:[0-9]{2})"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Rows to read: `days` (day rows, numbered by day) or 15-minute panes, numbers in [start, stop)."""

    days: bool
    start: int
    stop: int

    @property
    def first_pane(self) -> int:
        return self.start * PANES_A_DAY if self.days else self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When a question looks: its basis and what follows from it.

    at_ms:       T as used; for `latest` now, to the millisecond
    end:         T in quarter hours, where windows end (of `latest` now's ceiling)
    known_until: a bucket counts when its end (quarter hours) is at or below; None: all that is known now
    decided_at:  identity and definitions as decided by then (ms); None: now
    """

    basis: Basis
    at_ms: int
    end: int
    known_until: int | None
    decided_at: int | None

    @property
    def bound(self) -> int:
        """No event at or behind this pane counts."""
        return FOREVER if self.basis == "latest" else max(self.end, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of event time, in panes [start, stop), and the reads that cover it exactly."""

    start: int
    stop: int

    @property
    def bounded(self) -> bool:
        return self.stop < FOREVER

    @property
    def ranges(self) -> tuple[Range, ...]:
        return cut(self.start, self.stop)


def moment(basis: str | None, at_ms: int | None, now_ms: int) -> Moment:
    """The moment a question looks at.  Raises UnknownBasis, and BadParameter for `latest` with `at`."""
    if basis is None:
        basis = "latest" if at_ms is None else "corrected"
    if basis == "latest":
        if at_ms is not None:
            raise BadParameter(
                "basis latest is what is known now, it has no at",
                fix="leave at out, or ask with basis=corrected or basis=as_shown",
            )
        return Moment(basis="latest", at_ms=now_ms, end=-(-now_ms // PANE_MS), known_until=None, decided_at=None)
    end = (now_ms if at_ms is None else at_ms) // PANE_MS
    if basis == "corrected":
        return Moment(basis="corrected", at_ms=end * PANE_MS, end=end, known_until=None, decided_at=None)
    if basis == "as_shown":
        return Moment(basis="as_shown", at_ms=end * PANE_MS, end=end, known_until=end, decided_at=end * PANE_MS)
    raise UnknownBasis(f"basis {basis[:64]!r} is none of {', '.join(BASES)}", guess=closest(basis, BASES))


def window(text: str, at: Moment, tz: str = "UTC", grain_ms: int = PANE_MS) -> Span:
    """The span of `all`, `<n>(m|h|d)` up to 3,660 d, or `year month week day` of the zone, that ends at the moment.

    Raises BadParameter for anything else, and GrainTooCoarse where the metric's grain does not divide it.
    """
    if text == "all":
        span = Span(start=0, stop=at.bound)
        return checked(span, grain_ms)
    # A window of `latest` ends at the ceiling of now to the metric's grain: no event lies between.
    step = grain_ms // PANE_MS
    end = -(-at.end // step) * step if at.basis == "latest" else at.end
    if text in CALENDAR:
        start = unit_start(text, end * PANE_MS - 1, tz)
        return checked(Span(start=_pane(start, f"a {text} of {tz}"), stop=max(end, 0)), grain_ms)
    match = _LENGTH.fullmatch(text)
    if match is None:
        choices = ("all", *CALENDAR)
        raise BadParameter(
            f"window {text[:64]!r} is neither all, <n>m, <n>h, <n>d nor one of {', '.join(CALENDAR)}",
            guess=closest(text, choices),
            fix="window=28d",
        )
    length = int(match[1]) * _UNITS[match[2]]
    if length > WINDOW_MS_MAX:
        raise BadParameter(f"window {text} is longer than 3660d", fix="window=3660d, or window=all")
    if length % PANE_MS:
        raise BadParameter(
            f"window {text} is not a multiple of 15 minutes", fix=f"window={-(-length // PANE_MS) * 15}m"
        )
    return checked(Span(start=max(end - length // PANE_MS, 0), stop=max(end, 0)), grain_ms)


def series(from_ms: int, to_ms: int, every: str, tz: str, grain_ms: int = PANE_MS) -> tuple[Span, ...]:
    """The points [start, next start) of a series, starts in [from, to), at most 4,000.

    `<n>m` and `<n>h` are elapsed time; `<n>d`, `day week month year` keep the wall clock of the zone.  Points are
    whole: `clipped` cuts them at the moment's T.
    """
    _pane(from_ms, "a series")
    if to_ms <= from_ms:
        raise BadParameter("the series ends before it begins: from must be before to")
    starts = [from_ms]
    while starts[-1] < to_ms:
        if len(starts) > POINTS_MAX:
            raise BadParameter(
                f"the series has more than {POINTS_MAX} points of {every}", fix="a coarser every, or a shorter from-to"
            )
        step = _step(from_ms, every, len(starts), tz, last_ms=starts[-1])
        # Pacific/Apia had no 30 December 2011: a day without instants is no point.
        starts.append(step)
    bounds = [_pane(one, f"every={every} in {tz}") for one in starts]
    return tuple(checked(Span(start=start, stop=stop), grain_ms) for start, stop in pairwise(bounds) if start < stop)


def clipped(spans: Sequence[Span], at: Moment) -> tuple[Span, ...]:
    """The parts of ascending spans that lie before the moment's T.  Whole ones come first, so indices stay."""
    return tuple(Span(start=one.start, stop=min(one.stop, at.bound)) for one in spans if one.start < at.bound)


def stretch(from_ms: int, to_ms: int, at: Moment, grain_ms: int = PANE_MS) -> Span:
    """[from, to) as a point of a series is: cut at the moment's T, and empty when it lies behind it."""
    if to_ms <= from_ms:
        raise BadParameter("the stretch ends before it begins: from must be before to")
    whole = checked(Span(start=_pane(from_ms, "from"), stop=_pane(to_ms, "to")), grain_ms)
    found = clipped((whole,), at)
    return found[0] if found else Span(start=whole.start, stop=whole.start)


def cut(start: int, stop: int) -> tuple[Range, ...]:
    """The reads that cover the panes [start, stop): whole UTC days as days, the rest as panes, in order of time."""
    if stop >= FOREVER:
        stop = FOREVER - FOREVER % PANES_A_DAY
    first, last = -(-start // PANES_A_DAY), stop // PANES_A_DAY
    if first >= last:
        parts = [Range(days=False, start=start, stop=stop)]
    else:
        parts = [
            Range(days=False, start=start, stop=first * PANES_A_DAY),
            Range(days=True, start=first, stop=last),
            Range(days=False, start=last * PANES_A_DAY, stop=stop),
        ]
    return tuple(part for part in parts if part.start < part.stop)


def cover(spans: Sequence[Span]) -> tuple[Range, ...]:
    """The reads that cover many spans (ascending, not overlapping), neighbours of a kind joined."""
    joined: list[Range] = []
    for span in spans:
        for part in span.ranges:
            if joined and joined[-1].days == part.days and joined[-1].stop == part.start:
                joined[-1] = Range(days=part.days, start=joined[-1].start, stop=part.stop)
            else:
                joined.append(part)
    return tuple(joined)


class Slots:
    """Which span a row belongs to: spans ascending, not overlapping; a row always lies in one.  `one`: there is one.

    panes: the panes behind the spans of which each is a span too, numbered behind them
    """

    def __init__(self, spans: Sequence[Span], panes: tuple[int, int] | None = None) -> None:
        self._starts = [span.start for span in spans]
        self._panes = FOREVER if panes is None else panes[0]
        self.one = len(self._starts) == 1 and panes is None

    def __call__(self, first_pane: int) -> int:
        if first_pane >= self._panes:
            return len(self._starts) + first_pane - self._panes
        return bisect_right(self._starts, first_pane) - 1


def checked(span: Span, grain_ms: int) -> Span:
    """The span, or GrainTooCoarse naming the grain that it needs."""
    if grain_ms > PANE_MS:
        edges = [span.start * PANE_MS] + ([span.stop * PANE_MS] if span.bounded else [])
        if any(edge % grain_ms for edge in edges):
            fits = [one for one in (DAY_MS, 3_600_000, PANE_MS) if not any(edge % one for edge in edges)]
            raise GrainTooCoarse(
                f"the metric's grain is {grain(grain_ms)}, this window, time or zone needs {grain(fits[0])}",
                fix=f"ask on boundaries of {grain(grain_ms)} UTC, or declare grain: {grain(fits[0])}",
            )
    return span


def length_ms(text: str) -> int:
    """The length of a window `<n>m`, `<n>h` or `<n>d` that was checked, in ms."""
    match = _LENGTH.fullmatch(text)
    assert match is not None, f"{text} is no length"
    return int(match[1]) * _UNITS[match[2]]


def unit_start(unit: str, instant_ms: int, tz: str) -> int:
    """The start (ms) of the calendar unit of the zone that holds an instant; weeks begin on Monday.

    Where a zone turns its clock back across midnight a date comes twice; its day begins the first time, so that days
    have no gap between them.
    """
    today = _local(instant_ms, tz).date()
    tomorrow = () if today == date.max else (today + timedelta(days=1),)  # the calendar's last day has none
    for day in (*tomorrow, today):
        first = _first_day(unit, day)
        start = _instant(datetime(first.year, first.month, first.day), tz)
        if start <= instant_ms:
            return start
    return start


def zone(tz: str) -> ZoneInfo:
    """The zone by its IANA name.  Raises UnknownZone with a guess."""
    try:
        return _zone(tz)
    except (KeyError, ValueError, OSError) as error:
        guess = closest(tz, sorted(available_timezones()))
        raise UnknownZone(f"{tz[:64]!r} is no IANA time zone", guess=guess, fix="tz=UTC or tz=Europe/Berlin") from error


def instant(text: str, name: str = "at") -> int:
    """Milliseconds since the epoch of an RFC 3339 time with a zone; digits beyond the millisecond are cut.

    Raises BadParameter for a time without zone, a date that does not exist, and a leap second.
    """
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise BadParameter(
            f"{name} is no RFC 3339 time with a zone: {text[:64]!r}",
            fix=f"{name}=2013-05-12T12:00:00Z (+ is written %2B)",
        )
    day, clock, seconds, fraction, offset = match.groups()
    offset = "+00:00" if offset in "Zz" else offset.replace(" ", "+")
    try:
        when = datetime.fromisoformat(f"{day}T{clock}{seconds or ':00'}{offset}")
        whole = (when - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError) as error:
        raise BadParameter(f"{name} is a time that does not exist: {text[:64]!r}") from error
    return whole + int(((fraction or ".")[1:] + "000")[:3])


def written(at_ms: int) -> str:
    """RFC 3339 in UTC, to the millisecond where it has any: `2013-05-12T12:00:00Z`."""
    try:
        text = (_EPOCH + timedelta(milliseconds=at_ms)).strftime("%Y-%m-%dT%H:%M:%S").zfill(19)
    except OverflowError as error:
        raise BadParameter("the time lies outside the years 1 to 9999") from error
    return f"{text}.{at_ms % 1000:03d}Z" if at_ms % 1000 else f"{text}Z"


def _step(from_ms: int, every: str, count: int, tz: str, *, last_ms: int) -> int:
    """The start of point `count` of a series, by wall clock for days and longer units.  At or after the last one."""
    match = _LENGTH.fullmatch(every)
    if match is not None and match[2] != "d":
        length = int(match[1]) * _UNITS[match[2]]
        if length % PANE_MS:
            raise BadParameter(f"every={every} is not a multiple of 15 minutes", fix="every=15m")
        return from_ms + length * count
    local = _local(from_ms, tz).replace(tzinfo=None)
    if every in ("month", "year"):
        months = local.year * 12 + local.month - 1 + count * (12 if every == "year" else 1)
        year, month = divmod(months, 12)
        if year > 9998:
            raise BadParameter("the series leaves the calendar")
        next_first = date(year + month // 11, (month + 1) % 12 + 1, 1)
        day = min(local.day, (next_first - timedelta(days=1)).day)
        wall = local.replace(year=year, month=month + 1, day=day)
    elif every in ("day", "week") or match is not None:
        days = int(match[1]) if match is not None else 7 if every == "week" else 1
        try:
            wall = local + timedelta(days=days * count)
        except OverflowError as error:
            raise BadParameter("the series leaves the calendar") from error
    else:
        raise BadParameter(
            f"every {every[:64]!r} is neither <n>m, <n>h, <n>d nor one of {', '.join(CALENDAR)}",
            guess=closest(every, CALENDAR),
            fix="every=1d",
        )
    return max(_instant(wall, tz), last_ms)


def _instant(wall: datetime, tz: str) -> int:
    """The first instant at which the zone's clock shows `wall`; where it never does, as if it had not moved yet."""
    try:
        return (wall.replace(tzinfo=zone(tz), fold=0).astimezone(UTC) - _EPOCH) // timedelta(milliseconds=1)
    except OverflowError as error:
        raise BadParameter("the time lies outside the calendar") from error


def _local(instant_ms: int, tz: str) -> datetime:
    try:
        return (_EPOCH + timedelta(milliseconds=instant_ms)).astimezone(zone(tz))
    except (OverflowError, ValueError) as error:
        raise BadParameter("the time lies outside the calendar") from error


def _first_day(unit: str, day: date) -> date:
    if unit == "year":
        return day.replace(month=1, day=1)
    if unit == "month":
        return day.replace(day=1)
    return day - timedelta(days=day.weekday()) if unit == "week" else day


def _pane(at_ms: int, what: str) -> int:
    """The pane that begins at an instant, not below 0; BadParameter when none does."""
    number, rest = divmod(at_ms, PANE_MS)
    if rest:
        raise BadParameter(
            f"{what} begins at {written(at_ms)}, which is no quarter of an hour in UTC: panes cannot answer it exactly",
            fix="a start on a quarter of an hour, or a zone (or year) whose offset is a multiple of 15 minutes",
        )
    return max(number, 0)


def grain(grain_ms: int) -> str:
    """A grain as it is declared: `15m`, `1h`, `1d`."""
    for length, unit in ((DAY_MS, "d"), (3_600_000, "h")):
        if grain_ms % length == 0:
            return f"{grain_ms // length}{unit}"
    return f"{grain_ms // 60_000}m"


@lru_cache(maxsize=64)
def _zone(tz: str) -> ZoneInfo:
    return ZoneInfo(tz)
