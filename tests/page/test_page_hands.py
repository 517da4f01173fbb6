"""The page under a person's hands: keys, drags, typing, links; with a stub where the worker is, whose calls are seen."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

import pytest

from tests.page.stub import COMPANIES, CORRECTED, END, START, Stub, metakey, running, text

pytestmark = pytest.mark.page

WAIT_MS = 20_000
FEBRUARY = "metric=departures&at=2013-02-01T00:00:00Z&basis=corrected&tz=UTC"


@pytest.fixture
def stub() -> Iterator[Stub]:
    """The stub, serving on a port of its own."""
    with running() as made:
        yield made


def settled(page: Any) -> dict[str, str]:
    """Wait until the numbers answer the address; returns the question."""
    page.wait_for_function(
        """() => { const s = document.getElementById('status');
        return s.dataset.state === 'ready' && '?' + s.dataset.question === location.search; }""",
        timeout=WAIT_MS,
    )
    return dict(parse_qsl(urlsplit(page.url).query))


def moved(page: Any, before: str) -> dict[str, str]:
    """Wait until the address is another, and answered."""
    page.wait_for_function("before => location.href !== before", arg=before, timeout=WAIT_MS)
    return settled(page)


def test_a_bare_metric_screen_is_filled_in(page: Any, stub: Stub) -> None:
    """Opening the screen asks the first metric, live, and the address then says everything that another reader needs."""
    page.goto(f"{stub.url}/?screen=metric")
    assert settled(page) == {"metric": "departures", "basis": "latest", "window": "all", "tz": "UTC"}
    assert page.locator("#mode").inner_text().strip() == "live"
    assert "at" not in stub.asked("/value")[-1]
    assert page.said == []


def test_latest_and_a_moment_are_never_asked_together(page: Any, stub: Stub) -> None:
    """Switching to latest drops the moment, and switching back returns to it."""
    page.goto(f"{stub.url}/?{FEBRUARY}")
    settled(page)
    before = page.url
    page.locator("#basis input[value=latest]").check(force=True)
    assert "at" not in moved(page, before)
    before = page.url
    page.locator("#basis input[value=as_shown]").check(force=True)
    question = moved(page, before)
    assert (question["basis"], question["at"]) == ("as_shown", "2013-02-01T00:00:00Z")
    assert not [call for call in stub.asked("/value") if call["basis"] == "latest" and "at" in call]


def test_keys_move_the_slider_by_a_quarter_hour_a_day_a_week(page: Any, stub: Stub) -> None:
    """An arrow is 15 minutes, with shift a day; page keys a week."""
    page.goto(f"{stub.url}/?{FEBRUARY}")
    settled(page)
    at = datetime(2013, 2, 1, tzinfo=UTC)
    page.locator("#at").focus()
    for key, step in (
        ("ArrowLeft", timedelta(minutes=-15)),
        ("Shift+ArrowRight", timedelta(days=1)),
        ("PageDown", timedelta(days=-7)),
    ):
        before = page.url
        page.keyboard.press(key)
        at += step
        assert moved(page, before)["at"] == text(at)


def test_a_drag_lands_on_a_round_time_and_is_one_step_back(page: Any, stub: Stub) -> None:
    """However long a drag is, it ends at a whole hour, and the back button undoes it whole."""
    page.goto(f"{stub.url}/?screen=metric")
    settled(page)
    before = page.url
    box = page.locator("#at").bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] - 10, y)
    page.mouse.down()
    for part in (0.9, 0.8, 0.7, 0.6, 0.5):
        page.mouse.move(box["x"] + box["width"] * part, y)
        page.wait_for_timeout(60)
    page.mouse.up()
    question = moved(page, before)
    at = datetime.fromisoformat(question["at"])
    assert question["basis"] == "corrected"
    assert at.minute == 0 and abs(at - (START + (END - START) / 2)) < timedelta(days=1)
    page.go_back()
    page.wait_for_function("before => location.href === before", arg=before, timeout=WAIT_MS)
    assert settled(page)["basis"] == "latest"


def test_the_chart_marks_the_point_corrected(page: Any, stub: Stub) -> None:
    """The chart marks the point corrected: of all points one wears a ring in that colour, and its row and words say so."""
    page.goto(f"{stub.url}/?metric=departure_delay_avg&basis=latest&tz=UTC&window=all")
    settled(page)
    page.wait_for_function("() => document.getElementById('chart').dataset.corrected === '1'", timeout=WAIT_MS)
    row = page.locator("#points tr[data-finality=corrected]")
    assert row.count() == 1 and "changed after it was settled" in row.get_attribute("title")
    assert row.get_attribute("data-start") <= text(CORRECTED)
    box, points = page.locator("#chart .u-over").bounding_box(), page.locator("#points tr").count()
    place = page.evaluate(
        "() => [...document.querySelectorAll('#points tr')].findIndex((r) => r.dataset.finality === 'corrected')"
    )
    page.mouse.move(box["x"] + box["width"] * (place + 0.5) / points, box["y"] + box["height"] / 2)
    page.wait_for_function(
        "() => document.getElementById('readout').textContent.includes('changed after it was settled')", timeout=WAIT_MS
    )
    ringed = page.evaluate(
        """() => { const canvas = document.querySelector('#chart canvas'), context = canvas.getContext('2d');
        const probe = document.createElement('i'); probe.style.color = 'var(--corrected)'; document.body.append(probe);
        const [r, g, b] = getComputedStyle(probe).color.match(/\\d+/g).map(Number); probe.remove();
        const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
        let found = 0;
        for (let i = 0; i < data.length; i += 4) if (data[i] === r && data[i + 1] === g && data[i + 2] === b) found += 1;
        return found; }"""
    )
    assert ringed > 4


def test_a_typed_moment_is_read_in_the_chosen_zone(page: Any, stub: Stub) -> None:
    """`2013-02-10 07:00` in New York is 12:00 in UTC; what is no moment is told beside the field and asks nothing."""
    page.goto(f"{stub.url}/?metric=departures&basis=latest&tz=America/New_York")
    settled(page)
    before = page.url
    field = page.locator("#at-text")
    field.fill("2013-02-10 07:00")
    field.press("Enter")
    assert moved(page, before)["at"] == "2013-02-10T12:00:00Z"
    assert "10 Feb 2013, 07:00" in page.locator("#mode").inner_text()
    asked, before = len(stub.asked("/value")), page.url
    field.fill("2013-02-30 07:00")
    field.press("Enter")
    assert page.locator("#at-error").is_visible() and field.get_attribute("aria-invalid") == "true"
    assert page.url == before and len(stub.asked("/value")) == asked


def test_a_company_is_found_and_chosen_by_keys_alone(page: Any, stub: Stub) -> None:
    """Typing a code and Enter chooses that company; arrows in the list and Enter choose another."""
    page.goto(f"{stub.url}/?{FEBRUARY}")
    settled(page)
    before = page.url
    page.locator("#search").fill("ua")
    assert page.locator("#company li").count() == 1
    page.locator("#search").press("Enter")
    assert moved(page, before)["company"] == metakey("UA")
    assert COMPANIES["UA"] in page.locator("#answer-title").inner_text()
    before = page.url
    page.locator("#company").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert moved(page, before)["company"] == metakey("AA")
    assert page.locator("#company [aria-selected=true]").count() == 1


def test_a_company_by_its_key_is_the_company_of_the_list(page: Any, stub: Stub) -> None:
    """A link with `carrier_code:UA` selects United in the list and keeps the link as it was."""
    page.goto(f"{stub.url}/?company=carrier_code:UA&{FEBRUARY}")
    assert settled(page)["company"] == "carrier_code:UA"
    assert page.locator("#company [aria-selected=true]").get_attribute("data-metakey") == metakey("UA")
    assert page.locator("#by").input_value() == "origin"


def test_a_row_of_the_breakdown_leads_to_its_company(page: Any, stub: Stub) -> None:
    """The rows are sorted by value, fold beyond 25, and a company's row is the way to it."""
    page.goto(f"{stub.url}/?{FEBRUARY}")
    settled(page)
    rows = page.locator("#breakdown tr")
    values = [int(row.get_attribute("data-value")) for row in rows.all()]
    assert len(values) == len(COMPANIES) and values == sorted(values, reverse=True)
    before = page.url
    rows.first.locator("button:not([data-opens])").click()  # its number opens the explanation
    assert moved(page, before)["company"] in {metakey(code) for code in COMPANIES}
    before = page.url
    page.locator("#by").select_option("dest")
    moved(page, before)
    assert rows.count() == 25
    page.locator("#breakdown-more").click()
    assert rows.count() == 60


