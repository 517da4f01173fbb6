"""Bitmaps: the members in many rows of cells at once.

A day row of a busy company holds dozens of buckets with a few members each; making an object of every one costs more
than the union.  Nearly all of them are one array container of the roaring format (RoaringBitmap/RoaringFormatSpec:
cookie 12346, one key, cardinality - 1, an offset, then 16-bit numbers), so those are read as columns; the rest is left
to the library.

    rows of a distinct cell:  upto(8) { end(4) n(8) length(4) bitmap }...      of a percentile's: a sketch in its place
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from milepost.topology.sketches import WORD
from milepost.topology.state import UPTO

COOKIE: Final = 12346
ARRAY_MAX: Final = 4096
"""Members of an array container at most; a fuller one is a bitset."""
_HEAD: Final = 16

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Buckets:
    """All buckets of some values: ends in quarter hours, counts, and which value each is of (by its place)."""

    ends: Ints
    counts: Ints
    owners: Ints
    _bytes: NDArray[np.uint8]
    _at: Ints
    _lengths: Ints

    def kept(self, mask: NDArray[np.bool_]) -> Buckets:
        """The buckets that a mask keeps."""
        return Buckets(
            self.ends[mask], self.counts[mask], self.owners[mask], self._bytes, self._at[mask], self._lengths[mask]
        )

    def members(self) -> BitMap:
        """The union of their bitmaps."""
        data, at, lengths = self._bytes, self._at, self._lengths
        at, lengths = at[lengths > 0], lengths[lengths > 0]
        cardinality = _little(data, at + 10, 2) + 1
        plain = (_little(data, at, 4) == COOKIE) & (_little(data, at + 4, 4) == 1) & (cardinality <= ARRAY_MAX)
        first, many = at[plain] + _HEAD, cardinality[plain]
        before = np.cumsum(many) - many
        places = np.repeat(first, many) + 2 * (np.arange(int(many.sum())) - np.repeat(before, many))
        numbers = np.repeat(_little(data, at[plain] + 8, 2) << 16, many) | _little(data, places, 2)
        found = BitMap(numbers.astype(np.uint32))
        others = zip(at[~plain].tolist(), lengths[~plain].tolist(), strict=True)
        return found.union(found, *(BitMap.deserialize(data[one : one + length].tobytes()) for one, length in others))

    def words(self) -> Ints:
        """The eight-byte words of their sketches."""
        many = self._lengths // WORD
        before = np.cumsum(many) - many
        at = np.repeat(self._at, many) + WORD * (np.arange(int(many.sum())) - np.repeat(before, many))
        return _big(self._bytes, at, WORD)


def buckets(values: Sequence[bytes]) -> Buckets:
    """The buckets of cells of shape `distinct` or `sketch`: all values are walked side by side, one bucket a step."""
    # Behind the last bitmap, so that the head of one shorter than an array container's can be looked at.
    data = np.frombuffer(b"".join([*values, bytes(_HEAD)]), dtype=np.uint8)
    sizes = np.fromiter((len(value) for value in values), dtype=np.int64, count=len(values))
    stops = np.cumsum(sizes)
    at = stops - sizes + UPTO
    places: list[Ints] = []
    owners: list[Ints] = []
    lengths: list[Ints] = []
    going = np.nonzero(at < stops)[0]
    while len(going):
        here = at[going]
        length = _big(data, here + 12, 4)
        places.append(here)
        owners.append(going)
        lengths.append(length)
        at[going] = here + _HEAD + length
        going = going[at[going] < stops[going]]
    place = _joined(places)
    return Buckets(
        _big(data, place, 4), _big(data, place + 4, 8), _joined(owners), data, place + _HEAD, _joined(lengths)
    )


def _joined(parts: list[Ints]) -> Ints:
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def _big(data: NDArray[np.uint8], at: Ints, size: int) -> Ints:
    """Big-endian numbers of `size` bytes at places."""
    out: NDArray[Any] = np.zeros(len(at), dtype=np.int64)
    for i in range(size):
        out = (out << 8) | data[at + i]
    return out


def _little(data: NDArray[np.uint8], at: Ints, size: int) -> Ints:
    """Little-endian numbers of `size` bytes at places."""
    out: NDArray[Any] = np.zeros(len(at), dtype=np.int64)
    for i in range(size):
        out |= data[at + i].astype(np.int64) << (8 * i)
    return out
