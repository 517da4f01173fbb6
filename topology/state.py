"""State of one leg in one partition: stores laid over a base, changed in memory, taken away by a checkpoint.

    base (RocksDB, or a dict in the driver)  <-  taken (a checkpoint in flight)  <-  dirty (this moment)

A read looks at dirty, then taken, then base.  Every value of a changelogged store begins with `upto`, eight bytes,
big-endian: the source offset whose effect the value holds (design §7.6), so a restore can tell an older value from a
newer one.  A stage changes state only through `put` and `delete`, and both say the offset.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from milepost.topology.quarantine import Verdict

UPTO = 8
"""Bytes of `upto` at the head of each value."""


class Base(Protocol):
    """What lies under an overlay: ordered bytes to bytes."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]: ...

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with start <= key < stop, in key order."""
        ...


class DictBase:
    """A base in memory, for the driver and for tests.  The first `scan` after a change of the keys sorts them."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = _Rows()

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.rows.get(key) for key in keys]

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        rows = self.rows
        assert isinstance(rows, _Rows)
        if rows.order is None:
            rows.order = sorted(rows)
        order = rows.order  # what a scan goes over does not change under it
        for i in range(bisect_left(order, start), len(order)):
            key = order[i]
            if key >= stop:
                return
            if (value := rows.get(key)) is not None:
                yield key, value


class _Rows(dict[bytes, bytes]):
    """A dict that knows the order of its keys until they change."""

    order: list[bytes] | None = None

    def __setitem__(self, key: bytes, value: bytes) -> None:
        if key not in self:
            self.order = None
        super().__setitem__(key, value)

    def pop(self, key: bytes, *default: Any) -> Any:
        self.order = None
        return super().pop(key, *default)


