"""The worker killed with -9: at every named crash point, and in the middle of an import.  Nothing is lost or doubled."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator, Sequence

import pytest

from milepost.agents.faults import POINTS
from milepost.ops.flights import FlightEvent, import_order
from milepost.ops.settings import Settings
from tests.support import flights_expected as other
from tests.support.flights_driver import week_digest
from tests.support.invariants import held, same_answers
from tests.support.workers import Deployment, positions, week

pytestmark = [pytest.mark.broker, pytest.mark.slow]

PASSAGE = {
    "after_fetch": 5, "after_fold": 9, "outputs_half": 3, "outputs_acked": 4, "batch_sent": 5, "batch_acked": 6,
    "local_written": 7, "committed": 8, "own_appended": 3, "restoring": 3, "restored": 5,
}  # fmt: skip
"""At which passage each crash point kills: not the first, so that something lies before it."""

FOLDER_LOST_BEFORE = ("outputs_acked", "local_written", "restoring")
"""Lives that begin without a state folder, so that there is something to restore."""


def parts(count: int, seed: int) -> Iterator[Sequence[FlightEvent]]:
    """The week's import, 5 % twice, cut into `count` parts."""
    order = import_order(len(week()), seed=seed)
    size = -(-len(order) // count)
    return ([week()[number] for number in order[at : at + size]] for at in range(0, len(order), size))


def check(deployment: Deployment) -> None:
    """Digest and answers are those of a run that nobody disturbed; then again from the changelogs alone."""
    deployment.settle()
    assert deployment.digest() == week_digest()
    expected = other.expected(other.first_week(other.read_csv())).totals
    answers = deployment.answers()
    held(same_answers(expected, {metric: answers[metric, "corrected", ""] for metric in expected}))
    assert deployment.dead() == {}
    deployment.kill()
    deployment.lose_state()
    deployment.start()
    deployment.settle()
    assert deployment.digest() == week_digest()
    assert deployment.answers() == answers


def test_every_crash_point_is_survived(settings: Settings) -> None:
    """One life after another ends at each crash point while events come in; digest and answers are undisturbed."""
    assert set(PASSAGE) == set(POINTS)
    with Deployment(settings) as deployment:
        deployment.apply()
        for point, some in zip(POINTS, parts(len(POINTS), seed=31), strict=True):
            deployment.send(some)
            if point in FOLDER_LOST_BEFORE:
                deployment.lose_state()
            worker = deployment.start(f"{point}:{PASSAGE[point]}", ready=False)
            assert worker.wait_end() == -signal.SIGKILL, f"{point}: {worker.told()}"
        deployment.start()
        check(deployment)
        assert deployment.processed_again() > 0


def test_five_kills_in_the_middle_of_an_import(settings: Settings) -> None:
    """Killed between 5 % and 95 % of the import, once with a checkpoint half done, once with its outputs sent."""
    chance = random.Random(32)
    faults = ["", "batch_sent:11", "", "outputs_acked:11", ""]
    records = sum(len(some) for some in parts(1, seed=33))
    killed_at: list[float] = []
    with Deployment(settings) as deployment:
        deployment.apply()
        first, *others = parts(len(faults) + 3, seed=33)
        deployment.send(first)
        for fault in faults:
            worker = deployment.start(fault)
            before = deployment.folded("ingest")
            deployment.send(others.pop(0))
            if fault:
                assert worker.wait_end() == -signal.SIGKILL, f"{fault}: {worker.told()}"
            else:
                wanted = max(before + 400, records // 16)
                deployment.wait(lambda wanted=wanted: deployment.folded("ingest") >= wanted, f"{wanted} not folded")
                time.sleep(chance.uniform(0.0, 0.2))
                killed_at.append(sum(at for (leg, _), at in positions(deployment.kill()).items() if leg == "ingest"))
        assert all(0.05 < at / records < 0.95 for at in killed_at), killed_at
        deployment.start()
        for some in others:
            deployment.send(some)
        check(deployment)
        assert deployment.processed_again() > 0


def test_a_worker_that_goes_on_one_record_too_far_is_noticed(settings: Settings) -> None:
    """Positive control: restarted behind X+1 instead of at it, the worker misses events, and the digest says so."""
    mutant = "from milepost.agents.restore import Restore\nx = Restore.x.fget\nRestore.x = property(lambda self: x(self) + 40)"
    one, other_half = parts(2, seed=34)
    with Deployment(settings) as deployment:
        deployment.apply()
        deployment.send(one)
        deployment.start()
        deployment.settle()
        deployment.kill()
        deployment.send(other_half)
        deployment.start(mutant=mutant)
        deployment.settle()
        found = deployment.digest()
        assert {"seen", "facts", "cells", "total"} <= {name for name in found if found[name] != week_digest()[name]}
