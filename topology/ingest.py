"""Ingest: a raw partition's records to signals.  decode, dedupe, identity, signals, writes, in one chain.

    record -> stamp? -> envelope -> misplaced? -> event -> first? -> keys, links -> rules, writes -> messages

Everything it decides from lies in the raw partition itself (records, markers, ticks), so the same records give the same
outputs with the same ids, in log order (design §7.1).  The definitions a record is judged by are those in force at its
*first position*; a marker in the partition changes them for what comes behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from milepost.schemas import signal_message, stamps
from milepost.schemas.framing import FRAME, TABLE_BYTES
from milepost.schemas.keys import leaf_partition, raw_key, raw_place
from milepost.schemas.records import Envelope, Event, Identified, Reject
from milepost.schemas.stamps import Stamp
from milepost.topology import (
    behind,
    by_hand,
    decode,
    dedupe,
    heard,
    ingest_mark,
    key_rows,
    outputs,
    proposals,
    quality,
    quarantine,
    revisions,
    signals,
    writes,
)
from milepost.topology.courses import Course, Courses
from milepost.topology.decisions import Decisions
from milepost.topology.dedupe import Seen, Verdict
from milepost.topology.ingest_mark import IngestMark
from milepost.topology.panes import pane_of
from milepost.topology.revisions import Accepted
from milepost.topology.state import Fold, Output, Owed, Partition, Record

MARKER_VALUE_MAX: Final = 8 + 256
SIGNALS_BYTES_MAX: Final = 1536 * 1024
"""Bound of one message on `signals`, below the topic's own: a refused message would stop the gapless producer."""
_CONFLICT: Final = Reject("id_conflict", "another body came first under this id and revision")
_OURS: Final = (stamps.MARKER, stamps.TICK, stamps.VERDICT)
"""Kinds of records that are no events: their stamp is under the key of the empty organisation."""


@dataclass(slots=True)
class _Arrival:
    """A record on its way through the chain.  first: its first position; `genuine`: the stamp's MAC was right;
    `plain`: of a framed event, the same without its frame."""

    record: Record
    k_ms: int
    partition: int
    offset: int
    bundle: bytes | None
    genuine: Stamp | None
    envelope: Envelope | None = None
    reject: Reject | None = None
    key: bytes = b""
    place: int = -1
    plain: bytes | None = None


