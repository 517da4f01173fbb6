"""Evidence: the facts behind a number, read where they lie.

    Evidence    facts of one measure -> what they add up to, and a page of those that count
    Changes     facts of one measure -> what one side counts and the other does not, by cause, and a page of it

A side is what a number was read with: a measure's version, a stretch of time, leaves, dimension values, and until when
something had to be known.  Whether a fact counts is decided as its cells were written: by the revisions of its event,
under its dimension values or under `__other__`.  A page is in the order of event time, whatever leaf a fact lies under,
and goes on behind a key, so that facts that come meanwhile move nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from milepost.schemas.serde import wire
from milepost.schemas.signal_message import SignalMessage, read
from milepost.topology import metrics, panes, revisions, scans
from milepost.topology.aggregates import Shape
from milepost.topology.definitions import Measure
from milepost.topology.reading import Reader
from milepost.topology.refold import fact_counts, facts_of, measures_of
from milepost.topology.revisions import Known
from milepost.topology.scans import Tally
from milepost.topology.state import UPTO, Store
from milepost.topology.steps import Steps

EVENTS_MAX: Final = 50_000
"""Facts that one part reads at most: its partition is not folded meanwhile, some seconds on a busy machine."""

Cause = Literal["late", "amended", "voided", "merged", "unmerged", "definition", "period"]
CAUSES: Final[tuple[Cause, ...]] = ("late", "amended", "voided", "merged", "unmerged", "definition", "period")
"""Why a fact counts on one side only.

