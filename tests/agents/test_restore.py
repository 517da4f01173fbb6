"""Restoring: which records of a changelog count."""

from __future__ import annotations

import pytest

from milepost.agents import store
from milepost.agents.changelog import MARK_KEY, Row, dump_packed, dump_row
from milepost.agents.restore import Restore
from milepost.schemas.errors import StoreError
from tests.agents.memory import MemoryLog, MemoryRocks
from tests.agents.test_changelog import OWN, SUMS, mark_row, sums
from tests.agents.toy import SPEC


def restored(log: MemoryLog, rocks: MemoryRocks | None = None, *, chunk: int = 3) -> tuple[Restore, MemoryRocks]:
    """Take over (append `own`) and restore, `chunk` records at a time."""
    rocks = rocks or MemoryRocks()
    restore = Restore(rocks, SPEC, log.land([OWN]))  # type: ignore[arg-type]
    records = list(log.records)
    for at in range(0, len(records), chunk):
        restore.apply(records[at : at + chunk])
    return restore, rocks


def upto(rocks: MemoryRocks, key: bytes) -> int | None:
    value = rocks.rows.get(SUMS + key)
    return None if value is None else int.from_bytes(value[:8], "big")


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_batches_in_order_are_applied_as_they_are(chunk: int) -> None:
    """Rows, deletions, packed rows and the last mark of an undisturbed owner all count, however they are chunked."""
    log = MemoryLog()
    epoch = log.land([OWN])
    log.land([mark_row(epoch, 5), sums(b"a", 5, epoch), sums(b"b", 4, epoch)])
    packed: Row = dump_packed(b"\x01", [(b"e1", b"12345678!"), (b"e2", None)], epoch, 9)
    log.land([mark_row(epoch, 9), dump_row(SUMS, b"b", None, epoch), packed])
    restore, rocks = restored(log, chunk=chunk)
    assert restore.done
    assert restore.x == 9
    assert (upto(rocks, b"a"), upto(rocks, b"b")) == (5, None)
    assert rocks.rows[b"\x01e1"] == b"12345678!"
    assert not restore.rewrite


def test_a_late_mark_is_ignored() -> None:
    """The mark of an epoch below the highest `own` before it does not count."""
    log = MemoryLog()
    first = log.land([OWN])
    second = log.land([OWN])
    log.land([mark_row(second, 5)])
    log.land([mark_row(first, 50)])
    assert restored(log)[0].x == 5


def test_a_late_row_counts_only_if_it_is_ahead() -> None:
    """Of a late batch a row that has absorbed more is taken; the others are to be written again."""
    log = MemoryLog()
    first = log.land([OWN])
    log.land([mark_row(first, 3), sums(b"a", 3, first), sums(b"b", 2, first)])
    second = log.land([OWN])
    log.land([mark_row(second, 5), sums(b"a", 5, second)])
    log.land([mark_row(first, 4), sums(b"a", 4, first), sums(b"b", 7, first), dump_row(SUMS, b"c", None, first)])
    restore, rocks = restored(log)
    assert (upto(rocks, b"a"), upto(rocks, b"b")) == (5, 7)
    assert restore.rewrite == {SUMS + b"a", SUMS + b"c"}


def test_a_late_row_does_not_bring_back_what_was_deleted() -> None:
    """A row that the newer owner has deleted stays deleted, and its deletion is to be written again."""
    log = MemoryLog()
    first = log.land([OWN])
    second = log.land([OWN])
    log.land([mark_row(second, 9), dump_row(SUMS, b"a", None, second)])
    log.land([mark_row(first, 4), sums(b"a", 4, first)])
    restore, rocks = restored(log)
    assert upto(rocks, b"a") is None
    assert restore.rewrite == {SUMS + b"a"}


def test_a_row_written_again_settles_the_matter() -> None:
    """Once the owner has written a covered key again, nothing is left to do."""
    log = MemoryLog()
    first = log.land([OWN])
    second = log.land([OWN])
    log.land([mark_row(second, 5), sums(b"a", 5, second)])
    log.land([mark_row(first, 4), sums(b"a", 4, first)])
    log.land([mark_row(second, 5), sums(b"a", 5, second)])
    assert restored(log)[0].rewrite == set()


def packed_row(upto: int) -> bytes:
    return upto.to_bytes(8, "big") + b"!"


