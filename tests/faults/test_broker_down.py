"""The broker killed with -9, restarted in order, standing still (F6): the workers wait, and go on by themselves."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from milepost.ops.settings import Settings
from tests.support.checks import Kept, Progress, Watch, full, healed, quick
from tests.support.hostile import Feed
from tests.support.own_broker import OwnBroker
from tests.support.report import fault

pytestmark = [pytest.mark.broker, pytest.mark.slow]

STANDS_STILL_S = 20.0


def test_a_broker_that_goes_away_loses_nothing(fragile: OwnBroker, fragile_settings: Settings, campaign: bool) -> None:
    """Killed for 3 and for 30 s, restarted, stopped for 20 s under two workers: nothing is lost or doubled."""
    blows: list[tuple[str, Callable[[], None]]] = [("killed, 3 s down", lambda: fragile.kill(3))]
    if campaign:
        blows += [
            ("killed, 30 s down", lambda: fragile.kill(30)),
            ("restarted in order", fragile.restart),
            ("standing still for 20 s", lambda: fragile.freeze(STANDS_STILL_S)),
        ]
    with (
        fault("F6", "broker killed, restarted, stopped", seed=61) as told,
        Kept(fragile_settings) as deployment,
        Watch(deployment) as watch,
    ):
        deployment.apply()
        progress = Progress()
        feed = Feed(deployment, seed=61, rate=300, events=0 if campaign else 3000)
        feed.start()
        deployment.keep("worker-1")
        deployment.keep("worker-2")
        for name, blow in blows:
            healed(deployment, told)
            blow()
            back, before = time.monotonic(), deployment.folded("ingest")
            deployment.wait(lambda before=before: deployment.folded("ingest") > before, f"no progress after: {name}")
            told.recovered(time.monotonic() - back)
            told.count += 1
            quick(deployment, told, watch, progress)
        feed.finish()
        deployment.only("worker-1")
        full(deployment, told, watch, feed, restore=campaign)
