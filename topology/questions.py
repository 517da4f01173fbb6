"""Questions: a metric at any time, over the tables as they are.

    question -> moment (bases) -> definitions and identity as of then -> measures -> scans -> numbers -> an answer

Every answer names the time, basis and version that it used and how complete it is; an absent value is null with a
reason, never 0 by default (semantics S9).  All public calls are steps (see `scans`): `run(questions.value(question))`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Final

from milepost.schemas import keys
from milepost.topology import bases
from milepost.topology.aggregates import Shape, unscaled
from milepost.topology.asked import Asked, Question, check_dimension, organisation
from milepost.topology.asked import asked as asked_of
from milepost.topology.bases import FOREVER, Slots, Span, written
from milepost.topology.catalog import Measure, Metric
from milepost.topology.companies import Companies
from milepost.topology.completeness import Completeness, completeness, finality, told
from milepost.topology.identity import COMPANY
from milepost.topology.members import Members
from milepost.topology.metrics import unpacked
from milepost.topology.panes import DAY_MS, PANE_MS
from milepost.topology.reading import Reader
from milepost.topology.refusals import BadParameter
from milepost.topology.scans import Family, Pair, Steps, Take, Tally, family, leaves, read

__all__ = ["Question", "Questions"]

ROWS_MAX: Final = 10_000
"""Rows of a breakdown at most; a bound on memory, pages are smaller."""

ZERO_IN_FORMULAS: Final = frozenset({"count", "sum", "distinct"})
Group = bytes | None


class Questions:
    """The questions that can be asked of a reader's tables."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._members = Members(reader)

    def value(self, question: Question) -> Steps[dict[str, Any]]:
        """One number: `{metric, value, unit, at, basis, window, tz, version, definition, finality, complete_to, reason,
        company, org, shown_lag_ms}`.  Raises QuestionError, Unavailable."""
        asked = asked_of(self._reader, question)
        span = bases.window(question.window, asked.moment, question.tz, asked.grain_ms)
        tallies: dict[bytes, Tally] = {}
        for measure in asked.measures.values():
            found = yield from self._tallies(asked, measure, (span,), None)
            tallies[measure.version] = found.get((None, 0)) or Tally(measure.shape)
        value, reason = yield from self._number(asked, tallies)
        complete = completeness(self._reader, asked)
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
        asked = asked_of(self._reader, question)
        spans = bases.series(from_ms, to_ms, every, question.tz, asked.grain_ms)
        read_spans = bases.clipped(spans, asked.moment)
        tallies: dict[bytes, dict[tuple[Group, int], Tally]] = {}
        measures = asked.measures
        for measure in measures.values():
            tallies[measure.version] = yield from self._tallies(asked, measure, read_spans, None)
        complete = completeness(self._reader, asked)
        points = []
        for i, span in enumerate(spans):
            here = {
                version: found.get((None, i)) or Tally(measures[version].shape) for version, found in tallies.items()
            }
            value, reason = yield from self._number(asked, here)
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
        """A row for each value of a dimension, or each company, that has events: `{..., by, rows: [{key, label, value,
        reason}]}`, greatest first, then by key."""
        asked = asked_of(self._reader, question)
        if by != COMPANY:
            check_dimension(asked.metric, by, extra=(COMPANY,))
            if by in question.dims:
                raise BadParameter(f"{by} has one value in this question already", fix=f"leave dim.{by} out")
        span = bases.window(question.window, asked.moment, question.tz, asked.grain_ms)
        found: dict[Group, dict[bytes, Tally]] = {}
        measures = asked.measures
        for measure in measures.values():
            tallies = yield from self._tallies(asked, measure, (span,), by)
            for (group, _), tally in tallies.items():
                if group not in found and len(found) >= ROWS_MAX:
                    raise BadParameter(
                        f"the breakdown has more than {ROWS_MAX} rows", fix="a shorter window, or a dim filter"
                    )
                found.setdefault(group, {})[measure.version] = tally
        rows = []
        for group, some in found.items():
            here = {version: some.get(version) or Tally(measure.shape) for version, measure in measures.items()}
            if group is None or not any(tally.n for tally in here.values()):
                continue
            value, reason = yield from self._number(asked, here)
            if by == COMPANY:
                company = asked.companies.company(group, asked.components)
                key, label = keys.metakey(group), company.name
            else:
                key = label = group.decode(errors="replace")
            rows.append({"key": key, "label": label, "value": value, "reason": reason})
        rows.sort(key=_greatest_first)
        complete = completeness(self._reader, asked)
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
        first: int | None = None
        for measure in catalog.measures:
            for partition in range(self._reader.partitions):
                days = self._reader.stores("measure", partition)["days"]
                for leaf in leaves(days, measure.version):
                    before = measure.version + leaf + b"\x00"
                    row = next(days.scan(before, before + b"\xff" * 4), None)
                    if row is not None and self._belongs(name, leaf):
                        day = int.from_bytes(row[0][-4:], "big")
                        first = day if first is None else min(first, day)
                yield
        sent = told(self._reader, range(self._reader.partitions))
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

    def _tallies(
        self, asked: Asked, measure: Measure, spans: Sequence[Span], by: str | None
    ) -> Steps[dict[tuple[Group, int], Tally]]:
        """(group, index of the span) -> what the measure's rows add up to."""
        dims = dict(asked.question.dims)
        wanted = [*dims, *([by] if by is not None and by != COMPANY else [])]
        until = FOREVER if asked.moment.known_until is None else max(asked.moment.known_until, 0)
        ranges, slots = bases.cover(spans), Slots(spans)
        found: dict[tuple[Group, int], Tally] = {}
        for leaf in (yield from self._leaves(asked, measure, by)):
            partition = keys.leaf_partition(leaf, self._reader.partitions)
            of = family(measure.version, leaf, measure.dimensions, wanted, dims)
            take = _taking(found, of, by, asked.components.root(leaf), measure.shape, until, partition)
            for part in ranges:
                store = self._reader.stores("measure", partition)["days" if part.days else "cells"]
                yield from read(store, part, of.before, len(of.rest), slots, take)
        return found

    def _leaves(self, asked: Asked, measure: Measure, by: str | None) -> Steps[list[bytes]]:
        """The leaves whose rows count: the company's, or all that have rows of the measure."""
        if asked.root is not None:
            return list(asked.components.leaves(asked.root))
        found: list[bytes] = []
        for partition in range(self._reader.partitions):
            days = self._reader.stores("measure", partition)["days"]
            for leaf in leaves(days, measure.version):
                if by == COMPANY:
                    row = asked.companies.row(leaf)
                    if row is None or row.entity != COMPANY:
                        continue
                elif not self._belongs(asked.org, leaf):
                    continue
                found.append(leaf)
                if len(found) % 100 == 0:
                    yield
        return found

    def _belongs(self, org: str, leaf: bytes) -> bool:
        """Whether a leaf is of this organisation: two organisations with one definition share a version."""
        if len(self._reader.decisions.history) == 1:
            return True
        return Companies(self._reader, org, {}).row(leaf) is not None

    # -- numbers

    def _number(self, asked: Asked, tallies: Mapping[bytes, Tally]) -> Steps[tuple[int | float | None, str | None]]:
        """(value of the metric, reason why it is null)."""
        known: dict[str, tuple[int | float | None, str | None]] = {}
        for metric in asked.parts:
            if metric.measure is not None:
                tally = tallies[metric.measure.version]
                known[metric.name] = yield from self._aggregate(asked, metric, metric.measure, tally)
            else:
                known[metric.name] = _computed(asked, metric, known)
        return known[asked.metric.name]

    def _aggregate(
        self, asked: Asked, metric: Metric, measure: Measure, tally: Tally
    ) -> Steps[tuple[int | float | None, str | None]]:
        if tally.n == 0:
            return None, "no_events"
        match metric.aggregate:
            case "count":
                return tally.n, None
            case "distinct":
                return (yield from self._members.count(tally.members, asked.components)), None
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


def _taking(
    found: dict[tuple[Group, int], Tally],
    of: Family,
    by: str | None,
    root: bytes,
    shape: Shape,
    until: int,
    partition: int,
) -> Take:
    """Adds rows of one leaf's family to the tally of their group and span."""
    by_company = by == COMPANY
    place = of.rest.index(by) if by in of.rest else None

    def take(free: bytes, slot: int, rows: Sequence[Pair], width: int) -> None:
        group: Group = root if by_company else None
        if of.rest:
            values = unpacked(free)
            if any(values[i] != one for i, one in of.checks):
                return
            if place is not None:
                group = values[place]
        tally = found.get((group, slot))
        if tally is None:
            tally = found[group, slot] = Tally(shape)
        tally.add(rows, width, until, partition)

    return take


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
        "formula": None if metric.formula is None else metric.formula.text,
        "dimensions": list(metric.dimensions),
        "grain": bases.grain(metric.grain_ms),
        "version": metric.version.hex(),
    }


def _greatest_first(row: Mapping[str, Any]) -> tuple[bool, float, str]:
    value = row["value"]
    return value is None, 0.0 if value is None else -float(value), str(row["key"])
