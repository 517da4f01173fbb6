"""A Faust worker as a process, on a real broker: killed at every step, overtaken, fed with what it cannot take."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from milepost.agents.faults import POINTS
from milepost.ops.settings import Settings
from tests.agents.harness import Event, ToyWorker, difference, events, expected, make_topics, read_topic, send

pytestmark = [pytest.mark.broker, pytest.mark.slow]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The toy line has two partitions."""
    return replace(settings, partitions=2)


@pytest.fixture
def workers(settings: Settings) -> Iterator[list[ToyWorker]]:
    """The workers of a test: ended with it."""
    made: list[ToyWorker] = []
    yield made
    for one in made:
        if one.process.poll() is None:
            one.kill()


def more(made: list[Event], n: int, seed: int) -> list[Event]:
    """`n` events with ids of their own, appended to `made`."""
    fresh = [(partition, b"%d-" % seed + key, body) for partition, key, body in events(n, seed=seed)]
    made += fresh
    return fresh


PASSAGE = {"after_fetch": 1, "after_fold": 4, "own_appended": 2, "restored": 2}


@pytest.mark.campaign
def test_killed_at_every_crash_point_the_counts_are_exact(settings: Settings, workers: list[ToyWorker]) -> None:
    """One worker after another dies at each crash point in turn; the state folder is lost twice on the way."""
    make_topics(settings)
    made: list[Event] = []
    for number, point in enumerate(POINTS):
        send(settings, more(made, 800, number))
        if point in ("restoring", "batch_acked"):
            shutil.rmtree(settings.state, ignore_errors=True)
        worker = ToyWorker(settings, fault_at=f"{point}:{PASSAGE.get(point, 1)}")
        workers.append(worker)
        assert worker.wait_end(30) == -signal.SIGKILL, f"{point} was not reached"
    workers.append(worker := ToyWorker(settings))
    wanted = expected(made)
    assert difference(worker.wait_for(wanted), wanted) == []
    worker.kill()
    shutil.rmtree(settings.state)
    workers.append(worker := ToyWorker(settings))
    assert difference(worker.wait_for(wanted), wanted) == []
    echoed = {(number, key) for number, _, key, _ in read_topic(settings, "echoes")}
    assert echoed == {(number, key) for number, key, _ in made}


@pytest.mark.campaign
def test_killed_ten_times_under_load_the_counts_are_exact(settings: Settings, workers: list[ToyWorker]) -> None:
    """Ten kill -9 at random moments; what was folded and not checkpointed is folded again and counted once."""
    make_topics(settings)
    chance = random.Random(20)
    made: list[Event] = []
    for number in range(10):
        send(settings, more(made, 1500, number))
        workers.append(worker := ToyWorker(settings))
        status: dict[str, Any] = {}
        until = time.monotonic() + 30
        while not status.get("partitions") and time.monotonic() < until:
            time.sleep(0.02)
            status = worker.status()
        send(settings, more(made, 1500, 100 + number))
        time.sleep(chance.random() * 0.4)
        worker.kill()
    workers.append(worker := ToyWorker(settings))
    wanted = expected(made)
    assert difference(worker.wait_for(wanted), wanted) == []
    worker.kill()
    shutil.rmtree(settings.state)
    workers.append(worker := ToyWorker(settings))
    assert difference(worker.wait_for(wanted), wanted) == []


@pytest.mark.parametrize("mutant", ["skips", "forgets"])
def test_a_broken_engine_is_noticed(settings: Settings, workers: list[ToyWorker], mutant: str) -> None:
    """Positive control: a worker that goes on behind X+1, or restores no rows, counts wrong."""
    make_topics(settings)
    made: list[Event] = []
    send(settings, more(made, 600, 1))
    workers.append(worker := ToyWorker(settings))
    wanted = expected(made)
    assert difference(worker.wait_for(wanted), wanted) == []
    worker.kill()
    if mutant == "forgets":
        shutil.rmtree(settings.state)
    send(settings, more(made, 600, 2))
    workers.append(worker := ToyWorker(settings, extra={"TOY_MUTANT": mutant}))
    wanted = expected(made)
    assert difference(worker.wait_for(wanted, 7), wanted) != []


def test_a_stopped_worker_is_replaced_and_writes_nothing_more(settings: Settings, workers: list[ToyWorker]) -> None:
    """SIGSTOP beyond the session's time-out: another worker takes over, the woken one ends with 75, counts are exact."""
    settings = replace(settings, session_timeout_s=6)
    make_topics(settings)
    made: list[Event] = []
    send(settings, more(made, 1000, 1))
    workers.append(first := ToyWorker(settings))
    assert difference(first.wait_for(expected(made)), expected(made)) == []
    workers.append(second := ToyWorker(replace(settings, home=settings.home / "two", worker="worker-2")))
    _wait(lambda: len(first.status()["partitions"]) == 1 and len(second.status().get("partitions", {})) == 1)
    os.kill(first.process.pid, signal.SIGSTOP)
    send(settings, more(made, 1000, 2))
    wanted = expected(made)
    assert difference(second.wait_for(wanted), wanted) == []
    os.kill(first.process.pid, signal.SIGCONT)
    send(settings, more(made, 1000, 3))
    wanted = expected(made)
    # Woken, it either finds the other's `own` (75) or is told by the group and comes back as a follower of it.
    _wait(lambda: first.process.poll() is not None or len(first.status().get("partitions", {})) < 2, 20)
    assert first.process.poll() in (None, 75)
    if first.process.poll() is None:
        first.kill()
    assert difference(second.wait_for(wanted), wanted) == []


