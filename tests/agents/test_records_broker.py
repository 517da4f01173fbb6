"""Records on a real broker: written by events, asked over HTTP, there again after a loss."""

from __future__ import annotations

from typing import Any

import pytest

from milepost.ops import records
from milepost.ops.settings import Settings
from tests.support.workers import Deployment
from tests.topology.test_records import RECORDS, sent

pytestmark = [pytest.mark.broker, pytest.mark.slow]

ORG = "acme"
NINE, TEN = 1_704_099_600_000, 1_704_103_200_000
"""Of the first of January 2024, UTC."""


def test_a_record_is_written_asked_and_restored(settings: Settings) -> None:
    """What events write is there at once for who waits for their receipt, on each basis; an earlier value comes back as
    a new version; a worker that has lost its state answers the same."""
    with Deployment(settings) as deployment:
        deployment.start()
        client = deployment.worker.client()
        files = {name: text.decode() for name, text in RECORDS.items()}
        client.post("/v1/definitions:apply", {"org": ORG, "files": files})

        def send(*events: dict[str, Any]) -> str:
            told = client.post("/v1/events", list(events))
            assert [one["status"] for one in told["items"]] == ["accepted"] * len(events), told
            return str(told["items"][-1]["receipt"])

        path = "/v1/records/account/a%2Fb"
        send(sent("set", "e1", NINE, account="a/b", name="one", seats=3, owner="x"))
        receipt = send(sent("set", "e1", NINE, account="a/b", name="uno", seats=3, owner="x", revision=1))
        assert client.get(path, after=receipt)["value"] == {"name": "uno", "seats": 3, "size": None}
        receipt = send(sent("closed", "e2", TEN, account="a/b"))
        gone = client.get(path, after=receipt)
        assert gone["value"] is None and gone["reason"] == "deleted" and gone["since"] == "2024-01-01T10:00:00Z"
        assert client.get(path, at="2024-01-01T09:30:00Z")["value"]["name"] == "uno"
        assert client.get("/v1/records/owner/x")["value"] == {"account": "a/b"}
        before = client.get(f"{path}/diff", at="2024-01-01T09:30:00Z", basis="corrected")
        assert [one["event"]["id"] for one in before["added"]] == ["e2"] and before["fields"]["name"]["after"] is None

        back = client.post(f"{path}/restore", {"at": "2024-01-01T09:30:00Z", "by": "ann"})
        restored = client.get(path, after=back["receipt"])
        assert restored["value"] == back["value"] == {"name": "uno", "seats": 3, "size": None}
        history = client.get(f"{path}/history", limit=2)
        assert [one["op"] for one in history["versions"]] == ["upsert", "delete"] and history["next"] == "2"
        assert records._version(history["versions"][1]).startswith("2024-01-01T10:00:00Z  delete")

        whole = client.get(f"{path}/history")["versions"]
        assert [(one["revision"], one["holds"]) for one in whole[2:]] == [(1, True), (0, False)]
        digest = deployment.digest()
        deployment.kill()
        deployment.lose_state()
        deployment.start()
        assert deployment.worker.client().get(f"{path}/history")["versions"] == whole
        assert deployment.digest()["records"] == digest["records"]
        assert [one["event"]["id"] for one in whole].count("e1") == 2
