"""The legs `record` and `achieve` under faults: killed at each crash point of theirs, folders lost and damaged, zombies.

The deployment holds a fleet (tests/support/fleet.py), because the flights have no records that change and plans of which
nothing is left to say.  `record` has tables and a changelog; `achieve` has none: what it has said lies in `milestones`,
so its crash points are those between a record and its mark, and its restore is the reading of that log.
"""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections import defaultdict
from typing import Any
from urllib.parse import quote

import pytest

from milepost.agents.ending import ZOMBIE
from milepost.agents.faults import POINTS
from milepost.ops.settings import Settings
from milepost.schemas.errors import MilepostError
from milepost.topology.bases import instant
from milepost.topology.digest import digest
from milepost.topology.panes import PANE_MS
from milepost.topology.recognitions import Recognition, load
from tests.faults.conftest import Sized
from tests.faults.test_damage import delete, flip, truncate
from tests.support.checks import owners, rebuilt
from tests.support.fleet import ORG, Fleet, holding
from tests.support.hostile import content
from tests.support.invariants import conservation, same_bytes, same_set
from tests.support.keeper import kept
from tests.support.report import Told, fault
from tests.support.workers import LEGS, SIGNAL_KEY_BYTES, Deployment

pytestmark = [pytest.mark.broker, pytest.mark.slow]

SESSION_S = 6
SAID_S = 120.0

RECORD_PASSAGE = {
    "after_fetch": 2, "after_fold": 2, "outputs_half": 1, "outputs_acked": 2, "batch_sent": 2, "batch_acked": 2,
    "local_written": 2, "committed": 2, "own_appended": 2, "restoring": 2, "restored": 3,
}  # fmt: skip
"""At which passage each crash point of `record` kills."""
ACHIEVE_PASSAGE = {
    "after_fold": 2, "outputs_half": 2, "outputs_acked": 1, "restoring": 2, "batch_sent": 1, "restored": 2, "committed": 1,
}  # fmt: skip
"""The same of `achieve`.  Of four partitions one at most is done in each life that ends at a mark, so there is one left."""
FOLDER_LOST_BEFORE = ("outputs_acked", "restoring")
FOREIGN = b"no message of ours"
"""A value on `record-changes` that makes `record` write: a dead letter."""


