"""The command `milepost demo`, whole: an embedded broker, a supervised worker, the first week of flights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from milepost.ops.processes import free_ports, taken
from tests.support import flights_expected as other
from tests.support.broker import shared_jars

pytestmark = pytest.mark.broker

SOURCES = Path(__file__).parents[2] / "src"


@dataclass(frozen=True, kw_only=True)
class Home:
    """A fresh home, with ports of its own."""

    folder: Path
    broker_port: int
    port: int

    def command(self, *more: str) -> list[str]:
        return [sys.executable, "-m", "milepost", "demo", "--week", *more]

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(SOURCES),
            "MILEPOST_HOME": str(self.folder),
            "MILEPOST_JARS": str(shared_jars()),
            "MILEPOST_BROKER_PORT": str(self.broker_port),
            "MILEPOST_PORT": str(self.port),
        }

    def run(self, *more: str) -> dict[str, Any]:
        """Run the demo to its end; the JSON it printed."""
        done = subprocess.run(
            self.command("--exit", "--json", *more), env=self.environment(), capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr[-3000:] + self.told()
        assert done.stdout.count("\n") == 1, "stdout holds the JSON alone"
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def told(self) -> str:
        log = self.folder / "log" / "worker-1.log"
        return log.read_text(errors="replace")[-3000:] if log.exists() else ""

    def processes(self) -> list[str]:
        """Command lines of processes that belong to this home."""
        found = []
        for process in psutil.process_iter():
            try:
                line, home = " ".join(process.cmdline()), process.environ().get("MILEPOST_HOME")
            except psutil.Error:
                continue
            if process.pid != os.getpid() and (str(self.folder) in line or home == str(self.folder)):
                found.append(line)
        return found


@pytest.fixture
def home(tmp_path: Path) -> Home:
    while True:
        broker_port, port = free_ports(2)
        if not taken(broker_port + 1):
            return Home(folder=tmp_path / "home", broker_port=broker_port, port=port)


def test_the_first_week_answers_as_the_csv_and_a_second_start_imports_nothing(home: Home) -> None:
    """Totals and airlines are those of polars; the second start sends nothing, answers and digest are the same."""
    first = home.run()
    expected = other.expected(other.first_week(other.read_csv()))
    assert first["totals"] == pytest.approx(expected.totals)
    assert first["by_company"].keys() == expected.by_company.keys()
    for carrier, own in expected.by_company.items():
        assert first["by_company"][carrier] == pytest.approx(own), carrier
    events = first["events"]
    assert (events["sent"], events["accepted"], events["duplicates"]) == (12_158 + 608, 12_158, 608)
    assert (events["dead_letters"], set(events["drops"])) == (0, {"no_rule"})
    assert len(first["digest"]) == 64
    assert home.processes() == []
    second = home.run()
    assert second["events"]["sent"] == 0
    assert (second["totals"], second["by_company"]) == (first["totals"], first["by_company"])
    assert second["digest"] == first["digest"]
    assert home.processes() == []


@pytest.mark.parametrize("after", ["broker", "import"])
def test_a_signal_in_the_middle_leaves_no_process(home: Home, after: str) -> None:
    """Ctrl-C while the parts start, or while events are sent, ends the demo and everything it had started."""
    heard = {"broker": "answers on", "import": "applied"}[after]
    running = subprocess.Popen(home.command(), env=home.environment(), stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    told = []
    for line in running.stderr:
        told.append(line)
        if heard in line:
            break
    assert running.poll() is None, "".join(told)
    running.send_signal(signal.SIGINT)
    running.stderr.read()
    running.wait(60)
    until = time.monotonic() + 5
    while home.processes() and time.monotonic() < until:
        time.sleep(0.1)
    assert home.processes() == []
