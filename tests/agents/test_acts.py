"""What people say over HTTP and as commands: a source is complete, an action is done.

The driver stands for the broker and the line: what the views append is handed to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from milepost.ops import cli
from milepost.ops.settings import Settings
from milepost.topology.bases import written
from milepost.topology.driver import Driver
from milepost.topology.panes import PANE_MS
from tests.agents.test_views import Answer, Site, Tables, Worker, served
from tests.support.small import HOUR, ORG, SECRET, T0, visit
from tests.topology.test_standings import DEADLINE, NOW, START, text

KEPT = "/v1/plans/growth/milestones/kept/actions"


@dataclass
class Clock(Worker):
    """A worker with a clock that can be set."""

    now: int = field(default=NOW)

    def now_ms(self) -> int:
        return self.now


class Desk:
    """A site over a driver that takes what is appended, a second later."""

    def __init__(self, site: Site, driver: Driver, worker: Clock) -> None:
        self.site, self.driver, self.worker = site, driver, worker

    def say(self, path: str, **body: Any) -> Answer:
        answer = self.site.call("POST", path, json.dumps(body).encode(), Content_Type="application/json")
        self.take()
        return answer

    def take(self) -> None:
        for one in self.worker.sent:
            self.worker.now += 1_000
            self.driver.append(one.topic, one.partition, one.key, one.value, one.headers, self.worker.now)
        self.worker.sent.clear()
        self.worker.now += 1_000
        self.driver.tick(self.worker.now)
        self.driver.run()

    def states(self, **asked: str) -> dict[str, dict[str, Any]]:
        """Milestone -> its row, of the company `a`."""
        told = self.site.get("/v1/milestones", company="crm_id:a", **asked)
        assert told.status == 200, told.json
        return {row["milestone"]: row for row in told.json["milestones"]}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    driver = Driver(SECRET, partitions=2)
    driver.apply(ORG, text(), T0 - HOUR)
    driver.produce(visit("e", START, company="a"), START)
    driver.run()
    worker = Clock(Settings(home=tmp_path), Tables(driver.reader))
    for site in served(worker):
        yield Desk(site, driver, worker)


def test_a_source_is_said_to_be_complete(desk: Desk) -> None:
    """The answer is a receipt; what was not known is missed from then on."""
    assert desk.states()["busy"]["state"] == "unknown_stale"
    told = desk.say("/v1/sources/app/complete", until=written(DEADLINE), by="ann")
    assert told.status == 202 and told.json["type"] == "milepost.source_complete"
    assert told.json["receipt"].startswith("raw-events/")
    row = desk.states()["busy"]
    assert (row["state"], row["complete_to"]) == ("missed", written(DEADLINE))


def test_an_action_is_ticked_and_unticked(desk: Desk) -> None:
    """It holds from when it was done, says by whom, and a company is named by any key or its MetaKey."""
    at = START + HOUR
    told = desk.say(f"{KEPT}/review", company="crm_id:a", at=written(at), by="ann")
    assert told.status == 202 and told.json["type"] == "milepost.action"
    row = desk.states()["kept"]
    assert {"name": "review", "affects": True, "manual": "review held", "holds": True, "by": "ann",
            "since": written(at + PANE_MS)} in row["actions"]  # fmt: skip
    later = desk.say(f"{KEPT}/review", company=row["company"], done=False, at=written(at + HOUR), by="bob")
    assert later.status == 202
    (review,) = [one for one in desk.states()["kept"]["actions"] if one["name"] == "review"]
    assert (review["holds"], review["since"], review["by"]) == (False, None, "bob")
    back = {"id": later.json["id"], "revision": 1, "void": True}
    assert desk.say(f"{KEPT}/review", company="crm_id:a", done=False, at=written(at + HOUR), **back).status == 202
    assert [one["by"] for one in desk.states()["kept"]["actions"] if one["holds"]] == ["ann"]


@pytest.mark.parametrize(
    ("path", "body", "status", "guess"),
    [
        ("/v1/sources/ap/complete", {"until": written(START)}, 422, "app"),
        ("/v1/sources/app/complete", {"until": written(NOW + HOUR)}, 422, None),
        ("/v1/sources/app/complete", {"until": "1969-01-01T00:00:00Z"}, 422, None),
        ("/v1/sources/app/complete", {"untill": written(START)}, 422, None),
        ("/v1/sources/app/complete", {"until": written(START), "by": "x" * 300}, 422, None),
        ("/v1/sources/app/complete", {"until": written(START), "org": "acne"}, 404, "acme"),
        (f"{KEPT}/revew", {"company": "crm_id:a"}, 422, "review"),
        ("/v1/plans/growth/milestones/busy/actions/visits", {"company": "crm_id:a"}, 422, None),
        ("/v1/plans/growth/milestones/kep/actions/review", {"company": "crm_id:a"}, 422, "kept"),
        ("/v1/plans/grow/milestones/kept/actions/review", {"company": "crm_id:a"}, 422, "growth"),
        (f"{KEPT}/review", {"company": "crm_id:aa"}, 404, "crm_id:a"),
        (f"{KEPT}/review", {"company": "crm_id:a", "at": written(NOW + HOUR)}, 422, None),
        (f"{KEPT}/review", {"company": "crm_id:a", "at": "soon"}, 422, None),
        (f"{KEPT}/review", {"company": "crm_id:a", "don": False}, 422, None),
    ],
)
def test_what_cannot_be_said_is_a_problem(
    desk: Desk, path: str, body: dict[str, Any], status: int, guess: str | None
) -> None:
    """Nothing is appended, and the answer says what was probably meant, or how it is done."""
    told = desk.say(path, **body)
    assert (told.status, told.json.get("guess")) == (status, guess), told.json
    assert told.json["detail"] and desk.driver.fates["ingest"]["accepted"] == 1


def run(desk: Desk, *arguments: str) -> str:
    """What a command says; what it appends is taken."""
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    desk.take()
    return result.stdout


def test_the_commands_say_it(desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`milepost complete` says that a source is complete, and `milepost milestones` what comes of it."""
    monkeypatch.setenv("MILEPOST_PORT", str(desk.site.port))
    monkeypatch.setenv("MILEPOST_HOME", str(tmp_path))
    assert "unknown_stale" in run(desk, "milestones", "--milestone", "busy")
    assert "accepted as raw-events/" in run(desk, "complete", "app", written(DEADLINE), "--by", "ann")
    assert "missed" in run(desk, "milestones", "--milestone", "busy")
    review = ("milestones", "tick", "growth", "kept", "review", "crm_id:a")
    assert "accepted as raw-events/" in run(desk, *review, "--at", written(START), "--by", "ann")
    assert "review done by ann, call not done" in run(desk, "milestones", "--milestone", "kept")
    assert "accepted as raw-events/" in run(desk, *review, "--undone", "--at", written(START + HOUR))
    assert "review not done, call" in run(desk, "milestones", "--milestone", "kept")
    assert CliRunner().invoke(cli.app, [*review[:4], "revew", "crm_id:a"]).exit_code == cli.REFUSED
    assert CliRunner().invoke(cli.app, ["complete", "ap", written(DEADLINE)]).exit_code == cli.REFUSED
