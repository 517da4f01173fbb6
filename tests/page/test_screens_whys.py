"""The metric's screen: why a number is so, down to the raw event, and what changed it; against the engine's answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from tests.page import goldens
from tests.page.site import AMENDED, LATE, MARKUP, SCRIPT, VOIDED, Shops, shops

pytestmark = pytest.mark.page

WAIT_MS = 20_000
MOMENT = {"metric": "uses", "at": "2013-02-01T00:00:00Z", "basis": "corrected", "window": "all", "tz": "UTC"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shops]:
    with shops(tmp_path_factory.mktemp("home")) as made:
        yield made


def opened(page: Any, site: Shops, **question: str) -> None:
    """The screen with its answers."""
    page.goto(f"{site.url}/?{urlencode({**MOMENT, **question})}")
    settled(page)


def settled(page: Any) -> dict[str, str]:
    """Wait until the answers are those of the address; returns the question."""
    page.wait_for_function(
        """() => { const s = document.getElementById('status');
        return s.dataset.state === 'ready' && '?' + s.dataset.question === location.search; }""",
        timeout=WAIT_MS,
    )
    return dict(parse_qsl(urlsplit(page.url).query))


def explained(site: Shops, **asked: str) -> dict[str, Any]:
    told: dict[str, Any] = site.get(f"/v1/metrics/{MOMENT['metric']}/explain", limit=50, **asked)
    return told


def shown_events(page: Any) -> list[tuple[str, str]]:
    rows = page.locator("#explain tr[data-position]").all()
    return [(row.get_attribute("data-position"), row.get_attribute("data-adds")) for row in rows]


def check_explained(page: Any, told: dict[str, Any]) -> None:
    """The dialog shows the value, the sum made again, and just the events of the answer."""
    page.locator("#explain[open] #explain-sum").wait_for(timeout=WAIT_MS)
    said = page.locator("#explain-sum")
    assert said.get_attribute("data-value") == str(told["value"]) == said.get_attribute("data-recomputed")
    assert said.get_attribute("data-agrees") == "true" and told["agrees"] is True
    assert shown_events(page) == [(row["position"], str(row["adds"])) for row in told["rows"]] != []


@pytest.mark.parametrize("basis", ["corrected", "as_shown"])
def test_a_number_a_point_and_a_row_are_explained(page: Any, site: Shops, basis: str) -> None:
    """Each leads to the events that the engine counts for it, on each basis; Escape leads back to where one was."""
    opened(page, site, basis=basis)
    common = {"at": MOMENT["at"], "basis": basis, "tz": "UTC"}
    page.locator("#why").click()
    assert settled(page)["explain"] == "value"
    check_explained(page, explained(site, window="all", **common))
    page.keyboard.press("Escape")
    assert "explain" not in settled(page) and page.locator("#explain").is_hidden()
    assert page.evaluate("document.activeElement.id") == "why"
    page.locator("#points-panel summary").click()
    point = page.locator("#points tr:has(button)").nth(10)
    start = point.get_attribute("data-start")
    point.locator("button").click()
    kind, first, end = settled(page)["explain"].split("/")
    assert (kind, first) == ("point", start)
    check_explained(page, explained(site, **{**common, "from": start, "to": end}))
    page.locator("#explain-close").click()
    settled(page)
    page.locator("#by").select_option("region")
    settled(page)
    row = page.locator("#breakdown tr").first
    key = row.get_attribute("data-key")
    row.locator("td button").click()
    assert settled(page)["explain"] == f"row/region/{key}"
    check_explained(page, explained(site, **{**common, "window": "all", "dim.region": key}))
    assert page.said == []


def test_a_link_opens_what_its_sender_saw(page: Any, site: Shops) -> None:
    """The address holds the explanation and the event; back leads to the events, and from there to the number."""
    row = explained(site, at=MOMENT["at"], basis="corrected")["rows"][5]
    opened(page, site, explain="value", event=row["position"])
    raw = page.locator("#explain[open] #raw")
    record = site.get(f"/v1/events/{row['position']}/record")
    assert page.evaluate("text => JSON.stringify(JSON.parse(text))", raw.text_content()) == page.evaluate(
        "text => JSON.stringify(JSON.parse(text))", record["text"]
    )
    assert row["position"] in page.locator("#explain").inner_text()
    page.locator("#explain-back").click()
    settled(page)
    check_explained(page, explained(site, at=MOMENT["at"], basis="corrected"))
    page.go_back()
    settled(page)
    assert page.locator("#raw").count() == 1
    assert page.said == []


def test_leaving_by_the_back_button_leaves_no_dialog(page: Any, site: Shops) -> None:
    """Who came from another screen and goes back can use that screen."""
    page.goto(f"{site.url}/?screen=identity&basis=latest&tz=UTC")
    page.locator("#look").wait_for(timeout=WAIT_MS)
    page.evaluate(
        "query => { history.pushState(null, '', query); dispatchEvent(new PopStateEvent('popstate')); }",
        f"?{urlencode({**MOMENT, 'explain': 'value'})}",
    )
    page.locator("#explain[open] #explain-sum").wait_for(timeout=WAIT_MS)
    page.go_back()
    page.locator("#look").click(timeout=WAIT_MS)
    assert page.locator("dialog[open]").count() == 0


def test_what_changed_adds_up(page: Any, site: Shops) -> None:
    """Between what was shown and what is known: the late event, the amended, the one taken back, and the engine's numbers."""
    opened(page, site, at="2013-01-10T00:00:00Z")
    page.get_by_role("button", name="What was shown then").click()
    question = settled(page)
    assert (question["since"], question["since_basis"]) == ("2013-01-10T00:00:00Z", "as_shown")
    told = site.get(
        "/v1/metrics/uses/diff", at=question["since"], basis="as_shown", to=question["at"], to_basis="corrected"
    )
    for side in ("before", "after"):
        assert page.locator(f"#side-{side}").get_attribute("data-value") == str(told[side]["value"])
    assert page.locator("#change").get_attribute("data-value") == str(told["after"]["value"] - told["before"]["value"])
    causes = page.locator("#causes").inner_text()
    assert "Became known in between" in causes and "Taken back" in causes
    page.locator("#difference summary").click()
    events = page.locator("#difference details").inner_text()
    assert f"till / {LATE}" in events and f"till / {VOIDED}" in events and f"till / {AMENDED}" in events
    page.locator("#difference details button").first.click()
    settled(page)
    assert page.locator("#explain[open] #raw").count() == 1
    assert page.said == []


