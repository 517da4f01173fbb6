"""What a worker takes of memory is bounded, whatever lies in the log: a backlog of large events, and packed bombs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import orjson
import pytest
from confluent_kafka import Producer

from milepost.agents.records import BATCH_BYTES
from milepost.ops.flights import ORG
from milepost.ops.settings import Settings
from milepost.schemas.keys import raw_place
from tests.faults.conftest import Sized
from tests.support.hostile_records import DATA, Sent, append, event, good
from tests.support.keeper import firsts
from tests.support.report import fault
from tests.support.workers import Deployment, Worker

pytestmark = [pytest.mark.broker, pytest.mark.slow]

PARTITIONS: Final = 2
BOUND_MB: Final = 600
"""What a worker of a few partitions may take: an interpreter and its libraries (about 200 MB), RocksDB's cache and
memtables, and for each source partition what is fetched and not folded yet."""
BOMB_BYTES: Final = 40 * 1024 * 1024
BOMBS: Final = 12


def greatest_mb(worker: Worker) -> float:
    """The most memory that the worker has had at any moment."""
    lines = Path(f"/proc/{worker.process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024


def large(count: int) -> list[Sent]:
    """Departures that nothing can pack: each with 900 kB that no rule reads."""
    drawn = random.Random(5)
    out = []
    for n in range(count):
        ident = f"large-{n}"
        body = orjson.dumps(event(ident, data={**DATA, "pad": drawn.randbytes(450_000).hex()}))
        key, partition = raw_place(ORG, "flights", ident, 0, 0, PARTITIONS)
        out.append(Sent(partition, key, body, ()))
    return out


def bomb(settings: Settings, values: Sequence[bytes]) -> None:
    """One batch that is small as it lies in the log, in partition 0."""
    refused: list[str] = []
    producer = Producer(
        {
            "bootstrap.servers": settings.bootstrap, "compression.type": "zstd", "linger.ms": 5000,
            "message.max.bytes": 10**9, "batch.size": 2**31 - 1, "queue.buffering.max.kbytes": 2**31 - 1,
        }
    )  # fmt: skip
    for number, value in enumerate(values):
        producer.produce(
            settings.topic("raw-events"),
            value,
            b"bomb %d" % number,
            partition=0,
            on_delivery=lambda e, _: refused.append(str(e)) if e else None,
        )
    assert producer.flush(60) == 0 and not refused, refused


def test_a_backlog_of_large_events_does_not_fill_the_memory(settings: Settings, sized: Sized) -> None:
    """Hundreds of megabytes wait in the log: the worker takes them in hand piece by piece, and each is folded."""
    events = large(sized(1500, 500))
    assert sum(len(one.value or b"") for one in events) > 0.7 * BOUND_MB * 2**20
    with fault("F14", "a backlog of large events") as told, Deployment(settings, partitions=PARTITIONS) as deployment:
        deployment.apply()
        for at in range(0, len(events), 100):
            append(deployment.settings, events[at : at + 100])
        worker = deployment.start()
        fates = deployment.settle()["fates"]["ingest"]
        told.note(f"at most {greatest_mb(worker):.0f} MB")
        assert fates["accepted"] == len(events), fates
        assert greatest_mb(worker) < BOUND_MB


def test_a_batch_that_unpacks_to_gigabytes_ends_no_worker(settings: Settings) -> None:
    """A few kilobytes in the log that unpack to half a gigabyte: each of its records is a dead letter, what lies before
    and behind counts, and no process ends."""
    before, after = good(firsts(400)[:200], PARTITIONS), good(firsts(400)[200:], PARTITIONS)
    with fault("F14", "batch bombs") as told, Deployment(settings, partitions=PARTITIONS) as deployment:
        assert BOMBS * BOMB_BYTES > 2 * BATCH_BYTES
        deployment.apply()
        append(deployment.settings, before)
        bomb(deployment.settings, [bytes(BOMB_BYTES)] * BOMBS)
        append(deployment.settings, after)
        worker = deployment.start()
        fates = deployment.settle()["fates"]["ingest"]
        told.note(f"at most {greatest_mb(worker):.0f} MB")
        assert fates["accepted"] == 400 and fates["dead:too_large"] == BOMBS, fates
        assert deployment.dead()["decode", "too_large"] == BOMBS
        assert worker.alive and greatest_mb(worker) < BOUND_MB
