"""The demo's questions over HTTP, to tables that the driver has filled: what `milepost demo` prints, without a broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from milepost.ops import demo
from milepost.ops.apply import demo_bundle
from milepost.ops.client import Client
from milepost.ops.demo_data import DemoData, read_demo
from milepost.ops.flights import ORG
from milepost.ops.imports import Imported
from milepost.ops.settings import Settings
from milepost.schemas.errors import StoreError
from milepost.topology.digest import digest
from milepost.topology.driver import Driver
from tests.agents.test_views import NOW, Tables, Worker, served
from tests.support import demo_answers
from tests.support import flights_expected as csv
from tests.support.flights_driver import FIRST_MS, send_flight
from tests.support.workers import SECRET


@pytest.fixture(scope="module")
def week() -> DemoData:
    return read_demo(week=True)


def driven(week: DemoData, until: int) -> Driver:
    """A driver that has taken the first events of the week."""
    driver = Driver(SECRET.encode(), partitions=3, chunk=4_000)
    driver.apply(ORG, demo_bundle(), FIRST_MS)
    for number in range(until):
        send_flight(driver, week[number])
    driver.run()
    driver.tick(NOW)
    driver.run()
    return driver


def asked(driver: Driver, home: Path) -> Iterator[Client]:
    for site in served(Worker(Settings(home=home), Tables(driver.reader))):
        with Client(f"http://127.0.0.1:{site.port}") as client:
            yield client


def test_what_the_demo_prints_is_what_the_csv_holds(week: DemoData, tmp_path: Path) -> None:
    """Totals, airlines, airports, milestones, completeness and finality of the first week; aircraft and a day's weather."""
    driver = driven(week, len(week))
    flights, weather = (csv.first_week(frame) for frame in (csv.read_csv(), csv.read_weather()))
    sent = Imported(events=len(week), held=0, sent=len(week), seconds=1.0)
    for client in asked(driver, tmp_path):
        demo.follow(client)
        found = demo.ask(client, week, sent, {"fates": driver.fates}, seconds=1.0, page="")
        demo_answers.right(found.as_json(), flights, weather)
        assert found.digest == digest(driver.reader)["total"]
        assert (found.events["read"], found.events["accepted"], found.events["dead_letters"]) == (15_981, 15_981, 0)
        demo_answers.known(client, weather)


def test_without_the_end_of_the_import_nothing_is_final(
    week: DemoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positive control: where the import ended before it said that the sources are complete, all is open, and the demo
    does not take it for whole."""
    driver = driven(week, len(week) - week.closing)
    monkeypatch.setattr(demo, "FOLLOWED_S_MAX", 0.0)
    for client in asked(driver, tmp_path):
        answer = client.value("departures", at=demo.AT, basis="corrected")
        assert (answer["finality"], answer["complete_to"] < demo.AT) == ("open", True)
        (thousands,) = client.get("/v1/milestones", company="carrier_code:UA", milestone="five_thousand")["milestones"]
        assert thousands["state"] == "unknown_stale"
        with pytest.raises(StoreError, match="are complete to 2014-01-05T00:00:00Z, and the worker says 2013-01-08"):
            demo.follow(client)
