"""The full year: two shuffles, six kills in the middle of the import, a lost folder, and one digest."""

from __future__ import annotations

import signal
import threading
from functools import cache

import pytest

from milepost.ops.flights import Flights, read_flights
from milepost.ops.imports import import_flights
from milepost.ops.settings import Settings
from tests.support import flights_expected as other
from tests.support.broker import TestBroker
from tests.support.invariants import held, same_answers
from tests.support.workers import Deployment

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.usefixtures("full_year")]

KILLED_AT = (0.06, 0.28, 0.5, 0.72, 0.93)
"""Shares of the import that the worker has folded when it is killed."""

SETTLED_S = 1800.0


@cache
def year() -> Flights:
    return read_flights()


def test_two_shuffles_six_kills_and_a_lost_folder_have_one_digest(broker: TestBroker, settings: Settings) -> None:
    """The year undisturbed, and again in another order with six kills, one in the middle of a checkpoint: digest and answers are equal and right."""
    again = f"{settings.namespace}-again"
    expected = other.expected(other.read_csv()).totals
    with Deployment(settings) as deployment:
        deployment.apply()
        deployment.start()
        import_flights(deployment.settings, year(), seed=41, say=print)
        deployment.settle(SETTLED_S)
        undisturbed, answers = deployment.digest(), deployment.answers()
        held(same_answers(expected, {metric: answers[metric, "corrected", ""] for metric in expected}))
        deployment.worker.stop()
    with Deployment(settings, namespace=again, home=settings.home / "again") as deployment:
        deployment.apply()
        deployment.start()
        importing = threading.Thread(
            target=import_flights, args=(deployment.settings, year()), kwargs={"seed": 42, "say": print}
        )
        importing.start()
        for share in KILLED_AT:
            wanted = share * len(year())
            deployment.wait(lambda wanted=wanted: deployment.folded("ingest") >= wanted, f"{share} folded", SETTLED_S)
            if share == KILLED_AT[2]:
                deployment.kill()
                worker = deployment.start("batch_sent:25")
                assert worker.wait_end(SETTLED_S) == -signal.SIGKILL
            else:
                deployment.kill()
            deployment.start()
        importing.join()
        deployment.settle(SETTLED_S)
        assert deployment.digest() == undisturbed
        assert deployment.processed_again() > 0
        deployment.kill()
        deployment.lose_state()
        deployment.start()
        deployment.settle(SETTLED_S)
        assert deployment.digest() == undisturbed
        assert deployment.answers() == answers
    broker.drop(again)