late:       it became known in between;  period: it lies in the time that only one side asks about
amended, voided: another revision of its event counts on the other side, or a void
merged, unmerged: its leaf belongs to the company on one side only;  definition: the measure is another one
"""

_ORDER: Final = struct.Struct(">q16sii8s")
ORDER_BYTES: Final = _ORDER.size


@dataclass(frozen=True, kw_only=True)
class Side:
    """What a number was read with (see the module).

    start, stop: panes;  until: quarter hours;  leaves: None: all
    stays: (leaf, start, stop): leaves that belong to the company in these panes only (memberships.py)
    """

    version: bytes
    shape: Shape
    dimensions: tuple[str, ...]
    start: int
    stop: int
    until: int
    dims: dict[str, str]
    leaves: tuple[bytes, ...] | None = None
    stays: tuple[tuple[bytes, int, int], ...] = ()

    def has(self, leaf: bytes, pane: int) -> bool:
        """Whether what a leaf did in a pane is read by the side."""
        if self.leaves is None or leaf in self.leaves:
            return True
        return any(one == leaf and start <= pane < stop for one, start, stop in self.stays)


class Entry(NamedTuple):
    """A fact on a page.  t_ms, event, revision, repair: its order;  value: scaled;  members: leaves

    cause, before, after: of `Changes`: why, and whether it counted on each side; value is what it changes then
    """

    order: bytes
    leaf: bytes
    source: str
    id: str
    type: str
    t_ms: int
    k_ms: int
    revision: int
    repair: int
    partition: int
    offset: int
    rule: str
    rule_version: bytes
    value: bytes | None
    members: list[bytes]
    cause: str = ""
    before: bool = False
    after: bool = True


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """(tally, whether all facts were read, entries): what the facts of a side add up to, and the first `take` entries
    behind `behind`, by time."""

    partition: int
    side: Side
    behind: bytes = b""
    take: int = 0
    leg: str = "measure"

    def read(self, reader: Reader) -> Steps[tuple[Tally, bool, list[Entry]]]:
        tally, page = Tally(self.side.shape), _Page(self.behind, self.take)
        scan = _Scan(reader, self.partition)
        counted = _Counted(scan, self.side)

        def look(row: bytes, message: SignalMessage, known: list[Known]) -> None:
            found = counted(message, known)
            if found is None:
                return
            if self.side.shape.distinct:
                numbers = scan.numbers(found.members)
                tally.n += len(numbers)
                tally.meet(self.partition, numbers)
            else:
                tally.fact(found.value, message.t_ms, message.event)
            page.offer(message, self.side.version, lambda: _entry(row, message, self.side.version, found))

        whole = yield from scan.all((self.side,), look)
        return tally, whole, page.entries

    def pack(self, value: tuple[Tally, bool, list[Entry]]) -> Any:
        tally, whole, entries = value
        return [tally.pack(), whole, [list(one) for one in entries]]

    def unpack(self, data: Any) -> tuple[Tally, bool, list[Entry]]:
        tally, whole, entries = data
        return Tally.unpack(self.side.shape, tally), whole, [Entry._make(one) for one in entries]


class Change(NamedTuple):
    """What one cause changes: facts that count only after, only before, or otherwise than before; the scaled sum."""

    added: int = 0
    removed: int = 0
    changed: int = 0
    sum: int = 0

    def plus(self, other: Change) -> Change:
        return Change(*(a + b for a, b in zip(self, other, strict=True)))


@dataclass(frozen=True, kw_only=True)
class Changes:
    """(cause -> change, whether all facts were read, entries) of what differs between two sides of one metric."""

    partition: int
    before: Side
    after: Side
    behind: bytes = b""
    take: int = 0
    leg: str = "measure"

    def read(self, reader: Reader) -> Steps[tuple[dict[str, Change], bool, list[Entry]]]:
        found: dict[str, Change] = {}
        page = _Page(self.behind, self.take)
        scan = _Scan(reader, self.partition)
        counted = _Counted(scan, self.before), _Counted(scan, self.after)

        def look(row: bytes, message: SignalMessage, known: list[Known]) -> None:
            was, now = (side(message, known) for side in counted)
            if was == now or (was is not None and now is not None and was.value == now.value):
                return
            cause = self._cause(scan, message, known, now is not None)
            delta = (now.value or 0 if now is not None else 0) - (was.value or 0 if was is not None else 0)
            kind = Change(was is None, now is None, was is not None and now is not None, delta)
            found[cause] = found.get(cause, Change()).plus(kind)
            shown = now if now is not None else was
            assert shown is not None
            shown = shown._replace(value=delta)
            sides, version = (was is not None, now is not None), self.after.version
            page.offer(
                message,
                version,
                lambda: _entry(row, message, version, shown)._replace(cause=cause, before=sides[0], after=sides[1]),
            )

        whole = yield from scan.all((self.before, self.after), look)
        return found, whole, page.entries

    def _cause(self, scan: _Scan, message: SignalMessage, known: list[Known], added: bool) -> Cause:
        """Why a fact counts on one side only (`added`: on the second)."""
        if self.before.version != self.after.version:
            return "definition"
        pane = message.t_ms // panes.PANE_MS
        inside = [side.has(message.leaf, pane) for side in (self.before, self.after)]
        if inside[0] != inside[1]:
            return "merged" if inside[1] else "unmerged"
        other = self.before if added else self.after
        if fact_counts(message, known, other.until):
            return "period"
        holder = next((one for one in known if revisions.counts(known, one.rank, other.until)), None)
        if holder is None:
            in_time = other.start <= pane < other.stop
            return "late" if in_time else "period"
        return "voided" if scan.void(message, holder) else "amended"

    def pack(self, value: tuple[dict[str, Change], bool, list[Entry]]) -> Any:
        found, whole, entries = value
        told = [[cause, *one[:3], one.sum.to_bytes(28, "big", signed=True)] for cause, one in found.items()]
        return [told, whole, [list(one) for one in entries]]

    def unpack(self, data: Any) -> tuple[dict[str, Change], bool, list[Entry]]:
        told, whole, entries = data
        found = {one[0]: Change(one[1], one[2], one[3], int.from_bytes(one[4], "big", signed=True)) for one in told}
        return found, whole, [Entry._make(one) for one in entries]


Look = Callable[[bytes, SignalMessage, list[Known]], None]


class _Scan:
    """The facts of one partition."""

    def __init__(self, reader: Reader, partition: int) -> None:
        self.reader, self.partition = reader, partition

    def store(self, name: str) -> Store:
        return self.reader.stores("measure", self.partition)[name]

    def all(self, sides: Sequence[Side], look: Look) -> Steps[bool]:
        """Show `look` every fact that may count on one of the sides; whether they were less than the bound."""
        start, stop = min(one.start for one in sides), max(one.stop for one in sides)
        seen = 0
        for number, leaf in enumerate(self._leaves(sides)):
            first, last = leaf + start.to_bytes(4, "big"), leaf + stop.to_bytes(4, "big")
            for rows in scans.pieces(self.store("facts"), first, last):
                seen += len(rows)
                if seen > EVENTS_MAX:
                    return False
                told, known = facts_of(leaf, rows, self.store("revisions"))
                for row, message in told:
                    look(row, message, known[message.event])
                yield None
            if number % 100 == 99:
                yield None
        return True

    def _leaves(self, sides: Sequence[Side]) -> Iterable[bytes]:
        found: dict[bytes, None] = {}
        for one in sides:
            found.update(
                dict.fromkeys(scans.leaves(self.store("days"), one.version) if one.leaves is None else one.leaves)
            )
            found.update((leaf, None) for leaf, _, _ in one.stays)
        return sorted(found)

    def numbers(self, members: Sequence[bytes]) -> list[int]:
        rows = self.store("members").get_many([b"L" + leaf for leaf in members])
        return [int.from_bytes(row[UPTO : UPTO + 4], "big") for row in rows if row is not None]

    def void(self, message: SignalMessage, other: Known) -> bool:
        """Whether another revision of the message's event takes it back."""
        row = self.store("facts").get(metrics.fact_key(message.leaf, other.pane, message.event, *other.rank))
        told = None if row is None else read(row[UPTO:])
        return told is not None and told.void


