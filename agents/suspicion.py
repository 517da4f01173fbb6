"""Suspicion: after an unclean end, what is in hand is said before it is folded, until one record stands alone.

    unclean end -> ranges, each noted, folded, checkpointed       none crashes: folding goes on as ever
         a range crashes  -> pieces of it, a 128th each
         a piece crashes  -> its records one by one
         one crashes three times alone, others having passed in between -> a verdict (topology/quarantine.py)

The notes lie in the changelog (`00 try`), so they survive a lost folder.  Without a crash nothing of this runs: an
orderly release says `clean`, and a new owner that reads it folds as ever.  A note says `held` as soon as one record is
folded, so that a broker or a disk that ends the process afterwards is not put down to the record; the process folds
nothing else while one is tried; and before each further trial others are folded to nothing (`control`): if those crash
too, the machine is at fault and no record is condemned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal
from weakref import WeakKeyDictionary

from milepost.schemas.errors import ContractError
from milepost.schemas.serde import wire
from milepost.topology.state import Record

TRY_KEY: Final = b"\x00try"
CRASHES_MAX: Final = 3
RANGE_FIRST: Final = 128
RANGE_MAX: Final = 1024
PIECES: Final = 128
CONTROL_MAX: Final = 16
"""Other records folded to nothing before a suspect is tried again."""

Kind = Literal["clean", "range", "control", "alone", "held"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trying:
    """A note: `kind`, and the records it is about (source offsets, both included).

    crashes: how often a process has ended with the record at `first` alone in hand
    """

    epoch: int
    kind: Kind
    first: int = -1
    last: int = -1
    count: int = 0
    crashes: int = 0

    def dump(self) -> bytes:
        return wire("Trying").encode({name: getattr(self, name) for name in self.__slots__})


def load_trying(record: Any) -> Trying | None:
    """The note in a changelog record, or None: it is not ours."""
    return read_trying(record.value or b"", record.offset)


def read_trying(data: bytes, offset: int) -> Trying | None:
    try:
        note = Trying(**wire("Trying").decode(data))
    except ContractError:
        return None
    return note if 0 <= note.epoch < offset else None


class Suspicion:
    """How carefully a partition is folded after an unclean end, until what was in hand then has passed.

    note:  the last note of an owner before, if any
    x:     what the last mark had absorbed
    count: how many records behind it that owner may have had in hand (the mark's `ahead`)
    until: where the source ended when this one took over
    """

    def __init__(self, note: Trying | None, x: int, count: int, until: int) -> None:
        self.until = until
        self._left = count
        self._size = RANGE_FIRST
        self._narrow_to = -1  # pieces keep their size up to this offset
        self._suspect = -1
        self._crashes = 0
        if note is None or note.last <= x:
            return
        if note.kind == "range":
            self._size, self._narrow_to = max(1, note.count // PIECES), note.last
        elif note.kind in ("alone", "control"):
            self._suspect = note.first
            self._crashes = note.crashes + (note.kind == "alone")

    def part(self, records: Sequence[Record]) -> Sequence[Record]:
        """What of `records` is to be taken in hand next."""
        if records[0].offset == self._suspect:
            return records[:1]
        return records[: self._size]

    def crashes(self, record: Record) -> int:
        """How often `record` was alone in hand when a process ended."""
        return self._crashes if record.offset == self._suspect else 0

    def passed(self, records: Sequence[Record]) -> bool:
        """These have been folded and are in the changelog.  True: everything has passed, care can end."""
        last = records[-1].offset
        if last > self._narrow_to:
            self._size = max(RANGE_FIRST, min(RANGE_MAX, self._size * 2))
        self._left -= len(records)
        return self._left <= 0 or last + 1 >= self.until


class Gate:
    """While one partition tries a suspect, no other of the process folds: a crash must have one possible cause."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()

    @property
    def closed(self) -> bool:
        return self.lock.locked()

    async def opened(self) -> None:
        """Return when nobody tries."""
        async with self.lock:
            return


_gates: WeakKeyDictionary[asyncio.AbstractEventLoop, Gate] = WeakKeyDictionary()


def gate() -> Gate:
    """The gate of the running loop: one a process."""
    return _gates.setdefault(asyncio.get_running_loop(), Gate())
