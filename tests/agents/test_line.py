"""The line as it runs: the first week of flights through a broker and a worker process, held against the pure driver."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from milepost.agents import transport
from milepost.agents.transport import ChunkConsumer
from milepost.ops.flights import listed
from milepost.ops.processes import free_ports
from milepost.ops.settings import Settings
from tests.support import flights_expected as other
from tests.support.flights_driver import week_digest
from tests.support.invariants import conservation, held, same_answers
from tests.support.runs import Run
from tests.support.workers import Deployment, week

pytestmark = [pytest.mark.broker, pytest.mark.slow]


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(Run(partitions=3, chunk=7, repeats=0.5, seed=11), marks=pytest.mark.campaign),
        Run(partitions=1, chunk=4000, repeats=0.0, seed=12, lost=True),
    ],
    ids=str,
)
def test_the_worker_has_the_tables_of_the_driver(settings: Settings, run: Run) -> None:
    """Another shuffle, repeats, partitions, chunks, a lost folder: the digest is the driver's.  One event more shows."""
    with run.deployment(settings) as deployment:
        assert run.through(deployment) == week_digest()
        deployment.send([listed("ZZ", "An airline that nobody knows")])
        deployment.settle()
        more = deployment.digest()
        assert {name for name in more if more[name] != week_digest()[name]} == {"seen", "keys", "edges", "total"}


def test_the_worker_answers_as_the_csv(settings: Settings) -> None:
    """Every total equals a computation over the CSV by another library; every record has come to exactly one end."""
    run = Run(seed=13)
    with run.deployment(settings) as deployment:
        assert run.through(deployment) == week_digest()
        expected = other.expected(other.first_week(other.read_csv())).totals
        answers = deployment.answers()
        held(same_answers(expected, {metric: answers[metric, "corrected", ""] for metric in expected}))
        fates: dict[str, int] = deployment.worker.status()["fates"]["ingest"]
        held(conservation({**fates, "rule_pairs": 2 * 6064 + 35}))
        assert deployment.worker.stop() == 0


def test_a_writer_reads_its_own_writes(settings: Settings) -> None:
    """A receipt of the gateway, passed as `after`, is in the very next answer, without any pause; its outcome is told."""
    with Deployment(settings) as deployment:
        deployment.apply()
        with deployment.start().client() as client:
            for i in range(25):
                told = client.post("/v1/events", {
                    "org": "port-authority", "source": "flights", "id": f"own-{i}", "type": "flight.departed",
                    "time": "2013-01-01T05:17:00-05:00",
                    "data": {"carrier": "UA", "flight": i, "tailnum": f"N{i}", "origin": "EWR", "dest": "IAH",
                             "dep_delay": 1.0, "distance": 1.0},
                })  # fmt: skip
                receipt = told["items"][0]["receipt"]
                assert client.value("departures", after=receipt)["value"] == i + 1
                assert client.value("aircraft_in_service", after=receipt)["value"] == i + 1
            outcome = client.get(f"/v1/events/{receipt}")
            assert outcome["outcome"] == "accepted" and len(outcome["signals"]) == 2
            told = client.post(
                "/v1/events", {"org": "port-authority", "source": "flights", "id": "own-x", "type": "no"}
            )
            outcome = client.get(f"/v1/events/{told['items'][0]['receipt']}")
            assert (outcome["outcome"], outcome["reason"]) == ("dead_letter", "contract_violation")
            explained = client.get("/v1/metrics/departures/explain", limit=10, after=receipt)
            assert explained["agrees"] is True and len(explained["rows"]) == 10


def test_a_worker_comes_back_at_another_port(settings: Settings) -> None:
    """Killed and started with another web port at once, it is given its partitions and answers the same."""
    with Deployment(settings) as deployment:
        deployment.apply()
        deployment.send(week())
        deployment.start()
        deployment.settle()
        deployment.kill()
        deployment.start(port=free_ports(1)[0])
        deployment.settle()
        assert deployment.digest() == week_digest()


def test_a_dead_coordinator_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiokafka's coordinator logs its death and goes; a worker without membership must not wait for ever."""
    ended: list[str] = []
    monkeypatch.setattr(transport, "end", lambda reason, **_: ended.append(reason))
    for done, error in ((False, None), (True, None), (True, AssertionError("the address"))):
        task = SimpleNamespace(
            done=lambda done=done: done, cancelled=lambda: False, exception=lambda error=error: error
        )
        consumer: Any = SimpleNamespace(
            _thread=SimpleNamespace(_consumer=SimpleNamespace(_coordinator=SimpleNamespace(_coordination_task=task)))
        )
        ChunkConsumer.look_at_membership(consumer)
        assert ended == (
            ["the membership in the consumer group has ended: AssertionError('the address')"] if error else []
        )
