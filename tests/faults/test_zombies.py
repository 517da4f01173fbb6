"""Zombies (F5): a worker stopped past its session, replaced, and woken.  What it writes then must not count.

In the end the changelogs are compacted by force and a worker is restored from what the cleaner has left.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from milepost.ops.settings import Settings
from milepost.topology import line
from tests.support.checks import Kept, Progress, Watch, full, quick, restored
from tests.support.hostile import Feed
from tests.support.report import fault
from tests.support.workers import Deployment

pytestmark = [pytest.mark.broker, pytest.mark.slow]

Sized = Callable[[int, int], int]

SESSION_S = 6
COMPACTED_S = 90.0
FORCED = {
    "segment.ms": "500", "segment.bytes": "1048576", "min.cleanable.dirty.ratio": "0.001",
    "min.compaction.lag.ms": "0", "max.compaction.lag.ms": "1000", "delete.retention.ms": "100",
}  # fmt: skip
"""What makes the cleaner take everything but the newest second of a topic."""


def test_a_woken_zombie_writes_nothing_that_counts(settings: Settings, sized: Sized) -> None:
    """Stopped for twice the session's time-out and woken: digest equal, and again from a compacted changelog."""
    with (
        fault("F5", "SIGSTOP past the session, SIGCONT", seed=51) as told,
        Kept(settings, session_timeout_s=SESSION_S) as deployment,
        Watch(deployment) as watch,
    ):
        deployment.apply()
        progress = Progress()
        feed = Feed(deployment, seed=51, rate=300, events=sized(0, 3000))
        feed.start()
        deployment.keep("worker-1")
        deployment.keep("worker-2")
        for number in range(sized(2, 1)):
            deployment.wait(lambda: all(share(deployment, name) for name in NAMES), "both have partitions")
            zombie, heir = NAMES if number % 2 == 0 else NAMES[::-1]
            lost = share(deployment, zombie)
            process = deployment.workers[zombie].process
            os.kill(process.pid, signal.SIGSTOP)
            stopped = time.monotonic()
            deployment.wait(
                lambda heir=heir, lost=lost: all(share(deployment, heir).get(n, -1) > at for n, at in lost.items()),
                f"{heir} has not taken over {sorted(lost)}",
            )
            told.recovered(time.monotonic() - stopped)
            deployment.pause(max(0.0, stopped + 2 * SESSION_S - time.monotonic()))
            os.kill(process.pid, signal.SIGCONT)
            told.count += 1
            deployment.pause(2.0)
            quick(deployment, told, watch, progress)
        feed.finish()
        deployment.only("worker-1")
        full(deployment, told, watch, feed, restore=False)
        vanished = compacted(deployment)
        assert all(count > 0 for count in vanished.values()), vanished
        told.note(f"records that the cleaner removed before the restore: {vanished}")
        restored(deployment, told, feed)
        assert told.rebalances > 0


NAMES = ("worker-1", "worker-2")


def share(deployment: Deployment, name: str) -> dict[int, int]:
    """Raw partition -> next offset, of one worker."""
    at = deployment.workers[name].status().get("legs", {}).get("ingest", {}).get("next_offset", {})
    return {int(number): offset for number, offset in at.items()}


def compacted(deployment: Deployment) -> dict[str, int]:
    """Compact the changelogs by force; changelog -> records that have gone, all that lay there now but a key's last."""
    admin = AdminClient({"bootstrap.servers": deployment.settings.bootstrap, "log_level": 0})
    names = [line.leg(name).changelog for name in deployment.at_work()]
    ends = {name: deployment.ends(name) for name in names}
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            deployment.settings.topic(name),
            incremental_configs=[
                ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in FORCED.items()
            ],
        )
        for name in names
    ]
    for future in admin.incremental_alter_configs(resources).values():
        future.result(30)
    left: dict[str, int] = {}

    def clean() -> bool:
        for name in names:
            messages = [m for m in deployment.read(name) if m.offset() < ends[name][m.partition()]]
            twice = len(messages) - len({(m.partition(), m.key()) for m in messages})
            left[name] = len(messages)
            if twice > 0:
                return False
        return True

    deployment.wait(clean, "the cleaner has not run", COMPACTED_S, pause_s=1.0)
    return {name: sum(ends[name].values()) - left[name] for name in names}
