"""Contracts in stream on a real broker: two workers, the one that watches killed in the middle, and nothing said twice."""

from __future__ import annotations

import json
import time
import uuid
from collections import defaultdict
from typing import Any

import pytest

from milepost.ops.quality import told_of
from milepost.ops.settings import Settings
from milepost.topology.bases import written
from milepost.topology.quality_questions import QualityQuestion, QualityQuestions
from milepost.topology.steps import run
from tests.support.checks import rebuilt
from tests.support.small import FILES, visit
from tests.support.workers import Deployment

pytestmark = [pytest.mark.broker, pytest.mark.slow]

ORG = "acme"
TEXT = FILES["milepost.yaml"].decode()
BUNDLE = {
    "schemas/Visit.avsc": FILES["schemas/Visit.avsc"].decode(),
    "milepost.yaml": TEXT.replace("    volatile:", "    expect: {freshness: 1m}\n    volatile:")
    .replace(
        "signals:\n",
        "signals:\n  went_stale: {on: milepost.source_stale, when: data.holds, fields: {source: data.source}}\n"
        "  schema_turned: {on: milepost.source_schema}\n",
    )
    .replace("metrics:\n", "metrics:\n  outages: {from: went_stale, aggregate: count, dimensions: [source]}\n"),
}


@pytest.mark.campaign
def test_breaches_are_said_once_whoever_watches(settings: Settings) -> None:
    """A deploy breaks the schema, the watcher dies, the source falls silent and comes back: each worker, and the raw log
    folded anew, tell the same breaches, and each beginning and end counts once."""
    with Deployment(settings) as deployment:
        one = deployment.start()
        two = deployment.start(name="worker-2")
        one.client().post("/v1/definitions:apply", {"org": ORG, "files": BUNDLE})

        def post(id: str, **data: Any) -> None:
            event = {**visit(id, int(time.time() * 1000)), "org": ORG}
            told = deployment.asked().client().post("/v1/events", {**event, "data": {**event["data"], **data}})
            assert told["items"][0]["status"] == "accepted"

        def row(worker: Any = None, **asked: Any) -> dict[str, Any]:
            with (worker or deployment.asked()).client() as client:
                (found,) = client.get("/v1/quality", **asked)["sources"]
            assert isinstance(found, dict)
            return found

        def spoken() -> dict[str, set[bytes]]:
            """Id -> the contents of the watch's records in the raw log."""
            found: dict[str, set[bytes]] = defaultdict(set)
            for message in deployment.read("raw-events"):
                if b'"milepost.source_' in (message.value() or b""):
                    found[json.loads(message.value())["id"]].add(message.value())
            return found

        def said(*starts: str) -> bool:
            ids = spoken()
            return all(any(id.startswith(start) for id in ids) for start in starts)

        for number in range(20):
            post(f"e{number}")
        post("broken", minutes="many")
        deployment.wait(lambda: "schema" in row()["breaches"], "the schema's breach is not told", 30)
        watching = next(each for each in (one, two) if 0 in each.status()["legs"]["measure"]["open"])
        deployment.kill(watching.name)
        deployment.wait(lambda: row()["state"] == "stale", "the silence is not told", 120, 0.5)
        deployment.start(name="" if watching.name == one.name else watching.name)
        deployment.wait(lambda: said("schema/begins", "stale/begins"), "no record says so", 60, 0.5)

        def back() -> bool:
            post(uuid.uuid4().hex)  # again and again, so that it does not fall silent once more
            return said("stale/ends")

        deployment.wait(back, "no record says that it is over", 60, 1.0)
        deployment.settle()

        known = spoken()
        assert sorted(id.split("/")[:2] for id in known) == [
            ["schema", "begins"],
            ["stale", "begins"],
            ["stale", "ends"],
        ]
        assert all(len(contents) == 1 for contents in known.values())
        histories = [row(worker)["history"] for worker in deployment.running]
        again = QualityQuestions(rebuilt(deployment, chunk=7).reader)
        now_ms = int(time.time() * 1000)
        histories.append(run(again.states(QualityQuestion(now_ms=now_ms), 0, 10))["sources"][0]["history"])
        assert len(histories) == 3 and histories[0] == histories[1] == histories[2], histories
        assert sorted((each["breach"], each["end"] is None) for each in histories[0]) == [
            ("schema", True),
            ("stale", False),
        ]
        stale = next(each for each in histories[0] if each["breach"] == "stale")
        assert next(id for id in known if id.startswith("stale/begins")).split("/")[3] == "app"
        assert {written(int(id.split("/")[2])) for id in known if id.startswith("stale/")} == {
            stale["begin"],
            stale["end"],
        }
        with deployment.asked().client() as client:
            assert client.value("outages")["value"] == 1
        assert any("stale" in line for line in told_of(row()))
        assert deployment.dead() == {("decode", "contract_violation"): 1}
