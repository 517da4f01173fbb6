"""Questions: a metric at any time, over the tables as they are.

    question -> moment (bases) -> definitions and identity as of then -> measures -> scans -> numbers -> an answer

Every answer names the time, basis and version that it used and how complete it is; an absent value is null with a
reason, never 0 by default (semantics S9).  All public calls are steps (see `scans`): `run(questions.value(question))`.

finality:
  open         the end of the question lies behind `complete_to` (or it has no end): more is expected
  provisional  closed for less than 14 days
  corrected    final, and a counted record became known more than 14 days after its pane (or day) had ended
  final        none of these
`complete_to` is the least, over the sources that the metric needs, of the latest event time that the source has sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

from milepost.schemas import keys
from milepost.topology import bases
from milepost.topology.aggregates import Shape, unscaled
from milepost.topology.bases import FOREVER, Moment, Slots, Span, written
from milepost.topology.catalog import Catalog, Measure, Metric
from milepost.topology.companies import Companies
from milepost.topology.decisions import Applied, Components
from milepost.topology.identity import COMPANY
from milepost.topology.members import Members
from milepost.topology.metrics import VALUE_BYTES_MAX, unpacked
from milepost.topology.panes import DAY_MS, PANE_MS
from milepost.topology.reading import Reader
from milepost.topology.refusals import (
    BadParameter,
    UnknownDimension,
    UnknownMetric,
    UnknownOrganisation,
    closest,
)
from milepost.topology.scans import Family, Pair, Steps, Take, Tally, family, leaves, read

FINAL_AFTER_MS: Final = 14 * DAY_MS
ROWS_MAX: Final = 10_000
"""Rows of a breakdown at most; a bound on memory, pages are smaller."""

ZERO_IN_FORMULAS: Final = frozenset({"count", "sum", "distinct"})
Group = bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked.  Without company the whole organisation is meant, without at now."""

    metric: str
    now_ms: int
    org: str | None = None
    company: str | None = None
    at_ms: int | None = None
    basis: str | None = None
    window: str = "all"
    tz: str = "UTC"
    dims: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A question with everything it names found."""

    question: Question
    org: str
    catalog: Catalog
    backfilled: bool
    metric: Metric
    grain_ms: int
    moment: Moment
    components: Components
    companies: Companies
    root: bytes | None

    @property
    def measures(self) -> dict[bytes, Measure]:
        return {one.version: one for one in _measures(self.catalog, self.metric)}


class Questions:
    """The questions that can be asked of a reader's tables."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._members = Members(reader)

    def value(self, question: Question) -> Steps[dict[str, Any]]:
        """One number: `{metric, value, unit, at, basis, window, tz, version, definition, finality, complete_to, reason,
        company, org, shown_lag_ms}`.  Raises QuestionError, Unavailable."""
        asked = self._asked(question)
        span = bases.window(question.window, asked.moment, question.tz, asked.grain_ms)
        tallies: dict[bytes, Tally] = {}
        for measure in asked.measures.values():
            found = yield from self._tallies(asked, measure, (span,), None)
            tallies[measure.version] = found.get((None, 0)) or Tally(measure.shape)
        value, reason = yield from self._number(asked, asked.metric, tallies)
        progress = self._progress(asked)
        corrected = any(tally.corrected for tally in tallies.values())
        return {
            **self._head(asked, progress),
            "value": value,
            "reason": reason,
            "window": question.window,
            "tz": question.tz,
            "finality": _finality(asked, span, corrected, progress),
        }

    def series(self, question: Question, from_ms: int, to_ms: int, every: str) -> Steps[dict[str, Any]]:
        """Points [start, next start) of the zone: `{..., every, points: [{start, end, value, reason, finality}]}`."""
        asked = self._asked(question)
        spans = bases.series(from_ms, to_ms, every, question.tz, asked.grain_ms)
        read_spans = bases.clipped(spans, asked.moment)
        tallies: dict[bytes, dict[tuple[Group, int], Tally]] = {}
        measures = asked.measures
        for measure in measures.values():
            tallies[measure.version] = yield from self._tallies(asked, measure, read_spans, None)
        progress = self._progress(asked)
        points = []
        for i, span in enumerate(spans):
            here = {
                version: found.get((None, i)) or Tally(measures[version].shape) for version, found in tallies.items()
            }
            value, reason = yield from self._number(asked, asked.metric, here)
            points.append(
                {
                    "start": written(span.start * PANE_MS),
                    "end": written(span.stop * PANE_MS),
                    "value": value,
                    "reason": reason,
                    "finality": _finality(asked, span, any(one.corrected for one in here.values()), progress),
                }
            )
        return {**self._head(asked, progress), "every": every, "tz": question.tz, "points": points}

    def breakdown(self, question: Question, by: str) -> Steps[dict[str, Any]]:
        """A row for each value of a dimension, or each company, that has events: `{..., by, rows: [{key, label, value,
        reason}]}`, greatest first, then by key."""
        asked = self._asked(question)
        if by != COMPANY:
            self._check_dimension(asked.metric, by, extra=(COMPANY,))
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
            value, reason = yield from self._number(asked, asked.metric, here)
            if by == COMPANY:
                company = asked.companies.company(group, asked.components)
                key, label = keys.metakey(group), company.name
            else:
                key = label = group.decode(errors="replace")
            rows.append({"key": key, "label": label, "value": value, "reason": reason})
        rows.sort(key=_greatest_first)
        progress = self._progress(asked)
        return {
            **self._head(asked, progress),
            "by": by,
            "window": question.window,
            "tz": question.tz,
            "finality": _finality(asked, span, False, progress),
            "rows": rows,
        }

    def metrics(self, org: str | None = None) -> Steps[dict[str, Any]]:
        """The metrics of an organisation, and the time that its events span."""
        name = self.org(org)
        catalog = self._history(name)[-1].catalog
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
        told = [t for progress in self._told() for (of, _), (t, _) in progress.items() if of == name]
        time_range = {
            "from": None if first is None else written(first * DAY_MS),
            "to": written(-(-max(told) // PANE_MS) * PANE_MS) if told else None,
        }
        return {"org": name, "metrics": [_described(one) for one in catalog.metrics.values()], "time_range": time_range}

    def companies(self, org: str | None = None) -> Companies:
        """The companies of an organisation."""
        name = self.org(org)
        history = self._reader.decisions.history.get(name)
        return Companies(self._reader, name, history[-1].catalog.key_rank if history else {})

    def org(self, name: str | None) -> str:
        """The organisation asked for: the only one there is, unless named.  Raises UnknownOrganisation."""
        known = sorted(self._reader.decisions.history)
        if name is None:
            if len(known) == 1:
                return known[0]
            if not known:
                raise UnknownOrganisation("no organisation has definitions yet", fix="milepost apply FOLDER")
            raise UnknownOrganisation(
                f"there are {len(known)} organisations: say which", guess=known[0], fix=f"org={known[0]}"
            )
        if name not in known:
            raise UnknownOrganisation(f"no organisation {name[:64]!r} has definitions", guess=closest(name, known))
        return name

    # -- what a question names

    def _asked(self, question: Question) -> _Asked:
        moment = bases.moment(question.basis, question.at_ms, question.now_ms)
        bases.zone(question.tz)
        org = self.org(question.org)
        catalog, backfilled = self._catalog(org, question.metric, moment.decided_at)
        metric = catalog.metrics[question.metric]
        for name, text in question.dims.items():
            self._check_dimension(metric, name)
            if len(text.encode(errors="replace")) > VALUE_BYTES_MAX or not _unicode(text):
                raise BadParameter(f"dim.{name} is no text of at most {VALUE_BYTES_MAX} bytes")
        components = self._reader.decisions.graph(org).at(moment.decided_at)
        companies = Companies(self._reader, org, catalog.key_rank)
        root = None
        if question.company is not None:
            root = components.root(companies.leaf(question.company))
        return _Asked(
            question=question,
            org=org,
            catalog=catalog,
            backfilled=backfilled,
            metric=metric,
            grain_ms=max((one.grain_ms for one in _leaves_of(catalog, metric)), default=PANE_MS),
            moment=moment,
            components=components,
            companies=companies,
            root=root,
        )

    def _history(self, org: str) -> Sequence[Applied]:
        return self._reader.decisions.history[org]

    def _catalog(self, org: str, metric: str, c_ms: int | None) -> tuple[Catalog, bool]:
        """The bundle whose metric holds at c, and whether that is before its first version (then the first holds)."""
        history = self._history(org)
        now = history[-1].catalog
        able = [applied for applied in history if metric in applied.catalog.metrics]
        if c_ms is None:
            able = [] if metric not in now.metrics else able[-1:]
        if not able:
            guess = closest(metric, now.metrics)
            raise UnknownMetric(f"{org} has no metric {metric[:64]!r}", guess=guess, fix="GET /v1/metrics lists them")
        past = [applied for applied in able if c_ms is None or applied.k_ms <= c_ms]
        return (past[-1].catalog, False) if past else (able[0].catalog, True)

    def _check_dimension(self, metric: Metric, name: str, extra: Iterable[str] = ()) -> None:
        known = (*metric.dimensions, *extra)
        if name not in known:
            raise UnknownDimension(
                f"{metric.name} has no dimension {name[:64]!r}",
                guess=closest(name, known),
                fix=f"one of {', '.join(known)}" if known else None,
            )

    # -- reading

    def _tallies(
        self, asked: _Asked, measure: Measure, spans: Sequence[Span], by: str | None
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

    def _leaves(self, asked: _Asked, measure: Measure, by: str | None) -> Steps[list[bytes]]:
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

    def _number(
        self, asked: _Asked, metric: Metric, tallies: Mapping[bytes, Tally]
    ) -> Steps[tuple[int | float | None, str | None]]:
        """(value, reason why it is null)."""
        if metric.formula is None:
            assert metric.measure is not None
            return (yield from self._aggregate(asked, metric, metric.measure, tallies[metric.measure.version]))
        operands: dict[str, float | None] = {}
        for name in metric.operands:
            operand = asked.catalog.metrics[name]
            value, reason = yield from self._number(asked, operand, tallies)
            if value is None and operand.aggregate not in ZERO_IN_FORMULAS:
                return None, reason
            operands[name] = 0.0 if value is None else float(value)
        return metric.formula.value(operands)

    def _aggregate(
        self, asked: _Asked, metric: Metric, measure: Measure, tally: Tally
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

    # -- how complete

    def _told(self, partitions: Iterable[int] | None = None) -> list[dict[tuple[str, str], tuple[int, int]]]:
        """For each signals partition: (org, source) -> (largest event time, last known time)."""
        out = []
        for partition in range(self._reader.partitions) if partitions is None else partitions:
            told: dict[tuple[str, str], tuple[int, int]] = {}
            for progress in self._reader.progress(partition).values():
                for source, (t_ms, k_ms) in progress.sources.items():
                    known = told.get(source, (t_ms, k_ms))
                    told[source] = (max(known[0], t_ms), max(known[1], k_ms))
            out.append(told)
        return out

    def _progress(self, asked: _Asked) -> _Progress:
        if asked.root is None:
            partitions = list(range(self._reader.partitions))
        else:
            own = asked.components.leaves(asked.root)
            partitions = sorted({keys.leaf_partition(leaf, self._reader.partitions) for leaf in own})
        sources = _sources(asked.catalog, asked.measures.values())
        latest = [
            told.get((asked.org, source), (None, None))[0] for told in self._told(partitions) for source in sources
        ]
        complete = None if not latest or None in latest else min(one for one in latest if one is not None)
        seen: list[int] = []
        for partition in partitions:
            progress = self._reader.progress(partition)
            if len(progress) < self._reader.partitions:
                return _Progress(complete_to=complete, seen_to=None)
            seen.extend(one.k_ms for one in progress.values())
        return _Progress(complete_to=complete, seen_to=min(seen, default=None))

    def _head(self, asked: _Asked, progress: _Progress) -> dict[str, Any]:
        moment = asked.moment
        lag = None
        if moment.basis == "as_shown" and progress.seen_to is not None:
            lag = max(0, moment.at_ms - progress.seen_to)
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
            "complete_to": None if progress.complete_to is None else written(progress.complete_to),
            "shown_lag_ms": lag,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Progress:
    """complete_to: event time up to which the metric's sources have sent;  seen_to: known time up to which all raw
    partitions have been seen.  None: not known."""

    complete_to: int | None
    seen_to: int | None


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


def _finality(asked: _Asked, span: Span, corrected: bool, progress: _Progress) -> str:
    end_ms = span.stop * PANE_MS
    if not span.bounded or progress.complete_to is None or end_ms > progress.complete_to:
        return "open"
    if corrected:
        return "corrected"
    clock = asked.moment.at_ms if asked.moment.basis == "as_shown" else asked.question.now_ms
    return "provisional" if clock < end_ms + FINAL_AFTER_MS else "final"


def _leaves_of(catalog: Catalog, metric: Metric) -> Iterable[Metric]:
    """The metrics over signals that a metric is made of."""
    if metric.formula is None:
        yield metric
    for name in metric.operands:
        yield from _leaves_of(catalog, catalog.metrics[name])


def _measures(catalog: Catalog, metric: Metric) -> Iterable[Measure]:
    for one in _leaves_of(catalog, metric):
        assert one.measure is not None
        yield one.measure


def _sources(catalog: Catalog, measures: Iterable[Measure]) -> list[str]:
    """The sources whose events the measures are made of."""
    types = {catalog.rules[measure.rule].on for measure in measures}
    return sorted(name for name, source in catalog.sources.items() if types & set(source.types))


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


def _unicode(text: str) -> bool:
    """Whether a text has bytes: a lone surrogate has none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
