"""The identity's screen: what is one thing and why, the review queue, and decisions whose effect is seen first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from milepost.ops.access import Role
from tests.page import goldens
from tests.page.site import MARKUP, SCRIPT, Shops, shops
from tests.support.doors import token

pytestmark = pytest.mark.page

WAIT_MS = 20_000
NOW = {"screen": "identity", "basis": "latest", "tz": "UTC"}
THEN = {"screen": "identity", "basis": "as_shown", "at": "2013-02-01T00:00:00Z", "tz": "UTC"}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shops]:
    """A site that is asked and not changed."""
    with shops(tmp_path_factory.mktemp("home")) as made:
        yield made


@pytest.fixture
def decided(tmp_path: Path) -> Iterator[Shops]:
    """A site of the test's own, to be changed."""
    with shops(tmp_path) as made:
        yield made


def opened(page: Any, site: Shops, **question: str) -> None:
    page.goto(f"{site.url}/?{urlencode({**NOW, **question})}")
    settled(page)


def settled(page: Any) -> dict[str, str]:
    """Wait until the answers are those of the address; returns the question."""
    page.wait_for_function(
        """() => { const s = document.getElementById('status');
        return s.dataset.state === 'ready' && '?' + s.dataset.question === location.search; }""",
        timeout=WAIT_MS,
    )
    return dict(parse_qsl(urlsplit(page.url).query))


def resolved(site: Shops, kind: str, value: str, **asked: str) -> dict[str, Any]:
    told: dict[str, Any] = site.get("/v1/identity/resolve", key=kind, value=value, **asked)
    return told


def names(page: Any, side: str) -> list[str]:
    return [one.inner_text() for one in page.locator(f"#effect-{side} > li > strong").all()]


def test_a_key_is_looked_up_and_says_why(page: Any, asked: Shops) -> None:
    """The MetaKey, the keys of the thing and the chain of links are the engine's."""
    opened(page, asked)
    page.locator("#look").fill("vat:V0")
    page.locator("#look-go").click()
    assert settled(page)["look"] == "vat:V0"
    told = resolved(asked, "vat", "V0")
    found = page.locator("#found")
    assert found.get_attribute("data-metakey") == told["metakey"] and found.get_attribute("data-leaf") == told["leaf"]
    assert found.get_attribute("data-keys").split("\n") == told["keys"] == ["code:N1", "name:North & Sons", "vat:V0"]
    links = page.locator("#found .links li").all()
    assert len(links) == len(told["links"]) > 0 and "an event named both" in links[0].inner_text()
    page.locator("#found .links button").first.click()
    settled(page)
    assert "open-N1" in page.locator("#event[open] #raw").text_content()
    page.keyboard.press("Escape")
    settled(page)
    assert page.locator("dialog[open]").count() == 0 and page.said == []


def test_the_past_knows_what_was_decided_by_then(page: Any, decided: Shops) -> None:
    """After a merge two keys are one thing now and as corrected, and still two as shown before it."""
    told = decided.site.call(
        "POST", "/v1/identity/link", b'{"keys": ["code:N1", "name:South Ltd"]}', Content_Type="application/json"
    )
    assert told.status == 202
    for question, same in ((NOW, True), ({**THEN, "basis": "corrected"}, True), (THEN, False)):
        opened(page, decided, **question, look="code:N1")
        keys = page.locator("#found").get_attribute("data-keys").split("\n")
        assert ("code:S1" in keys) is same, question
        at = {"at": question["at"]} if question is THEN else {}
        assert keys == resolved(decided, "code", "N1", **at)["keys"]


def test_a_merge_is_seen_before_it_is_made_and_can_be_taken_back(page: Any, decided: Shops) -> None:
    """The button waits for the effect of just these keys; then the numbers are those that were foreseen; and back."""
    before = decided.get("/v1/metrics/uses/value")["value"]
    opened(page, decided, look="code:N1")
    act = page.locator("#decide-act")
    assert act.is_disabled()
    page.locator("#decide-keys").fill("code:N1\ncode:S1")
    assert act.is_disabled()
    page.locator("#decide-look").click()
    question = settled(page)
    assert (question["do"], question["keys"]) == ("link", "code:N1\ncode:S1")
    assert names(page, "before") == ["North & Sons", "South Ltd"] and names(page, "after") == ["North & Sons"]
    foreseen = page.locator("#effect-after [data-metric=uses]").get_attribute("data-value")
    assert decided.worker.sent == [] and act.is_enabled()
    page.locator("#decide-keys").fill("code:N1\ncode:W1")
    assert act.is_disabled(), "another pair than the one whose effect is shown"
    page.locator("#decide-keys").fill("code:N1\ncode:S1")
    page.locator("#decide-by").fill("ann")
    act.click()
    page.locator("#decided").wait_for(timeout=WAIT_MS)
    settled(page)
    assert len(decided.worker.sent) == 1 and act.is_disabled()
    one, other = (resolved(decided, "code", code) for code in ("N1", "S1"))
    assert one["metakey"] == other["metakey"] == page.locator("#found").get_attribute("data-metakey")
    assert [link["by"] for link in other["links"] if link["how"] == "by hand"] == ["ann"]
    assert str(decided.get("/v1/metrics/uses/value", company="code:N1")["value"]) == foreseen
    page.locator("#decide-back").click()
    assert settled(page)["do"] == "unlink"
    assert names(page, "before") == ["North & Sons"] and sorted(names(page, "after")) == ["North & Sons", "South Ltd"]
    act.click()
    page.locator("#decided[data-what=unlink]").wait_for(timeout=WAIT_MS)
    assert resolved(decided, "code", "N1")["metakey"] != resolved(decided, "code", "S1")["metakey"]
    assert decided.get("/v1/metrics/uses/value")["value"] == before
    assert page.said == []


