"""Checkpoint: the state of one partition reaches the log, then the disk, in four steps (design §7.4).

    take -> (a) outputs acknowledged -> (b) one batch: mark + changed rows -> (c) one write to the store -> (d) commit
            re-appends of first records follow; folding goes on beside all of it, over what was taken

Each step begins when the one before it is acknowledged: a local store that is ahead of its changelog cannot be restored
elsewhere, and a mark that is ahead of its outputs loses them.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol, TypeVar

from milepost.agents import faults, store
from milepost.agents.changelog import RESET_KEY, ChangelogPartition, Mark, Row, append_proved, dump_packed, dump_row
from milepost.agents.restore import position_value
from milepost.agents.suspicion import Trying
from milepost.ops import telemetry
from milepost.topology.line import LegSpec
from milepost.topology.state import Owed, Partition

T = TypeVar("T")

ROWS_A_TURN: Final = 1000
"""Rows after which a checkpoint lets others have the loop: about a millisecond."""

_i64 = struct.Struct(">q")
_u64 = struct.Struct(">Q")


class Barrier(Protocol):
    """What acknowledges outputs (agents/producer.py)."""

    async def barrier(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a checkpoint carries.

    rewrite: keys (tag and all) to be written again although they did not change
    size:    bytes of the changes, about
    """

    mark: Mark
    changes: Mapping[str, Mapping[bytes, bytes | None]]
    owed: tuple[Owed, ...]
    rewrite: frozenset[bytes] = frozenset()
    size: int = 0

    @property
    def next_offset(self) -> int:
        return self.mark.x + 1


class Checkpointer:
    """Writes the checkpoints of one partition, one at a time.

    expected: changelog offset of the next batch if nobody else writes
    """

    def __init__(
        self,
        *,
        spec: LegSpec,
        rocks: store.Rocks,
        log: ChangelogPartition,
        outputs: Barrier,
        epoch: int,
        landed: Callable[[int], None],
    ) -> None:
        self.spec = spec
        self.epoch = epoch
        self.expected = epoch + 1
        self.checkpoints = 0
        self._rocks = rocks
        self._log = log
        self._log.sent = lambda: faults.point("batch_sent", spec.name)
        self._outputs = outputs
        self._landed = landed
        self._stores = {one.name: one for one in spec.stores}
        self.having: Callable[[Callable[[], None]], Awaitable[None]] = _at_once
        """How a write to the store waits for room on the disk (agents/room.py)."""

    def take(self, at: Partition, mark: Mark, owed: Sequence[Owed], rewrite: frozenset[bytes] = frozenset()) -> Taken:
        """Take what has changed.  Between this and `write` the partition goes on, over what was taken."""
        assert mark.x == at.next_offset - 1, (mark.x, at.next_offset)
        size = at.size
        changes = {name: one.take() for name, one in at.stores.items()}
        return Taken(mark=mark, changes=changes, owed=tuple(owed), rewrite=rewrite, size=size)

    async def write(self, at: Partition, taken: Taken) -> None:
        """Steps (a) to (d).  Raises Zombie, StoreError: then nothing is committed and the process must end."""
        begun = time.perf_counter()
        await self._outputs.barrier()
        faults.point("outputs_acked", self.spec.name)
        mark: Row = (store.MARK, taken.mark.dump(), self.epoch)
        rows = await self._rows(taken)
        rows += self._newest(at, sorted(taken.rewrite))
        self.expected = await append_proved(
            self._log,
            spec=self.spec,
            rows=rows,
            mark=mark,
            epoch=self.epoch,
            x=taken.mark.x,
            expected=self.expected,
            newest=lambda keys: self._newest(at, keys),
        )
        faults.point("batch_acked", self.spec.name)
        # Not in a thread: rocksdict keeps the interpreter's lock while it writes, so nothing would run beside it.
        # The changes are made anew for each try: what a full disk has refused is used up.
        await self.having(lambda: self._rocks.write(self._changes(taken, mark)))
        faults.point("local_written", self.spec.name)
        for one in at.stores.values():
            one.landed()
        self._landed(taken.next_offset)
        self.checkpoints += 1
        telemetry.checkpoint(self.spec.name, time.perf_counter() - begun, taken.size)
        faults.point("committed", self.spec.name)

    async def note(self, at: Partition, row: Row, x: int) -> None:
        """A control record between two checkpoints, under the same proof; x: what the last one absorbed."""
        self.expected = await append_proved(
            self._log, spec=self.spec, rows=(), mark=row, epoch=self.epoch, x=x, expected=self.expected,
            newest=lambda keys: self._newest(at, keys),
        )  # fmt: skip

    async def begin_anew(self) -> None:
        """Say in the changelog that everything before is void."""
        note = Trying(epoch=self.epoch, kind="clean")
        self.expected = await append_proved(
            self._log, spec=self.spec, rows=(), mark=(RESET_KEY, note.dump(), self.epoch), epoch=self.epoch, x=-1,
            expected=self.expected, newest=lambda _: (),
        )  # fmt: skip

    async def _rows(self, taken: Taken) -> list[Row]:
        rows: list[Row] = []
        epoch = self.epoch
        head = _u64.pack(epoch)
        for name, changed in taken.changes.items():
            if not changed:
                continue
            spec = self._stores[name]
            tag = bytes((spec.tag,))
            if spec.changelog == "each":
                for part in batched(changed.items(), ROWS_A_TURN):
                    # `dump_row`, written out: every changed row comes through here.
                    rows += [(tag + key, None if value is None else head + value, epoch) for key, value in part]
                    await asyncio.sleep(0)
            elif spec.changelog == "packed":
                rows.append(dump_packed(tag, changed.items(), epoch, taken.mark.x, self.checkpoints))
        return rows

    def _newest(self, at: Partition, keys: Sequence[bytes]) -> list[Row]:
        """Rows for `keys` (tag and all) as of the taken state: what folding did since has an `upto` beyond the mark."""
        by_tag = {one.tag: at.stores[one.name] for one in self.spec.stores if one.changelog == "each"}
        rows: list[Row] = []
        for key in keys:
            held = by_tag[key[0]]
            row = key[1:]
            value = held.taken[row] if row in held.taken else held.base.get_many((row,))[0]
            rows.append(dump_row(key[:1], row, value, self.epoch))
        return rows

    def _changes(self, taken: Taken, mark: Row) -> Iterator[store.Change]:
        for name, changed in taken.changes.items():
            spec = self._stores[name]
            tag = bytes((spec.tag,))
            for key, value in changed.items():
                yield tag + key, value
            if spec.changelog == "source":
                yield store.SOURCE + tag, _i64.pack(taken.mark.x)
        for key in taken.rewrite:
            yield store.REWRITE + key, None
        yield store.MARK, mark[1]
        yield store.POSITION, position_value(self.expected - 1, self.epoch)


async def _at_once(step: Callable[[], None]) -> None:
    step()


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """`items` in lists of at most `size`."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part
