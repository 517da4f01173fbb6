"""The demo: its bundle and events give the CSV's numbers, its account adds up, and a second start imports nothing."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from milepost.ops import demo
from milepost.ops.apply import apply_bundle, attempts, demo_bundle, in_force, plan_bundle
from milepost.ops.client import Client, Refused
from milepost.ops.demo_data import DemoData, read_demo
from milepost.ops.flights import ORG, import_order
from milepost.ops.imports import Imported
from milepost.ops.provision import provision
from milepost.ops.reader import plain_consumer, read_to_end
from milepost.ops.sender import Sender
from milepost.ops.settings import DEMO_SECRET, Settings
from milepost.schemas import stamps
from milepost.schemas.errors import BundleError, DeclarationError, StoreError
from milepost.schemas.keys import org_key
from milepost.topology import by_hand
from milepost.topology.catalog import load_bundle
from milepost.topology.driver import Driver
from milepost.topology.questions import Question, Questions
from milepost.topology.steps import run
from tests.support import flights_expected as other
from tests.support.demo import demo_of

NOW_MS = 1_760_000_000_000
AT_MS = 1_388_880_000_000  # 2014-01-05T00:00Z


@pytest.fixture(scope="module")
def week() -> DemoData:
    return read_demo(week=True)


def test_the_week_through_the_line_gives_the_csvs_numbers(week: DemoData) -> None:
    """The first week's events, driven through the legs under the demo's bundle, answer what polars computes."""
    driver = Driver(DEMO_SECRET.encode(), partitions=3, chunk=4_000)
    driver.apply(ORG, demo_bundle(), NOW_MS)
    for number in import_order(len(week), seed=1):
        event = week[number]
        driver.produce(orjson.loads(event.body()), NOW_MS, known_ms=event.k_ms)
    driver.run()
    assert driver.dead_letters == []
    questions = Questions(driver.reader)

    def numbers(company: str | None) -> dict[str, float | None]:
        asked = {
            name: Question(metric=name, now_ms=NOW_MS, company=company, at_ms=AT_MS, basis="corrected")
            for name in other.NUMBERS
        }
        return {name: demo.number(run(questions.value(question))) for name, question in asked.items()}

    expected = other.expected(other.first_week(other.read_csv()))
    assert numbers(None) == pytest.approx(expected.totals)
    for carrier, own in expected.by_company.items():
        assert numbers(f"carrier_code:{carrier}") == pytest.approx(own), carrier


def test_every_event_holds_under_its_contract(week: DemoData) -> None:
    """Each kind of event of the demo passes the contract that the demo's bundle, or the engine, has for its type."""
    sources = {**load_bundle(demo_bundle()).sources, by_hand.NAME: by_hand.SOURCE}
    types = set()
    for number in (*range(0, len(week), 7), *range(len(week) - week.closing, len(week))):
        event = week[number]
        sources[event.source].types[event.type].check(dict(event.data))
        types.add(event.type)
    assert types == {
        "flight.departed", "flight.cancelled", "flight.landed", "airline.listed", "aircraft.listed", "weather.observed",
        "milepost.source_complete",
    }  # fmt: skip


# --- definitions


@pytest.mark.broker
def test_apply_sends_the_bundle_then_a_sealed_marker_to_every_partition(provisioned: Settings) -> None:
    """`definitions` holds the files under the attempt; every raw partition holds one marker under a right MAC."""
    report = apply_bundle(provisioned, demo_bundle(), ORG)
    assert report.changed
    (attempt,) = attempts(provisioned)
    assert (attempt.org, attempt.bundle_id.hex(), attempt.attempt.hex()) == (ORG, report.bundle, report.attempt)
    assert attempt.files == demo_bundle()
    markers = list(records(provisioned))
    assert sorted(message.partition() for message in markers) == list(range(provisioned.partitions))
    for message in markers:
        assert message.key() == b"marker" + attempt.attempt
        assert message.value() == attempt.bundle_id + ORG.encode()
        sealed = stamps.find(message.headers())
        assert sealed is not None
        stamp = stamps.verified(org_key(provisioned.secret(), ""), message.key(), message.value(), sealed)
        assert stamp is not None
        assert stamp.kind == stamps.MARKER


@pytest.mark.broker
def test_a_bundle_in_force_is_not_applied_again(provisioned: Settings) -> None:
    """The same bundle once more changes nothing; another one does, and the first again does too."""
    first = apply_bundle(provisioned, demo_bundle(), ORG)
    assert not apply_bundle(provisioned, demo_bundle(), ORG).changed
    other_files = {**demo_bundle(), "milepost.yaml": demo_bundle()["milepost.yaml"] + b"\n# another\n"}
    assert apply_bundle(provisioned, other_files, ORG).changed
    again = apply_bundle(provisioned, demo_bundle(), ORG)
    assert (again.changed, again.bundle) == (True, first.bundle)
    assert again.attempt != first.attempt
    assert apply_bundle(provisioned, demo_of("another-org"), "another-org").changed