def test_partitions_move_when_workers_come_and_go(settings: Settings, workers: list[ToyWorker]) -> None:
    """A second worker takes half of the partitions and gives them back by an orderly stop; counts are exact."""
    make_topics(settings)
    made: list[Event] = []
    send(settings, more(made, 1000, 1))
    workers.append(first := ToyWorker(settings))
    assert difference(first.wait_for(expected(made)), expected(made)) == []
    workers.append(second := ToyWorker(replace(settings, home=settings.home / "two", worker="worker-2")))
    _wait(lambda: len(first.status()["partitions"]) == 1 and len(second.status().get("partitions", {})) == 1)
    send(settings, more(made, 1000, 2))
    wanted = expected(made)
    _wait(lambda: not difference({"partitions": first.status()["partitions"] | second.status()["partitions"]}, wanted))
    assert second.stop() == 0
    assert difference(first.wait_for(wanted, 30), wanted) == []


def test_an_exception_in_the_leg_acknowledges_nothing(settings: Settings, workers: list[ToyWorker]) -> None:
    """A leg that raises ends the process with 70; the record is folded by the next worker and was never committed."""
    make_topics(settings)
    made: list[Event] = []
    send(settings, more(made, 300, 1))
    workers.append(worker := ToyWorker(settings, extra={"TOY_RAISES_AT": "100"}))
    assert worker.wait_end(30) == 70
    assert "could not be folded" in worker.log()
    assert max([0, *_committed(settings).values()]) <= 100
    workers.append(worker := ToyWorker(settings))
    wanted = expected(made)
    assert difference(worker.wait_for(wanted), wanted) == []


def test_garbage_in_every_topic_changes_nothing(settings: Settings, workers: list[ToyWorker]) -> None:
    """Bytes that are nothing of ours, in the source and in the changelog, before and after: counts stay exact."""
    make_topics(settings)
    made: list[Event] = []
    send(settings, more(made, 500, 1))
    junk = [(p, os.urandom(8), os.urandom(n % 40).replace(b":", b";")) for p in (0, 1) for n in range(60)]
    changelog = replace(settings, namespace=f"{settings.namespace}")
    send(changelog, junk)
    _send_to(settings, "count-changelog", [(p, bytes((n % 7,)) + key, value) for n, (p, key, value) in enumerate(junk)])
    workers.append(worker := ToyWorker(settings))
    wanted = expected(made)
    assert difference(worker.wait_for(wanted), wanted) == []
    _send_to(settings, "count-changelog", [(p, bytes((n % 7,)) + key, value) for n, (p, key, value) in enumerate(junk)])
    send(settings, more(made, 500, 2))
    wanted = expected(made)
    assert difference(worker.wait_for(wanted), wanted) == []
    worker.kill()
    shutil.rmtree(settings.state)
    workers.append(worker := ToyWorker(settings))
    assert difference(worker.wait_for(wanted), wanted) == []


def test_an_orderly_stop_commits_what_is_folded(settings: Settings, workers: list[ToyWorker]) -> None:
    """After SIGTERM the committed offsets are the ends of the log, and the process leaves with 0."""
    make_topics(settings)
    made = events(500, seed=1, repeats=0)
    send(settings, made)
    workers.append(worker := ToyWorker(settings))
    wanted = expected(made)
    assert difference(worker.wait_for(wanted), wanted) == []
    assert worker.stop() == 0
    ends = {number: sum(1 for one in made if one[0] == number) for number in (0, 1)}
    assert _committed(settings) == ends
    assert "Unclosed" not in worker.log()


def test_a_committed_offset_beyond_the_mark_is_not_believed(settings: Settings, workers: list[ToyWorker]) -> None:
    """Lost state is rebuilt from X+1, said in the log; the committed offset is for display."""
    make_topics(settings)
    made = events(500, seed=1)
    send(settings, made)
    _commit(settings, 300)
    workers.append(worker := ToyWorker(settings))
    wanted = expected(made)
    assert difference(worker.wait_for(wanted), wanted) == []
    assert "state was lost and is rebuilt" in worker.log()


def test_the_routing_of_faust_agrees_with_the_log() -> None:
    """Faust's key routing is murmur2 over the bytes, as Java's and ours: 1,000 keys to one partition each."""
    from aiokafka.partitioner import DefaultPartitioner, murmur2

    choose = DefaultPartitioner()
    for n in range(1000):
        key = random.Random(n).randbytes(16)
        assert choose(key, [0, 1, 2, 3], [0, 1, 2, 3]) == (murmur2(key) & 0x7FFFFFFF) % 4


def _wait(true: Any, seconds: float = 40.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.1)


def _send_to(settings: Settings, topic: str, made: list[Event]) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": settings.bootstrap})
    for partition, key, value in made:
        producer.produce(settings.topic(topic), value=value, key=key, partition=partition)
    assert producer.flush(30) == 0


def _committed(settings: Settings) -> dict[int, int]:
    admin = AdminClient({"bootstrap.servers": settings.bootstrap})
    wanted = [TopicPartition(settings.topic("numbers"), number) for number in (0, 1)]
    found = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(settings.group, wanted)])
    result = found[settings.group].result(30)
    return {one.partition: one.offset for one in result.topic_partitions if one.offset >= 0}


def _commit(settings: Settings, offset: int) -> None:
    from confluent_kafka import Consumer

    consumer = Consumer({"bootstrap.servers": settings.bootstrap, "group.id": settings.group})
    places = [TopicPartition(settings.topic("numbers"), number, min(offset, 200)) for number in (0, 1)]
    consumer.commit(offsets=places, asynchronous=False)
    consumer.close()
