"""Parts: the reads of one partition that questions are made of; plain data, so that any worker can be asked for them.

    KeyRows  CompanyKeys                     of ingest         who a leaf is, what there is
    SeenRows  AmendedRows                    of ingest         whether an event was accepted, and its revisions
    Heard                                    of ingest         how far sources had sent by when (heard.py)
    Leaves FirstDay Sums StaySums MemberLeaves  of measure     rows of cells, added up where they lie
    Ends                                     of measure        when anything of them became known (ends.py)
    Behind                                   of ingest         what became known at a time that had passed (behind.py)
    Told                                     of measure        what the ticks have said
    Evidence  Changes                        of measure        the facts behind numbers (evidence.py)
    TickedBy                         of measure         who ticked an action (ticks.py)
    LatestSignals                            of measure        the newest events of a company (latest.py)
    Reached  SignalsOf                       of both           what became of a receipt (receipts.py)
    RecordRows                               of record         the changes of a record (record_versions.py)

Each answers from one partition's tables as they are; what may be long comes in pages (with the `start` of the next).
Definitions, identity and time are not looked up here: whoever asks has decided them, and says so in the fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from pyroaring import BitMap

from milepost.schemas import keys
from milepost.topology.aggregates import Shape
from milepost.topology.bases import Range, Slots, Span, cover
from milepost.topology.behind import Behind
from milepost.topology.digest import TableRows
from milepost.topology.ends import Ends
from milepost.topology.evidence import Changes, Evidence
from milepost.topology.examples import Examples
from milepost.topology.heard import Heard
from milepost.topology.latest import LatestSignals
from milepost.topology.metrics import unpacked
from milepost.topology.quality import Counted
from milepost.topology.reading import Progress, Reader
from milepost.topology.receipts import Reached, SignalsOf
from milepost.topology.record_versions import RecordRows
from milepost.topology.refold import refold
from milepost.topology.scans import STEP_ROWS, Family, Pair, Take, Tally, after, family, leaves, pieces, read
from milepost.topology.state import UPTO
from milepost.topology.steps import Part, Steps
from milepost.topology.ticks import TickedBy

LEAVES_A_PAGE: Final = 10_000
KEYS_A_PAGE: Final = 2_000
SCANNED_A_PAGE: Final = 50_000
GROUPS_MAX: Final = 10_001
"""Values of a dimension that one part answers with at most: one more than a breakdown may have rows."""
MEMBERS_A_PART: Final = 100_000


class _Plain:
    """A part whose answer is plain data already."""

    __slots__ = ()

    def pack(self, value: Any) -> Any:
        return value

    def unpack(self, data: Any) -> Any:
        return data


@dataclass(frozen=True, kw_only=True)
class KeyRows(_Plain):
    """The rows of `keys` of some leaves, in their order; None where the partition has none."""

    partition: int
    leaves: tuple[bytes, ...]
    leg: str = "ingest"

    def read(self, reader: Reader) -> Steps[list[bytes | None]]:
        found: list[bytes | None] = []
        for at in range(0, len(self.leaves), STEP_ROWS):
            if at:
                yield None
            found += reader.stores("ingest", self.partition)["keys"].get_many(self.leaves[at : at + STEP_ROWS])
        return found


@dataclass(frozen=True, kw_only=True)
class CompanyKeys(_Plain):
    """A page of the company keys: ([leaf, row], ...), start of the next page.

    scan: so many keys at most are looked at
    """

    partition: int
    start: bytes = b""
    scan: int = SCANNED_A_PAGE
    leg: str = "ingest"

    def read(self, reader: Reader) -> Steps[list[Any]]:
        found: list[Any] = []
        scanned, stop = 0, b"\xff" * (keys.LEAF_BYTES + 1)
        for rows in pieces(reader.stores("ingest", self.partition)["keys"], self.start, stop):
            # The bytes are looked at before they are parsed: most keys are of persons and devices.
            found += [[leaf, value] for leaf, value in rows if b'"entity":"company"' in value]
            scanned += len(rows)
            if len(found) >= KEYS_A_PAGE or scanned >= self.scan:
                return [found, rows[-1][0] + b"\x00"]
            yield None
            reader.stores("ingest", self.partition)  # still here
        return [found, None]


@dataclass(frozen=True, kw_only=True)
class SeenRows(_Plain):
    """The rows of `seen` of some raw keys, in their order; None where there is none."""

    partition: int
    keys: tuple[bytes, ...]
    leg: str = "ingest"

    def read(self, reader: Reader) -> Steps[list[bytes | None]]:
        yield from ()
        return reader.stores("ingest", self.partition)["seen"].get_many(self.keys)


@dataclass(frozen=True, kw_only=True)
class AmendedRows(_Plain):
    """The rows of `amended` of some events (raw keys of their revision 0), in their order; None where there is none."""

    partition: int
    keys: tuple[bytes, ...]
    leg: str = "ingest"

    def read(self, reader: Reader) -> Steps[list[bytes | None]]:
        yield from ()
        return reader.stores("ingest", self.partition)["amended"].get_many(self.keys)


@dataclass(frozen=True, kw_only=True)
class Leaves(_Plain):
    """A page of the leaves that have rows of a measure, in order: (leaves, start of the next page)."""

    partition: int
    version: bytes
    start: bytes = b""
    leg: str = "measure"

    def read(self, reader: Reader) -> Steps[list[Any]]:
        found: list[bytes] = []
        start: bytes | None = self.start
        while start is not None:
            days = reader.stores("measure", self.partition)["days"]
            some = list(islice(leaves(days, self.version, start), 100))
            found += some
            start = after(some[-1]) if len(some) == 100 else None
            if len(found) >= LEAVES_A_PAGE:
                break
            yield None
        return [found, start]


@dataclass(frozen=True, kw_only=True)
class FirstDay(_Plain):
    """The first day on which a measure has rows, of the given leaves or of all; None: it has none."""

    partition: int
    version: bytes
    leaves: tuple[bytes, ...] | None = None
    leg: str = "measure"

    def read(self, reader: Reader) -> Steps[int | None]:
        first: int | None = None
        days = reader.stores("measure", self.partition)["days"]
        wanted: Iterable[bytes] = leaves(days, self.version) if self.leaves is None else self.leaves
        for number, leaf in enumerate(wanted):
            before = self.version + leaf + b"\x00"
            row = next(reader.stores("measure", self.partition)["days"].scan(before, before + b"\xff" * 4), None)
            if row is not None:
                day = int.from_bytes(row[0][-4:], "big")
                first = day if first is None else min(first, day)
            if number % 100 == 99:
                yield None
        return first


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the ticks have told a signals partition: raw partition -> progress."""

    partition: int
    leg: str = "measure"

    def read(self, reader: Reader) -> Steps[dict[int, Progress]]:
        yield from ()
        return dict(reader.progress(self.partition))

    def pack(self, value: Mapping[int, Progress]) -> Any:
        return [
            [number, one.k_ms, [[*source, *sent] for source, sent in one.sources.items()]]
            for number, one in value.items()
        ]

    def unpack(self, data: Any) -> dict[int, Progress]:
        return {
            number: Progress(k_ms=k_ms, sources={(org, source): (t_ms, last) for org, source, t_ms, last in sources})
            for number, k_ms, sources in data
        }


