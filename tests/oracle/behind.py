"""What lies behind the oracle's numbers: the events of a value, and why two values differ."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from tests.oracle import clock, definitions
from tests.oracle.definitions import Metric
from tests.oracle.log import Event, Signal
from tests.oracle.oracle import AS_SHOWN, Frame, Oracle, _counts

Place = tuple[str, str, int, int]
"""(source, id, revision, repair)."""


class Side(NamedTuple):
    """A question: its metrics over signals by name, and its frame."""

    below: Mapping[str, Metric]
    frame: Frame


def side(oracle: Oracle, metric: str, company: str | None, asked: Mapping[str, Any]) -> Side:
    more = {name: asked.get(name) for name in ("at", "basis", "dims", "now", "org")}
    found, frame = oracle._asked(metric, company, **more)
    frame = oracle._windowed(found, frame, asked.get("window", "all"), asked.get("tz", "UTC"), asked.get("now"))
    return Side({one.name: one for one in oracle._below(found, frame)}, frame)


def events(oracle: Oracle, metric: str, company: str | None, asked: Mapping[str, Any]) -> set[tuple[str, Place, Any]]:
    """(metric, event, what it adds) of all that counts for a question."""
    here = side(oracle, metric, company, asked)
    return {(name, place(event), adds) for name in here.below for event, adds in _counted(oracle, here, name)}


def place(event: Event) -> Place:
    return event.source, event.id, *event.rank


def causes(
    oracle: Oracle, metric: str, company: str | None, before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, dict[str, tuple[int, int, int, Fraction]]]:
    """Metric -> cause -> (events that count only after, only before, otherwise; what all of them change)."""
    was, now = side(oracle, metric, company, before), side(oracle, metric, company, after)
    found: dict[str, dict[str, tuple[int, int, int, Fraction]]] = {}
    for name in dict.fromkeys((*was.below, *now.below)):
        sides = [
            {place(event): (event, adds) for event, adds in (_counted(oracle, one, name) if name in one.below else ())}
            for one in (was, now)
        ]
        same = was.below.get(name) and now.below.get(name) and was.below[name].signature == now.below[name].signature
        here = found.setdefault(name, {})
        for one in sides[0].keys() | sides[1].keys():
            old, new = sides[0].get(one), sides[1].get(one)
            if old is not None and new is not None and old[1] == new[1]:
                continue
            event = (new or old or (None,))[0]
            assert event is not None
            other = was.frame if new is not None else now.frame
            cause = _why(oracle, event, was.frame, now.frame, other) if same else "definition"
            known = here.get(cause, (0, 0, 0, Fraction(0)))
            delta = (new[1] if new else Fraction(0)) - (old[1] if old else Fraction(0))
            kinds = (old is None, new is None, old is not None and new is not None)
            here[cause] = (*(n + kind for n, kind in zip(known, kinds, strict=False)), known[3] + delta)  # type: ignore[assignment]
    return found


def _counted(oracle: Oracle, here: Side, name: str) -> list[tuple[Event, Fraction]]:
    metric = here.below[name]
    found = []
    for event, one in oracle._signals_of(metric, here.frame.org):
        if (
            oracle._whose(event, here.frame)
            and _counts(event, one, here.frame)
            and (adds := _adds(metric, event, one)) is not None
        ):
            found.append((event, adds))
    return found


def _adds(metric: Metric, event: Event, one: Signal) -> Fraction | None:
    if metric.entity is not None:
        return Fraction(1) if any(entity == metric.entity for entity, _ in event.members) else None
    if metric.field is None:
        return Fraction(1)
    return definitions.rounded(one.fields.get(metric.field), metric.scale)


def _why(oracle: Oracle, event: Event, was: Frame, now: Frame, other: Frame) -> str:
    inside = [oracle._whose(event, frame) for frame in (was, now)]
    if inside[0] != inside[1]:
        return "merged" if inside[1] else "unmerged"
    if _known(event, other):
        return "period"
    # Measure hears of an event's lowest revision only if it has signals.
    family = [one for one in oracle.reading.events if one.key == event.key and (one.signals or one.rank != (0, 0))]
    holder = next((one for one in family if _known(one, other)), None)
    if holder is None:
        early = other.start_ms is not None and event.t_ms < other.start_ms
        late = other.end_ms is not None and event.t_ms >= other.end_ms
        return "period" if early or late else "late"
    return "voided" if holder.void else "amended"


def _known(event: Event, frame: Frame) -> bool:
    """Whether an event counts by what is known, whatever else the frame selects."""
    if event.superseded:
        return False
    shown = frame.basis == AS_SHOWN and frame.at_ms is not None
    if shown and clock.bucket_end(event.t_ms, event.k_ms) > (frame.at_ms or 0):
        return False
    if event.ended_ms is None:
        return True
    return shown and clock.bucket_end(event.t_ms, event.ended_ms) > (frame.at_ms or 0)
