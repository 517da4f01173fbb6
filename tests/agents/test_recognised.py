"""Milestones recognised by real workers, killed in the middle: the topic holds what a walk over the same log says."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from typing import Any

import orjson
import pytest

from milepost.ops.apply import apply_bundle, demo_bundle
from milepost.ops.flights import ORG, FlightEvent
from milepost.ops.settings import Settings
from milepost.schemas.keys import from_metakey
from milepost.topology.bases import instant, written
from milepost.topology.driver import Driver
from milepost.topology.panes import DAY_MS, HOUR_MS, PANE_MS
from milepost.topology.recognition import Recogniser
from milepost.topology.recognitions import Recognition, load
from tests.support.workers import SECRET, Deployment
from tests.topology.test_recognition import recognised

pytestmark = [pytest.mark.broker, pytest.mark.slow]

CARRIERS = ("UA", "AA", "DL")


def files(first_ms: int) -> dict[str, bytes]:
    """The demo's bundle, whose milestones begin at `first_ms` and end after three days and six hours of grace."""
    made = demo_bundle()
    text = made["milepost.yaml"].replace(b"start: 2013-01-01", b'start: "%s"' % written(first_ms).encode())
    end = written(first_ms + 3 * DAY_MS).encode()
    text = text.replace(b"deadline: 2014-01-01", b'deadline: "%s", grace: 6h' % end)
    made["milepost.yaml"] = text.replace(b"value: 20}", b"value: 25}").replace(b"window: 3h", b"window: 6h")
    return made


def flights(first_ms: int) -> list[tuple[FlightEvent, int]]:
    """Departures of three airlines over four days, one in ten known a day late."""
    chance = random.Random(11)
    found = []
    for i in range(120):
        t_ms = first_ms + chance.randrange(0, 4 * DAY_MS, 60_000)
        data = {
            "carrier": CARRIERS[i % 3], "flight": i, "tailnum": None, "origin": "EWR", "dest": "BOS", "dep_delay": 2.0,
            "distance": 200.0,
        }  # fmt: skip
        event = FlightEvent(source="flights", id=f"f{i}", type="flight.departed", t_ms=t_ms, data=data)
        found.append((event, t_ms + (DAY_MS if chance.random() < 0.1 else 60_000)))
    return found


def walked(settings: Settings, first_ms: int, until: int) -> dict[bytes, bytes]:
    """What a walk in process says up to a bucket end, as records by key."""
    now_ms = (until + 1) * PANE_MS
    driver = Driver(SECRET.encode(), partitions=settings.partitions)
    driver.apply(ORG, files(first_ms), now_ms, k_ms=first_ms - HOUR_MS)
    for event, k_ms in flights(first_ms):
        driver.produce(orjson.loads(event.body()), now_ms, known_ms=k_ms)
    driver.run()
    driver.tick(now_ms)
    driver.run()
    begins = Recogniser(driver.reader).plans_begin(ORG)
    assert begins is not None
    found = recognised(driver, [until], begins, ORG)
    outputs = [one.output(settings.partitions) for one in found]
    return {one.key: one.value or b"" for one in outputs}


def said(deployment: Deployment, until: int) -> dict[bytes, set[bytes]]:
    """Key -> its contents, of the recognitions in the topic up to a bucket end."""
    found: dict[bytes, set[bytes]] = defaultdict(set)
    for message in deployment.read("milestones"):
        one = load(message.value())
        if isinstance(one, Recognition) and one.k <= until:
            found[message.key()].add(message.value())
    return found