@dataclass(frozen=True, kw_only=True)
class Sums:
    """What rows of a measure add up to: (group, index of the span) -> tally.

    wanted:   dimensions whose values matter; dims: those that have one value
    spans:    (start, stop) in panes;  until: buckets of known time that end by then count
    panes:    (start, stop) behind the spans: each pane of it is a span too, numbered behind them
    by:       dimension whose values are the groups; else the group is None
    leafwise: the leaf is the group
    leaves:   whose rows count; None: all that have any
    """

    partition: int
    version: bytes
    shape: Shape
    dimensions: tuple[str, ...]
    wanted: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    until: int
    dims: dict[str, str] = field(default_factory=dict)
    by: str | None = None
    leafwise: bool = False
    leaves: tuple[bytes, ...] | None = None
    panes: tuple[int, int] | None = None
    leg: str = "measure"

    @property
    def slots_max(self) -> int:
        """How many spans there are."""
        return len(self.spans) + (0 if self.panes is None else self.panes[1] - self.panes[0])

    def read(self, reader: Reader) -> Steps[dict[tuple[bytes | None, int], Tally]]:
        spans = [Span(start=start, stop=stop) for start, stop in self.spans]
        ranges, slots = _cover(spans, self.panes), Slots(spans, self.panes)
        found: dict[tuple[bytes | None, int], Tally] = {}
        wanted: Iterable[bytes] = self.leaves or ()
        if self.leaves is None:
            wanted = leaves(reader.stores("measure", self.partition)["days"], self.version)
        for leaf in wanted:
            of = family(self.version, leaf, self.dimensions, self.wanted, self.dims)
            take = self._taking(found, of, leaf if self.leafwise else None)
            for part in ranges:
                store = reader.stores("measure", self.partition)["days" if part.days else "cells"]
                yield from read(store, part, of.before, len(of.rest), slots, take)
            if len(found) > GROUPS_MAX + self.slots_max:
                break  # more than a breakdown may have: it is refused
        return (yield from self._whole(reader, found))

    def _whole(self, reader: Reader, found: dict[tuple[bytes | None, int], Tally]) -> Steps[dict[Any, Tally]]:
        for tally in found.values():
            if tally.flagged:
                yield from refold(reader, self.partition, tally, self.until)
        return found

    def _taking(self, found: dict[tuple[bytes | None, int], Tally], of: Family, group: bytes | None) -> Take:
        """Adds rows of one leaf's family to the tally of their group and span."""
        place = of.rest.index(self.by) if self.by is not None and self.by in of.rest else None
        shape, until, partition = self.shape, self.until, self.partition

        def take(free: bytes, slot: int, rows: Sequence[Pair], width: int) -> None:
            here = group
            if of.rest:
                values = unpacked(free)
                if any(values[i] != one for i, one in of.checks):
                    return
                if place is not None:
                    here = values[place]
            tally = found.get((here, slot))
            if tally is None:
                tally = found[here, slot] = Tally(shape)
            tally.add(rows, width, until, partition)

        return take

    def pack(self, value: Mapping[tuple[bytes | None, int], Tally]) -> Any:
        return [[group, slot, tally.pack()] for (group, slot), tally in value.items()]

    def unpack(self, data: Any) -> dict[tuple[bytes | None, int], Tally]:
        return {(group, slot): Tally.unpack(self.shape, tally) for group, slot, tally in data}


