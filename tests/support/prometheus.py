"""Prometheus for tests: its programs where they are installed or fetched (`make prometheus`), and a live one.

Prometheus(targets, folder, rules) -> scrapes ops/prometheus.yml's way, every two seconds -> query, alerts
"""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from ruamel.yaml import YAML

from milepost.ops import telemetry
from milepost.ops.processes import free_ports

ROOT: Final = Path(__file__).resolve().parents[2]
FETCHED: Final = ROOT / ".venv" / "prometheus" / "usr" / "bin"
SCRAPE_S: Final = 2
OF_CLIENT: Final = frozenset(
    {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds"}
    | {"process_start_time_seconds", "up"}
)
"""Series that are not ours, and that may be asked for."""


def find(program: str) -> str | None:
    """The path of `prometheus` or `promtool`; None: it is not here."""
    return shutil.which(program) or shutil.which(program, path=str(FETCHED))


needed = pytest.mark.skipif(
    find("promtool") is None or find("prometheus") is None,
    reason="prometheus is not here; fix: make prometheus (or apt-get install prometheus)",
)


def promtool(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run promtool in a folder; stdout holds everything that it said."""
    program = find("promtool")
    assert program is not None
    return subprocess.run(
        [program, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
    )


def unknown(expression: str) -> list[str]:
    """What an expression names and nobody tells: series, and labels that no series of it has."""
    labels: dict[str, set[str]] = {name: {"job", "instance"} for name in OF_CLIENT}
    for one in telemetry.DECLARED:
        labels |= {series: {"job", "instance", "le", *one.labels} for series in one.series}
    bare = re.sub(r'"[^"]*"', '""', expression)
    series = set(re.findall(r"\b(?:milepost|process)_\w+|\bup\b", bare))
    wrong = sorted(series - labels.keys())
    known = set().union(*(labels.get(name, set()) for name in series)) if series else set()
    named = {one for some in re.findall(r"\b(?:by|on) \(([^)]*)\)", bare) for one in some.replace(" ", "").split(",")}
    named |= set(re.findall(r"(\w+)(?:=~|!=|!~|=)\"\"", bare))
    return wrong + sorted(named - known) + ([] if series else ["no series"])


class Prometheus:
    """A live Prometheus over workers, set up as ops/prometheus.yml says, but for its pace and targets."""

    def __init__(self, targets: Sequence[str], folder: Path, rules: str) -> None:
        program = find("prometheus")
        assert program is not None
        self.url = f"http://127.0.0.1:{free_ports(1)[0]}"
        folder.mkdir(parents=True)
        yaml = YAML(typ="safe")
        config = yaml.load((ROOT / "ops/prometheus.yml").read_text())
        config["global"] |= {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"}
        (job,) = config["scrape_configs"]
        job["static_configs"] = [{"targets": list(targets)}]
        with (folder / "prometheus.yml").open("w") as file:
            yaml.dump(config, file)
        (folder / "alerts.yml").write_text(rules)
        self.log = folder / "prometheus.log"
        with self.log.open("wb") as out:
            self._process = subprocess.Popen(
                [
                    program,
                    f"--config.file={folder}/prometheus.yml",
                    f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                ],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Prometheus:
        self.wait(lambda: self._answers("/-/ready"), "Prometheus is not ready")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait(self, true: Callable[[], object], what: str, seconds: float = 60.0) -> None:
        until = time.monotonic() + seconds
        while not true():
            assert self._process.poll() is None, f"Prometheus ended:\n{self.log.read_text()[-2000:]}"
            assert time.monotonic() < until, f"{what} after {seconds:.0f} s"
            time.sleep(0.25)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The vector that an expression gives now, without what is no number.  AssertionError when it is refused."""
        found = self._get("/api/v1/query", query=expression)["result"]
        return [one for one in found if not math.isnan(float(one["value"][1]))]

    def since(self, expression: str, seconds: float) -> list[dict[str, Any]]:
        """The series that an expression gave in the last so many seconds: `values` are the numbers."""
        now = time.time()
        found = self._get("/api/v1/query_range", query=expression, start=now - seconds, end=now, step=SCRAPE_S)
        return [
            {**one, "values": values}
            for one in found["result"]
            if (values := [float(value) for _, value in one["values"] if not math.isnan(float(value))])
        ]

    def alerts(self) -> dict[str, list[dict[str, str]]]:
        """Name -> labels of each alert that is pending or fires."""
        found: dict[str, list[dict[str, str]]] = {}
        for one in self._get("/api/v1/alerts")["alerts"]:
            labels = dict(one["labels"])
            found.setdefault(labels.pop("alertname"), []).append(labels)
        return found

    def _get(self, path: str, **asked: Any) -> Any:
        url = f"{self.url}{path}?{urllib.parse.urlencode(asked)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                told = json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{asked}: {error.read().decode()[:500]}") from error
        assert told["status"] == "success", (asked, told)
        return told["data"]

    def _answers(self, path: str) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
