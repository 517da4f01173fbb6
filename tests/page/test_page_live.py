"""The page while things change and while its connection is cut: in the end it shows what a fresh load shows."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from milepost.ops.processes import free_ports
from tests.page.screens import WAIT_MS, quiet, settled
from tests.page.town import NOW, Town, filled, town
from tests.support.proxy import Mode, Proxy

pytestmark = pytest.mark.page

SCREENS = {
    "overview": "screen=overview&basis=latest&tz=UTC&plan=on_time_2013&milestone=never_idle&state=lapsed",
    "company": "screen=company&company=carrier_code%3AUA&basis=latest&tz=UTC",
    "metric": "metric=departures&basis=latest&window=all&tz=UTC",
}
A_SECOND = 200
"""Updates under way, a second."""


@pytest.fixture
def airport(tmp_path: Path) -> Iterator[Town]:
    """An airport that may be changed, three days old: small, so that answers are quick."""
    with town(tmp_path, filled(days=3)) as made:
        yield made


@contextmanager
def updates(airport: Town) -> Iterator[None]:
    """Flights leave, so many a second, until the block ends."""
    ended = threading.Event()

    def fly() -> None:
        began, flown = time.monotonic(), 0
        while not ended.wait(0.1):
            due = int((time.monotonic() - began) * A_SECOND) - flown
            airport.fly(due)
            flown += due

    thread = threading.Thread(target=fly)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(60)


def shown(page: Any) -> str:
    """Everything that the screen says, without what it says about its own connection."""
    return str(page.locator("main").inner_text())


def fresh(page: Any, url: str) -> str:
    """What a page says that is opened now."""
    other = page.context.new_page()
    try:
        other.clock.set_fixed_time(NOW / 1_000)
        other.goto(url)
        settled(other)
        return shown(other)
    finally:
        other.close()


def equal(page: Any, url: str, within_s: float) -> None:
    """The page says what a fresh one does, soon."""
    wanted = fresh(page, url)
    until = time.monotonic() + within_s
    while shown(page) != wanted and time.monotonic() < until:
        page.wait_for_timeout(250)
    assert shown(page) == wanted


@pytest.mark.parametrize("screen", SCREENS)
def test_it_follows_what_happens(page: Any, airport: Town, screen: str) -> None:
    """Under 200 updates a second the numbers move without a touch, and at rest they are those of a fresh load."""
    page.clock.set_fixed_time(NOW / 1_000)
    page.goto(f"{airport.url}/?{SCREENS[screen]}")
    settled(page)
    before = shown(page)
    with updates(airport):
        page.wait_for_function(
            "before => document.querySelector('main').innerText !== before", arg=before, timeout=10_000
        )
        page.wait_for_timeout(2_000)
    assert airport.flown > A_SECOND
    equal(page, f"{airport.url}/?{SCREENS[screen]}", 10)
    assert quiet(page)


CUTS: tuple[tuple[str, Mode, int], ...] = (
    ("overview", "refused", 3),
    ("company", "black_hole", 8),
    ("metric", "reset", 5),
)
ALL_CUTS = [(screen, mode, 30) for mode in ("refused", "black_hole", "half_open", "reset") for screen in SCREENS]


@pytest.mark.parametrize(("screen", "mode", "cut_s"), CUTS)
def test_a_lost_connection_is_said_and_its_gap_closes(
    page: Any, airport: Town, screen: str, mode: Mode, cut_s: int
) -> None:
    """While the worker cannot be reached the last answers stay, pale and dated; afterwards they are a fresh load's."""
    cut(page, airport, screen, mode, cut_s)


@pytest.mark.campaign
@pytest.mark.parametrize(("screen", "mode", "cut_s"), [*ALL_CUTS, *ALL_CUTS[:8]])
def test_twenty_cuts_of_half_a_minute_leave_nothing_out(
    page: Any, airport: Town, screen: str, mode: Mode, cut_s: int
) -> None:
    """Twenty times the connection is gone for 30 s under 200 updates a second, and the page is a fresh load's."""
    cut(page, airport, screen, mode, cut_s)


def cut(page: Any, airport: Town, screen: str, mode: Mode, cut_s: int) -> None:
    """Cut the connection of a page under updates, and compare what it says afterwards with a fresh one."""
    with Proxy(airport.site.port, free_ports(1)[0]) as proxy:
        page.clock.set_fixed_time(NOW / 1_000)
        page.goto(f"http://{proxy.address}/?{SCREENS[screen]}")
        settled(page)
        with updates(airport):
            page.wait_for_timeout(2_000)
            proxy.set(mode)
            page.wait_for_timeout(cut_s * 1_000)
            if mode == "refused":
                assert page.locator("#status").get_attribute("data-state") == "offline"
                assert page.locator("#mode").inner_text().startswith("live until ")
                assert "cannot be reached" in page.locator("#notice").inner_text()
            proxy.set("open")
            page.wait_for_timeout(1_000)
        page.locator("#status[data-state=ready]").wait_for(timeout=WAIT_MS)
        equal(page, f"{airport.url}/?{SCREENS[screen]}", 60)
        assert page.locator("#mode").inner_text().strip() == "live" and page.locator("#notice").is_hidden()
