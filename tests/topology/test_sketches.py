"""Sketches: a percentile within one per cent, whatever was added and taken back, in whatever order."""

from __future__ import annotations

import random
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from milepost.topology import sketches
from milepost.topology.aggregates import Hit, Shape, decode, patch_of, revised_of
from milepost.topology.sketches import VALUE_MAX, dump, load, merged, percentile, place, plus, stands_for
from tests.support.small import HOUR
from tests.topology.test_revisions import TEN, amended, engine, shown, value, visit

NUMBERS = st.integers(-VALUE_MAX, VALUE_MAX) | st.integers(-2000, 2000)
VALUES = st.lists(NUMBERS, min_size=1, max_size=60)
PERCENTS = st.sampled_from([Fraction(one) for one in ("0.1", "5", "50", "95", "99.9")])


def sketch(values: list[int]) -> bytes:
    made = b""
    for one in values:
        made = plus(made, one)
    return made


@given(NUMBERS)
def test_what_stands_for_a_value_is_within_one_per_cent(number: int) -> None:
    """Each value has a place, the places are in the order of values, and what stands for one is near all of its values."""
    where = place(number)
    assert 0 <= where < sketches.PLACES
    assert abs(stands_for(where) - number) * 100 <= abs(number)
    if number < VALUE_MAX:
        assert place(number + 1) in (where, where + 1)


@given(VALUES, PERCENTS)
def test_a_percentile_is_near_the_value_at_its_rank(values: list[int], percent: Fraction) -> None:
    """The answer is within 1 % of the value at rank floor(p (n - 1) / 100) of the sorted values."""
    exact = sorted(values)[int(percent * (len(values) - 1) / 100)]
    assert abs(percentile(load(sketch(values)), percent) - exact) * 100 <= abs(exact)


@given(VALUES, VALUES)
def test_sketches_are_a_group(one: list[int], two: list[int]) -> None:
    """The order does not show, a sum is what all values give, and taking values back leaves the rest."""
    together = sketch(one + two)
    shuffled = one + two
    random.Random(1).shuffle(shuffled)
    assert sketch(shuffled) == together == dump(merged(load(sketch(one)), load(sketch(two))))
    minus = {where: -count for where, count in load(sketch(two)).items()}
    assert dump(merged(load(together), minus)) == sketch(one)
    assert dump(load(dump(minus))) == dump(minus) and merged(minus, load(sketch(two))) == {}


@given(VALUES)
def test_a_value_taken_back_in_its_bucket_leaves_no_trace(values: list[int]) -> None:
    """A cell from which everything was taken back in the same bucket has no rows; in another bucket it has its negative,
    which a value that comes later fills up."""
    shape = Shape(sketch=True)
    made = None
    for offset, sign in ((0, 1), (1, -1)):
        for one in values:
            hit = Hit(offset.to_bytes(8, "big"), 5, one, None, 0, bytes(16), sign)
            made = (patch_of if sign == 1 else revised_of)(shape)(made, hit)
    assert made is not None and len(made) == 8
    for one in values:
        made = revised_of(shape)(made, Hit(bytes(8), 5, one, None, 0, bytes(16), -1))
    assert sum(row.n for _, row in decode(shape, made)) == -len(values)
    for one in values:
        made = patch_of(shape)(made, Hit(bytes(8), 5, one, None, 0, bytes(16)))
    assert len(made) == 8


def near(actual: float, expected: float) -> bool:
    return abs(actual - expected) <= expected / 100


def test_amended_and_voided_values_leave_the_percentile() -> None:
    """The greatest of ten lengths is amended, then voided: the percentile follows, and what was shown stays."""
    events = [(visit(f"e{i}", TEN, minutes=float(10 * i + 10)), TEN) for i in range(10)]
    top = events[-1][0]
    changes = [
        (amended(top, 1, data={"minutes": 500.0}), TEN + 2 * HOUR),
        (amended(top, 2, void=True), TEN + 4 * HOUR),
    ]
    made = engine(*events, *changes)
    for at, expected in ((1, 100), (3, 500)):
        assert near(shown(made, "length_p99_9", TEN + at * HOUR), 90)
        assert near(shown(made, "length_p50", TEN + at * HOUR), 50), expected
    assert near(value(made, "length_p99_9"), 80) and near(value(made, "length_p50"), 50)


def test_a_percentile_without_events_is_null() -> None:
    """Alone its reason is no_events, and it makes a formula null."""
    from tests.support.small import FILES

    text = FILES["milepost.yaml"].decode() + "  worst: {formula: length_p99_9 / 10.0 + visits}\n"
    made = engine(files={**FILES, "milepost.yaml": text.encode()})
    assert value(made, "length_p50") is None and value(made, "worst") is None
    made = engine((visit("e", TEN), TEN), files={**FILES, "milepost.yaml": text.encode()})
    assert value(made, "visits") == 1 and value(made, "worst") is None
    made = engine((visit("e", TEN, minutes=30.0), TEN), files={**FILES, "milepost.yaml": text.encode()})
    assert near(value(made, "worst"), 4)
