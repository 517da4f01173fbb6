"""The door, in a browser: the page asks for a token once, keeps it nowhere, and asks again when it is revoked."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from milepost.ops.access import Role
from milepost.ops.settings import Settings
from tests.agents.test_views import Site, Tables, Worker, filled, served
from tests.support.doors import revoking, token

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.page


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    yield from served(Worker(Settings(home=tmp_path), Tables(filled().reader)))


def test_the_page_asks_for_a_token_once(page: Page, site: Site) -> None:
    """A wrong token is told so, a right one opens the page and its stream; no script finds it; a revocation asks anew."""
    text = token(site.worker.book, Role.READ)
    streams: list[int] = []
    page.on("response", lambda got: streams.append(got.status) if "/v1/stream" in got.url else None)
    page.goto(f"http://127.0.0.1:{site.port}/")
    door = page.locator("#door")
    door.wait_for(state="visible")
    assert page.locator("#door").count() == 1
    assert door.get_attribute("aria-labelledby") and page.evaluate("document.activeElement.type") == "password"
    door.locator("input").fill("mp_000000000000_" + "a" * 52)
    page.keyboard.press("Enter")
    door.get_by_role("alert").filter(has_text="opens nothing").wait_for()
    door.locator("input").fill(text)
    page.keyboard.press("Enter")
    door.wait_for(state="detached")
    page.locator("body").filter(has_text=re.compile("240|departures")).wait_for()
    page.wait_for_function("() => performance.getEntriesByType('resource').some((one) => one.name.includes('/v1/'))")
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict" and cookie["name"].startswith("milepost_session_")
    kept = page.evaluate(
        "[document.cookie, JSON.stringify(localStorage), JSON.stringify(sessionStorage), location.href]"
    )
    assert kept[:3] == ["", "{}", "{}"] and text.split("_")[2] not in "".join(kept) + page.content()
    page.reload()
    page.wait_for_load_state("load")
    page.wait_for_timeout(1_000)
    assert door.count() == 0 and 200 in streams and set(streams) == {200}
    asyncio.run_coroutine_threadsafe(_add(site, revoking(site.worker.book, text)), site.loop).result(10)
    door.wait_for(state="visible", timeout=60_000)


async def _add(site: Site, record: bytes) -> None:
    site.worker.book.add(record)
