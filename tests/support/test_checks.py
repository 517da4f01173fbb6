"""The checks catch what they are for: each is shown a fault, and a run without one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import pytest

from milepost.agents.changelog import MARK_KEY, OWN_KEY, Mark, dump_own
from tests.support.checks import letters, owners
from tests.support.hostile import TIMES_MAX, hostile_order, hostile_shift
from tests.support.invariants import never_back, same_bytes, same_set, slope
from tests.support.soak import plan
from tests.support.workers import week


@dataclass(frozen=True)
class Row:
    """A confluent message of partition 0."""

    at: int
    of: bytes
    said: bytes

    def partition(self) -> int:
        return 0

    def topic(self) -> str:
        return "changelog"

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes:
        return self.of

    def value(self) -> bytes:
        return self.said

    def headers(self) -> list[tuple[str, bytes]]:
        return []


def own(at: int, worker: str) -> Row:
    return Row(at, OWN_KEY, dump_own(worker=worker, incarnation="i", leg="ingest", partition=0))


def mark(at: int, epoch: int, x: int) -> Row:
    made = Mark(epoch=epoch, x=x, body=b"", decisions={}, cluster="c", source_topic="t", ahead=7)
    return Row(at, MARK_KEY, made.dump())


def test_marks_that_go_back_are_seen() -> None:
    """I4: of one owner, and from an owner to the next; a dead owner's late mark is no fault."""
    good = [
        own(0, "a"),
        mark(1, 0, 5),
        mark(2, 0, 9),
        own(3, "b"),
        mark(4, 0, 12),
        mark(5, 3, 9),
        own(6, "a"),
        own(7, "a"),
    ]
    assert owners(good) == ([], 2)
    assert owners([own(0, "a"), mark(1, 0, 9), mark(2, 0, 5)])[0]
    assert owners([own(0, "a"), mark(1, 0, 9), own(2, "b"), mark(3, 2, 8)])[0]


def test_other_bytes_under_one_key_are_seen() -> None:
    """I3: sent again is the same bytes."""
    assert same_bytes([(1, b"a"), (1, b"a"), (2, b"b")]) == []
    assert same_bytes([(1, b"a"), (1, b"b")])


def test_what_is_missing_too_much_or_different_is_seen() -> None:
    """Each of the three is a fault of its own."""
    assert same_set("x", {1: 1}, {1: 1}) == []
    assert len(same_set("x", {1: 1, 2: 2, 3: 3}, {2: 0, 3: 3, 4: 4})) == 3
    assert (
        len(
            letters(
                [
                    {"topic": "t", "partition": 0, "offset": n, "stage": "s", "rule": "", "reason": "r"}
                    for n in (1, 1, 2)
                ]
            )
        )
        == 2
    )


def test_a_position_that_goes_back_or_vanishes_is_seen() -> None:
    """I4: committed offsets."""
    assert never_back("o", {1: 5}, {1: 5, 2: 1}) == []
    assert never_back("o", {1: 5}, {1: 4}) and never_back("o", {1: 5}, {})


def test_the_slope_is_per_hour() -> None:
    """One byte a second is 3,600 an hour, and a level line has none."""
    assert slope([(float(s), float(s)) for s in range(100)]) == pytest.approx(3600)
    assert slope([(float(s), 7.0) for s in range(100)]) == pytest.approx(0)


def test_the_input_is_hostile() -> None:
    """F12: every event 1 to 5 times, shuffled; late by 1 h to 400 d, or known a little before it happened."""
    order = hostile_order(500, seed=1)
    assert {order.count(number) for number in range(500)} == set(range(1, TIMES_MAX + 1))
    assert order != sorted(order) and order == hostile_order(500, seed=1) != hostile_order(500, seed=2)
    shifts = [hostile_shift(event) for event in islice(week(), 2000)]
    hour, day = 3_600_000, 86_400_000
    assert min(shifts) < 0 and any(hour <= one < day for one in shifts) and 300 * day < max(shifts) <= 400 * day


def test_a_seed_is_an_order_of_faults() -> None:
    """The soak's faults, and what each of them draws, follow from the seed alone."""

    def drawn(seed: int) -> list[tuple[str, float]]:
        return [(id, chance.random()) for id, _, _, chance in islice(plan(seed), 50)]

    assert drawn(7) == drawn(7) != drawn(8)
    assert len({id for id, _ in drawn(7)}) >= 6
