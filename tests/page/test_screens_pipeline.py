"""The pipeline's screen: the line in its order, its counts and errors, as the worker tells them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from milepost.topology import describe, line
from tests.page import goldens
from tests.page.site import NOW, SCRIPT, START, Shops, shops, use

pytestmark = pytest.mark.page

WAIT_MS = 20_000


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Shops]:
    with shops(tmp_path) as made:
        yield made


def opened(page: Any, site: Shops, **question: str) -> None:
    page.goto(f"{site.url}/?{urlencode({'screen': 'pipeline', 'basis': 'latest', 'tz': 'UTC', **question})}")
    settled(page)


def settled(page: Any) -> None:
    page.wait_for_function(
        """() => { const s = document.getElementById('status');
        return s.dataset.state === 'ready' && '?' + s.dataset.question === location.search; }""",
        timeout=WAIT_MS,
    )


def test_the_line_is_drawn_in_its_order(page: Any, site: Shops) -> None:
    """Legs, topics and stages stand in the order in which the line declares them."""
    opened(page, site)
    legs = [one.get_attribute("data-leg") for one in page.locator("#line .leg").all()]
    assert legs == [leg.name for leg in line.LEGS] + [one.name for one in line.ASKING]
    assert [one.get_attribute("data-topic") for one in page.locator("#line .topic").all()] == [
        leg.reads for leg in line.LEGS
    ]
    for leg in line.LEGS:
        rows = page.locator(f"[data-leg={leg.name}] tr[data-stage]").all()
        assert tuple(row.get_attribute("data-stage") for row in rows) == leg.stages
    assert page.said == []


def test_its_counts_are_the_workers(page: Any, site: Shops) -> None:
    """What each stage took, dropped and refused is the sum of the fates that belong to it."""
    opened(page, site)
    status = site.get("/v1/status")
    for leg in describe.legs():
        if "fates" not in leg:
            continue
        counted = status["legs"][leg["name"]]["fates"]
        for stage in leg["stages"]:
            row = page.locator(f"[data-leg={leg['name']}] tr[data-stage={stage}]")
            for kind in ("result", "drop", "dead"):
                total = sum(
                    n
                    for fate, n in counted.items()
                    if leg["fates"][fate]["stage"] == stage and leg["fates"][fate]["kind"] == kind
                )
                assert row.get_attribute(f"data-{kind}") == str(total), (leg["name"], stage, kind)
    assert page.locator("[data-leg=ingest]").get_attribute("data-dead") == "1"


def test_dead_letters_lead_to_their_event(page: Any, site: Shops) -> None:
    """Each problem has its reason, stage and count, and a button to an example, whose script stays text."""
    opened(page, site)
    (problem,) = site.get("/v1/dead-letters")["problems"]
    row = page.locator("#errors tr[data-problem]")
    assert row.get_attribute("data-count") == str(problem["count"]) == "1"
    assert problem["stage"] in row.inner_text() and problem["open"] == 1
    assert [one.inner_text() for one in row.locator("td.num").all()] == ["1", "1"]
    row.locator("button").click()
    settled(page)
    assert SCRIPT in page.locator("#event[open] #raw").text_content()
    assert "Dead letter" in page.locator("#event").inner_text()
    page.locator("#event-close").click()
    settled(page)
    assert page.evaluate("document.activeElement.dataset.opens") == problem["example"]
    assert page.locator("main script, main img").count() == 0 and page.title() != "owned"
    assert page.said == []


def test_rates_are_differences_of_counts(page: Any, site: Shops) -> None:
    """After the second asking a leg has a rate, and it is that of what came in between."""
    opened(page, site)
    leg = page.locator("[data-leg=ingest]")
    assert leg.get_attribute("data-rate") == ""
    for number in range(60):
        site.worker.driver.produce(use(f"more-{number}", START, code="N1", minutes=1.0), NOW)
    site.worker.driver.run()
    page.wait_for_function(
        "() => Number(document.querySelector('[data-leg=ingest]').dataset.rate) > 0", timeout=WAIT_MS
    )
    rate = float(leg.get_attribute("data-rate"))
    assert 1 <= rate <= 60, "60 records in the five seconds between two askings"


def test_how_far_it_was_then_is_the_apis(page: Any, site: Shops) -> None:
    """At a moment of the past the lag of that moment is told, and that the counts are of now."""
    at = "2013-02-11T00:00:00Z"
    opened(page, site, at=at, basis="as_shown")
    told = site.get("/v1/metrics/uses/value", at=at, basis="as_shown")
    shown = page.locator("#shown-lag")
    assert shown.get_attribute("data-lag") == str(told["shown_lag_ms"] if told["shown_lag_ms"] is not None else "")
    assert shown.get_attribute("data-complete") == told["complete_to"]
    assert "are of now" in page.locator("#line-moment").inner_text()


def test_links_lead_to_headings_that_exist(page: Any, site: Shops) -> None:
    """Every leg and stage links to its heading of the generated documentation, and every link there is leads to one."""
    opened(page, site)
    page.locator("#line a").first.wait_for(timeout=WAIT_MS)
    links = [one.get_attribute("href") for one in page.locator("#line a").all()]
    markup = site.site.call("GET", "/docs").body.decode()
    for link in links:
        assert link.startswith("/docs#") and f'id="{link.removeprefix("/docs#")}"' in markup, link
    for leg in line.LEGS:
        node = page.locator(f"[data-leg={leg.name}]")
        assert node.locator("h3 a").count() == 1
        assert node.locator("tr[data-stage] th a").count() == len(leg.stages)
    assert {"/docs#source-till", "/docs#metric-uses", "/docs#rule-used"} <= set(links)


def test_a_restoring_leg_is_said_to_be(page: Any, site: Shops) -> None:
    """A partition that is being restored is named at its leg and above the line."""
    site.worker.reader.restoring = True
    page.goto(f"{site.url}/?screen=pipeline&basis=latest&tz=UTC")
    page.locator("#line-state[data-state=restoring]").wait_for(timeout=WAIT_MS)
    assert "partitions 0" in page.locator("[data-leg=measure][data-state=restoring]").inner_text()


def test_it_is_told_to_a_screen_reader(page: Any, site: Shops) -> None:
    """Roles, names and states of the screen are those of the golden file."""
    opened(page, site, at="2013-02-11T00:00:00Z", basis="corrected")
    page.locator("#line a").first.wait_for(timeout=WAIT_MS)
    goldens.same("pipeline", page.locator("#screen-pipeline"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(page: Any, site: Shops, scheme: str) -> None:
    """Nothing is wider than 360 pixels, with the stores unfolded."""
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    opened(page, site)
    for one in page.locator("#line summary").all():
        one.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
