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
from tests.support.workers import Deployment, week

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
    with Deployment(settings) as deployment:
        deployment.apply()
        first, *middle, last = parts(len(faults) + 2, seed=33)
        deployment.send(first)
        for fault, some in zip(faults, middle, strict=True):
            worker = deployment.start(fault)
            deployment.send(some)
            if fault:
                assert worker.wait_end() == -signal.SIGKILL, f"{fault}: {worker.told()}"
            else:
                time.sleep(chance.uniform(0.1, 0.5))
                deployment.kill()
        deployment.start()
        deployment.send(last)
        check(deployment)
        assert deployment.processed_again() > 0