def test_any_two_moments_are_compared(page: Any, site: Shops) -> None:
    """A moment that is typed is the side before; what is no moment is told and asks nothing; stopping takes it off."""
    opened(page, site)
    page.locator("#since").fill("2013-01-15 12:00")
    page.locator("#since-basis").select_option("corrected")
    page.locator("#since-go").click()
    assert settled(page)["since"] == "2013-01-15T12:00:00Z"
    told = site.get(
        "/v1/metrics/uses/diff", at="2013-01-15T12:00:00Z", basis="corrected", to=MOMENT["at"], to_basis="corrected"
    )
    assert page.locator("#change").get_attribute("data-value") == str(told["after"]["value"] - told["before"]["value"])
    before = page.url
    page.locator("#since").fill("next week")
    page.locator("#since-go").click()
    assert page.locator("#since-error").is_visible() and page.url == before
    page.locator("#since-stop").click()
    assert "since" not in settled(page) and page.locator("#change").count() == 0


def test_a_formula_is_explained_by_what_it_is_made_of(page: Any, site: Shops) -> None:
    """A ratio shows both counts, each added again."""
    opened(page, site, metric="long_rate", explain="value")
    told = site.get("/v1/metrics/long_rate/explain", at=MOMENT["at"], basis="corrected", limit=50)
    rows = page.locator("#explain .operands tbody tr").all()
    assert [row.locator("td").first.inner_text() for row in rows] == [str(one["value"]) for one in told["operands"]]
    assert page.locator("#explain-sum").get_attribute("data-agrees") == "true"


def test_further_events_are_fetched(page: Any, site: Shops) -> None:
    """More than a page of events come page by page, until all are there."""
    opened(page, site, at="2013-02-12T00:00:00Z", explain="value")
    told = site.get("/v1/metrics/uses/explain", at="2013-02-12T00:00:00Z", basis="corrected", limit=1000)
    assert len(told["rows"]) > 50 == len(shown_events(page))
    page.locator("#explain-more").click()
    page.wait_for_function(
        "n => document.querySelectorAll('#explain tr[data-position]').length === n",
        arg=len(told["rows"]), timeout=WAIT_MS,
    )  # fmt: skip
    assert [position for position, _ in shown_events(page)] == [row["position"] for row in told["rows"]]
    assert page.locator("#explain-more").is_hidden()


def test_script_in_an_events_fields_stays_text(page: Any, site: Shops) -> None:
    """A shop's name, a dimension's value, a field of a raw event and an address that are markup run nowhere."""
    opened(page, site, by="region")
    assert page.locator("#breakdown tr", has_text=SCRIPT).count() == 1
    assert page.locator("#company li", has_text=MARKUP).count() == 1
    position = explained(site, at=MOMENT["at"], basis="corrected")["rows"][-1]["position"]
    opened(page, site, explain="value", event=position)
    assert SCRIPT in page.locator("#raw").text_content()
    opened(page, site, explain=MARKUP, event=SCRIPT, since=MARKUP)
    assert page.locator("#explain[open]").count() == 1
    for where in ("main", "aside", "dialog"):
        assert page.locator(f"{where} img, {where} script").count() == 0
    assert page.title() != "owned"
    assert page.said == []


def test_it_is_told_to_a_screen_reader(page: Any, site: Shops) -> None:
    """Roles, names and states of the screen and of its dialog are those of the golden files."""
    opened(page, site, at="2013-01-10T00:00:00Z", since="2013-01-05T00:00:00Z", since_basis="as_shown")
    goldens.same("metric", page.locator("#screen-metric"))
    opened(page, site, at="2013-01-03T00:00:00Z", explain="value")
    goldens.same("explain", page.locator("#explain"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(page: Any, site: Shops, scheme: str) -> None:
    """With everything unfolded nothing is wider than 360 pixels, and the dialog fills the screen."""
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    opened(page, site, since="2013-01-05T00:00:00Z", by="region")
    page.locator("#difference summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    opened(page, site, explain="value")
    box = page.locator("#explain").bounding_box()
    assert box["width"] <= 360 and page.evaluate("document.documentElement.scrollWidth") <= 360
