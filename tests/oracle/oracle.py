"""The oracle: a slow, obviously right program that reads a raw log in order and answers what the engine answers.

It shares no code with the engine.  A question walks over all events, keeps those that count, and adds them up as exact
fractions.  Read it beside the table of bases:

    latest            all events         known by now              identity and definitions of now
    corrected at T    t < T              known by now              identity and definitions of now
    as_shown at T     t < T              bucket of k ends <= T     identity and definitions of T
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

from tests.oracle import clock, definitions, expressions, keys
from tests.oracle.clock import Refused
from tests.oracle.definitions import Definitions, Metric
from tests.oracle.identity import Graph, members_of
from tests.oracle.log import DeadLetter, Event, LogReader, Reading, Signal

LATEST, CORRECTED, AS_SHOWN = "latest", "corrected", "as_shown"
OTHER, NONE = "__other__", "__none__"

_ZERO_IN_FORMULAS = frozenset({"count", "sum", "distinct"})

Who = str | bytes | None
"""How a question names a company: a MetaKey, `key:value`, a leaf; None for the whole organisation."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A number or None with a reason; `at_ms` is the moment that was used (None for `latest`)."""

    value: int | float | None
    reason: str | None = None
    at_ms: int | None = None
    basis: str = LATEST


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of a series: [start, end)."""

    start_ms: int
    end_ms: int
    answer: Answer


@dataclass(frozen=True, kw_only=True)
class Company:
    """A component of company leaves."""

    org: str
    metakey: str
    root: bytes
    leaves: tuple[bytes, ...]
    name: str
    keys: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """From where a question is asked: whose data, on which basis, as of when, and what it selects.  None: no bound."""

    org: str
    basis: str
    at_ms: int | None
    known: Definitions = definitions.NOTHING
    start_ms: int | None = None
    end_ms: int | None = None
    dims: Mapping[str, str]
    leaves: frozenset[bytes] | None = None

    @property
    def c_ms(self) -> int | None:
        """The moment whose identity and definitions count; None: now."""
        return self.at_ms if self.basis == AS_SHOWN else None


class Oracle:
    """`bundles` maps a bundle's id, as the markers carry it, to its files.

    `tables` maps a table's id, as its markers carry it, to the schemas that a registry's ids mean.
    `applied` says from when on each bundle holds for as_shown, for each organisation, in order; without it the known
    times of the markers do.
    """

    def __init__(
        self,
        secret: bytes,
        partitions: int,
        bundles: Mapping[bytes, Mapping[str, bytes]],
        applied: Mapping[str, Sequence[tuple[int, bytes]]] | None = None,
        tables: Mapping[bytes, dict[int, Any]] | None = None,
    ) -> None:
        self.secret = secret
        self.tables = tables
        self.partitions = partitions
        self.bundles: dict[bytes, Definitions] = {one: definitions.read(files) for one, files in bundles.items()}
        self.applied = applied
        self.reading = Reading()
        self._graphs: dict[tuple[str, int | None], Graph] = {}
        self._components: dict[tuple[bytes, int | None], frozenset[bytes]] = {}

    def read(self, log: Sequence[Sequence[Any]] | Mapping[int, Sequence[Any]]) -> Reading:
        """Read a whole log, a list of records a partition; what was read before is forgotten."""
        parts = [log.get(number, ()) for number in range(self.partitions)] if isinstance(log, Mapping) else log
        self._graphs, self._components = {}, {}
        self.reading = LogReader(self.secret, self.partitions, self.bundles, self.tables).read(parts)
        return self.reading

    @property
    def counts(self) -> dict[str, int]:
        """How many records came to which end (see `log.Reading`)."""
        return dict(self.reading.counts)

    @property
    def dead_letters(self) -> list[DeadLetter]:
        return self.reading.dead_letters

    # -- questions

    def value(
        self,
        metric: str,
        company: Who = None,
        *,
        at: int | None = None,
        basis: str | None = None,
        window: str = "all",
        tz: str = "UTC",
        dims: Mapping[str, str] | None = None,
        now: int | None = None,
        org: str | None = None,
    ) -> Answer:
        """A metric of a company or of everything.

        Raises LookupError for what does not exist and Refused for what has no exact answer.
        """
        found, frame = self._asked(metric, company, at, basis, dims, now, org)
        return self._answer(found, self._windowed(found, frame, window, tz, now))

    def series(
        self,
        metric: str,
        company: Who = None,
        *,
        from_ms: int,
        to_ms: int,
        every: str = "1d",
        tz: str = "UTC",
        at: int | None = None,
        basis: str | None = None,
        dims: Mapping[str, str] | None = None,
        now: int | None = None,
        org: str | None = None,
    ) -> list[Point]:
        """The points that start in [from, to)."""
        found, frame = self._asked(metric, company, at, basis, dims, now, org)
        moments = clock.starts(from_ms, to_ms, every, tz)
        return [
            Point(start_ms=start, end_ms=end, answer=self._answer(found, replace(frame, start_ms=start, end_ms=end)))
            for start, end in pairwise(moments)
            if start < end
        ]

    def breakdown(
        self,
        metric: str,
        by: str,
        company: Who = None,
        *,
        at: int | None = None,
        basis: str | None = None,
        window: str = "all",
        tz: str = "UTC",
        dims: Mapping[str, str] | None = None,
        now: int | None = None,
        org: str | None = None,
    ) -> dict[str, Answer]:
        """A row for each value of a dimension, or for each company's MetaKey (`by="company"`), that has events."""
        found, frame = self._asked(metric, company, at, basis, dims, now, org)
        below = self._below(found, frame)
        pairs = [pair for one in below for pair in self._signals_of(one, frame.org)]
        rows: dict[str, tuple[bytes | None, dict[str, str]]] = {}
        for event, signal in pairs:
            if by == "company":
                if self._is_company(event.leaf) and (frame.leaves is None or event.leaf in frame.leaves):
                    root = self.root(event.leaf, frame.c_ms)
                    rows[keys.metakey(root)] = (root, dict(frame.dims))
                for one in self._employers(event, frame):
                    if frame.leaves is None or one in frame.leaves:
                        root = self.root(one, frame.c_ms)
                        rows[keys.metakey(root)] = (root, dict(frame.dims))
            else:
                self._has_dimension(found, by)
                text = _text(signal.fields.get(by))
                rows[text] = (None, {**frame.dims, by: text})
        answers = {}
        for row, (whose, chosen) in rows.items():
            one = self._windowed(found, replace(frame, dims=chosen), window, tz, now)
            if by == "company":
                one = replace(one, leaves=self.component(self._leaf(whose or b"", frame.org), frame.c_ms))
            if any(self._answer(part, one).value is not None for part in below):
                answers[row] = self._answer(found, one)
        return answers

    def companies(self, org: str | None = None, c_ms: int | None = None) -> list[Company]:
        """All companies as known at `c_ms` (None: now), by MetaKey."""
        org = self._org(org)
        groups: dict[bytes, list[bytes]] = {}
        for leaf, fact in self.reading.keys.items():
            if fact.org == org and fact.entity == "company" and (c_ms is None or fact.k_ms <= c_ms):
                groups.setdefault(self.root(leaf, c_ms), []).append(leaf)
        found = []
        for root, leaves in groups.items():
            facts = [self.reading.keys[leaf] for leaf in leaves]
            # The display name: the first label, else the first key.
            names = sorted((not fact.label, fact.rank, fact.k_ms, fact.value) for fact in facts)
            found.append(
                Company(
                    org=org,
                    metakey=keys.metakey(root),
                    root=root,
                    leaves=tuple(sorted(leaves)),
                    name=names[0][3],
                    keys=tuple(sorted((fact.key, fact.value) for fact in facts)),
                )
            )
        return sorted(found, key=lambda one: one.metakey)

    def graph(self, org: str, c_ms: int | None = None) -> Graph:
        """Who is one with whom as decided by `c_ms` (None: now), under the limits of the definitions of then."""
        if (org, c_ms) not in self._graphs:
            history = self._history().get(org, ())
            past = [bundle for k_ms, bundle in history if c_ms is None or k_ms <= c_ms] or [
                one for _, one in history[:1]
            ]
            limits = self.bundles[past[-1]].limits if past else {}
            proposals = {(a, b): k_ms for (of, a, b), k_ms in self.reading.edges.items() if of == org}
            decisions = [one for one in self.reading.decisions if one.org == org]
            self._graphs[org, c_ms] = Graph(self.reading.keys, limits).fold(proposals, decisions, c_ms)
        return self._graphs[org, c_ms]

    def component(self, leaf: bytes, c_ms: int | None = None) -> frozenset[bytes]:
        """All leaves that are one thing with `leaf`, as decided by `c_ms` (None: now)."""
        if (leaf, c_ms) not in self._components:
            fact = self.reading.keys.get(leaf)
            found = frozenset((leaf,)) if fact is None else self.graph(fact.org, c_ms).component(leaf)
            self._components[leaf, c_ms] = found
        return self._components[leaf, c_ms]

    def root(self, leaf: bytes, c_ms: int | None = None) -> bytes:
        """The leaf of the component whose key kind appears first in the bundle, then with the smallest bytes."""
        return min(self.component(leaf, c_ms), key=lambda one: (self.reading.keys[one].rank, one))

    def digest_rows(self) -> list[tuple[str, ...]]:
        """The logical content, sorted: one row a signal, a key and a link.  Equal for logs that mean the same."""
        rows: list[tuple[str, ...]] = []
        for event in self.reading.events:
            for one in event.signals:
                of = (event.key.hex(), str(event.rank), event.leaf.hex())
                said = (*of, str(event.t_ms), str(event.k_ms), one.rule)
                rows.append(("signal", *said, str(sorted(one.fields.items()))))
        for leaf, fact in self.reading.keys.items():
            rows.append(("key", leaf.hex(), fact.entity, fact.key, fact.value, str(fact.k_ms)))
        for (org, a, b), k_ms in self.reading.edges.items():
            rows.append(("link", org, a.hex(), b.hex(), str(k_ms)))
        rows += [("decision", str(one)) for one in self.reading.decisions]
        return sorted(rows)

    # -- what a question means

    def _asked(
        self,
        name: str,
        company: Who,
        at: int | None,
        basis: str | None,
        dims: Mapping[str, str] | None,
        now: int | None,
        org: str | None,
    ) -> tuple[Metric, Frame]:
        basis, at_ms = _moment(at, basis, now)
        frame = Frame(org=self._org(org), basis=basis, at_ms=at_ms, end_ms=at_ms, dims=dims or {})
        frame = replace(frame, known=self._definitions(frame, name))
        if name not in frame.known.metrics:
            raise LookupError(f"no metric {name}")
        metric = frame.known.metrics[name]
        for dimension in frame.dims:
            self._has_dimension(metric, dimension)
        if company is not None:
            frame = replace(frame, leaves=self.component(self._leaf(company, frame.org), frame.c_ms))
        return metric, frame

    def _windowed(self, metric: Metric, frame: Frame, window: str, tz: str, now: int | None) -> Frame:
        """The frame with the bounds of a window.  `latest` with `all` has none."""
        if window == "all":
            return frame
        end = frame.at_ms
        if end is None and now is not None:
            end = clock.ceiling(now, metric.grain_ms)  # `latest`
        if end is None:
            raise Refused("a window of `latest` needs `now`")
        start = clock.window(window, end, tz) or 0
        if start % metric.grain_ms or end % metric.grain_ms:
            raise Refused(f"{metric.name} has a grain of {metric.grain_ms} ms")
        return replace(frame, start_ms=start, end_ms=end)

    def _org(self, org: str | None) -> str:
        orgs = sorted(self._history())
        if org is None and len(orgs) > 1:
            raise Refused(f"say which organisation: {orgs}")
        return org if org is not None else orgs[0] if orgs else ""

    def _history(self) -> Mapping[str, Sequence[tuple[int, bytes]]]:
        return self.reading.applied if self.applied is None else self.applied

    def _definitions(self, frame: Frame, metric: str) -> Definitions:
        """The bundle in force; before the first one that has the metric, as_shown uses that first one."""
        history = [(c, self.bundles[bundle]) for c, bundle in self._history().get(frame.org, ())]
        if not history:
            return definitions.NOTHING
        if frame.c_ms is None:  # now
            return history[-1][1]
        able = [(c, known) for c, known in history if metric in known.metrics]
        past = [known for c, known in able if c <= frame.c_ms]
        return past[-1] if past else able[0][1] if able else history[-1][1]

    def _below(self, metric: Metric, frame: Frame) -> list[Metric]:
        """The metrics over signals that a metric is made of."""
        if metric.formula is None:
            return [metric]
        operands = [frame.known.metrics[name] for name in metric.operands]
        return [one for operand in operands for one in self._below(operand, frame)]

    def _has_dimension(self, metric: Metric, name: str) -> None:
        if name not in metric.dimensions:
            raise LookupError(f"{metric.name} has no dimension {name}")

    def _leaf(self, company: str | bytes, org: str) -> bytes:
        if isinstance(company, bytes):
            leaf = company
        elif company.startswith("mk_"):
            leaf = keys.leaf_of_metakey(company)
        else:
            key, _, value = company.partition(":")
            leaf = keys.leaf(self.secret, org, "company", key, value)
        if not self._is_company(leaf):
            raise LookupError(f"no company {company!r}")
        return leaf

    def _is_company(self, leaf: bytes) -> bool:
        fact = self.reading.keys.get(leaf)
        return fact is not None and fact.entity == "company"

    # -- whose events they are

    def _whose(self, event: Event, frame: Frame) -> bool:
        """Whether an event is of the company that is asked for."""
        return frame.leaves is None or event.leaf in frame.leaves or bool(self._employers(event, frame) & frame.leaves)

    def _employers(self, event: Event, frame: Frame) -> frozenset[bytes]:
        """The company leaves to which the person of an event without company belonged when it happened."""
        if self._is_company(event.leaf):
            return frozenset()
        of = self.component(event.leaf, frame.c_ms)
        found = set()
        for one in self.reading.decisions:
            if one.what != "membership" or one.org != frame.org:
                continue
            for member, start, end in members_of(self.reading.decisions, frozenset(one.leaves[1:]), frame.c_ms):
                if member in of and (start is None or start <= event.t_ms) and (end is None or event.t_ms < end):
                    found.add(one.leaves[1])
        return frozenset(found)

    # -- the numbers

    def _signals_of(self, metric: Metric, org: str) -> list[tuple[Event, Signal]]:
        pairs = ((event, one) for event in self.reading.events if event.org == org for one in event.signals)
        return [(event, one) for event, one in pairs if metric.signature in one.measures]

    def _answer(self, metric: Metric, frame: Frame) -> Answer:
        if metric.formula is not None:
            return self._formula(metric, frame)
        pairs = [
            (event, one)
            for event, one in self._signals_of(metric, frame.org)
            if self._whose(event, frame) and _counts(event, one, frame)
        ]
        number = self._aggregate(metric, pairs, frame.c_ms)
        reason = "no_events" if number is None else None
        return Answer(value=_number(number), reason=reason, at_ms=frame.at_ms, basis=frame.basis)

    def _aggregate(self, metric: Metric, pairs: Iterable[tuple[Event, Signal]], c_ms: int | None) -> Fraction | None:
        if metric.aggregate == "count":
            return Fraction(sum(1 for _ in pairs)) or None
        if metric.aggregate == "distinct":
            leaves = {leaf for event, _ in pairs for entity, leaf in event.members if entity == metric.entity}
            return Fraction(len({self.root(leaf, c_ms) for leaf in leaves})) or None
        values = []
        for event, one in pairs:
            value = definitions.rounded(one.fields.get(metric.field or ""), metric.scale)
            if value is not None:
                values.append((event.t_ms, event.key, value))
        if not values:
            return None
        numbers = [value for _, _, value in values]
        if metric.aggregate == "sum":
            return sum(numbers, Fraction(0))
        if metric.aggregate == "avg":
            return sum(numbers, Fraction(0)) / len(numbers)
        if metric.aggregate == "min":
            return min(numbers)
        if metric.aggregate == "max":
            return max(numbers)
        if metric.aggregate == "percentile":
            return sorted(numbers)[math.floor((metric.percent or 0) * (len(numbers) - 1) / 100)]
        assert metric.aggregate == "last", f"no aggregate {metric.aggregate}"
        return max(values)[2]

    def _formula(self, metric: Metric, frame: Frame) -> Answer:
        names: dict[str, float] = {}
        for name in metric.operands:
            operand = frame.known.metrics[name]
            answer = self._answer(operand, frame)
            if answer.value is not None:
                names[name] = float(answer.value)
            elif operand.aggregate in _ZERO_IN_FORMULAS:
                names[name] = 0.0
            else:
                return replace(answer, value=None)
        empty = Answer(value=None, reason="division_by_zero", at_ms=frame.at_ms, basis=frame.basis)
        try:
            return replace(empty, value=expressions.evaluate(metric.formula or (), names), reason=None)
        except expressions.DivisionByZero:
            return empty
        except expressions.EvaluationError:
            return replace(empty, reason="out_of_range")


