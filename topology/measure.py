"""Measure: a signals partition's messages to facts and cells.

    message -> origin in turn? -> fact -> hits -> cells and day rows

A message is taken only if prev <= highest origin taken < origin (design §7.2): a re-emission is dropped, a gap is not
taken and counted, because ingest will send it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from milepost.schemas.errors import ContractError
from milepost.schemas.serde import HEADER_BYTES, decode_any, wire
from milepost.topology import metrics, panes
from milepost.topology.aggregates import Hit, Shape
from milepost.topology.catalog import Catalog, Measure
from milepost.topology.decisions import Decisions
from milepost.topology.metrics import Hits
from milepost.topology.reading import Progress
from milepost.topology.state import Fold, Output, Owed, Partition, Record

MEMBERS_REMEMBERED_MAX: Final = 500_000
T_MS_MAX: Final = 2**32 * panes.PANE_MS
"""Panes are numbered in 32 bits."""
_BUNDLE_END: Final = HEADER_BYTES + 8


class _Mark(msgspec.Struct, kw_only=True):
    """Measure's mark as it is written: see `MeasureMark`."""

    origins: dict[int, int]
    progress: dict[int, tuple[int, list[tuple[str, str, int, int]]]]


_dump_mark = msgspec.msgpack.Encoder().encode
_load_mark = msgspec.msgpack.Decoder(_Mark).decode
_fields = msgspec.json.Decoder(dict[str, Any]).decode


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


