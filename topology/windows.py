"""Windows: which pane ends a pane counts at, and what a window adds up to while panes enter and leave it."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

from milepost.topology import bases
from milepost.topology.aggregates import Shape
from milepost.topology.bases import CALENDAR
from milepost.topology.panes import PANE_MS
from milepost.topology.scans import Tally


class Window:
    """Which pane ends a pane counts at, for a window as questions write it, from `first` to `until`."""

    def __init__(self, text: str, tz: str, grain: int, first: int, until: int) -> None:
        self.text, self.tz, self.grain, self.first, self.until = text, tz, grain, first, until
        self._length: int | None = None
        self._edges: list[int] = []
        if text in CALENDAR:
            begin, end = bases.unit_start(text, first * PANE_MS - 1, tz), max(until, first) * PANE_MS
            self._edges = [one.stop for one in bases.series(begin, end, text, tz)] if begin < end else []
            self.begin = max(0, begin // PANE_MS)
        elif text == "all":
            self.begin = 0
        else:
            self._length = bases.length_ms(text) // PANE_MS
            self.begin = max(0, first - self._length)

    @property
    def head(self) -> tuple[bases.Span, ...]:
        """What is read at once: of `all` everything before the first pane end."""
        return (bases.Span(start=0, stop=self.first),) if self.text == "all" and self.first > 0 else ()

    @property
    def panes(self) -> tuple[int, int] | None:
        """The panes to read one by one, [start, stop)."""
        begin = self.first if self.text == "all" else self.begin
        return (begin, self.until) if begin < self.until else None

    def span(self, slot: int) -> bases.Span:
        """What was read under that number."""
        head, panes = self.head, self.panes
        if slot < len(head):
            return head[slot]
        assert panes is not None, "nothing else is read"
        pane = panes[0] + slot - len(head)
        return bases.Span(start=pane, stop=pane + 1)

    def counts(self, span: bases.Span) -> tuple[int, int | None]:
        """(the first pane end at which it counts, the first at which it does so no more); None: for ever."""
        enters = self._grained(span.stop)
        if self.text == "all":
            return enters, None
        if self._length is not None:
            return enters, self._grained(span.stop + self._length)
        place = bisect_right(self._edges, span.start)
        return enters, (self._grained(self._edges[place] + 1) if place < len(self._edges) else None)

    def _grained(self, at: int) -> int:
        return -(-at // self.grain) * self.grain


class Running:
    """A window's total while tallies come in at one end and leave at the other: two stacks, so that each is merged
    twice, whatever its shape.  (What cannot be subtracted, as a greatest value, can be had no other way.)"""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._in: deque[Tally] = deque()
        self._in_total = Tally(shape)
        self._out: list[Tally] = []

    def take(self, tally: Tally) -> None:
        self._in.append(tally)
        self._in_total.merge(tally)

    def drop(self) -> None:
        """The one that was taken first leaves."""
        if not self._out:
            total = Tally(self.shape)
            while self._in:
                merged = Tally(self.shape)
                merged.merge(total)
                merged.merge(self._in.pop())
                self._out.append(merged)
                total = merged
            self._in_total = Tally(self.shape)
        self._out.pop()

    def total(self) -> Tally:
        if not self._out:
            return self._in_total
        total = Tally(self.shape)
        total.merge(self._out[-1])
        total.merge(self._in_total)
        return total
