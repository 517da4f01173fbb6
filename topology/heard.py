"""Heard: how far each source had sent by when, so that completeness can be told as it was (semantics S6).

    accepted event -> note (in the mark, a slice long) -> keep: source, day of known time -> steps
    steps of all raw partitions -> complete: the pane up to which the sources had sent, at any known time

The ticks say how far a source has sent *now*.  Whether a milestone was missed at its deadline, or nobody knew, depends
on what had been heard *then*; and ticks are compacted away.  So ingest keeps the steps: by the end of which quarter of
an hour of known time an event of which pane had come.  A step that says less than one before it says nothing, so the
answers are a function of the set of events, whatever order they came in.  Almost no event makes a step.
"""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from milepost.schemas.keys import lp
from milepost.topology.ingest_mark import IngestMark
from milepost.topology.panes import PANE_MS, PANES_A_DAY
from milepost.topology.reading import Reader
from milepost.topology.state import UPTO, Partition
from milepost.topology.steps import Steps, gather

Source = tuple[str, str]
"""(organisation, source)."""
Stair = tuple[int, int]
"""(K, pane): by the bucket end K an event of this pane had come, and none of a later one before."""

_STAIR: Final = struct.Struct(">II")
ROWS_A_STEP: Final = 500


def note(mark: IngestMark, sent: Source, t_ms: int, k_ms: int, offset: int) -> None:
    """An accepted event moves the progress of its source, and may be a step of it."""
    progress, pane = mark.progress.get(sent), t_ms // PANE_MS
    if progress is None:
        progress = mark.progress[sent] = [t_ms, k_ms]
    elif pane <= progress[0] // PANE_MS and k_ms >= progress[1]:
        # Known no earlier than all before it, and of no later pane: not a step.
        progress[:] = max(progress[0], t_ms), k_ms
        return
    mark.heard.append((sent, k_ms // PANE_MS + 1, pane, offset))
    progress[:] = max(progress[0], t_ms), max(progress[1], k_ms)


def keep(at: Partition, mark: IngestMark) -> None:
    """Put the rows of a slice's steps."""
    if not mark.heard:
        return
    noted, mark.heard = mark.heard, []
    found: dict[bytes, list[Stair]] = {}
    upto: dict[bytes, int] = {}
    for sent, end, pane, offset in noted:
        row = _key(sent, (end - 1) // PANES_A_DAY)
        found.setdefault(row, []).append((end, pane))
        upto[row] = offset
    rows = list(found)
    for row, value in zip(rows, at.stores["heard"].get_many(rows), strict=True):
        before = [] if value is None else list(_load(value))
        after = steps([*before, *found[row]])
        if after != before:
            packed = b"".join(_STAIR.pack(*one) for one in after)
            at.stores["heard"].put(row, upto[row].to_bytes(UPTO, "big") + packed)


def steps(stairs: Iterable[Stair]) -> list[Stair]:
    """The stairs that rise, in their order."""
    found: list[Stair] = []
    for end, pane in sorted(stairs):
        if found and pane <= found[-1][1]:
            continue
        if found and found[-1][0] == end:
            found.pop()
        found.append((end, pane))
    return found


@dataclass(frozen=True, kw_only=True)
class Heard:
    """The stairs of sources in a raw partition, up to the bucket end `until`; of those up to `since` only the last."""

    partition: int
    sources: tuple[tuple[str, str], ...]
    since: int
    until: int
    leg: str = "ingest"

    def read(self, reader: Reader) -> Steps[list[list[Stair]]]:
        found = []
        for source in self.sources:
            first, last = _key(source, 0), _key(source, max(0, self.until - 1) // PANES_A_DAY + 1)
            stairs: list[Stair] = []
            rows = 0
            while first < last:
                some = []
                for pair in reader.stores("ingest", self.partition)["heard"].scan(first, last):
                    some.append(pair)
                    if len(some) == ROWS_A_STEP:
                        break
                for _, value in some:
                    stairs += (one for one in _load(value) if one[0] <= self.until)
                rows += len(some)
                before = bisect_right(stairs, self.since, key=lambda one: one[0])
                if before > 1:
                    stairs = [max(stairs[:before], key=lambda one: one[1]), *stairs[before:]]
                if len(some) < ROWS_A_STEP:
                    break
                first = some[-1][0] + b"\x00"
                yield None
            found.append(steps(stairs))
        return found

    def pack(self, value: Sequence[Sequence[Stair]]) -> Any:
        return [[list(one) for one in stairs] for stairs in value]

    def unpack(self, data: Any) -> list[list[Stair]]:
        return [[(end, pane) for end, pane in stairs] for stairs in data]


@dataclass(frozen=True, slots=True)
class Complete:
    """How far the sources together had sent, from some K on.  A source of which nothing was heard knows of nothing."""

    stairs: tuple[tuple[Stair, ...], ...]

    def at(self, k: int) -> int | None:
        """The pane end up to which all had sent by the bucket end `k`; None: not known."""
        least: int | None = None
        for one in self.stairs:
            place = bisect_right(one, k, key=lambda stair: stair[0])
            if not place:
                return None
            least = one[place - 1][1] if least is None else min(least, one[place - 1][1])
        return least

    @property
    def turns(self) -> set[int]:
        """The bucket ends at which it may change."""
        return {end for one in self.stairs for end, _ in one}


def complete(reader: Reader, sources: Sequence[Source], since: int, until: int) -> Steps[Complete]:
    """How far sources had sent, or were said to be complete, at each bucket end from `since` to `until`."""
    wanted = tuple(sorted(set(sources)))
    said = [reader.decisions.completions(org).steps(source) for org, source in wanted]
    by_hand = [
        [(end, until_ms // PANE_MS) for k_ms, until_ms in one if (end := k_ms // PANE_MS + 1) <= until] for one in said
    ]
    parts = [Heard(partition=one, sources=wanted, since=since, until=until) for one in range(reader.partitions)]
    told: list[list[list[Stair]]] = yield from gather(reader, parts)
    return Complete(
        tuple(tuple(steps((*by_hand[at], *(stair for one in told for stair in one[at])))) for at in range(len(wanted)))
    )


def _key(source: Source, day: int) -> bytes:
    names = b"".join(lp(name.encode()) for name in source)
    return hashlib.blake2b(names, digest_size=16).digest() + day.to_bytes(4, "big")


def _load(value: bytes) -> Iterable[Stair]:
    return _STAIR.iter_unpack(value[UPTO:])