class Store:
    """One store of one partition: an overlay of changes over a base.

    Values are raw bytes that begin with `upto` (see the module).  `None` in `dirty` is a deletion.

    remember_bytes: what the overlay may keep of landed values, so that a row that changes again is not read again: two
    generations of at most so many bytes of keys and values each, beside a checkpoint's.  0: nothing is kept.
    """

    __slots__ = (
        "_order",
        "_recent",
        "_recent_before",
        "_recent_size",
        "_taken_order",
        "base",
        "dirty",
        "name",
        "remember_bytes",
        "size",
        "taken",
    )

    def __init__(self, name: str, base: Base, remember_bytes: int = 0) -> None:
        self.name = name
        self.base = base
        self.dirty: dict[bytes, bytes | None] = {}
        self.taken: dict[bytes, bytes | None] = {}
        self.size = 0  # bytes put since the last take: what bounds a checkpoint
        self.remember_bytes = remember_bytes
        self._recent: dict[bytes, bytes | None] = {}
        self._recent_before: dict[bytes, bytes | None] = {}
        self._recent_size = 0
        self._order: list[bytes] = []  # the first keys of `dirty`, in order: those that the last scan saw
        self._taken_order: list[bytes] | None = None  # made by the first scan that needs it

    def get(self, key: bytes) -> bytes | None:
        return self.get_many((key,))[0]

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values in the order of `keys`; absent and deleted are None."""
        first, second = (self._recent, self._recent_before) if self.remember_bytes else (self.dirty, self.taken)
        if not first and not second:
            return self.base.get_many(keys)
        out = list(map(first.get, keys))
        missing: list[int] = []
        for i, value in enumerate(out):
            if value is None and (key := keys[i]) not in first:
                if key in second:
                    out[i] = second[key]
                else:
                    missing.append(i)
        if missing:
            for i, value in zip(missing, self.base.get_many([keys[i] for i in missing]), strict=True):
                out[i] = value
        return out

    def put(self, key: bytes, value: bytes) -> None:
        self.dirty[key] = value
        if self.remember_bytes:
            self._recent[key] = value
        self.size += len(key) + len(value) + 16

    def put_many(self, rows: dict[bytes, bytes]) -> None:
        """The same for many rows at once."""
        self.dirty.update(rows)
        if self.remember_bytes:
            self._recent.update(rows)
        self.size += sum(map(len, rows)) + sum(map(len, rows.values())) + 16 * len(rows)

    def delete(self, key: bytes) -> None:
        self.dirty[key] = None
        if self.remember_bytes:
            self._recent[key] = None
        self.size += len(key) + 24

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with start <= key < stop in key order, changes in memory included."""
        if self._taken_order is None:
            self._taken_order = sorted(self.taken)
        over = {key: self.taken[key] for key in _between(self._taken_order, start, stop)}
        over.update((key, self.dirty[key]) for key in _between(self._sorted(), start, stop))
        if not over:
            yield from self.base.scan(start, stop)
            return
        fresh = iter(sorted(over.items()))
        pending = next(fresh, None)
        for key, value in self.base.scan(start, stop):
            while pending is not None and pending[0] < key:
                if pending[1] is not None:
                    yield pending[0], pending[1]
                pending = next(fresh, None)
            if pending is not None and pending[0] == key:
                if pending[1] is not None:
                    yield key, pending[1]
                pending = next(fresh, None)
            else:
                yield key, value
        while pending is not None:
            if pending[1] is not None:
                yield pending[0], pending[1]
            pending = next(fresh, None)

    def take(self) -> dict[bytes, bytes | None]:
        """Hand the changes to a checkpoint; they stay readable until `landed`.  One checkpoint at a time."""
        assert not self.taken, f"{self.name}: a checkpoint is already in flight"
        self._taken_order, self._order = None, []
        self._recent_size += self.size
        self.taken, self.dirty, self.size = self.dirty, {}, 0
        if self._recent_size > self.remember_bytes > 0:
            # What was taken stays readable in the generation before until the next take, and has landed by then.
            self._recent_before, self._recent, self._recent_size = self._recent, {}, 0
        return self.taken

    def landed(self) -> None:
        """The base now holds what was taken."""
        self.taken, self._taken_order = {}, None

    def forget(self) -> None:
        """Drop all changes since the last one that has landed."""
        assert not self.taken, f"{self.name}: a checkpoint is in flight"
        self.dirty, self.size, self._order = {}, 0, []
        self._recent, self._recent_before, self._recent_size = {}, {}, 0

    def _sorted(self) -> list[bytes]:
        """The keys of `dirty` in order: two sorted runs are merged, so that a question beside a fold costs little.

        A dict keeps its keys in the order of their coming, so those behind the first `len(_order)` are new.
        """
        if len(self._order) < len(self.dirty):
            self._order += sorted(islice(self.dirty, len(self._order), None))
            self._order.sort()
        return self._order


def _between(keys: list[bytes], start: bytes, stop: bytes) -> list[bytes]:
    return keys[bisect_left(keys, start) : bisect_left(keys, stop)]


