"""Aggregates: what a cell holds, and how cells add up.

A cell is the state of one measure for one leaf, one choice of dimension values and one pane (or day).  It is a short
list of rows, one a known-time bucket (design §5), each a delta that commutes with every other:

    upto(8)  { end(4) n(8) [sum(16)] [min(16) max(16)] [t(8) event(16) value(16)] [length(4) bitmap or sketch] } ...

`n` counts the signals that had a value.  Numbers are exact decimals: integers at the measure's scale in 128 bits.
`end` is the bucket's end in quarter hours since the epoch.  Rows are sorted by `end`, so equal states are equal bytes.

Counts, sums and sketches (`sketches.py`) can be taken back, so an amendment or a void is a negative delta in its own
bucket.  Extremes, the last value and members cannot: a cell of an event with several revisions begins with a row of end
0, its *flag*, keeps `n` and `sum` only, and the rest is answered from its facts (`refold.py`).  Rows that came to
nothing are left out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import cache
from typing import Final, NamedTuple

from pyroaring import BitMap

from milepost.topology import sketches
from milepost.topology.sketches import VALUE_MAX

_EXACT = Context(prec=400)


@dataclass(frozen=True, slots=True)
class Shape:
    """Which parts a measure's rows hold beside `n`.  `distinct` and `sketch`, whose length varies, stand alone."""

    sum: bool = False
    extremes: bool = False
    last: bool = False
    distinct: bool = False
    sketch: bool = False

    @property
    def framed(self) -> bool:
        """Whether a row ends with a length and so many bytes."""
        return self.distinct or self.sketch

    @property
    def by_facts(self) -> bool:
        """Whether something of it cannot be taken back."""
        return self.extremes or self.last or self.distinct


FLAG: Final = bytes(4)
"""The end of the row that says: what cannot be taken back is answered from the facts."""


def flagged(value: bytes) -> bool:
    """Whether a cell of a shape that is `by_facts` has the flag."""
    return value[8:12] == FLAG


class Row:
    """One bucket's delta.  Mutable: a fold adds to it."""

    __slots__ = ("high", "last", "low", "members", "n", "sketch", "sum")

    def __init__(self) -> None:
        self.n = 0
        self.sum = 0
        self.low: int | None = None
        self.high: int | None = None
        self.last: tuple[int, bytes, int] | None = None  # (event time, event, value)
        self.members: BitMap | None = None
        self.sketch: dict[int, int] | None = None

    def add_value(self, value: int, t_ms: int, event: bytes) -> None:
        """Add one scaled value that happened at `t_ms`."""
        self.n += 1
        self.sum += value
        if self.low is None or value < self.low:
            self.low = value
        if self.high is None or value > self.high:
            self.high = value
        if self.last is None or (t_ms, event) >= self.last[:2]:
            self.last = (t_ms, event, value)
        self.add_place(sketches.place(value), 1)

    def add_place(self, place: int, count: int) -> None:
        self.sketch = sketches.merged(self.sketch or {}, {place: count})

    def add_member(self, number: int) -> None:
        self.n += 1
        if self.members is None:
            self.members = BitMap()
        self.members.add(number)

    def merge(self, other: Row) -> None:
        """Add another row: commutative and associative."""
        self.n += other.n
        self.sum += other.sum
        if other.low is not None and (self.low is None or other.low < self.low):
            self.low = other.low
        if other.high is not None and (self.high is None or other.high > self.high):
            self.high = other.high
        if other.last is not None and (self.last is None or other.last[:2] >= self.last[:2]):
            self.last = other.last
        if other.members is not None:
            self.members = other.members.copy() if self.members is None else self.members | other.members
        if other.sketch:
            self.sketch = sketches.merged(self.sketch or {}, other.sketch)


_HEAD = struct.Struct(">Iq")
_END = struct.Struct(">I")
_SUM_ROW = struct.Struct(">IqqQ")
_NUMBER = struct.Struct(">qQ")
_WHEN = struct.Struct(">q16s")
_FRAME = struct.Struct(">IqI")
_LOW = 2**64 - 1
_LAST = struct.Struct(">q16s16s")
_LENGTH = struct.Struct(">I")


