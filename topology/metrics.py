"""Metrics: signals to cells.

    signal -> measures of its rule -> (dimension choice, pane) -> the bucket of its known time in a cell

Written for each measure: the total, each single dimension, the full tuple; the rest is summed at read.  A cell's key
serves the reads by its order: version, leaf, which dimensions, their values, pane.

    cells:  version(8) leaf(16) mask(1) { length(2) value }* pane(4)          days: the same with day(4)

Dimensions are bounded per (measure, leaf, day): `max_values` a dimension and 10,000 tuples.  Beyond that a value folds
into `__other__`, is counted and alerted on; totals stay exact (design §5).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final

from milepost.topology import panes
from milepost.topology.aggregates import Added, Row, Shape, decode, encode, scaled, tidied, upto_of
from milepost.topology.catalog import Measure
from milepost.topology.state import Fold, Store

OTHER: Final = b"__other__"
NONE: Final = b"__none__"
VALUE_BYTES_MAX: Final = 256
TUPLES_MAX: Final = 10_000
PREFIX_BYTES: Final = 8 + 16
_FACT_KEY: Final = struct.Struct(">16sI16sII")


Rows = list[tuple[int, tuple[bytes, ...], bytes]]
"""(mask, values, key between leaf and pane) of the rows that a signal adds to."""


def prefix(version: bytes, leaf: bytes, mask: int, dims: bytes) -> bytes:
    """All of a row's key but its pane or day."""
    return version + leaf + bytes((mask,)) + dims


def row_key(before: bytes, number: int) -> bytes:
    return before + number.to_bytes(4, "big")


def fact_key(leaf: bytes, pane: int, event: bytes, revision: int, repair: int) -> bytes:
    """The key of a fact: those of a leaf and a pane lie together."""
    return _FACT_KEY.pack(leaf, pane, event, revision, repair)


def packed(values: Iterable[bytes]) -> bytes:
    """Dimension values in the key: each with its length before it, two bytes."""
    return b"".join(len(value).to_bytes(2, "big") + value for value in values)


def unpacked(dims: bytes) -> tuple[bytes, ...]:
    out, at = [], 0
    while at < len(dims):
        length = int.from_bytes(dims[at : at + 2], "big")
        out.append(dims[at + 2 : at + 2 + length])
        at += 2 + length
    return tuple(out)