def test_what_is_refused_is_explained_and_not_offered(page: Any, asked: Shops) -> None:
    """A key that nobody named has a guess; a decision that changes nothing or that has one key has no button."""
    opened(page, asked, do="link", keys="code:N1\ncode:S")
    told = page.locator("#effect .refusal").inner_text()
    assert "no event has named company code 'S'" in told and "code:S1" in told
    assert page.locator("#decide-act").is_disabled()
    opened(page, asked, do="link", keys="code:N1\nvat:V0")
    assert page.locator("#no-effect").is_visible() and page.locator("#decide-act").is_disabled()
    opened(page, asked, do="link", keys="code:N1")
    assert "2 to 1000 different ones" in page.locator("#effect .refusal").inner_text()
    opened(page, asked, look="no-colon")
    assert "This is no key" in page.locator("#thing").inner_text()
    assert asked.worker.sent == []


def test_what_waits_for_review_can_be_joined(page: Any, decided: Shops) -> None:
    """The refused link is listed with its reason and its event; joining it is seen first, and then it waits no more."""
    opened(page, decided)
    (waiting,) = decided.get("/v1/identity/review")["review"]
    row = page.locator("#review li")
    assert row.get_attribute("data-why") == waiting["why"] == "unique"
    assert waiting["means"] in row.inner_text() and waiting["record"] in row.inner_text()
    row.get_by_role("button", name="See what joining").click()
    settled(page)
    assert sorted(names(page, "before")) == ["North & Sons", "South Ltd"]
    page.locator("#decide-act").click()
    page.locator("#decided").wait_for(timeout=WAIT_MS)
    page.locator("#review-empty").wait_for(timeout=WAIT_MS)
    assert decided.get("/v1/identity/review")["review"] == []


def test_a_foreign_page_cannot_decide(page: Any, decided: Shops) -> None:
    """A POST of another origin is refused before it is read, so that it can do nothing even in this browser."""
    answer = decided.site.call(
        "POST", "/v1/identity/link", b'{"keys": ["code:N1", "code:S1"]}',
        Content_Type="application/json", Origin="http://elsewhere.example", Host=f"127.0.0.1:{decided.site.port}",
    )  # fmt: skip
    assert answer.status == 403 and decided.worker.sent == []


def test_what_was_refused_for_want_of_a_token_is_asked_again_as_it_was(page: Any, decided: Shops) -> None:
    """Behind the door the effect, which is posted, is there like every other answer, and nothing was decided by it."""
    text = token(decided.worker.book, *Role)
    page.goto(f"{decided.url}/?{urlencode({**NOW, 'at': '2013-02-01T00:00:00Z', 'basis': 'corrected'})}")
    page.locator("#door input").fill(text, timeout=WAIT_MS)
    page.keyboard.press("Enter")
    page.locator("#review li").wait_for(timeout=WAIT_MS)
    page.context.clear_cookies()
    page.locator("#decide-keys").fill("code:N1\ncode:S1")
    page.locator("#decide-look").click()
    page.locator("#door input").fill(text, timeout=WAIT_MS)
    page.keyboard.press("Enter")
    page.locator("#effect-after").wait_for(timeout=WAIT_MS)
    assert names(page, "before") == ["North & Sons", "South Ltd"] and decided.worker.sent == []


def test_a_restoring_worker_is_waited_for(page: Any, decided: Shops) -> None:
    """While numbers cannot be had the page says so and offers nothing; then it goes on by itself."""
    decided.worker.reader.restoring = True
    page.goto(f"{decided.url}/?{urlencode({**NOW, 'do': 'link', 'keys': 'code:N1 code:S1'.replace(' ', chr(10))})}")
    page.locator("#status[data-state=restoring]").wait_for(timeout=WAIT_MS)
    assert page.locator("#decide-act").is_disabled() and page.locator("#effect > *").count() == 0
    decided.worker.reader.restoring = False
    settled(page)
    assert page.locator("#decide-act").is_enabled()


def test_names_that_are_markup_stay_text(page: Any, asked: Shops) -> None:
    """A shop's name, an address and a key that are markup run nowhere."""
    opened(page, asked, look="code:W1", do="link", keys="code:N1\ncode:W1")
    assert MARKUP in page.locator("#found h3").first.inner_text()
    assert MARKUP in names(page, "before")
    opened(page, asked, look=f"code:{MARKUP}", event=SCRIPT)
    assert page.locator("main img, main script").count() == 0 and page.title() != "owned"


def test_it_is_told_to_a_screen_reader(page: Any, asked: Shops) -> None:
    """Roles, names and states of the screen are those of the golden file; what is typed by key is reached by key."""
    opened(page, asked, look="code:N1", do="link", keys="code:N1\ncode:S1")
    goldens.same("identity", page.locator("#screen-identity"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(page: Any, asked: Shops, scheme: str) -> None:
    """Nothing is wider than 360 pixels."""
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    opened(page, asked, look="code:W1", do="link", keys="code:N1\ncode:W1")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
