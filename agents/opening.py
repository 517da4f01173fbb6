"""Opening: what restoring leaves to do once the changelog is applied, for stores that have none of their own.

source stores   read the leg's source topic again, from where they stand to X
derived stores  follow from the rows that changed, or from all rows when nobody knows which
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from milepost.agents import store
from milepost.agents.changelog import Mark, read_range
from milepost.agents.restore import Restore
from milepost.schemas.errors import StoreError
from milepost.topology import quarantine
from milepost.topology.line import LegSpec
from milepost.topology.state import Leg, Partition, Store

ROWS_A_WRITE: Final = 2000
ROWS_A_TURN: Final = 50
"""Derived rows between two turns of the loop."""

_START_OVER: Final = {
    "measure": "stop all workers and delete both changelogs: everything is made again from raw-events",
    "record": "stop all workers and delete all changelogs: everything is made again from raw-events",
}
"""How a leg begins anew whose source another leg writes: that leg has to send it again."""

_i64 = struct.Struct(">q")

Write = Callable[[Sequence[store.Change]], Awaitable[None]]
"""Writes to the store of the partition, or raises StoreError when it was taken away meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Where logs begin and end at the moment of opening.  A log begins behind 0 where somebody deleted records.

    source_end: None where nobody asked
    """

    source_start: int = 0
    source_end: int | None = None
    changelog_start: int = 0


UNKNOWN: Final = Bounds()


async def prepare(
    leg: Leg,
    spec: LegSpec,
    number: int,
    rocks: store.Rocks,
    restore: Restore,
    write: Write,
    *,
    stamp: store.Stamp,
    bootstrap: str,
    source: str,
    changelog: str,
    bounds: Bounds,
) -> Partition:
    """The partition as its changelog, its source and what follows from them make it."""
    mark = restore.mark
    check_source(mark, stamp, source=source, changelog=changelog, bounds=bounds)
    at = Partition(
        number=number,
        stores={one.name: Store(one.name, store.TableBase(rocks, one.tag), one.remember_bytes) for one in spec.stores},
        mark=leg.new_mark() if mark is None else leg.load_mark(mark.body),
        next_offset=restore.x + 1,
    )
    quarantine.load(at)
    await restore_source(leg, spec, at, rocks, write, bootstrap=bootstrap, source=source)
    await restore_derived(leg, spec, at, rocks, write, restore)
    return at


def check_source(mark: Mark | None, stamp: store.Stamp, *, source: str, changelog: str, bounds: Bounds) -> None:
    """Raise StoreError when the source topic, as it is now, is not the one the restored mark speaks of, or lacks what
    has to be folded."""
    if (0 if mark is None else mark.x + 1) < bounds.source_start:
        raise StoreError(
            f"{source}/{stamp.partition} begins at {bounds.source_start}, and what lies before is needed: records were "
            f"deleted from the log; fix: bring the log back, or start over in another namespace"
        )
    if mark is None:
        return
    fix = f"fix: bring the log back, or {_START_OVER.get(stamp.leg, f'delete the topic {changelog} to start over')}"
    # The last release wrote the topic's id alone.
    source_topic = stamp.source_topic if "/" in mark.source_topic else stamp.source_topic.partition("/")[0]
    if (mark.cluster, mark.source_topic) != (stamp.cluster, source_topic):
        raise StoreError(
            f"the mark of {stamp.leg}/{stamp.partition} is of topic {mark.source_topic} in cluster {mark.cluster}; "
            f"{source} is {stamp.source_topic} in {stamp.cluster} (topic/partitions): the log was made anew, or given "
            f"other partitions, under its state; {fix}"
        )
    if bounds.source_end is not None and mark.x >= bounds.source_end:
        raise StoreError(
            f"{stamp.leg}/{stamp.partition} has absorbed {source} up to {mark.x}, which ends at {bounds.source_end}: "
            f"the log was cut; {fix}"
        )


async def restore_source(
    leg: Leg, spec: LegSpec, at: Partition, rocks: store.Rocks, write: Write, *, bootstrap: str, source: str
) -> None:
    """Bring `source` stores up to X from the source topic."""
    tags = {one.name: bytes((one.tag,)) for one in spec.stores if one.changelog == "source"}
    if not tags:
        return
    held = [rocks.get(store.SOURCE + tag) for tag in tags.values()]
    start = min(-1 if one is None else int(_i64.unpack(one)[0]) for one in held) + 1
    async for records in read_range(bootstrap, source, at.number, start, at.next_offset):
        rows = leg.from_source(quarantine.without(at, records) if at.poison else records)
        changes: list[store.Change] = [(tags[name] + key, value) for name, key, value in rows]
        changes += [(store.SOURCE + tag, _i64.pack(records[-1].offset)) for tag in tags.values()]
        await write(changes)
        await asyncio.sleep(0)
    if start < at.next_offset:
        await write([(store.SOURCE + tag, _i64.pack(at.next_offset - 1)) for tag in tags.values()])


async def announce(
    leg: Leg,
    at: Partition,
    checkpoint: Callable[[], Awaitable[None]],
    *,
    bootstrap: str,
    source: str,
    source_end: int,
    bytes_max: int,
) -> None:
    """Tell the leg of a log that it will fold from its beginning; what it notes is written as it grows."""
    async for records in read_range(bootstrap, source, at.number, 0, source_end):
        for record in records:
            if (found := leg.heard(record)) is not None:
                quarantine.remember(at, found, 0)
        leg.announce(at, records)
        if at.size >= bytes_max:
            await checkpoint()
        await asyncio.sleep(0)


async def restore_derived(
    leg: Leg, spec: LegSpec, at: Partition, rocks: store.Rocks, write: Write, restore: Restore
) -> None:
    """Write the derived rows that follow from what the restore changed."""
    tags = {one.name: bytes((one.tag,)) for one in spec.stores if one.changelog == "derived"}
    changed = restore.changed
    if tags and (changed is None or changed):
        if changed is None:
            for tag in tags.values():
                rocks.delete_range(tag, bytes((tag[0] + 1,)))
        rows: list[store.Change] = []
        for name, key, value in leg.derive(at, None if changed is None else sorted(changed)):
            rows.append((tags[name] + key, value))
            if len(rows) % ROWS_A_TURN == 0:
                # Without turns a large restore leaves /readyz unanswered for so long that the supervisor takes the
                # worker for dead.
                await asyncio.sleep(0)
            if len(rows) >= ROWS_A_WRITE:
                await write(rows)
                rows = []
        await write(rows)
    await write([(store.DERIVE, None)])
