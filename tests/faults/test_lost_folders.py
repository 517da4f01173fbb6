"""F8 and Show 6: state folders lost while the worker is down, under the running worker, and killed while restoring."""

from __future__ import annotations

import shutil
import signal

import pytest

from milepost.ops.flights import import_order
from milepost.ops.settings import Settings
from tests.faults.conftest import Sized
from tests.support.flights_driver import driver_digest
from tests.support.keeper import control, dealt, firsts, kept
from tests.support.workers import LEGS, Deployment, week

pytestmark = [pytest.mark.broker, pytest.mark.slow]


@dealt("F8", "state folder lost; kill during restore", 10, 2)
def test_ten_lost_folders_in_one_import_change_nothing(settings: Settings, sized: Sized) -> None:
    """Five folders deleted under the running worker, five while it is down, nothing done by hand: one digest."""
    lost = sized(10, 2)
    events = firsts(sized(len(week()), 3000))
    order = import_order(len(events), seed=71)
    size = -(-len(order) // (lost + 1))
    parts = [[events[number] for number in order[at : at + size]] for at in range(0, len(order), size)]
    with Deployment(settings) as deployment:
        places = [(leg, number) for number in range(deployment.settings.partitions) for leg in LEGS]
        deployment.apply()
        with kept(deployment) as worker:
            for turn in range(lost):
                leg, number = places[turn % len(places)]
                folder = deployment.settings.state / f"{leg}-{number}"
                deployment.send(parts[turn])
                pid, folded = worker.pid, deployment.folded("ingest")
                deployment.wait(lambda folded=folded: deployment.folded("ingest") > folded + 200, "it does not go on")
                if turn % 2:
                    shutil.rmtree(folder)
                else:
                    worker.shoot()
                    worker.supervisor.worker.wait()  # type: ignore[union-attr]
                    shutil.rmtree(folder)
                deployment.wait(lambda pid=pid: worker.pid != pid, f"{folder.name} is not missed")
                deployment.wait(lambda: bool(worker.status().get("ready")), "the worker does not come back")
                deployment.wait(lambda folded=folded: deployment.folded("ingest") >= folded, "it has gone back")
                assert (folder / "CURRENT").exists()
            deployment.send(parts[-1])
            deployment.settle()
            assert worker.supervisor.restarts == lost
            assert deployment.digest() == driver_digest(events)
            if lost > 2:  # one kill may come where everything had landed
                assert deployment.processed_again() > 0


@pytest.mark.campaign
@dealt("F8", "state folder lost; kill during restore", 5)
def test_kills_during_a_restore_change_nothing(settings: Settings) -> None:
    """A lost folder, then kill -9 at five places of its restore, one after another: the digest is the same."""
    some = firsts(3000)
    with Deployment(settings) as deployment:
        deployment.apply()
        deployment.send(some)
        deployment.start()
        deployment.settle()
        deployment.kill()
        deployment.lose_state()
        for fault in ("own_appended:2", "restoring:1", "restoring:3", "restored:1", "restored:6"):
            worker = deployment.start(fault, ready=False)
            assert worker.wait_end() == -signal.SIGKILL, f"{fault}: {worker.told()}"
        deployment.start()
        deployment.settle()
        assert deployment.digest() == driver_digest(some)


@pytest.mark.campaign
@dealt("F8", "state folder lost; kill during restore")
def test_a_restore_that_stands_still_ends_the_worker(settings: Settings) -> None:
    """A restore that makes no progress ends with code 1, so that the supervisor starts it again; the next one works."""
    stuck = (
        "import asyncio\nfrom milepost.agents import bindings, opening\nbindings.STUCK_S = 3.0\n"
        "async def never(*args, **kwargs):\n    await asyncio.sleep(3600)\nopening.restore_source = never"
    )
    some = firsts(200)
    with Deployment(settings) as deployment:
        deployment.apply()
        deployment.send(some)
        worker = deployment.start(mutant=stuck, ready=False)
        assert worker.wait_end() == 1
        assert "no progress" in worker.log
        deployment.start()
        deployment.settle()
        assert deployment.digest() == driver_digest(some)


@pytest.mark.campaign
@control("no look at the folder")
def test_a_worker_that_does_not_look_writes_into_deleted_files(settings: Settings) -> None:
    """Positive control: without the look at its folder the worker goes on, and has no store when it is started again."""
    blind = "from milepost.agents.store import Rocks\nRocks.gone = lambda self: ''"
    forgets = "from milepost.agents.restore import Restore\nRestore._row = lambda *_: None"
    some = firsts(600)
    with Deployment(settings) as deployment:
        deployment.apply()
        deployment.send(some[:300])
        deployment.start(mutant=blind)
        deployment.settle()
        shutil.rmtree(deployment.settings.state)
        deployment.send(some[300:])
        deployment.settle()
        assert deployment.worker.alive and not deployment.settings.state.exists()
        assert deployment.digest() == driver_digest(some)
        deployment.kill()
        deployment.start(mutant=forgets)
        deployment.settle()
        assert deployment.digest() != driver_digest(some)
