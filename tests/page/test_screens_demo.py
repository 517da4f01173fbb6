"""Metric, identity and pipeline over a real worker: three moments, both switches, desktop and phone; a merge by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from milepost.ops.client import Client
from milepost.ops.settings import Settings
from tests.support.workers import Deployment, week

pytestmark = pytest.mark.page

WAIT_MS = 30_000
MOMENTS = ("2013-01-02T12:00:00Z", "2013-01-05T00:00:00Z", "2013-01-07T23:45:00Z")
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 360, "height": 740}}
UNITED, AMERICAN = "airline_name:United Air Lines Inc.", "carrier_code:AA"


@pytest.fixture(params=list(SIZES))
def sized(request: pytest.FixtureRequest, page: Any) -> Iterator[Any]:
    """The page at both sizes; at its end no screen was wider than the window, and nothing stood in the console."""
    page.set_viewport_size(SIZES[request.param])
    yield page
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.said == []


def settled(page: Any) -> dict[str, str]:
    page.wait_for_function(
        """() => { const s = document.getElementById('status');
        return s.dataset.state === 'ready' && '?' + s.dataset.question === location.search; }""",
        timeout=WAIT_MS,
    )
    return dict(parse_qsl(urlsplit(page.url).query))


def moments() -> Iterator[dict[str, str]]:
    for at in MOMENTS:
        for basis in ("corrected", "as_shown"):
            yield {"at": at, "basis": basis}


def test_why_a_number_is_so_at_every_moment(sized: Any, demo_url: str) -> None:
    """What is explained and what changed are the API's numbers, and they differ from moment to moment."""
    seen = set()
    with Client(demo_url) as client:
        for asked in moments():
            own = {"explain": "value", "since": "2013-01-01T12:00:00Z", "since_basis": "as_shown"}
            question = {"metric": "departures", **asked, "window": "all", "tz": "UTC", "company": "carrier_code:UA"}
            sized.goto(f"{demo_url}/?{urlencode({**question, **own})}")
            settled(sized)
            told = client.get("/v1/metrics/departures/explain", **asked, company="carrier_code:UA", limit=50)
            shown = sized.locator("#explain-sum")
            assert told["agrees"] is True
            assert (shown.get_attribute("data-value"), shown.get_attribute("data-recomputed")) == (
                str(told["value"]) if told["value"] is not None else "",
                str(told["recomputed"]) if told["recomputed"] is not None else "",
            )
            rows = [row.get_attribute("data-position") for row in sized.locator("#explain tr[data-position]").all()]
            assert rows == [row["position"] for row in told["rows"]]
            changed = client.get(
                "/v1/metrics/departures/diff", at=own["since"], basis=own["since_basis"], to=asked["at"],
                to_basis=asked["basis"], company="carrier_code:UA",
            )  # fmt: skip
            for side in ("before", "after"):
                value = changed[side]["value"]
                assert sized.locator(f"#side-{side}").get_attribute("data-value") == (
                    "" if value is None else str(value)
                )
            seen.add((asked["basis"], told["value"]))
    assert len(seen) > len(MOMENTS)


def test_what_is_one_thing_at_every_moment(sized: Any, demo_url: str) -> None:
    """The MetaKey, the keys and the chain are the API's, as decided now or by then."""
    with Client(demo_url) as client:
        for asked in moments():
            sized.goto(f"{demo_url}/?{urlencode({'screen': 'identity', 'look': UNITED, 'tz': 'UTC', **asked})}")
            settled(sized)
            at = {"at": asked["at"]} if asked["basis"] == "as_shown" else {}
            told = client.get("/v1/identity/resolve", key="airline_name", value=UNITED.partition(":")[2], **at)
            found = sized.locator("#found")
            assert found.get_attribute("data-metakey") == told["metakey"]
            assert found.get_attribute("data-keys").split("\n") == told["keys"]
            assert sized.locator("#found .links li").count() == len(told["links"])