@pytest.mark.broker
def test_a_plan_says_what_would_change(provisioned: Settings) -> None:
    """Against nothing all is added; against the bundle in force only what differs, and nothing is sent."""
    fresh = plan_bundle(provisioned, demo_bundle(), ORG)
    assert fresh.current == ""
    assert {change.how for change in fresh.changes} == {"added"}
    assert fresh.uncompiled == ()
    assert list(attempts(provisioned)) == []
    apply_bundle(provisioned, demo_bundle(), ORG)
    assert plan_bundle(provisioned, demo_bundle(), ORG).changes == ()
    text = demo_bundle()["milepost.yaml"].replace(b"<= 15.0", b"<= 30.0")
    changes = plan_bundle(provisioned, {**demo_bundle(), "milepost.yaml": text}, ORG).changes
    assert {(change.what, change.name, change.how) for change in changes} == {
        ("signal", "departed_on_time", "changed"),
        ("metric", "on_time_departures", "changed"),
        ("metric", "on_time_rate", "changed"),
        ("milestone", "punctual_month", "changed"),
        ("plan", "on_time_2013", "changed"),
    }
    text = demo_bundle()["milepost.yaml"].replace(b"data.dep_delay <= 15.0", b"data.dest.matches('^(I|A)*H$')")
    (slow,) = plan_bundle(provisioned, {**demo_bundle(), "milepost.yaml": text}, ORG).uncompiled
    assert (slow.rule, slow.place) == ("departed_on_time", "when")


@pytest.mark.broker
def test_a_bundle_that_does_not_validate_sends_nothing(provisioned: Settings, tmp_path: Path) -> None:
    """Broken definitions are refused with their place, and the log stays as it was."""
    broken = {**demo_bundle(), "milepost.yaml": b"signals: {departed: {on: no.such.type}}\n"}
    with pytest.raises(BundleError):
        apply_bundle(provisioned, broken, ORG)
    with pytest.raises(DeclarationError, match=r"holds no milepost\.yaml"):
        apply_bundle(provisioned, tmp_path, ORG)
    assert list(attempts(provisioned)) == []
    assert list(records(provisioned)) == []


@pytest.mark.broker
def test_garbage_in_definitions_decides_nothing(provisioned: Settings) -> None:
    """Bytes that are no bundle are passed over."""
    with Sender(provisioned.bootstrap) as sender:
        sender.send(provisioned.topic("definitions"), 0, b"garbage", b"\xc3\x01garbage")
        sender.send(provisioned.topic("definitions"), 0, b"tombstone", None)
    assert in_force(provisioned, ORG) is None
    assert apply_bundle(provisioned, demo_bundle(), ORG).changed


# --- what is said


def test_the_account_adds_up() -> None:
    """What was read is what was accepted, repeated, dropped, dead, or the engine's own copy."""
    imported = Imported(events=100, held=0, sent=105, seconds=1.0)
    fates = {
        "ingest": {"read": 110, "accepted": 98, "duplicate": 5, "copy": 5, "dead:missing_key": 2, "no_rule": 40},
        "measure": {"dead_pair:out_of_range": 1},
    }
    assert demo.account(imported, fates) == {
        "sent": 105,
        "read": 110,
        "accepted": 98,
        "duplicates": 5,
        "dead_letters": 3,
        "drops": {"no_rule": 40},
    }


def test_the_weather_is_no_airlines() -> None:
    """The metrics whose events name no company are those of the weather; they are told by airport."""
    assert demo.nobodys_metrics() == {
        "visibility_min", "visibility_avg", "wind_speed_max", "wind_speed_avg", "precipitation",
    }  # fmt: skip


def test_the_summary_is_the_json_of_the_interface() -> None:
    """The JSON has the fields that are promised, and the table names airlines and page."""
    summary = demo.Summary(
        totals={"departures": 3, "on_time_rate": 0.5, "cancellations": None},
        by_company={"UA": {"departures": 3, "on_time_rate": 0.5, "cancellations": None}},
        events={"sent": 3, "read": 3, "accepted": 3, "duplicates": 0, "dead_letters": 0, "drops": {}},
        seconds=1.5,
        events_per_s=2.0,
        page="http://127.0.0.1:6066/",
        digest="ab",
        names={"UA": "United Air Lines Inc."},
        by_place={"JFK": {"visibility_min": 0.25, "precipitation": None}},
        milestones={
            "never_idle": {
                "UA": {"state": "lapsed", "achieved_at": None, "lapsed": 3},
                "AA": {"state": "achieved", "achieved_at": "2013-12-31T11:00:00Z", "lapsed": 2},
            }
        },
        complete_to="2014-01-05T00:00:00Z",
        finality={"departures": "final"},
    )
    assert list(summary.as_json()) == [
        "totals", "by_company", "events", "seconds", "events_per_s", "page", "digest", "by_place", "milestones",
        "complete_to", "finality",
    ]  # fmt: skip
    assert json.loads(json.dumps(summary.as_json())) == summary.as_json()
    shown = demo.table(summary)
    for text in ("United Air Lines", summary.page, "JFK", "0.250", "achieved 1, lapsed 1", "2014-01-05T00:00:00Z"):
        assert text in shown


