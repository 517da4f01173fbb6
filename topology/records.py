"""Records: what events do to a record, kept as a set; what holds when follows from the set (change data capture).

    change -> origin in turn? -> row (record, event, revision)            of a partition of `record-changes`

The leg keeps changes and computes no value (record_versions.py does): a value is asked for seldom, at any time and on
either clock, and a change may come late, so a value that was computed would have to be computed again.  So every order
of arrival gives the same rows.  The topic is the changelog of the store: a row is the message itself, and the topic
keeps it for ever under the same identity; a changelog of its own would hold each byte a second time.

A change is taken only if prev <= highest origin taken < origin, as on `signals` (design §7.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from milepost.schemas.record_change import RecordChange, read
from milepost.topology import outputs, quarantine
from milepost.topology.quarantine import Verdict
from milepost.topology.state import Fold, Output, Owed, Partition, Record
from milepost.topology.turns import in_turn

_NO_KEYS: Final[Mapping[str, bytes]] = {}


class _Mark(msgspec.Struct, kw_only=True):
    """Record's mark as it is written: see `RecordMark`."""

    origins: dict[int, int]


_dump_mark = msgspec.msgpack.Encoder().encode
_load_mark = msgspec.msgpack.Decoder(_Mark).decode


@dataclass(slots=True)
class RecordMark:
    """What the leg carries from change to change in one partition.  origins: raw partition -> highest origin taken."""

    origins: dict[int, int] = field(default_factory=dict)

    @property
    def reached(self) -> Mapping[int, int]:
        """Raw partition -> the origin last taken."""
        return self.origins


class RecordLeg(quarantine.Judged):
    """The leg `record`."""

    name = "record"
    reads = "record-changes"
    waits_unproved = False

    def __init__(self, org_keys: Mapping[str, bytes] = _NO_KEYS) -> None:
        self.org_keys = org_keys  # without the key of the empty organisation no verdict is believed

    # -- the mark

    def new_mark(self) -> RecordMark:
        return RecordMark()

    def load_mark(self, data: bytes) -> RecordMark:
        return RecordMark(origins=_load_mark(data).origins)

    def dump_mark(self, mark: object) -> bytes:
        assert isinstance(mark, RecordMark)
        return _dump_mark(_Mark(origins=dict(sorted(mark.origins.items()))))

    # -- the chain

    def ready(self, records: Sequence[Record]) -> int:
        """A change says all that it means: no definitions are waited for."""
        return len(records)

    def fold(self, at: Partition, records: Sequence[Record]) -> Fold:
        mark = at.mark
        assert isinstance(mark, RecordMark)
        out, rows = Fold(), dict[bytes, bytes]()
        for record in records:
            change = read(record.value)
            if change is None:
                self._other(at, record, out)
            elif in_turn(mark.origins, change.raw_partition, change.origin, change.prev, out):
                assert record.value is not None
                rows[row_key(change)] = record.offset.to_bytes(8, "big") + record.value
                out.count("taken")
        if rows:
            at.stores["records"].put_many(rows)
        if records:
            at.next_offset = records[-1].offset + 1
        return out

    def _other(self, at: Partition, record: Record, out: Fold) -> None:
        """Bytes that are not ours: counted, kept where they lie, never taken.  (Or a verdict, seldom.)"""
        if self.take_verdict(at, record):
            out.count("verdict")
            return
        detail = "expected a RecordChange message in single-object encoding"
        outputs.letter(self.reads, at.number, record.offset, "records", "not_decodable", detail, out)

    # -- what is passed over

    def pass_over(self, at: Partition, record: Record, verdict: Verdict) -> Fold:
        """A dead letter; and what comes behind it from its raw partition is in turn, if it was."""
        mark, out = at.mark, Fold()
        assert isinstance(mark, RecordMark)
        at.next_offset = record.offset + 1
        change = read(record.value)
        if change is None or in_turn(mark.origins, change.raw_partition, change.origin, change.prev, out):
            outputs.letter(self.reads, at.number, record.offset, quarantine.STAGE, verdict.reason, verdict.detail, out)
        return out

    def rewind(self, mark: object, records: Sequence[Record]) -> None:
        assert isinstance(mark, RecordMark)
        for change in filter(None, (read(record.value) for record in records)):
            mark.origins[change.raw_partition] = min(change.prev, mark.origins.get(change.raw_partition, change.prev))

    def repeats(self, at: Partition, record: Record) -> bool:
        assert isinstance(at.mark, RecordMark)
        change = read(record.value)
        if change is None or change.origin > at.mark.origins.get(change.raw_partition, -1):
            return False
        row = at.stores["records"].get(row_key(change))
        return row is not None and row[8:] == record.value

    # -- restore

    def from_source(self, records: Sequence[Record]) -> Iterator[tuple[str, bytes, bytes]]:
        for record in records:
            change = read(record.value)
            if change is not None:
                assert record.value is not None
                yield "records", row_key(change), record.offset.to_bytes(8, "big") + record.value

    def derive(self, at: Partition, changed: Iterable[tuple[str, bytes]] | None) -> Iterator[tuple[str, bytes, bytes]]:
        return iter(())

    def announce(self, at: Partition, records: Sequence[Record]) -> None:
        """Nothing: of several messages of one change each is the same."""

    def owed(self, at: Partition) -> Iterator[Owed]:
        return iter(())

    def again(self, at: Partition, owed: Owed, value: bytes) -> Output:
        raise AssertionError("record owes nothing to the raw log")


def row_key(change: RecordChange) -> bytes:
    """(record, event, revision, repair): the rows of a record lie together."""
    return change.record + change.event + change.revision.to_bytes(4, "big") + change.repair.to_bytes(4, "big")
