"""A toy leg with a store of every kind, and a worker that runs it: what proves the engine.

    numbers (key = event id, value = group:amount) -> [count] -> echoes (key = event id, value = origin)

The first record of an id counts; a repeat does not.  A repeat with another body owes the log the first one, which is
appended again with the header `first`.  `python -m tests.agents.toy` runs a worker that reports in its home.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from milepost.topology.line import LegSpec, StoreSpec
from milepost.topology.quarantine import Verdict
from milepost.topology.state import Fold, Output, Owed, Partition, Record

SPEC = LegSpec(
    name="count",
    reads="numbers",
    grouped_by="event id",
    stages=("count",),
    stores=(
        StoreSpec(name="seen", tag=1, holds="event id -> first offset", changelog="packed"),
        StoreSpec(name="sums", tag=2, holds="group -> sum, count"),
        StoreSpec(name="owed", tag=3, holds="event id -> offset of the first"),
        StoreSpec(name="facts", tag=4, holds="event id, offset -> body", changelog="source"),
        StoreSpec(name="copies", tag=5, holds="group -> count, derived from sums", changelog="derived"),
    ),
    writes=("echoes", "numbers"),
)

_upto = struct.Struct(">Q")
_sum = struct.Struct(">Qqq")


class Count:
    """The toy leg.  Its mark is the number of firsts it has seen."""

    name = "count"
    waits_unproved = False
    broken = ""  # a mutant's name, for positive controls
    raises_at = -1  # an offset the leg cannot take

    def new_mark(self) -> dict[str, int]:
        return {"firsts": 0}

    def load_mark(self, data: bytes) -> dict[str, int]:
        return json.loads(data)

    def dump_mark(self, mark: object) -> bytes:
        return json.dumps(mark).encode()

    def ready(self, records: Sequence[Record]) -> int:
        return len(records)

    def fold(self, at: Partition, records: Sequence[Record]) -> Fold:
        fold = Fold()
        seen, sums, owed, facts, copies = (at.stores[one.name] for one in SPEC.stores)
        for record in records:
            if record.offset == self.raises_at:
                raise RuntimeError("a leg that cannot take this record")
            at.next_offset = record.offset + 1
            head = _upto.pack(record.offset)
            key = record.key or b""
            if any(name == "first" for name, _ in record.headers):
                owed.delete(key)
                fold.count("again")
                continue
            if record.value is None or b":" not in record.value:
                fold.count("dead")
                continue
            first = seen.get(key)
            if first is not None:
                place = _upto.unpack_from(first, 8)[0]
                if place == record.offset:
                    pass  # a restored row that is ahead of its mark: this very record
                else:
                    fold.count("duplicate")
                    facts.put(key + head, head + record.value)
                    if facts.get(key + _upto.pack(place))[8:] != record.value:
                        owed.put(key, head + _upto.pack(place))
                        fold.after.append(Owed(key=key, at=place, stamp=b"1", value=None))
                    continue
            seen.put(key, head + head)
            facts.put(key + head, head + record.value)
            group, _, amount = record.value.partition(b":")
            held = sums.get(group)
            upto, total, count = _sum.unpack(held) if held else (-1, 0, 0)
            if upto < record.offset or self.broken == "no guard by upto":
                sums.put(group, _sum.pack(record.offset, total + int(amount), count + 1))
                copies.put(group, _sum.pack(record.offset, 0, count + 1))
            at.mark["firsts"] += 1
            fold.before.append(Output(topic="echoes", partition=at.number, key=key, value=str(record.offset).encode()))
            fold.count("first")
        return fold

    def pass_over(self, at: Partition, record: Record, verdict: Verdict) -> Fold:
        fold = Fold()
        fold.count("dead:poison")
        at.next_offset = record.offset + 1
        return fold

    def rewind(self, mark: object, records: Sequence[Record]) -> None:
        """It folds a record twice alike."""

    def repeats(self, at: Partition, record: Record) -> bool:
        return False

    def heard(self, record: Record) -> Verdict | None:
        return None

    def sentence(self, at: Partition, verdict: Verdict) -> Output:
        raise AssertionError("no test of this leg condemns a record")

    def announce(self, at: Partition, records: Sequence[Record]) -> None:
        """Nothing to note."""

    def owed(self, at: Partition) -> Iterator[Owed]:
        for key, value in list(at.stores["owed"].scan(b"", b"\xff" * 20)):
            yield Owed(key=key, at=_upto.unpack_from(value, 8)[0], stamp=b"1", value=None)

    def again(self, at: Partition, owed: Owed, value: bytes) -> Output:
        return Output(topic="numbers", partition=at.number, key=owed.key, value=value, headers=(("first", owed.stamp),))

    def derive(self, at: Partition, changed: Iterable[tuple[str, bytes]] | None) -> Iterator[tuple[str, bytes, bytes]]:
        everything = (("sums", key) for key, _ in at.stores["sums"].scan(b"", b"\xff" * 20))
        for name, key in everything if changed is None else changed:
            if name == "sums":
                value = at.stores["sums"].get(key)
                if value is not None:
                    upto, _, count = _sum.unpack(value)
                    yield "copies", key, _sum.pack(upto, 0, count)

    def from_source(self, records: Sequence[Record]) -> Iterator[tuple[str, bytes, bytes]]:
        for record in records:
            again = any(name == "first" for name, _ in record.headers)
            if record.key and record.value and b":" in record.value and not again:
                head = _upto.pack(record.offset)
                yield "facts", record.key + head, head + record.value


def tables(at: Partition) -> dict[str, object]:
    """What the partition says, without `upto`: comparable over histories."""
    sums = {key.decode(): _sum.unpack(value)[1:] for key, value in at.stores["sums"].scan(b"", b"\xff" * 20)}
    copies = {key.decode(): _sum.unpack(value)[2] for key, value in at.stores["copies"].scan(b"", b"\xff" * 20)}
    return {
        "next_offset": at.next_offset,
        "firsts": at.mark["firsts"],
        "sums": sums,
        "copies": copies,
        "seen": sum(1 for _ in at.stores["seen"].scan(b"", b"\xff" * 20)),
        "facts": sum(1 for _ in at.stores["facts"].scan(b"", b"\xff" * 20)),
        "owed": sum(1 for _ in at.stores["owed"].scan(b"", b"\xff" * 20)),
    }


def main() -> None:
    """Run a worker until it is ended."""
    from faust.worker import Worker

    from milepost.agents.bindings import engine
    from milepost.ops.settings import read_settings

    settings = read_settings()
    app, runtime = engine(settings, web_enabled=False)
    leg = Count()
    leg.raises_at = int(os.environ.get("TOY_RAISES_AT", "-1"))
    _mutate(os.environ.get("TOY_MUTANT", ""))
    bound = runtime.bind(leg, SPEC)
    status = Path(settings.home) / f"status-{settings.worker}.json"

    async def report() -> None:
        while True:
            held = {str(number): tables(at) for number, at in bound.partitions.items()}
            fresh = status.with_suffix(f".{os.getpid()}")
            fresh.write_text(json.dumps({"pid": os.getpid(), "partitions": held, "fates": dict(bound.fates)}))
            fresh.rename(status)
            await asyncio.sleep(float(os.environ.get("TOY_REPORT_S", "0.1")))

    @app.task
    async def reporting() -> None:
        await report()

    Worker(app, loglevel="info", quiet=False, redirect_stdouts=False).execute_from_commandline()


def _mutate(mutant: str) -> None:
    """Break the engine, for positive controls."""
    from milepost.agents.restore import Restore

    real = Restore.x.fget
    if mutant == "skips":
        Restore.x = property(lambda self: real(self) + 20)
    elif mutant == "forgets":
        Restore._row = lambda *_args: None


if __name__ == "__main__":
    main()
