"""F10: a full disk under the stores, and a slow one.  The worker says so, keeps answering, and goes on by itself."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from milepost.ops.flights import FlightEvent, import_order
from milepost.ops.settings import Settings
from tests.support.flights_driver import driver_digest
from tests.support.keeper import control, dealt, firsts, kept
from tests.support.workers import Deployment, week

pytestmark = [pytest.mark.broker, pytest.mark.slow]

DISK_BYTES = 64 * 1024 * 1024


SOME: Final = 3000


def parts(count: int, seed: int) -> list[Sequence[FlightEvent]]:
    """Some events of the week, 5 % twice, in any order, in `count` parts."""
    order = import_order(SOME, seed=seed)
    size = -(-len(order) // count)
    return [[week()[number] for number in order[at : at + size]] for at in range(0, len(order), size)]


@pytest.fixture
def small_disk(settings: Settings) -> Iterator[Path]:
    """A disk of 64 MB where the stores lie."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    place = settings.home / "state"
    place.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


class Ballast:
    """A file that leaves no room beside it."""

    def __init__(self, disk: Path) -> None:
        self.file = disk / "ballast"
        self.fill()

    def fill(self) -> None:
        """Take all room there is."""
        with self.file.open("ab", buffering=0) as out:
            try:
                while out.write(b"\0" * 65536):
                    pass
            except OSError:
                return

    def throw(self) -> None:
        self.file.unlink()


def reasons(deployment: Deployment) -> str:
    """What /readyz says is wrong, "" when nothing is."""
    connection = http.client.HTTPConnection("127.0.0.1", deployment.settings.port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        body = json.loads(answer.read())
    except OSError as error:
        return f"no answer: {error}"
    finally:
        connection.close()
    return "" if answer.status == 200 else " ".join(body["reasons"])


@dealt("F10", "full state disk, then freed")
def test_a_full_disk_stops_the_worker_and_room_lets_it_go_on(settings: Settings, small_disk: Path) -> None:
    """Red with the reason and still answering while the disk is full; with room it goes on, the same process, all there."""
    first, second, third = parts(3, seed=61)
    with Deployment(settings) as deployment:
        deployment.apply()
        deployment.send(first)
        with kept(deployment) as worker:
            deployment.settle()
            pid, landed = worker.pid, deployment.landed("ingest")
            before = deployment.answers()
            ballast = Ballast(small_disk)
            deployment.send(second)
            deployment.wait(lambda: "no room" in reasons(deployment), "the full disk is not said")
            ballast.fill()  # what RocksDB gave back meanwhile
            deployment.send(third)
            assert deployment.answers().keys() >= before.keys()
            stalled = deployment.worker.status()["legs"]
            assert any(told["stalled"] for told in stalled.values())
            acknowledged = deployment.landed("ingest")
            total = sum(deployment.ends("raw-events").values())
            assert landed <= acknowledged < total
            ballast.throw()
            deployment.settle()
            assert deployment.digest() == driver_digest(firsts(SOME))
            assert reasons(deployment) == ""
            assert (worker.pid, worker.supervisor.restarts) == (pid, 0)


@pytest.mark.campaign
@dealt("F10", "full state disk, then freed")
def test_a_disk_that_is_full_at_the_start_is_waited_for(settings: Settings, small_disk: Path) -> None:
    """A worker with a lost folder and no room to restore it says so, sets nothing aside, and restores when it can."""
    with Deployment(settings) as deployment:
        deployment.apply()
        deployment.send(firsts(SOME))
        deployment.start()
        deployment.settle()
        deployment.kill()
        for one in deployment.settings.state.iterdir():
            subprocess.run(["rm", "-rf", str(one)], check=True)
        ballast = Ballast(small_disk)
        worker = deployment.start(ready=False)
        deployment.wait(lambda: "no room" in reasons(deployment), "the full disk is not said")
        deployment.wait(
            lambda: deployment.worker.status().get("ready") is False, "it does not say that it is not ready"
        )
        ballast.throw()
        deployment.settle()
        assert deployment.digest() == driver_digest(firsts(SOME))
        assert worker.alive and not list(small_disk.rglob("*quarantine*"))


@pytest.mark.campaign
@dealt("F10", "full state disk, then freed")
def test_a_slow_disk_only_takes_longer(settings: Settings) -> None:
    """With 0.2 s for each write the line does the same work, and is never taken for stuck."""
    slow = (
        "import time\nfrom milepost.agents.store import Rocks\nquick = Rocks.write\n"
        "Rocks.write = lambda self, changes: (time.sleep(0.2), quick(self, changes))[1]"
    )
    with Deployment(settings) as deployment:
        deployment.apply()
        deployment.send(firsts(SOME))
        deployment.start(mutant=slow)
        deployment.settle()
        deployment.kill()
        deployment.lose_state()
        deployment.start(mutant=slow)
        deployment.settle()
        assert deployment.digest() == driver_digest(firsts(SOME))


@pytest.mark.campaign
@control("a refused write taken for written")
def test_a_worker_that_drops_what_has_no_room_is_noticed(settings: Settings, small_disk: Path) -> None:
    """Positive control: a refused write that is taken for written loses rows, and the digest says so."""
    drops = (
        "from milepost.agents import room\nasync def having(self, step):\n    try:\n        step()\n"
        "    except room.store.DiskFull:\n        pass\nroom.Room.having = having"
    )
    first, second = parts(2, seed=62)
    with Deployment(settings) as deployment:
        deployment.apply()
        deployment.send(first)
        deployment.start(mutant=drops)
        deployment.settle()
        ballast = Ballast(small_disk)
        deployment.send(second)
        deployment.settle()
        ballast.throw()
        assert deployment.digest() != driver_digest(firsts(SOME))
