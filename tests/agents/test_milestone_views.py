"""What was recognised of milestones, over HTTP and as a command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from milepost.ops import cli
from milepost.ops.settings import Settings
from milepost.schemas.keys import from_metakey, metakey
from milepost.topology.bases import instant, written
from milepost.topology.panes import PANE_MS
from milepost.topology.recognitions import Recognition
from tests.agents.test_acts import Clock
from tests.agents.test_stream import Stream
from tests.agents.test_views import Site, Tables, served
from tests.topology.test_recognition import CORRECTION, LAST, engine, recognised
from tests.topology.test_standings import MILESTONES, history

SEED = 3
"""A history with corrections, a merge and its opposite."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = engine(history(SEED))
    worker = Clock(Settings(home=tmp_path_factory.mktemp("home")), Tables(made.reader))
    worker.said = sorted(recognised(made, [LAST]), key=lambda one: (one.k, one.subject))
    yield from served(worker)


def mine(site: Site, row: dict[str, Any], until: int = LAST) -> list[Recognition]:
    """What was said of a row's milestone under its company's own root."""
    of = row["plan"], row["milestone"], from_metakey(row["company"])
    return [one for one in site.worker.said if one.subject[1:] == of and one.k <= until]


def test_a_state_says_since_when_it_is_recognised_and_what_was_corrected(site: Site) -> None:
    """Each row has the time of its last recognition, and every correction with what was said before and why."""
    rows = site.get("/v1/milestones").json["milestones"]
    known = 0
    for row in rows:
        said = mine(site, row)
        last = said[-1] if said and said[-1].now.state == row["state"] else None
        assert row["recognised_at"] == (None if last is None else written(last.recognised_at * PANE_MS)), row
        corrections = [one for one in said if one.kind in ("corrected", "resumed")]
        assert row["corrections"] == [{**one.as_dict(), "accepted": None} for one in corrections]
        assert [one["event"] for one in row["announced"]] == [f"milestone.{one.now.state}" for one in said if one.first]
        known += row["recognised_at"] is not None
    assert known > len(rows) // 2 and any(row["corrections"] for row in rows)


def test_as_shown_then_only_what_was_said_by_then(site: Site) -> None:
    """A recognition that came later is not in the answer about an earlier moment."""
    for k in range(LAST - 70, LAST, 9):
        rows = site.get("/v1/milestones", at=written(k * PANE_MS), basis="as_shown").json["milestones"]
        for row in rows:
            said = mine(site, row, k)
            if row["state"] == "pending":
                assert row["recognised_at"] is None
            elif said:
                assert said[-1].now.state == row["state"]
                assert row["recognised_at"] == written(said[-1].recognised_at * PANE_MS)
            assert all(instant(one["known"]) <= k * PANE_MS for one in row["corrections"])


def test_a_stream_announces_what_the_topic_does(site: Site) -> None:
    """The frames have each state that was recognised once, with its id, and each correction with before, after, cause."""
    names = [("milestone", name) for name in MILESTONES]
    count = len(site.get("/v1/milestones").json["milestones"])
    corrected = 0
    with Stream(site.port, *names) as stream:
        for _ in range(count):
            told = stream.next()
            assert told is not None and told[0] == "milestone"
            row = told[1]
            announced = [(one["event"], one["id"]) for one in row["announced"]]
            for one in row["corrections"]:
                assert one["before"] and one["after"] and one["cause"]
                announced += [(each["event"], each["id"]) for each in one["announces"] if each["event"] == CORRECTION]
            wanted = [(event, id.hex()) for one in mine(site, row) for event, id in one.announcements]
            assert sorted(announced) == sorted(wanted)
            corrected += len(row["corrections"])
    assert corrected > 0


def test_a_history_lists_what_was_said_in_its_order(site: Site) -> None:
    """All transitions of a company, of one plan or one milestone, page by page."""
    company = site.get("/v1/milestones", company="crm_id:c0").json["milestones"][0]["company"]
    whole = site.get("/v1/milestones/history", company="crm_id:c0").json
    told = whole["transitions"]
    assert whole["company"] == company and told == sorted(told, key=lambda one: instant(one["known"]))
    root = from_metakey(company)
    expected = [one for one in site.worker.said if one.subject.company == root]
    shown = [one for one in told if one["company"] == company]
    assert [{name: one[name] for name in each.as_dict()} for one, each in zip(shown, expected, strict=True)] == [
        one.as_dict() for one in expected
    ]
    some = site.get("/v1/milestones/history", company=company, plan="growth", milestone="busy").json["transitions"]
    assert some == [one for one in told if one["milestone"] == "busy"]
    first = site.get("/v1/milestones/history", company=company, limit="2").json
    rest = site.get("/v1/milestones/history", company=company, next=first["next"]).json
    assert first["transitions"] + rest["transitions"] == told and rest["next"] is None
    assert {metakey(one.subject.company) for one in site.worker.said} >= {one["company"] for one in told}


def test_a_history_is_of_one_company(site: Site) -> None:
    """Without a company there is no answer, and an unknown one is refused with a guess."""
    assert site.get("/v1/milestones/history").status == 422
    told = site.get("/v1/milestones/history", company="crm_id:c00")
    assert (told.status, told.json["guess"]) == (404, "crm_id:c0")


def test_the_command_lists_it(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`milepost milestones --history` has a line a transition, and is of one company."""
    monkeypatch.setenv("MILEPOST_PORT", str(site.port))
    monkeypatch.setenv("MILEPOST_HOME", str(tmp_path))
    told = site.get("/v1/milestones/history", company="crm_id:c0").json["transitions"]
    result = CliRunner().invoke(cli.app, ["milestones", "--history", "--company", "crm_id:c0"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == len(told)
    for line, one in zip(lines, told, strict=True):
        assert line.startswith(one["recognised_at"]) and one["kind"] in line and one["milestone"] in line
    refused = CliRunner().invoke(cli.app, ["milestones", "--history"])
    assert refused.exit_code == cli.DECLARATION and "--company" in refused.output
