"""Writes: what a version of an event says of records, as changes on `record-changes`.

    event -> its writes ---------------------------> a change for each record that it writes
          -> what lower versions of it wrote (`written`) -> a change `none` for each record that it no longer writes
          -> higher versions, accepted before ------> named in its own changes, which they keep from holding

A record lies in the partition of its key, and a version of an event may write another record than the one before it
did.  So each change carries all that its record has to know of the event's versions; which of them holds when is
decided there, by known time (topology/records.py), and no order of arrival changes it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import orjson

from milepost.schemas.keys import PART_BYTES_MAX, leaf_partition, raw_key
from milepost.schemas.record_change import CHANGES_BITS, NONE, Higher, RecordChange, record_key, write
from milepost.schemas.records import Event, Reject, below
from milepost.topology import by_hand, dedupe
from milepost.topology.definitions import Catalog, Write
from milepost.topology.ingest_mark import IngestMark
from milepost.topology.revisions import Accepted
from milepost.topology.state import Fold, Output, Partition, Store

CHANGE_BYTES_MAX: Final = 1536 * 1024
"""Bound of a change, below the topic's own: a refused message would stop the gapless producer."""

_WRITTEN: Final = struct.Struct(">ii16s")
_NO_VERSION: Final = bytes(8)


class Taken(NamedTuple):
    """Where and when ingest took a version of an event."""

    key: bytes
    k_ms: int
    offset: int


class Written(NamedTuple):
    """A version of an event and a record that it wrote."""

    revision: int
    repair: int
    record: bytes


def tell(
    at: Partition,
    mark: IngestMark,
    taken: Taken,
    event: Event,
    catalog: Catalog,
    earlier: Sequence[Accepted],
    out: Fold,
) -> list[tuple[str, Reject]]:
    """Tell the records of one version of an event.  Answers the types of records whose write failed, and why.

    earlier: the event's versions that were taken before this one
    """
    own, failed = _own(event, catalog)
    rank = event.revision, event.repair
    single = rank == (0, 0)
    id = taken.key if single else raw_key(event.org, event.source, event.id)
    written: list[Written] = []
    if not single or mark.amends:  # else no event here has several versions
        written = _load(at.stores["written"].get(id))
    before = {(one.revision, one.repair) for one in earlier}
    wrote = {
        one.record for one in written if (one.revision, one.repair) in before and (one.revision, one.repair) < rank
    }
    if not own and not wrote:
        return failed
    higher = _higher(at.stores["seen"], event, [one for one in earlier if (one.revision, one.repair) > rank])
    nothing = RecordChange(
        record=b"", event=id, revision=event.revision, repair=event.repair, op=NONE, fields=b"{}", t_ms=event.t_ms,
        k_ms=taken.k_ms, higher=higher, org=event.org, type="", id="", version=_NO_VERSION, source=event.source,
        event_id=event.id, event_type=event.type, raw_partition=at.number, origin=0, prev=-1,
    )  # fmt: skip
    changes = []
    for one, text, fields in own:
        if len(fields) > CHANGE_BYTES_MAX:
            detail = f"its fields have {len(fields)} bytes; at most {CHANGE_BYTES_MAX} are expected"
            failed.append((one.record, Reject("too_large", detail)))
            continue
        record, version = record_key(event.org, one.record, text), catalog.records[one.record].version
        changes.append(
            nothing._replace(record=record, op=one.op, fields=fields, type=one.record, id=text, version=version)
        )
    records = [one.record for one in changes]
    changes += [nothing._replace(record=record) for record in sorted(wrote.difference(records))]
    for number, change in enumerate(changes):
        target = leaf_partition(change.record, len(mark.record_prev))
        origin = taken.offset << CHANGES_BITS | number
        value = write(change._replace(origin=origin, prev=mark.record_prev[target]))
        mark.record_prev[target] = origin
        out.before.append(Output("record-changes", target, change.record + taken.key, value))
    if records:
        kept = [one for one in written if (one.revision, one.repair) != rank]
        kept += [Written(*rank, record) for record in records]
        at.stores["written"].put(id, _dump(taken.offset, kept))
        out.count("change", len(records))
    return failed


def _own(event: Event, catalog: Catalog) -> tuple[list[tuple[Write, str, bytes]], list[tuple[str, Reject]]]:
    """(write, id of the record, fields as JSON) of what an event writes, and the types of records it fails to write."""
    found: list[tuple[Write, str, bytes]] = []
    failed: list[tuple[str, Reject]] = []
    if event.void:
        return found, failed
    if event.type == by_hand.RECORD and event.source not in catalog.sources:
        data = event.data
        write = Write(record=data["record"], on=event.type, id=("id",), op=data["op"], fields={})
        return [(write, data["id"], by_hand.fields_of(event))], failed
    for one in catalog.writes.get(event.type, ()):
        if one.refused:
            failed.append((one.record, Reject("rule_error", one.refused)))
            continue
        id = below(event.data, one.id)
        if id is None or id == "":
            failed.append((one.record, Reject("missing_key", "the id of the record is not in the event")))
            continue
        text = str(id)
        if len(text.encode()) > PART_BYTES_MAX:
            detail = f"the id of the record has more than {PART_BYTES_MAX} bytes"
            failed.append((one.record, Reject("contract_violation", detail)))
            continue
        fields = {name: below(event.data, path) for name, path in one.fields.items()}
        found.append((one, text, orjson.dumps(fields)))
    return found, failed


def _higher(seen: Store, event: Event, versions: Sequence[Accepted]) -> tuple[Higher, ...]:
    """The versions with the times at which they were known, which `seen` holds."""
    rows = seen.get_many([raw_key(event.org, event.source, event.id, one.revision, one.repair) for one in versions])
    return tuple(
        Higher(one.revision, one.repair, one.pane, dedupe.unpack(row).k_ms)
        for one, row in zip(versions, rows, strict=True)
        if row is not None
    )


def _load(row: bytes | None) -> list[Written]:
    return [] if row is None else [Written._make(one) for one in _WRITTEN.iter_unpack(row[8:])]


def _dump(upto: int, written: Iterable[Written]) -> bytes:
    return upto.to_bytes(8, "big") + b"".join(_WRITTEN.pack(*one) for one in sorted(written))
