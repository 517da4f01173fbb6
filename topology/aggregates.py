"""Aggregates: what a cell holds, and how cells add up.

A cell is the state of one measure for one leaf, one choice of dimension values and one pane (or day).  It is a short
list of rows, one a known-time bucket (design §5), each a delta that commutes with every other:

    upto(8)  { end(4) n(8) [sum(16)] [min(16) max(16)] [t(8) event(16) value(16)] [length(4) roaring bitmap] } ...

`n` counts the signals that had a value.  Numbers are exact decimals: integers at the measure's scale in 128 bits.
`end` is the bucket's end in quarter hours since the epoch.  Rows are sorted by `end`, so equal states are equal bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import cache
from typing import NamedTuple

from pyroaring import BitMap

VALUE_MAX = 2**95
"""Largest magnitude of one scaled value: 2^32 of them cannot overflow 128 bits."""

_EXACT = Context(prec=400)


@dataclass(frozen=True, slots=True)
class Shape:
    """Which parts a measure's rows hold beside `n`."""

    sum: bool = False
    extremes: bool = False
    last: bool = False
    distinct: bool = False


class Row:
    """One bucket's delta.  Mutable: a fold adds to it."""

    __slots__ = ("high", "last", "low", "members", "n", "sum")

    def __init__(self) -> None:
        self.n = 0
        self.sum = 0
        self.low: int | None = None
        self.high: int | None = None
        self.last: tuple[int, bytes, int] | None = None  # (event time, event, value)
        self.members: BitMap | None = None

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


_HEAD = struct.Struct(">Iq")
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
        if shape.distinct:
            (length,) = _LENGTH.unpack_from(value, at)
            at += 4
            if length:
                row.members = BitMap.deserialize(value[at : at + length])
            at += length
        yield end, row


class Hit(NamedTuple):
    """One signal's effect on one row.

    offset: the source offset that brings it;  end: its bucket
    value:  scaled, or None;  number: a member's number, or None (then the signal only counts)
    """

    offset: int
    end: int
    value: int | None
    number: int | None
    t_ms: int
    event: bytes


