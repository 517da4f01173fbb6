"""Trial: events judged and counted in tables of nobody, beside those of the line.

    records -> ingest (the leg itself, one partition, the definitions in force) -> fates, signals
            -> measure (the leg itself) -> cells that no topic knows of
    question -> the line's partitions, and one more: the trial's -> the value that would be

So what a preview says is what the engine would do, not what a second program believes of it; nothing is written.  The
one thing that is left out: a dimension that has too many values that day keeps their names in the trial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from milepost.schemas import signal_message
from milepost.schemas.records import Reject
from milepost.schemas.serde import wire
from milepost.topology.asked import Asked, Question
from milepost.topology.bases import Span
from milepost.topology.catalog import Catalog, Measure
from milepost.topology.decisions import Applied, Decisions
from milepost.topology.driver import Message, land, new_partition
from milepost.topology.ingest import Ingest
from milepost.topology.ingest_mark import IngestMark
from milepost.topology.measure import MeasureLeg
from milepost.topology.panes import pane_of
from milepost.topology.parts import Sums
from milepost.topology.problems import metrics_of
from milepost.topology.questions import Questions
from milepost.topology.reading import Progress, Reader
from milepost.topology.state import Output, Store
from milepost.topology.steps import Part, Steps

EFFECTS_MAX: Final = 50
"""Metrics of which a preview tells the effect."""

Signal = tuple[str, bytes, bytes]
"""(rule, version, fields as JSON)."""


@dataclass(slots=True, kw_only=True)
class Tried:
    """What the line would make of a record.

    failed: stage and reason that make it a dead letter as a whole
    rules:  rules and writes that have no value for it: (stage, reason)
    message: its signals, as they would lie on `signals`
    """

    failed: tuple[str, Reject] | None = None
    rules: dict[str, tuple[str, Reject]]
    message: bytes | None = None

    @property
    def leaf(self) -> bytes:
        found: bytes = b"" if self.message is None else wire("Signals").decode(self.message)["leaf"]
        return found

    @property
    def signals(self) -> tuple[list[Signal], int]:
        """Its signals, and the pane that they lie in."""
        if self.message is None:
            return [], -1
        told = wire("Signals").decode(self.message)
        return [(one["rule"], one["version"], one["fields"]) for one in told["signals"]], pane_of(told["t_ms"])


class Trial:
    """See the module.

    catalog: definitions of `org` to be tried in the place of those in force;  None: those
    gained:  rules of which signals were counted;  lost: rules whose signals a repair takes away, which no trial counts
    """

    def __init__(self, reader: Reader, org: str = "", catalog: Catalog | None = None) -> None:
        self.reader = reader
        self.decisions = reader.decisions if catalog is None else _with(reader.decisions, org, catalog)
        self.gained: set[str] = set()
        self.lost: set[str] = set()
        self._ingest = Ingest(1, self.decisions, reader.org_key)
        self._measure = MeasureLeg(1, self.decisions)
        self._raw = new_partition("ingest", self._ingest, 0)
        self._cells = new_partition("measure", self._measure, reader.partitions)

    @property
    def stores(self) -> Mapping[str, Store]:
        return self._cells.stores

    @property
    def beside(self) -> Reader:
        """The line's tables, and behind its last partition the trial's."""
        return _Beside(self.reader, self)

    def has(self, part: Part) -> bool:
        """Whether a part is of the trial's partition, which no worker knows of."""
        return part.partition == self.reader.partitions

    def judge(self, records: Sequence[Output], now_ms: int) -> list[Tried]:
        """What would become of records that arrive now, in their order, under the definitions in force."""
        mark, begin = self._raw.mark, self._raw.next_offset
        assert isinstance(mark, IngestMark)
        mark.bundles.update({org: applied[-1].catalog.bundle_id for org, applied in self.decisions.history.items()})
        messages = [Message(begin + n, now_ms, one.key, one.value) for n, one in enumerate(records)]
        tried = [Tried(rules={}) for _ in records]
        for output in self._ingest.fold(self._raw, messages).before:
            assert output.value is not None
            if output.topic == "signals":
                told = wire("Signals").decode(output.value)
                tried[told["raw_offset"] - begin].message = output.value
            elif output.topic == "dead-letters":
                letter = wire("DeadLetter").decode(output.value)
                one, why = (
                    tried[letter["offset"] - begin],
                    (letter["stage"], Reject(letter["reason"], letter["detail"])),
                )
                if letter["rule"]:
                    one.rules[letter["rule"]] = why
                else:
                    one.failed = why
        for store in self._raw.stores.values():
            land(store)
        return tried

    def count(self, tried: Sequence[tuple[Tried, Sequence[Signal] | None]]) -> None:
        """Count signals in the trial's cells.  None: all of a record; else these of them."""
        messages: list[Message] = []
        for one, only in tried:
            if one.message is None:
                continue
            value = one.message
            if only is None:
                said = signal_message.read(value)
                self.gained.update(() if said is None else [rule for rule, _, _ in said.signals])
            else:
                self.gained.update(rule for rule, _, _ in only)
                fields = wire("Signals").decode(value)
                fields["signals"] = [{"rule": rule, "version": of, "fields": text} for rule, of, text in only]
                value = wire("Signals").encode(fields)
            messages.append(Message(self._cells.next_offset + len(messages), 0, b"", value))
        out = self._measure.fold(self._cells, messages)
        assert not out.fates.get("gap"), "what is tried is counted in its order, each record once"
        for store in self._cells.stores.values():
            land(store)

    def effects(self, org: str, rules: Sequence[str], now_ms: int) -> Steps[list[dict[str, Any]]]:
        """What the organisation's metrics that these rules count in are now, and would be: `{metric, unit, before,
        after, reason}`.  An `after` that no trial can know is null: `replaces`.  A metric that other definitions make
        begin anew has only what is tried."""
        catalog, known = self.decisions.history[org][-1].catalog, self.reader.decisions.history.get(org)
        unknown = set(metrics_of(catalog, self.lost))
        before, after = Questions(self.reader), _Tried(self)
        rows = []
        for name in list(metrics_of(catalog, rules))[:EFFECTS_MAX]:
            question = Question(metric=name, now_ms=now_ms, org=org)
            row: dict[str, Any] = {"metric": name, "unit": catalog.metrics[name].unit, "before": None, "after": None}
            if known and name in known[-1].catalog.metrics:
                one = yield from before.value(question)
                row |= {"before": one["value"], "reason": one["reason"]}
            if name in unknown:
                row["reason"] = "replaces"
            else:
                other = yield from after.value(question)
                row |= {"after": other["value"], "reason": other["reason"]}
            rows.append(row)
        return rows


