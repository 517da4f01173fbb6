"""Measure: a signals partition's messages to facts and cells.

    message -> origin in turn? -> fact -> hits -> cells and day rows

A message is taken only if prev <= highest origin taken < origin (design §7.2): a re-emission is dropped, a gap is not
taken and counted, because ingest will send it again.

A message that says that the event has earlier revisions changes what those count, too (`revisions.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from milepost.schemas.errors import ContractError
from milepost.schemas.serde import HEADER_BYTES, wire
from milepost.schemas.signal_message import BUNDLE_END, SignalMessage, read
from milepost.topology import metrics, outputs, panes, quarantine, revisions
from milepost.topology.aggregates import Added, Hit, Patch, Shape, patch_of, revised_of
from milepost.topology.catalog import Measure
from milepost.topology.decisions import Decisions
from milepost.topology.quarantine import Verdict
from milepost.topology.reading import Progress
from milepost.topology.revisions import Known
from milepost.topology.state import Fold, Output, Owed, Partition, Record, Store
from milepost.topology.turns import in_turn

MEMBERS_REMEMBERED_MAX: Final = 500_000
T_MS_MAX: Final = 2**32 * panes.PANE_MS
"""Panes are numbered in 32 bits."""
_ONCE: Final[Sequence[int | None]] = (None,)
Grouped = list[tuple[metrics.Choices, tuple[tuple[Measure, Patch], ...]]]
_NO_KEYS: Final[Mapping[str, bytes]] = {}


class _Mark(msgspec.Struct, kw_only=True):
    """Measure's mark as it is written: see `MeasureMark`."""

    origins: dict[int, int]
    progress: dict[int, tuple[int, list[tuple[str, str, int, int]]]]


_dump_mark = msgspec.msgpack.Encoder().encode
_load_mark = msgspec.msgpack.Decoder(_Mark).decode


@dataclass(slots=True)
class MeasureMark:
    """What measure carries from message to message in one partition.

    origins:  raw partition -> highest raw offset taken
    progress: raw partition -> what its last tick said
    numbers:  leaf -> number (a memory of `members`, bounded);  next_number: -1 until counted
    naming:   which dimension values have names (a memory, not part of the mark)
    """

    origins: dict[int, int] = field(default_factory=dict)
    progress: dict[int, Progress] = field(default_factory=dict)
    numbers: dict[bytes, int] = field(default_factory=dict)
    next_number: int = -1
    naming: metrics.Naming = field(default_factory=metrics.Naming)

    @property
    def reached(self) -> Mapping[int, int]:
        """Raw partition -> the raw offset last taken."""
        return self.origins


