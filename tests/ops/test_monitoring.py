"""Monitoring, live: two workers take the demo's week while a Prometheus scrapes them by the committed configuration.

Every metric is really told, every panel has data, no alert fires; then faults are made, and their alerts do.
The tests are in order: those behind the line change the deployment.
"""

from __future__ import annotations

import json
import re
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from milepost.ops import dashboards
from milepost.ops.alerts import rules
from milepost.ops.apply import demo_bundle
from milepost.ops.flights import ORG
from milepost.ops.settings import Settings
from milepost.ops.telemetry import DECLARED, LABELS
from tests.support import prometheus
from tests.support.broker import TestBroker, shared_jars
from tests.support.prometheus import Prometheus
from tests.support.workers import SECRET, Deployment, week

pytestmark = [pytest.mark.broker, pytest.mark.slow]

SEEN_S = 8
"""So long the settled deployment is scraped before it is looked at."""


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A deployment, the Prometheus that scrapes it, and since when."""

    deployment: Deployment
    prometheus: Prometheus | None
    since: float

    def post(self, data: dict[str, object], *, source: str = "flights", id: str = "") -> None:
        """Send an event of now through the gateway."""
        event = {
            "org": ORG,
            "source": source,
            "id": id or uuid.uuid4().hex,
            "type": "flight.departed",
            "time": datetime.now(UTC).isoformat(),
            "data": data,
        }
        url = f"{self.deployment.workers['worker-1'].settings.url}/v1/events"
        body = json.dumps(event).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 202

    def live(self) -> Prometheus:
        assert self.prometheus is not None
        return self.prometheus


@pytest.fixture(scope="module")
def watched(broker: TestBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Two workers with standby copies, started before the events came, and scraped from then on if it can be."""
    settings = Settings(
        home=tmp_path_factory.mktemp("monitored"),
        broker=broker.bootstrap,
        namespace=f"mon{uuid.uuid4().hex[:8]}",
        replication=1,
        standby=1,
        secret_text=SECRET,
        jars_folder=shared_jars(),
    )
    with Deployment(settings) as deployment:
        deployment.apply()
        deployment.start()
        second = deployment.start(name="worker-2")
        deployment.wait(lambda: bool(deployment.status().get("ready")), "both are not ready")
        here = Watched(deployment=deployment, prometheus=None, since=time.time())
        if prometheus.find("prometheus") is not None:
            targets = [one.url.removeprefix("http://") for one in (deployment.settings, second.settings)]
            folder = tmp_path_factory.mktemp("prometheus") / "home"
            with Prometheus(targets, folder, rules.rules(at_once=True)) as live:
                # A rate is of two samples: the first must be there before anything is counted.
                deployment.wait(lambda: len(live.since("milepost_ready", 30)) == len(targets), "nothing is scraped")
                _fill(here)
                yield replace(here, prometheus=live)
        else:
            _fill(here)
            yield here
    broker.drop(settings.namespace)


def _fill(watched: Watched) -> None:
    """The demo's week, an event of today, some questions."""
    deployment = watched.deployment
    flights = week()
    deployment.send(flights)
    deployment.send(flights[number] for number in range(500))  # events come twice, in life
    watched.post(
        {"carrier": "UA", "tailnum": "N14228", "flight": 1545, "origin": "EWR", "dest": "IAH", "dep_delay": 2.0}
    )
    deployment.settle()
    for _ in range(SEEN_S):
        deployment.answers()
        time.sleep(1)


def told(deployment: Deployment) -> dict[str, list[dict[str, str]]]:
    """Name -> labels of each series that any worker exposes."""
    text = ""
    for worker in deployment.running:
        with urllib.request.urlopen(f"{worker.settings.url}/metrics", timeout=30) as answer:
            text += answer.read().decode()
    found: dict[str, list[dict[str, str]]] = {}
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", text, re.MULTILINE):
        found.setdefault(name, []).append(dict(re.findall(r'(\w+)="([^"]*)"', labels)))
    return found


