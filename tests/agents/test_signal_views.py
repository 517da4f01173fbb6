"""The signals of a company over HTTP.  That they are the oracle's, at any moment: topology/test_equality."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from milepost.ops.settings import Settings
from milepost.topology.bases import instant
from milepost.topology.driver import Driver
from tests.agents.test_views import NOW, Site, Tables, Worker, event, filled, served

DATA = {"flight": 1, "tailnum": "N1", "origin": "EWR", "dest": "IAH", "dep_delay": 3.0, "distance": 100.0}


@pytest.fixture(scope="module")
def driver() -> Driver:
    return filled()


@pytest.fixture(scope="module")
def site(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from served(Worker(Settings(home=tmp_path_factory.mktemp("home")), Tables(driver.reader)))


def test_the_newest_come_first_page_by_page(site: Site) -> None:
    """All events of a company with their signals, whichever of its keys is asked for, and each on one page only."""
    whole = site.get("/v1/signals", company="carrier_code:UA").json
    rows = whole["signals"]
    assert [row["id"] for row in rows] == [f"f{i}" for i in range(238, -1, -2)]
    assert whole["next"] is None and whole["limited"] is None and whole["basis"] == "latest"
    first = rows[0]
    assert first["key"] == "carrier_code:UA" and first["position"].startswith("raw-events/")
    assert (first["source"], first["type"], first["revision"]) == ("flights", "flight.departed", 0)
    assert {one["name"]: one["fields"] for one in first["signals"]} == {
        "departed": {"delay": 58.0, "origin": "JFK", "dest": "IAH"}
    }
    paged, following = [], None
    while True:
        page = site.get(
            "/v1/signals", company=whole["company"], limit="7", **({"next": following} if following else {})
        ).json
        paged += page["signals"]
        following = page["next"]
        if following is None:
            break
    assert paged == rows


def test_a_moment_and_a_beginning_bound_them(site: Site) -> None:
    """As shown there is nothing that became known later; `from` leaves out what is older."""
    asked = {"company": "carrier_code:AA", "at": "2013-01-02T00:00:00Z"}
    corrected = [row["id"] for row in site.get("/v1/signals", **asked).json["signals"]]
    shown = [row["id"] for row in site.get("/v1/signals", **asked, basis="as_shown").json["signals"]]
    assert set(corrected) - set(shown) == {"f5"} and len(corrected) == 12
    late = site.get("/v1/signals", **asked, **{"from": "2013-01-01T20:00:00Z"}).json["signals"]
    assert [row["id"] for row in late] == ["f23", "f21"]
    assert all(instant(row["time"]) >= instant("2013-01-01T20:00:00Z") for row in late)


def test_what_cannot_be_listed_is_refused(site: Site) -> None:
    """A company is needed, and known; a page goes on from a page."""
    assert site.get("/v1/signals").status == 422
    told = site.get("/v1/signals", company="carrier_code:UU")
    assert (told.status, told.json["guess"]) == (404, "carrier_code:UA")
    assert site.get("/v1/signals", company="carrier_code:UA", next="zz").status == 422


def test_an_event_that_is_taken_back_is_no_more_listed(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A void takes its event off the list; an amendment takes its place."""
    made = filled()
    data = {**DATA, "carrier": "DL"}
    for one in (
        event(id="a", data=data), event(id="b", data=data, time="2013-01-01T06:00:00Z"),
        event(id="a", data=data, revision=1, void=True),
        event(id="b", data={**data, "dep_delay": 99.0}, time="2013-01-01T06:00:00Z", revision=1),
    ):  # fmt: skip
        made.produce(one, NOW)
    made.run()
    for site in served(Worker(Settings(home=tmp_path_factory.mktemp("other")), Tables(made.reader))):
        rows = site.get("/v1/signals", company="carrier_code:DL").json["signals"]
        assert [(row["id"], row["revision"]) for row in rows] == [("b", 1)]
        assert [one["name"] for one in rows[0]["signals"]] == ["departed"]
