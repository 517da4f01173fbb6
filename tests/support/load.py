"""Load: events sent at a rate for as long as a deployment changes, and what its tables must be in the end.

    Amount(rate, events, wanted) -> Load: every event in a shuffled order, one in twenty twice
                                          then repeats at the same rate until `finish`, where the amount is `lasting`

The records are made before the first is sent: what is measured is the engine, beside which the sender needs a processor
as well.  The rate that was reached counts what the broker has acknowledged; a run below it has shown nothing.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from milepost.ops.flights import FlightEvent, import_order
from milepost.ops.sender import Sender
from tests.support.flights_driver import first_flights, part_digest, week_digest
from tests.support.questioners import COUNTED, Sent
from tests.support.workers import Deployment, week

BATCH_S: Final = 0.1
FULL_RATE: Final = 5_000
"""Events a second while workers come and go (issue 4, Shows 4)."""
FULL_EVENTS: Final = 160_000
"""A quarter of the year: half a minute of load before anything is repeated."""
REACHED_MIN: Final = 0.9
"""The part of the rate that a run must have reached, or it is void."""
JOIN_S: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """How many events a second, which, and the digest that they must leave.  lasting: repeats follow until the end"""

    rate: int
    events: Sequence[FlightEvent]
    wanted: Callable[[], Mapping[str, str]]
    lasting: bool = False


def a_week(rate: int) -> Amount:
    """The first week, once."""
    return Amount(rate=rate, events=week(), wanted=week_digest)


def full() -> Amount:
    """The campaign's size."""
    return Amount(
        rate=FULL_RATE, events=first_flights(FULL_EVENTS), wanted=lambda: part_digest(FULL_EVENTS), lasting=True
    )


class _Made(NamedTuple):
    """A record to be sent.  airline: whose count it adds to; "": it is not counted"""

    id: str
    airline: str
    record: tuple[int, bytes, bytes, tuple[tuple[str, bytes], ...]]


class Load(threading.Thread):
    """See the module.

    lasting: whether it goes on until `finish`
    sent:    records handed over;  repeats: of them, those behind the first pass
    rate:    acknowledged records a second, known when it has ended
    """

    def __init__(self, deployment: Deployment, amount: Amount, sent: Sent, seed: int) -> None:
        super().__init__(name="load", daemon=True)
        self.failed: Exception | None = None
        self.sent = self.repeats = 0
        self.rate = 0.0
        self.lasting = amount.lasting
        self._amount, self._into = amount, sent
        self._servers, self._topic = deployment.settings.bootstrap, deployment.settings.topic("raw-events")
        self._order = import_order(len(amount.events), seed=seed)
        self._chance = random.Random(seed)
        self._enough = threading.Event()
        self._made = [
            _Made(one.id, one.data["carrier"] if one.type == COUNTED else "", deployment.record_of(one))
            for one in (amount.events[number] for number in range(len(amount.events)))
        ]

    @property
    def reached(self) -> bool:
        """Whether the rate was what was wanted, nearly."""
        return self.rate >= REACHED_MIN * self._amount.rate

    def finish(self) -> None:
        """Repeat nothing more; returns when every event is acknowledged."""
        self._enough.set()
        self.join(JOIN_S)
        assert not self.is_alive() and self.failed is None, self.failed

    def run(self) -> None:
        size = max(1, int(self._amount.rate * BATCH_S))
        begun = time.monotonic()
        try:
            with Sender(self._servers, linger_ms=5) as sender:
                while some := self._next(size):
                    time.sleep(max(0.0, begun + self.sent / self._amount.rate - time.monotonic()))
                    for one in some:
                        self._into.add(one.id, one.airline)
                    for one in some:
                        sender.send(self._topic, *one.record)
                    self.sent += len(some)
            self.rate = self.sent / (time.monotonic() - begun)
        except Exception as error:  # noqa: BLE001 - a thread's failure must be the test's
            self.failed = error

    def _next(self, size: int) -> list[_Made]:
        if self.sent < len(self._order):
            return [self._made[number] for number in self._order[self.sent : self.sent + size]]
        if not self._amount.lasting or self._enough.is_set():
            return []
        self.repeats += size
        return self._chance.choices(self._made, k=size)
