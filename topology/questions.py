"""Questions: a metric at any time, over the tables as they are.

    question -> moment (bases) -> definitions and identity as of then -> measures -> scans -> numbers -> an answer

Every answer names the time, basis and version that it used and how complete it is; an absent value is null with a
reason, never 0 by default (semantics S9).  All public calls are steps: `run(questions.value(question))`;
what lies in the tables is gathered in parts, each from the worker that owns its partition.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from typing import Any, Final

from milepost.schemas import keys
from milepost.topology import bases, sketches
from milepost.topology.aggregates import unscaled
from milepost.topology.asked import Asked, Question, check_dimension, organisation
from milepost.topology.asked import asked as asked_of
from milepost.topology.bases import FOREVER, Span, written
from milepost.topology.catalog import Measure, Metric
from milepost.topology.companies import Companies, Company
from milepost.topology.completeness import Completeness, completeness, finality, partitions_of, progress_of, told
from milepost.topology.graph import Components
from milepost.topology.members import Members
from milepost.topology.panes import DAY_MS, PANE_MS
from milepost.topology.parts import FirstDay, Leaves, StaySums, Sums, Told
from milepost.topology.protection import COMPANY
from milepost.topology.reading import Progress, Reader, Unavailable
from milepost.topology.refusals import BadParameter
from milepost.topology.scans import Tally
from milepost.topology.steps import Part, Steps, gather, gathered

__all__ = ["Question", "Questions"]

ROWS_MAX: Final = 10_000
"""Rows of a breakdown at most; a bound on memory, pages are smaller."""

ZERO_IN_FORMULAS: Final = frozenset({"count", "sum", "distinct"})
LEAVES_A_PART: Final = 5_000
"""Leaves that one part adds up at most."""
Group = bytes | None


@dataclass(slots=True)
class Found:
    """What a question found in the tables.

    tallies: version -> (group, index of the span) -> what its rows add up to
    epochs:  signals partition -> the ownership that it was read under
    told:    what the ticks have told each partition that was read
    """

    told: list[Mapping[int, Progress]]
    tallies: dict[bytes, dict[tuple[Group, int], Tally]] = field(default_factory=dict)
    epochs: dict[int, int] = field(default_factory=dict)


class Questions:
    """The questions that can be asked of a reader's tables."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._members = Members(reader)

    def value(self, question: Question, components: Components | None = None) -> Steps[dict[str, Any]]:
        """One number: `{metric, value, unit, at, basis, window, tz, version, definition, finality, complete_to, reason,
        company, org, shown_lag_ms}`.  Raises QuestionError, Unavailable.

        components: who is one with whom, instead of what is decided (a preview)"""
        asked = yield from asked_of(self._reader, question, components)
        span = bases.window(question.window, asked.moment, question.tz, asked.grain_ms)
        found = yield from self._found(asked, (span,), None)
        tallies = {
            version: found.tallies[version].get((None, 0)) or Tally(measure.shape)
            for version, measure in asked.measures.items()
        }
        value, reason = yield from self._number(asked, tallies, found.epochs)
        complete = completeness(self._reader, asked, found.told)
        corrected = any(tally.corrected for tally in tallies.values())
        return {
            **self._head(asked, complete),
            "value": value,
            "reason": reason,
            "window": question.window,
            "tz": question.tz,
            "finality": finality(asked, span, corrected, complete),
        }

    def series(self, question: Question, from_ms: int, to_ms: int, every: str) -> Steps[dict[str, Any]]:
        """Points [start, next start) of the zone: `{..., every, points: [{start, end, value, reason, finality}]}`."""
        asked = yield from asked_of(self._reader, question)
        spans = bases.series(from_ms, to_ms, every, question.tz, asked.grain_ms)
        read_spans = bases.clipped(spans, asked.moment)
        found = yield from self._found(asked, read_spans, None)
        measures = asked.measures
        complete = completeness(self._reader, asked, found.told)
        points = []
        for i, span in enumerate(spans):
            here = {
                version: found.tallies[version].get((None, i)) or Tally(measure.shape)
                for version, measure in measures.items()
            }
            value, reason = yield from self._number(asked, here, found.epochs)
            points.append(
                {
                    "start": written(span.start * PANE_MS),
                    "end": written(span.stop * PANE_MS),
                    "value": value,
                    "reason": reason,
                    "finality": finality(asked, span, any(one.corrected for one in here.values()), complete),
                }
            )
        return {**self._head(asked, complete), "every": every, "tz": question.tz, "points": points}

    def breakdown(self, question: Question, by: str) -> Steps[dict[str, Any]]:
        """A row for each value of a dimension, each company, or each thing of another entity (the events that lie under
        it: those that name no company), that has events: `{..., by, rows: [{key, label, value, reason}]}`, greatest
        first, then by key."""
        asked = yield from asked_of(self._reader, question)
        entity = _entity(asked, by)
        if entity is None:
            check_dimension(asked.metric, by, extra=sorted({COMPANY, *(of for of, _ in asked.catalog.key_rank)}))
            if by in question.dims:
                raise BadParameter(f"{by} has one value in this question already", fix=f"leave dim.{by} out")
        span = bases.window(question.window, asked.moment, question.tz, asked.grain_ms)
        found = yield from self._found(asked, (span,), by)
        groups: dict[Group, dict[bytes, Tally]] = {}
        measures = asked.measures
        for version, tallies in found.tallies.items():
            for (group, _), tally in tallies.items():
                if group not in groups and len(groups) >= ROWS_MAX:
                    raise BadParameter(
                        f"the breakdown has more than {ROWS_MAX} rows", fix="a shorter window, or a dim filter"
                    )
                groups.setdefault(group, {})[version] = tally
        named: Mapping[bytes, Company] = {}
        if entity is not None:
            roots = [group for group in groups if group is not None]
            named = yield from asked.companies.companies(roots, asked.components)
        rows = []
        for group, some in groups.items():
            here = {version: some.get(version) or Tally(measure.shape) for version, measure in measures.items()}
            if group is None or not any(tally.n for tally in here.values()):
                continue
            if entity not in (None, COMPANY) and all(row.entity != entity for row in named[group].keys):
                continue
            value, reason = yield from self._number(asked, here, found.epochs)
            if entity is not None:
                key, label = keys.metakey(group), named[group].name
            else:
                key = label = group.decode(errors="replace")
            rows.append({"key": key, "label": label, "value": value, "reason": reason})
        rows.sort(key=_greatest_first)
        complete = completeness(self._reader, asked, found.told)
        return {
            **self._head(asked, complete),
            "by": by,
            "window": question.window,
            "tz": question.tz,
            "finality": finality(asked, span, False, complete),
            "rows": rows,
        }

    def metrics(self, org: str | None = None) -> Steps[dict[str, Any]]:
        """The metrics of an organisation, and the time that its events span."""
        name = organisation(self._reader, org)
        catalog = self._reader.decisions.history[name][-1].catalog
        versions = [measure.version for measure in catalog.measures]
        everyone = range(self._reader.partitions)
        if len(self._reader.decisions.history) == 1:
            parts = [FirstDay(partition=number, version=version) for version in versions for number in everyone]
        else:
            parts = []
            for version in versions:
                leaves = yield from self._with_rows(version)
                mine = yield from Companies(self._reader, name, {}).rows(leaves)
                parts += [
                    FirstDay(partition=number, version=version, leaves=some)
                    for number, some in self._placed(mine).items()
                ]
        days = [day for day in (yield from gather(self._reader, parts)) if day is not None]
        first = min(days, default=None)
        sent = told((yield from progress_of(self._reader, everyone)))
        latest = [t for progress in sent for (of, _), (t, _) in progress.items() if of == name]
        time_range = {
            "from": None if first is None else written(first * DAY_MS),
            "to": written(-(-max(latest) // PANE_MS) * PANE_MS) if latest else None,
        }
        return {"org": name, "metrics": [_described(one) for one in catalog.metrics.values()], "time_range": time_range}

    def companies(self, org: str | None = None) -> Companies:
        """The companies of an organisation."""
        name = organisation(self._reader, org)
        history = self._reader.decisions.history.get(name)
        return Companies(self._reader, name, history[-1].catalog.key_rank if history else {})

    # -- reading

    def _found(
        self, asked: Asked, spans: Sequence[Span], by: str | None, panes: tuple[int, int] | None = None
    ) -> Steps[Found]:
        """What the rows of all measures add up to, and how complete the partitions are that hold them.

        panes: behind the spans, each a span too, numbered behind them"""
        parts: list[Part] = []
        of: list[bytes] = []
        for measure in asked.measures.values():
            some = yield from self._sums(asked, measure, spans, by, panes)
            parts += some
            of += [measure.version] * len(some)
        partitions = partitions_of(self._reader, asked)
        got = yield from gathered(self._reader, [*parts, *(Told(partition=number) for number in partitions)])
        found = Found(told=[one.value for one in got[len(parts) :]])
        leafwise = _entity(asked, by) is not None
        for version in asked.measures:
            found.tallies[version] = {}
        for part, version, one in zip(parts, of, got, strict=False):
            if found.epochs.setdefault(part.partition, one.epoch) != one.epoch:
                raise Unavailable("measure", part.partition, "handed over")
            into = found.tallies[version]
            for (group, slot), tally in one.value.items():
                here = asked.components.root(group) if leafwise else group
                if (known := into.get((here, slot))) is None:
                    into[here, slot] = tally
                else:
                    known.merge(tally)
        return found

    def _sums(
        self,
        asked: Asked,
        measure: Measure,
        spans: Sequence[Span],
        by: str | None,
        panes: tuple[int, int] | None = None,
    ) -> Steps[list[Sums]]:
        """The parts that add up a measure: of the company's leaves, or of all that have rows of it."""
        entity, whole = _entity(asked, by), self._whole(asked, measure, spans, by, panes)
        leaves: Iterable[bytes]
        if asked.root is not None and entity not in (None, COMPANY):
            leaves = ()  # what its members do lies under their own leaves
        elif asked.root is not None:
            leaves = asked.components.leaves(asked.root)
        elif entity is not None:
            rows = yield from asked.companies.rows((yield from self._with_rows(measure.version)))
            leaves = [leaf for leaf, row in rows.items() if row.entity == entity]
        elif len(self._reader.decisions.history) > 1:
            # Two organisations with one definition share a version.
            leaves = yield from Companies(self._reader, asked.org, {}).rows(
                (yield from self._with_rows(measure.version))
            )
        else:
            return [replace(whole, partition=number) for number in range(self._reader.partitions)]
        return [
            replace(whole, partition=number, leaves=some[at : at + LEAVES_A_PART])
            for number, some in self._placed(leaves).items()
            for at in range(0, len(some), LEAVES_A_PART)
        ] + self._stays(asked, whole, entity)

    @staticmethod
    def _whole(
        asked: Asked, measure: Measure, spans: Sequence[Span], by: str | None, panes: tuple[int, int] | None
    ) -> Sums:
        """All that one partition has of a measure."""
        dims, entity = dict(asked.question.dims), _entity(asked, by)
        return Sums(
            partition=0,
            version=measure.version,
            shape=measure.shape,
            dimensions=tuple(measure.dimensions),
            wanted=(*dims, *([by] if by is not None and entity is None else [])),
            spans=tuple((span.start, span.stop) for span in spans),
            panes=panes,
            until=FOREVER if asked.moment.known_until is None else max(asked.moment.known_until, 0),
            dims=dims,
            by=None if entity is not None else by,
            leafwise=entity is not None,
        )

    def _stays(self, asked: Asked, whole: Sums, entity: str | None) -> list[Sums]:
        """The parts that add what persons did while they belonged to the company, or (by company) to each; by another
        entity, what each of the company's did."""
        single = entity not in (None, COMPANY)
        if single and asked.root is None:
            return []
        stays: dict[int, list[tuple[bytes, bytes, int, int]]] = {}
        for company, some in asked.attributed(leafwise=whole.leafwise).items():
            for one in some:
                partition = keys.leaf_partition(one.leaf, self._reader.partitions)
                group = one.leaf if single else company
                stays.setdefault(partition, []).append((one.leaf, group, one.start, one.stop))
        same = {field.name: getattr(whole, field.name) for field in fields(whole)}
        return [
            StaySums(**{**same, "partition": number, "stays": tuple(some[at : at + LEAVES_A_PART])})
            for number, some in sorted(stays.items())
            for at in range(0, len(some), LEAVES_A_PART)
        ]

    def _with_rows(self, version: bytes) -> Steps[list[bytes]]:
        """The leaves that have rows of a measure."""
        found: list[bytes] = []
        todo = [Leaves(partition=number, version=version) for number in range(self._reader.partitions)]
        while todo:
            pages = yield from gather(self._reader, todo)
            found += [leaf for leaves, _ in pages for leaf in leaves]
            todo = [replace(one, start=start) for one, (_, start) in zip(todo, pages, strict=True) if start is not None]
        return found

    def _placed(self, leaves: Iterable[bytes]) -> dict[int, tuple[bytes, ...]]:
        """Signals partition -> those of `leaves` that lie there."""
        placed: dict[int, list[bytes]] = {}
        for leaf in leaves:
            placed.setdefault(keys.leaf_partition(leaf, self._reader.partitions), []).append(leaf)
        return {number: tuple(some) for number, some in sorted(placed.items())}

    # -- numbers

    def _number(
        self, asked: Asked, tallies: Mapping[bytes, Tally], epochs: Mapping[int, int]
    ) -> Steps[tuple[int | float | None, str | None]]:
        """(value of the metric, reason why it is null)."""
        known: dict[str, tuple[int | float | None, str | None]] = {}
        for metric in asked.parts:
            if metric.measure is not None:
                tally = tallies[metric.measure.version]
                known[metric.name] = yield from self._aggregate(asked, metric, metric.measure, tally, epochs)
            else:
                known[metric.name] = _computed(asked, metric, known)
        return known[asked.metric.name]

    def _aggregate(
        self, asked: Asked, metric: Metric, measure: Measure, tally: Tally, epochs: Mapping[int, int]
    ) -> Steps[tuple[int | float | None, str | None]]:
        if tally.n == 0:
            return None, "no_events"
        match metric.aggregate:
            case "count":
                return tally.n, None
            case "distinct":
                return (yield from self._members.count(tally.members, epochs, asked.components)), None
            case "sum":
                return unscaled(tally.sum, measure.scale), None
            case "avg":
                mean = Fraction(tally.sum, tally.n * 10**measure.scale)
                return (mean.numerator if mean.denominator == 1 else float(mean)), None
            case "min" if tally.low is not None:
                return unscaled(tally.low, measure.scale), None
            case "max" if tally.high is not None:
                return unscaled(tally.high, measure.scale), None
            case "last" if tally.last is not None:
                return unscaled(tally.last[2], measure.scale), None
            case "percentile" if metric.percent is not None:
                found = sketches.percentile(tally.sketch, Fraction(metric.percent)) / 10**measure.scale
                return (found.numerator if found.denominator == 1 else float(found)), None
        raise AssertionError(f"{metric.name}: rows without {metric.aggregate}")

    def _head(self, asked: Asked, complete: Completeness) -> dict[str, Any]:
        moment = asked.moment
        lag = None
        if moment.basis == "as_shown" and complete.seen_to is not None:
            lag = max(0, moment.at_ms - complete.seen_to)
        return {
            "metric": asked.metric.name,
            "unit": asked.metric.unit,
            "org": asked.org,
            "company": None if asked.root is None else keys.metakey(asked.root),
            "at": written(moment.at_ms),
            "basis": moment.basis,
            "dims": dict(asked.question.dims),
            "version": asked.metric.version.hex(),
            "definition": "backfilled" if asked.backfilled else "current",
            "complete_to": None if complete.complete_to is None else written(complete.complete_to),
            "shown_lag_ms": lag,
        }


def _computed(
    asked: Asked, metric: Metric, known: Mapping[str, tuple[int | float | None, str | None]]
) -> tuple[int | float | None, str | None]:
    """A formula over the values of its operands: nothing counted is 0, nothing measured makes it null (S9)."""
    assert metric.formula is not None
    operands: dict[str, float | None] = {}
    for name in metric.operands:
        value, reason = known[name]
        if value is None and asked.catalog.metrics[name].aggregate not in ZERO_IN_FORMULAS:
            return None, reason
        operands[name] = 0.0 if value is None else float(value)
    return metric.formula.value(operands)


def _described(metric: Metric) -> dict[str, Any]:
    return {
        "name": metric.name,
        "unit": metric.unit,
        "aggregate": metric.aggregate,
        "percent": None if metric.percent is None else float(metric.percent),
        "formula": None if metric.formula is None else metric.formula.text,
        "dimensions": list(metric.dimensions),
        "grain": bases.grain(metric.grain_ms),
        "version": metric.version.hex(),
    }


def _entity(asked: Asked, by: str | None) -> str | None:
    """The entity that a breakdown is by; None: it is by a dimension, or there is none."""
    if by is None or by in asked.metric.dimensions:
        return None
    return by if by == COMPANY or any(of == by for of, _ in asked.catalog.key_rank) else None


def _greatest_first(row: Mapping[str, Any]) -> tuple[bool, float, str]:
    value = row["value"]
    return value is None, 0.0 if value is None else -float(value), str(row["key"])
