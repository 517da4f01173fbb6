"""A company's screen shows what the API answers, at any moment and on either basis, on a phone and on a desk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from milepost.ops.client import Client
from tests.page.goldens import same
from tests.page.screens import POSITIONS, SIZES, fits, moved, quiet, settled, slide, switch, when, written
from tests.page.town import NOW, Town, town

pytestmark = pytest.mark.page

DELTA = "screen=company&company=carrier_code%3ADL&basis=as_shown&tz=UTC"


@pytest.fixture(scope="module")
def airport(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """The airport, not to be changed."""
    with town(tmp_path_factory.mktemp("home")) as made:
        yield made


def check(page: Any, client: Client, question: dict[str, str]) -> str:
    """States, evidence, figures, keys and signals are the API's answers to the question in the address."""
    whose = {"company": question["company"]}
    rows = client.get("/v1/milestones", **whose, **when(question))["milestones"]
    steps = {line.get_attribute("data-milestone"): line for line in page.locator(".steps > li").all()}
    assert {name: line.get_attribute("data-state") for name, line in steps.items()} == {
        row["milestone"]: row["state"] for row in rows
    }
    values: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        for action in row["actions"]:
            shown = steps[row["milestone"]].locator(f"[data-action={action['name']}]")
            assert shown.get_attribute("data-value") == written(action["value"])
            assert shown.get_attribute("data-holds") == str(action["holds"]).lower()
            values.setdefault((action["metric"], action["window"]), set()).add(written(action["value"]))
    figures = page.locator(".figure").all()
    assert len(figures) > len(values) > 0
    for figure in figures:
        metric, window = figure.get_attribute("data-metric"), figure.get_attribute("data-window")
        value = figure.get_attribute("data-value")
        if figure.get_attribute("data-targets"):
            last = figure.get_attribute("data-last")
            assert value in values[metric, window] or (value == last and "" in values[metric, window])
            assert (last or "0") == (value or "0"), "the last point is the value that is compared with the target"
        else:
            asked = {name: question.get(name) for name in ("company", "at", "basis", "tz")}
            assert value == written(client.value(metric, window="all", **asked)["value"])
    company = client.get(f"/v1/companies/{question['company']}")
    assert page.locator(".keys > li").evaluate_all("all => all.map(one => one.dataset.keyname)") == company["keys"]
    signals = client.get("/v1/signals", limit=12, **whose, **when(question))["signals"]
    assert page.locator(".signals > li").evaluate_all("all => all.map(one => one.dataset.event)") == [
        one["id"] for one in signals
    ]
    assert fits(page)
    return str(sorted(values.items()))


@pytest.mark.parametrize("size", SIZES)
def test_it_shows_what_the_api_answers_at_every_position_and_switch(page: Any, airport: Town, size: str) -> None:
    """Live, and at three positions of the slider on each basis, everything is the API's and nothing is too wide."""
    page.set_viewport_size(SIZES[size])
    page.clock.set_fixed_time(NOW / 1_000)
    seen = set()
    with Client(airport.url) as client:
        page.goto(f"{airport.url}/?screen=company&company=carrier_code:AA")
        check(page, client, settled(page))
        for basis in ("corrected", "as_shown"):
            switch(page, basis)
            for part in POSITIONS:
                question = slide(page, part)
                assert (question["screen"], question["basis"]) == ("company", basis)
                seen.add(check(page, client, question))
    assert len(seen) > 3, "time changes what stands there"
    assert quiet(page)


def test_a_key_says_why_it_is_the_company(page: Any, airport: Town) -> None:
    """The chain of links stands at the key, with the record that each link comes from; before it was known, that."""
    with Client(airport.url) as client:
        links = client.get("/v1/companies/carrier_code:DL")["links"]
        page.goto(f"{airport.url}/?{DELTA}&at=2013-01-20T00:00:00Z")
        settled(page)
        chain = page.locator(".chain li")
        assert chain.count() == len(links) == 1
        assert chain.get_attribute("data-record") == links[0]["record"]
        assert set(links[0]["keys"]) <= set(chain.locator("span").first.inner_text().split(" = "))
        page.goto(f"{airport.url}/?{DELTA}&at=2013-01-05T00:00:00Z")
        settled(page)
        assert chain.count() == 0
        assert "not known then" in page.locator("[data-keyname^=airline_name]").inner_text()
    assert quiet(page)


def test_a_company_is_chosen_from_the_list(page: Any, airport: Town) -> None:
    """Without a company the screen lists them; with one the list beside it leads to the others."""
    page.goto(f"{airport.url}/?screen=company")
    settled(page)
    assert page.locator("#choose a").count() == 3
    before = page.url
    page.locator("#choose a", has_text="United").click()
    moved(page, before)
    assert page.locator("#whose").inner_text() == "United Air Lines Inc."
    before = page.url
    page.locator("#company li", has_text="American").click()
    assert moved(page, before)["screen"] == "company"
    assert page.locator("#whose").inner_text() == "American Airlines Inc."
    assert quiet(page)


def test_a_record_is_looked_up_as_of_the_moment(page: Any, airport: Town) -> None:
    """Type and id show what the record was; the address says it, and what is none says so."""
    page.goto(f"{airport.url}/?screen=company&company=carrier_code:UA&at=2013-02-01T00:00:00Z")
    settled(page)
    before = page.url
    page.locator("#record-id").fill("N1")
    page.locator("#record-id").press("Enter")
    assert moved(page, before)["record"] == "aircraft/N1"
    assert "151" in page.locator("[data-record='aircraft/N1']").inner_text()
    before = page.url
    page.locator("#record-id").fill("N999")
    page.locator("#record-id").press("Enter")
    moved(page, before)
    assert "There is no such record." in page.locator("[data-record='aircraft/N999']").inner_text()
    assert quiet(page)


@pytest.mark.parametrize("size", SIZES)
def test_a_screen_reader_is_told_it(page: Any, airport: Town, size: str) -> None:
    """Landmarks, headings, names and numbers, in words."""
    page.set_viewport_size(SIZES[size])
    page.clock.set_fixed_time(NOW / 1_000)
    page.goto(f"{airport.url}/?screen=company&company=carrier_code:DL&basis=corrected&at=2013-02-10T00:00:00Z&tz=UTC")
    settled(page)
    same(f"company_{size}", page.locator("body"))
