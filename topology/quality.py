"""Quality: what a source sent, by the quarter of an hour in which it became known, if its contract says `expect`.

    accepted, refused -> note (in the mark, a slice long) -> keep: (source, pane of known time) -> counts
    counts of all raw partitions -> merged -> breaches.py judges them

Known time is what the log says, so what is counted does not depend on the order in which partitions or workers take
their records, and a pane that the ticks of all raw partitions have passed does not change any more.  Within a pane each
minute keeps when its first and its last record became known: a promise is judged as one of a minute at least, so every
silence that breaks one lies between two minutes and is known to the millisecond, whatever was promised at the time.

    live       accepted, however often an event is amended: a sign of life
    counted    first versions of events, no voids: what a volume is about
    unmatched  of these, events that do not have the company key that their contract names (absent, or it means nothing)
    lost       refused for want of a key: nobody is known whom they could be about

What is backdated is an import, and what has a `repair` is ours: neither says how a source is.  A source that promises
nothing costs nothing.  A source costs a row of some hundred bytes a quarter of an hour and raw partition in which it
sends.  Dead letters that the cleaner has removed from the log are not counted again when it is folded anew.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from milepost.schemas import stamps
from milepost.schemas.keys import lp
from milepost.schemas.records import Envelope, Event, Identified
from milepost.schemas.stamps import Stamp
from milepost.topology.definitions import Catalog, Expect, Source
from milepost.topology.ingest_mark import IngestMark
from milepost.topology.panes import PANE_MS, PANES_A_DAY
from milepost.topology.protection import COMPANY
from milepost.topology.reading import Reader
from milepost.topology.state import UPTO, Partition, Record
from milepost.topology.steps import Steps

MINUTE_MS: Final = 60_000
MINUTES: Final = PANE_MS // MINUTE_MS
EXAMPLES_MAX: Final = 3
"""Examples that a pane keeps of unmatched events: those known first."""
FORWARDED_MAX: Final = 256
"""Forwarded records that were refused in a pane and are told from their copies; of further ones a copy counts, too."""
LOST: Final = "missing_key"
STORE: Final = "quality"
ROWS_A_STEP: Final = 500
_NOTHING: Final = Expect()
_NONE: Final = (0, 0, "", "")
_DAYS: Final = b"\xff\xff\xff\xff"
"""Behind all panes of a source: the days on which it has any."""

Sent = tuple[str, str]
"""(organisation, source)."""


class Note(NamedTuple):
    """What is counted of one record.  reason: why it was refused; "": it was accepted."""

    sent: Sent
    k_ms: int
    offset: int
    reason: str
    t_ms: int
    type: str
    counted: bool
    unmatched: bool
    example: tuple[int, int, str, str]
    """First position (partition, offset), the key that is missing, and whether it is absent or means nothing."""
    forwarded: bool = False


class Example(msgspec.Struct, array_like=True, frozen=True, order=True):
    """An event that nobody is known for.  partition, offset: of its first position;  why: absent or blocked"""

    k_ms: int
    partition: int
    offset: int
    type: str
    key: str
    why: str


class Minute(msgspec.Struct, array_like=True):
    """Counts of one minute; `first` and `last` are milliseconds of it, -1 where nothing was accepted."""

    first: int = -1
    last: int = -1
    live: int = 0
    counted: int = 0
    unmatched: int = 0
    lost: int = 0


class Refused(msgspec.Struct, array_like=True):
    """Records of one reason: how many, and the first one known, by its first position."""

    n: int
    k_ms: int
    partition: int
    offset: int


class Pane(msgspec.Struct, array_like=True):
    """What was counted of a source in a quarter of an hour of known time.

    newest_ms: the largest event time; -1: none
    forwarded: first positions of those refused that came from another partition.  Who forwards may crash and forward
               again; an event that was accepted knows its copies, one that was refused is counted by this
    """

    minutes: dict[int, Minute] = {}
    types: dict[str, int] = {}
    newest_ms: int = -1
    refused: dict[str, Refused] = {}
    examples: list[Example] = []
    forwarded: list[tuple[int, int]] = []

    def add(self, other: Pane) -> None:
        """Add the counts of another partition, or of a later slice."""
        for at, one in other.minutes.items():
            minute = self.minutes.setdefault(at, Minute())
            if one.first >= 0:
                minute.first = one.first if minute.first < 0 else min(minute.first, one.first)
            minute.last = max(minute.last, one.last)
            minute.live += one.live
            minute.counted += one.counted
            minute.unmatched += one.unmatched
            minute.lost += one.lost
        for name, count in other.types.items():
            self.types[name] = self.types.get(name, 0) + count
        self.newest_ms = max(self.newest_ms, other.newest_ms)
        for reason, told in other.refused.items():
            known = self.refused.get(reason)
            if known is None:
                self.refused[reason] = Refused(told.n, told.k_ms, told.partition, told.offset)
                continue
            known.n += told.n
            first = min((known.k_ms, known.partition, known.offset), (told.k_ms, told.partition, told.offset))
            known.k_ms, known.partition, known.offset = first
        self.examples = sorted({*self.examples, *other.examples})[:EXAMPLES_MAX]

    def take(self, note: Note) -> None:
        """Count one record."""
        at, within = divmod(note.k_ms % PANE_MS, MINUTE_MS)
        if note.reason:
            partition, offset = note.example[:2]
            if note.forwarded:
                if (partition, offset) in self.forwarded:
                    return
                self.forwarded = sorted({*self.forwarded, (partition, offset)})[:FORWARDED_MAX]
            self.add(Pane(refused={note.reason: Refused(1, note.k_ms, partition, offset)}))
            if note.reason == LOST and note.counted:
                self.minutes.setdefault(at, Minute()).lost += 1
                self._example(note)
            return
        minute = self.minutes.get(at)
        if minute is None:
            minute = self.minutes[at] = Minute()
        if minute.first < 0 or within < minute.first:
            minute.first = within
        if within > minute.last:
            minute.last = within
        minute.live += 1
        if note.t_ms > self.newest_ms:
            self.newest_ms = note.t_ms
        if note.counted:
            minute.counted += 1
            self.types[note.type] = self.types.get(note.type, 0) + 1
            if note.unmatched:
                minute.unmatched += 1
                self._example(note)

    def _example(self, note: Note) -> None:
        partition, offset, key, why = note.example
        one = Example(note.k_ms, partition, offset, note.type, key, why)
        self.examples = sorted({*self.examples, one})[:EXAMPLES_MAX]

    def dump(self) -> bytes:
        self.minutes = dict(sorted(self.minutes.items()))
        self.types = dict(sorted(self.types.items()))
        self.refused = dict(sorted(self.refused.items()))
        return _dump(self)


_dump = msgspec.msgpack.Encoder().encode
_load = msgspec.msgpack.Decoder(Pane).decode
_load_days = msgspec.msgpack.Decoder(list[int]).decode


def watched(source: Source) -> bool:
    """Whether a source promises anything, so that it is counted."""
    return source.expect != _NOTHING


class Arrived(Protocol):
    """A record on its way through ingest.  partition, offset: its first position;  genuine: the engine's own stamp"""

    record: Record
    k_ms: int
    partition: int
    offset: int
    bundle: bytes | None
    genuine: Stamp | None


