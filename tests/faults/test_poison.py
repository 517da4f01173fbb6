"""F13, the deadly kind: a record that ends the process is found, condemned, and passed over for good."""

from __future__ import annotations

import signal

import pytest

from milepost.ops.flights import FlightEvent
from milepost.ops.provision import admin_client, provision
from milepost.ops.settings import Settings
from milepost.schemas import stamps
from milepost.schemas.serde import wire
from milepost.topology.line import LEGS
from tests.support.flights_driver import driver_digest
from tests.support.keeper import Kept, control, dealt, firsts, kept
from tests.support.workers import Deployment

pytestmark = [pytest.mark.broker, pytest.mark.slow]

SOME = 1200
LEG = {"ingest": "Ingest", "measure": "MeasureLeg"}
MEASURED = ("facts", "cells", "days", "named")
"""The tables of measure that an event has a part in."""


def deadly(leg: str, event: FlightEvent, deed: str = "os.kill(os.getpid(), signal.SIGSEGV)") -> str:
    """A mutant whose fold of `leg` does `deed` when `event` is among the records."""
    return (
        f"import os, signal\nfrom milepost.topology.{leg} import {LEG[leg]} as Leg\n"
        f"fold, mark = Leg.fold, {event.id.encode()!r}\n"
        f"def deadly(self, at, records):\n"
        f"    if any(mark in (one.value or b'') for one in records):\n        {deed}\n"
        f"    return fold(self, at, records)\n"
        f"Leg.fold = deadly"
    )


def verdicts(deployment: Deployment, topic: str) -> int:
    """How many records of the topic are condemned by verdicts in it."""
    found = [one for one in deployment.read(topic) if (one.key() or b"").startswith(b"verdict")]
    assert all(dict(one.headers())[stamps.HEADER][:1] == stamps.VERDICT for one in found)
    return len({(one.partition(), wire("Verdict").decode(one.value())["offset"]) for one in found})


def lose_changelogs(deployment: Deployment) -> None:
    """Everything but the log itself is gone: state folders and changelogs."""
    deployment.lose_state()
    admin = admin_client(deployment.settings)
    names = [deployment.settings.topic(leg.changelog) for leg in LEGS]
    for future in admin.delete_topics(names, operation_timeout=20).values():
        future.result(timeout=20)
    provision(deployment.settings)