def dimension_value(value: object) -> bytes:
    """A field as a dimension value: text as it is, whole numbers without a point, absent as `__none__`."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    try:
        text = str(value).encode()
    except UnicodeEncodeError:
        return OTHER
    return text if len(text) <= VALUE_BYTES_MAX else OTHER


class Naming:
    """Which dimension values have names, per (measure, leaf, day): the first ones, up to the bound.

    A value has a name once its day row exists; the store `named` counts them.  Values are asked for while a slice is
    folded and admitted together.  `known` remembers day rows that have a name, at most 100,000 of them.
    """

    KNOWN_MAX: Final = 100_000

    def __init__(self) -> None:
        self.known: set[bytes] = set()
        self._asked: dict[bytes, tuple[Measure, int, tuple[bytes, ...], bytes]] = {}

    def ask(self, measure: Measure, mask: int, values: tuple[bytes, ...], day_key: bytes, upto: bytes) -> None:
        """A day row is wanted at the offset `upto`; does it have a name?"""
        if day_key not in self._asked:
            self._asked[day_key] = (measure, mask, values, upto)

    def admit(self, days: Mapping[bytes, bytes | None], named: Store) -> dict[bytes, bytes]:
        """Give names as far as they go.  Answers day key -> the prefix of `__other__` for those without.

        days: the values of all day rows that were asked for;  named: the store of the counts
        """
        asked, self._asked = self._asked, {}
        if not asked:
            return {}
        if len(self.known) + len(asked) > self.KNOWN_MAX:
            self.known.clear()
        self.known.update(asked)
        unnamed = {
            day_key: (day_key[: PREFIX_BYTES + 1] + day_key[-4:], one)  # the counter's key: the same without values
            for day_key, one in asked.items()
            if days[day_key] is None and not (one[0].values and always_named(one[0], one[1], one[2]))
        }
        counters = list({counter for counter, _ in unnamed.values()})
        held = dict(zip(counters, named.get_many(counters), strict=True))
        counts = {counter: int.from_bytes(row[8:12], "big") if row else 0 for counter, row in held.items()}
        changed: dict[bytes, bytes] = {}
        refused: dict[bytes, bytes] = {}
        for day_key, (counter, (measure, mask, values, upto)) in unnamed.items():
            if counts[counter] >= (measure.max_values if mask & (mask - 1) == 0 else TUPLES_MAX):
                refused[day_key] = counter[:-4] + packed((OTHER,) * len(values))
            else:
                counts[counter] += 1
                changed[counter] = upto + counts[counter].to_bytes(4, "big")
        named.put_many(changed)
        self.known.difference_update(refused)
        return refused


class Choices:
    """The rows a signal adds to by some dimensions: the total, each single one, the full tuple.

    Answers (mask, values, tail) where the tail is the key between leaf and pane.  Remembers 50,000 combinations: the
    values of dimensions come again and again.
    """

    REMEMBERED_MAX: Final = 50_000

    def __init__(self, dimensions: tuple[str, ...]) -> None:
        self._dimensions = dimensions
        self._known: dict[tuple[object, ...], Rows] = {}

    def __call__(self, fields: Mapping[str, object]) -> Rows:
        key = tuple(map(fields.get, self._dimensions))
        try:
            found = self._known.get(key)
        except TypeError:  # a list or an object, which ingest does not send
            found = None
        return self._told(key) if found is None else found

    def _told(self, given: tuple[object, ...]) -> Rows:
        # With the type beside all but text: 1, 1.0 and True are equal to a dict and three different texts.
        plain = all(value is None or type(value) is str for value in given)
        key = given if plain else tuple((type(value), repr(value)) for value in given)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= self.REMEMBERED_MAX:
                self._known.clear()
            values = [dimension_value(value) for value in given]
            rows: list[tuple[int, tuple[bytes, ...]]] = [(0, ())]
            rows.extend((1 << i, (value,)) for i, value in enumerate(values))
            if len(values) > 1:
                rows.append(((1 << len(values)) - 1, tuple(values)))
            found = [(mask, some, bytes((mask,)) + packed(some)) for mask, some in rows]
            self._known[key] = found
        return found


class EachChoices(dict[tuple[str, ...], Choices]):
    """The choices by each of several tuples of dimensions."""

    def __missing__(self, dimensions: tuple[str, ...]) -> Choices:
        made = self[dimensions] = Choices(dimensions)
        return made


def always_named(measure: Measure, mask: int, values: tuple[bytes, ...]) -> bool:
    """Whether the definition itself names every one of these values (`values:`)."""
    names = [name for i, name in enumerate(measure.dimensions) if mask >> i & 1]
    return all(
        value.decode(errors="replace") in measure.values.get(name, frozenset())
        for name, value in zip(names, values, strict=True)
    )


def amount(measure: Measure, fields: Mapping[str, object]) -> int | None:
    """The scaled value a measure takes from a signal's fields; None when absent or no number.

    Range was checked by `signals`; a message that ingest did not write may hold anything, and counts for nothing.
    """
    value = fields.get(measure.field) if measure.field is not None else None
    if not isinstance(value, int | float):
        return None
    try:
        return scaled(value, measure.scale)
    except (OverflowError, ValueError):
        return None


def add(store: Store, hits: Iterable[tuple[bytes, Added]], held: Mapping[bytes, bytes | None], out: Fold) -> None:
    """Add all hits, in log order, to the rows of a store; `held` has the rows there are before this slice.

    A row that has absorbed an offset already (its `upto`) does not take it again: after a restore a row may be ahead of
    the mark (design §7.6).  Offsets ascend, so a row that has taken one hit of this slice takes those behind it.
    """
    changed: dict[bytes, bytes] = {}
    absorbed = 0
    for key, (upto, fresh, patch, hit) in hits:
        row = changed.get(key)
        if row is None:
            row = held.get(key)
            if row is None:
                changed[key] = fresh
                continue
            if row[:8] >= upto:
                absorbed += 1
                continue
        changed[key] = patch(row, hit)
    store.put_many(changed)
    if absorbed:
        out.count("absorbed", absorbed)


def day_rows(cells: Store, shapes: Mapping[bytes, Shape], changed: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of the day rows that hold the `changed` cells, which come in the order of their keys, summed from
    their panes.  For restores: days in a row are read in one go."""
    for before, keys in groupby(changed, key=lambda key: key[:-4]):
        shape = shapes.get(before[:8])
        if shape is None:
            continue
        days = list(dict.fromkeys(panes.day_of(int.from_bytes(key[-4:], "big")) for key in keys))
        for first, last in _runs(days):
            start = row_key(before, first * panes.PANES_A_DAY)
            found: dict[int, list[bytes]] = {}
            for key, value in cells.scan(start, row_key(before, (last + 1) * panes.PANES_A_DAY)):
                found.setdefault(panes.day_of(int.from_bytes(key[-4:], "big")), []).append(value)
            for day in range(first, last + 1):
                yield row_key(before, day), _day_row(shape, found.get(day, []))


def _runs(days: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(first, last) of the runs of days that follow each other, of days in order."""
    first = last = days[0]
    for day in days[1:]:
        if day > last + 1:
            yield first, last
            first = day
        last = day
    yield first, last


def all_day_rows(rows: Iterable[tuple[bytes, bytes]], shapes: Mapping[bytes, Shape]) -> Iterator[tuple[bytes, bytes]]:
    """The same of all cells, given in the order of their keys: one pass, no look-up."""
    for day_key, cells in groupby(rows, key=_day_key):
        shape = shapes.get(day_key[:8])
        if shape is not None:
            yield day_key, _day_row(shape, [value for _, value in cells])


def _day_key(row: tuple[bytes, bytes]) -> bytes:
    key = row[0]
    return key[:-4] + (int.from_bytes(key[-4:], "big") // panes.PANES_A_DAY).to_bytes(4, "big")


def _day_row(shape: Shape, cells: list[bytes]) -> bytes:
    """The day row of these cells; that of one cell is the cell."""
    if len(cells) == 1:
        return cells[0]
    rows: dict[int, Row] = {}
    for value in cells:
        for end, row in decode(shape, value):
            if end in rows:
                rows[end].merge(row)
            else:
                rows[end] = row
    return encode(shape, max(map(upto_of, cells), default=0), tidied(rows))