def accepted(mark: IngestMark, source: Source, sent: Sent, event: Event, who: Identified, a: Arrived) -> None:
    """An event of a source that is watched was accepted."""
    if event.repair or _imported(a):
        return
    counted, missing = not (event.revision or event.void), ("", "")
    if counted:
        for key in who.keys:
            if key.entity == COMPANY:
                break
        else:
            missing = _missing(source, event)
    example = _NONE if not missing[0] else (a.partition, a.offset, *missing)
    noted = Note(sent, a.k_ms, a.record.offset, "", event.t_ms, event.type, counted, bool(missing[0]), example)
    mark.counted.append(noted)


def refused(at: Partition, catalogs: Mapping[bytes, Catalog], envelope: Envelope, reason: str, a: Arrived) -> None:
    """A record that names a source is a dead letter."""
    catalog = catalogs.get(a.bundle or b"")
    source = None if catalog is None else catalog.sources.get(envelope.source)
    if source is None or not watched(source) or envelope.repair or _imported(a):
        return
    counted, key = not (envelope.revision or envelope.void), ""
    if reason == LOST:
        key = next((f"{one.entity}/{one.key}" for one in source.identities if one.required), "")
    sent, example = (envelope.org, envelope.source), (a.partition, a.offset, key, "missing")
    assert isinstance(at.mark, IngestMark)
    forwarded = a.genuine is not None and a.genuine.kind == stamps.FORWARDED
    note = Note(sent, a.k_ms, a.record.offset, reason, -1, envelope.type, counted, False, example, forwarded)
    at.mark.counted.append(note)


def _imported(a: Arrived) -> bool:
    return a.genuine is not None and a.genuine.kind == stamps.BACKDATED


