"""From the wheel to one's own data: what the README's page of five minutes promises, typed by somebody who has nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from milepost.ops.client import Client
from tests.support import repositories
from tests.support.first_hour import Stopwatch, arrived, by_domain

pytestmark = [pytest.mark.broker, pytest.mark.slow]

COMMITS = 400
AIM_S = 300.0
WAIT_MS = 60_000


def test_ones_own_commits_by_organisation_are_on_the_page(tmp_path: Path) -> None:
    """Installed into an empty environment and home: init, up, apply, connect, query; counts are git's, the page shows them."""
    repository = repositories.written(tmp_path / "engine", COMMITS).path
    expected = by_domain(repository)
    assert len(expected) > 5
    watch = Stopwatch()
    with arrived(tmp_path, repository, watch, jars=True) as user:
        user.milepost("init", "history", "--for", "git")
        with user.up() as page:
            assert user.own_data() == expected
            with watch.step("the page"):
                shown = on_the_page(page)
            assert shown is None or (shown and shown.items() <= expected.items())
            doctor = json.loads(user.milepost("doctor", "--json"))
            assert [one for one in doctor if one["verdict"] == "wrong"] == []
        assert (user.home / ".local" / "share" / "milepost" / "secret").exists()
    watch.say(f"{watch.total_s:7.1f} s  in all, the aim is {AIM_S:.0f}")
    assert set(user.empty.here.iterdir()) == {user.empty.here / "history"}, "nothing else is left where one typed"


def on_the_page(url: str) -> dict[str, int] | None:
    """Organisation -> commits as a browser shows them; None where there is no browser."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        return None
    from playwright.sync_api import sync_playwright

    with Client(url) as client:
        rows = client.get("/v1/metrics/commits/breakdown", by="company")["rows"]
        names = {row["key"]: row["label"] for row in rows}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        try:
            page = browser.new_page()
            page.goto(f"{url}/?metric=commits&by=company&tz=UTC")
            page.locator("#breakdown tr[data-value]").first.wait_for(timeout=WAIT_MS)
            shown = page.locator("#breakdown tr[data-key]").all()
            return {
                names[str(row.get_attribute("data-key"))]: int(str(row.get_attribute("data-value"))) for row in shown
            }
        finally:
            browser.close()
