"""Aggregates: cells add up in any order, and equal states are equal bytes."""

from __future__ import annotations

import math
import random
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.topology.aggregates import Hit, Row, Shape, Total, decode, encode, patch_of, scaled, unscaled

SHAPES = [Shape(), Shape(sum=True), Shape(sum=True, extremes=True, last=True), Shape(distinct=True), Shape(last=True)]
SHAPES.append(Shape(sketch=True))
VALUES = st.lists(
    st.tuples(st.integers(-(2**90), 2**90), st.integers(0, 2**40), st.binary(min_size=16, max_size=16)), max_size=20
)


def fold(shape: Shape, values: list[tuple[int, int, bytes]]) -> bytes:
    rows: dict[int, Row] = {}
    for value, t_ms, event in values:
        row = rows.setdefault(1 + t_ms % 3, Row())
        if shape.distinct:
            row.add_member(value % 1000)
        else:
            row.add_value(value, t_ms, event)
    return encode(shape, 7, rows)


@given(VALUES, st.randoms(use_true_random=False))
def test_the_order_of_values_does_not_show(values: list[tuple[int, int, bytes]], chance: random.Random) -> None:
    """Any permutation of the same values gives the same bytes, for every shape."""
    values = list({event: (v, t, event) for v, t, event in values}.values())
    other = values.copy()
    chance.shuffle(other)
    for shape in SHAPES:
        assert fold(shape, values) == fold(shape, other)


@given(VALUES, VALUES)
def test_merging_rows_is_adding_their_values(
    one: list[tuple[int, int, bytes]], two: list[tuple[int, int, bytes]]
) -> None:
    """A day row merged from panes equals a day row that was given every value itself."""
    for shape in SHAPES:
        merged: dict[int, Row] = {}
        for data in (fold(shape, one), fold(shape, two)):
            for end, row in decode(shape, data):
                if end in merged:
                    merged[end].merge(row)
                else:
                    merged[end] = row
        assert encode(shape, 7, merged) == fold(shape, one + two)


def test_a_bucket_counts_when_it_ends_by_the_moment() -> None:
    """Reading until a quarter hour leaves out the buckets that end behind it."""
    rows = {end: Row() for end in (10, 11, 12)}
    for end, row in rows.items():
        row.add_value(end, end, bytes(16))
    total = Total(Shape(sum=True))
    total.add(encode(Shape(sum=True), 0, rows), 11, 0)
    assert (total.row.n, total.row.sum) == (2, 21)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e18, max_value=1e18), st.integers(0, 9))
def test_scaling_is_half_even_from_the_shortest_decimal(value: float, scale: int) -> None:
    """A double becomes the integer nearest to its shortest decimal form, ties to even."""
    assert scaled(value, scale) == round(Decimal(repr(value)) * 10**scale)


@given(st.integers(-(10**17), 10**17), st.integers(0, 12), st.integers(0, 12))
def test_a_decimal_is_scaled_to_its_digits(digits: int, places: int, scale: int) -> None:
    """A number of few decimals, as people write them, becomes the integer of its digits."""
    value = digits / 10**places
    assert scaled(value, scale) == round(Decimal(repr(value)) * 10**scale)


def test_a_thousand_doubles_have_one_sum() -> None:
    """A thousand doubles summed in a hundred orders have one sum: the sums are exact."""
    chance = random.Random(1)
    values = [chance.uniform(-1e6, 1e6) for _ in range(1000)]
    sums = set()
    for _ in range(100):
        chance.shuffle(values)
        sums.add(sum(scaled(value, 6) for value in values))
    assert len(sums) == 1


def test_what_does_not_fit_is_refused() -> None:
    """A value beyond 2^95 at its scale overflows; NaN and infinity are no numbers."""
    with pytest.raises(OverflowError):
        scaled(1e30, 6)
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match="finite"):
            scaled(value, 6)


def test_whole_numbers_read_as_whole_numbers() -> None:
    """Unscaling gives an int where the number is whole, else a double."""
    assert unscaled(4_152_200_000_000, 6) == 4_152_200 and isinstance(unscaled(2_000_000, 6), int)
    assert unscaled(1_500_000, 6) == 1.5 and unscaled(-1_500_000, 6) == -1.5


@given(VALUES)
def test_patching_bytes_is_adding_to_rows(values: list[tuple[int, int, bytes]]) -> None:
    """A cell whose bytes are patched hit by hit has the bytes of a cell made of rows."""
    for shape in [*SHAPES, Shape(extremes=True)]:
        rows: dict[int, Row] = {}
        patch, made = patch_of(shape), None
        for offset, (value, t_ms, event) in enumerate(values):
            row = rows.setdefault(1 + t_ms % 3, Row())
            if shape.distinct:
                row.add_member(value % 1000)
            elif shape == Shape():
                row.n += 1
            else:
                row.add_value(value, t_ms, event)
            number = value % 1000 if shape.distinct else None
            counted = None if shape in (Shape(), Shape(distinct=True)) else value
            made = patch(made, Hit(offset.to_bytes(8, "big"), 1 + t_ms % 3, counted, number, t_ms, event))
            assert made == encode(shape, offset, rows)