def test_the_line_at_every_moment(sized: Any, demo_url: str) -> None:
    """Lag and errors are the worker's of now, and how far it was then is the API's of then."""
    with Client(demo_url) as client:
        for asked in moments():
            until = time.monotonic() + WAIT_MS / 1000
            while True:
                sized.goto(f"{demo_url}/?{urlencode({'screen': 'pipeline', 'tz': 'UTC', **asked})}")
                settled(sized)
                legs = client.get("/v1/status")["legs"]
                behind = [one for one in legs if not sized.locator(f"[data-leg={one}][data-lag='0']").count()]
                if not behind:
                    break
                # Ticks come each second, for a moment a few of them are on their way, and of the past the page asks once.
                assert time.monotonic() < until, f"{behind} lag at each look"
            status = client.get("/v1/status")
            for name, leg in status["legs"].items():
                node = sized.locator(f"[data-leg={name}]")
                dead = sum(n for fate, n in leg["fates"].items() if fate.startswith("dead"))
                assert node.get_attribute("data-dead") == str(dead)
            first = client.get("/v1/metrics")["metrics"][0]["name"]
            told = client.value(first, **asked)
            if asked["basis"] == "as_shown":
                lag = told.get("shown_lag_ms")
                assert sized.locator("#shown-lag").get_attribute("data-lag") == ("" if lag is None else str(lag))
            place = "#shown-lag" if asked["basis"] == "as_shown" else "#complete-now"
            assert sized.locator(place).get_attribute("data-complete") == (told["complete_to"] or "")


def why(page: Any, url: str, asked: Mapping[str, str]) -> str:
    """What another tab says of both airlines: their keys, and the chains of links to what they are called by."""
    said = []
    tab = page.context.new_page()
    for key in (UNITED, AMERICAN):
        tab.goto(f"{url}/?{urlencode({**asked, 'look': key})}")
        settled(tab)
        said.append(tab.locator("#thing").inner_text())
    tab.close()
    return "\n".join(said)


@pytest.mark.broker
@pytest.mark.slow
def test_two_airlines_are_merged_and_taken_apart_through_the_page(page: Any, settings: Settings) -> None:
    """On a worker with its broker: seen first, then made, then the numbers foreseen; and back to what was before."""
    with Deployment(settings) as deployment:
        deployment.apply()
        deployment.start()
        deployment.send(week())
        deployment.settle()
        with deployment.worker.client() as client:
            before = [client.value("departures", company=one)["value"] for one in (UNITED, AMERICAN)]
            asked = {"screen": "identity", "basis": "latest", "tz": "UTC"}
            assert "by hand" not in why(page, deployment.settings.url, asked)
            page.goto(f"{deployment.settings.url}/?{urlencode(asked)}")
            settled(page)
            page.locator("#decide-keys").fill(f"{UNITED}\n{AMERICAN}")
            page.locator("#decide-look").click()
            settled(page)
            foreseen = page.locator("#effect-after [data-metric=departures]").get_attribute("data-value")
            assert foreseen == str(sum(before))
            page.locator("#decide-by").fill("ann")
            page.locator("#decide-act").click()
            page.locator("#decided").wait_for(timeout=WAIT_MS)
            settled(page)
            assert [client.value("departures", company=one)["value"] for one in (UNITED, AMERICAN)] == [sum(before)] * 2
            assert "decided by hand by ann" in why(page, deployment.settings.url, asked)
            page.locator("#decide-back").click()
            settled(page)
            page.locator("#decide-act").click()
            page.locator("#decided[data-what=unlink]").wait_for(timeout=WAIT_MS)
            settled(page)
            after = client.value("departures", company=UNITED)["value"]
            assert after == before[0] and client.value("departures", company=AMERICAN)["value"] == before[1]
            assert "by hand" not in why(page, deployment.settings.url, asked)
    assert page.said == []