class _Found(NamedTuple):
    """What a fact adds: its rule, its value (scaled; 1 where signals are counted), its members."""

    rule: str
    rule_version: bytes
    value: int
    members: tuple[bytes, ...]


class _Counted:
    """Whether a fact counts on a side, and what it adds."""

    def __init__(self, scan: _Scan, side: Side) -> None:
        self.scan, self.side = scan, side
        self.measures = measures_of(scan.reader, side.version)
        self.leaves = None if side.leaves is None else frozenset(side.leaves)
        self.choices = metrics.EachChoices()
        self.named: dict[bytes, bool] = {}
        # The row family that the number was read from: see `scans.family`.
        wanted = side.dims if len(side.dims) < 2 else side.dimensions
        self.mask = sum(1 << i for i, name in enumerate(side.dimensions) if name in wanted)
        self.checks = [(name, text.encode()) for name, text in side.dims.items()]
        self.places = [name for name in side.dimensions if name in wanted]

    def __call__(self, message: SignalMessage, known: list[Known]) -> _Found | None:
        side = self.side
        pane = message.t_ms // panes.PANE_MS
        if not side.start <= pane < side.stop:
            return None
        if self.leaves is not None and message.leaf not in self.leaves and not side.has(message.leaf, pane):
            return None
        if not fact_counts(message, known, side.until):
            return None
        for rule, version, fields in message.signals:
            measure = self.measures.get((message.bundle, rule))
            if measure is None or not (self.mask == 0 or self._mine(measure, message, fields)):
                continue
            if measure.entity is not None:
                leaves = tuple(leaf for entity, leaf in message.members if entity == measure.entity)
                return _Found(rule, version, 1, leaves) if leaves else None
            value = 1 if measure.field is None else metrics.amount(measure, fields)
            return None if value is None else _Found(rule, version, value, ())
        return None

    def _mine(self, measure: Measure, message: SignalMessage, fields: Mapping[str, object]) -> bool:
        day = panes.day_of(message.t_ms // panes.PANE_MS)
        values, tail = next(
            (some, tail) for mask, some, tail in self.choices[measure.dimensions](fields) if mask == self.mask
        )
        key = metrics.row_key(self.side.version + message.leaf + tail, day)
        if (named := self.named.get(key)) is None:
            named = self.named[key] = self.scan.store("days").get(key) is not None
        here = dict(zip(self.places, values if named else (metrics.OTHER,) * len(values), strict=True))
        return all(here[name] == text for name, text in self.checks)


class _Page:
    """The first `take` entries behind a place, of those that are offered in any order."""

    def __init__(self, behind: bytes, take: int) -> None:
        self.behind, self.take = behind, take
        self._kept: list[tuple[bytes, Callable[[], Entry]]] = []

    def offer(self, message: SignalMessage, version: bytes, make: Callable[[], Entry]) -> None:
        order = order_of(message, version)
        if self.take and order > self.behind:
            self._kept.append((order, make))
            if len(self._kept) > 4 * self.take + 1_000:
                self._cut()

    @property
    def entries(self) -> list[Entry]:
        self._cut()
        return [make() for _, make in self._kept]

    def _cut(self) -> None:
        self._kept.sort(key=lambda one: one[0])
        del self._kept[self.take :]


def order_of(message: SignalMessage, version: bytes) -> bytes:
    """What entries are ordered by: event time, event, revision, measure."""
    return _ORDER.pack(message.t_ms, message.event, message.revision, message.repair, version)


def _entry(row: bytes, message: SignalMessage, version: bytes, found: _Found) -> Entry:
    names = wire("Signals").decode(row[UPTO:])
    return Entry(
        order=order_of(message, version),
        leaf=message.leaf,
        source=names["source"],
        id=names["id"],
        type=names["type"],
        t_ms=message.t_ms,
        k_ms=message.k_ms,
        revision=message.revision,
        repair=message.repair,
        partition=message.first_partition,
        offset=message.first_offset,
        rule=found.rule,
        rule_version=found.rule_version,
        value=found.value.to_bytes(28, "big", signed=True),
        members=list(found.members),
    )
