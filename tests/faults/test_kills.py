"""The worker killed with -9 (F2, F3, F4): at random, at every named crash point, thirty times in a row."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from milepost.agents.faults import POINTS
from milepost.ops.flights import FlightEvent, import_order
from milepost.ops.settings import Settings
from tests.support.checks import Kept, Progress, Watch, full, owners, quick, week_totals
from tests.support.flights_driver import week_digest
from tests.support.hostile import Feed
from tests.support.invariants import same_answers, same_bytes, same_set
from tests.support.report import Told, fault, percentile
from tests.support.workers import LEGS, SIGNAL_KEY_BYTES, Deployment, week

pytestmark = [pytest.mark.broker, pytest.mark.slow]

Sized = Callable[[int, int], int]

PASSAGE = {
    "after_fetch": 5, "after_fold": 9, "outputs_half": 3, "outputs_acked": 4, "batch_sent": 5, "batch_acked": 6,
    "local_written": 7, "committed": 8, "own_appended": 3, "restoring": 3, "restored": 5,
}  # fmt: skip
"""At which passage each crash point kills: not the first, so that something lies before it."""

FOLDER_LOST_BEFORE = ("outputs_acked", "local_written", "restoring")
"""Lives that begin without a state folder, so that there is something to restore."""

RECOVERY_P95_S_MAX = 20.0
"""Loose on purpose: the goal of 5 s is reported, a busy machine must not fail the run."""


def parts(count: int, seed: int) -> Iterator[Sequence[FlightEvent]]:
    """The week's import, 5 % twice, cut into `count` parts."""
    order = import_order(len(week()), seed=seed)
    size = -(-len(order) // count)
    return ([week()[number] for number in order[at : at + size]] for at in range(0, len(order), size))


def check(deployment: Deployment, told: Told) -> None:
    """Digest and answers are those of a run that nobody disturbed; then again from the changelogs alone."""
    deployment.settle()
    told.holds("I2", same_set("digest", week_digest(), deployment.digest()))
    expected = week_totals()
    answers = deployment.answers()
    told.holds("I2", same_answers(expected, {metric: answers[metric, "corrected", ""] for metric in expected}))
    told.holds("I1", [f"I1: a dead letter: {reason}" for reason in deployment.dead()])
    signals = [one for one in deployment.read("signals") if len(one.key() or b"") == SIGNAL_KEY_BYTES]
    told.holds("I3", same_bytes((one.key(), one.value()) for one in signals))
    told.processed_again += len(signals) - len({one.key() for one in signals})
    for leg in LEGS:
        told.holds("I4", owners(deployment.read(f"{leg}-changelog"))[0])
    deployment.kill()
    deployment.lose_state()
    deployment.start()
    deployment.settle()
    told.holds("I5", same_set("digest from the changelogs", week_digest(), deployment.digest()))
    told.holds("I5", same_set("answers from the changelogs", answers, deployment.answers()))


def test_every_crash_point_is_survived(settings: Settings, sized: Sized) -> None:
    """One life after another ends at each crash point while events come in; digest and answers are undisturbed."""
    assert set(PASSAGE) == set(POINTS)
    points = list(POINTS) if sized(1, 0) else ["after_fold", "outputs_half", "batch_sent", "committed", "restoring"]
    with fault("F3", "kill -9 at each crash point", seed=31) as told, Deployment(settings) as deployment:
        deployment.apply()
        for point, some in zip(points, parts(len(points), seed=31), strict=True):
            deployment.send(some)
            if point in FOLDER_LOST_BEFORE:
                deployment.lose_state()
            worker = deployment.start(f"{point}:{PASSAGE[point]}", ready=False)
            assert worker.wait_end() == -signal.SIGKILL, f"{point}: {worker.told()}"
            told.count += 1
            told.fired(point)
        deployment.start()
        check(deployment, told)
        assert told.processed_again > 0


def recovery_s(deployment: Kept, name: str, before: int, since: float) -> float:
    """Seconds from `since` until ingest has folded beyond `before`."""
    deployment.wait(lambda: deployment.folded("ingest") > before, f"{name} makes no progress after a kill")
    return time.monotonic() - since


def test_kills_at_random_under_hostile_input(settings: Settings, sized: Sized) -> None:
    """Killed with -9 again and again while events come in every order and number: nothing is lost or doubled."""
    chance = random.Random(32)
    with (
        fault("F2", "kill -9 at random", seed=32) as told,
        Kept(settings, session_timeout_s=6) as deployment,
        Watch(deployment) as watch,
    ):
        deployment.apply()
        progress = Progress()
        feed = Feed(deployment, seed=32, rate=400, events=sized(0, 3000))
        feed.start()
        name = deployment.keep().name
        for number in range(sized(25, 3)):
            deployment.pause(chance.uniform(0.2, 1.5))
            before = deployment.folded("ingest")
            deployment.workers[name].kill()
            killed = time.monotonic()
            deployment.keep(name)
            told.recovered(recovery_s(deployment, name, before, killed))
            told.count += 1
            if number % 4 == 2:
                quick(deployment, told, watch, progress)
        feed.finish()
        full(deployment, told, watch, feed)
        assert told.processed_again > 0
        if sized(1, 0):  # of three the worst is what a busy machine makes of it
            assert percentile(told.recovery_s, 0.95) <= RECOVERY_P95_S_MAX


@pytest.mark.campaign
def test_another_worker_takes_over_what_a_killed_one_had(settings: Settings, sized: Sized) -> None:
    """Killed and not started again: within the session's time-out and a little the other worker makes progress."""
    with (
        fault("F2", "kill -9 at random", seed=33) as told,
        Kept(settings, session_timeout_s=6) as deployment,
        Watch(deployment) as watch,
    ):
        deployment.apply()
        feed = Feed(deployment, seed=33, rate=300, events=4000)
        feed.start()
        deployment.keep("worker-1")
        deployment.keep("worker-2")
        took: list[float] = []
        for number in range(sized(3, 1)):
            gone, stays = ("worker-1", "worker-2") if number % 2 == 0 else ("worker-2", "worker-1")
            deployment.wait(lambda: len(shares(deployment)) == 2, "two workers share the partitions")
            lost = shares(deployment)[gone]
            before = dict(lost)
            deployment.let_go(gone)
            deployment.workers[gone].kill()
            killed = time.monotonic()
            deployment.wait(
                lambda stays=stays, before=before: all(
                    shares(deployment).get(stays, {}).get(at, -1) > offset for at, offset in before.items()
                ),
                f"{stays} has not taken over {sorted(lost)}",
            )
            took.append(time.monotonic() - killed)
            told.count += 1
            if number + 1 < sized(3, 1):
                deployment.keep(gone)
        told.note(f"taken over by another worker after {', '.join(f'{one:.1f}' for one in took)} s (time-out 6 s)")
        assert percentile(took, 0.95) <= 6 + RECOVERY_P95_S_MAX
        feed.finish()
        full(deployment, told, watch, feed)
        assert told.rebalances > 0


def shares(deployment: Deployment) -> dict[str, dict[int, int]]:
    """Worker -> raw partition -> next offset, of the workers that have any."""
    found = {}
    for worker in deployment.running:
        at = worker.status().get("legs", {}).get("ingest", {}).get("next_offset", {})
        if at:
            found[worker.name] = {int(number): offset for number, offset in at.items()}
    return found


@pytest.mark.campaign
def test_thirty_kills_in_a_row(settings: Settings, sized: Sized, campaign: bool) -> None:
    """Killed every 0.1 to 1 s, mostly before it is ready, at times in the middle of a restore: exact in the end."""
    chance = random.Random(34)
    with (
        fault("F4", "kills 0.1 to 1 s apart", seed=34) as told,
        Kept(settings, session_timeout_s=6) as deployment,
        Watch(deployment) as watch,
    ):
        deployment.apply()
        feed = Feed(deployment, seed=34, rate=400, events=sized(6000, 3000))
        feed.start()
        name = deployment.keep().name
        deployment.pause(1.0)
        for _ in range(sized(30, 6)):
            deployment.workers[name].kill()
            deployment.keep(name, ready=False)
            time.sleep(chance.uniform(0.1, 1.0))
            told.count += 1
        before = deployment.folded("ingest")
        ended = time.monotonic()
        told.recovered(recovery_s(deployment, name, before, ended))
        feed.finish()
        full(deployment, told, watch, feed, restore=campaign)


@pytest.mark.campaign
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
