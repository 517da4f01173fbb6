"""Breaches: when a source broke what its contract promises, as a function of what was counted (quality.py).

    stale      nothing was accepted for `freshness`: from then until something is
    silent     a window of `volume` had fewer events than its `min`: from its end until that of one that has enough
    unmatched  of a window's events a larger share than `unmatched_max` has nobody it is about: likewise
    schema     a record broke the contract's form: from the first one, until a whole quarter of an hour had none

A breach is a stretch [begin, end) of known time.  Windows are whole ones from the epoch on (`per: 1h` are the hours of
UTC; the unmatched share takes the windows of the volume, or hours).  What holds at a moment are the definitions known
by then; a source is waited for from its first event behind them on, and a window counts if it began no earlier.  So an
import says nothing, nor does a source that never began.  Nothing here looks at a clock: `until` is how far the ticks
of all raw partitions have come, and what is judged before it does not change.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from milepost.topology.breach_records import KINDS, Kind
from milepost.topology.decisions import Applied
from milepost.topology.definitions import Expect
from milepost.topology.panes import DAY_MS, HOUR_MS, PANE_MS
from milepost.topology.quality import MINUTE_MS, Pane, watched

SCHEMA: Final = frozenset({"not_decodable", "unknown_schema", "unknown_type", "contract_violation"})
"""Reasons of dead letters that say that the contract's form is broken."""
WINDOW_MS: Final = HOUR_MS
"""The window of the unmatched share of a source that promises no volume."""
WINDOW_MS_MAX: Final = 31 * DAY_MS
"""Longer windows are not judged, and the answer says so."""
FOREVER_MS: Final = 2**62
_PARTS: Final = 1_000_000_000
"""A share is compared in parts of so many, so that 0.29 of 100 is 29."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """What is promised in [start_ms, stop_ms).  begins_ms: since when something has been promised without a break"""

    start_ms: int
    stop_ms: int
    begins_ms: int
    expect: Expect


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """A stretch in which a promise was broken.  end_ms: None while it lasts"""

    kind: Kind
    begin_ms: int
    end_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What was counted in [start_ms, stop_ms) of known time."""

    start_ms: int
    stop_ms: int
    counted: int
    unmatched: int
    lost: int

    @property
    def nobodys(self) -> int:
        """Events that nobody is known for."""
        return self.unmatched + self.lost

    @property
    def told(self) -> int:
        """Events of which it is asked whom they are about."""
        return self.counted + self.lost


def phases(history: Sequence[Applied], source: str, *, now: bool = False) -> list[Phase]:
    """What a source has promised when.  now: what it promises now, as if it always had"""
    if now:
        held = history[-1].catalog.sources.get(source) if history else None
        if held is None or not watched(held):
            return []
        return [Phase(start_ms=0, stop_ms=FOREVER_MS, begins_ms=0, expect=held.expect)]
    turns = sorted({one.k_ms for one in history})
    found: list[Phase] = []
    for start, stop in zip(turns, [*turns[1:], FOREVER_MS], strict=True):
        held = next(one.catalog for one in reversed(history) if one.k_ms <= start).sources.get(source)
        if held is None or not watched(held):
            continue
        goes_on = bool(found) and found[-1].stop_ms == start
        begins = found[-1].begins_ms if goes_on else start
        if goes_on and found[-1].expect == held.expect:
            start = found.pop().start_ms
        found.append(Phase(start_ms=start, stop_ms=stop, begins_ms=begins, expect=held.expect))
    return found


class Timeline:
    """What was counted of a source, in the order of known time.

    since_ms: everything from there on was read; of what lies before only the last record, and the first ones
    """

    def __init__(self, panes: dict[int, Pane], since_ms: int) -> None:
        self.since_ms = since_ms
        self._panes = sorted(panes.items())
        minutes = [(pane * PANE_MS + at * MINUTE_MS, one) for pane, of in self._panes for at, one in of.minutes.items()]
        minutes.sort(key=lambda one: one[0])
        self._starts = [start for start, _ in minutes]
        self._sums = [(0, 0, 0)]
        for _, one in minutes:
            counted, unmatched, lost = self._sums[-1]
            self._sums.append((counted + one.counted, unmatched + one.unmatched, lost + one.lost))
        self.arrivals = [(start + one.first, start + one.last) for start, one in minutes if one.live]

    def awaited_ms(self, begins_ms: int) -> int | None:
        """The minute from which on the source is waited for; None: nothing came since `begins_ms`."""
        at = next((last for _, last in self.arrivals if last >= begins_ms), None)
        return None if at is None else at // MINUTE_MS * MINUTE_MS

    def window(self, start_ms: int, stop_ms: int) -> Window:
        """What was counted in whole minutes."""
        first = self._sums[bisect_left(self._starts, start_ms)]
        last = self._sums[bisect_left(self._starts, stop_ms)]
        counted, unmatched, lost = (b - a for a, b in zip(first, last, strict=True))
        return Window(start_ms=start_ms, stop_ms=stop_ms, counted=counted, unmatched=unmatched, lost=lost)

    def refused(self) -> Iterator[tuple[int, int]]:
        """(when the first record became known that broke the contract's form, end of its quarter of an hour)."""
        for pane, of in self._panes:
            firsts = [told.k_ms for reason, told in of.refused.items() if reason in SCHEMA]
            if firsts:
                yield min(firsts), (pane + 1) * PANE_MS


