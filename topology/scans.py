"""Scans: the rows of cells that a question needs, in few ordered range reads, and their sum.

    (version, leaf, dimension choice)  x  ranges of days and panes  ->  rows  ->  tallies, one a slot

Everything here is steps (topology/steps.py).  No scan stays open over a step: what it goes over may change there.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby, islice
from typing import Any, Final

import numpy as np
from pyroaring import BitMap

from milepost.topology import bitmaps, sketches
from milepost.topology.aggregates import Shape, decode, flagged
from milepost.topology.bases import FOREVER, Range, Slots
from milepost.topology.metrics import packed, prefix
from milepost.topology.panes import DAY_MS, PANE_MS, PANES_A_DAY
from milepost.topology.state import UPTO, Store
from milepost.topology.steps import Steps

Pair = tuple[bytes, bytes]

STEP_ROWS: Final = 1_000
"""Rows read between two steps: about a millisecond."""
FINAL_AFTER: Final = 14 * DAY_MS // PANE_MS
"""Quarter hours after which a number is final; what becomes known later corrects it."""
FEW: Final = 12
"""Fewer rows than this are added one by one."""
SKIP_RANGE: Final = 60
"""A range of up to so many numbers is read by skipping from one tuple of values to the next; a longer one wholly."""


class Tally:
    """What rows of one shape add up to.  The same sum as `aggregates.Total`, read by the column.

    corrected: whether a counted bucket ended more than 14 days after its pane (or day)
    members:   partition -> numbers of the leaves met there
    sketch:    place -> how many values (sketches.py)
    flagged:   (key, width) of the rows whose extremes, last value and members are still to be had from the facts
    """

    __slots__ = (
        "_columns",
        "_fixed",
        "_high",
        "_low",
        "corrected",
        "flagged",
        "high",
        "last",
        "low",
        "members",
        "n",
        "shape",
        "sketch",
    )

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._fixed, self._columns = _layout(shape)
        self._high = self._low = 0
        self.n = 0
        self.low: int | None = None
        self.high: int | None = None
        self.last: tuple[int, bytes, int] | None = None
        self.members: dict[int, BitMap] = {}
        self.sketch: dict[int, int] = {}
        self.corrected = False
        self.flagged: list[tuple[bytes, int]] = []

    @property
    def sum(self) -> int:
        """The scaled sum."""
        return (self._high << 64) + self._low

    def add(self, rows: Sequence[Pair], width: int, until: int, partition: int) -> None:
        """Add the buckets of rows that end by `until`.  The last four bytes of a key count in `width` panes."""
        if self.shape.by_facts and any(flagged(value) for _, value in rows):
            for key, value in rows:
                if flagged(value):
                    self.flagged.append((key, width))
                    self._add_flagged(key, value, width, until)
            rows = [row for row in rows if not flagged(row[1])]
        if self._fixed is None:
            self._add_framed(rows, width, until, partition)
        elif len(rows) < FEW or self.shape.last:
            self._add_few(self._fixed, rows, width, until)
        else:
            self._add_many(rows, width, until)

    def value(self, value: int, t_ms: int, event: bytes) -> None:
        """A counted fact of a flagged row: its extremes and last value.  `n` and the sum are in the row."""
        self._extreme(value, value)
        if self.shape.last and (self.last is None or (t_ms, event) >= self.last[:2]):
            self.last = (t_ms, event, value)

    def fact(self, value: int, t_ms: int, event: bytes) -> None:
        """A fact that counts, all of it; where signals are counted its value says nothing."""
        self.n += 1
        if self.shape.sum:
            self._low += value
        if self.shape.extremes or self.shape.last:
            self.value(value, t_ms, event)
        if self.shape.sketch:
            place = sketches.place(value)
            self.sketch[place] = self.sketch.get(place, 0) + 1

    def meet(self, partition: int, numbers: Sequence[int]) -> None:
        """Members of a counted fact of a flagged row."""
        self.members[partition] = self.members.get(partition, BitMap()) | BitMap(numbers)

    def _add_flagged(self, key: bytes, value: bytes, width: int, until: int) -> None:
        final = int.from_bytes(key[-4:], "big") * width + width + FINAL_AFTER
        for end, row in decode(self.shape, value, until):
            self.corrected = self.corrected or end > final
            self.n += row.n
            self._high += row.sum >> 64
            self._low += row.sum & (2**64 - 1)

    def merge(self, other: Tally) -> None:
        """Add another tally of the same shape: commutative and associative."""
        self.n += other.n
        self._high += other._high
        self._low += other._low
        if other.low is not None and other.high is not None:
            self._extreme(other.low, other.high)
        if other.last is not None and (self.last is None or other.last[:2] >= self.last[:2]):
            self.last = other.last
        for partition, met in other.members.items():
            known = self.members.get(partition)
            self.members[partition] = met if known is None else known | met
        if other.sketch:
            self.sketch = sketches.merged(self.sketch, other.sketch)
        self.corrected = self.corrected or other.corrected

    def pack(self) -> list[Any]:
        """Plain data for another worker; numbers beyond 64 bits are bytes."""
        wide = [None if one is None else _bytes(one) for one in (self.low, self.high)]
        last = None if self.last is None else [self.last[0], self.last[1], _bytes(self.last[2])]
        members = [[partition, met.serialize()] for partition, met in self.members.items()]
        return [self.n, _bytes(self.sum), *wide, last, members, sketches.dump(self.sketch), self.corrected]

    @classmethod
    def unpack(cls, shape: Shape, data: Sequence[Any]) -> Tally:
        """The opposite of `pack`."""
        tally = cls(shape)
        tally.n, total, low, high, last, members, sketch, tally.corrected = data
        tally._low = _number(total)
        tally.low, tally.high = (None if one is None else _number(one) for one in (low, high))
        tally.last = None if last is None else (last[0], last[1], _number(last[2]))
        tally.members = {partition: BitMap.deserialize(met) for partition, met in members}
        tally.sketch = sketches.load(sketch)
        return tally

    def _add_few(self, fixed: struct.Struct, rows: Sequence[Pair], width: int, until: int) -> None:
        shape = self.shape
        for key, value in rows:
            final = int.from_bytes(key[-4:], "big") * width + width + FINAL_AFTER
            for row in fixed.iter_unpack(memoryview(value)[UPTO:]):
                end, n = row[0], row[1]
                if end > until:
                    break
                if end > final:
                    self.corrected = True
                self.n += n
                at = 2
                if shape.sum:
                    self._high += row[2]
                    self._low += row[3]
                    at = 4
                if n == 0:
                    continue
                if shape.extremes:
                    self._extreme((row[at] << 64) + row[at + 1], (row[at + 2] << 64) + row[at + 3])
                    at += 4
                if shape.last:
                    last = (row[at], row[at + 1], (row[at + 2] << 64) + row[at + 3])
                    if self.last is None or last[:2] >= self.last[:2]:
                        self.last = last

    def _add_many(self, rows: Sequence[Pair], width: int, until: int) -> None:
        """The same over columns: a tenth of the time from a hundred rows on."""
        table = np.frombuffer(b"".join([value[UPTO:] for _, value in rows]), dtype=self._columns)
        numbers = np.frombuffer(b"".join([key[-4:] for key, _ in rows]), dtype=">u4").astype(np.int64)
        size = table.dtype.itemsize
        finals = (numbers + 1) * width + FINAL_AFTER
        if len(table) != len(rows):
            finals = np.repeat(finals, [(len(value) - UPTO) // size for _, value in rows])
        ends = table["end"].astype(np.int64)
        if until < FOREVER:
            kept = ends <= until
            table, finals, ends = table[kept], finals[kept], ends[kept]
        if bool((ends > finals).any()):
            self.corrected = True
        self.n += int(table["n"].astype(np.int64).sum())
        if self.shape.sum:
            self._high += int(table["sum_high"].astype(np.int64).sum())
            low = table["sum_low"].astype(np.uint64)
            # Two halves: 2^32 rows of 32 bits each stay within 64.
            self._low += (int((low >> np.uint64(32)).sum()) << 32) + int((low & np.uint64(0xFFFFFFFF)).sum())
        if self.shape.extremes:
            table = table[table["n"] != 0]
            if len(table):
                highest, lowest = table["max_high"].max(), table["min_high"].min()
                greatest = table["max_low"][table["max_high"] == highest].max()
                least = table["min_low"][table["min_high"] == lowest].min()
                self._extreme((int(lowest) << 64) + int(least), (int(highest) << 64) + int(greatest))

    def _extreme(self, low: int, high: int) -> None:
        if self.low is None or low < self.low:
            self.low = low
        if self.high is None or high > self.high:
            self.high = high

    def _add_framed(self, rows: Sequence[Pair], width: int, until: int, partition: int) -> None:
        found = bitmaps.buckets([value for _, value in rows])
        if until < FOREVER:
            found = found.kept(found.ends <= until)
        if not len(found.ends):
            return
        numbers = np.frombuffer(b"".join([key[-4:] for key, _ in rows]), dtype=">u4").astype(np.int64)
        if bool((found.ends > ((numbers + 1) * width + FINAL_AFTER)[found.owners]).any()):
            self.corrected = True
        self.n += int(found.counts.sum())
        if self.shape.sketch:
            self.sketch = sketches.merged(self.sketch, sketches.total(found.words()))
            return
        met = found.members()
        known = self.members.get(partition)
        self.members[partition] = met if known is None else known | met


def _bytes(number: int) -> bytes:
    return number.to_bytes(28, "big", signed=True)  # 2^64 rows of 128 bits each stay within


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


@lru_cache(maxsize=32)
def _layout(shape: Shape) -> tuple[struct.Struct | None, np.dtype[Any]]:
    """How a row of fixed length lies: end, n, and numbers as high and low halves.  No struct when its length varies."""
    columns: list[tuple[str, str]] = [("end", ">u4"), ("n", ">i8")]
    for present, names in ((shape.sum, ("sum",)), (shape.extremes, ("min", "max"))):
        if present:
            for name in names:
                columns += [(f"{name}_high", ">i8"), (f"{name}_low", ">u8")]
    fixed = struct.Struct(">Iq" + "qQ" * shape.sum + "qQqQ" * shape.extremes + "q16sqQ" * shape.last)
    return (None if shape.framed else fixed), np.dtype(columns)


Take = Callable[[bytes, int, Sequence[Pair], int], None]
"""Called with (packed values left free, index of the span, rows, panes a row)."""


def read(store: Store, part: Range, before: bytes, free: int, slots: Slots, take: Take) -> Steps[None]:
    """Hand the rows of a range to `take`: those of `before` (version, leaf, mask, leading values) whose `free` further
    values may be any, neighbours of one choice and one span together."""
    width = PANES_A_DAY if part.days else 1
    head = len(before)

    def hand(rows: Sequence[Pair]) -> None:
        if not free and slots.one:
            take(b"", 0, rows, width)
            return
        for (values, slot), some in groupby(rows, _place):
            take(values, slot, list(some), width)

    def _place(row: Pair) -> tuple[bytes, int]:
        key = row[0]
        return key[head:-4], slots(int.from_bytes(key[-4:], "big") * width)

    start, stop = part.start.to_bytes(4, "big"), part.stop.to_bytes(4, "big")
    if not free:
        for rows in pieces(store, before + start, before + stop):
            hand(rows)
            yield None
    elif part.days and part.stop - part.start > SKIP_RANGE:
        for rows in pieces(store, before, after(before)):
            hand([row for row in rows if start <= row[0][-4:] < stop])
            yield None
    else:
        for choice in tuples(store, before, free):
            for rows in pieces(store, choice + start, choice + stop):
                hand(rows)
                yield None


def pieces(store: Store, start: bytes, stop: bytes) -> Iterator[list[Pair]]:
    """The pairs with start <= key < stop, by the thousand; each piece is a scan of its own."""
    while True:
        rows = list(islice(store.scan(start, stop), STEP_ROWS))
        if rows:
            yield rows
        if len(rows) < STEP_ROWS:
            return
        start = rows[-1][0] + b"\x00"


def tuples(store: Store, before: bytes, free: int) -> Iterator[bytes]:
    """`before` with each choice of `free` further values that has rows, by skipping from one to the next."""
    at, stop = before, after(before)
    while True:
        found = next(store.scan(at, stop), None)
        if found is None:
            return
        key, end = found[0], len(before)
        for _ in range(free):
            end += 2 + int.from_bytes(key[end : end + 2], "big")
        yield key[:end]
        at = after(key[:end])


def leaves(store: Store, version: bytes, start: bytes = b"") -> Iterator[bytes]:
    """The leaves from `start` on that have rows of a measure, in order, by skipping from one to the next."""
    at, stop = version + start, after(version)
    while True:
        found = next(store.scan(at, stop), None)
        if found is None:
            return
        yield found[0][8:24]
        at = after(found[0][:24])


def after(before: bytes) -> bytes:
    """The least key behind all keys that begin with `before`."""
    cut = before.rstrip(b"\xff")
    return cut[:-1] + bytes((cut[-1] + 1,)) if cut else b"\xff" * (len(before) + 64)


def family(
    version: bytes, leaf: bytes, dimensions: Sequence[str], wanted: Sequence[str], fixed: dict[str, str]
) -> Family:
    """The row family that answers with the fewest rows: `wanted` are the dimensions whose values matter, of which
    `fixed` have one value.  None: the total; one: its own rows; more: the full tuples, summed."""
    if len(wanted) > 1:
        wanted = dimensions
    mask = 0
    names = [name for name in dimensions if name in wanted]
    for name in names:
        mask |= 1 << dimensions.index(name)
    leading: list[bytes] = []
    for name in names:
        if name not in fixed:
            break
        leading.append(fixed[name].encode())
    rest = names[len(leading) :]
    checks = tuple((i, fixed[name].encode()) for i, name in enumerate(rest) if name in fixed)
    return Family(prefix(version, leaf, mask, packed(leading)), tuple(rest), checks)


class Family:
    """Rows of one dimension choice: the key's head, the names of the free values, and which of them must be what."""

    __slots__ = ("before", "checks", "rest")

    def __init__(self, before: bytes, rest: tuple[str, ...], checks: tuple[tuple[int, bytes], ...]) -> None:
        self.before, self.rest, self.checks = before, rest, checks
