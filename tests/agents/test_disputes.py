"""Disputes over HTTP and as a command: what an answer shows before one is accepted, after, and as of any time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from milepost.ops.settings import Settings
from milepost.topology.bases import instant, written
from tests.agents.test_acts import Clock, Desk, run
from tests.agents.test_views import Tables, served
from tests.support.small import DAY, HOUR, T0
from tests.topology.test_disputes import LATE, MISSED
from tests.topology.test_recognition import bucket, engine, plan, recognised

NOW = T0 + 25 * DAY


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    driver = engine([*MISSED, LATE], plan())
    worker = Clock(Settings(home=tmp_path), Tables(driver.reader), now=NOW)
    worker.said = sorted(recognised(driver, [bucket(24)]), key=lambda one: (one.k, one.subject))
    for site in served(worker):
        yield Desk(site, driver, worker)


def row(desk: Desk, **asked: str) -> dict[str, Any]:
    told = desk.site.get("/v1/milestones", company="crm_id:c0", **asked)
    assert told.status == 200, told.json
    (found,) = told.json["milestones"]
    return dict(found)


def path(dispute: str, of: str = "plans/growth/milestones/used") -> str:
    return f"/v1/{of}/disputes/{dispute}:accept"


def test_what_stood_at_final_is_shown_until_the_correction_is_accepted(desk: Desk) -> None:
    """Before: missed, with the dispute and what it would be; after: achieved, by whom and when; then as it was then."""
    before = row(desk)
    dispute = before["dispute"]
    assert (before["state"], before["achieved_at"]) == ("missed", None)
    assert (dispute["status"], dispute["cause"], dispute["accepted"]) == ("open", "late", None)
    assert dispute["corrected"]["state"] == "achieved" and dispute["corrected"]["achieved_at"]
    assert [one["dispute"] for one in before["corrections"]] == ["open"]
    told = desk.say(path(dispute["id"]), company="crm_id:c0", by="ann")
    assert told.status == 202 and told.json["type"] == "milepost.dispute_accepted"
    after = row(desk)
    assert (after["state"], after["achieved_at"]) == ("achieved", dispute["corrected"]["achieved_at"])
    accepted = after["dispute"]["accepted"]
    assert (after["dispute"]["status"], accepted["by"]) == ("accepted", "ann")
    assert NOW < instant(accepted["at"]) <= desk.worker.now
    assert after["corrections"][-1]["accepted"] == accepted
    assert after["recognised_at"] == written(T0 + int(20.5 * DAY) + HOUR)
    for at, status in ((19, None), (21, "open"), (24.5, "open"), (26, "accepted")):
        shown = row(desk, at=written(T0 + int(at * DAY)), basis="as_shown")
        assert (shown["dispute"] or {}).get("status") == status
        assert shown["state"] == ("achieved" if status == "accepted" else "missed")


def test_a_portfolio_counts_what_holds(desk: Desk) -> None:
    """How many companies stand how is told with the disputes, as each of them is."""

    def states() -> Any:
        (one,) = desk.site.get("/v1/plans/growth").json["milestones"]
        return one["states"]

    assert states() == {"missed": 2}
    desk.say(path(row(desk)["dispute"]["id"]), company="crm_id:c0")
    assert states() == {"achieved": 1, "missed": 1}


def test_a_void_opens_it_again(desk: Desk) -> None:
    """The same id with a higher revision takes an acceptance back."""
    id = row(desk)["dispute"]["id"]
    told = desk.say(path(id), company="crm_id:c0", by="ann")
    assert row(desk)["state"] == "achieved"
    back = {"id": told.json["id"], "revision": 1, "void": True}
    assert desk.say(path(id), company="crm_id:c0", by="ann", **back).status == 202
    assert (row(desk)["state"], row(desk)["dispute"]["status"]) == ("missed", "open")


@pytest.mark.parametrize(
    ("of", "body", "status"),
    [
        ("plans/growth/milestones/used", {"company": "crm_id:c1"}, 404),
        ("plans/growth/milestones/user", {"company": "crm_id:c0"}, 404),
        ("plans/growth/milestones/used", {"company": "crm_id:c"}, 404),
        ("plans/growth/milestones/used", {"compny": "crm_id:c0"}, 422),
        ("plans/growth/milestones/used", {}, 422),
    ],
)
def test_a_dispute_is_of_one_milestone_of_one_company(desk: Desk, of: str, body: dict[str, Any], status: int) -> None:
    """Any other is refused, with the one that was probably meant, and nothing is appended."""
    id = row(desk)["dispute"]["id"]
    told = desk.say(path(id, of), **body)
    assert told.status == status and told.json["detail"], told.json
    unknown = desk.say(path("0" * 32), company="crm_id:c0")
    assert (unknown.status, unknown.json["guess"]) == (404, id)
    assert "milepost.dispute_accepted" not in str(desk.driver.topics["raw-events"])


def test_the_command_settles_it(desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`milepost milestones --history` shows the dispute's id, `milepost milestones settle` accepts it."""
    monkeypatch.setenv("MILEPOST_PORT", str(desk.site.port))
    monkeypatch.setenv("MILEPOST_HOME", str(tmp_path))
    id = row(desk)["dispute"]["id"]
    assert f"dispute open {id}" in run(desk, "milestones", "--history", "--company", "crm_id:c0")
    assert f"dispute open {id}" in run(desk, "milestones", "--company", "crm_id:c0")
    settle = run(desk, "milestones", "settle", "growth", "used", "crm_id:c0", id, "--by", "ann")
    assert "accepted as raw-events/" in settle
    assert f"dispute accepted {id}" in run(desk, "milestones", "--history", "--company", "crm_id:c0")