def encode(shape: Shape, upto: int, rows: Mapping[int, Row]) -> bytes:
    """The bytes of a cell: `rows` maps a bucket's end to its row."""
    parts = [upto.to_bytes(8, "big")]
    for end in sorted(rows):
        row = rows[end]
        parts.append(_HEAD.pack(end, row.n))
        if shape.sum:
            parts.append(row.sum.to_bytes(16, "big", signed=True))
        if shape.extremes:
            parts.append((row.low or 0).to_bytes(16, "big", signed=True))
            parts.append((row.high or 0).to_bytes(16, "big", signed=True))
        if shape.last:
            t_ms, event, value = row.last or (0, bytes(16), 0)
            parts.append(_LAST.pack(t_ms, event, value.to_bytes(16, "big", signed=True)))
        if shape.distinct:
            # A fresh copy: the bytes of a bitmap depend on its history, and equal states must be equal bytes.
            bitmap = BitMap(sorted(row.members)).serialize() if row.members is not None else b""
            parts.append(_LENGTH.pack(len(bitmap)))
            parts.append(bitmap)
        if shape.sketch:
            sketch = sketches.dump(row.sketch or {})
            parts.append(_LENGTH.pack(len(sketch)))
            parts.append(sketch)
    return b"".join(parts)


def decode(shape: Shape, value: bytes, until: int | None = None) -> Iterator[tuple[int, Row]]:
    """The (end, row) pairs of a cell, in order of `end`; with `until` (a quarter hour) only buckets that end by it."""
    at, stop = 8, len(value)
    while at < stop:
        end, n = _HEAD.unpack_from(value, at)
        at += 12
        if until is not None and end > until:
            return
        row = Row()
        row.n = n
        if shape.sum:
            row.sum = int.from_bytes(value[at : at + 16], "big", signed=True)
            at += 16
        if shape.extremes:
            if n:
                row.low = int.from_bytes(value[at : at + 16], "big", signed=True)
                row.high = int.from_bytes(value[at + 16 : at + 32], "big", signed=True)
            at += 32
        if shape.last:
            t_ms, event, last = _LAST.unpack_from(value, at)
            if n:
                row.last = (t_ms, event, int.from_bytes(last, "big", signed=True))
            at += _LAST.size
        if shape.framed:
            (length,) = _LENGTH.unpack_from(value, at)
            at += 4
            if length and shape.distinct:
                row.members = BitMap.deserialize(value[at : at + length])
            elif length:
                row.sketch = sketches.load(value[at : at + length])
            at += length
        yield end, row


class Hit(NamedTuple):
    """One signal's effect on one row.

    upto:  the source offset that brings it, eight bytes big-endian: it becomes the head of the cell
    end:   its bucket
    value: scaled, or None;  number: a member's number, or None (then the signal only counts)
    sign:  1; -1: it is taken back; 0: nothing changes but that the event has several revisions
    """

    upto: bytes
    end: int
    value: int | None
    number: int | None
    t_ms: int
    event: bytes
    sign: int = 1


