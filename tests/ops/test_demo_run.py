"""The command `milepost demo`, whole: an embedded broker, a supervised worker, the first week of flights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from milepost.ops.client import Client
from milepost.ops.demo_data import read_demo
from milepost.ops.settings import DEMO_SECRET
from tests.support import demo_answers
from tests.support import flights_expected as other
from tests.support.broker import broker_ports, shared_jars
from tests.support.flights_driver import driver_digest

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

    @contextmanager
    def serving(self) -> Iterator[tuple[dict[str, Any], Client]]:
        """The demo without an end of its own: the JSON it printed, and a client of its worker."""
        errors = self.folder.parent / "stderr"
        with errors.open("wb") as stderr:
            running = subprocess.Popen(
                self.command("--json"), env=self.environment(), stdout=subprocess.PIPE, stderr=stderr, text=True
            )
        assert running.stdout is not None
        try:
            line = running.stdout.readline()
            assert line, errors.read_text()[-3000:] + self.told()
            with Client(f"http://127.0.0.1:{self.port}") as client:
                yield json.loads(line), client
        finally:
            running.send_signal(signal.SIGINT)
            running.wait(60)

    def milepost(self, *arguments: str) -> str:
        """What a command prints."""
        command = [sys.executable, "-m", "milepost", *arguments]
        done = subprocess.run(command, env=self.environment(), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

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
    broker_port, port = broker_ports()
    return Home(folder=tmp_path / "home", broker_port=broker_port, port=port)


@pytest.mark.campaign
def test_the_first_week_answers_as_the_csv_and_a_second_start_imports_nothing(home: Home) -> None:
    """Totals, airlines, airports and milestones are those of polars; the second start sends nothing, answers and digest
    are the same, and its worker knows the aircraft."""
    first = home.run()
    flights, weather = (other.first_week(frame) for frame in (other.read_csv(), other.read_weather()))
    demo_answers.right(first, flights, weather)
    events = first["events"]
    assert (events["sent"], events["accepted"], events["duplicates"]) == (15_978 + 799 + 3, 15_981, 799)
    assert (events["dead_letters"], set(events["drops"])) == (0, {"no_rule"})
    assert first["digest"] == driver_digest(read_demo(week=True), secret=DEMO_SECRET)["total"]
    assert home.processes() == []
    with home.serving() as (second, client):
        assert second["events"]["sent"] == 0
        same = ("totals", "by_company", "by_place", "milestones", "complete_to", "finality", "digest")
        assert [second[name] for name in same] == [first[name] for name in same]
        demo_answers.known(client, weather)
        shown = json.loads(home.milepost("records", "show", "aircraft", "N14228", "--json"))
        assert shown["value"]["model"] == "737-824"
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