class Ingest(quarantine.Judged):
    """The leg `ingest`.  `org_keys` gives each organisation's key, "" the key of markers and ticks."""

    name = "ingest"
    reads = "raw-events"
    waits_unproved = False

    def __init__(self, partitions: int, decisions: Decisions, org_keys: Mapping[str, bytes]) -> None:
        self.partitions = partitions
        self.decisions = decisions
        self.org_keys = org_keys
        self._courses = Courses(decisions, org_keys)
        self._targets: dict[bytes, int] = {}

    # -- the mark

    def new_mark(self) -> IngestMark:
        return IngestMark(prev=[-1] * self.partitions, record_prev=[-1] * self.partitions)

    def load_mark(self, data: bytes) -> IngestMark:
        return ingest_mark.load(data)

    def dump_mark(self, mark: object) -> bytes:
        assert isinstance(mark, IngestMark)
        return ingest_mark.dump(mark)

    # -- the chain

    def ready(self, records: Sequence[Record]) -> int:
        known, tables = self.decisions.catalogs, self.decisions.tables
        for i, record in enumerate(records):
            stamp = stamps.find(record.headers) if record.headers else None
            if stamp is None:
                continue
            needed = record.value[:8] if stamp[:1] == stamps.MARKER and record.value else stamps.unpack(stamp).bundle
            # A forged stamp must not stop the line: only a right one is waited for.
            if needed == stamps.NO_BUNDLE or needed in known or needed in tables:
                continue
            if self._stamp_of(record, stamp) is not None:
                return i
        return len(records)

    def fold(self, at: Partition, records: Sequence[Record]) -> Fold:
        mark = at.mark
        assert isinstance(mark, IngestMark)
        out = Fold()
        if mark.table is None and (table := mark.bundles.get("")) is not None:
            mark.table = self.decisions.tables[table]
        arrivals = [self._arrive(at, mark, record) for record in records]
        wanted = {a.key for a in arrivals if a.key}
        wanted.update([key for a in arrivals if (key := a.record.key) and key != a.key])
        keys = list(wanted)
        rows = at.stores["seen"].get_many(keys)
        seen = {key: row for key, row in zip(keys, rows, strict=True) if row is not None}
        for arrival in arrivals:
            self._take(at, mark, arrival, seen, out)
        for keep in (key_rows.keep, heard.keep, quality.keep, behind.keep):
            keep(at, mark)
        if records:
            at.next_offset = records[-1].offset + 1
        return out

    def _arrive(self, at: Partition, mark: IngestMark, record: Record) -> _Arrival:
        """Stamp, known time, envelope and place of one record."""
        if not record.headers and (value := record.value) is not None:  # as a source sends it
            k_ms = mark.k_ms = max(mark.k_ms, record.timestamp)
            arrival = _Arrival(record, k_ms, at.number, record.offset, None, None)
            if mark.table is None or value[:1] != FRAME:
                self._place(mark, arrival, decode.envelope(value))
            else:
                unframed, arrival.plain = decode.framed(value, mark.table)
                self._place(mark, arrival, unframed)
            return arrival
        stamp = stamps.find(record.headers) if record.headers else None
        found: Envelope | Reject | None = None
        genuine: Stamp | None = None
        plain: bytes | None = None
        if stamp is not None and stamp[:1] in _OURS:
            genuine = stamps.verified(self.org_keys[""], record.key, record.value, stamp)
        if genuine is None and record.value is not None:
            if mark.table is None or record.value[:1] != FRAME:
                found = decode.envelope(record.value)
            else:
                found, plain = decode.framed(record.value, mark.table)
            if stamp is not None and stamp[:1] not in _OURS and isinstance(found, Envelope):
                genuine = stamps.verified(self.org_keys[found.org], record.key, record.value, stamp)
        if genuine is not None and genuine.kind in (stamps.AGAIN, stamps.FORWARDED, stamps.BACKDATED):
            k_ms = behind.known(mark, genuine, record.offset)
        else:
            k_ms = mark.k_ms = max(mark.k_ms, record.timestamp)
        if genuine is not None and genuine.kind in (stamps.AGAIN, stamps.FORWARDED):
            partition, offset, bundle = genuine.partition, genuine.offset, genuine.bundle
        else:
            partition, offset, bundle = at.number, record.offset, None
        if genuine is not None and genuine.kind == stamps.MARKER:
            value = record.value or b""
            if 8 < len(value) <= MARKER_VALUE_MAX:
                mark.bundles[value[8:].decode()] = value[:8]
            elif len(value) == TABLE_BYTES:
                mark.bundles[""], mark.table = value, self.decisions.tables[value]
        arrival = _Arrival(record, k_ms, partition, offset, bundle, genuine, plain=plain)
        if found is not None:
            self._place(mark, arrival, found)
        return arrival

    def _place(self, mark: IngestMark, a: _Arrival, found: Envelope | Reject) -> None:
        """Where a record belongs, and the bundle that was in force at its first position."""
        if isinstance(found, Reject):
            a.reject = found
            return
        a.envelope = found
        if a.bundle is None:
            a.bundle = mark.bundles.get(found.org, stamps.NO_BUNDLE)
        a.key, a.place = raw_place(found.org, found.source, found.id, found.revision, found.repair, self.partitions)

    def _take(self, at: Partition, mark: IngestMark, a: _Arrival, seen: dict[bytes, bytes], out: Fold) -> None:
        record, genuine = a.record, a.genuine
        if genuine is not None:
            if genuine.kind == stamps.MARKER:
                out.count("marker")
                return
            if genuine.kind == stamps.TICK:
                out.count("tick")
                self._pass_tick(at, mark, a, out)
                return
            if genuine.kind == stamps.VERDICT:
                out.count("verdict")
                self.take_verdict(at, record)
                return
        if record.value is None:
            out.count("foreign_tombstone")
            self._owe(at, record, seen, out, None)
            return
        out.fates["read"] += 1
        if genuine is None and record.headers and stamps.find(record.headers) is not None:
            out.count("bad_stamp")
        if a.envelope is None:
            assert a.reject is not None
            self._dead(at, a, "decode", a.reject, out)
            self._owe(at, record, seen, out, None)
            return
        if record.key != a.key or at.number != a.place:
            out.count("misrouted")
            self._forward(a, out)
            self._owe(at, record, seen, out, None)
            return
        self._judge(at, mark, a, seen, out)

    def _judge(self, at: Partition, mark: IngestMark, a: _Arrival, seen: dict[bytes, bytes], out: Fold) -> None:
        """A record that lies in its place: under its contract, is it the first of its key, and what does it mean?"""
        envelope, record, value, seen_rows = a.envelope, a.record, a.plain or a.record.value, at.stores["seen"]
        assert envelope is not None and value is not None and a.bundle is not None
        row = seen.get(a.key)
        known = None if row is None else dedupe.unpack(row)
        if known is not None and known.taken == dedupe.ANNOUNCED:
            if (known.partition, known.offset) != (a.partition, a.offset):
                out.count("duplicate")
                return
            a.k_ms, a.bundle = known.k_ms, known.bundle  # what it had when it was first taken
            known = None
        first = (a.partition, a.offset)
        if known is not None and (known.partition, known.offset) == first and known.taken != record.offset:
            self._copy(at, a, known, seen, out)
            return
        course = self._courses.of(a.bundle, envelope)
        event = course if isinstance(course, Reject) else decode.event(envelope, a.k_ms, course.source, course.contract)
        if isinstance(event, Reject):
            self._dead(at, a, "decode", event, out)
            self._owe(at, record, seen, out, None)
            return
        assert not isinstance(course, Reject)
        if known is not None:
            verdict = dedupe.judge(known, a.partition, a.offset, record.offset, event.body)
            if verdict is Verdict.REPEAT:
                out.count("duplicate")
                self._owe(at, record, seen, out, value)
                return
            if verdict is Verdict.CONFLICT:
                self._dead(at, a, "dedupe", _CONFLICT, out)
                self._owe(at, record, seen, out, None)
                return
        who = self._courses.who(event, a.k_ms, course)
        if isinstance(who, Reject):
            self._dead(at, a, "identity", who, out)
            self._owe(at, record, seen, out, None)
            return
        pane, leaf = pane_of(event.t_ms), who.leaf[:8]
        earlier = self._earlier(at, mark, a, event, leaf, pane)
        if isinstance(earlier, Reject):
            self._dead(at, a, "identity", earlier, out)
            self._owe(at, record, seen, out, None)
            return
        offset, k_ms, catalog = record.offset, a.k_ms, course.catalog
        if known is None:
            row = dedupe.taken_row(k_ms, a.partition, a.offset, offset, event.body, value, a.bundle, leaf, pane)
            seen[a.key] = row
        assert row is not None
        seen_rows.put(a.key, row)  # known, too: a dead owner's late bytes may have told us alone
        first_k_ms = k_ms if known is None else known.k_ms
        if a.genuine is None and first_k_ms != record.timestamp:
            # The broker's clock stepped back, and k came from a record before: compaction may remove that one.
            self._note_owed(at, record, dedupe.unpack(row), out, value)
        out.fates["accepted"] += 1
        key_rows.note(mark, k_ms, offset, event, who)
        if course.by_hand:
            out.before += by_hand.told(event, who, catalog.key_rank, k_ms, at.number, offset)
        else:
            heard.note(mark, course.sent, event.t_ms, k_ms, offset)
            if course.watched:
                quality.accepted(mark, course.source, course.sent, event, who, a)
            if who.edges:
                out.before += proposals.told(at, event, who, catalog.key_rank, k_ms, offset)
        self._signal(at, mark, a, event, who, course, earlier, out)
        if earlier or catalog.writes:
            taken = writes.Taken(a.key, k_ms, offset)
            for name, reject in writes.tell(at, mark, taken, event, catalog, earlier, out):
                self._dead(at, a, "writes", reject, out, name)

    def _earlier(
        self, at: Partition, mark: IngestMark, a: _Arrival, event: Event, leaf: bytes, pane: int
    ) -> list[Accepted] | Reject:
        """The revisions of the event that were accepted before this one, which is noted beside them.  Nothing is read
        for an event's only revision in a partition where no event has several."""
        amended = at.stores["amended"]
        if mark.amends is None:
            mark.amends = next(amended.scan(b"", b"\xff" * 17), None) is not None
        single = event.revision == 0 == event.repair
        if single and not mark.amends:
            return []
        id = a.key if single else raw_key(event.org, event.source, event.id)
        accepted = revisions.load_accepted(amended.get(id))
        if not accepted and single:
            return []
        if not any((one.revision, one.repair) == (0, 0) for one in accepted):
            row = None if single else at.stores["seen"].get(id)
            if row is not None:
                known = dedupe.unpack(row)
                first = known.offset if known.partition == at.number else known.at
                accepted.insert(0, Accepted(first, known.taken, 0, 0, known.pane, known.leaf))
        here = a.record.offset
        first = a.offset if a.partition == at.number else here
        this = Accepted(first, here, event.revision, event.repair, pane, leaf)
        earlier = revisions.before(accepted, this)
        if not isinstance(earlier, Reject) and (noted := revisions.noted(accepted, this)) is not None:
            amended.put(id, revisions.dump_accepted(here, noted))
            mark.amends = True
        return earlier

    # -- what a record leads to

    def _signal(
        self, at: Partition, mark: IngestMark, a: _Arrival, event: Event, who: Identified, course: Course,
        earlier: Sequence[Accepted], out: Fold,
    ) -> None:  # fmt: skip
        judged = signals.NOTHING if event.void else course.judge(event)
        if judged.declined:
            out.count("rule_declined", judged.declined)
        for rule, reject in judged.failed:
            self._dead(at, a, "signals", reject, out, rule)
        if not judged.signals:
            if event.void:
                out.count("void")
            elif not judged.failed:
                out.count("no_rule")
            if not (event.revision or event.repair):
                return  # a higher revision without signals still ends what counted before it; the lowest ends nothing
        target = self._target(who.leaf)
        offset = a.record.offset
        id = raw_key(event.org, event.source, event.id) if event.revision or event.repair else a.key
        value = signal_message.write(
            (
                course.catalog.bundle_id, id, who.leaf, event.t_ms, a.k_ms, offset, mark.prev[target], a.offset,
                0, at.number, a.partition, event.revision, event.repair,
            ),
            (event.org, event.source, event.id, event.type),
            who.members,
            [(rule, version, orjson.dumps(fields)) for rule, version, fields in judged.signals],
            event.void,
            [(one.revision, one.repair, one.pane) for one in earlier],
        )  # fmt: skip
        if len(value) > SIGNALS_BYTES_MAX:
            detail = f"its signals have {len(value)} bytes together; at most {SIGNALS_BYTES_MAX} are expected"
            self._dead(at, a, "signals", Reject("too_large", detail), out, "*")
            return
        if judged.signals:
            out.count("signal", len(judged.signals))
        mark.prev[target] = offset
        out.before.append(Output("signals", target, who.leaf + a.key, value))

    def _pass_tick(self, at: Partition, mark: IngestMark, a: _Arrival, out: Fold) -> None:
        """A tick goes to every signals partition, with its own known time: the mark's is already at the slice's end.

        It has no part in `prev`: compaction removes ticks.
        """
        for target in range(self.partitions):
            prev = mark.prev[target]
            out.before.append(outputs.tick(target, at.number, a.record.offset, prev, a.k_ms, mark.progress))

    def _forward(self, a: _Arrival, out: Fold) -> None:
        """A record that does not lie in its place goes there with its first stamp; nothing is tombstoned."""
        assert a.envelope is not None and a.bundle is not None
        stamp = Stamp(kind=stamps.FORWARDED, k_ms=a.k_ms, partition=a.partition, offset=a.offset, bundle=a.bundle)
        value = a.plain or a.record.value
        header = stamps.header(self.org_keys[a.envelope.org], a.key, value, stamp)
        out.before.append(Output(topic="raw-events", partition=a.place, key=a.key, value=value, headers=(header,)))

    def _dead(self, at: Partition, a: _Arrival, stage: str, reject: Reject, out: Fold, rule: str = "") -> None:
        names = decode.named(a.envelope, None if a.reject is None else a.record.value)
        letter = outputs.dead_letter(
            at.number, a.record.offset, stage, rule, reject, names, a.k_ms, a.bundle, self.partitions
        )
        out.before.append(letter)
        out.count(f"dead:{reject.reason}" if not rule else f"dead_pair:{reject.reason}")
        if a.envelope is not None and not rule:
            quality.refused(at, self.decisions.catalogs, a.envelope, reject.reason, a)

    def pass_over(self, at: Partition, record: Record, verdict: quarantine.Verdict) -> Fold:
        """Only what any bytes allow: k moves, the log is owed what it covered, and nothing of it is decoded."""
        mark, out = at.mark, Fold()
        assert isinstance(mark, IngestMark)
        out.count("read")
        mark.k_ms = max(mark.k_ms, record.timestamp)
        a = _Arrival(record, mark.k_ms, at.number, record.offset, None, None)
        self._dead(at, a, quarantine.STAGE, Reject(verdict.reason, verdict.detail), out)
        if record.key and (row := at.stores["seen"].get(record.key)) is not None:
            if dedupe.copies(dedupe.unpack(row), record.headers, dedupe.raw_hash(record.value or b"")):
                at.stores["owed"].delete(record.key)  # another copy would be passed over too, and so on for ever
            else:
                self._owe(at, record, {record.key: row}, out, None)
        at.next_offset = record.offset + 1
        return out

    # -- what is owed to the log

    def announce(self, at: Partition, records: Sequence[Record]) -> None:
        """The engine's copies in a log that is folded anew say where a first record lay: the cleaner may have left a
        repeat before the copy, which would be taken as first."""
        for record in records:
            stamp = stamps.find(record.headers) if record.headers else None
            if stamp is None or stamp[:1] != stamps.AGAIN or record.key is None:
                continue
            genuine = self._stamp_of(record, stamp)
            if genuine is None:
                continue
            if (row := at.stores["seen"].get(record.key)) is None:
                leaf, pane = self._announced(at, record, genuine)
                # upto, k, first position, taken, at, body, raw, bundle, leaf, pane
                row = Seen(
                    0, genuine.k_ms, genuine.partition, genuine.offset, dedupe.ANNOUNCED, record.offset, bytes(8),
                    bytes(8), genuine.bundle, leaf, pane,
                ).pack()  # fmt: skip
            at.stores["seen"].put(record.key, row)

    def _announced(self, at: Partition, record: Record, stamp: Stamp) -> tuple[bytes, int]:
        """Leaf and pane of an announced first record; a revision is noted, so that no later one is taken for it."""
        found = decode.envelope(record.value or b"")
        if isinstance(found, Reject) or isinstance(course := self._courses.of(stamp.bundle, found), Reject):
            return bytes(8), 0
        event = decode.event(found, stamp.k_ms, course.source, course.contract)
        if isinstance(event, Reject) or isinstance(who := self._courses.who(event, stamp.k_ms, course), Reject):
            return bytes(8), 0
        leaf, pane = who.leaf[:8], pane_of(event.t_ms)
        if event.revision or event.repair:
            first = stamp.offset if stamp.partition == at.number else record.offset
            this = Accepted(first, dedupe.ANNOUNCED, event.revision, event.repair, pane, leaf)
            revisions.announce(at.stores["amended"], raw_key(event.org, event.source, event.id), this)
        return leaf, pane

    def _owe(self, at: Partition, record: Record, seen: Mapping[bytes, bytes], out: Fold, value: bytes | None) -> None:
        """The log now ends with `record` under its key; if a first record of that key is known, it is owed again."""
        row = seen.get(record.key) if record.key else None
        if row is None or (known := dedupe.unpack(row)).taken in (record.offset, dedupe.ANNOUNCED):
            return  # what is announced lies behind this record: the log ends with it already
        self._note_owed(at, record, known, out, value)

    def _note_owed(self, at: Partition, record: Record, known: Seen, out: Fold, value: bytes | None) -> None:
        assert record.key is not None
        packed = known.stamp().pack()
        same = value is not None and dedupe.raw_hash(value) == known.raw
        row = record.offset.to_bytes(8, "big") + known.at.to_bytes(8, "big") + packed
        at.stores["owed"].put(record.key, row)
        out.after.append(Owed(key=record.key, at=known.at, stamp=packed, value=value if same else None))

    def _copy(self, at: Partition, a: _Arrival, known: Seen, seen: dict[bytes, bytes], out: Fold) -> None:
        """The engine's own copy of a first record: what was owed is paid, and the copy is where the bytes now lie."""
        out.count("copy")
        offset = a.record.offset
        if offset >= known.at:  # the same, too
            row = seen[a.key] = known._replace(upto=offset, at=offset).pack()
            at.stores["seen"].put(a.key, row)
        if at.stores["owed"].get(a.key) is not None:
            at.stores["owed"].delete(a.key)

    def owed(self, at: Partition) -> Iterator[Owed]:
        for key, row in at.stores["owed"].scan(b"", b"\xff" * 17):
            yield Owed(key=key, at=int.from_bytes(row[8:16], "big"), stamp=row[16:], value=None)

    def again(self, at: Partition, owed: Owed, value: bytes) -> Output:
        if value[:1] == FRAME:  # it was taken, so every table since holds its id
            value = self.decisions.table.plain(value)
        found = decode.envelope(value)
        assert isinstance(found, Envelope), "what is owed was an accepted event"
        header = (stamps.HEADER, stamps.seal(self.org_keys[found.org], owed.key, value, owed.stamp))
        return Output(topic="raw-events", partition=at.number, key=owed.key, value=value, headers=(header,))

    def derive(self, at: Partition, changed: Iterable[tuple[str, bytes]] | None) -> Iterator[tuple[str, bytes, bytes]]:
        return iter(())

    def from_source(self, records: Sequence[Record]) -> Iterator[tuple[str, bytes, bytes]]:
        return iter(())

    # -- helpers

    def _stamp_of(self, record: Record, data: bytes) -> Stamp | None:
        if data[:1] in _OURS:
            return stamps.verified(self.org_keys[""], record.key, record.value, data)
        found = decode.envelope(record.value or b"")
        if isinstance(found, Reject):
            return None
        return stamps.verified(self.org_keys[found.org], record.key, record.value, data)

    def _target(self, leaf: bytes) -> int:
        target = self._targets.get(leaf)
        if target is None:
            if len(self._targets) >= key_rows.REMEMBERED_MAX:
                self._targets.clear()
            target = self._targets[leaf] = leaf_partition(leaf, self.partitions)
        return target