def test_what_no_company_has_is_broken_down_by_its_dimension(page: Any, stub: Stub) -> None:
    """The weather at an airport: without a choice its rows are the airports', and who chooses companies is told of none."""
    stub.nobodys = "departure_delay_max"
    page.goto(f"{stub.url}/?{FEBRUARY.replace('departures', 'departure_delay_max')}")
    settled(page)
    rows = page.locator("#breakdown tr")
    assert {row.get_attribute("data-key") for row in rows.all()} == {"EWR", "JFK", "LGA"}
    assert rows.count() == 3 and page.locator("#by").input_value() == "origin"
    before = page.url
    page.locator("#by").select_option("company")
    assert moved(page, before)["by"] == "company"
    assert rows.count() == 0
    assert page.locator("#breakdown-note").text_content() == "No company has values in this window."
    before = page.url
    page.locator("#metric").select_option("departures")
    assert moved(page, before)["metric"] == "departures"
    assert rows.count() == len(COMPANIES)


def test_the_chart_asks_for_the_windows_time(page: Any, stub: Stub) -> None:
    """The points are days of the zone for weeks and hours for a day, and none is asked beyond the moment."""
    page.goto(f"{stub.url}/?metric=departures&at=2013-02-10T12:00:00Z&basis=corrected&tz=America/New_York&window=28d")
    settled(page)
    call = stub.asked("/series")[-1]
    assert (call["every"], call["to"]) == ("1d", "2013-02-10T12:00:00Z")
    assert datetime.fromisoformat(call["from"]).astimezone(ZoneInfo("America/New_York")).hour == 0
    assert int(page.locator("#chart").get_attribute("data-points")) == page.locator("#points tr").count() == 29
    before = page.url
    page.locator("#window").select_option("day")
    moved(page, before)
    call = stub.asked("/series")[-1]
    assert (call["every"], call["from"]) == ("1h", "2013-02-10T05:00:00Z")