class Record(Protocol):
    """A message of the log as a leg reads it: the attributes of aiokafka's ConsumerRecord that we use."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


class Output(NamedTuple):
    """A message a leg wants written.  The partition is always explicit.  (A tuple: the hot path makes one an event.)"""

    topic: str
    partition: int
    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """A first record to be appended to the raw log again, once the checkpoint that took its repeat is committed.

    key:   the raw key
    at:    offset in this partition where a good copy of the first record lies
    stamp: what `milepost-first` will say (without its MAC, which also covers the bytes)
    value: the bytes, when the repeat was equal to the byte; else they are read at `at`
    """

    key: bytes
    at: int
    stamp: bytes
    value: bytes | None


@dataclass(slots=True)
class Fold:
    """What folding a slice of records asks for beside the changes in the stores.

    before: outputs acknowledged before the changelog batch (design §7.4a)
    after:  first records owed to the log, appended after the commit
    fates:  fate -> count, for telemetry and conservation; closed names
    """

    before: list[Output] = field(default_factory=list)
    after: list[Owed] = field(default_factory=list)
    fates: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def count(self, fate: str, n: int = 1) -> None:
        self.fates[fate] += n


@runtime_checkable
class Reaching(Protocol):
    """A mark that says how far its leg has come with each partition of the leg before or behind it."""

    @property
    def reached(self) -> Mapping[int, int]: ...


@dataclass(slots=True)
class Partition:
    """One leg's state in one partition.

    next_offset: the offset to read next, X + 1.
    mark:        the leg's own mutable mark (`Leg.new_mark`, `Leg.load_mark`, `Leg.dump_mark`).
    poison:      record key -> verdicts on records that are passed over (topology/quarantine.py); empty as a rule.
    """

    number: int
    stores: dict[str, Store]
    mark: object
    next_offset: int = 0
    poison: dict[bytes, tuple[Verdict, ...]] = field(default_factory=dict)

    @property
    def reached(self) -> tuple[int, Mapping[int, int]]:
        """The next offset, and how far it has come with each partition of the other leg (the mark's `reached`)."""
        assert isinstance(self.mark, Reaching)
        return self.next_offset, self.mark.reached

    @property
    def size(self) -> int:
        return sum(store.size for store in self.stores.values())


class Leg(Protocol):
    """A leg of the line: stages in one chain over one grouping.  Pure and deterministic: same records, same result.

    The engine (agents/) and the driver (topology/driver.py) both run it through this protocol.
    """

    @property
    def name(self) -> str: ...

    @property
    def waits_unproved(self) -> bool:
        """Whether `ready` may wait for a bundle that somebody merely claims: then the wait must be bounded."""
        ...

    def new_mark(self) -> object: ...

    def load_mark(self, data: bytes) -> object: ...

    def dump_mark(self, mark: object) -> bytes: ...

    def ready(self, records: Sequence[Record]) -> int:
        """How many of `records` may be folded now.  Less than all: the next one needs a bundle that the follower of
        `definitions` has not read yet; fold the prefix, wait for the follower, ask again."""
        ...

    def fold(self, at: Partition, records: Sequence[Record]) -> Fold:
        """Fold `records` (ascending offsets, all >= at.next_offset) into `at`; sets at.next_offset."""
        ...

    def pass_over(self, at: Partition, record: Record, verdict: Verdict) -> Fold:
        """Instead of `fold`: a dead letter for `record`, and the offset behind it."""
        ...

    def rewind(self, mark: object, records: Sequence[Record]) -> None:
        """Make a copy of a mark say that `records` were not folded yet: to fold them once more, to nothing."""
        ...

    def repeats(self, at: Partition, record: Record) -> bool:
        """Whether the very bytes of `record` were folded into `at` before, so that they change nothing.  Then it is
        never condemned: once the cleaner has removed the first, a restore reads what it needs from the repeat."""
        ...

    def heard(self, record: Record) -> Verdict | None:
        """The verdict that `record` of the source holds, if it is one and ours."""
        ...

    def sentence(self, at: Partition, verdict: Verdict) -> Output:
        """The record that says `verdict` in the source partition."""
        ...

    def announce(self, at: Partition, records: Sequence[Record]) -> None:
        """Before a log is folded from its beginning: what later records say of the first ones (design §3)."""
        ...

    def owed(self, at: Partition) -> Iterator[Owed]:
        """At restore: everything the stores say is still owed to the raw log."""
        ...

    def again(self, at: Partition, owed: Owed, value: bytes) -> Output:
        """The record to append for `owed`, stamped and sealed."""
        ...

    def derive(self, at: Partition, changed: Iterable[tuple[str, bytes]] | None) -> Iterator[tuple[str, bytes, bytes]]:
        """At restore: rows of derived stores (not changelogged) that follow from the `changed` (store, key) rows, in
        their order; None: from all rows."""
        ...

    def from_source(self, records: Sequence[Record]) -> Iterator[tuple[str, bytes, bytes]]:
        """At restore: rows of stores whose changelog is the leg's own source topic (`facts`)."""
        ...