@dealt("F13", "poison: deadly records, bytes of every kind")
def test_a_record_that_kills_ingest_is_condemned_and_a_replay_knows_it(settings: Settings) -> None:
    """A segfault in the fold: few restarts, one dead letter, the tables without it; sent again it is passed over at once;
    a replay into an empty engine by the same deadly worker ends no process and gives the same tables."""
    events = firsts(SOME)
    bad = events[SOME // 2]
    wanted = driver_digest([one for one in events if one is not bad])
    with Deployment(settings) as deployment:
        deployment.apply()
        deployment.send(events)
        with kept(deployment, deadly("ingest", bad)) as worker:
            deployment.settle()
            assert deployment.digest() == wanted
            assert deployment.dead() == {("quarantine", "poison"): 1}
            lives = worker.supervisor.restarts
            assert 5 <= lives <= 7, lives
            deployment.send([bad, bad])
            deployment.settle()
            assert deployment.dead() == {("quarantine", "poison"): 3}
            assert (worker.supervisor.restarts, deployment.digest()) == (lives, wanted)
        assert verdicts(deployment, "raw-events") == 1
        lose_changelogs(deployment)
        with kept(deployment, deadly("ingest", bad)) as worker:
            deployment.settle()
            assert (worker.supervisor.restarts, deployment.digest()) == (0, wanted)
            assert deployment.dead() == {("quarantine", "poison"): 3}


@pytest.mark.campaign
@dealt("F13", "poison: deadly records, bytes of every kind")
def test_a_message_that_measure_cannot_fold_is_found_with_one_restart(settings: Settings) -> None:
    """An exception in the fold is searched for its record in the next life; facts and cells are those without it, also
    when they are restored from the log."""
    events = firsts(SOME)
    bad = events[SOME // 3]
    others, whole = driver_digest([one for one in events if one is not bad]), driver_digest(events)
    wanted = {name: (others if name in MEASURED else whole)[name] for name in whole if name not in ("total", "members")}
    mutant = deadly("measure", bad, "raise RuntimeError('cannot')")

    def right(worker: Kept) -> bool:
        found = deployment.digest()
        return {name: found[name] for name in wanted} == wanted

    with Deployment(settings) as deployment:
        deployment.apply()
        deployment.send(events)
        with kept(deployment, mutant) as worker:
            deployment.settle()
            assert worker.supervisor.restarts == 1
            assert right(worker)
            assert deployment.dead() == {("quarantine", "poison"): 1}
        assert verdicts(deployment, "signals") == 1
        for lose in (deployment.lose_state, lambda: lose_changelogs(deployment)):
            lose()
            with kept(deployment, mutant) as worker:
                deployment.settle()
                assert right(worker) and worker.supervisor.restarts == 0


@pytest.mark.campaign
@dealt("F13", "poison: deadly records, bytes of every kind", 7)
def test_kills_from_outside_condemn_nothing(settings: Settings) -> None:
    """Seven lives in a row end with the first records folded, sent or acknowledged: nothing is condemned."""
    events = firsts(SOME)
    with Deployment(settings) as deployment:
        deployment.apply()
        deployment.send(events)
        for point in ("after_fold:1",) * 3 + ("outputs_acked:1",) * 3 + ("batch_acked:1",):
            assert deployment.start(point, ready=False).wait_end() == -signal.SIGKILL
        deployment.start()
        deployment.settle()
        assert deployment.digest() == driver_digest(events)
        assert deployment.dead() == {}
        assert verdicts(deployment, "raw-events") == verdicts(deployment, "signals") == 0


@pytest.mark.campaign
@dealt("F13", "poison: deadly records, bytes of every kind", 6)
def test_a_machine_that_crashes_at_every_record_condemns_none(settings: Settings) -> None:
    """Where the others crash too, no record is at fault: the worker dies again and again, and comes back whole."""
    events = firsts(300)
    broken = (
        "import os, signal\nfrom milepost.topology.ingest import Ingest\n"
        "Ingest.fold = lambda *_: os.kill(os.getpid(), signal.SIGSEGV)"
    )
    with Deployment(settings) as deployment:
        deployment.apply()
        deployment.send(events)
        for _ in range(6):
            assert deployment.start(mutant=broken, ready=False).wait_end() == -signal.SIGSEGV
        deployment.start()
        deployment.settle()
        assert deployment.digest() == driver_digest(events)
        assert verdicts(deployment, "raw-events") == 0


@pytest.mark.campaign
@dealt("F13", "poison: deadly records, bytes of every kind", 4)
def test_a_signal_under_definitions_that_nobody_applied_does_not_stop_its_partition(settings: Settings) -> None:
    """A forged message that names an unknown bundle is a dead letter after a short wait, and stays one on a replay."""
    events = firsts(SOME)
    with Deployment(settings) as deployment:
        deployment.apply()
        deployment.send(events[: SOME // 2])
        deployment.start()
        deployment.settle()
        real = next(one for one in deployment.read("signals") if len(one.key() or b"") == 32)
        forged = {**wire("Signals").decode(real.value()), "bundle": b"nobody's", "raw_offset": 10**12}
        for partition in range(deployment.settings.partitions):
            deployment.put("signals", [(partition, b"forged", wire("Signals").encode(forged))])
        deployment.send(events[SOME // 2 :])
        deployment.settle()
        dead = {("quarantine", "unknown_schema"): deployment.settings.partitions}
        assert (deployment.digest(), deployment.dead()) == (driver_digest(events), dead)
        deployment.kill()
        lose_changelogs(deployment)
        deployment.start()
        deployment.settle()
        assert (deployment.digest(), deployment.dead()) == (driver_digest(events), dead)


@pytest.mark.campaign
@control("every crash blamed on the record")
def test_an_engine_that_blames_the_record_for_every_crash_is_noticed(settings: Settings) -> None:
    """Positive control: without `held` and without trying others, kills from outside condemn an innocent."""
    events = firsts(300)
    rash = (
        "from milepost.agents.careful import Careful\nnote = Careful.note\n"
        "async def rash(self, kind, part, crashes=0):\n    if kind != 'held':\n        await note(self, kind, part, crashes)\n"
        "Careful.note = rash\n"
    )
    with Deployment(settings, partitions=1) as deployment:
        deployment.apply()
        deployment.send(events)
        for _ in range(8):
            deployment.start("outputs_acked:1", ready=False, mutant=rash).wait_end()
        deployment.start()
        deployment.settle()
        assert verdicts(deployment, "raw-events") + verdicts(deployment, "signals") > 0
        assert deployment.digest() != driver_digest(events)
