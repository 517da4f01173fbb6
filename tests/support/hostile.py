"""Hostile input (F12): each event 1 to 5 times, shuffled, known late by 1 h to 400 d or before it happened, without end.

Feed -> raw-events, at a rate, in a thread of its own:  the first pass, then repeats until `finish`
undisturbed(events) -> what the pure driver makes of the same events: digest and signals
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import msgspec
import orjson

from milepost.ops.apply import demo_bundle
from milepost.ops.flights import ORG, FlightEvent
from milepost.ops.sender import Sender
from milepost.schemas import stamps
from milepost.schemas.errors import MilepostError
from milepost.schemas.keys import checked_secret, org_key, raw_place
from milepost.schemas.serde import wire
from milepost.schemas.stamps import Stamp
from milepost.topology.digest import digest
from milepost.topology.driver import Driver
from tests.support.flights_driver import FIRST_MS
from tests.support.workers import SECRET, SIGNAL_KEY_BYTES, Deployment, week

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
TIMES_MAX: Final = 5
SKEW_MS: Final = 10 * 60_000
"""An event may lie so far in the future (the definitions' default); the record of one beyond is a dead letter."""

FUTURE_EVERY: Final = 50
"""One record in so many is of an event that lies beyond it."""

STEP_S: Final = 0.05


def hostile_shift(event: FlightEvent) -> int:
    """How much later the log learned of the event, in ms: a function of the event, so every copy says the same."""
    drawn = hashlib.blake2b(f"{event.source}/{event.id}".encode(), digest_size=8).digest()
    kind, amount = drawn[0] % 10, int.from_bytes(drawn[1:], "big")
    if kind < 6:
        return 0
    if kind < 8:
        return HOUR_MS + amount % (23 * HOUR_MS)
    if kind < 9:
        return DAY_MS + amount % (399 * DAY_MS)
    return -(amount % SKEW_MS)  # known a little before it happened: as much future as the definitions let pass


def hostile_order(events: int, seed: int) -> list[int]:
    """Numbers of the first `events` events of the week, each 1 to 5 times, shuffled."""
    chance = random.Random(seed)
    order = [number for number in range(events) for _ in range(chance.randint(1, TIMES_MAX))]
    chance.shuffle(order)
    return order


@dataclass(frozen=True, slots=True, kw_only=True)
class Undisturbed:
    """What a run that nobody disturbed gives.  signals: key of the message -> what it says, its origin left out."""

    digest: Mapping[str, str]
    signals: Mapping[bytes, Any]


@cache
def undisturbed(events: int) -> Undisturbed:
    """The pure driver over the first `events` events of the week, each once, in their order."""
    driver = Driver(SECRET.encode(), partitions=2, chunk=4000)
    driver.apply(ORG, demo_bundle(), FIRST_MS)
    for number in range(events):
        event = week()[number]
        driver.produce(orjson.loads(event.body()), FIRST_MS, known_ms=event.k_ms + hostile_shift(event))
    driver.run()
    return Undisturbed(digest=digest(driver.reader), signals=said(driver))


def said(driver: Driver) -> dict[bytes, Any]:
    """Key -> content of the driver's signals."""
    messages = [message for log in driver.topics["signals"] for message in log]
    return {
        message.key: content(message.value)
        for message in messages
        if message.key is not None and message.value is not None and len(message.key) == SIGNAL_KEY_BYTES
    }


def content(value: bytes) -> Any:
    """What a message on `signals` says, without where it came from."""
    told = wire("Signals").decode(value)
    names = ("bundle", "org", "source", "id", "type", "event", "leaf", "t_ms", "k_ms", "members", "signals")
    return tuple(repr(told[name]) for name in names)


class Feed(threading.Thread):
    """Sends the week in hostile order at `rate` records a second until `finish`; `sent` counts, `future` of them are refused.

    The bound: at most 100,000 records wait in the producer while the broker is away.
    """

    def __init__(self, deployment: Deployment, *, seed: int, rate: float, events: int = 0) -> None:
        super().__init__(name=f"feed-{seed}", daemon=True)
        self.events = events or len(week())
        self.seed = seed
        self.rate = rate
        self.sent = 0
        self.future = 0
        self._deployment = deployment
        self._order = hostile_order(self.events, seed)
        self._hurry = threading.Event()
        self._failed: BaseException | None = None

    @property
    def through(self) -> bool:
        """Whether every event has been sent at least once."""
        return self.sent >= len(self._order)

    def finish(self, seconds: float = 120.0) -> None:
        """Send what is left of the first pass at once; returns when all is acknowledged."""
        self._hurry.set()
        self.join(seconds)
        assert not self.is_alive(), f"the feed has not ended in {seconds:.0f} s"
        if self._failed is not None:
            raise AssertionError(f"the feed failed: {self._failed}") from self._failed

    def run(self) -> None:
        try:
            self._run()
        except MilepostError as error:
            self._failed = error

    def _run(self) -> None:
        settings = self._deployment.settings
        sealing = org_key(checked_secret(settings.secret()), ORG)
        topic = settings.topic("raw-events")
        chance = random.Random(self.seed + 1)
        begun = time.monotonic()
        with Sender(settings.bootstrap, linger_ms=5) as sender:

            def put(event: FlightEvent, k_ms: int) -> None:
                key, partition = raw_place(ORG, event.source, event.id, 0, 0, settings.partitions)
                value = event.body()
                header = stamps.header(sealing, key, value, Stamp(kind=stamps.BACKDATED, k_ms=k_ms))
                sender.send(topic, partition, key, value, (header,))

            while not (self.through and self._hurry.is_set()):
                due = int((time.monotonic() - begun) * self.rate)
                if self._hurry.is_set():
                    due = len(self._order)
                elif due - self.sent > 50_000:
                    begun = time.monotonic() - self.sent / self.rate  # the machine stood still: no flood afterwards
                    continue
                while self.sent < due:
                    number = self._order[self.sent] if not self.through else chance.randrange(self.events)
                    event = week()[number]
                    put(event, event.k_ms + hostile_shift(event))
                    self.sent += 1
                    if chance.randrange(FUTURE_EVERY) == 0:
                        put(
                            msgspec.structs.replace(event, id=f"{event.id}/future"),
                            event.t_ms - chance.randint(SKEW_MS + 1, 400 * DAY_MS),
                        )
                        self.future += 1
                self._hurry.wait(STEP_S)