def marked(deployment: Deployment) -> int:
    """The bucket end up to which every partition has said everything; 0: not all have said anything."""
    told = deployment.status().get("milestones", {})
    ends = [instant(one) // PANE_MS if one else 0 for one in told.values()]
    return min(ends) if len(ends) == deployment.settings.partitions else 0


def said(deployment: Deployment) -> dict[bytes, bytes]:
    """What `milestones` holds up to now, after waiting until all is said; each record with one content."""
    now = int(time.time() * 1000) // PANE_MS - 1
    deployment.wait(lambda: marked(deployment) >= now, "not all is said of milestones", SAID_S, 0.5)
    found: dict[bytes, set[bytes]] = defaultdict(set)
    for message in deployment.read("milestones"):
        one = load(message.value())
        if isinstance(one, Recognition) and one.k <= now:
            found[message.key()].add(message.value())
    assert all(len(contents) == 1 for contents in found.values()), "a recognition was said with other bytes"
    return {key: contents.pop() for key, contents in found.items()}


def wanted(deployment: Deployment, fleet: Fleet) -> dict[bytes, bytes]:
    """What a walk says up to now.  Nothing is left to say after the deadlines, so that now is no matter."""
    return fleet.said(deployment.settings.partitions, int(time.time() * 1000) // PANE_MS - 1)


def records(deployment: Deployment, fleet: Fleet) -> dict[tuple[str, str], Any]:
    """(type, id) -> the versions of a record that hold, as the worker answers."""
    with deployment.asked().client() as client:
        return {
            (type, id): holding(client.get(f"/v1/records/{type}/{quote(id)}/history", limit=1000, org=ORG)["versions"])
            for type, id in fleet.undisturbed().records
        }


def check(deployment: Deployment, told: Told, fleet: Fleet, *, foreign: int = 0) -> None:
    """I1 to I6 of the whole line, with records and milestones.  foreign: values that were no message of ours"""
    deployment.settle()
    undisturbed = fleet.undisturbed()
    for worker in deployment.running:
        for fates in filter(None, [worker.status().get("fates", {}).get("ingest")]):
            told.holds("I1", conservation(fates))
    dead = {("records", "not_decodable"): foreign} if foreign else {}
    told.holds("I1", same_set("dead letters", dead, deployment.dead()))
    signals = [one for one in deployment.read("signals") if len(one.key() or b"") == SIGNAL_KEY_BYTES]
    told.holds("I1", same_set("signals", undisturbed.signals, {one.key(): content(one.value()) for one in signals}))
    told.holds("I2", same_set("digest", undisturbed.digest, deployment.digest()))
    told.holds("I2", same_set("records", undisturbed.records, records(deployment, fleet)))
    if fleet.planned:
        told.holds("I2", same_set("milestones", wanted(deployment, fleet), said(deployment)))
    changes = [one for one in deployment.read("record-changes") if one.value() != FOREIGN]
    for messages in (signals, changes):
        told.holds("I3", same_bytes((one.key(), one.value()) for one in messages))
        told.processed_again += len(messages) - len({one.key() for one in messages})
    for leg in LEGS:
        faults, hands = owners(deployment.read(f"{leg}-changelog"))
        told.holds("I4", faults)
        told.rebalances += hands
    for chunk in (1, 7, 500):
        again = digest(rebuilt(deployment, chunk, seed=chunk).reader)
        told.holds("I6", same_set(f"digest of the raw log in chunks of {chunk}", undisturbed.digest, again))
    spoken = len(deployment.read("milestones"))
    deployment.kill(deployment.running[0].name)
    deployment.lose_state()
    deployment.start()
    deployment.settle()
    told.holds("I5", same_set("digest from the changelogs", undisturbed.digest, deployment.digest()))
    told.holds("I5", same_set("records from the changelogs", undisturbed.records, records(deployment, fleet)))
    if fleet.planned:
        told.holds("I5", same_set("milestones from their log", wanted(deployment, fleet), said(deployment)))
    more = len(deployment.read("milestones")) - spoken
    assert more <= 2 * deployment.settings.partitions, f"{more} records of milestones were said again: more than marks"


def test_record_survives_every_crash_point(settings: Settings, sized: Sized) -> None:
    """One life after another ends at each crash point of `record` while events come in; some have lost their folders."""
    assert set(RECORD_PASSAGE) == set(POINTS)
    fleet = Fleet.of_late(61, planned=False)
    points = list(POINTS) if sized(1, 0) else ["after_fold", "outputs_half", "batch_acked", "restoring"]
    with fault("F3", "kill -9 at each crash point", seed=61) as told, Deployment(settings) as deployment:
        fleet.apply(deployment)
        for point, some in zip(points, fleet.parts(len(points)), strict=True):
            fleet.send(deployment, some)
            if point == "outputs_half":
                deployment.put("record-changes", [(number, b"foreign", FOREIGN) for number in range(2)])
            if point in FOLDER_LOST_BEFORE and deployment.lives:
                deployment.lose_state()
            worker = deployment.start(f"record/{point}:{RECORD_PASSAGE[point]}", ready=False)
            assert worker.wait_end() == -signal.SIGKILL, f"{point}: {worker.told()}"
            told.count += 1
            told.fired(f"record/{point}")
        deployment.start()
        check(deployment, told, fleet, foreign=2)
        assert told.processed_again > 0


def test_achieve_survives_every_crash_point(settings: Settings, sized: Sized) -> None:
    """Killed where something is known and not said, said and not marked, marked and not acknowledged, and while it reads
    what was said: the next life says the rest, and nothing otherwise."""
    fleet = Fleet.of_late(62)
    points = list(ACHIEVE_PASSAGE) if sized(1, 0) else ["outputs_acked"]
    with fault("F3", "kill -9 at each crash point", seed=62) as told, Deployment(settings) as deployment:
        fleet.apply(deployment)
        fleet.send(deployment, fleet.disordered(62))
        for point in points:
            worker = deployment.start(f"achieve/{point}:{ACHIEVE_PASSAGE[point]}", ready=False)
            assert worker.wait_end() == -signal.SIGKILL, f"{point}: {worker.told()}"
            told.count += 1
            told.fired(f"achieve/{point}")
        deployment.start()
        check(deployment, told, fleet)
        spoken = [one.key() for one in deployment.read("milestones") if isinstance(load(one.value()), Recognition)]
        again = len(spoken) - len(set(spoken))
        told.note(f"achieve: {again} recognitions of {len(set(spoken))} were said again after {len(points)} kills")
        assert spoken


@pytest.mark.campaign
def test_folders_of_records_are_lost_and_damaged(settings: Settings, sized: Sized) -> None:
    """A folder of records deleted under the running worker, deleted and damaged while it is down: nothing by hand."""
    fleet = Fleet.of_late(63, planned=False)
    chance = random.Random(63)
    damages = [("*.log", truncate), ("*.sst", flip), ("CURRENT", delete), ("MANIFEST-*", flip)][: sized(4, 2)]
    parts = fleet.parts(5)
    with fault("F8", "state folder lost; kill during restore", seed=63) as told, Deployment(settings) as deployment:
        state = deployment.settings.state
        fleet.apply(deployment)
        fleet.send(deployment, parts.pop())
        with kept(deployment) as worker:
            deployment.settle()
            pid = worker.pid
            shutil.rmtree(state / "record-0")
            fleet.send(deployment, parts.pop())
            deployment.wait(lambda: worker.pid != pid, "record-0 is not missed")
            deployment.settle()
            pid = worker.pid
            worker.shoot()
            worker.supervisor.worker.wait()  # type: ignore[union-attr]
            shutil.rmtree(state / "record-1")
            fleet.send(deployment, parts.pop())
            deployment.wait(lambda: worker.pid != pid, "it does not come back")
            deployment.settle()
            assert worker.supervisor.restarts == 2
        told.count += 2
        fleet.send(deployment, parts.pop())
        deployment.start()
        deployment.settle()
        deployment.kill()
        for number, (pattern, damage) in enumerate(damages):
            folder = state / f"record-{number}"
            paths = [one for one in sorted(folder.glob(pattern)) if one.stat().st_size]
            assert paths, f"nothing like {pattern} to damage in {folder.name}"
            for path in paths:
                damage(path, chance)
            told.count += 1
        fleet.send(deployment, parts.pop())
        with kept(deployment):
            deployment.settle()
            read_all(deployment, fleet)
        told.note(
            f"folders of records: {len(damages)} damaged, {len(list(state.glob('record-*.quarantine-*')))} set aside"
        )
        assert not parts
        deployment.start()
        check(deployment, told, fleet)


def read_all(deployment: Deployment, fleet: Fleet) -> None:
    """Read every record until all are right: flipped bits are found by whoever reads them, and the worker starts again."""
    until = time.monotonic() + 60
    while True:
        try:
            found = records(deployment, fleet)
        except MilepostError:
            found = {}
        if found == fleet.undisturbed().records:
            return
        assert time.monotonic() < until, f"it does not heal:\n{deployment.worker.told()}"
        time.sleep(0.3)


SLOW = """
import asyncio
from milepost.agents import achieve
ask = achieve.Achieving._ask
async def slowly(self, *given):
    await asyncio.sleep(0.4)
    return await ask(self, *given)
achieve.Achieving._ask = slowly
"""


@pytest.mark.campaign
def test_a_zombie_of_achieve_says_nothing_otherwise(settings: Settings) -> None:
    """Stopped in the middle of what it has to say, replaced and woken: its records are the bytes of its heir's."""
    fleet = Fleet.of_late(64)
    with (
        fault("F5", "SIGSTOP past the session, SIGCONT", seed=64) as told,
        Deployment(settings, session_timeout_s=SESSION_S) as deployment,
    ):
        fleet.apply(deployment)
        fleet.send(deployment, fleet.disordered(64))
        zombie = deployment.start(mutant=SLOW)
        deployment.wait(lambda: sum(deployment.ends("milestones").values()) > 5, "nothing was said")
        zombie.expected = True
        zombie.process.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        heir = deployment.start(name="worker-2")
        told.recovered(time.monotonic() - stopped)
        deployment.wait(lambda: len(heir.status()["milestones"]) == deployment.settings.partitions, "not taken over")
        time.sleep(max(0.0, stopped + 2 * SESSION_S - time.monotonic()))
        before = sum(deployment.ends("milestones").values())
        zombie.process.send_signal(signal.SIGCONT)
        told.count += 1
        deployment.wait(lambda: sum(deployment.ends("milestones").values()) > before or not zombie.alive, "no word")
        if zombie.alive:
            time.sleep(3)
            zombie.stop()
        assert zombie.process.returncode in (0, ZOMBIE), zombie.told()
        check(deployment, told, fleet)
        assert told.rebalances > 0
