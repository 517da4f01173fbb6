"""Explain: the events behind a number, added again on the spot, and what changed it between two moments.

    question -> sums of its cells  -- the same? -->  sums of its facts (topology/evidence.py)
    two questions -> what one counts and the other does not -> causes that add up to the difference

Cells and facts of a partition are read together, as of one moment, so that `agrees` means something under load, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from milepost.schemas import keys
from milepost.topology import bases
from milepost.topology.aggregates import unscaled
from milepost.topology.asked import Asked, Question
from milepost.topology.asked import asked as asked_of
from milepost.topology.bases import Span, written
from milepost.topology.catalog import Measure, Metric
from milepost.topology.completeness import completeness, partitions_of
from milepost.topology.evidence import CAUSES, EVENTS_MAX, ORDER_BYTES, Change, Changes, Entry, Evidence, Side
from milepost.topology.panes import PANE_MS
from milepost.topology.parts import StaySums, Sums, Told
from milepost.topology.questions import Questions
from milepost.topology.reading import Progress, Unavailable
from milepost.topology.refusals import BadParameter
from milepost.topology.scans import Tally
from milepost.topology.steps import Got, Part, Steps, gathered

ADDITIVE: Final = frozenset({"count", "sum"})
_NOTHING: Final = bytes(8)
"""A version that no measure has."""


class Read(NamedTuple):
    """A question about to be answered from cells: its span, the parts that add them up, and whose they are."""

    asked: Asked
    span: Span
    sums: list[Sums]

    def of(self, version: bytes) -> list[Sums]:
        return [one for one in self.sums if one.version == version]


class Explanations(Questions):
    """Questions about the why of a number."""

    def explain(
        self, question: Question, behind: str | None, limit: int, stretch: tuple[int, int] | None = None
    ) -> Steps[dict[str, Any]]:
        """The answer of `value` with `recomputed`, `agrees`, a line an operand, and a page of events by event time.

        behind:  `next` of the page before
        stretch: instead of the window [start, end) in ms, as of a point of a series
        """
        after = _behind(behind)
        read = yield from self._read(question, stretch)
        asked, span = read.asked, read.span
        evidence = [
            Evidence(partition=one.partition, side=_side(one, span), behind=after, take=limit + 1) for one in read.sums
        ]
        told = [Told(partition=number) for number in partitions_of(self._reader, asked)]
        got = yield from gathered(self._reader, [*read.sums, *evidence, *told])
        epochs = _epochs([*read.sums, *evidence], got)
        many = len(read.sums)
        cells = _added(asked, read.sums, [one.value for one in got[:many]])
        facts = _added(asked, read.sums, [one.value[0] for one in got[many : 2 * many]])
        whole = all(one.value[1] for one in got[many : 2 * many])
        operands = []
        for metric in asked.parts:
            if metric.measure is not None:
                version = metric.measure.version
                value, reason = yield from self._aggregate(asked, metric, metric.measure, cells[version], epochs)
                again, _ = yield from self._aggregate(asked, metric, metric.measure, facts[version], epochs)
                same = value == again and cells[version].n == facts[version].n
                operands.append(
                    {
                        "metric": metric.name,
                        "value": value,
                        "reason": reason,
                        "counted": cells[version].n,
                        "recomputed": again if whole else None,
                        "agrees": same if whole else None,
                    }
                )
        value, reason = yield from self._number(asked, cells, epochs)
        again, _ = yield from self._number(asked, facts, epochs)
        found = [
            (one.side.version, entry)
            for one, told_by in zip(evidence, got[many : 2 * many], strict=True)
            for entry in told_by.value[2]
        ]
        rows, further = yield from self._rows(asked, found, limit, _measures(asked))
        progresses: list[Mapping[int, Progress]] = [one.value for one in got[2 * many :]]
        return {
            **self._head(asked, completeness(self._reader, asked, progresses)),
            "value": value,
            "reason": reason,
            **_time(question, span, stretch),
            "tz": question.tz,
            "recomputed": again if whole else None,
            "agrees": all(one["agrees"] for one in operands) if whole else None,
            "limited": None if whole else f"more than {EVENTS_MAX} events of a partition: only these were read",
            "operands": operands,
            "rows": rows,
            "next": further,
        }

    def diff(self, question: Question, to: Question, behind: str | None, limit: int) -> Steps[dict[str, Any]]:
        """What `question` and `to` answer, and the events that make the difference, by cause."""
        place = _behind(behind)
        before, after = (yield from self._read(question)), (yield from self._read(to))
        pairs = _paired(before.asked, after.asked)
        compared: list[Changes] = []
        of: list[tuple[bytes, bytes]] = []  # what each compares; a side that reads nothing does not say so itself
        for old, new in dict.fromkeys((_version(was), _version(now)) for _, was, now in pairs):
            some = changes(before, after, old, new, place, limit + 1)
            compared += some
            of += [(old, new)] * len(some)
        sums = [*before.sums, *after.sums]
        got = yield from gathered(self._reader, [*sums, *compared])
        epochs = _epochs([*sums, *compared], got)
        many = len(before.sums)
        tallies = (
            _added(before.asked, before.sums, [one.value for one in got[:many]]),
            _added(after.asked, after.sums, [one.value for one in got[many : len(sums)]]),
        )
        told = got[len(sums) :]
        whole = all(one.value[1] for one in told)
        operands = []
        for name, was, now in pairs:
            causes: dict[str, Change] = {}
            for versions, one in zip(of, told, strict=True):
                if versions == (_version(was), _version(now)):
                    for cause, change in one.value[0].items():
                        causes[cause] = causes.get(cause, Change()).plus(change)
            values, exact = [], []
            for side, tally, metric in ((before.asked, tallies[0], was), (after.asked, tallies[1], now)):
                known, sum_ = None, 0
                if metric is not None and metric.measure is not None:
                    known, _ = yield from self._aggregate(
                        side, metric, metric.measure, tally[metric.measure.version], epochs
                    )
                    here = tally[metric.measure.version]
                    sum_ = here.n if metric.measure.field is None else here.sum
                values.append(known)
                exact.append(sum_)
            operands.append(_operand(name, was, now, values, exact, causes, whole))
        ends = []
        for side, tally in ((before.asked, tallies[0]), (after.asked, tallies[1])):
            value, reason = yield from self._number(side, tally, epochs)
            ends.append({**_moment(side), "value": value, "reason": reason})
        named = {**_measures(before.asked), **_measures(after.asked)}
        found = [
            (part.before.version if part.after.version == _NOTHING else part.after.version, entry)
            for part, one in zip(compared, told, strict=True)
            for entry in one.value[2]
        ]
        rows, further = yield from self._rows(after.asked, found, limit, named)
        asked = after.asked
        return {
            "metric": asked.metric.name,
            "unit": asked.metric.unit,
            "org": asked.org,
            "company": None if asked.root is None else keys.metakey(asked.root),
            "dims": dict(question.dims),
            "window": question.window,
            "tz": question.tz,
            "before": ends[0],
            "after": ends[1],
            "limited": None if whole else f"more than {EVENTS_MAX} events of a partition: only these were read",
            "operands": operands,
            "rows": rows,
            "next": further,
        }

    def _read(self, question: Question, stretch: tuple[int, int] | None = None) -> Steps[Read]:
        asked = yield from asked_of(self._reader, question)
        if stretch is None:
            span = bases.window(question.window, asked.moment, question.tz, asked.grain_ms)
        else:
            span = bases.stretch(*stretch, asked.moment, asked.grain_ms)
        sums: list[Sums] = []
        for measure in asked.measures.values():
            sums += yield from self._sums(asked, measure, (span,), None)
        return Read(asked, span, sums)

    def _rows(
        self,
        asked: Asked,
        found: Sequence[tuple[bytes, Entry]],
        limit: int,
        measures: Mapping[bytes, tuple[Measure, list[str]]],
    ) -> Steps[tuple[list[dict[str, Any]], str | None]]:
        """A page of entries (each with its measure's version) as rows, and what `next` asks for the page behind it."""
        page = sorted(found, key=lambda one: one[1].order)
        some, further = page[:limit], page[limit - 1][1].order.hex() if len(page) > limit else None
        names = yield from asked.companies.rows({entry.leaf for _, entry in some})
        rows = []
        for version, entry in some:
            measure, metrics = measures[version]
            name = names.get(entry.leaf)
            value = int.from_bytes(entry.value or b"", "big", signed=True)
            rows.append(
                {
                    "metrics": metrics,
                    "source": entry.source,
                    "id": entry.id,
                    "type": entry.type,
                    "time": written(entry.t_ms),
                    "known": written(entry.k_ms),
                    "revision": entry.revision,
                    "repair": entry.repair,
                    "position": f"raw-events/{entry.partition}@{entry.offset}",
                    "company": keys.metakey(asked.components.root(entry.leaf)),
                    "key": None if name is None else f"{name.kind}:{name.value}",
                    "rule": entry.rule,
                    "rule_version": entry.rule_version.hex(),
                    "adds": value if measure.field is None else unscaled(value, measure.scale),
                    **({"members": [keys.metakey(one) for one in entry.members]} if measure.entity else {}),
                    **({"cause": entry.cause, "before": entry.before, "after": entry.after} if entry.cause else {}),
                }
            )
        return rows, further


def _side(sums: Sums, span: Span, *others: Sums) -> Side:
    """What a part adds up, and others of the same measure and partition beside it."""
    parts = [sums, *others]
    stays = tuple((leaf, start, stop) for one in parts for leaf, _, start, stop in _stays(one))
    everyone = any(one.leaves is None and not isinstance(one, StaySums) for one in parts)
    return Side(
        version=sums.version,
        shape=sums.shape,
        dimensions=sums.dimensions,
        start=span.start,
        stop=span.stop,
        until=sums.until,
        dims=sums.dims,
        leaves=None if everyone else tuple(leaf for one in parts for leaf in one.leaves or ()),
        stays=stays,
    )


def _stays(sums: Sums) -> tuple[tuple[bytes, bytes, int, int], ...]:
    return sums.stays if isinstance(sums, StaySums) else ()


def changes(before: Read, after: Read, was: bytes, now: bytes, behind: bytes, take: int) -> list[Changes]:
    """What compares one measure's facts, or those of two versions of it, in every partition that either side reads."""
    sums = [before.of(was), after.of(now)]
    found = []
    for partition in sorted({one.partition for some in sums for one in some}):
        sides = []
        for read, some, other in ((before, sums[0], sums[1]), (after, sums[1], sums[0])):
            here = [one for one in some if one.partition == partition]
            if some and here:
                sides.append(_side(here[0], read.span, *here[1:]))
                continue
            # Nothing of it is read here, or nothing at all: a side that counts no fact.
            like = some[0] if some else replace(other[0], version=_NOTHING)
            sides.append(replace(_side(like, read.span), leaves=(), stays=()))
        found.append(Changes(partition=partition, before=sides[0], after=sides[1], behind=behind, take=take))
    return found


def _paired(before: Asked, after: Asked) -> list[tuple[str, Metric | None, Metric | None]]:
    """(name, metric before, metric after) of all that is counted on either side."""
    sides = [{one.name: one for one in asked.parts if one.measure is not None} for asked in (before, after)]
    return [(name, sides[0].get(name), sides[1].get(name)) for name in dict.fromkeys((*sides[0], *sides[1]))]


def _version(metric: Metric | None) -> bytes:
    return _NOTHING if metric is None or metric.measure is None else metric.measure.version


def _measures(asked: Asked) -> dict[bytes, tuple[Measure, list[str]]]:
    """Version -> the measure and the names of the metrics that read it."""
    found: dict[bytes, tuple[Measure, list[str]]] = {}
    for metric in asked.parts:
        if metric.measure is not None:
            found.setdefault(metric.measure.version, (metric.measure, []))[1].append(metric.name)
    return found


def _operand(
    name: str,
    was: Metric | None,
    now: Metric | None,
    values: Sequence[int | float | None],
    sums: Sequence[int],
    causes: Mapping[str, Change],
    whole: bool,
) -> dict[str, Any]:
    """A line of the difference: both values, and what each cause adds."""
    metric = now if now is not None else was
    assert metric is not None
    scales = _scale(was or metric), _scale(now or metric)
    scale = max((one for one in scales if one is not None), default=None)

    def added(cause: str) -> int | float:
        change = causes[cause].sum
        if scales[0] != scales[1]:  # another definition, and the whole difference its doing; each side at its own scale
            before, after = (sum * 10 ** ((scale or 0) - (of or 0)) for sum, of in zip(sums, scales, strict=True))
            change = after - before
        return change if scale is None else unscaled(change, scale)

    told = {
        cause: {
            "added": causes[cause].added,
            "removed": causes[cause].removed,
            "changed": causes[cause].changed,
            "sum": added(cause),
        }
        for cause in CAUSES
        if cause in causes
    }
    adds_up = None
    if whole and metric.aggregate in ADDITIVE:
        adds_up = sums[0] + sum(one.sum for one in causes.values()) == sums[1]
    return {"metric": name, "before": values[0], "after": values[1], "causes": told, "adds_up": adds_up}


def _scale(metric: Metric) -> int | None:
    """Decimals of what a metric's facts add; None: they are counted."""
    assert metric.measure is not None
    return None if metric.measure.field is None else metric.measure.scale


def _added(asked: Asked, parts: Sequence[Sums], values: Iterable[Any]) -> dict[bytes, Tally]:
    """Version -> tally, of what each part gave: a tally, or tallies by group and span."""
    found = {version: Tally(measure.shape) for version, measure in asked.measures.items()}
    for part, value in zip(parts, values, strict=True):
        for tally in [value] if isinstance(value, Tally) else value.values():
            found[part.version].merge(tally)
    return found


def _epochs(parts: Sequence[Part], got: Sequence[Got]) -> dict[int, int]:
    """Signals partition -> the ownership it was read under.  Raises Unavailable when there were two."""
    epochs: dict[int, int] = {}
    for part, one in zip(parts, got, strict=False):
        if epochs.setdefault(part.partition, one.epoch) != one.epoch:
            raise Unavailable("measure", part.partition, "handed over")
    return epochs


def _time(question: Question, span: Span, stretch: tuple[int, int] | None) -> dict[str, Any]:
    """What of event time was asked: a window, or a stretch as it was cut at the moment's T."""
    if stretch is None:
        return {"window": question.window}
    return {"from": written(span.start * PANE_MS), "to": written(span.stop * PANE_MS)}


def _moment(asked: Asked) -> dict[str, Any]:
    return {
        "at": written(asked.moment.at_ms),
        "basis": asked.moment.basis,
        "version": asked.metric.version.hex(),
        "definition": "backfilled" if asked.backfilled else "current",
    }


def _behind(text: str | None) -> bytes:
    """The place behind which a page begins."""
    try:
        found = bytes.fromhex(text or "")
    except ValueError:
        found = b"?"
    if len(found) not in (0, ORDER_BYTES):
        raise BadParameter("next is the value of next in the answer before")
    return found
