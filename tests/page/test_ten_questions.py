"""Ten questions of a working day, answered from the documentation and the page alone, found where a person would look.

1   who owns source X?                        docs, heading "Source X"
2   what breaks if field Y goes?              docs, heading "Contract C", the field's row
3   which rules read events of type T?        docs, heading "Event types", the type's row
4   what decides milestone M?                 docs, heading "Milestone M", and its links
5   since when does this version hold?        docs, heading of the rule or metric
6   where do person keys come from?           docs, heading "Keys"
7   which source is stale?                    docs, "To look at first"
8   why is this number Z?                     page, the metric's events
9   what was shown then?                      page, the slider and "as shown"
10  who is not matched with anybody?          page, identity
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from milepost.ops.settings import Settings
from tests.agents.test_manual_views import driven
from tests.agents.test_views import Tables, Worker, filled, served
from tests.page.site import Shops, shops
from tests.support.leafing import Leafing

WAIT_MS = 90_000
TEN_DAYS = "metric=uses&at=2013-01-10T00:00:00Z&basis=corrected&window=all&tz=UTC"


@pytest.fixture(scope="module")
def airports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Leafing]:
    """The documentation of the demo's definitions, as a worker serves it."""
    for site in served(Worker(Settings(home=tmp_path_factory.mktemp("home")), Tables(filled().reader))):
        yield Leafing(site.get("/docs").body.decode())


@pytest.fixture(scope="module")
def visits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Leafing]:
    """The documentation of an organisation with people, personal data and a source that has fallen silent."""
    for site in served(Worker(Settings(home=tmp_path_factory.mktemp("home")), Tables(driven().reader))):
        yield Leafing(site.get("/docs").body.decode())


def test_1_who_owns_a_source(airports: Leafing) -> None:
    """Under its heading; and under a metric's heading who answers for that, with the way from his source."""
    assert airports["Source weather"].facts["Owner"].text == "weather@example.org"
    owner = airports["Metric visibility_avg"].facts["Owner"]
    assert owner.text.startswith("weather@example.org (weather → weather.observed → observed → visibility_avg)")
    assert airports.follow(owner.links[0]).heading == "Source weather"


def test_2_what_breaks_if_a_field_goes(airports: Leafing) -> None:
    """In the field's row: a number that nobody counts with breaks nothing; a tail number one metric and the plan."""
    contract = airports["Contract FlightDeparted"]
    assert contract.row("data.distance")["Breaks if it goes"].text == "nothing"
    breaks = contract.row("data.tailnum")["Breaks if it goes"]
    assert breaks.text == "1 metric: aircraft_in_service; 1 plan: on_time_2013"
    assert [airports.follow(one).heading for one in breaks.links] == ["Metric aircraft_in_service", "Plan on_time_2013"]
    assert "4 milestones" in contract.row("data.dep_delay")["Breaks if it goes"].text


def test_3_which_rules_read_a_type(airports: Leafing) -> None:
    """In the type's row."""
    read = airports["Event types"].row("flight.departed")["Read by"]
    assert read.text == "2 rules: departed, departed_on_time"
    assert airports.follow(read.links[1]).about.text.startswith(
        "Each flight.departed event of which dep_delay is at most 15"
    )


def test_4_what_decides_a_milestone(airports: Leafing) -> None:
    """The condition with its number, and by links down to the fields that the number is made of."""
    (row,) = airports["Milestone punctual_month"].rows
    assert row["Holds when"].text == "on_time_rate is at least 0.8, over 28 days"
    metric = airports.follow(row["Holds when"].links[0])
    assert metric.about.text.startswith("on_time_departures ÷ departures")
    counted = airports.follow(airports.follow(metric.about.links[1]).about.links[0])
    assert counted.heading == "Rule departed_on_time"
    assert counted.facts["When"].links == ["#field-FlightDeparted.dep_delay"]


def test_5_since_when_a_version_holds(visits: Leafing) -> None:
    """Of a rule that changed an hour ago, and of one that did not."""
    assert visits["Rule ordered"].facts["Version"].text.endswith("in force since 4 February 2014, 23:00 UTC")
    assert visits["Rule visited"].facts["Version"].text.endswith("in force since 3 February 2014, 00:00 UTC")


