"""The container files: they parse, and agree with the settings, the telemetry and each other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from milepost.ops import telemetry
from milepost.ops.broker import read_lock
from milepost.ops.settings import VARIABLES, read_settings

ROOT = Path(__file__).resolve().parents[2]


def load(name: str) -> Any:
    return YAML(typ="safe").load((ROOT / name).read_text())


def environment(service: str) -> dict[str, str]:
    return dict(load("docker-compose.yml")["services"][service]["environment"])


def test_every_variable_of_the_worker_is_a_setting(tmp_path: Path) -> None:
    """The worker's container starts with these variables: each is known, and together they are accepted."""
    given = environment("worker")
    assert given.keys() <= VARIABLES.keys()
    given["MILEPOST_SECRET"] = "s" * 32
    settings = read_settings({**given, "MILEPOST_HOME": str(tmp_path)})
    assert not settings.embedded and settings.replication == 1
    image = dict(re.findall(r"(MILEPOST_\w+)=(\S+)", (ROOT / "ops/Dockerfile").read_text()))
    assert image and image.keys() <= VARIABLES.keys()


def test_the_ports_meet() -> None:
    """The worker's broker is where Kafka listens, Prometheus scrapes the worker's port, Grafana asks Prometheus."""
    services = load("docker-compose.yml")["services"]
    broker = environment("worker")["MILEPOST_BROKER"]
    assert f"PLAINTEXT://{broker}" in environment("kafka")["KAFKA_LISTENERS"]
    assert environment("kafka")["KAFKA_ADVERTISED_LISTENERS"] == f"PLAINTEXT://{broker}"
    (job,) = load("ops/prometheus.yml")["scrape_configs"]
    worker = environment("worker")
    assert job["static_configs"] == [{"targets": [f"{worker['MILEPOST_HOST']}:{worker['MILEPOST_PORT']}"]}]
    (source,) = load("ops/grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert f"--web.listen-address={source['url'].removeprefix('http://')}" in services["prometheus"]["command"]
    assert services["kafka"]["image"] == f"apache/kafka:{read_lock().kafka}"


def test_what_is_mounted_is_there() -> None:
    """Each file that a container mounts or an image copies lies in the repository."""
    services = load("docker-compose.yml")["services"]
    mounted = [one.split(":")[0] for service in services.values() for one in service.get("volumes", ())]
    for path in (one for one in mounted if one.startswith("./")):
        assert (ROOT / path).exists(), path
    for line in re.findall(r"^COPY (?!--)(.+)$", (ROOT / "ops/Dockerfile").read_text(), re.MULTILINE):
        for path in line.split()[:-1]:
            assert path == "README.md" or (ROOT / path).exists(), path


def test_the_dashboard_asks_for_what_the_worker_tells() -> None:
    """Every series of the dashboard is one that the telemetry declares, with labels that it has."""
    dashboard = json.loads((ROOT / "ops/grafana/dashboards/milepost.json").read_text())
    declared: dict[str, set[str]] = {}
    for collector in (one for one in vars(telemetry).values() if hasattr(one, "_labelnames")):
        for sample in _names(collector):
            declared[sample] = {*collector._labelnames, "le"}
    asked = [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(asked) >= 8
    for title, expression in asked:
        names = re.findall(r"milepost_\w+", expression)
        assert names, title
        for name in names:
            assert name in declared, f"{title}: {name}"
            for labels in re.findall(r"by \(([^)]*)\)", expression):
                assert {label.strip() for label in labels.split(",")} <= declared[name], f"{title}: {labels}"
    provider = load("ops/grafana/provisioning/dashboards/milepost.yaml")["providers"][0]
    mounted = load("docker-compose.yml")["services"]["grafana"]["volumes"]
    assert f"./ops/grafana/dashboards:{provider['options']['path']}:ro" in mounted


def _names(collector: Any) -> list[str]:
    """The names under which Prometheus stores what the collector tells."""
    name, kind = collector._name, collector._type
    return {"counter": [f"{name}_total"], "histogram": [f"{name}_bucket", f"{name}_sum", f"{name}_count"]}.get(
        kind, [name]
    )
