"""The overview shows what the API answers, at any moment and on either basis, on a phone and on a desk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from milepost.ops.client import Client
from tests.page.goldens import same
from tests.page.screens import POSITIONS, SIZES, fits, moved, quiet, settled, slide, switch, when
from tests.page.town import NOW, Town, town

pytestmark = pytest.mark.page


@pytest.fixture(scope="module")
def airport(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """The airport, not to be changed."""
    with town(tmp_path_factory.mktemp("home")) as made:
        yield made


def standings(client: Client, question: dict[str, str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = client.get("/v1/milestones", limit=1000, **when(question))["milestones"]
    return rows


def check(page: Any, client: Client, question: dict[str, str]) -> Counter[tuple[str, str]]:
    """The chips and tiles count what the API answers to the question in the address."""
    rows = standings(client, question)
    expected = Counter((row["milestone"], row["state"]) for row in rows)
    shown = Counter(
        {
            (
                chip.locator("xpath=ancestor::li[@data-milestone]").get_attribute("data-milestone"),
                chip.get_attribute("data-state"),
            ): int(chip.get_attribute("data-count"))
            for chip in page.locator(".chip").all()
        }
    )
    assert shown == expected and rows
    achieved = page.locator("[data-tile=achieved] .figure").inner_text()
    assert achieved == str(sum(row["state"] == "achieved" for row in rows))
    problems = client.get("/v1/dead-letters")["problems"]
    assert page.locator("[data-tile=dead-letters] .figure").inner_text() == str(sum(one["open"] for one in problems))
    lines = page.locator("#problems tbody tr").all()
    assert {line.get_attribute("data-problem"): int(line.get_attribute("data-count")) for line in lines} == {
        one["problem"]: one["count"] for one in problems
    }
    sources = client.get("/v1/quality", **when(question))["sources"]
    shown_sources = page.locator(".sources > li").all()
    assert {one.get_attribute("data-source"): one.get_attribute("data-state") for one in shown_sources} == {
        one["source"]: one["state"] or "" for one in sources
    }
    assert fits(page)
    return expected


@pytest.mark.parametrize("size", SIZES)
def test_it_counts_what_the_api_answers_at_every_position_and_switch(page: Any, airport: Town, size: str) -> None:
    """Live, and at three positions of the slider on each basis, every count is the API's and nothing is too wide."""
    page.set_viewport_size(SIZES[size])
    seen = set()
    with Client(airport.url) as client:
        page.goto(airport.url)
        check(page, client, settled(page))
        for basis in ("corrected", "as_shown"):
            switch(page, basis)
            for part in POSITIONS:
                question = slide(page, part)
                assert (question["screen"], question["basis"]) == ("overview", basis)
                seen.add(str(sorted(check(page, client, question).items())))
    assert len(seen) > 1, "time changes what stands there"
    assert quiet(page)


def test_a_count_leads_to_its_companies_and_they_to_their_screens(page: Any, airport: Town) -> None:
    """A state's count lists the companies in it, by keys alone; the address keeps the choice, and a name is a link."""
    with Client(airport.url) as client:
        page.goto(f"{airport.url}/?screen=overview&basis=corrected&at=2013-02-10T00:00:00Z&tz=UTC")
        rows = standings(client, settled(page))
        before = page.url
        chip = page.locator("[data-milestone=punctual_month] .chip[data-state=achieved]")
        chip.focus()
        page.keyboard.press("Enter")
        question = moved(page, before)
        assert (question["milestone"], question["state"]) == ("punctual_month", "achieved")
        names = page.locator(".those a").all_inner_texts()
        assert names == sorted(
            row["name"] for row in rows if (row["milestone"], row["state"]) == ("punctual_month", "achieved")
        )
        assert chip.get_attribute("aria-current") == "true" and chip.evaluate("e => e === document.activeElement")
        before = page.url
        page.locator(".those a").first.click()
        question = moved(page, before)
        assert (question["screen"], question["at"], "state" in question) == ("company", "2013-02-10T00:00:00Z", False)
        assert page.locator("#whose").inner_text() == names[0]
        page.go_back()
        assert settled(page)["screen"] == "overview" and page.locator(".those a").all_inner_texts() == names
    assert quiet(page)


def test_the_bar_leads_to_every_screen_and_says_where_one_is(page: Any, airport: Town) -> None:
    """Five links, each to its screen at the same moment; the one that is shown says so."""
    page.goto(f"{airport.url}/?screen=overview&basis=as_shown&at=2013-02-10T00:00:00Z&tz=UTC")
    settled(page)
    links = page.locator("nav a")
    assert links.all_inner_texts() == ["Overview", "Company", "Metric", "Identity", "Pipeline"]
    for number in range(links.count()):
        link = links.nth(number)
        name = link.get_attribute("data-screen")
        link.focus()
        page.keyboard.press("Enter")
        page.wait_for_function("name => !document.getElementById(`screen-${name}`)?.hidden", arg=name)
        assert page.locator("nav [aria-current=page]").all_inner_texts() == [link.inner_text()]
        assert "at=2013-02-10T00%3A00%3A00Z" in page.url and page.locator("#mode").inner_text().startswith(
            "as shown 10 Feb 2013"
        )
        assert page.locator("main > section:visible").count() == 1


@pytest.mark.parametrize("size", SIZES)
def test_a_screen_reader_is_told_it(page: Any, airport: Town, size: str) -> None:
    """Landmarks, headings, names and counts, in words: the same on a phone and on a desk."""
    page.set_viewport_size(SIZES[size])
    page.clock.set_fixed_time(NOW / 1_000)
    page.goto(f"{airport.url}/?screen=overview&basis=corrected&at=2013-02-10T00:00:00Z&tz=UTC")
    settled(page)
    same("overview", page.locator("body"))