class Patch:
    """Adds a hit to the bytes of a cell: what `decode`, `Row` and `encode` do, without touching other rows.

    A busy day row holds a hundred buckets, and a hit changes one of them, mostly the last.  `patch(old, hit)` equals
    the slow way for every shape; a test holds them together.  Whether `old` has absorbed the hit is the caller's
    question (`upto`).
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        layout = ">Iq" + "qQ" * shape.sum + "qQqQ" * shape.extremes + "q16sqQ" * shape.last
        row = struct.Struct(layout)
        self.size = row.size
        self._pack, self._unpack = row.pack, row.unpack_from
        self._by_facts, self._framed = shape.by_facts, shape.framed
        self._grown = _with_member if shape.distinct else _with_value
        self._revised = Revised(shape)
        self._bump = {">Iq": self._bump_count, ">IqqQ": self._bump_sum}.get(layout, self._bump_any)

    def __call__(self, old: bytes | None, hit: Hit) -> bytes:
        """The bytes of the cell with `hit` in it."""
        if self._by_facts and old is not None and old[8:12] == FLAG:
            return self._revised(old, hit)
        if self._framed:
            return self._body(old, hit)
        if old is None:
            return hit.upto + self._first(hit)
        at = len(old) - self.size
        if at < 8:  # everything in it was taken back
            return hit.upto + self._first(hit)
        (end,) = _END.unpack_from(old, at)
        if end == hit.end:  # the usual case of a live log: the last bucket, or one behind it
            return hit.upto + old[8:at] + self._bump(old, at, hit)
        if end < hit.end:
            return hit.upto + old[8:] + self._first(hit)
        low, high = 0, (at - 8) // self.size
        while low < high:
            middle = (low + high) // 2
            if _END.unpack_from(old, 8 + middle * self.size)[0] < hit.end:
                low = middle + 1
            else:
                high = middle
        at = 8 + low * self.size
        if _END.unpack_from(old, at)[0] == hit.end:
            return hit.upto + old[8:at] + self._bump(old, at, hit) + old[at + self.size :]
        return hit.upto + old[8:at] + self._first(hit) + old[at:]

    def _first(self, hit: Hit) -> bytes:
        """A new row with one hit: most rows of a wide measure stay so."""
        shape, value = self.shape, hit.value
        head = _HEAD.pack(hit.end, 1)
        if value is None:
            return head + bytes(self.size - 12)
        number = _NUMBER.pack(value >> 64, value & _LOW)
        if shape.last:
            return head + number * (shape.sum + 2 * shape.extremes) + _WHEN.pack(hit.t_ms, hit.event) + number
        return head + number * (shape.sum + 2 * shape.extremes)

    def _bump_count(self, old: bytes, at: int, hit: Hit) -> bytes:
        end, n = self._unpack(old, at)
        return self._pack(end, n + 1) if n != -1 else b""

    def _bump_sum(self, old: bytes, at: int, hit: Hit) -> bytes:
        end, n, high, low = self._unpack(old, at)
        total = (high << 64 | low) + (hit.value or 0)
        return self._pack(end, n + 1, total >> 64, total & _LOW) if n != -1 or total else b""

    def _bump_any(self, old: bytes, at: int, hit: Hit) -> bytes:
        parts = list(self._unpack(old, at))
        n, value = parts[1], hit.value
        parts[1] += 1
        if value is None:
            return self._pack(*parts)
        shape, i, halves = self.shape, 2, (value >> 64, value & _LOW)
        if shape.sum:
            total = (parts[2] << 64 | parts[3]) + value
            parts[2:4] = total >> 64, total & _LOW
            i = 4
        if shape.extremes:
            # High half signed, low half unsigned: pairs compare as the numbers do.
            if not n or halves < (parts[i], parts[i + 1]):
                parts[i : i + 2] = halves
            if not n or halves > (parts[i + 2], parts[i + 3]):
                parts[i + 2 : i + 4] = halves
            i += 4
        if shape.last and (not n or (hit.t_ms, hit.event) >= (parts[i], parts[i + 1])):
            parts[i:] = (hit.t_ms, hit.event, *halves)
        return self._pack(*parts)

    def _body(self, old: bytes | None, hit: Hit) -> bytes:
        if old is None:
            old = bytes(8)
        at, stop = 8, len(old)
        while at < stop:
            end, n, length = _FRAME.unpack_from(old, at)
            behind = at + 16 + length
            if end == hit.end:
                body = self._grown(old[at + 16 : behind], hit)
                row = _FRAME.pack(end, n + 1, len(body)) + body if n != -1 or body else b""
                return hit.upto + old[8:at] + row + old[behind:]
            if end > hit.end:
                break
            at = behind
        body = self._grown(b"", hit)
        return hit.upto + old[8:at] + _FRAME.pack(hit.end, 1, len(body)) + body + old[at:]


class SumPatch(Patch):
    """The same for a count and a sum, the shape that most measures have, in one piece."""

    def __call__(self, old: bytes | None, hit: Hit) -> bytes:
        value = hit.value or 0
        if old is None:
            return hit.upto + _SUM_ROW.pack(hit.end, 1, value >> 64, value & _LOW)
        at = len(old) - _SUM_ROW.size
        if at >= 8:
            end, n, high, low = _SUM_ROW.unpack_from(old, at)
            if end == hit.end and n > 0:
                total = (high << 64 | low) + value
                return hit.upto + old[8:at] + _SUM_ROW.pack(end, n + 1, total >> 64, total & _LOW)
            if end < hit.end:
                return hit.upto + old[8:] + _SUM_ROW.pack(hit.end, 1, value >> 64, value & _LOW)
        return super().__call__(old, hit)


def _with_member(bitmap: bytes, hit: Hit) -> bytes:
    assert hit.number is not None
    members = BitMap.deserialize(bitmap) if bitmap else BitMap()
    if hit.number in members:
        return bitmap
    members.add(hit.number)
    # A fresh copy: a bitmap's bytes depend on its history, and equal states must be equal bytes.
    return BitMap(sorted(members)).serialize()


def _with_value(sketch: bytes, hit: Hit) -> bytes:
    assert hit.value is not None
    return sketches.plus(sketch, hit.value)


class Revised:
    """Adds a hit of any sign to a cell of an event with several revisions, and sets the flag where it is needed."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def __call__(self, old: bytes | None, hit: Hit) -> bytes:
        rows = {} if old is None else dict(decode(self.shape, old))
        if hit.sign:
            row = rows.setdefault(hit.end, Row())
            row.n += hit.sign
            if self.shape.sum:
                row.sum += hit.sign * (hit.value or 0)
            if self.shape.sketch and hit.value is not None:
                row.add_place(sketches.place(hit.value), hit.sign)
        if self.shape.by_facts:
            rows[0] = Row()
        return encode(self.shape, int.from_bytes(hit.upto, "big"), tidied(rows))


