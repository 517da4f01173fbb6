"""The airport of the page's tests: the real views over tables that the driver has filled, without a broker.

Six weeks of the demo's definitions, one flight an hour: United always, American at every second hour and on time, Delta
for ten days only.  One flight in fifty is known three days late, three name no airline, Delta's name is known ten days
later than its code.  `Town.fly` lets more of them leave while a browser looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from milepost.agents.views import Health
from milepost.ops.apply import demo_bundle
from milepost.ops.settings import Settings
from milepost.topology.bases import instant, written
from milepost.topology.driver import Driver
from tests.agents.test_views import Site, Tables, Worker, served

MINUTE = 60_000
HOUR = 3_600_000
DAY = 24 * HOUR
START = instant("2013-01-01T00:00:00Z")
NOW = instant("2013-02-15T12:00:00Z")
DAYS = 42
ORIGINS = ("EWR", "JFK", "LGA")
NAMES = {"UA": "United Air Lines Inc.", "AA": "American Airlines Inc.", "DL": "Delta Air Lines Inc."}


@dataclass
class Counter(Worker):
    """A worker whose driver goes on while it answers."""

    driver: Driver = field(kw_only=True)
    now: int = NOW
    landings: int = 0

    def now_ms(self) -> int:
        return self.now

    def status(self) -> Mapping[str, Any]:
        return {
            "worker": "town",
            "ready": True,
            "lag": {"ingest": 0, "measure": 0},
            "fates": self.driver.fates,
            "legs": {},
        }


class Town:
    """The site and its flights."""

    def __init__(self, site: Site, worker: Counter) -> None:
        self.site, self.worker, self.driver = site, worker, worker.driver
        self.url = f"http://127.0.0.1:{site.port}"
        self.flown = 0

    def fly(self, count: int) -> None:
        """So many flights of United leave now, in the loop that answers questions."""

        async def leave() -> None:
            for _ in range(count):
                self.flown += 1
                told = flight(f"live{self.flown}", "UA", self.worker.now - HOUR + self.flown % 3_000, self.flown)
                self.driver.produce(told, self.worker.now)
            self.driver.run()
            self.worker.landings += 1

        asyncio.run_coroutine_threadsafe(leave(), self.site.loop).result(30)

    def apply(self) -> None:
        """The demo's bundle is put in force."""

        async def applied() -> None:
            self.driver.apply("port-authority", demo_bundle(), self.worker.now)
            self.driver.run()
            self.worker.landings += 1

        asyncio.run_coroutine_threadsafe(applied(), self.site.loop).result(30)


def flight(id: str, carrier: str | None, t_ms: int, number: int) -> dict[str, Any]:
    late = float(number % 12 if carrier == "AA" else number % 30)
    data = {
        "carrier": carrier, "flight": number, "tailnum": f"N{number % 7}", "origin": ORIGINS[number % 3],
        "dest": ("IAH", "MIA")[number % 5 == 0], "dep_delay": late, "distance": 100.0,
    }  # fmt: skip
    return {
        "org": "port-authority", "source": "flights", "id": id, "type": "flight.departed", "time": written(t_ms),
        "data": {name: value for name, value in data.items() if value is not None},
    }  # fmt: skip


def filled(*, days: int = DAYS, names: Mapping[str, str] = NAMES) -> Driver:
    driver = Driver(b"a secret of thirty-two bytes long", partitions=2)
    driver.apply("port-authority", demo_bundle(), START, k_ms=START)
    for event, known_ms in sorted(_events(days, names), key=lambda one: one[1]):
        driver.produce(event, known_ms)
    driver.run()
    driver.tick(NOW)
    driver.run()
    return driver


def _events(days: int, names: Mapping[str, str]) -> Iterator[tuple[dict[str, Any], int]]:
    """(event, known time)."""
    for carrier, name in names.items():
        known = START + (10 * DAY if carrier == "DL" else MINUTE)
        yield _listed("airline.listed", carrier, START, carrier=carrier, name=name), known
    for number in range(3):
        yield (
            _listed("aircraft.listed", f"N{number}", START, tailnum=f"N{number}", model="A320", seats=150 + number),
            START + MINUTE,
        )
    for hour in range(days * 24):
        t_ms = START + hour * HOUR
        flying = ["UA", *(["AA"] if hour % 2 else []), *(["DL"] if hour < 240 else [])]
        for carrier in flying:
            yield flight(f"{carrier}{hour}", carrier, t_ms, hour), t_ms + (3 * DAY if hour % 50 == 49 else 2 * MINUTE)
        if hour % 300 == 100:
            yield flight(f"nobody{hour}", None, t_ms, hour), t_ms + 2 * MINUTE


def _listed(type: str, id: str, t_ms: int, **data: Any) -> dict[str, Any]:
    return {
        "org": "port-authority", "source": "registry", "id": id, "type": type, "time": written(t_ms), "data": data,
    }  # fmt: skip


@contextmanager
def town(home: Path, driver: Driver | None = None) -> Iterator[Town]:
    """The airport, serving on a port of its own."""
    made = filled() if driver is None else driver
    worker = Counter(Settings(home=home), Tables(made.reader), driver=made)
    worker.state = Health()
    for site in served(worker):
        yield Town(site, worker)
