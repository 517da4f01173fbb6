"""History: a store made large through its changelog, the restore of a lost folder, and the job over what it then holds.

    the job's events of the day before -> worker -> its changelog, read once
        cells:  every row again, its pane moved back by whole days, under the epoch of the owner that wrote it
        seen:   packed records of invented raw keys, each row with the bytes of a real one
    -> the folders are deleted -> a worker restores everything, timed by its log -> its totals are asked for

The copies are Kafka records in the layout that `agents/changelog.py` describes, so a restore cannot tell them from a
worker's.  What checks them is an answer: with every day copied n times, the total over all time is n + 1 times that of
the day.  Facts are not copied: nothing asks for the events behind the copied cells.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from milepost.ops import processes
from milepost.ops.bench import job, ours
from milepost.ops.bench.peer import run_program
from milepost.ops.bench.rates import caught_up
from milepost.ops.bench.stage import Run, Stage, second_half
from milepost.ops.bench.streams import Streams
from milepost.ops.bench.work import FOUR, PANE_MS, Work, differences
from milepost.ops.client import Client
from milepost.ops.reader import plain_consumer, read_to_end
from milepost.ops.sender import Sender
from milepost.ops.settings import Settings
from milepost.schemas.errors import DeclarationError, StoreError
from milepost.topology.line import leg

DAY_MS: Final = 86_400_000
DAY_PANES: Final = DAY_MS // PANE_MS
PACKED_ROWS: Final = 4_000
"""Rows of one packed record, as a checkpoint of a busy worker has them."""

SLACK: Final = 1e-9
_row = struct.Struct(">HI")
_u64 = struct.Struct(">Q")
_RESTORING: Final = re.compile(r"(measure|ingest)/\d+: epoch \d+, restoring from")
_OPEN: Final = re.compile(r"(measure|ingest)/\d+: open at")


@dataclass(slots=True, kw_only=True)
class Grown:
    """What a changelog was made to hold: cells in all, invented seen ids, and how often the day was copied."""

    cells: int
    seen: int
    copies: int
    rows: dict[int, list[tuple[bytes, bytes]]] = field(repr=False)


def measure_restore(stage: Stage, *, cells: int, base_events: int) -> dict[str, Any]:
    """Cells a second of a lost folder's restore, and records a second of Kafka Streams on as many records."""
    settings, total = _base(stage, "restore", base_events)
    grown = grow(settings, cells=cells, seen=0)
    stage.say(f"the changelog holds {grown.cells:,} cells")
    with restored(stage, settings, grown, total) as (fleet, seconds):
        fleet.check()
        restarts = fleet.restarts
    ours.forget(stage, fleet)
    out: dict[str, Any] = {"cells": grown.cells, "seconds": round(seconds, 3), "restarts": restarts}
    out["cells_per_s"] = round(grown.cells / seconds, 1)
    out |= _streams(stage, grown)
    return out


def measure_large(
    stage: Stage, work: Work, records: Sequence[job.Message], *, cells: int, seen: int, base_events: int
) -> tuple[Run, dict[str, Any]]:
    """The job over a store that holds so many cells and seen ids; its work is compared like any contestant's."""
    settings, total = _base(stage, "large", base_events)
    grown = grow(settings, cells=cells, seen=seen)
    stage.say(f"the changelogs hold {grown.cells:,} cells and {grown.seen:,} seen ids")
    with restored(stage, settings, grown, total) as (fleet, seconds):
        stage.say(f"restored in {seconds:.1f} s")
        restarts = fleet.restarts
        disk = sum(path.stat().st_size for path in settings.state.rglob("*") if path.is_file())
        watch = ours.fill_held(fleet, records)
        watch.until_done(fleet)
        with Client(fleet.url) as client:
            found = ours.ask_cells(client, work)
    ours.forget(stage, fleet)
    run = Run(
        name="Milepost, 1 worker, large store",
        events=len(records),
        seconds=watch.seconds,
        second_half=second_half(watch.progress(), len(records)),
        signals=sum(cell[0] for key, cell in found.items() if key[3:] == ("", "")),
        cpu_s=watch.cpu_s,
        wrong=differences(work, found, FOUR),
        does=ours.DOES,
        leaves_out=ours.LEAVES_OUT,
    )
    return run, {
        "cells": grown.cells,
        "seen": grown.seen,
        "disk_mb": disk // 2**20,
        "restored_s": round(seconds, 1),
        "restarts": restarts,
    }


