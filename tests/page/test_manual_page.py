"""The documentation in a real browser: without a script, at any width, and nothing of it is refused by the policy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from milepost.ops.settings import Settings
from tests.agents.test_views import Site, Tables, Worker, filled, served

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.page

WAIT_MS = 90_000
"""A browser is loaded anew in a context of its own; a busy machine takes its time."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from served(Worker(Settings(home=tmp_path_factory.mktemp("home")), Tables(filled().reader)))


def test_a_reader_finds_a_metric_and_follows_it_to_its_owner(page: Page, site: Site) -> None:
    """By the contents to the metric's heading, from there by links to the rule and the source; the address says where."""
    page.goto(f"http://127.0.0.1:{site.port}/docs", timeout=WAIT_MS)
    page.get_by_role("navigation", name="Contents").get_by_role("link", name="on_time_rate", exact=True).click()
    assert page.url.endswith("/docs#metric-on_time_rate")
    entry = page.get_by_role("article", name="Metric on_time_rate")
    assert entry.is_visible() and "ops@example.org" in entry.inner_text()
    entry.get_by_role("link", name="departed_on_time", exact=True).first.click()
    assert page.url.endswith("#rule-departed_on_time")
    page.get_by_role("article", name="Rule departed_on_time").get_by_role(
        "link", name="flights", exact=True
    ).first.click()
    assert page.url.endswith("#source-flights")
    page.locator("svg.drawing a", has_text="punctual_month").click()
    assert page.url.endswith("#milestone-punctual_month")
    assert page.said == []  # type: ignore[attr-defined]


def test_it_leads_to_the_page_and_needs_no_script(browser: Any, site: Site) -> None:
    """With scripts turned off everything is there, a metric's link leads to the page, and the style sheet is applied."""
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(f"http://127.0.0.1:{site.port}/docs", timeout=WAIT_MS)
    link = plain.get_by_role("article", name="Metric departures", exact=True).get_by_role(
        "link", name="See it on the page"
    )
    assert link.get_attribute("href") == "/?metric=departures"
    assert plain.locator("article").count() > 20
    plain.get_by_text("Example", exact=True).first.click()
    assert plain.locator("details[open] pre").first.is_visible()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_and_can_be_read(browser: Any, site: Site, width: int, scheme: str) -> None:
    """Nothing is wider than the window on a phone or a desktop, and text stands out from its ground in both schemes."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    opened = context.new_page()
    opened.goto(f"http://127.0.0.1:{site.port}/docs#contract-FlightDeparted", timeout=WAIT_MS)
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    ground = opened.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    ink = opened.evaluate("getComputedStyle(document.querySelector('article dd')).color")
    assert abs(light(ground) - light(ink)) > 120
    context.close()


def light(colour: str) -> float:
    red, green, blue = (float(one) for one in colour.removeprefix("rgb(").rstrip(")").split(",")[:3])
    return 0.3 * red + 0.6 * green + 0.1 * blue