def test_a_late_packed_row_counts_only_if_it_is_ahead() -> None:
    """Of a dead owner's late packed record a row that has absorbed more than the one held is taken, no other."""
    log = MemoryLog()
    first = log.land([OWN])
    log.land([mark_row(first, 4), dump_packed(b"\x01", [(b"e1", packed_row(4)), (b"e2", packed_row(2))], first, 4)])
    log.land([OWN])
    late = [(b"e1", packed_row(3)), (b"e2", packed_row(6)), (b"e3", packed_row(5)), (b"e4", None)]
    log.land([mark_row(first, 9), dump_packed(b"\x01", late, first, 9)])
    restore, rocks = restored(log)
    assert restore.x == 4
    assert {key[1:]: value for key, value in rocks.rows.items() if key[0] == 1} == {
        b"e1": packed_row(4), b"e2": packed_row(6), b"e3": packed_row(5),
    }  # fmt: skip
    assert not restore.rewrite


def test_a_packed_record_that_landed_twice_is_not_lost_to_the_cleaner() -> None:
    """Sent again behind the next owner's `own` it has the key of its first copy, which the cleaner removes."""
    log = MemoryLog()
    first = log.land([OWN])
    batch = [mark_row(first, 5), dump_packed(b"\x01", [(b"e1", packed_row(5))], first, 5)]
    log.land(batch)
    second = log.land([OWN])
    log.land(batch)
    log.land([mark_row(second, 5)])
    log.compact(log.end)
    restore, rocks = restored(log)
    assert restore.x == 5
    assert rocks.rows[b"\x01e1"] == packed_row(5)


def test_what_is_to_be_written_again_survives_a_crash() -> None:
    """A restore that is cut off behind a late row still knows it at the next one."""
    log = MemoryLog()
    first = log.land([OWN])
    second = log.land([OWN])
    log.land([mark_row(second, 5), sums(b"a", 5, second)])
    log.land([mark_row(first, 4), sums(b"a", 4, first)])
    _, rocks = restored(log)
    again, _ = restored(log, MemoryRocks(rocks.rows))
    assert again.rewrite == {SUMS + b"a"}


def test_a_restore_goes_on_where_it_stopped() -> None:
    """Position, rows and mark travel in one batch: any prefix of chunks plus the rest is the whole."""
    log = MemoryLog()
    epoch = log.land([OWN])
    for x in range(5, 50, 5):
        log.land([mark_row(epoch, x), sums(b"%d" % (x % 3), x, epoch)])
    whole = restored(log)[1].rows
    for cut in range(1, len(log.records)):
        rocks = MemoryRocks()
        Restore(rocks, SPEC, log.end - 1).apply(log.records[:cut])  # type: ignore[arg-type]
        restore = Restore(MemoryRocks(rocks.rows), SPEC, log.end - 1)  # type: ignore[arg-type]
        restore.apply(log.records)
        assert restore.x == 45
        assert {k: v for k, v in whole.items() if k[0]} == {k: v for k, v in restore._rocks.rows.items() if k[0]}  # type: ignore[attr-defined]


def test_garbage_in_the_changelog_changes_nothing() -> None:
    """Records that no owner wrote are passed over, and a covered key is to be written again."""
    log = MemoryLog()
    epoch = log.land([OWN])
    log.land([mark_row(epoch, 5), sums(b"a", 5, epoch)])
    log.land([(b"hello", b"world", 0), (SUMS + b"a", b"\xff" * 20, 0), (SUMS + b"b", b"x", 0), (MARK_KEY, b"?", 0)])
    log.land([(b"\x01junk", b"y" * 30, 0), (b"\x04facts", b"z" * 30, 0)])
    restore, rocks = restored(log)
    assert restore.x == 5
    assert upto(rocks, b"a") == 5
    assert restore.rewrite == {SUMS + b"a", SUMS + b"b"}


def test_records_behind_ones_own_own_are_not_applied() -> None:
    """Restoring ends at the own `own`: what came later is the first batch's affair."""
    log = MemoryLog()
    first = log.land([OWN])
    rocks = MemoryRocks()
    restore = Restore(rocks, SPEC, log.land([OWN]))  # type: ignore[arg-type]
    log.land([mark_row(first, 9), sums(b"a", 9, first)])
    restore.apply(log.records)
    assert restore.done
    assert (restore.x, upto(rocks, b"a")) == (-1, None)


def test_a_store_ahead_of_its_changelog_is_refused() -> None:
    """A position at or behind the own `own` means that the topic was cut or made anew."""
    rocks = MemoryRocks({store.POSITION: (9).to_bytes(8, "big") + (0).to_bytes(8, "big")})
    with pytest.raises(StoreError, match="cut or made anew"):
        Restore(rocks, SPEC, 9)  # type: ignore[arg-type]