def grow(settings: Settings, *, cells: int, seen: int) -> Grown:
    """Make the changelogs of a stopped deployment hold so many cells and seen ids, or a few more."""
    rows = {number: list(_cells(settings, number)) for number in range(settings.partitions)}
    held = sum(map(len, rows.values()))
    if not held:
        raise StoreError(f"{settings.topic('measure-changelog')} holds no cells to copy")
    copies = max(0, round(cells / held) - 1)
    topic = settings.topic("measure-changelog")
    with Sender(settings.bootstrap, linger_ms=50) as sender:
        for number, some in rows.items():
            for copy in range(1, copies + 1):
                for key, value in some:
                    sender.send(topic, number, moved_back(key, copy), value)
    made = _grow_seen(settings, seen) if seen else 0
    return Grown(cells=held * (copies + 1), seen=made, copies=copies, rows=rows)


def moved_back(key: bytes, days: int) -> bytes:
    """A cell's changelog key with its pane, the last four bytes, so many days earlier."""
    return key[:-4] + (int.from_bytes(key[-4:], "big") - days * DAY_PANES).to_bytes(4, "big")


def packed_record(sample: bytes, epoch: bytes, number: int, count: int) -> tuple[bytes, bytes]:
    """(key, value) of a packed record of `seen` with `count` invented raw keys, each with the row of a real one.

    Its X is beyond any offset, so no record of the engine's own ever has its key.
    """
    tag = bytes((next(one.tag for one in leg("ingest").stores if one.name == "seen"),))
    keys, head = os.urandom(16 * count), _row.pack(16, len(sample))
    rows = b"".join(head + keys[at : at + 16] + sample for at in range(0, 16 * count, 16))
    return tag + epoch + _u64.pack((1 << 62) + number), epoch + _u64.pack(0) + rows


class restored:  # noqa: N801 -- reads as the function it stands for
    """A worker that has restored a deployment whose folders were deleted: (fleet, seconds of the restore).

    The copied days are asked for, and the answer must be that of one day times their number.
    """

    def __init__(self, stage: Stage, settings: Settings, grown: Grown, total: float) -> None:
        shutil.rmtree(settings.state)
        self._stage = stage
        self._fleet = ours.Fleet(settings, 1, say=stage.say)
        self._wanted = total * (grown.copies + 1)

    def __enter__(self) -> tuple[ours.Fleet, float]:
        settings = self._fleet.members[0]
        begun = time.monotonic()
        self._fleet.__enter__()
        try:
            caught_up(settings, patience_s=60.0)
            found = _total(settings)
            if abs(found - self._wanted) > SLACK * self._wanted:
                raise StoreError(f"the restored history sums to {found}, expected {self._wanted}")
            log = settings.home / "log" / f"{settings.worker}.log"
            if not self._fleet.restarts:
                return self._fleet, restore_s(log)
            # A worker that did not get through in one life: all its lives count, and the last end is told.
            self._stage.say(processes.last_lines(log.with_name(f"{log.name}.1"), count=20))
            return self._fleet, time.monotonic() - begun
        except BaseException:
            self._fleet.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        self._fleet.__exit__()


def restore_s(log: Path) -> float:
    """Seconds from the first partition that a worker's log says is being restored to the last one it says is open."""
    begun = ended = None
    for line in log.read_text(errors="replace").splitlines():
        if begun is None and _RESTORING.search(line):
            begun = _at(line)
        elif _OPEN.search(line):
            ended = _at(line)
    if begun is None or ended is None:
        raise StoreError(f"{log.name} does not say when the restore began and ended")
    return (ended - begun).total_seconds()


