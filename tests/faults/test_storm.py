"""Rebalances in a storm (F7): workers two and three come and go, in order and by kill -9, faster than they settle."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from milepost.ops.settings import Settings
from tests.support.checks import Kept, Progress, Watch, full, quick
from tests.support.hostile import Feed
from tests.support.report import fault

pytestmark = [pytest.mark.broker, pytest.mark.slow]

Sized = Callable[[int, int], int]


@pytest.mark.campaign
def test_a_storm_of_rebalances_loses_nothing(settings: Settings, sized: Sized, campaign: bool) -> None:
    """Every 2 to 5 s a worker joins, stops or is killed, under load: nothing is lost or doubled."""
    chance = random.Random(71)
    with (
        fault("F7", "rebalance storm", seed=71) as told,
        Kept(settings, session_timeout_s=6) as deployment,
        Watch(deployment) as watch,
    ):
        deployment.apply()
        progress = Progress()
        feed = Feed(deployment, seed=71, rate=300, events=0 if campaign else 3000)
        feed.start()
        deployment.keep("worker-1")
        until = time.monotonic() + sized(20, 8)
        while time.monotonic() < until:
            name = chance.choice(("worker-2", "worker-3"))
            worker = deployment.workers.get(name)
            if worker is None or not worker.alive:
                deployment.keep(name, ready=False)
            else:
                deployment.let_go(name)
                if chance.random() < 0.5:
                    worker.kill()
                else:
                    worker.stop()
            told.count += 1
            deployment.pause(chance.uniform(2, 5))
        ended = time.monotonic()
        before = deployment.folded("ingest")
        deployment.wait(lambda: deployment.folded("ingest") > before, "no progress after the storm")
        told.recovered(time.monotonic() - ended)
        quick(deployment, told, watch, progress)
        feed.finish()
        deployment.only("worker-1")
        full(deployment, told, watch, feed, restore=campaign)
        assert told.rebalances > 0