def tidied(rows: Mapping[int, Row]) -> dict[int, Row]:
    """The rows without those that came to nothing; under a flag only what can be taken back."""
    if 0 in rows:
        for row in rows.values():
            row.low = row.high = row.last = row.members = None
    return {end: row for end, row in rows.items() if row.n or row.sum or row.sketch or not end}


class Added(NamedTuple):
    """A hit as it goes into all the rows it adds to.  fresh: the bytes of a row that holds nothing else."""

    upto: bytes
    fresh: bytes
    patch: Patch | Revised
    hit: Hit


@cache
def patch_of(shape: Shape) -> Patch:
    return SumPatch(shape) if shape == Shape(sum=True) else Patch(shape)


@cache
def revised_of(shape: Shape) -> Revised:
    return Revised(shape)


def upto_of(value: bytes) -> int:
    """The source offset whose effect the value holds."""
    return int.from_bytes(value[:8], "big")


@dataclass(slots=True)
class Total:
    """What a question adds up: rows of one leaf, or of many.

    Members are numbers of one partition; `members` keeps them apart by partition (design §5: they never leave it).
    """

    shape: Shape
    row: Row = field(default_factory=Row)
    members: dict[int, BitMap] = field(default_factory=dict)

    def add(self, value: bytes, until: int | None, partition: int) -> None:
        """Add the buckets of a cell (or day row) that end by `until`."""
        for _, row in decode(self.shape, value, until):
            members, row.members = row.members, None
            self.row.merge(row)
            if members is not None:
                self.members[partition] = self.members[partition] | members if partition in self.members else members


_TENS: Final = [float(10**scale) for scale in range(23)]
"""Those that a double holds exactly."""


def scaled(value: float | int, scale: int) -> int:
    """A number as an integer at `scale`: half-even from its shortest decimal form.

    Raises OverflowError beyond 2^95 (dead letter `out_of_range`) and ValueError for NaN and infinities.
    """
    number: int
    if type(value) is float and -1e15 < value < 1e15:
        # Two decimals of at most 15 digits are never the same double: one that is this double is its shortest form.
        number = round(value * _TENS[scale])
        if -(10**15) < number < 10**15 and number / _TENS[scale] == value:
            return number
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"{value} is not a finite number")
    if isinstance(value, int):
        number = value * 10**scale
    elif value.is_integer() and abs(value) < 2**53:
        number = int(value) * 10**scale
    else:
        number = int(Decimal(repr(value)).scaleb(scale, _EXACT).to_integral_value(ROUND_HALF_EVEN))
    if abs(number) > VALUE_MAX:
        raise OverflowError(f"{value} at scale {scale} is beyond 2^95")
    return number


def unscaled(number: int, scale: int) -> int | float:
    """The number again: an int where it is whole, else the nearest double."""
    whole, rest = divmod(number, 10**scale)
    return whole if rest == 0 else float(Decimal(number).scaleb(-scale, _EXACT))
