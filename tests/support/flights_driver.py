"""What the first week's tables must be: the pure driver over the same events, without a broker."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import orjson

from milepost.ops.apply import demo_bundle
from milepost.ops.flights import ORG, FlightEvent
from milepost.topology.digest import digest
from milepost.topology.driver import Driver
from tests.support.workers import SECRET, Shift, week

FIRST_MS = 1_357_000_000_000


def unmoved(_: FlightEvent) -> int:
    return 0


def driver_digest(events: Iterable[FlightEvent], shift: Shift = unmoved) -> dict[str, str]:
    """Table -> digest, and `total`, of the driver over `events` as the importer sends them, `shift` ms later."""
    driver = Driver(SECRET.encode(), partitions=2, chunk=4000)
    driver.apply(ORG, demo_bundle(), FIRST_MS)
    for event in events:
        driver.produce(orjson.loads(event.body()), FIRST_MS, known_ms=event.k_ms + shift(event))
    driver.run()
    return digest(driver.reader)


@cache
def _week() -> dict[str, str]:
    return driver_digest(week())


def week_digest() -> dict[str, str]:
    """The digest of the first week."""
    return dict(_week())
