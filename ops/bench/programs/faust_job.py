"""The job in stock Faust: two agents, two tables in RocksDB, a signals topic by company, three cells a signal.

Arguments: bootstrap, app, raw, signals, events, commit_ms, state, out.  Everything else is Faust's.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import faust
import orjson
from common import PANE_MS, Progress, arguments, rule_of

GIVEN = arguments()
PROGRESS = Progress(int(GIVEN["events"]))
PARTITIONS = int(GIVEN["partitions"])

app = faust.App(
    GIVEN["app"],
    broker=f"kafka://{GIVEN['bootstrap']}",
    store="rocksdb://",
    datadir=GIVEN["state"],
    topic_partitions=PARTITIONS,
    topic_replication_factor=1,
    topic_disable_leader=True,
    broker_commit_interval=int(GIVEN["commit_ms"]) / 1000,
    producer_compression_type="lz4",
    producer_linger=0.02,
    web_enabled=False,
)
raw = app.topic(GIVEN["raw"], key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
signals = app.topic(GIVEN["signals"], key_type=str, partitions=PARTITIONS)
seen = app.Table("seen", partitions=PARTITIONS)
cells = app.Table("cells", partitions=PARTITIONS)


@app.agent(raw)
async def ingest(events: AsyncIterator[bytes]) -> None:
    """Decode, dedupe, rules."""
    async for value in events:
        event: dict[str, Any] = orjson.loads(value)
        PROGRESS.took()
        if event["id"] in seen:
            continue
        seen[event["id"]] = 1
        data = event["data"]
        rule = rule_of(event["type"], data["amount"], data["plan"])
        if not rule:
            continue
        PROGRESS.signals += 1
        pane = round(datetime.fromisoformat(event["time"]).timestamp() * 1000) // PANE_MS
        await signals.send(
            key=data["company"],
            value={
                "company": data["company"],
                "rule": rule,
                "pane": pane,
                "plan": data["plan"],
                "country": data["country"],
                "amount": data["amount"],
            },
        )


@app.agent(signals)
async def measure(some: AsyncIterator[Any]) -> None:
    """Three cells a signal."""
    async for one in some:
        head = f"{one['rule']}\t{one['company']}\t{one['pane']}"
        for cell in (f"{head}\t\t", f"{head}\t{one['plan']}\t", f"{head}\t{one['plan']}\t{one['country']}"):
            count, total = cells.get(cell, (0, 0.0))
            cells[cell] = [count + 1, total + one["amount"]]
        PROGRESS.measured += 1


@app.task
async def end() -> None:
    """Wait for the end, write the cells, and leave: the tables are of no use to anybody."""
    while not PROGRESS.ended():  # noqa: ASYNC110 -- the work is counted in agents; an event for its end would be set there
        await asyncio.sleep(0.05)
    with Path(GIVEN["out"]).open("w") as file:
        for cell, (count, total) in cells.items():
            file.write(f"{cell}\t{count}\t{total!r}\n")
    os._exit(0)


faust.Worker(app, loglevel="info", redirect_stdouts=False).execute_from_commandline()
