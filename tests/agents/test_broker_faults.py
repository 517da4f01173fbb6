"""A broker that is killed, stopped and restarted under a worker; codecs; topics that are not as they must be."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewPartitions

from milepost.agents.changelog import read_range
from milepost.ops.broker import EmbeddedBroker
from milepost.ops.processes import free_ports
from milepost.ops.settings import Settings
from tests.agents.harness import ToyWorker, difference, events, expected, make_topics, send
from tests.support.broker import TestBroker, shared_jars

pytestmark = [pytest.mark.broker, pytest.mark.slow]


@pytest.mark.campaign
def test_a_broker_that_dies_and_stands_still_loses_nothing(tmp_path: Path) -> None:
    """kill -9 and restart, then SIGSTOP beyond the session: the worker goes on by itself, counts are exact."""
    port = free_ports(2)[0]
    with EmbeddedBroker(tmp_path / "broker", port=port, jars=shared_jars()) as broker:
        settings = Settings(
            home=tmp_path / "home", broker=broker.bootstrap, replication=1, partitions=2, session_timeout_s=6
        )
        make_topics(settings)
        made = events(6000, seed=1)
        sending = threading.Thread(target=send, args=(settings, made), kwargs={"pause_s": 0.1})
        sending.start()
        worker = ToyWorker(settings)
        try:
            until = time.monotonic() + 30
            while not worker.status().get("partitions") and time.monotonic() < until:
                time.sleep(0.1)
            assert broker.process is not None
            broker.process.kill()
            broker.process.wait()
            broker.stop()
            broker.start()
            time.sleep(1)
            assert broker.process is not None
            os.kill(broker.process.pid, signal.SIGSTOP)
            time.sleep(8)
            os.kill(broker.process.pid, signal.SIGCONT)
            sending.join(60)
            wanted = expected(made)
            assert difference(worker.wait_for(wanted, 60), wanted) == []
            assert worker.process.poll() is None
        finally:
            worker.kill()
            sending.join(60)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The toy line has two partitions."""
    return replace(settings, partitions=2)


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_every_codec_is_read(settings: Settings, codec: str) -> None:
    """Whatever a producer compresses with: without its decoder the fetcher would die on the first batch."""
    make_topics(settings, 1)
    producer = Producer({"bootstrap.servers": settings.bootstrap, "compression.type": codec, "linger.ms": 50})
    for i in range(500):
        producer.produce(settings.topic("numbers"), value=b"g:%d" % i * 5, key=b"%d" % i, partition=0)
    assert producer.flush(30) == 0

    async def run() -> int:
        found = 0
        async for records in read_range(settings.bootstrap, settings.topic("numbers"), 0, 0, 500):
            found += len(records)
        return found

    assert asyncio.run(run()) == 500


def test_partition_counts_that_differ_decline_to_start(broker: TestBroker, settings: Settings) -> None:
    """A source and a changelog with different partition counts would leave tables silently empty."""
    make_topics(settings, 2)
    admin = broker.admin()
    for future in admin.create_partitions([NewPartitions(settings.topic("count-changelog"), 3)]).values():
        future.result(20)
    worker = ToyWorker(settings)
    assert worker.wait_end(30) == 70
    assert "has 2 partitions" in worker.log()


def test_a_changelog_made_anew_is_rebuilt_from_the_source(broker: TestBroker, settings: Settings) -> None:
    """The folder of a changelog that is gone is set aside, and the tables follow from the source again."""
    make_topics(settings, 2)
    made = events(400, seed=2)
    send(settings, made)
    wanted = expected(made)
    worker = ToyWorker(settings)
    assert difference(worker.wait_for(wanted), wanted) == []
    assert worker.stop() == 0
    admin = broker.admin()
    for future in admin.delete_topics([settings.topic("count-changelog")]).values():
        future.result(20)
    time.sleep(1)
    other = replace(settings, namespace=settings.namespace)
    _again(broker, other)
    worker = ToyWorker(settings)
    try:
        assert difference(worker.wait_for(wanted), wanted) == []
    finally:
        worker.kill()
    assert "set aside" in worker.log()


def _again(broker: TestBroker, settings: Settings) -> None:
    from confluent_kafka.admin import NewTopic

    admin = broker.admin()
    for future in admin.create_topics([NewTopic(settings.topic("count-changelog"), 2, 1)]).values():
        future.result(20)
