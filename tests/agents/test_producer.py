"""The outputs' producer and the followers of decisions, against a real broker."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any

import pytest
from confluent_kafka.admin import NewTopic

from milepost.agents import decisions
from milepost.agents.decisions import Follower
from milepost.agents.producer import LegProducer
from milepost.ops.settings import Settings
from milepost.topology.state import Output
from tests.agents.harness import make_topics, read_topic
from tests.support.broker import TestBroker

pytestmark = pytest.mark.broker


def outputs(n: int, topic: str = "echoes", partition: int = 0) -> list[Output]:
    return [
        Output(topic=topic, partition=partition, key=b"%d" % i, value=b"v", headers=(("h", b"x"),)) for i in range(n)
    ]


def test_a_barrier_means_that_everything_before_it_is_in_the_log(settings: Settings) -> None:
    """When `barrier` returns, all messages sent before it are in the log, in order, whoever sent them."""
    make_topics(settings, 2)

    async def run() -> None:
        made = LegProducer(settings.bootstrap, "t", namespace=settings.namespace)
        await made.send(outputs(5000))

        async def other() -> None:
            await made.send(outputs(3000, partition=1))
            await made.barrier()

        await asyncio.gather(made.barrier(), other())
        await made.barrier()
        await made.stop()

    asyncio.run(run())
    found = read_topic(settings, "echoes", 2)
    assert [key for number, _, key, _ in found if number == 0] == [b"%d" % i for i in range(5000)]
    assert sum(1 for number, *_ in found if number == 1) == 3000


def test_a_message_that_is_not_delivered_ends_the_process(settings: Settings) -> None:
    """One failed delivery report is enough: what comes after it must not be committed."""
    make_topics(settings, 1)
    code = f"""
import asyncio, os
from milepost.agents.producer import LegProducer
from milepost.topology.state import Output
async def run():
    made = LegProducer({settings.bootstrap!r}, "t", namespace={settings.namespace!r})
    await made.send([Output(topic="echoes", partition=0, key=b"k", value=os.urandom(1_500_000))])
    await made.barrier()
    print("the barrier let it pass")
asyncio.run(run())
"""
    env = {"PYTHONPATH": "src", "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30, env=env
    )
    assert (done.returncode, done.stdout) == (70, "")
    assert "MSG_SIZE_TOO_LARGE" in done.stderr or "too large" in done.stderr


def test_sending_waits_while_the_clients_queue_is_full(settings: Settings) -> None:
    """A full queue makes the leg wait; nothing is dropped."""
    make_topics(settings, 1)

    async def run() -> None:
        made = LegProducer(
            settings.bootstrap, "t", namespace=settings.namespace, extra={"queue.buffering.max.messages": 100}
        )
        await made.send(outputs(2000))
        await made.barrier()
        await made.stop()

    asyncio.run(run())
    assert len(read_topic(settings, "echoes", 1)) == 2000


def test_a_follower_reads_from_the_start_and_goes_on(settings: Settings) -> None:
    """Every decision is handed over once, in order, from the first one on; `caught_up` says when the past is read."""
    make_topics(settings, 1)

    async def run() -> None:
        made = LegProducer(settings.bootstrap, "t", namespace=settings.namespace)
        await made.send(outputs(10, "definitions"))
        await made.barrier()
        got: list[int] = []
        follower = Follower(settings.bootstrap, settings.topic("definitions"), lambda record: got.append(record.offset))
        await follower.start()
        await asyncio.wait_for(follower.caught_up.wait(), 20)
        assert got == list(range(10))
        await made.send(outputs(1, "definitions"))
        assert await follower.wait_beyond(10, 20)
        assert follower.position == 11
        assert not await follower.wait_beyond(11, 0.1)
        await follower.stop()
        await made.stop()

    asyncio.run(run())


def test_a_follower_survives_a_topic_that_is_not_there_yet(broker: TestBroker, settings: Settings) -> None:
    """Errors of the broker are waited out: following begins when the topic is there."""

    async def run() -> None:
        got: list[Any] = []
        follower = Follower(settings.bootstrap, settings.topic("late"), got.append)
        await follower.start()
        await asyncio.sleep(0.5)
        assert not follower.caught_up.is_set()
        admin = broker.admin()
        for future in admin.create_topics([NewTopic(settings.topic("late"), 1, 1)]).values():
            future.result(20)
        await asyncio.wait_for(follower.caught_up.wait(), 30)
        await follower.stop()

    asyncio.run(run())


def test_a_decision_that_cannot_be_taken_ends_the_process(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure of the fold is not passed over: the workers would differ for ever."""
    make_topics(settings, 1)
    ended: list[str] = []

    class Ended(BaseException): ...

    def end(reason: str, *_args: Any, **_rest: Any) -> None:
        ended.append(reason)
        raise Ended

    monkeypatch.setattr(decisions, "end", end)

    async def run() -> None:
        made = LegProducer(settings.bootstrap, "t", namespace=settings.namespace)
        await made.send(outputs(1, "definitions"))
        await made.barrier()

        def broken(_record: Any) -> None:
            raise RuntimeError("no")

        follower = Follower(settings.bootstrap, settings.topic("definitions"), broken)
        await follower.start()
        assert follower._task is not None
        await asyncio.wait([follower._task], timeout=20)
        assert isinstance(follower._task.exception(), Ended)
        await made.stop()

    asyncio.run(run())
    assert "@0" in ended[0]