class MeasureLeg:
    """The leg `measure`."""

    name = "measure"

    def __init__(self, partitions: int, decisions: Decisions) -> None:
        self.partitions = partitions
        self.decisions = decisions
        self._choices = metrics.Choices()

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
        for i, record in enumerate(records):
            value = record.value
            if value is None or value[:HEADER_BYTES] != header:
                continue
            # The bundle is the first field of the contract: eight bytes behind the header.
            if value[HEADER_BYTES:_BUNDLE_END] not in known and _message(value) is not None:
                return i
        return len(records)

    def fold(self, at: Partition, records: Sequence[Record]) -> Fold:
        mark = at.mark
        assert isinstance(mark, MeasureMark)
        out = Fold()
        taken: list[tuple[int, dict[str, Any]]] = []
        for record in records:
            found = _message(record.value)
            if found is None:
                self._dead(at, record, out)
                continue
            name, message = found
            raw, origin = message["raw_partition"], message["raw_offset"]
            highest = mark.origins.get(raw, -1)
            if origin <= highest:
                out.count("reemitted")
                continue
            if message["prev"] > highest:
                out.count("gap")
                continue
            mark.origins[raw] = origin
            if name == "Tick":
                sources = {(s["org"], s["source"]): (s["t_ms"], s["k_ms"]) for s in message["sources"]}
                mark.progress[raw] = Progress(k_ms=message["k_ms"], sources=sources)
                out.count("tick")
                continue
            out.count("taken")
            assert record.value is not None
            at.stores["facts"].put(_fact_key(message), record.offset.to_bytes(8, "big") + record.value)
            taken.append((record.offset, message))
        self._measure(at, mark, taken, out)
        if records:
            at.next_offset = records[-1].offset + 1
        return out

    def _measure(
        self, at: Partition, mark: MeasureMark, taken: Sequence[tuple[int, dict[str, Any]]], out: Fold
    ) -> None:
        """All messages of a slice into cells and day rows."""
        pending: list[tuple[Measure, bytes, int, int, bytes, Hit]] = []  # measure, prefix, pane, day, day key, hit
        naming = mark.naming
        for offset, message in taken:
            catalog = self.decisions.catalogs[message["bundle"]]
            leaf, pane = message["leaf"], panes.pane_of(message["t_ms"])
            end, day = panes.bucket_end(pane, message["k_ms"]), panes.day_of(pane)
            day_tail = day.to_bytes(4, "big")
            for measure, fields in _measures(catalog, message):
                value = metrics.amount(measure, fields)
                if measure.field is not None and value is None:
                    continue
                numbers: Sequence[int | None] = (None,)
                if measure.entity is not None:
                    numbers = [
                        self._number(at, mark, member["leaf"], offset)
                        for member in message["members"]
                        if member["entity"] == measure.entity
                    ]
                rows = self._choices(measure, fields)
                head = measure.version + leaf
                for number in numbers:
                    hit = Hit(offset, end, value, number, message["t_ms"], message["event"])
                    for mask, values, tail in rows:
                        before = head + tail
                        day_key = before + day_tail
                        if mask and day_key not in naming.known:
                            naming.ask(measure, leaf, mask, values, day, day_key, offset)
                        pending.append((measure, before, pane, day, day_key, hit))
        refused = naming.admit(at.stores)
        cells: Hits = {}
        days: Hits = {}
        for measure, before, pane, day, day_key, hit in pending:
            if day_key in refused:
                out.count("folded_into_other")
                before = refused[day_key]
                day_key = metrics.row_key(before, day)
            cell_key = before + pane.to_bytes(4, "big")
            if cell_key in cells:
                cells[cell_key][1].append(hit)
            else:
                cells[cell_key] = (measure.shape, [hit])
            if day_key in days:
                days[day_key][1].append(hit)
            else:
                days[day_key] = (measure.shape, [hit])
        metrics.add(at.stores["cells"], cells, out)
        metrics.add(at.stores["days"], days, out)

    def _number(self, at: Partition, mark: MeasureMark, leaf: bytes, offset: int) -> int:
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
            number, upto = mark.next_number, offset.to_bytes(8, "big")
            mark.next_number += 1
            members.put(b"L" + leaf, upto + number.to_bytes(4, "big"))
            members.put(b"N" + number.to_bytes(4, "big"), upto + leaf)
        if len(mark.numbers) >= MEMBERS_REMEMBERED_MAX:
            mark.numbers.clear()
        mark.numbers[leaf] = number
        return number

    def _dead(self, at: Partition, record: Record, out: Fold) -> None:
        """Bytes on `signals` that are not ours: counted, kept where they lie, never taken."""
        detail = "expected a Signals or Tick message in single-object encoding"
        fields = {
            "topic": "signals", "partition": at.number, "offset": record.offset, "stage": "metrics", "rule": "",
            "reason": "not_decodable", "detail": detail, "org": "", "source": "", "type": "",
            "problem": hashlib.blake2b(detail.encode(), digest_size=8).digest(), "k_ms": 0, "bundle": bytes(8),
        }  # fmt: skip
        key = b"signals" + at.number.to_bytes(4, "big") + record.offset.to_bytes(8, "big")
        out.before.append(Output(topic="dead-letters", partition=0, key=key, value=wire("DeadLetter").encode(fields)))
        out.count("dead:not_decodable")

    # -- restore

    def derive(self, at: Partition, changed: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes, bytes]]:
        shapes: dict[bytes, Shape] = {
            measure.version: measure.shape
            for catalog in self.decisions.catalogs.values()
            for measure in catalog.measures
        }
        keys = (key for store, key in changed if store == "cells")
        for key, value in metrics.day_rows(at.stores["cells"], shapes, keys):
            yield "days", key, value

    def from_source(self, records: Sequence[Record]) -> Iterator[tuple[str, bytes, bytes]]:
        for record in records:
            found = _message(record.value)
            if found is not None and found[0] == "Signals":
                assert record.value is not None
                yield "facts", _fact_key(found[1]), record.offset.to_bytes(8, "big") + record.value

    def announce(self, at: Partition, records: Sequence[Record]) -> None:
        """Nothing: of several messages of one event each is the same."""

    def owed(self, at: Partition) -> Iterator[Owed]:
        return iter(())

    def again(self, at: Partition, owed: Owed, value: bytes) -> Output:
        raise AssertionError("measure owes nothing to the raw log")


def _message(value: bytes | None) -> tuple[str, dict[str, Any]] | None:
    """(Signals or Tick, its fields), or None for anything else."""
    if value is None:
        return None
    try:
        found = decode_any(value)
    except ContractError:
        return None
    return found if found[0] == "Tick" or (found[0] == "Signals" and _holds(found[1])) else None


def _holds(message: dict[str, Any]) -> bool:
    """Whether a message says what ingest could have said; parses the fields of its signals in place."""
    if not 0 <= message["t_ms"] < T_MS_MAX:
        return False
    for signal in message["signals"]:
        try:
            signal["fields"] = _fields(signal["fields"])
        except (msgspec.DecodeError, RecursionError):
            return False
    return True


def _measures(catalog: Catalog, message: Mapping[str, Any]) -> Iterator[tuple[Measure, dict[str, Any]]]:
    for signal in message["signals"]:
        measures = catalog.measures_by_rule.get(signal["rule"], ())
        for measure in measures:
            yield measure, signal["fields"]


def _fact_key(message: Mapping[str, Any]) -> bytes:
    pane: int = panes.pane_of(message["t_ms"])
    leaf: bytes = message["leaf"]
    event: bytes = message["event"]
    return leaf + pane.to_bytes(4, "big") + event