class Patch:
    """Adds hits to the bytes of a cell in place: what `decode`, `Row` and `encode` do, without touching other rows.

    A busy day row holds a hundred buckets, and a hit changes one of them.  `patch(shape, ...)` equals the slow way for
    every shape; a test holds them together.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.size = 12 + 16 * shape.sum + 32 * shape.extremes + _LAST.size * shape.last

    def __call__(self, old: bytes | None, hits: Sequence[Hit]) -> tuple[bytes | None, int]:
        """(the new bytes, or None when nothing is new; hits that were absorbed already, by `upto`)."""
        if old is None and len(hits) == 1:
            return self._first(hits[0]), 0
        upto = -1 if old is None else int.from_bytes(old[:8], "big")
        fresh = hits if hits[0].offset > upto else [hit for hit in hits if hit.offset > upto]
        absorbed = len(hits) - len(fresh)
        if not fresh:
            return None, absorbed
        buffer = bytearray(8) if old is None else bytearray(old)
        if self.shape.distinct:
            self._members(buffer, fresh)
        else:
            for hit in fresh:
                self._one(buffer, hit)
        buffer[:8] = fresh[-1].offset.to_bytes(8, "big")
        return bytes(buffer), absorbed

    def _first(self, hit: Hit) -> bytes:
        """A new cell with one hit: most cells of a wide measure begin so."""
        shape, value = self.shape, hit.value
        head = hit.offset.to_bytes(8, "big") + _HEAD.pack(hit.end, 1)
        if shape.distinct:
            assert hit.number is not None
            bitmap = BitMap([hit.number]).serialize()
            return head + _LENGTH.pack(len(bitmap)) + bitmap
        if value is None:
            return head + bytes(self.size - 12)
        number = value.to_bytes(16, "big", signed=True)
        last = _LAST.pack(hit.t_ms, hit.event, number) if shape.last else b""
        return head + number * (shape.sum + 2 * shape.extremes) + last

    def _one(self, buffer: bytearray, hit: Hit) -> None:
        size, shape = self.size, self.shape
        low, high = 0, (len(buffer) - 8) // size
        at = 8 + (high - 1) * size
        if high and int.from_bytes(buffer[at : at + 4], "big") < hit.end:
            low = high  # the usual case of a live log: behind all others
        while low < high:
            middle = (low + high) // 2
            at = 8 + middle * size
            if int.from_bytes(buffer[at : at + 4], "big") < hit.end:
                low = middle + 1
            else:
                high = middle
        at = 8 + low * size
        found = at < len(buffer) and int.from_bytes(buffer[at : at + 4], "big") == hit.end
        if not found:
            buffer[at:at] = bytes(size)
        n = int.from_bytes(buffer[at + 4 : at + 12], "big", signed=True)
        _HEAD.pack_into(buffer, at, hit.end, n + 1)
        value = hit.value
        at += 12
        if value is None:
            return
        if shape.sum:
            total = int.from_bytes(buffer[at : at + 16], "big", signed=True) + value
            buffer[at : at + 16] = total.to_bytes(16, "big", signed=True)
            at += 16
        if shape.extremes:
            packed = value.to_bytes(16, "big", signed=True)
            if not n or value < int.from_bytes(buffer[at : at + 16], "big", signed=True):
                buffer[at : at + 16] = packed
            if not n or value > int.from_bytes(buffer[at + 16 : at + 32], "big", signed=True):
                buffer[at + 16 : at + 32] = packed
            at += 32
        if shape.last:
            t_ms, event, _ = _LAST.unpack_from(buffer, at)
            if not n or (hit.t_ms, hit.event) >= (t_ms, event):
                _LAST.pack_into(buffer, at, hit.t_ms, hit.event, value.to_bytes(16, "big", signed=True))

    def _members(self, buffer: bytearray, hits: Sequence[Hit]) -> None:
        for hit in hits:
            assert hit.number is not None
            at, stop = 8, len(buffer)
            while at < stop:
                end, n = _HEAD.unpack_from(buffer, at)
                length = int.from_bytes(buffer[at + 12 : at + 16], "big")
                if end >= hit.end:
                    break
                at += 16 + length
            if at < stop and end == hit.end:
                members = BitMap.deserialize(bytes(buffer[at + 16 : at + 16 + length]))
                members.add(hit.number)
                # A fresh copy: the bytes of a bitmap depend on its history, and equal states must be equal bytes.
                bitmap = BitMap(sorted(members)).serialize()
                buffer[at : at + 16 + length] = _HEAD.pack(end, n + 1) + _LENGTH.pack(len(bitmap)) + bitmap
            else:
                bitmap = BitMap([hit.number]).serialize()
                buffer[at:at] = _HEAD.pack(hit.end, 1) + _LENGTH.pack(len(bitmap)) + bitmap


@cache
def patch_of(shape: Shape) -> Patch:
    return Patch(shape)


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


def scaled(value: float | int, scale: int) -> int:
    """A number as an integer at `scale`: half-even from its shortest decimal form.

    Raises OverflowError beyond 2^95 (dead letter `out_of_range`) and ValueError for NaN and infinities.
    """
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"{value} is not a finite number")
    number: int
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        number = int(value) * 10**scale
    elif isinstance(value, int):
        number = value * 10**scale
    else:
        number = int(Decimal(repr(value)).scaleb(scale, _EXACT).to_integral_value(ROUND_HALF_EVEN))
    if abs(number) > VALUE_MAX:
        raise OverflowError(f"{value} at scale {scale} is beyond 2^95")
    return number


def unscaled(number: int, scale: int) -> int | float:
    """The number again: an int where it is whole, else the nearest double."""
    whole, rest = divmod(number, 10**scale)
    return whole if rest == 0 else float(Decimal(number).scaleb(-scale, _EXACT))