def breaches(timeline: Timeline, promised: Sequence[Phase], until_ms: int) -> list[Breach]:
    """The breaches that had begun by `until_ms` and lasted at or behind the timeline's beginning, in their order."""
    found: list[Breach] = []
    for kind, stretches in _STRETCHES.items():
        joined: list[list[int]] = []
        for begin, end in sorted(one for phase in promised for one in stretches(timeline, phase, until_ms)):
            if joined and begin <= joined[-1][1]:
                joined[-1][1] = max(joined[-1][1], end)
            else:
                joined.append([begin, end])
        found += [
            Breach(kind=kind, begin_ms=begin, end_ms=end if end <= until_ms else None)
            for begin, end in joined
            if begin <= until_ms and end > timeline.since_ms
        ]
    return sorted(found, key=lambda one: (one.begin_ms, one.kind))


def broken(kind: Kind, expect: Expect, window: Window) -> bool:
    """Whether a window breaks what is promised of volume (`silent`) or of the unmatched share."""
    if kind == "silent":
        return expect.volume_min is not None and window.counted < expect.volume_min
    if expect.unmatched_max is None:
        return False
    return window.nobodys * _PARTS > round(expect.unmatched_max * _PARTS) * window.told


def width_ms(kind: Kind, expect: Expect) -> int | None:
    """The width of the windows that are judged, in whole minutes; None: nothing is promised, or they are too long."""
    promised = expect.volume_min if kind == "silent" else expect.unmatched_max
    width = WINDOW_MS if expect.volume_per_ms is None else expect.volume_per_ms
    width = max(1, -(-width // MINUTE_MS)) * MINUTE_MS
    return None if promised is None or width > WINDOW_MS_MAX else width


def _stale(timeline: Timeline, phase: Phase, until_ms: int) -> Iterator[tuple[int, int]]:
    limit, awaited = phase.expect.freshness_ms, timeline.awaited_ms(phase.begins_ms)
    if limit is None or awaited is None:
        return
    limit = max(limit, MINUTE_MS)
    lasts = [last for _, last in timeline.arrivals]
    nexts = [first for first, _ in timeline.arrivals[1:]]
    for last, following in zip(lasts, [*nexts, FOREVER_MS], strict=True):
        begin, end = max(last + limit, phase.start_ms), min(following, phase.stop_ms)
        if last >= awaited and begin < end and begin <= until_ms and end > timeline.since_ms:
            yield begin, end


def _silent(timeline: Timeline, phase: Phase, until_ms: int) -> Iterator[tuple[int, int]]:
    return _windows("silent", timeline, phase, until_ms)


def _unmatched(timeline: Timeline, phase: Phase, until_ms: int) -> Iterator[tuple[int, int]]:
    return _windows("unmatched", timeline, phase, until_ms)


def _windows(kind: Kind, timeline: Timeline, phase: Phase, until_ms: int) -> Iterator[tuple[int, int]]:
    width, awaited = width_ms(kind, phase.expect), timeline.awaited_ms(phase.begins_ms)
    if width is None or awaited is None:
        return
    # The first one that began when the source was waited for and that can still be in force.
    least = max(awaited + width, phase.start_ms, timeline.since_ms)
    end = max(-(-(awaited + width) // width), least // width) * width
    while end <= min(until_ms, phase.stop_ms):
        if broken(kind, phase.expect, timeline.window(end - width, end)):
            begin, stop = max(end, phase.start_ms), min(end + width, phase.stop_ms)
            if begin < stop:
                yield begin, stop if stop <= until_ms or stop == phase.stop_ms else FOREVER_MS
        end += width


def _schema(timeline: Timeline, phase: Phase, until_ms: int) -> Iterator[tuple[int, int]]:
    for first, end in timeline.refused():
        begin, stop = max(first, phase.start_ms), min(end + PANE_MS, phase.stop_ms)
        if begin < stop and begin <= until_ms:
            yield begin, stop


def lasting(found: Iterable[Breach]) -> list[Kind]:
    """The kinds of the breaches that last, the gravest first."""
    kinds = {one.kind for one in found if one.end_ms is None}
    return [kind for kind in KINDS if kind in kinds]


Stretches = Iterator[tuple[int, int]]
_STRETCHES: Final[Mapping[Kind, Callable[[Timeline, Phase, int], Stretches]]] = {
    "stale": _stale,
    "silent": _silent,
    "unmatched": _unmatched,
    "schema": _schema,
}