class MeasureLeg(quarantine.Judged):
    """The leg `measure`."""

    name = "measure"
    reads = "signals"
    waits_unproved = True

    def __init__(self, partitions: int, decisions: Decisions, org_keys: Mapping[str, bytes] = _NO_KEYS) -> None:
        self.partitions = partitions
        self.decisions = decisions
        self.org_keys = org_keys  # without the key of the empty organisation no verdict is believed
        self._choices = metrics.EachChoices()
        self._grouped: dict[tuple[bytes, str], Grouped] = {}  # of each bundle and rule that came by

    # -- the mark

    def new_mark(self) -> MeasureMark:
        return MeasureMark()

    def load_mark(self, data: bytes) -> MeasureMark:
        mark = _load_mark(data)
        progress = {
            raw: Progress(k_ms=k, sources={(org, source): (t, known) for org, source, t, known in sources})
            for raw, (k, sources) in mark.progress.items()
        }
        return MeasureMark(origins=mark.origins, progress=progress)

    def dump_mark(self, mark: object) -> bytes:
        assert isinstance(mark, MeasureMark)
        progress = {
            raw: (told.k_ms, [(org, source, t, k) for (org, source), (t, k) in sorted(told.sources.items())])
            for raw, told in sorted(mark.progress.items())
        }
        return _dump_mark(_Mark(origins=dict(sorted(mark.origins.items())), progress=progress))

    # -- the chain

    def ready(self, records: Sequence[Record]) -> int:
        header = wire("Signals").header
        known = self.decisions.catalogs
        ours = {header + bundle for bundle in known}
        for i, record in enumerate(records):
            value = record.value
            # The bundle is the first field of the contract: eight bytes behind the header.
            if value is None or value[:BUNDLE_END] in ours or value[:HEADER_BYTES] != header:
                continue
            if _message(value) is not None:
                return i
        return len(records)

    def fold(self, at: Partition, records: Sequence[Record]) -> Fold:
        mark = at.mark
        assert isinstance(mark, MeasureMark)
        out, origins = Fold(), mark.origins
        facts: dict[bytes, bytes] = {}
        taken: list[tuple[bytes, SignalMessage]] = []
        for record in records:
            value = record.value
            message = _message(value)
            if message is None:
                self._other(at, mark, record, out)
                continue
            if not in_turn(origins, message.raw_partition, message.raw_offset, message.prev, out):
                continue
            assert value is not None
            if _moved(message) and _told_before(at, origins, message, facts):
                out.count("reemitted")
                continue
            upto = record.offset.to_bytes(8, "big")
            facts[_fact_key(message)] = upto + value
            taken.append((upto, message))
        if taken:
            out.count("taken", len(taken))
            at.stores["facts"].put_many(facts)
            self._measure(at, mark, taken, out)
        if records:
            at.next_offset = records[-1].offset + 1
        return out

    def _other(self, at: Partition, mark: MeasureMark, record: Record, out: Fold) -> None:
        """A tick, or bytes that are not ours."""
        tick = _tick(record.value)
        if tick is None:
            self._dead(at, record, out)
            return
        raw = tick["raw_partition"]
        if in_turn(mark.origins, raw, tick["raw_offset"], tick["prev"], out):
            sources = {(s["org"], s["source"]): (s["t_ms"], s["k_ms"]) for s in tick["sources"]}
            mark.progress[raw] = Progress(k_ms=tick["k_ms"], sources=sources)
            out.count("tick")

    def _measure(
        self, at: Partition, mark: MeasureMark, taken: Sequence[tuple[bytes, SignalMessage]], out: Fold
    ) -> None:
        """All messages of a slice into cells and day rows: the hits are collected, rows are read once, then patched."""
        cells: list[tuple[bytes, Added]] = []
        days: list[tuple[bytes, Added]] = []
        naming, grouped = mark.naming, self._grouped
        known = naming.known
        for upto, message in taken:
            if message.earlier and self._revise(at, mark, upto, message, cells, days, out):
                continue
            leaf, t_ms = message.leaf, message.t_ms
            pane = t_ms // panes.PANE_MS
            end, day = panes.bucket_end(pane, message.k_ms), pane // panes.PANES_A_DAY
            pane_tail, day_tail = pane.to_bytes(4, "big"), day.to_bytes(4, "big")
            for rule, _, fields in message.signals:
                for choices, measures in grouped.get((message.bundle, rule)) or self._measures(message.bundle, rule):
                    rows = choices(fields)
                    for measure, patch in measures:
                        value = None if measure.field is None else metrics.amount(measure, fields)
                        if measure.field is not None and value is None:
                            continue
                        numbers = _ONCE
                        if measure.entity is not None:
                            numbers = self._numbers(at, mark, measure, message, upto)
                        head = measure.version + leaf
                        for number in numbers:
                            hit = Hit(upto, end, value, number, t_ms, message.event)
                            added = Added(upto, patch(None, hit), patch, hit)
                            for mask, values, tail in rows:
                                before = head + tail
                                day_key = before + day_tail
                                if mask and day_key not in known:
                                    naming.ask(measure, mask, values, day_key, upto)
                                cells.append((before + pane_tail, added))
                                days.append((day_key, added))
        if cells:
            self._add(at, naming, cells, days, out)

    def _revise(
        self,
        at: Partition,
        mark: MeasureMark,
        upto: bytes,
        message: SignalMessage,
        cells: list[tuple[bytes, Added]],
        days: list[tuple[bytes, Added]],
        out: Fold,
    ) -> bool:
        """A revision of an event that has others: what it changes of all of them.  False: none of them has a fact.

        Every revision gets its rows, also where nothing of it counts: so the rows do not depend on the order.
        """
        keys = [metrics.fact_key(message.leaf, pane, message.event, *rank) for *rank, pane in message.earlier]
        # The facts of a slice are put before it is measured: those behind this one are not in the cells yet.
        found = [row for row in at.stores["facts"].get_many(keys) if row is not None and row[:8] < upto]
        known = [told for row in found if (told := _message(row[8:])) is not None]
        if not known:
            return False
        before = [_known(one) for one in known]
        after = [*before, _known(message)]
        at.stores["revisions"].put(message.leaf + message.event, revisions.dump_known(upto, after))
        changed = revisions.difference(before, after)
        if (message.revision, message.repair) not in changed:
            out.count("superseded")
        naming = mark.naming
        for told in (*known, message):
            pane = told.t_ms // panes.PANE_MS
            effects = changed.get((told.revision, told.repair)) or [(told.k_ms, 0)]
            for measure, rows, value, number in self._effects(at, mark, told, upto):
                revised, head = revised_of(measure.shape), measure.version + told.leaf
                for k_ms, sign in effects:
                    end = panes.bucket_end(pane, k_ms)
                    hit = Hit(upto, end, value, number, told.t_ms, told.event, sign)
                    added = Added(upto, revised(None, hit), revised, hit)
                    for mask, values, tail in rows:
                        day_key = metrics.row_key(head + tail, panes.day_of(pane))
                        if mask and day_key not in naming.known:
                            naming.ask(measure, mask, values, day_key, upto)
                        cells.append((metrics.row_key(head + tail, pane), added))
                        days.append((day_key, added))
        return True

    def _effects(
        self, at: Partition, mark: MeasureMark, message: SignalMessage, upto: bytes
    ) -> Iterator[tuple[Measure, metrics.Rows, int | None, int | None]]:
        """(measure, rows by dimensions, value, member's number) of all that a message adds to."""
        for rule, _, fields in message.signals:
            for choices, measures in self._measures(message.bundle, rule):
                for measure, _ in measures:
                    value = None if measure.field is None else metrics.amount(measure, fields)
                    if measure.field is not None and value is None:
                        continue
                    numbers = _ONCE if measure.entity is None else self._numbers(at, mark, measure, message, upto)
                    for number in numbers:
                        yield measure, choices(fields), value, number

    def _measures(self, bundle: bytes, rule: str) -> Grouped:
        """The measures of a rule, those with the same dimensions together."""
        found = self._grouped.get((bundle, rule))
        if found is None:
            groups: dict[tuple[str, ...], list[tuple[Measure, Patch]]] = {}
            for measure in self.decisions.catalogs[bundle].measures_by_rule.get(rule, ()):
                groups.setdefault(measure.dimensions, []).append((measure, patch_of(measure.shape)))
            found = [(self._choices[names], tuple(some)) for names, some in groups.items()]
            self._grouped[bundle, rule] = found
        return found

    def _add(
        self,
        at: Partition,
        naming: metrics.Naming,
        cells: list[tuple[bytes, Added]],
        days: list[tuple[bytes, Added]],
        out: Fold,
    ) -> None:
        day_held = _held(at.stores["days"], {key for key, _ in days})
        refused = naming.admit(day_held, at.stores["named"])
        if refused:
            for i, (day_key, added) in enumerate(days):
                if day_key in refused:
                    out.count("folded_into_other")
                    other, pane_tail = refused[day_key], cells[i][0][-4:]
                    cells[i], days[i] = (other + pane_tail, added), (other + day_key[-4:], added)
            day_held = _held(at.stores["days"], {key for key, _ in days})
        # A day row is there as soon as one of its cells is: where it is not, no cell has to be looked for.
        wanted = {cell for (cell, _), (day, _) in zip(cells, days, strict=True) if day_held[day] is not None}
        metrics.add(at.stores["cells"], cells, _held(at.stores["cells"], wanted), out)
        metrics.add(at.stores["days"], days, day_held, out)

    def _numbers(
        self, at: Partition, mark: MeasureMark, measure: Measure, message: SignalMessage, upto: bytes
    ) -> Sequence[int]:
        return [self._number(at, mark, member, upto) for entity, member in message.members if entity == measure.entity]

    def _number(self, at: Partition, mark: MeasureMark, leaf: bytes, upto: bytes) -> int:
        """The partition's number of a leaf: numbers are given in log order and never leave the partition."""
        number = mark.numbers.get(leaf)
        if number is not None:
            return number
        members = at.stores["members"]
        row = members.get(b"L" + leaf)
        if row is not None:
            number = int.from_bytes(row[8:12], "big")
        else:
            if mark.next_number < 0:
                mark.next_number = sum(1 for _ in members.scan(b"N", b"O"))
            number = mark.next_number
            mark.next_number += 1
            members.put(b"L" + leaf, upto + number.to_bytes(4, "big"))
            members.put(b"N" + number.to_bytes(4, "big"), upto + leaf)
        if len(mark.numbers) >= MEMBERS_REMEMBERED_MAX:
            mark.numbers.clear()
        mark.numbers[leaf] = number
        return number

    def _dead(self, at: Partition, record: Record, out: Fold) -> None:
        """Bytes on `signals` that are not ours: counted, kept where they lie, never taken.  (Or a verdict, seldom.)"""
        if self.take_verdict(at, record):
            out.count("verdict")
            return
        detail = "expected a Signals or Tick message in single-object encoding"
        outputs.letter(self.reads, at.number, record.offset, "metrics", "not_decodable", detail, out)

    # -- what is passed over

    def pass_over(self, at: Partition, record: Record, verdict: Verdict) -> Fold:
        """A dead letter; and what comes behind it from its raw partition is in turn, if it was."""
        mark = at.mark
        assert isinstance(mark, MeasureMark)
        out = Fold()
        at.next_offset = record.offset + 1
        found = quarantine.origin(record) if verdict.reason == "poison" else None
        if found is None or in_turn(mark.origins, *found, out):
            outputs.letter(self.reads, at.number, record.offset, quarantine.STAGE, verdict.reason, verdict.detail, out)
        return out

    def rewind(self, mark: object, records: Sequence[Record]) -> None:
        assert isinstance(mark, MeasureMark)
        for raw, _, prev in filter(None, map(quarantine.origin, records)):
            mark.origins[raw] = min(prev, mark.origins.get(raw, prev))

    def repeats(self, at: Partition, record: Record) -> bool:
        assert isinstance(at.mark, MeasureMark)
        if quarantine.origin(record) is None or (message := _message(record.value)) is None:
            return False
        if message.raw_offset > at.mark.origins.get(message.raw_partition, -1):
            return False
        row = at.stores["facts"].get(_fact_key(message))
        return row is not None and row[8:] == record.value

    # -- restore

    def derive(self, at: Partition, changed: Iterable[tuple[str, bytes]] | None) -> Iterator[tuple[str, bytes, bytes]]:
        shapes: dict[bytes, Shape] = {
            measure.version: measure.shape
            for catalog in self.decisions.catalogs.values()
            for measure in catalog.measures
        }
        cells = at.stores["cells"]
        if changed is None:
            found = metrics.all_day_rows(cells.scan(b"", b"\xff" * 64), shapes)
        else:
            found = metrics.day_rows(cells, shapes, (key for store, key in changed if store == "cells"))
        for key, value in found:
            yield "days", key, value

    def from_source(self, records: Sequence[Record]) -> Iterator[tuple[str, bytes, bytes]]:
        for record in records:
            message = _message(record.value)
            if message is not None:
                assert record.value is not None
                yield "facts", _fact_key(message), record.offset.to_bytes(8, "big") + record.value

    def announce(self, at: Partition, records: Sequence[Record]) -> None:
        """Nothing: of several messages of one event each is the same."""

    def owed(self, at: Partition) -> Iterator[Owed]:
        return iter(())

    def again(self, at: Partition, owed: Owed, value: bytes) -> Output:
        raise AssertionError("measure owes nothing to the raw log")