def test_6_where_person_keys_come_from(visits: Leafing) -> None:
    """The kinds of keys of a person, with source, field and contract; and that the field is personal data."""
    rows = [one for one in visits["Keys"].rows if one["Of"].text == "person"]
    assert [one["Kind"].text for one in rows] == ["email", "phone"]
    comes = rows[0]["Comes from"]
    assert comes.text == "app: data.email of Visit"
    contract = visits.follow(comes.links[1])
    assert contract.heading == "Contract Visit" and contract.row("data.email")["Means"].text == "personal data"


def test_7_which_source_is_stale(visits: Leafing, airports: Leafing) -> None:
    """It stands at the top of the page, with what is silent and for how long; where none is stale nothing does."""
    first = visits["To look at first"]
    assert "source app is stale: the newest event came 20 minutes ago" in first.about.text
    assert visits.follow(first.about.links[0]).heading == "Source app"
    assert visits["Source app"].facts["Promises"].text.startswith("an event at least every 15 minutes")
    assert not any(one.heading == "To look at first" and "stale" in one.about.text for one in airports.parts)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shops]:
    """The page of three shops: one event came late, and a link between two of them was refused."""
    with shops(tmp_path_factory.mktemp("home")) as made:
        yield made


def opened(page: Any, site: Shops, address: str) -> None:
    page.set_default_timeout(WAIT_MS)
    page.goto(f"{site.url}/?{address}")
    shown(page)


def shown(page: Any) -> None:
    """Wait until the page says that it is up to date with its address."""
    page.wait_for_function(
        "() => { const s = document.getElementById('status').dataset;"
        " return s.state === 'ready' && '?' + s.question === location.search; }",
        timeout=WAIT_MS,
    )


@pytest.mark.page
def test_8_why_a_number_is_so(page: Any, site: Shops) -> None:
    """A button beside the number opens the events that were counted; each leads to the record as it came, and the
    number's definition to what it means."""
    opened(page, site, TEN_DAYS)
    number = page.get_by_role("region", name="Uses").locator("output").inner_text()
    page.get_by_role("button", name="Why this number?").click()
    shown(page)
    why = page.get_by_role("dialog", name="Why this: uses")
    counted = why.get_by_role("region", name="The events behind it, by time").get_by_role("row")
    assert counted.count() - 1 == int(number) > 10
    assert f"{number} events are behind it. Added again just now they give the same." in why.inner_text()
    why.get_by_role("button", name="till / use-3", exact=True).click()
    shown(page)
    record = json.loads(page.locator("#explain[open] #raw").text_content())
    assert (record["id"], record["source"]) == ("use-3", "till")
    page.keyboard.press("Escape")
    shown(page)
    page.get_by_text("Definition", exact=True).locator("xpath=..").get_by_role("link").click()
    page.get_by_role("article", name="Metric uses", exact=True).wait_for(timeout=WAIT_MS)
    assert page.url.endswith("/docs#metric-uses")


@pytest.mark.page
def test_9_what_was_shown_then(page: Any, site: Shops) -> None:
    """One switch: the number without what came late, as the engine gives it, with the moment in words beside it; and a
    button says what has changed it since."""
    opened(page, site, TEN_DAYS.replace("01-10", "01-04"))
    number = page.get_by_role("region", name="Uses").locator("output")
    now = int(number.inner_text())
    page.get_by_role("radio", name="As shown").check()
    shown(page)
    told = site.get("/v1/metrics/uses/value", at="2013-01-04T00:00:00Z", basis="as_shown")
    assert int(number.inner_text()) == told["value"] == now - 1
    assert "as shown 4 Jan 2013, 00:00" in page.get_by_role("banner").inner_text()
    page.get_by_role("radio", name="Corrected").first.check()
    shown(page)
    page.get_by_role("button", name="What was shown then").click()
    shown(page)
    page.get_by_role("row", name="Became known in between 1 0 0 +1").wait_for(timeout=WAIT_MS)


@pytest.mark.page
def test_10_who_waits_to_be_matched(page: Any, site: Shops) -> None:
    """The queue on the identity's screen: the two keys that an event proposed, why they were not joined, and the event."""
    opened(page, site, TEN_DAYS)
    page.get_by_role("navigation", name="Screens").get_by_role("link", name="Identity").click()
    shown(page)
    waits = page.get_by_role("region", name="Waiting for a decision").get_by_role("listitem")
    (waiting,) = site.get("/v1/identity/review")["review"]
    assert waits.count() == 1
    said = waits.first.inner_text()
    assert waiting["means"] in said and waiting["record"] in said and "V1" in said
    assert page.said == []