def _counts(event: Event, one: Signal, frame: Frame) -> bool:
    """Whether an event's signal counts for a question."""
    if event.superseded:
        return False
    if event.ended_ms is not None:
        shown = frame.basis == AS_SHOWN and frame.at_ms is not None
        if not shown or clock.bucket_end(event.t_ms, event.ended_ms) <= (frame.at_ms or 0):
            return False
    if frame.start_ms is not None and event.t_ms < frame.start_ms:
        return False
    if frame.end_ms is not None and event.t_ms >= frame.end_ms:
        return False
    if frame.at_ms is not None:  # corrected and as_shown
        if event.t_ms >= frame.at_ms:
            return False
        if frame.basis == AS_SHOWN and clock.bucket_end(event.t_ms, event.k_ms) > frame.at_ms:
            return False
    return all(_text(one.fields.get(name)) == text for name, text in frame.dims.items())


def _moment(at: int | None, basis: str | None, now: int | None) -> tuple[str, int | None]:
    """The basis, and the moment asked for, floored to 15 minutes (None for `latest`)."""
    if basis is None:
        basis = LATEST if at is None else CORRECTED
    if basis not in (LATEST, CORRECTED, AS_SHOWN):
        raise Refused(f"no basis {basis!r}")
    if basis == LATEST:
        if at is not None:
            raise Refused("`latest` has no `at`")
        return basis, None
    moment = at if at is not None else now
    if moment is None:
        raise Refused(f"{basis} needs `at`")
    return basis, clock.floor(moment)


def _text(value: Any) -> str:
    """A dimension's value as a name: whole numbers without a point, an absent value as `__none__`."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return OTHER if len(text.encode()) > 256 else text


def _number(value: Fraction | None) -> int | float | None:
    if value is None:
        return None
    return value.numerator if value.denominator == 1 else float(value)
