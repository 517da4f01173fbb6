"""The container files: they parse, and agree with the settings, the telemetry and each other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from milepost.ops.broker import read_lock
from milepost.ops.registry import API
from milepost.ops.registry import read_lock as registry_lock
from milepost.ops.settings import VARIABLES, read_settings

ROOT = Path(__file__).resolve().parents[2]


def load(name: str) -> Any:
    return YAML(typ="safe").load((ROOT / name).read_text())


def environment(service: str) -> dict[str, str]:
    return dict(load("docker-compose.yml")["services"][service]["environment"])


WORKERS = ("worker", "worker-2")


def test_every_variable_of_a_worker_is_a_setting(tmp_path: Path) -> None:
    """The workers' containers start with these variables: each is known, and together they are accepted."""
    names = {name for name in load("docker-compose.yml")["services"] if name.startswith("worker")}
    assert names == set(WORKERS)
    for service in WORKERS:
        given = environment(service)
        assert given.keys() <= VARIABLES.keys()
        given["MILEPOST_SECRET"] = "s" * 32
        settings = read_settings({**given, "MILEPOST_HOME": str(tmp_path)})
        assert not settings.embedded and settings.replication == 1 and settings.log_format == "json"
    image = dict(re.findall(r"(MILEPOST_\w+)=(\S+)", (ROOT / "ops/Dockerfile").read_text()))
    assert image and image.keys() <= VARIABLES.keys()


def test_workers_share_what_they_must_and_nothing_else() -> None:
    """Two workers have one secret and one broker, and a name, a port and a folder each."""
    first, second = (environment(one) for one in WORKERS)
    apart = {name for name in first if first[name] != second[name]}
    assert first.keys() == second.keys() and apart == {"MILEPOST_PORT", "MILEPOST_WORKER"}
    services = load("docker-compose.yml")["services"]
    folders = [tuple(services[one]["volumes"]) for one in WORKERS]
    assert len(set(folders)) == len(WORKERS)
    declared = load("docker-compose.yml")["volumes"]
    used = [one.split(":")[0] for service in services.values() for one in service.get("volumes", ())]
    assert {one for one in used if not one.startswith(".")} == declared.keys()


def test_the_ports_meet() -> None:
    """The workers' broker and registry are where those listen, Prometheus scrapes the workers' ports, Grafana asks it."""
    services = load("docker-compose.yml")["services"]
    broker = environment("worker")["MILEPOST_BROKER"]
    assert f"PLAINTEXT://{broker}" in environment("kafka")["KAFKA_LISTENERS"]
    assert environment("kafka")["KAFKA_ADVERTISED_LISTENERS"] == f"PLAINTEXT://{broker}"
    config = load("ops/prometheus.yml")
    (job,) = config["scrape_configs"]
    told = [environment(one) for one in WORKERS]
    targets = [f"{one['MILEPOST_HOST']}:{one['MILEPOST_PORT']}" for one in told]
    assert job["static_configs"] == [{"targets": targets}]
    mounted = dict(one.split(":")[:2] for one in services["prometheus"]["volumes"])
    assert mounted["./ops/prometheus.yml"] == "/etc/prometheus/prometheus.yml"
    for rules in config["rule_files"]:
        assert mounted[f"./ops/{rules}"] == f"/etc/prometheus/{rules}"
    (source,) = load("ops/grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert f"--web.listen-address={source['url'].removeprefix('http://')}" in services["prometheus"]["command"]
    assert services["kafka"]["image"] == f"apache/kafka:{read_lock().kafka}"
    registry = environment("registry")
    address = f"http://{registry['QUARKUS_HTTP_HOST']}:{registry['QUARKUS_HTTP_PORT']}{API}"
    assert [environment(one)["MILEPOST_REGISTRY"] for one in WORKERS] == [address] * len(WORKERS)
    assert registry["APICURIO_KAFKASQL_BOOTSTRAP_SERVERS"] == broker
    assert services["registry"]["image"] == f"apicurio/apicurio-registry:{registry_lock().version}"


def test_images_are_pinned() -> None:
    """Every image that is fetched names its version to the dot; ours is built."""
    services = load("docker-compose.yml")["services"]
    images = [one["image"] for one in services.values() if "build" not in one]
    images += re.findall(r"^FROM (\S+)", (ROOT / "ops/Dockerfile").read_text(), re.MULTILINE)
    assert len(images) >= 5
    for image in images:
        assert re.search(r":v?\d+\.\d+\.\d+(-[\w.-]+)?$", image), image


def test_what_is_mounted_is_there() -> None:
    """Each file that a container mounts or an image copies lies in the repository."""
    services = load("docker-compose.yml")["services"]
    mounted = [one.split(":")[0] for service in services.values() for one in service.get("volumes", ())]
    for path in (one for one in mounted if one.startswith("./")):
        assert (ROOT / path).exists(), path
    for line in re.findall(r"^COPY (?!--)(.+)$", (ROOT / "ops/Dockerfile").read_text(), re.MULTILINE):
        for path in line.split()[:-1]:
            assert path == "README.md" or (ROOT / path).exists(), path


def test_the_dashboard_is_where_grafana_looks() -> None:
    """The provider's folder is the one that compose mounts, and the home dashboard lies in it."""
    provider = load("ops/grafana/provisioning/dashboards/milepost.yaml")["providers"][0]
    mounted = load("docker-compose.yml")["services"]["grafana"]["volumes"]
    folder = provider["options"]["path"]
    assert f"./ops/grafana/dashboards:{folder}:ro" in mounted
    home = Path(environment("grafana")["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == folder and (ROOT / "ops/grafana/dashboards" / home.name).is_file()