def test_live_asks_again_and_the_past_does_not(page: Any, stub: Stub) -> None:
    """While live, the numbers are asked again every few seconds; a moment of the past is asked once."""
    page.goto(f"{stub.url}/?screen=metric")
    settled(page)
    page.wait_for_timeout(6_000)
    assert len(stub.asked("/value")) == 2
    page.goto(f"{stub.url}/?{FEBRUARY}")
    settled(page)
    asked = len(stub.asked("/value"))
    page.wait_for_timeout(6_000)
    assert len(stub.asked("/value")) == asked


def test_live_shows_a_change_at_once(page: Any, stub: Stub) -> None:
    """When the worker says that the value has changed, all answers are asked again; a moment of the past is not followed."""
    page.goto(f"{stub.url}/?screen=metric")
    settled(page)
    page.wait_for_timeout(6_000)
    asked = len(stub.asked("/value"))
    stub.told += 1
    page.wait_for_timeout(500)
    assert len(stub.asked("/value")) == asked, "it was told what it shows"
    stub.null = "no_events"
    stub.told += 1
    page.locator('#value[data-reason="no_events"]').wait_for(state="attached", timeout=4_000)
    settled(page)
    assert len(stub.asked("/value")) == len(stub.asked("/breakdown")) == asked + 1
    assert stub.streams[-1]["metric"] == stub.asked("/value")[-1].get("metric", "departures")
    page.goto(f"{stub.url}/?{FEBRUARY}")
    settled(page)
    streams = len(stub.streams)
    page.wait_for_timeout(500)
    assert len(stub.streams) == streams == 1


def test_an_overtaken_answer_is_not_shown(page: Any, stub: Stub) -> None:
    """When the question changes while its answer is under way, the late answer is thrown away."""
    page.goto(f"{stub.url}/?{FEBRUARY}")
    settled(page)
    old = page.locator("#value").get_attribute("data-value")
    stub.hold_s = 0.6
    page.locator("#window").select_option("7d")
    assert page.locator("#status").get_attribute("data-state") == "loading"
    stub.hold_s = 0.0
    page.locator("#window").select_option("day")
    assert settled(page)["window"] == "day"
    day = page.locator("#value").get_attribute("data-value")
    page.wait_for_timeout(900)
    assert page.locator("#value").get_attribute("data-value") == day != old


def test_an_organisation_without_data_is_said_so(page: Any, stub: Stub) -> None:
    """Before the first definition there is no metric: the page says it, and fills itself when there is one."""
    stub.empty = True
    page.goto(f"{stub.url}/?screen=metric")
    page.locator("#status[data-state=empty]").wait_for(timeout=WAIT_MS)
    assert page.locator("#at").is_disabled() and page.locator("#notice").is_hidden()
    stub.empty = False
    assert settled(page)["metric"] == "departures"


@pytest.mark.parametrize(
    ("reason", "words"), [("no_events", "no events"), ("division_by_zero", "divides by zero"), ("made_up", "Made up")]
)
def test_each_reason_has_words(page: Any, stub: Stub, reason: str, words: str) -> None:
    """A null says its reason in words, and one that this page does not know in its own."""
    stub.null = reason
    page.goto(f"{stub.url}/?{FEBRUARY}")
    settled(page)
    assert words in page.locator("#reason").inner_text()
    assert page.locator("#value").inner_text() == "–" and page.locator("#unit").inner_text() == ""
    assert "no values" in page.locator("#chart-note").inner_text()


