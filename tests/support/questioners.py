"""Questioners: threads that ask workers all the time while the deployment changes, and check every answer.

    before asking: the most that any answer has shown  <=  the answer  <=  events whose sending has begun, when it came

An answer is a value within these bounds, or a 503 with a problem body and Retry-After; anything else is a violation.  A
worker that was told to end may refuse the connection.  A run of 503 lasts from the first such answer of a worker to the
next value from it; an outage from when that first question was asked, which waits a while on the worker's side.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from milepost.ops.flights import FlightEvent
from tests.support.workers import Worker

COUNTED: Final = "flight.departed"
METRIC: Final = "departures"
PAUSE_S: Final = 0.03
WAIT_S: Final = 30.0


class Sent:
    """How many events of each airline have been begun to be sent, each counted once; "" is all of them."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._ids: set[str] = set()

    def begin(self, events: Iterable[FlightEvent]) -> None:
        for event in events:
            self.add(event.id, event.data["carrier"] if event.type == COUNTED else "")

    def add(self, id: str, airline: str) -> None:
        """An event is about to be sent that adds to an airline's count; "": to none."""
        if airline and id not in self._ids:
            self._ids.add(id)
            self.counts[airline] += 1
            self.counts[""] += 1


@dataclass(slots=True)
class Seen:
    """What the questioners of one deployment have seen.

    shown:    airline -> the most that an answer has shown
    runs, outages: worker -> how long each of its runs of 503, its outages took, s
    """

    sent: Sent
    shown: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    runs: dict[str, list[float]] = field(default_factory=dict)
    outages: dict[str, list[float]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def longest_run_s(self) -> float:
        return max((one for some in self.runs.values() for one in some), default=0.0)

    @property
    def longest_outage_s(self) -> float:
        return max((one for some in self.outages.values() for one in some), default=0.0)


class Questioner:
    """Asks one worker until it is told to stop.

    stale_ms: when given, half of the questions may be answered by a standby that lags by no more; those are held against
        the upper bound only
    """

    def __init__(self, worker: Worker, seen: Seen, airlines: Iterable[str], stale_ms: int | None = None) -> None:
        self.worker = worker
        self.seen = seen
        self.stale_ms = stale_ms
        self.lagged = 0
        self._airlines = list(airlines)
        self._stop = threading.Event()
        self._down_since: tuple[float, float] | None = None  # asked, answered with 503
        self._thread = threading.Thread(target=self._run, name=f"asks {worker.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask no more.  An outage that still lasts is counted as it is."""
        self._stop.set()
        self._thread.join(WAIT_S + 5)
        assert not self._thread.is_alive(), "a question was not answered"
        if self._down_since is not None:
            self._outage(time.monotonic())

    def _run(self) -> None:
        place = urlsplit(self.worker.settings.url)
        link: http.client.HTTPConnection | None = None
        turn = 0
        while not self._stop.is_set():
            turn += 1
            if link is None:
                link = http.client.HTTPConnection(place.hostname or "", place.port, timeout=WAIT_S)
            began = time.monotonic()
            try:
                self._ask(link, turn, began)
            except (OSError, http.client.HTTPException) as error:
                link.close()
                link = None
                if self.worker.alive and not self.worker.expected:
                    self._wrong(f"no answer: {error!r}")
                elif not self._stop.is_set():
                    self.seen.answers["refused"] += 1
            except Exception as error:  # noqa: BLE001 - a thread's failure must be the test's
                self._wrong(f"cannot be read: {error!r}")
                return
            self._stop.wait(PAUSE_S)
        if link is not None:
            link.close()

    def _ask(self, link: http.client.HTTPConnection, turn: int, began: float) -> None:
        whole = turn % 3 == 0
        by_company = turn % 7 == 0
        airline = "" if whole else self._airlines[turn % len(self._airlines)]
        lenient = self.stale_ms is not None and turn % 2 == 0
        query: dict[str, Any] = {"stale_ms": self.stale_ms} if lenient else {}
        if by_company:
            path, query = "breakdown", {**query, "by": "company"}
        else:
            path = "value"
            query |= {"company": f"carrier_code:{airline}"} if airline else {}
        with self.seen.lock:
            least = Counter(self.seen.shown)
        link.request("GET", f"/v1/metrics/{METRIC}/{path}?{urlencode(query)}")
        response = link.getresponse()
        body = response.read()
        told = json.loads(body)
        if response.status != 200:
            self._refused(response, told, began, known=bool(least[airline]))
            return
        most = self.seen.sent.counts
        if self._down_since is not None:
            self._outage(time.monotonic())
        self.seen.answers["answered"] += 1
        if lenient and told["lag_ms"]:
            self.lagged += 1
            self.seen.answers["lagged"] += 1
            if told["lag_ms"] > self.stale_ms:
                self._wrong(f"lags by {told['lag_ms']} ms, {self.stale_ms} were allowed")
            least = Counter()
        found = self._counts(told, airline, by_company)
        for name, value in found.items():
            if not least[name] <= value <= most[name]:
                self._wrong(f"{path} of {name or 'all'}: {value} is not within {least[name]} and {most[name]}")
        if not least[""] <= sum(found.values()) and by_company:
            self._wrong(f"the breakdown adds up to {sum(found.values())}, {least['']} were shown")
        with self.seen.lock:
            for name, value in found.items():
                if not (lenient and told["lag_ms"]):
                    self.seen.shown[name] = max(self.seen.shown[name], value)

    def _counts(self, told: Mapping[str, Any], airline: str, by_company: bool) -> dict[str, int]:
        """Airline -> its count in the answer.  A breakdown names the airlines that have any, by their label."""
        if not by_company:
            return {airline: told["value"] or 0}
        return {NAMES[row["label"]]: row["value"] for row in told["rows"] if row["label"] in NAMES}

    def _refused(
        self, response: http.client.HTTPResponse, told: Mapping[str, Any], began: float, *, known: bool
    ) -> None:
        if response.status == 404 and told.get("type") == "/problems/unknown-company" and not known:
            return  # no event has named it yet
        problem = response.headers.get_content_type() == "application/problem+json"
        if response.status != 503 or not problem or told["status"] != 503 or not response.headers.get("Retry-After"):
            self._wrong(f"{response.status}: {str(told)[:200]}")
        self.seen.answers["503"] += 1
        if self._down_since is None:
            self._down_since = began, time.monotonic()

    def _outage(self, now: float) -> None:
        assert self._down_since is not None
        with self.seen.lock:
            asked, refused = self._down_since
            self.seen.runs.setdefault(self.worker.name, []).append(now - refused)
            self.seen.outages.setdefault(self.worker.name, []).append(now - asked)
        self._down_since = None

    def _wrong(self, what: str) -> None:
        with self.seen.lock:
            self.seen.wrong.append(f"{self.worker.name}: {what}")


NAMES: Final[dict[str, str]] = {}
"""Label in a breakdown -> airline's code; filled by `learn`."""


def learn(events: Iterable[FlightEvent]) -> list[str]:
    """The codes of the airlines that are listed among `events`; labels of breakdowns are read by their names."""
    codes = []
    for event in events:
        if event.type == "airline.listed":
            codes.append(event.data["carrier"])
            NAMES[event.data["name"]] = event.data["carrier"]
            NAMES[event.data["carrier"]] = event.data["carrier"]
    return sorted(codes)
