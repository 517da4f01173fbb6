"""Record questions: a record's value, history and difference at any time, on either clock.

    basis       changes with   known by
    latest      all            now
    corrected   t < T          now
    as_shown    t < T          a bucket ends <= T        (the table of bases.py: T is floored to 15 minutes)

A question reads the changes of one record, in pages from the partition of its key, and folds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from milepost.schemas.errors import StoreError
from milepost.schemas.keys import PART_BYTES_MAX, leaf_partition
from milepost.schemas.record_change import RecordChange, read, record_key
from milepost.topology import bases, by_hand
from milepost.topology.asked import organisation
from milepost.topology.bases import Moment, written
from milepost.topology.reading import Reader
from milepost.topology.record_versions import RecordRows, Version, versions
from milepost.topology.refusals import BadParameter, UnknownRecord, closest
from milepost.topology.steps import Steps, gather

CHANGES_MAX: Final = 100_000
"""Changes of one record that a question reads; a record that has more is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordQuestion:
    """A record and a moment.  Without at now is meant."""

    type: str
    id: str
    now_ms: int
    org: str | None = None
    at_ms: int | None = None
    basis: str | None = None


class RecordQuestions:
    """The questions about records, over a reader."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def types(self, org: str | None) -> Steps[dict[str, Any]]:
        """The types of records of an organisation, by name, with the events that write them."""
        yield from ()
        org = organisation(self.reader, org)
        now = self.reader.decisions.history[org][-1].catalog
        rows = [
            {"type": name, "writes": [{"on": one.on, "op": one.op} for one in of.writes]}
            for name, of in sorted(now.records.items())
        ]
        return {"org": org, "records": rows}

    def value(self, question: RecordQuestion) -> Steps[dict[str, Any]]:
        """The record at a moment: its fields, or null with a reason."""
        moment, org, changes = yield from self._changes(question)
        return {**_head(question, org, moment), **_state(_at(changes, moment), changes)}

    def history(self, question: RecordQuestion, offset: int, limit: int) -> Steps[dict[str, Any]]:
        """Its changes, the latest event first, each with what the record was behind it."""
        moment, org, changes = yield from self._changes(question)
        rows = _at(changes, moment)[::-1]
        further = str(offset + limit) if offset + limit < len(rows) else None
        page = [told(one) for one in rows[offset : offset + limit]]
        return {**_head(question, org, moment), "versions": page, "next": further}

    def diff(self, before: RecordQuestion, after: RecordQuestion) -> Steps[dict[str, Any]]:
        """What differs between two moments: the fields, and the changes that hold at one of them only."""
        first, org, changes = yield from self._changes(before)
        second = bases.moment(after.basis, after.at_ms, after.now_ms)
        sides = [_at(changes, one) for one in (first, second)]
        values = [side[-1].value or {} if side else {} for side in sides]
        fields = {
            name: {"before": values[0].get(name), "after": values[1].get(name)}
            for name in sorted(values[0].keys() | values[1].keys())
            if values[0].get(name) != values[1].get(name) or (name in values[0]) != (name in values[1])
        }
        held = [{_identity(one): one for one in side if one.holds} for side in sides]
        return {
            "type": before.type,
            "id": before.id,
            "org": org,
            **{
                side: {**_moment(moment), **_state(rows, changes)}
                for side, moment, rows in zip(("before", "after"), (first, second), sides, strict=True)
            },
            "fields": fields,
            "added": [told(one) for name, one in held[1].items() if name not in held[0]],
            "withdrawn": [told(one) for name, one in held[0].items() if name not in held[1]],
        }

    def _changes(self, question: RecordQuestion) -> Steps[tuple[Moment, str, list[RecordChange]]]:
        """(moment, organisation, all that was told of the record).  Raises QuestionError."""
        moment = bases.moment(question.basis, question.at_ms, question.now_ms)
        org = organisation(self.reader, question.org)
        known = {name for one in self.reader.decisions.history[org] for name in one.catalog.records}
        if question.type not in known:
            guess = closest(question.type, sorted(known))
            fix = (
                f"one of {', '.join(sorted(known)[:20])}" if known else "declare it under records:, then milepost apply"
            )
            raise UnknownRecord(f"{org} has no records of the type {question.type[:64]!r}", guess=guess, fix=fix)
        record = _key(org, question.type, question.id)
        partition = leaf_partition(record, self.reader.partitions)
        changes: list[RecordChange] = []
        start: bytes | None = b""
        while start is not None:
            part = RecordRows(partition=partition, record=record, start=start)
            ((rows, start),) = yield from gather(self.reader, [part])
            changes += _read(rows)
            if len(changes) > CHANGES_MAX:
                raise BadParameter(f"the record has more than {CHANGES_MAX} changes, which no answer goes through")
        return moment, org, changes


def told(one: Version) -> dict[str, Any]:
    """A version as it is answered."""
    change = one.change
    return {
        "op": change.op,
        "time": written(change.t_ms),
        "known": written(change.k_ms),
        "event": {"source": change.source, "id": change.event_id, "type": change.event_type},
        "revision": change.revision,
        "repair": change.repair,
        "fields": change.values,
        "holds": one.holds,
        "ended": None if one.ended_ms is None else written(one.ended_ms),
        "effect": one.effect,
        "value": one.value,
    }


def restored(
    question: RecordQuestion, org: str, value: Mapping[str, Any] | None, *, id: str, by: str | None
) -> dict[str, Any]:
    """The raw event of ours that makes `value` (None: there is no record) the newest version of a record."""
    data = {
        "record": question.type, "id": question.id, "op": "delete" if value is None else "upsert",
        "fields": orjson.dumps(value or {}).decode(), "by": by,
    }  # fmt: skip
    return by_hand.event(org, "record", data, id, question.now_ms, {})


def _key(org: str, type: str, id: str) -> bytes:
    try:
        size = len(id.encode())
    except UnicodeEncodeError as error:
        raise BadParameter("the id of a record is valid Unicode") from error
    if not 0 < size <= PART_BYTES_MAX:
        raise BadParameter(f"the id of a record has 1 to {PART_BYTES_MAX} bytes, {size} came")
    return record_key(org, type, id)


def _read(rows: Iterable[bytes]) -> list[RecordChange]:
    found = []
    for row in rows:
        change = read(row)
        if change is None:
            raise StoreError(
                "a row of records is none; fix: delete the state folder of the leg record, it is made anew"
            )
        found.append(change)
    return found


def _at(changes: Iterable[RecordChange], moment: Moment) -> list[Version]:
    before_ms = None if moment.basis == "latest" else moment.at_ms
    return versions(changes, moment.known_until, before_ms)


def _identity(one: Version) -> tuple[bytes, tuple[int, int]]:
    return one.change.event, one.change.rank


def _head(question: RecordQuestion, org: str, moment: Moment) -> dict[str, Any]:
    return {"type": question.type, "id": question.id, "org": org, **_moment(moment)}


def _moment(moment: Moment) -> dict[str, Any]:
    return {"at": written(moment.at_ms), "basis": moment.basis}


def _state(rows: Sequence[Version], changes: Sequence[RecordChange]) -> dict[str, Any]:
    """The record behind its versions, and since when it has been so, on both clocks."""
    value = rows[-1].value if rows else None
    last = next((one.change for one in reversed(rows) if one.effect), None)
    reason = None
    if value is None:
        # What was there is gone, or nothing has made it; what is told and does not count yet lies behind the moment.
        reason = "deleted" if last is not None else "no_events" if rows or not changes else "before_start"
    return {
        "value": value,
        "reason": reason,
        "since": None if last is None else written(last.t_ms),
        "known": None if last is None else written(last.k_ms),
    }