def test_a_lost_worker_is_waited_for_and_its_number_is_not_kept(page: Any, stub: Stub) -> None:
    """Without an answer no number stands on the page; when the worker is back, the page is too."""
    page.goto(f"{stub.url}/?{FEBRUARY}")
    settled(page)
    page.route("**/v1/**", lambda route: route.abort())
    page.locator("#window").select_option("7d")
    page.locator("#status[data-state=offline]").wait_for(timeout=WAIT_MS)
    assert page.locator("#value").get_attribute("data-value") == ""
    page.unroute("**/v1/**")
    assert settled(page)["window"] == "7d"
    assert page.locator("#value").get_attribute("data-value") != ""


def test_a_guess_is_taken_with_one_press(page: Any, stub: Stub) -> None:
    """A wrong metric is answered with the nearest one, a button away."""
    page.goto(f"{stub.url}/?metric=departurez&basis=latest&tz=UTC")
    page.locator("#notice-guess").click(timeout=WAIT_MS)
    assert settled(page)["metric"] == "departures"
    assert page.locator("#notice").is_hidden()


def test_what_the_address_says_wrongly_is_told(page: Any, stub: Stub) -> None:
    """A zone, basis or moment that does not exist is named, and the page shows the rest."""
    page.goto(f"{stub.url}/?metric=departures&tz=Mars/Olympus&basis=guessed&at=yesterday")
    assert settled(page)["tz"] == "UTC"
    told = page.locator("#notice").inner_text()
    assert "Mars/Olympus" in told and "guessed" in told and "yesterday" in told


def test_local_units_are_those_of_the_zone_tables(page: Any, stub: Stub) -> None:
    """Days, weeks, months and years of the page begin and end where zoneinfo says, over every change of clocks."""
    page.goto(f"{stub.url}/?screen=metric")
    settled(page)
    cases = []
    for zone in (
        "UTC",
        "America/New_York",
        "Europe/Berlin",
        "Asia/Kathmandu",
        "America/St_Johns",
        "Australia/Lord_Howe",
    ):
        tz = ZoneInfo(zone)
        for hours in range(0, 366 * 24, 67):
            at = datetime(2013, 1, 1, tzinfo=UTC) + timedelta(hours=hours)
            day = at.astimezone(tz).replace(hour=0, minute=0, second=0, fold=0)
            week = day - timedelta(days=day.weekday())
            month = day.replace(day=1)
            units = {
                "day": (day, day + timedelta(days=1)),
                "week": (week, week + timedelta(days=7)),
                "month": (month, (month + timedelta(days=32)).replace(day=1)),
                "year": (month.replace(month=1), month.replace(month=1, year=month.year + 1)),
            }
            for unit, bounds in units.items():
                cases.append([unit, at.timestamp() * 1000, zone, [int(b.timestamp() * 1000) for b in bounds]])
    wrong = page.evaluate(
        """async cases => { const { unitAround } = await import('/page/time.js');
        return cases.filter(([unit, at, zone, bounds]) => String(unitAround(unit, at, zone)) !== String(bounds)); }""",
        cases,
    )
    assert len(cases) > 2000 and wrong == []


def test_the_ticks_of_an_axis_are_told_apart(page: Any, stub: Stub) -> None:
    """An axis says its ticks with the digits they have, neither rounded into each other nor with noughts to spare."""
    page.goto(f"{stub.url}/?screen=metric")
    settled(page)
    written = page.evaluate(
        """async () => { const { axisNumbers } = await import('/page/words.js');
        return [axisNumbers([0.725, 0.75, 0.775], 'ratio'), axisNumbers([0, 500, 1000], 'flights'),
                axisNumbers([12, 12.5, 13], 'min'), axisNumbers([0, 0.5, 1], 'ratio'), axisNumbers([], 'min')]; }"""
    )
    assert written == [
        ["72.5%", "75.0%", "77.5%"],
        ["0", "500", "1K"],
        ["12.0", "12.5", "13.0"],
        ["0%", "50%", "100%"],
        [],
    ]


def test_a_local_time_that_is_skipped_or_repeated_has_one_instant(page: Any, stub: Stub) -> None:
    """02:30 on the day of the spring change is the instant it would have been; 01:30 in autumn is the first of two."""
    page.goto(f"{stub.url}/?screen=metric")
    settled(page)
    read = page.evaluate(
        """async () => { const { fromText, rfc3339 } = await import('/page/time.js');
        return ['2013-03-10 02:30', '2013-11-03 01:30', '2013-05-12T12:00:00+02:00', '2013-05-12', '12 May', '2013-13-01']
          .map(t => fromText(t, 'America/New_York')).map(ms => ms === null ? null : rfc3339(ms)); }"""
    )
    assert read == [
        "2013-03-10T07:30:00Z", "2013-11-03T05:30:00Z", "2013-05-12T10:00:00Z", "2013-05-12T04:00:00Z", None, None,
    ]  # fmt: skip
