"""The changelog's records, and the proof that a partition has one writer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.agents.changelog import (
    MARK_KEY,
    OWN_KEY,
    Mark,
    Row,
    Zombie,
    append_proved,
    dump_own,
    dump_packed,
    dump_row,
    epoch_of,
    load_mark,
)  # fmt: skip
from milepost.schemas.errors import ContractError, StoreError
from milepost.topology.packed import load_packed
from tests.agents.memory import MemoryLog, Rec
from tests.agents.toy import SPEC

OWN: Row = (OWN_KEY, dump_own(worker="w", incarnation="i", leg="count", partition=0), 0)
SUMS = b"\x02"
ROW = b"\0" * 7


def mark_row(epoch: int, x: int) -> Row:
    mark = Mark(epoch=epoch, x=x, body=b"{}", decisions={}, cluster="c", source_topic="t", ahead=7)
    return MARK_KEY, mark.dump(), epoch


def sums(key: bytes, upto: int, epoch: int) -> Row:
    return dump_row(SUMS, key, upto.to_bytes(8, "big") + b"!", epoch)


def prove(log: MemoryLog, *, epoch: int, x: int, expected: int, rows: Sequence[Row] = ()) -> tuple[int, list[bytes]]:
    """Append with proof; returns (next expected, keys that were written again)."""
    again: list[bytes] = []

    def newest(keys: Sequence[bytes]) -> list[Row]:
        again.extend(keys)
        return [sums(key[1:], x, epoch) for key in keys]

    done = append_proved(
        log, spec=SPEC, rows=rows, mark=mark_row(epoch, x), epoch=epoch, x=x, expected=expected, newest=newest
    )
    return asyncio.run(done), again


@given(st.dictionaries(st.binary(max_size=40), st.one_of(st.none(), st.binary(max_size=300)), max_size=20))
def test_packed_rows_come_back(rows: dict[bytes, bytes | None]) -> None:
    """A packed record gives back its rows, deletions and empty values included."""
    key, value, _ = dump_packed(b"\x01", rows.items(), 7, 99, 3)
    assert key == b"\x01" + (7).to_bytes(8, "big") + (3).to_bytes(8, "big")
    assert dict(load_packed(value or b"")) == rows


@given(st.binary(max_size=60))
def test_any_bytes_as_a_packed_record_are_rows_or_a_contract_error(data: bytes) -> None:
    """Garbage in a packed record never raises anything but ContractError."""
    try:
        load_packed(data.ljust(16, b"\0"))
    except ContractError as error:
        assert error.reason == "not_decodable"


def test_an_epoch_is_an_offset_before_its_record() -> None:
    """A value whose epoch lies at or behind its own offset was not written by an owner."""
    assert epoch_of(Rec(9, b"k", (8).to_bytes(8, "big") + ROW + b"1")) == 8
    assert epoch_of(Rec(8, b"k", (8).to_bytes(8, "big") + ROW + b"1")) is None
    assert epoch_of(Rec(9, b"k", b"short")) is None
    assert epoch_of(Rec(9, b"k", None)) is None
    assert epoch_of(Rec(9, b"k", None, (("epoch", (3).to_bytes(8, "big")),))) == 3


def test_a_mark_that_is_none_is_no_mark() -> None:
    """Bytes that are no mark, or a mark from the future, count as garbage."""
    assert load_mark(Rec(5, MARK_KEY, b"garbage")) is None
    assert load_mark(Rec(5, MARK_KEY, mark_row(9, 1)[1])) is None
    assert load_mark(Rec(5, MARK_KEY, mark_row(3, 1)[1])) is not None


def test_a_batch_where_it_is_expected_needs_no_more() -> None:
    """An undisturbed owner appends once and expects the offset behind its batch."""
    log = MemoryLog()
    epoch = log.land([OWN])
    assert prove(log, epoch=epoch, x=5, expected=1, rows=[sums(b"a", 5, epoch)]) == (3, [])


def test_another_own_between_two_batches_stops_the_owner() -> None:
    """Who finds an `own` between its batches is a zombie."""
    log = MemoryLog()
    epoch = log.land([OWN])
    log.land([OWN])
    with pytest.raises(Zombie):
        prove(log, epoch=epoch, x=5, expected=1)


def test_ones_own_batch_twice_is_no_one_elses() -> None:
    """A batch that the client sent twice, its first acknowledgement lost, covers nothing."""
    log = MemoryLog()
    epoch = log.land([OWN])
    rows = [sums(b"a", 5, epoch)]
    log.land([mark_row(epoch, 5), *rows])
    assert prove(log, epoch=epoch, x=5, expected=1, rows=rows) == (5, [])


def test_late_bytes_of_a_dead_owner_are_covered_again() -> None:
    """Keys that a dead predecessor's late batch has written are written again, in a batch of their own."""
    log = MemoryLog()
    log.land([OWN])
    epoch = log.land([OWN])
    log.land([mark_row(0, 9), sums(b"a", 9, 0), sums(b"b", 8, 0)])
    expected, again = prove(log, epoch=epoch, x=5, expected=2, rows=[sums(b"c", 5, epoch)])
    assert again == [SUMS + b"a", SUMS + b"b"]
    assert expected == log.end
    assert [one.key for one in log.records[-3:]] == [MARK_KEY, SUMS + b"a", SUMS + b"b"]


def test_an_older_batch_of_ones_own_that_lands_late_is_covered_again() -> None:
    """A resent batch that lands behind a newer one covers newer values: they are written again."""
    log = MemoryLog()
    epoch = log.land([OWN])
    log.land([mark_row(epoch, 9), sums(b"a", 9, epoch)])
    log.land([mark_row(epoch, 5), sums(b"a", 5, epoch)])
    assert prove(log, epoch=epoch, x=12, expected=3)[1] == [SUMS + b"a"]


def test_bytes_that_land_while_one_covers_them_are_covered_too() -> None:
    """Covering goes on until a batch lies where it is expected."""
    log = MemoryLog()
    log.land([OWN])
    epoch = log.land([OWN])
    late = [[sums(b"a", 9, 0)], [sums(b"b", 9, 0)]]

    def more(_rows: Sequence[Row]) -> None:
        if late:
            log.land(late.pop())

    log.before_append = more
    expected, again = prove(log, epoch=epoch, x=5, expected=2)
    assert (expected, sorted(again)) == (log.end, [SUMS + b"a", SUMS + b"b"])


def test_garbage_between_two_batches_changes_nothing() -> None:
    """Foreign records with keys of ours are covered; with other keys they are passed over."""
    log = MemoryLog()
    epoch = log.land([OWN])
    log.land([(b"hello", b"world", 0), (b"\xff\xff", b"", 0), (SUMS + b"a", b"x", 0), (MARK_KEY, b"no mark", 0)])
    assert prove(log, epoch=epoch, x=5, expected=1)[1] == [SUMS + b"a"]


def test_a_changelog_that_became_shorter_is_an_error() -> None:
    """A base offset below the expected one means that the topic was cut or made anew."""
    with pytest.raises(StoreError, match="shorter"):
        prove(MemoryLog(), epoch=3, x=5, expected=4)
