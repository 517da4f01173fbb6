"""Overview and company when there is nothing yet, when a partition is being restored, and when names are markup."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from milepost.topology.driver import Driver
from tests.page.screens import SIZES, WAIT_MS, fits, quiet, settled
from tests.page.town import NAMES, Town, filled, town

pytestmark = pytest.mark.page

MARKUP = "<img src=x onerror=\"document.title='owned'\">"


@pytest.fixture
def airport(tmp_path: Path) -> Iterator[Town]:
    """An airport that may be changed."""
    with town(tmp_path, filled(days=3, names={**NAMES, "AA": MARKUP})) as made:
        yield made


def test_before_the_first_definitions_the_way_to_them_is_shown(page: Any, tmp_path: Path) -> None:
    """An organisation without definitions is told what to do, on every screen, and the page fills itself afterwards."""
    page.set_viewport_size(SIZES["phone"])
    with town(tmp_path, Driver(b"a secret of thirty-two bytes long", partitions=2)) as empty:
        for screen in ("company", "metric", "overview"):
            page.goto(f"{empty.url}/?screen={screen}")
            page.locator("#status[data-state=empty]").wait_for(timeout=WAIT_MS)
            assert page.locator("#notice").is_hidden() and page.locator("#at").is_disabled() and fits(page)
        assert "milepost apply" in page.locator("#welcome").inner_text()
        empty.apply()
        settled(page)
        assert page.locator("#welcome").is_hidden() and page.locator("#portfolio").is_visible()


@pytest.mark.parametrize("screen", ["overview", "company"])
def test_what_is_being_restored_is_waited_for(page: Any, airport: Town, screen: str) -> None:
    """While a partition is restored the screen says so in its places, has no number, and then fills itself."""
    airport.worker.reader.restoring = True
    page.goto(f"{airport.url}/?screen={screen}&company=carrier_code:UA&basis=corrected&at=2013-01-03T00:00:00Z")
    page.locator("#status[data-state=restoring]").wait_for(timeout=WAIT_MS)
    assert "being restored" in page.locator("#notice").inner_text()
    assert page.locator(".chip, .steps > li").count() == 0
    airport.worker.reader.restoring = False
    settled(page)
    assert page.locator("#notice").is_hidden() and page.locator(".chip, .steps > li").count() > 0


def test_a_company_that_does_not_exist_is_told_with_a_guess(page: Any, airport: Town) -> None:
    """A key that nobody has leaves no number on the screen, and the nearest one is a press away."""
    page.goto(f"{airport.url}/?screen=company&company=carrier_code:UU")
    page.locator("#notice-guess").click(timeout=WAIT_MS)
    settled(page)
    assert page.locator("#whose").inner_text() == NAMES["UA"]


def test_text_from_data_stays_text(page: Any, airport: Town) -> None:
    """A company whose name is markup is shown as that text, and nothing of it runs."""
    page.goto(f"{airport.url}/?screen=overview&plan=on_time_2013&milestone=twenty_departures&state=achieved")
    settled(page)
    page.locator(".those a", has_text="<img src=x").click()
    page.wait_for_function("text => document.getElementById('whose')?.textContent === text", arg=MARKUP)
    settled(page)
    assert MARKUP in page.locator("ul.keys").inner_text()
    assert page.locator("main img, aside img").count() == 0 and page.title() != "owned"
    assert quiet(page)
