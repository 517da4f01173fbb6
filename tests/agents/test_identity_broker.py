"""Decisions by hand on a real broker: appended through the gateway, folded by the worker, there again after a loss."""

from __future__ import annotations

from typing import Any

import pytest

from milepost.ops.settings import Settings
from tests.support.workers import Deployment, week

pytestmark = [pytest.mark.broker, pytest.mark.slow]

UA, AA = "carrier_code:UA", "carrier_code:AA"


@pytest.mark.campaign
def test_two_airlines_are_one_while_a_person_says_so(settings: Settings) -> None:
    """A link by hand joins what is asked, without moving a cell; an unlink, asked of a worker that has lost its state,
    gives back what there was."""
    with Deployment(settings) as deployment:
        deployment.apply()
        deployment.send(list(week())[:3000])
        deployment.start()
        deployment.settle()
        client = deployment.worker.client()

        def count(company: str) -> Any:
            return deployment.worker.client().value("departures", company=company)["value"]

        before = {company: count(company) for company in (UA, AA)}
        both = sum(before.values())
        cells = deployment.digest()["cells"]
        body = {"keys": [UA, AA], "by": "ann"}
        preview = client.post("/v1/identity/link?dry_run=true", body)
        assert [one["metrics"]["departures"] for one in preview["after"]] == [both]
        assert client.post("/v1/identity/link", body)["receipt"].startswith("raw-events/")
        deployment.wait(lambda: count(UA) == both == count(AA), "the link is not in force")
        assert deployment.digest()["cells"] == cells
        deployment.kill()
        deployment.lose_state()
        deployment.start()
        deployment.settle()
        assert count(AA) == both
        deployment.worker.client().post("/v1/identity/unlink", {"keys": [AA]})
        deployment.wait(lambda: count(UA) == before[UA], "the unlink is not in force")
        assert count(AA) == before[AA] and min(before.values()) > 0