def _with(decisions: Decisions, org: str, catalog: Catalog) -> Decisions:
    """Decisions as they would be with a bundle applied behind all others."""
    history = decisions.history.get(org, [])
    k_ms = history[-1].k_ms if history else 0
    applied = Applied(org=org, catalog=catalog, k_ms=k_ms, at=decisions.applied)
    return replace(
        decisions,
        catalogs={**decisions.catalogs, catalog.bundle_id: catalog},
        history={**decisions.history, org: [*history, applied]},
    )


class _Tried(Questions):
    """Questions to which the trial's cells belong, as one more partition."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(trial.beside)
        self._beside = trial.reader.partitions

    def _sums(
        self,
        asked: Asked,
        measure: Measure,
        spans: Sequence[Span],
        by: str | None,
        panes: tuple[int, int] | None = None,
    ) -> Steps[list[Sums]]:
        real = yield from super()._sums(asked, measure, spans, by, panes)
        return [*real, replace(self._whole(asked, measure, spans, by, panes), partition=self._beside)]


@dataclass(frozen=True, slots=True)
class _Beside:
    """topology.reading.Reader (see `Trial.beside`)."""

    line: Reader
    trial: Trial

    @property
    def partitions(self) -> int:
        return self.line.partitions

    @property
    def decisions(self) -> Decisions:
        return self.trial.decisions

    @property
    def org_key(self) -> Mapping[str, bytes]:
        return self.line.org_key

    def stores(self, leg: str, partition: int) -> Mapping[str, Store]:
        return self.trial.stores if partition == self.line.partitions else self.line.stores(leg, partition)

    def epoch(self, leg: str, partition: int) -> int:
        return 0 if partition == self.line.partitions else self.line.epoch(leg, partition)

    def reached(self, leg: str, partition: int) -> tuple[int, Mapping[int, int]]:
        return self.line.reached(leg, partition)

    def progress(self, partition: int) -> Mapping[int, Progress]:
        return self.line.progress(partition)
