"""Opening: what restoring leaves to do once the changelog is applied, for stores that have none of their own.

source stores   read the leg's source topic again, from where they stand to X
derived stores  follow from the rows that changed, or from all rows when nobody knows which
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

from milepost.agents import store
from milepost.agents.changelog import Mark, read_range
from milepost.agents.restore import Restore
from milepost.schemas.errors import StoreError
from milepost.topology import quarantine
from milepost.topology.line import LegSpec
from milepost.topology.state import Leg, Partition, Store

ROWS_A_WRITE: Final = 2000

_i64 = struct.Struct(">q")

Write = Callable[[Sequence[store.Change]], Awaitable[None]]
"""Writes to the store of the partition, or raises StoreError when it was taken away meanwhile."""


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
    source_end: int | None,
) -> Partition:
    """The partition as its changelog, its source and what follows from them make it."""
    mark = restore.mark
    check_source(mark, stamp, source=source, changelog=changelog, source_end=source_end)
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


def check_source(mark: Mark | None, stamp: store.Stamp, *, source: str, changelog: str, source_end: int | None) -> None:
    """Raise StoreError when the restored mark is not of the source topic as it is now.

    source_end: where the source partition ends, if known.
    """
    if mark is None:
        return
    fix = f"fix: bring the log back, or delete the topic {changelog} to start over"
    if (mark.cluster, mark.source_topic) != (stamp.cluster, stamp.source_topic):
        raise StoreError(
            f"the mark of {stamp.leg}/{stamp.partition} is of topic {mark.source_topic} in cluster {mark.cluster}; "
            f"{source} is {stamp.source_topic} in {stamp.cluster}: the log was made anew under its state; {fix}"
        )
    if source_end is not None and mark.x >= source_end:
        raise StoreError(
            f"{stamp.leg}/{stamp.partition} has absorbed {source} up to {mark.x}, which ends at {source_end}: "
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
        for name, key, value in leg.derive(at, _all_rows(spec, at) if changed is None else sorted(changed)):
            rows.append((tags[name] + key, value))
            if len(rows) >= ROWS_A_WRITE:
                await write(rows)
                rows = []
                await asyncio.sleep(0)
        await write(rows)
    await write([(store.DERIVE, None)])


def _all_rows(spec: LegSpec, at: Partition) -> Iterator[tuple[str, bytes]]:
    for one in spec.stores:
        if one.changelog in ("each", "packed"):
            for key, _ in at.stores[one.name].base.scan(b"", b"\xff" * 64):
                yield one.name, key
