"""The pure driver over the demo's flights, without a broker: what the first week's tables must be, and the whole year."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterable
from functools import cache
from itertools import chain

import orjson

from milepost.ops.apply import demo_bundle
from milepost.ops.demo_data import SOURCES, completed, read_demo
from milepost.ops.flights import ORG, FlightEvent, listed, read_flights, rfc3339
from milepost.topology.digest import digest
from milepost.topology.driver import Driver
from tests.support.workers import SECRET, Shift, week

FIRST_MS = 1_357_000_000_000


def unmoved(_: FlightEvent) -> int:
    return 0


def driver_digest(events: Iterable[FlightEvent], shift: Shift = unmoved, *, secret: str = SECRET) -> dict[str, str]:
    """Table -> digest, and `total`, of the driver over `events` as the importer sends them, `shift` ms later."""
    driver = Driver(secret.encode(), partitions=2, chunk=4000)
    driver.apply(ORG, demo_bundle(), FIRST_MS)
    for event in events:
        driver.produce(orjson.loads(event.body()), FIRST_MS, known_ms=event.k_ms + shift(event))
    driver.run()
    return digest(driver.reader)


@cache
def _week() -> dict[str, str]:
    return driver_digest(week())


@cache
def first_flights(count: int) -> list[FlightEvent]:
    """The first events of the year, as its file has them, behind all airlines."""
    year = read_flights()
    return [*(listed(*one) for one in year.airlines), *(year[number] for number in range(count))]


@cache
def _part(count: int) -> dict[str, str]:
    gc.disable()  # see `year_driver`
    try:
        return driver_digest(first_flights(count))
    finally:
        gc.enable()


def part_digest(count: int) -> dict[str, str]:
    """The digest of the first `count` events of the year and the airlines."""
    return dict(_part(count))


def week_digest() -> dict[str, str]:
    """The digest of the first week."""
    return dict(_week())


def plain_bundle() -> dict[str, bytes]:
    """The demo's bundle without dimensions, which no milestone asks for: a third of the cells."""
    files = demo_bundle()
    files["milepost.yaml"] = re.sub(rb" dimensions: \[[^]]*\],?", b"", files["milepost.yaml"])
    return files


def send_flight(driver: Driver, event: FlightEvent) -> None:
    """The event as the importer sends it, made without its bytes in between."""
    told = {"org": ORG, "source": event.source, "id": event.id, "type": event.type, "time": rfc3339(event.t_ms)}
    driver.produce({**told, "data": event.data}, FIRST_MS, known_ms=event.k_ms)


def year_driver(now_ms: int) -> Driver:
    """A driver that has taken the year's departures and cancellations (no rule reads landings), that the sources are
    complete, and a tick at `now_ms`."""
    driver = Driver(SECRET.encode(), partitions=1, chunk=20_000)
    driver.apply(ORG, plain_bundle(), FIRST_MS)
    gc.disable()  # millions of rows are made and none is garbage; looking at them again and again takes a third
    try:
        for event in chain(read_flights(), map(completed, SOURCES)):
            if event.type != "flight.landed":
                send_flight(driver, event)
        driver.run()
        driver.tick(now_ms)
        driver.run()
    finally:
        gc.enable()
    return driver


def beside_driver(now_ms: int) -> Driver:
    """A driver that has taken what the demo sends beside the year's flights, and a tick at `now_ms`."""
    driver = Driver(SECRET.encode(), partitions=2, chunk=5_000)
    driver.apply(ORG, demo_bundle(), FIRST_MS)
    data = read_demo()
    for number in range(len(data.flights), len(data)):
        send_flight(driver, data[number])
    driver.run()
    driver.tick(now_ms)
    driver.run()
    return driver
