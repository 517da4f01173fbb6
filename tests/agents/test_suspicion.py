"""Suspicion: how the pieces taken in hand grow and shrink, and what counts as a crash alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from milepost.agents.suspicion import (
    CRASHES_MAX,
    RANGE_FIRST,
    RANGE_MAX,
    Kind,
    Suspicion,
    Trying,
    load_trying,
)
from tests.agents.memory import Rec


def records(start: int, stop: int) -> list[Rec]:
    return [Rec(offset, b"k", b"v") for offset in range(start, stop)]


ALL = records(0, 20_000)


def life(note: Trying | None, x: int, bad: int, end: int) -> tuple[Trying | None, int, bool]:
    """One life of an owner whose process ends when it folds `bad`: (last note, last mark, everything passed)."""
    held = Suspicion(note, x, len(ALL), end)
    while x + 1 < end:
        part: Sequence[Rec] = held.part(ALL[x + 1 : end])  # type: ignore[assignment]
        crashes = held.crashes(part[0])
        if crashes >= CRASHES_MAX:
            return note, x, True
        kind: Kind = "alone" if len(part) == 1 else "range"
        note = Trying(epoch=1, kind=kind, first=part[0].offset, last=part[-1].offset, count=len(part), crashes=crashes)
        if part[0].offset <= bad <= part[-1].offset:
            return note, x, False
        x = part[-1].offset
        if held.passed(part):
            break
    return note, x, False


@pytest.mark.parametrize("bad", [0, 1, 127, 128, 5000, 19_999])
def test_one_record_is_found_in_few_lives(bad: int) -> None:
    """Wherever it lies, six lives at most condemn it, and everything before it has passed."""
    note, x, found, lives = None, -1, False, 0
    while not found:
        note, x, found = life(note, x, bad, len(ALL))
        lives += 1
    assert x == bad - 1 and note is not None and note.first == bad
    assert lives <= 6


def test_pieces_grow_while_nothing_happens() -> None:
    """From 128 records to 1,024, so that care costs little; it ends with what was in hand before."""
    held = Suspicion(None, -1, 10**6, 10_000)
    sizes, at, over = [], 0, False
    while not over:
        part = held.part(records(at, 10_000))
        sizes.append(len(part))
        at += len(part)
        over = held.passed(part)
    assert sizes[0] == RANGE_FIRST and max(sizes) == RANGE_MAX and sum(sizes) == 10_000


def test_care_ends_behind_what_the_owner_before_may_have_had_in_hand() -> None:
    """So many records, wherever compaction has left them."""
    held = Suspicion(None, 99, 300, 10_000)
    thin = [Rec(offset, b"k", b"v") for offset in range(100, 10_000, 7)]
    at = 0
    while not held.passed(part := held.part(thin[at:])):
        at += len(part)
    assert 300 <= at + len(part) < 300 + RANGE_MAX


@pytest.mark.parametrize(("kind", "crashes"), [("alone", 2), ("control", 1), ("held", 0), ("range", 0), ("clean", 0)])
def test_only_a_record_that_was_alone_has_crashed(kind: Kind, crashes: int) -> None:
    """A crash while others were tried, or after the fold, counts for nobody."""
    held = Suspicion(Trying(epoch=1, kind=kind, first=5, last=5, count=1, crashes=1), 4, 1000, 100)
    assert held.crashes(Rec(5, b"k", b"v")) == crashes
    assert held.crashes(Rec(6, b"k", b"v")) == 0


def test_a_note_about_what_has_passed_says_nothing() -> None:
    """When the mark has absorbed what was in hand, nobody is suspected."""
    held = Suspicion(Trying(epoch=1, kind="alone", first=5, last=5, count=1, crashes=2), 5, 1000, 100)
    assert held.crashes(Rec(5, b"k", b"v")) == 0 and len(held.part(records(6, 100))) == 94


def test_bytes_that_are_no_note_are_none() -> None:
    """Garbage, and a note from the future, are passed over."""
    good = Trying(epoch=3, kind="alone", first=5, last=5, count=1, crashes=2)
    assert load_trying(Rec(9, b"\x00try", good.dump())) == good
    assert load_trying(Rec(3, b"\x00try", good.dump())) is None
    assert load_trying(Rec(9, b"\x00try", b"garbage")) is None
    assert load_trying(Rec(9, b"\x00try", None)) is None