def _missing(source: Source, event: Event) -> tuple[str, str]:
    """The company key that an event lacks, and why; ("", ""): its contract names none."""
    for one in source.identities:
        if one.entity == COMPANY:
            value: Any = event.data
            for name in one.path:
                value = value.get(name) if isinstance(value, dict) else None
            return f"{one.entity}/{one.key}", "absent" if value in (None, "") else "blocked"
    return "", ""


def keep(at: Partition, mark: IngestMark) -> None:
    """Put the rows of a slice.  What a row has absorbed already (a dead owner's late bytes) is not added again."""
    if not mark.counted:
        return
    noted, mark.counted = mark.counted, []
    grouped: dict[tuple[Sent, int], list[Note]] = {}
    for note in noted:
        place = note.sent, note.k_ms // PANE_MS
        if (some := grouped.get(place)) is None:
            grouped[place] = [note]
        else:
            some.append(note)
    found = {row_key(*place): some for place, some in grouped.items()}
    store = at.stores[STORE]
    begun: dict[bytes, dict[int, int]] = {}  # source -> day that has its first row -> by which record
    for (key, notes), value in zip(found.items(), store.get_many(list(found)), strict=True):
        upto = -1 if value is None else int.from_bytes(value[:UPTO], "big")
        fresh = [note for note in notes if note.offset > upto]
        if len(fresh) < len(notes) or value is None:  # the day's first row, or one that may have come without its day
            days, day = begun.setdefault(key[:-4], {}), int.from_bytes(key[-4:], "big") // PANES_A_DAY
            days[day] = min(days.get(day, notes[0].offset), notes[0].offset)
        if not fresh:
            continue
        pane = Pane() if value is None else _load(value[UPTO:])
        for note in fresh:
            pane.take(note)
        store.put(key, fresh[-1].offset.to_bytes(UPTO, "big") + pane.dump())
    for source, days in begun.items():
        value = store.get(source + _DAYS)
        known = [] if value is None else _load_days(value[UPTO:])
        new = days.keys() - set(known)
        if new:
            last = max(days[day] for day in new)
            store.put(source + _DAYS, last.to_bytes(UPTO, "big") + _dump(sorted({*known, *new})))


def row_key(sent: Sent, pane: int) -> bytes:
    """The key of a source's row of a pane."""
    return hashlib.blake2b(b"".join(lp(name.encode()) for name in sent), digest_size=16).digest() + pane.to_bytes(
        4, "big"
    )


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What was counted of a source in a raw partition: (pane, counts) of the panes [start, stop), and before them of
    the last day that has any, and of the first two days from the day `begins` on.

    So whoever judges [start, stop) knows the last record before it, and the first one behind a definition."""

    partition: int
    sent: tuple[str, str]
    start: int
    stop: int
    begins: int
    leg: str = "ingest"

    def read(self, reader: Reader) -> Steps[list[tuple[int, bytes]]]:
        value = reader.stores("ingest", self.partition)[STORE].get(row_key(self.sent, 0)[:-4] + _DAYS)
        days = [] if value is None else _load_days(value[UPTO:])
        found: dict[int, bytes] = {}
        rows = 0
        for day in self._days(days):
            first, last = max(0, day * PANES_A_DAY), min((day + 1) * PANES_A_DAY, self.stop)
            if first >= last:
                continue
            store = reader.stores("ingest", self.partition)[STORE]
            for key, row in store.scan(row_key(self.sent, first), row_key(self.sent, last)):
                found[int.from_bytes(key[-4:], "big")] = row[UPTO:]
                rows += 1
            if rows >= ROWS_A_STEP:
                rows = 0
                yield None
        return sorted(found.items())

    def _days(self, days: Sequence[int]) -> list[int]:
        from_day, begins = bisect_left(days, self.start // PANES_A_DAY), bisect_left(days, self.begins)
        wanted = {*days[max(0, from_day - 1) :], *days[begins : begins + 2]}
        return sorted(wanted)

    def pack(self, value: Sequence[tuple[int, bytes]]) -> Any:
        return [list(one) for one in value]

    def unpack(self, data: Any) -> list[tuple[int, bytes]]:
        return [(pane, row) for pane, row in data]


@dataclass(slots=True)
class Counts:
    """What was counted of a source in all raw partitions, by pane."""

    panes: dict[int, Pane] = field(default_factory=dict)

    def add(self, rows: Iterable[tuple[int, bytes]]) -> None:
        for pane, row in rows:
            self.panes.setdefault(pane, Pane()).add(_load(row))