@dataclass(frozen=True, kw_only=True)
class StaySums(Sums):
    """The same over stays (topology/memberships.py): of each leaf only the panes in which it belonged to a company.

    stays: (leaf, the company's root, start, stop); with `leafwise` the company is the group
    """

    stays: tuple[tuple[bytes, bytes, int, int], ...] = ()

    def read(self, reader: Reader) -> Steps[dict[tuple[bytes | None, int], Tally]]:
        found: dict[tuple[bytes | None, int], Tally] = {}
        for leaf, company, start, stop in self.stays:
            within = [
                (slot, Span(start=max(start, first), stop=min(stop, last)))
                for slot, (first, last) in enumerate(self.spans)
                if max(start, first) < min(stop, last)
            ]
            spans, to = [span for _, span in within], [slot for slot, _ in within]
            panes: tuple[int, int] | None = None
            if self.panes is not None and max(start, self.panes[0]) < min(stop, self.panes[1]):
                panes = max(start, self.panes[0]), min(stop, self.panes[1])
                to += range(len(self.spans) + panes[0] - self.panes[0], len(self.spans) + panes[1] - self.panes[0])
            of = family(self.version, leaf, self.dimensions, self.wanted, self.dims)
            take = _moved(self._taking(found, of, company if self.leafwise else None), to)
            slots = Slots(spans, panes)
            for part in _cover(spans, panes):
                store = reader.stores("measure", self.partition)["days" if part.days else "cells"]
                yield from read(store, part, of.before, len(of.rest), slots, take)
            if len(found) > GROUPS_MAX + self.slots_max:
                break
        return (yield from self._whole(reader, found))


def _cover(spans: Sequence[Span], panes: tuple[int, int] | None) -> tuple[Range, ...]:
    """The reads that cover spans, and panes one by one."""
    return cover(spans) + (() if panes is None else (Range(days=False, start=panes[0], stop=panes[1]),))


def _moved(take: Take, to: Sequence[int]) -> Take:
    """`take` with the index of each span under another number."""

    def taking(free: bytes, slot: int, rows: Sequence[Pair], width: int) -> None:
        take(free, to[slot], rows, width)

    return taking


@dataclass(frozen=True, kw_only=True)
class MemberLeaves(_Plain):
    """What the partition's member numbers mean: the leaves of the numbers of a serialised bitmap, in their order."""

    partition: int
    numbers: bytes
    leg: str = "measure"

    def read(self, reader: Reader) -> Steps[list[bytes]]:
        numbers = list(BitMap.deserialize(self.numbers))
        found: list[bytes] = []
        for at in range(0, len(numbers), STEP_ROWS):
            some = numbers[at : at + STEP_ROWS]
            store = reader.stores("measure", self.partition)["members"]
            rows = store.get_many([b"N" + number.to_bytes(4, "big") for number in some])
            for number, row in zip(some, rows, strict=True):
                if row is None:
                    raise LookupError(f"members of measure partition {self.partition} have no number {number}")
                found.append(row[UPTO:])
            yield None
        return found


KINDS: Final[Mapping[str, type[Part]]] = {
    one.__name__: one
    for one in (
        KeyRows,
        CompanyKeys,
        SeenRows,
        AmendedRows,
        Heard,
        Leaves,
        FirstDay,
        Told,
        Sums,
        StaySums,
        Ends,
        MemberLeaves,
        Behind,
        Counted,
        TableRows,
        Evidence,
        Changes,
        Reached,
        SignalsOf,
        RecordRows,
        TickedBy,
        LatestSignals,
        Examples,
    )
}
"""The parts there are, by name."""