def _message(value: bytes | None) -> SignalMessage | None:
    """A message that says what ingest could have said, or None."""
    found = None if value is None else read(value)
    if found is None or not (0 <= found.t_ms < T_MS_MAX and found.revision >= 0 <= found.repair):
        return None
    if found.earlier and any(
        not (0 <= pane < 2**32 and revision >= 0 <= repair) for revision, repair, pane in found.earlier
    ):
        return None
    return found


def _tick(value: bytes | None) -> dict[str, Any] | None:
    if value is None or value[:HEADER_BYTES] != wire("Tick").header:
        return None
    try:
        return wire("Tick").decode(value)
    except ContractError:
        return None


def _fact_key(message: SignalMessage) -> bytes:
    pane = message.t_ms // panes.PANE_MS
    return metrics.fact_key(message.leaf, pane, message.event, message.revision, message.repair)


def _known(message: SignalMessage) -> Known:
    return Known(message.revision, message.repair, message.t_ms // panes.PANE_MS, message.k_ms)


def _held(store: Store, keys: Collection[bytes]) -> dict[bytes, bytes | None]:
    wanted = list(keys)
    return dict(zip(wanted, store.get_many(wanted), strict=True))


def _moved(message: SignalMessage) -> bool:
    """Whether ingest took the event elsewhere than it first lay: forwarded, or the copy in a log that was cleaned."""
    return message.first_offset != message.raw_offset or message.first_partition != message.raw_partition


def _told_before(
    at: Partition, origins: Mapping[int, int], message: SignalMessage, facts: Mapping[bytes, bytes]
) -> bool:
    """Whether the event was taken from another place before.

    An ingest that was rebuilt from a cleaned log tells of its copy what it had told of the first record, and the origin
    is a new one.  A fact under the same origin says nothing, nor does one whose origin was not reached: a message that
    came out of turn leaves one at a restore.
    """
    key = _fact_key(message)
    row = facts.get(key) or at.stores["facts"].get(key)
    told = None if row is None else _message(row[8:])
    if told is None or (told.raw_partition, told.raw_offset) == (message.raw_partition, message.raw_offset):
        return False
    return told.raw_offset <= origins.get(told.raw_partition, -1)
