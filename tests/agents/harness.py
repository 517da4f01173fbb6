"""What the engine's tests share: topics of the toy line, events, workers as processes, and what must come out."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from milepost.ops.settings import Settings
from tests.agents.toy import SPEC
from tests.support.workers import SRC

ROOT = Path(__file__).resolve().parents[2]
COMPACT = {"cleanup.policy": "compact"}


def make_topics(settings: Settings, partitions: int = 2) -> None:
    """The toy line's topics."""
    admin = AdminClient({"bootstrap.servers": settings.bootstrap})
    long = {**COMPACT, "min.compaction.lag.ms": "3600000"}
    wanted = [
        NewTopic(settings.topic("numbers"), partitions, 1, config=long),
        NewTopic(settings.topic("echoes"), partitions, 1),
        NewTopic(settings.topic(SPEC.changelog), partitions, 1, config={**long, "max.message.bytes": str(16 << 20)}),
        NewTopic(settings.topic("definitions"), 1, 1),
    ]
    for future in admin.create_topics(wanted).values():
        future.result(timeout=30)


Event = tuple[int, bytes, bytes]
"""Partition, id, body."""


def events(n: int, *, seed: int, partitions: int = 2, repeats: float = 0.1) -> list[Event]:
    """`n` events of twenty groups; beside them `repeats` of n come again, half of those with another body."""
    rng = random.Random(seed)
    made: list[Event] = []
    for i in range(n):
        made.append((rng.randrange(partitions), b"e%06d" % i, b"g%02d:%d" % (rng.randrange(20), rng.randrange(100))))
        if rng.random() < repeats:
            partition, key, body = rng.choice(made)
            made.append((partition, key, body if rng.random() < 0.5 else b"g99:1"))
    return made


def send(settings: Settings, made: Sequence[Event], *, pause_s: float = 0.0) -> None:
    """Append the events; every one is acknowledged when this returns."""
    producer = Producer(
        {
            "bootstrap.servers": settings.bootstrap,
            "enable.idempotence": True,
            "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    for i, (partition, key, body) in enumerate(made):
        producer.produce(settings.topic("numbers"), value=body, key=key, partition=partition)
        if pause_s and i % 50 == 49:
            producer.poll(0)
            time.sleep(pause_s)
    assert producer.flush(60) == 0


def expected(made: Sequence[Event]) -> dict[str, dict[str, Any]]:
    """What the tables must say, by partition: a plain computation over the events in the order they were appended."""
    result: dict[str, dict[str, Any]] = {}
    firsts: dict[tuple[int, bytes], bytes] = {}
    for partition, key, body in made:
        at = result.setdefault(str(partition), {"sums": {}, "copies": {}, "firsts": 0, "facts": 0, "owed": 0})
        at["facts"] += 1
        if (partition, key) in firsts:
            continue
        firsts[partition, key] = body
        group, _, amount = body.decode().partition(":")
        total, count = at["sums"].get(group, (0, 0))
        at["sums"][group] = [total + int(amount), count + 1]
        at["copies"][group] = count + 1
        at["firsts"] += 1
    for at in result.values():
        at["seen"] = at["firsts"]
    return result


class ToyWorker:
    """A worker of the toy line as a process."""

    def __init__(self, settings: Settings, *, fault_at: str = "", extra: Mapping[str, str] | None = None) -> None:
        self.settings = replace(settings, fault_at=fault_at)
        home = self.settings.home
        home.mkdir(parents=True, exist_ok=True)
        self.log_file = home / f"{settings.worker}.log"
        self.status_file = home / f"status-{settings.worker}.json"
        env = {**os.environ, **self.settings.environment(), **(extra or {}), "PYTHONPATH": f"{SRC}:{ROOT}"}
        with self.log_file.open("ab") as out:
            command = [sys.executable, "-m", "tests.agents.toy", "worker"]
            self.process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT)

    def status(self) -> dict[str, Any]:
        """The last status this very process wrote."""
        try:
            found = json.loads(self.status_file.read_text())
        except FileNotFoundError:
            return {}
        return found if found["pid"] == self.process.pid else {}

    def wait_for(self, wanted: Mapping[str, Mapping[str, Any]], seconds: float = 30.0) -> dict[str, Any]:
        """Wait until the tables say what they must; the last status, right or wrong, is returned."""
        until = time.monotonic() + seconds
        while True:
            status = self.status()
            held = status.get("partitions", {})
            if all(number in held and _says(held[number], one) for number, one in wanted.items()):
                return status
            if time.monotonic() > until or self.process.poll() is not None:
                return status
            time.sleep(0.05)

    def wait_end(self, seconds: float = 30.0) -> int:
        return self.process.wait(seconds)

    def kill(self) -> None:
        """kill -9, at once."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """An orderly end; killed when it takes too long."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                return self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.returncode

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")


def difference(status: Mapping[str, Any], wanted: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is not as it must be, for people to read."""
    held = status.get("partitions", {})
    return [
        f"{number}.{name}: {held.get(number, {}).get(name)} instead of {value}"
        for number, one in wanted.items()
        for name, value in one.items()
        if held.get(number, {}).get(name) != value
    ]


def _says(held: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(held.get(name) == value for name, value in wanted.items())


def read_topic(settings: Settings, topic: str, partitions: int = 2) -> list[tuple[int, int, bytes, bytes]]:
    """Everything in a topic: (partition, offset, key, value)."""
    consumer = Consumer({"bootstrap.servers": settings.bootstrap, "group.id": "none", "enable.auto.commit": False})
    found: list[tuple[int, int, bytes, bytes]] = []
    try:
        for number in range(partitions):
            tp = TopicPartition(settings.topic(topic), number)
            _, end = consumer.get_watermark_offsets(tp, timeout=10)
            if not end:
                continue
            consumer.assign([TopicPartition(tp.topic, number, 0)])
            while True:
                message = consumer.poll(10)
                assert message is not None, f"{topic}/{number} ends before {end}"
                found.append((number, message.offset(), message.key(), message.value()))
                if message.offset() >= end - 1:
                    break
    finally:
        consumer.close()
    return found