def test_the_demo_keeps_its_public_secret_in_the_home(tmp_path: Path) -> None:
    """A home without a secret gets the demo's; one that has another keeps it."""
    settings = Settings(home=tmp_path / "home")
    assert demo.with_demo_secret(settings, silent).secret() == DEMO_SECRET.encode()
    assert settings.secret() == DEMO_SECRET.encode()
    assert settings.secret_file.stat().st_mode & 0o777 == 0o600
    assert demo.with_demo_secret(settings, silent).secret() == DEMO_SECRET.encode()
    settings.secret_file.write_text("a secret of the owner's own")
    assert demo.with_demo_secret(settings, silent).secret() == b"a secret of the owner's own"
    own = replace(settings, secret_text="another secret of the owner's")
    assert demo.with_demo_secret(own, silent) is own


# --- the client


class Answers(http.server.BaseHTTPRequestHandler):
    """A worker that restores at first, and knows one metric."""

    protocol_version = "HTTP/1.1"
    restoring = 2
    places: list[tuple[int, int, int]] = []  # noqa: RUF012 -- a test sets it before it asks
    complete_to: list[str | None] = []  # noqa: RUF012 -- the same

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if Answers.restoring:
            Answers.restoring -= 1
            self.answer(503, {"title": "restoring", "detail": "partition 0 is restored"}, {"Retry-After": "0"})
        elif path == "/v1/status":
            here = Answers.places.pop(0) if len(Answers.places) > 1 else Answers.places[0]
            legs = {name: {"next_offset": {"0": place}} for name, place in zip(demo.READS, here, strict=True)}
            self.answer(200, {"legs": legs, "fates": {}, "ready": True})
        elif path == "/v1/metrics":
            self.answer(200, {"metrics": [{"name": "departures"}]})
        elif path == "/v1/metrics/departures/value":
            complete_to = Answers.complete_to.pop(0) if Answers.complete_to else None
            self.answer(200, {"value": 3, "asked": self.path, "complete_to": complete_to})
        else:
            self.answer(404, {"title": "unknown metric", "detail": "no metric departurs; did you mean departures?"})

    def answer(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def url() -> Iterator[str]:
    Answers.restoring = 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_restoring_worker_is_waited_for(url: str) -> None:
    """503 is asked again; parameters that are None are left out."""
    Answers.restoring = 2
    with Client(url) as client:
        answer = client.value("departures", company="carrier_code:UA", at=None)
    assert answer["asked"] == "/v1/metrics/departures/value?company=carrier_code%3AUA"
    Answers.restoring = 1_000_000
    with Client(url, patience_s=0.2) as client, pytest.raises(StoreError, match="partition 0 is restored"):
        client.value("departures")


def test_a_refusal_carries_the_problem(url: str) -> None:
    """A 4xx raises with the worker's words."""
    with Client(url) as client, pytest.raises(Refused, match="did you mean departures") as caught:
        client.value("departurs")
    assert caught.value.status == 404


def test_nobody_there_is_said_within_patience() -> None:
    """A worker that never answers is a StoreError that names it."""
    with Client("http://127.0.0.1:1", patience_s=0.2) as client, pytest.raises(StoreError, match=r"127\.0\.0\.1:1"):
        client.get("/v1/status")


def test_the_demo_waits_until_all_legs_have_reached_their_ends(url: str) -> None:
    """The end of the wait is what the broker says, not what the worker thinks; one that stands still is an error."""
    ends = {"raw-events": {0: 9}, "signals": {0: 4}, "record-changes": {0: 1}}
    Answers.places = [(7, 0, 0), (9, 0, 0), (9, 2, 0), (9, 4, 0), (9, 4, 1), (10, 5, 2)]
    with Client(url) as client:
        status = demo.settle(client, ends.__getitem__, say=silent)
        assert [leg["next_offset"]["0"] for leg in status["legs"].values()] == [9, 4, 1]
        Answers.places = [(5, 0, 0)]
        with pytest.raises(StoreError, match="4 records are waiting"):
            demo.settle(client, ends.__getitem__, say=silent, still_s_max=0.3)


def test_the_demo_waits_until_the_sources_are_complete(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was said of the sources reaches the answers by a way of its own; where it never does, the demo says so."""
    with Client(url) as client:
        Answers.complete_to = [None, "2014-01-01T05:00:00Z", demo.AT, "never asked"]
        demo.follow(client)
        assert Answers.complete_to == ["never asked"]
        monkeypatch.setattr(demo, "FOLLOWED_S_MAX", 0.2)
        Answers.complete_to = []
        with pytest.raises(StoreError, match=r"departures are complete to 2014-01-05T00:00:00Z, .* says nothing"):
            demo.follow(client)


@pytest.fixture
def provisioned(settings: Settings) -> Settings:
    provision(settings)
    return settings


def records(settings: Settings) -> Iterator[Any]:
    consumer = plain_consumer(settings.bootstrap)
    try:
        yield from read_to_end(consumer, settings.topic("raw-events"), settings.partitions)
    finally:
        consumer.close()


def silent(_line: str) -> None:
    """Progress for nobody."""
