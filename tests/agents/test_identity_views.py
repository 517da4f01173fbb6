"""Decisions about identity over HTTP and as commands: two airlines merged and taken apart again.

The driver stands for the broker and the line: what the views append is handed to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from milepost.ops import cli
from milepost.ops.settings import Settings
from milepost.topology.driver import Driver
from tests.agents.test_views import NOW, Answer, Site, Tables, Worker, filled, served

HOUR = 3_600_000
METRICS = ("departures", "on_time_rate", "departure_delay_max", "aircraft_in_service")


class Airport:
    """A site over a driver that takes what is appended."""

    def __init__(self, site: Site, driver: Driver) -> None:
        self.site, self.driver, self.now = site, driver, NOW

    def decide(self, what: str, **body: Any) -> Answer:
        answer = self.site.call(
            "POST", f"/v1/identity/{what}", json.dumps(body).encode(), Content_Type="application/json"
        )
        self.take()
        return answer

    def take(self) -> None:
        """The broker's part: each record an hour later than the one before."""
        for one in self.site.worker.sent:
            self.now += HOUR
            self.driver.append(one.topic, one.partition, one.key, one.value, one.headers, self.now)
        self.site.worker.sent.clear()
        self.driver.run()

    def answers(self, *companies: str, **asked: str) -> list[Any]:
        return [
            self.site.get(f"/v1/metrics/{metric}/value", company=company, **asked).json["value"]
            for company in companies
            for metric in METRICS
        ]


@pytest.fixture
def airport(tmp_path: Path) -> Iterator[Airport]:
    driver = filled()
    for site in served(Worker(Settings(home=tmp_path), Tables(driver.reader))):
        yield Airport(site, driver)


UA, AA = "airline_name:United Air Lines Inc.", "carrier_code:AA"


def test_two_airlines_are_merged_by_hand_and_taken_apart(airport: Airport) -> None:
    """Every answer adds up while they are one; after the unlink every answer is as before, and a flight received in
    between is on its own side."""
    before = airport.answers(UA, AA)
    told = airport.decide("link", keys=[UA, AA], by="ann")
    assert told.status == 202 and told.json["receipt"].startswith("raw-events/") and told.json["status"] == "accepted"
    merged = airport.answers(UA)
    assert merged == airport.answers(AA) and merged[0] == before[0] + before[4] == 240
    rows = airport.site.get("/v1/metrics/departures/breakdown", by="company").json["rows"]
    assert [row["value"] for row in rows] == [240]
    code = "AA" if rows[0]["label"].startswith("United") else "UA"
    resolved = airport.site.get("/v1/identity/resolve", key="carrier_code", value=code).json
    assert resolved["metakey"] == rows[0]["key"] != resolved["leaf"]
    assert {one["how"] for one in resolved["links"]} == {"by hand", "proposed"}
    assert [one["by"] for one in resolved["links"] if one["how"] == "by hand"] == ["ann"]
    event = {"org": "port-authority", "source": "flights", "id": "between", "type": "flight.departed",
             "time": "2013-01-05T05:30:00Z", "data": {"carrier": "AA", "flight": 1, "tailnum": "N99", "origin": "JFK",
             "dest": "MIA", "dep_delay": 500.0, "distance": 1.0}}  # fmt: skip
    airport.driver.produce(event, airport.now)
    airport.driver.run()
    assert airport.answers(UA)[0] == 241
    assert airport.decide("unlink", keys=[AA, "airline_name:American Airlines Inc."]).status == 202
    assert airport.answers(UA) == before[:4]
    assert airport.answers(AA)[0] == before[4] + 1 and airport.answers(AA)[2] == 500


def test_a_dry_run_appends_nothing(airport: Airport) -> None:
    """It names what would become one thing and how the metrics would read; the log stays as it is."""
    body = json.dumps({"keys": [UA, AA]}).encode()
    told = airport.site.call("POST", "/v1/identity/link?dry_run=true", body, Content_Type="application/json")
    assert told.status == 200 and told.json["dry_run"] and airport.site.worker.sent == []
    assert [one["metrics"]["departures"] for one in told.json["before"]] == [120, 120]
    assert [one["metrics"]["departures"] for one in told.json["after"]] == [240]


@pytest.mark.parametrize(
    ("what", "body", "status", "guess"),
    [
        ("link", {"keys": ["carier_code:UA", AA]}, 404, "carrier_code:UA"),
        ("link", {"keys": ["carrier_code:UAA", AA]}, 404, "carrier_code:UA"),
        ("link", {"keys": [AA]}, 422, None),
        ("link", {"key": [AA]}, 422, None),
        ("link", {"keys": [UA, AA], "by": "x" * 300}, 422, None),
        ("unlink", {"keys": [AA], "entity": "compny"}, 404, "company"),
        ("link?dry_run=perhaps", {"keys": [UA, AA]}, 422, None),
        ("link", {"keys": [UA, AA], "org": "port-authorty"}, 404, "port-authority"),
        ("membership", {"member": AA, "company": UA, "entity": "company"}, 422, None),
        ("membership", {"member": "tailnum:N1", "company": UA, "entity": "device", "from": "now"}, 422, None),
    ],
)
def test_a_decision_that_cannot_be_is_a_problem(
    airport: Airport, what: str, body: dict[str, Any], status: int, guess: str | None
) -> None:
    """Nothing is appended, and the answer says what was probably meant, or how it is done."""
    told = airport.decide(what, **body)
    assert (told.status, told.json.get("guess")) == (status, guess)
    assert airport.now == NOW


def test_the_commands_decide_and_explain(airport: Airport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`milepost identity` links, resolves, reviews and takes apart."""
    monkeypatch.setenv("MILEPOST_PORT", str(airport.site.port))
    monkeypatch.setenv("MILEPOST_HOME", str(tmp_path))

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(cli.app, ["identity", *arguments])
        assert result.exit_code == 0, result.output
        airport.take()
        return result.stdout

    assert "departures 240" in run("link", UA, AA, "--dry-run")
    assert "accepted as raw-events/" in run("link", UA, AA, "--by", "ann")
    assert "by hand by ann" in run("resolve", AA) + run("resolve", UA)
    assert run("review").strip() == "nothing waits for a decision"
    assert "before:" in run("unlink", AA, "--dry-run") and airport.answers(AA)[0] == 240
    assert json.loads(run("unlink", AA, "--json"))["type"] == "milepost.unlink"
    assert airport.answers(AA)[0] == 120
    member = run("membership", "tailnum:N1", AA, "--entity", "device", "--from", "2013-01-01T00:00:00Z", "--json")
    assert json.loads(member)["status"] == "accepted"
    assert CliRunner().invoke(cli.app, ["identity", "link", "carrier_code:QQ", AA]).exit_code == cli.REFUSED


@pytest.mark.parametrize("what", ["link", "unlink", "membership"])
@pytest.mark.parametrize("body, kind, status", [
    (b'{"keys": ["carrier_code:\xff"]}', "application/json", 422), (b"[" * 100_000, "application/json", 422),
    (b'{"keys": []}', "text/plain", 415), (b" " * (1024 * 1024 + 1), "application/json", 413),
])  # fmt: skip
def test_a_body_that_cannot_be_read_is_a_problem(
    airport: Airport, what: str, body: bytes, kind: str, status: int
) -> None:
    """Not UTF-8, nested too deep, of another content type or too large: a problem with its fix, and nothing is sent."""
    got = airport.site.call("POST", f"/v1/identity/{what}", body, Content_Type=kind)
    assert got.status == status and got.json["status"] == status and got.json["fix"]
    assert not airport.site.worker.sent