def marks(status: dict[str, Any], partitions: int) -> int:
    """The bucket end up to which every partition is done; 0: not all are."""
    told = status.get("milestones", {})
    done = [instant(one) // PANE_MS if one else 0 for one in told.values()]
    return min(done) if len(done) == partitions else 0


@pytest.mark.campaign
def test_killed_in_the_middle_nothing_is_missing_and_nothing_said_otherwise(settings: Settings) -> None:
    """Three kill -9 while it says what four days have brought; at the end each record is there, with one content."""
    first_ms = int(time.time() * 1000) // DAY_MS * DAY_MS - 5 * DAY_MS
    with Deployment(settings) as deployment:
        apply_bundle(deployment.settings, files(first_ms), ORG, effective=first_ms - HOUR_MS)
        known = {event.id: k_ms for event, k_ms in flights(first_ms)}
        deployment.send([event for event, _ in flights(first_ms)], shift=lambda event: known[event.id] - event.k_ms)
        enough = 0
        for _ in range(3):
            worker = deployment.start()
            deployment.wait(
                lambda enough=enough: sum(deployment.ends("milestones").values()) > enough,  # type: ignore[misc]
                "nothing was said",
            )
            worker.kill()
            enough = sum(deployment.ends("milestones").values()) + 5
        deployment.start()
        now = int(time.time() * 1000) // PANE_MS - 1
        partitions = deployment.settings.partitions
        deployment.wait(lambda: marks(deployment.status(), partitions) >= now, "not all is said", 150.0, 0.5)
        until = marks(deployment.status(), partitions)
        found = said(deployment, until)
        assert all(len(contents) == 1 for contents in found.values())
        wanted = walked(deployment.settings, first_ms, until)
        assert {key: next(iter(contents)) for key, contents in found.items()} == wanted
        kinds = {one.kind for one in map(load, wanted.values()) if isinstance(one, Recognition)}
        assert {"achieved", "lapsed", "missed", "corrected"} <= kinds
        with deployment.worker.client() as client:
            company = "carrier_code:UA"
            told = client.get("/v1/milestones/history", company=company, milestone="never_idle")["transitions"]
            (row,) = client.get("/v1/milestones", company=company, milestone="never_idle")["milestones"]
        root = from_metakey(row["company"])
        mine = [one for one in map(load, wanted.values()) if isinstance(one, Recognition)]
        mine = [one for one in mine if one.subject.company == root and one.subject.milestone == "never_idle"]
        subject = {"plan": "on_time_2013", "milestone": "never_idle", "company": row["company"]}
        assert (
            told
            == [{**subject, **one.as_dict(), "accepted": None} for one in sorted(mine, key=lambda one: one.k)]
            != []
        )
        assert row["recognised_at"] == told[-1]["recognised_at"] and row["state"] == told[-1]["state"]
        assert row["corrections"] == [
            {name: value for name, value in one.items() if name not in subject}
            for one in told
            if one["kind"] == "corrected"
        ]


def test_a_worker_that_takes_over_goes_on_where_the_other_was(settings: Settings) -> None:
    """Two workers share the partitions; one is killed for good: the other says the rest, and nothing otherwise."""
    first_ms = int(time.time() * 1000) // DAY_MS * DAY_MS - 5 * DAY_MS
    with Deployment(settings) as deployment:
        apply_bundle(deployment.settings, files(first_ms), ORG, effective=first_ms - HOUR_MS)
        known = {event.id: k_ms for event, k_ms in flights(first_ms)}
        deployment.send([event for event, _ in flights(first_ms)], shift=lambda event: known[event.id] - event.k_ms)
        one = deployment.start(ready=False)
        two = deployment.start(name="worker-2")
        deployment.wait(lambda: sum(deployment.ends("milestones").values()) > 5, "nothing was said")
        shared = [len(worker.status()["legs"]["measure"]["open"]) for worker in (one, two)]
        one.kill()
        partitions = deployment.settings.partitions
        now = int(time.time() * 1000) // PANE_MS - 1
        deployment.wait(lambda: marks(two.status(), partitions) >= now, "not all is said", 150.0, 0.5)
        until = marks(two.status(), partitions)
        found = said(deployment, until)
        assert sum(shared) == partitions and all(len(contents) == 1 for contents in found.values())
        assert {key: next(iter(contents)) for key, contents in found.items()} == walked(
            deployment.settings, first_ms, until
        )
