"""Completeness: how far the sources have come, and how final a number is.

    open         the end of the question lies behind `complete_to` (or it has no end): more is expected
    provisional  closed for less than 14 days
    corrected    final, and a counted record became known more than 14 days after its pane (or day) had ended
    final        none of these

`complete_to` is the least, over the sources that the metric needs, of the latest event time that the source has sent,
or up to which it was said to be complete (`milepost.source_complete`), whichever is later.  The ticks carry what was
sent to every signals partition (design §3).  What was said lies in one raw partition and is followed whole by every
worker (`topology/completions.py`); in a signals partition it counts once the ticks of all raw partitions have passed
its known time, so what was in the log before it has been taken.  What people do by hand, and what is said of breaches,
is complete as far as the raw partitions have been seen: nobody falls silent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from milepost.schemas import keys
from milepost.topology import acts, breach_records
from milepost.topology.asked import Asked
from milepost.topology.bases import Span
from milepost.topology.catalog import Catalog, Measure
from milepost.topology.panes import DAY_MS, PANE_MS
from milepost.topology.parts import Told
from milepost.topology.reading import Progress, Reader
from milepost.topology.steps import Steps, gather

FINAL_AFTER_MS: Final = 14 * DAY_MS
Finality = Literal["open", "provisional", "corrected", "final"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completeness:
    """complete_to: event time up to which the metric's sources have sent;  seen_to: known time up to which all raw
    partitions have been seen.  None: not known."""

    complete_to: int | None
    seen_to: int | None


def partitions_of(reader: Reader, asked: Asked) -> list[int]:
    """The signals partitions that a question reads."""
    if asked.root is None:
        return list(range(reader.partitions))
    own = (*asked.components.leaves(asked.root), *(stay.leaf for stay in asked.stays))
    return sorted({keys.leaf_partition(leaf, reader.partitions) for leaf in own})


def completeness(reader: Reader, asked: Asked, progresses: Sequence[Mapping[int, Progress]]) -> Completeness:
    """How complete the partitions are that a question reads: `progresses` is what each has been told."""
    sources = sources_of(asked.catalog, asked.measures.values())
    said, decided_at = reader.decisions.completions(asked.org), asked.moment.decided_at
    seen = [_seen(reader, progress) for progress in progresses]
    latest: list[int | None] = []
    for one, seen_ms in zip(told(progresses), seen, strict=True):
        before_ms = seen_ms if decided_at is None else min(seen_ms, decided_at + 1)
        if any(_ours(asked.catalog, measure) for measure in asked.measures.values()):
            latest.append(seen_ms or None)
        for source in sources:
            sent = one.get((asked.org, source), (None, None))[0]
            latest.append(
                max((each for each in (sent, said.until(source, before_ms)) if each is not None), default=None)
            )
    complete = None if not latest or None in latest else min(one for one in latest if one is not None)
    return Completeness(complete_to=complete, seen_to=min(seen, default=0) or None)


def _seen(reader: Reader, progress: Mapping[int, Progress]) -> int:
    """The known time that the ticks of all raw partitions have passed in a signals partition; 0: not all have come."""
    return min(one.k_ms for one in progress.values()) if len(progress) >= reader.partitions else 0


def _ours(catalog: Catalog, measure: Measure) -> bool:
    """Whether a measure is of what people do by hand, or of what the watch over sources says: nobody falls silent."""
    return measure.version == acts.TICKS.version or catalog.rules[measure.rule].on in breach_records.TYPES


def finality(asked: Asked, span: Span, corrected: bool, complete: Completeness) -> Finality:
    """How final a number is; see the module.  `corrected`: a counted record came after its time was final."""
    end_ms = span.stop * PANE_MS
    if not span.bounded or complete.complete_to is None or end_ms > complete.complete_to:
        return "open"
    if corrected:
        return "corrected"
    clock = asked.moment.at_ms if asked.moment.basis == "as_shown" else asked.question.now_ms
    return "provisional" if clock < end_ms + FINAL_AFTER_MS else "final"


def progress_of(reader: Reader, partitions: Iterable[int]) -> Steps[list[Mapping[int, Progress]]]:
    """What the ticks have told each of some signals partitions."""
    return (yield from gather(reader, [Told(partition=number) for number in partitions]))


def told(progresses: Iterable[Mapping[int, Progress]]) -> list[dict[tuple[str, str], tuple[int, int]]]:
    """For each signals partition's progress: (org, source) -> (largest event time, last known time)."""
    out = []
    for told in progresses:
        latest: dict[tuple[str, str], tuple[int, int]] = {}
        for progress in told.values():
            for source, (t_ms, k_ms) in progress.sources.items():
                known = latest.get(source, (t_ms, k_ms))
                latest[source] = (max(known[0], t_ms), max(known[1], k_ms))
        out.append(latest)
    return out


def sources_of(catalog: Catalog, measures: Iterable[Measure]) -> list[str]:
    """The sources whose events the measures are made of."""
    types = {catalog.rules[measure.rule].on for measure in measures if measure.version != acts.TICKS.version}
    return sorted(name for name, source in catalog.sources.items() if types & set(source.types))
