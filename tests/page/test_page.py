"""The page shows what the API answers: a real browser, a real worker, the first week of the flights."""

from __future__ import annotations

import urllib.parse
from typing import Any

import pytest

from milepost.ops.client import Client

pytestmark = pytest.mark.page

WAIT_MS = 30_000
POSITIONS = (0.25, 0.6, 0.97)


def settled(page: Any, basis: str) -> dict[str, str]:
    """Wait until the page has its answer; returns the question it answers, as the address bar says it."""
    page.wait_for_function(
        """basis => { const s = document.getElementById('status');
        return s.dataset.state === 'ready' && new URLSearchParams(s.dataset.question).get('basis') === basis
          && '?' + s.dataset.question === location.search; }""",
        arg=basis,
        timeout=WAIT_MS,
    )
    query = urllib.parse.urlsplit(page.url).query
    return dict(urllib.parse.parse_qsl(query))


def shown(page: Any) -> dict[str, str]:
    """The numbers of the page, read from its DOM."""
    return {
        "value": page.locator("#value").get_attribute("data-value"),
        "reason": page.locator("#value").get_attribute("data-reason"),
        "finality": page.locator("#finality").get_attribute("data-finality"),
    }


def text(value: Any) -> str:
    """A number as JavaScript writes it."""
    return "" if value is None else str(int(value)) if float(value).is_integer() else repr(float(value))


def slide(page: Any, part: float) -> None:
    """Move the time slider to a part of its range."""
    page.locator("#at").evaluate(
        """(at, part) => { const low = Number(at.min), high = Number(at.max), step = Number(at.step) || 1;
        at.value = String(low + Math.round((high - low) * part / step) * step);
        at.dispatchEvent(new Event('input', {bubbles: true})); at.dispatchEvent(new Event('change', {bubbles: true})); }""",
        part,
    )


def check(page: Any, client: Client, question: dict[str, str]) -> str:
    """The page's number, points and rows equal the API's answer to the question in its address."""
    asked = {name: question.get(name) for name in ("company", "at", "basis", "tz")}
    answer = client.value(question["metric"], window=question["window"], **asked)
    assert shown(page) == {
        "value": text(answer["value"]), "reason": answer["reason"] or "", "finality": answer["finality"],
    }  # fmt: skip
    rows = {
        row.get_attribute("data-key"): row.get_attribute("data-value") for row in page.locator("#breakdown tr").all()
    }
    by = question.get("by") or page.locator("#by").input_value()
    told = client.get(f"/v1/metrics/{question['metric']}/breakdown", by=by, window=question["window"], **asked)
    expected = {row["key"]: text(row["value"]) for row in told["rows"]}
    assert rows and rows == {key: expected[key] for key in rows}
    return text(answer["value"])


def test_the_numbers_are_the_apis_at_every_position_and_switch(page: Any, demo_url: str) -> None:
    """At three positions of the slider and on each basis, value, finality and breakdown are what the API answers."""
    seen: dict[str, set[str]] = {"corrected": set(), "as_shown": set()}
    with Client(demo_url) as client:
        page.goto(f"{demo_url}/?metric=departures&tz=UTC")
        check(page, client, settled(page, "latest"))
        for basis in ("corrected", "as_shown"):
            page.locator(f"#basis input[value={basis}]").check(force=True)
            for part in POSITIONS:
                before = page.url
                slide(page, part)
                page.wait_for_function("before => location.href !== before", arg=before, timeout=WAIT_MS)
                seen[basis].add(check(page, client, settled(page, basis)))
    assert len(seen["corrected"]) == len(seen["as_shown"]) == len(POSITIONS), "each position has a number of its own"
    assert seen["corrected"] != seen["as_shown"], "what was shown is not what is known now"
    assert page.said == []


def test_a_company_and_a_metric_can_be_chosen(page: Any, demo_url: str) -> None:
    """Choosing an airline and a ratio shows that airline's ratio, and the chart has points."""
    with Client(demo_url) as client:
        page.goto(f"{demo_url}/?metric=departures&basis=corrected&at=2013-01-06T00:00:00Z&tz=UTC")
        settled(page, "corrected")
        united = page.locator("#company [data-metakey]", has_text="United")
        united.click()
        page.locator("#metric").select_option("on_time_rate")
        page.wait_for_function(
            "() => location.search.includes('on_time_rate') && location.search.includes('company=')", timeout=WAIT_MS
        )
        question = settled(page, "corrected")
        check(page, client, question)
        listed = client.get("/v1/companies", q="United")["companies"][0]
    assert question["company"] in (listed["metakey"], *listed["keys"])
    assert int(page.locator("#chart").get_attribute("data-points")) > 0
    assert "United" in page.locator("#answer-title").inner_text()


def test_the_address_says_what_is_seen_and_the_back_button_goes_back(page: Any, demo_url: str) -> None:
    """A link shows its reader what its sender saw; going back shows what was seen before."""
    address = f"{demo_url}/?metric=departures&at=2013-01-04T12%3A00%3A00Z&basis=as_shown&window=all&tz=UTC"
    page.goto(address)
    settled(page, "as_shown")
    first = shown(page)
    assert "as shown 4 Jan 2013, 12:00" in page.locator("#mode").inner_text()
    page.locator("#basis input[value=corrected]").check(force=True)
    settled(page, "corrected")
    assert shown(page)["value"] != first["value"]
    page.go_back()
    settled(page, "as_shown")
    assert shown(page) == first


def test_a_wrong_name_is_told_with_a_guess(page: Any, demo_url: str) -> None:
    """A metric that does not exist is a notice that names the nearest one, not an empty page."""
    page.goto(f"{demo_url}/?metric=departurez&basis=latest&tz=UTC")
    page.locator("#notice").wait_for(state="visible", timeout=WAIT_MS)
    assert "departures" in page.locator("#notice").inner_text()


def test_it_fits_a_phone(page: Any, demo_url: str) -> None:
    """On a phone nothing is wider than the screen."""
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"{demo_url}/?metric=departures&tz=UTC")
    settled(page, "latest")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