def test_every_metric_is_told_and_bounded(watched: Watched) -> None:
    """Each declared metric is exposed by a live worker, under the labels that it declares, within their bounds."""
    found = told(watched.deployment)
    for one in DECLARED:
        for series in one.series:
            assert series in found, series
            assert all(labels.keys() - {"le"} == set(one.labels) for labels in found[series]), series
    for name, label in LABELS.items():
        values = {labels[name] for series in found.values() for labels in series if name in labels}
        values = values if name != "version" else {one["version"] for one in found["milepost_build_info"]}
        assert len(values) <= label.bound and (not label.values or values <= set(label.values)), name
    assert {"org": ORG, "source": "flights"} in found["milepost_source_awaited_seconds"]
    assert {"org": ORG, "source": "registry"} not in found["milepost_source_awaited_seconds"]


@prometheus.needed
def test_every_panel_has_data(watched: Watched) -> None:
    """Each expression of the dashboard gave numbers over the week; those of quiet panels are at least no errors."""
    live = watched.live()
    empty = []
    for row in dashboards.rows():
        for panel in row.panels:
            for expression, _ in panel.queries:
                series = live.since(expression, time.time() - watched.since)
                if not panel.quiet and not any(series_has_data(one["values"], panel.unit) for one in series):
                    empty.append(f"{row.title}: {panel.title}: {expression}")
    assert not empty, "\n".join(empty)


def series_has_data(values: list[float], unit: str) -> bool:
    """Whether a chart of it shows anything: of a rate, that it was not zero all the time."""
    return any(value > 0 for value in values) if unit in ("ops", "Bps") else bool(values)


@prometheus.needed
def test_a_panel_without_data_is_seen(watched: Watched) -> None:
    """An expression that nobody feeds gives no series, one that is no expression is refused."""
    live = watched.live()
    assert live.since("sum by (leg) (rate(milepost_recrods_total[1m]))", 60) == []
    with pytest.raises(AssertionError, match="parse error"):
        live.query("sum by (leg (up)")


@prometheus.needed
def test_no_alert_fires_in_the_demo(watched: Watched) -> None:
    """With every waiting time left out, all is silent over the settled week; but for what a busy machine makes slow."""
    live = watched.live()

    def fires() -> set[str]:
        return live.alerts().keys() - {"CheckpointSlow"}

    live.wait(lambda: not fires(), "an alert does not fall silent")


# -- faults


@prometheus.needed
def test_a_broken_record_fires_its_alert(watched: Watched) -> None:
    """An event that breaks its contract is told of by DeadLetters, with leg and reason."""
    live = watched.live()
    watched.post({"carrier": "UA", "dep_delay": "many"})
    live.wait(lambda: "DeadLetters" in live.alerts(), "DeadLetters does not fire")
    (found,) = live.alerts()["DeadLetters"]
    assert (found["leg"], found["fate"]) == ("ingest", "dead:contract_violation")


@prometheus.needed
def test_a_source_that_breaks_its_schema_fires_its_alert(watched: Watched) -> None:
    """The source of such an event is named, as long as its breach lasts."""
    live = watched.live()
    watched.post({"carrier": "UA", "dep_delay": "many"})
    live.wait(lambda: "SourceSchemaBroken" in live.alerts(), "SourceSchemaBroken does not fire")
    (found,) = live.alerts()["SourceSchemaBroken"]
    assert (found["org"], found["source"]) == (ORG, "flights")


@prometheus.needed
def test_a_silent_source_fires_its_alert(watched: Watched) -> None:
    """A source that has sent since it was defined, and now sends nothing for longer than it promised, is named."""
    live = watched.live()
    files = demo_bundle()
    files["milepost.yaml"] = files["milepost.yaml"].replace(b"freshness: 15m", b"freshness: 1m")
    assert files != demo_bundle()
    watched.deployment.apply(files)
    live.wait(lambda: "SourceSilent" in live.alerts(), "SourceSilent does not fire", seconds=120)
    (found,) = live.alerts()["SourceSilent"]
    assert (found["org"], found["source"]) == (ORG, "flights")


@prometheus.needed
def test_a_killed_worker_fires_its_alert(watched: Watched) -> None:
    """kill -9 of one of two workers: WorkerDown names it, and is over when it has come back."""
    live, deployment = watched.live(), watched.deployment
    deployment.kill("worker-2")
    gone = deployment.workers["worker-2"].settings.url.removeprefix("http://")
    live.wait(lambda: "WorkerDown" in live.alerts(), "WorkerDown does not fire")
    assert [one["instance"] for one in live.alerts()["WorkerDown"]] == [gone]
    deployment.start(name="worker-2")
    live.wait(lambda: "WorkerDown" not in live.alerts(), "WorkerDown is not over")
