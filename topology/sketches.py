"""Sketches: how many values fell where, so that a percentile is known to within one per cent of itself.

    value (a whole number at the measure's scale) -> place -> count        percentile -> rank -> place -> a value

A DDSketch (Masson, Rim, Lee, VLDB 2019): places grow by the ratio 101 : 99, so the value that stands for a place is
within 1 % of every value in it.  Counts add and subtract, so sketches are a group: order-free, and an amendment or a
void takes its value out again.  The bounds of the places are whole numbers, computed with whole numbers, so the same
value has the same place on every machine; up to 49 units of the scale each number has a place of its own.

    bytes: { place(2) count(6) }*   by place; a place whose count came to nothing is left out

Fixed widths, not varints: adding one value is a search and a cut of bytes, whatever the size, and a question reads all
sketches of its rows by the column.  At most 2 x 3,125 + 1 places, 50 KB a row; a cell of like values has a few dozen.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

VALUE_MAX: Final = 2**95
"""Largest magnitude of one scaled value: 2^32 of them cannot overflow 128 bits."""
COUNT_MAX: Final = 2**47
"""A place's count stays below this in magnitude."""
WORD: Final = 8
_COUNT_BITS: Final = 48
_COUNT: Final = (1 << _COUNT_BITS) - 1


def _bounds() -> list[int]:
    """The greatest magnitude of each place: from a on, a place reaches to a * 101 / 99."""
    found, last = [], 0
    while last < VALUE_MAX:
        last = (last + 1) * 101 // 99
        found.append(last)
    return found


_BOUNDS: Final = _bounds()
ZERO: Final = len(_BOUNDS)
"""The place of 0; below it the negative values, so that places are in the order of values."""
PLACES: Final = 2 * ZERO + 1


def place(value: int) -> int:
    """The place of a scaled value."""
    if value > 0:
        return ZERO + 1 + bisect_left(_BOUNDS, value)
    return ZERO - 1 - bisect_left(_BOUNDS, -value) if value else ZERO


def stands_for(where: int) -> Fraction:
    """The value that is at most 1 % of each value of a place away from it: the harmonic mean of its ends."""
    index = abs(where - ZERO) - 1
    if index < 0:
        return Fraction(0)
    low, high = _BOUNDS[index - 1] + 1 if index else 1, _BOUNDS[index]
    mean = Fraction(2 * low * high, low + high)
    return mean if where > ZERO else -mean


def dump(counts: Mapping[int, int]) -> bytes:
    return b"".join([_word(where, counts[where]) for where in sorted(counts) if counts[where]])


def load(data: bytes) -> dict[int, int]:
    return {
        int.from_bytes(data[at : at + 2], "big"): int.from_bytes(data[at + 2 : at + WORD], "big", signed=True)
        for at in range(0, len(data), WORD)
    }


def plus(data: bytes, value: int) -> bytes:
    """The bytes of a sketch with one value more."""
    where = place(value)
    low, high = 0, len(data) // WORD
    while low < high:
        middle = (low + high) // 2
        if int.from_bytes(data[middle * WORD : middle * WORD + 2], "big") < where:
            low = middle + 1
        else:
            high = middle
    at, count = low * WORD, 1
    behind = at
    if data[at : at + 2] == where.to_bytes(2, "big"):
        behind = at + WORD
        count += int.from_bytes(data[at + 2 : behind], "big", signed=True)
    return data[:at] + (_word(where, count) if count else b"") + data[behind:]


def total(words: NDArray[np.int64]) -> dict[int, int]:
    """What the words of many sketches add up to."""
    where, counts = words >> _COUNT_BITS, words & _COUNT
    counts = np.where(counts >= COUNT_MAX, counts - (_COUNT + 1), counts)
    sums = np.zeros(PLACES, dtype=np.int64)
    known = where < PLACES
    np.add.at(sums, where[known], counts[known])
    return {int(one): int(sums[one]) for one in np.nonzero(sums)[0]}


def merged(one: Mapping[int, int], other: Mapping[int, int]) -> dict[int, int]:
    """The sum of two sketches."""
    out = dict(one)
    for where, count in other.items():
        if here := out.get(where, 0) + count:
            out[where] = here
        else:
            out.pop(where, None)
    return out


def percentile(counts: Mapping[int, int], percent: Fraction) -> Fraction:
    """The value at rank floor(percent / 100 * (n - 1)), counted from 0, within 1 %.  There is at least one value."""
    rank = int(percent * (sum(counts.values()) - 1) / 100)
    for where in sorted(counts):
        rank -= counts[where]
        if rank < 0:
            return stands_for(where)
    raise AssertionError("a sketch without values has no percentile")


def _word(where: int, count: int) -> bytes:
    return (where << _COUNT_BITS | count & _COUNT).to_bytes(WORD, "big")