def _at(line: str) -> datetime:
    return datetime.fromisoformat(line.split(" ", 1)[0])


def _base(stage: Stage, name: str, events: int) -> tuple[Settings, float]:
    """A deployment whose worker has taken a day's events and is stopped; what one metric then sums to."""
    settings = ours.prepared(stage, name)
    begin_ms, step_ms = job.BEGIN_MS - DAY_MS, DAY_MS / events  # over the whole day: a day's row sums several panes
    day_before = list(job.generate(events, seed=2, begin_ms=begin_ms, step_ms=step_ms))
    records = [job.message(body, settings.partitions) for body in day_before]
    with ours.Fleet(settings, 1, say=stage.say) as fleet:
        ours.fill_held(fleet, records).until_done(fleet)
        with Client(fleet.url) as client:
            ours.settled(client, settings)
        total = _total(settings)
    return settings, total


def _total(settings: Settings) -> float:
    with Client(settings.url) as client:
        return float(client.value("logins_sum", window="all")["value"])


def _cells(settings: Settings, number: int) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of the last record of each cell in a partition of measure's changelog."""
    tag = next(one.tag for one in leg("measure").stores if one.name == "cells")
    last: dict[bytes, bytes] = {}
    for message in _records(settings, "measure-changelog", number):
        key, value = message.key(), message.value()
        if key and value and key[0] == tag:
            last[key] = value
    yield from last.items()


def _grow_seen(settings: Settings, seen: int) -> int:
    """Append packed records of invented ids to each partition of ingest's changelog; returns how many ids."""
    tag = next(one.tag for one in leg("ingest").stores if one.name == "seen")
    each = -(-seen // settings.partitions)
    topic, made = settings.topic("ingest-changelog"), 0
    with Sender(settings.bootstrap, waiting_max=500, linger_ms=5) as sender:
        for number in range(settings.partitions):
            packed = [one for one in _records(settings, "ingest-changelog", number) if (one.key() or b"\0")[0] == tag]
            if not packed:
                raise StoreError(f"{topic}/{number} holds no seen ids to copy")
            value = packed[-1].value()
            key_length, value_length = _row.unpack_from(value, 16)
            sample = value[22 + key_length : 22 + key_length + value_length]
            for count in range(0, each, PACKED_ROWS):
                rows = min(PACKED_ROWS, each - count)
                sender.send(topic, number, *packed_record(sample, value[:8], count, rows))
                made += rows
    return made


def _records(settings: Settings, topic: str, number: int) -> Iterator[Any]:
    consumer = plain_consumer(settings.bootstrap)
    try:
        name = settings.topic(topic)
        yield from read_to_end(consumer, name, settings.partitions, {number: 0})
    finally:
        consumer.close()


def _streams(stage: Stage, grown: Grown) -> dict[str, Any]:
    """Kafka Streams restores a store from a changelog with the same records."""
    try:
        program = Streams(stage)
    except DeclarationError as error:
        return {"streams_why": str(error)}
    place = stage.place("streams-restore")
    raw = stage.topic("streams.nothing")
    changelog = stage.named_topic(f"{place.name}-cells-changelog", {"cleanup.policy": "compact"})
    with Sender(stage.bootstrap, linger_ms=50) as sender:
        for number, some in grown.rows.items():
            for copy in range(grown.copies + 1):
                for key, value in some:
                    sender.send(changelog, number, moved_back(key, copy), value)
    arguments = {"mode": "restore", "bootstrap": stage.bootstrap, "app": place.name, "raw": raw}
    given = {**arguments, "records": str(grown.cells), "state": str(place / "state")}
    last = run_program(program.command(place), given, place).last
    stage.drop(place)
    stage.drop_topics(lambda name: name in (raw, changelog))
    return {
        "streams_records": int(last["read"]),
        "streams_seconds": float(last["at_s"]),
        "streams_records_per_s": round(int(last["read"]) / float(last["at_s"]), 1),
    }
