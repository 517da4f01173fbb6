"""A rule edited twice while a worker runs: through repeats, a kill, a lost folder and lost changelogs, one verdict."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
import pytest

from milepost.ops.apply import demo_bundle
from milepost.ops.flights import ORG, FlightEvent
from milepost.ops.provision import admin_client, provision
from milepost.ops.settings import Settings
from milepost.schemas.serde import HEADER_BYTES, wire
from milepost.topology import line
from milepost.topology.catalog import load_bundle
from milepost.topology.digest import digest
from milepost.topology.driver import Driver
from tests.support.workers import SECRET, Deployment, week

pytestmark = [pytest.mark.broker, pytest.mark.slow]

MAIN = demo_bundle()["milepost.yaml"]
EDITIONS = [
    {**demo_bundle(), "milepost.yaml": MAIN.replace(b"<= 15.0", b"<= %d.0" % minutes)} for minutes in (15, 30, 0)
]
PART = 600


def streams() -> list[list[FlightEvent]]:
    """What is sent under each edition: events of its own, and a tenth of repeats of all before."""
    chance = random.Random(6)
    events = [event for event in week() if event.type == "flight.departed"]
    chance.shuffle(events)
    parts = [events[number * PART : (number + 1) * PART] for number in range(len(EDITIONS))]
    known: list[FlightEvent] = []
    for part in parts:
        fresh, again = list(part), chance.sample(known, PART // 10) if known else []
        known += fresh
        part += again
        chance.shuffle(part)
    return parts


def wanted() -> dict[str, bytes]:
    """Event id -> the version of `departed_on_time` that judges it, of the first edition it was sent under."""
    first: dict[str, bytes] = {}
    for files, part in zip(EDITIONS, streams(), strict=True):
        version = load_bundle(files).rules["departed_on_time"].version
        for event in part:
            first.setdefault(event.id, version)
    return first


def driver_digest() -> dict[str, str]:
    driver = Driver(SECRET.encode(), partitions=2)
    for files, part in zip(EDITIONS, streams(), strict=True):
        driver.apply(ORG, files, 1_357_000_000_000)
        for event in part:
            driver.produce(orjson.loads(event.body()), 1_357_000_000_000, known_ms=event.k_ms)
    driver.run()
    return digest(driver.reader)


def judged(deployment: Deployment) -> Mapping[str, set[bytes]]:
    """Event id -> the versions of `departed_on_time` among its signals in the log."""
    found: dict[str, set[bytes]] = {}
    for message in deployment.read("signals"):
        value = message.value() or b""
        if value[:HEADER_BYTES] == wire("Signals").header:
            one: dict[str, Any] = wire("Signals").decode(value)
            versions = {each["version"] for each in one["signals"] if each["rule"] == "departed_on_time"}
            found.setdefault(one["id"], set()).update(versions)
    return found


def lose_changelogs(deployment: Deployment) -> None:
    """Delete the legs' changelogs and make them anew, empty."""
    admin = admin_client(deployment.settings)
    names = {deployment.settings.topic(leg.changelog) for leg in line.LEGS}
    for future in admin.delete_topics(sorted(names), operation_timeout=20).values():
        future.result(timeout=20)
    until = time.monotonic() + 20
    while names & set(admin.list_topics(timeout=10).topics):
        assert time.monotonic() < until, "the changelogs are still there"
        time.sleep(0.1)
    provision(deployment.settings)


def right(deployment: Deployment, first: Mapping[str, bytes], expected: Mapping[str, str]) -> None:
    """Tables are the driver's, each event has one verdict, that of its place, and the answers are those of the events."""
    assert deployment.digest() == expected
    found = judged(deployment)
    assert len({version for versions in found.values() for version in versions}) == len(EDITIONS)
    assert all(versions <= {first[id]} for id, versions in found.items())
    sent = {event.id: event for part in streams() for event in part}
    newest = load_bundle(EDITIONS[-1]).rules["departed_on_time"].version
    punctual = [id for id, event in sent.items() if first[id] == newest and event.data["dep_delay"] <= 0]
    with deployment.worker.client() as client:
        assert client.value("departures")["value"] == len(sent) == len(first)
        assert client.value("on_time_departures")["value"] == len(punctual) > PART / 4


@pytest.mark.campaign
def test_a_rule_edited_twice_judges_each_event_by_its_position(settings: Settings) -> None:
    """A rule edited twice in the middle of the stream: each event judged by the version its log position says, also
    after repeats, a replay of the log into an empty engine, and a restart: kill -9 between the edits and behind them,
    a lost folder, and lost changelogs, so that the log is folded anew."""
    first, expected = wanted(), driver_digest()
    with Deployment(replace(settings, partitions=2)) as deployment:
        parts = streams()
        deployment.apply(EDITIONS[0])
        deployment.start()
        deployment.send(parts[0])
        with deployment.worker.client() as client:  # over HTTP, as an editor's button would
            body = {"org": ORG, "files": {name: text.decode() for name, text in EDITIONS[1].items()}}
            assert client.post("/v1/definitions:apply", body)["changed"]
            deployment.wait(
                lambda: not client.post("/v1/definitions:plan", body)["changes"], "the edit is not followed"
            )
        deployment.send(parts[1])
        deployment.wait(lambda: deployment.landed("ingest") > PART, "the first edit was not reached")
        deployment.kill()
        deployment.apply(EDITIONS[2])
        deployment.send(parts[2][: PART // 2])
        deployment.start()
        behind = len(parts[0]) + len(parts[1]) + 60
        deployment.wait(lambda: deployment.landed("ingest") > behind, "the second edit was not reached")
        deployment.send(parts[2][PART // 2 :])
        deployment.kill()
        deployment.start()
        deployment.settle()
        right(deployment, first, expected)

        deployment.send([event for part in parts for event in part])
        deployment.settle()
        right(deployment, first, expected)

        assert deployment.worker.stop() == 0
        deployment.lose_state()
        deployment.start()
        deployment.settle()
        right(deployment, first, expected)

        assert deployment.worker.stop() == 0
        deployment.lose_state()
        lose_changelogs(deployment)
        deployment.start()
        deployment.settle()
        right(deployment, first, expected)
