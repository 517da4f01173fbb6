"""Lenient bundles, on a real broker: what an older release applied and this one refuses; the worker goes on and says what it lacks."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from milepost.ops import doctor
from milepost.ops.apply import demo_bundle, earlier_bundle, plan_bundle
from milepost.ops.client import Refused
from milepost.ops.flights import ORG, FlightEvent
from milepost.ops.settings import Settings
from milepost.schemas.errors import BundleError
from milepost.topology.catalog import Catalog, bundle_id, load_bundle
from milepost.topology.lenient import lenient_bundle
from tests.support.workers import Deployment, week

pytestmark = [pytest.mark.broker, pytest.mark.slow]

MAIN = demo_bundle()["milepost.yaml"]
OLDER = {
    **demo_bundle(),
    "milepost.yaml": MAIN.replace(b"when: data.dep_delay <= 15.0", b"when: data.delay <= 15.0").replace(
        b"distinct(device)", b"distinct(plane)"
    ),
}
LEFT = ("data.delay", "'plane'")


def flights() -> tuple[list[FlightEvent], list[FlightEvent]]:
    gone = [event for event in week() if event.type == "flight.departed"][:900]
    return gone[:400], gone[400:]


def apply_as_before(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Apply it with the checks of a release that had none of today's."""

    def unchecked(files: Mapping[str, bytes], *_: object) -> Catalog:
        return lenient_bundle(files)

    with monkeypatch.context() as patched:
        patched.setattr("milepost.ops.apply.checked", unchecked)
        deployment.apply(OLDER)


def holds(deployment: Deployment, behind: int) -> dict[str, Any]:
    """Events before and behind the marker count, the rule's are dead letters of the pair, and everybody is told why."""
    with deployment.worker.client() as client:
        assert client.value("departures")["value"] == 900 and client.value("departure_delay_max")["value"] > 100
        for metric in ("on_time_departures", "aircraft_in_service", "on_time_rate"):
            with pytest.raises(Refused) as refused:
                client.value(metric)
            assert refused.value.status == 404
        ready: dict[str, Any] = client.get("/readyz")
    assert deployment.dead() == {("signals", "rule_error"): behind}
    (problem,) = deployment.problems()
    assert problem["rule"] == "departed_on_time" and "data.delay" in problem["detail"]
    assert ready["status"] == "ready" and len(ready["left_out"]) >= 2
    assert all(any(part in one for one in ready["left_out"]) for part in LEFT)
    with urllib.request.urlopen(f"{deployment.settings.url}/metrics", timeout=10) as answer:
        assert f"milepost_definitions_left_out {float(len(ready['left_out']))}" in answer.read().decode()
    return ready


@pytest.mark.campaign
def test_a_bundle_of_an_older_release_stops_nobody(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Applied with the checks of then, it holds as far as it can, live, after a kill and after a lost folder; readiness,
    log, telemetry and doctor say what is left out.  An apply of it now is refused, and a rollback over HTTP ends it."""
    before, behind = flights()
    with Deployment(replace(settings, partitions=2)) as deployment:
        deployment.apply()
        deployment.start()
        deployment.send(before)
        deployment.settle()
        apply_as_before(deployment, monkeypatch)
        deployment.send(behind)
        deployment.settle()
        ready, digest = holds(deployment, len(behind)), deployment.digest()
        assert deployment.worker.log.count("left out, for this release refuses it") == len(ready["left_out"])
        deployment.kill()
        deployment.lose_state()
        deployment.start()
        deployment.settle()
        assert holds(deployment, len(behind)) == ready and deployment.digest() == digest

        found = {one.check: one for one in doctor.examine(deployment.settings)}["definitions"]
        assert (found.verdict, ORG in found.said) == ("wrong", True) and "milepost plan" in found.fix
        with pytest.raises(BundleError):
            deployment.apply(OLDER)
        plan = plan_bundle(deployment.settings, demo_bundle(), ORG)
        assert plan.current == bundle_id(OLDER).hex()
        assert {one.name for one in plan.changes if one.how == "added"} >= {"departed_on_time", "aircraft_in_service"}
        assert earlier_bundle(deployment.settings, ORG) == demo_bundle()
        rolled_back(deployment)


def rolled_back(deployment: Deployment) -> None:
    """Planned and done over HTTP: the bundle before is in force again, and nothing of it is left out; back to the older
    one leads no way, for it is checked like any other."""
    bundle = load_bundle(demo_bundle()).bundle_id.hex()
    with deployment.worker.client() as client:
        assert client.post("/v1/definitions:plan", {"org": ORG, "rollback": 1})["bundle"] == bundle
        told = client.post("/v1/definitions:apply", {"org": ORG, "rollback": 1})
        assert (told["bundle"], told["changed"]) == (bundle, True)
        deployment.wait(lambda: "left_out" not in client.get("/readyz"), "the rollback is not followed")
        again = client.post("/v1/definitions:apply", {"org": ORG, "to": bundle[:6]})
        assert (again["bundle"], again["changed"]) == (bundle, False)
        for wrong in ({"rollback": 1}, {"to": bundle_id(OLDER).hex()[:8]}, {"rollback": 9}):
            with pytest.raises(Refused) as refused:
                client.post("/v1/definitions:apply", {"org": ORG, **wrong})
            assert refused.value.status == 422
        assert client.value("aircraft_in_service")["value"] > 100
    deployment.send([event for event in week() if event.type == "flight.departed"][900:1000])
    deployment.settle()
    with deployment.worker.client() as client:
        assert client.value("departures")["value"] == 1000 and client.value("on_time_departures")["value"] > 50
