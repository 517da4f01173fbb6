"""A deploy that broke thousands of events, on a real broker with two workers: one problem, repaired once, through a kill.

2,000 broken events, in the campaign 10,000.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from milepost.ops.apply import apply_bundle
from milepost.ops.settings import Settings
from milepost.schemas.errors import MilepostError
from milepost.schemas.keys import raw_place
from tests.support.small import DAY, FILES, ORG, T0, visit
from tests.support.workers import Deployment, Worker

pytestmark = [pytest.mark.broker, pytest.mark.slow]

FIX = {"steps": [{"rename": "data.compani", "to": "company"}]}
EVERY = 5
"""One event in five was sent right."""


def events(count: int, partitions: int) -> list[tuple[int, bytes | None, bytes | None]]:
    """Records of `count` visits over ten days of which four in five misspell a field."""
    made: list[tuple[int, bytes | None, bytes | None]] = []
    for n in range(count):
        event = visit(f"e{n}", T0 + n * 10 * DAY // count, str(1 + n % 7), minutes=float(n % 50), device=f"d{n % 31}")
        if n % EVERY:
            event["data"]["compani"] = event["data"].pop("company")
        key, partition = raw_place(ORG, "app", event["id"], 0, 0, partitions)
        made.append((partition, key, orjson.dumps(event)))
    return made


def repair_all(worker: Worker, path: str, done: list[Any]) -> None:
    """Every part of a repair, as the command asks for them."""
    with worker.client() as client:
        body: dict[str, Any] = {"mapping": FIX, "by": worker.name}
        while True:
            told = client.post(path, body)
            done.append(told)
            if told["next"] is None:
                return
            body = {**body, "next": told["next"]}


def test_events_broken_by_one_deploy_are_one_problem_repaired_once(
    settings: Settings, sized: Callable[[int, int], int]
) -> None:
    """The preview says what the metrics will be; the worker that repairs is killed between half of a part's sends; two
    workers go on with it at a time; every number is right, each event counted once, and a second repair changes
    nothing."""
    count, kill_at = sized(12_500, 2_500), sized(3, 1)
    broken = count - count // EVERY
    with Deployment(settings) as deployment:
        apply_bundle(deployment.settings, FILES, ORG)
        deployment.put("raw-events", events(count, deployment.settings.partitions))
        first = deployment.start(fault_at=f"repair_half:{kill_at}")
        second = deployment.start(name="worker-2")
        deployment.settle()
        (problem,) = deployment.problems()
        assert (problem["count"], problem["open"], problem["state"]) == (broken, broken, "open")
        path = f"/v1/dead-letters/{problem['problem']}"

        def values() -> dict[str, Any]:
            with second.client() as client:
                return {
                    name: client.value(name)["value"] for name in ("visits", "minutes_sum", "devices", "minutes_max")
                }

        before = values()
        assert before["visits"] == count // EVERY
        with second.client() as client:
            client._wait(120.0)
            preview = client.post(f"{path}/repair?dry_run=true", {"mapping": FIX})
            assert (preview["looked_at"], preview["pass"], preview["fail"]) == (broken, broken, 0)
            places = list(client.pages(f"{path}/members", "members"))
        assert len({one["at"] for one in places}) == broken and values() == before
        foreseen = {one["metric"]: one["after"] for one in preview["metrics"]}
        wanted = {
            "visits": count, "minutes_sum": sum(n % 50 for n in range(count)), "devices": 31, "minutes_max": 49,
        }  # fmt: skip
        assert {name: foreseen[name] for name in wanted} == wanted

        body: dict[str, Any] = {"mapping": FIX, "by": "ann"}
        with first.client(patience_s=1.0) as client, pytest.raises(MilepostError):
            while True:
                body["next"] = client.post(f"{path}/repair", body)["next"]
        assert first.wait_end() == -9
        first = deployment.start(ready=False)
        deployment.wait(lambda: bool(first.status().get("ready")), "the worker is not back")
        deployment.settle()
        with second.client() as client:
            assert client.get(path)["state"] == "repairing" or kill_at == 1

        told: list[Any] = []
        both = [threading.Thread(target=repair_all, args=(one, f"{path}/repair", told)) for one in (first, second)]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join(180)
            assert not thread.is_alive()
        deployment.settle()
        (problem,) = deployment.problems()
        assert (problem["state"], problem["open"], problem["count"]) == ("repaired", 0, broken)
        assert values() == wanted
        ends, digest = deployment.ends("raw-events"), deployment.digest()
        done: list[Any] = []
        repair_all(second, f"{path}/repair", done)
        assert [(one["sent"], one["open"], one["state"]) for one in done] == [(0, 0, "repaired")]
        deployment.settle()
        assert deployment.digest() == digest
        fates = deployment.status()["fates"]["ingest"]
        assert not {name for name in fates if "conflict" in name}
        assert sum(deployment.ends("raw-events").values()) - sum(ends.values()) <= 60 * len(ends), "only ticks came"
