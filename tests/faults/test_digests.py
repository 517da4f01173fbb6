"""One digest for the same events: order, repeats, partitions, chunks and a lost folder do not show in any table.

Nine runs meet every pair of what may differ; two more are broken on purpose.
"""

from __future__ import annotations

from itertools import combinations

import pytest

from milepost.ops.flights import FlightEvent, listed
from milepost.ops.settings import Settings
from tests.support.flights_driver import driver_digest, week_digest
from tests.support.runs import Run
from tests.support.workers import week

pytestmark = [pytest.mark.broker, pytest.mark.slow]

LEVELS = {"partitions": (1, 3, 8), "chunk": (1, 7, 4000), "repeats": (0.0, 0.5), "lost": (False, True)}

RUNS = [
    Run(seed=21, partitions=1, chunk=1, repeats=0.0, lost=True),
    Run(seed=22, partitions=1, chunk=7, repeats=0.5, lost=False),
    Run(seed=23, partitions=1, chunk=4000, repeats=0.5, lost=True),
    Run(seed=24, partitions=3, chunk=1, repeats=0.5, lost=False),
    Run(seed=25, partitions=3, chunk=7, repeats=0.0, lost=True),
    Run(seed=26, partitions=3, chunk=4000, repeats=0.0, lost=False),
    Run(seed=27, partitions=8, chunk=1, repeats=0.5, lost=True),
    Run(seed=28, partitions=8, chunk=7, repeats=0.5, lost=True),
    Run(seed=29, partitions=8, chunk=4000, repeats=0.0, lost=False),
]


def test_the_runs_meet_every_pair() -> None:
    """Each two levels of two different things come together in some run, and no order comes twice."""
    for one, other in combinations(LEVELS, 2):
        met = {(getattr(run, one), getattr(run, other)) for run in RUNS}
        assert met == {(a, b) for a in LEVELS[one] for b in LEVELS[other]}, (one, other)
    assert len({run.seed for run in RUNS}) == len(RUNS)


IN_EVERY_RUN = {22}
"""Seeds of those that `make test` takes too."""


@pytest.mark.parametrize(
    "run",
    [pytest.param(run, id=str(run), marks=[] if run.seed in IN_EVERY_RUN else [pytest.mark.campaign]) for run in RUNS],
)
def test_the_first_week_has_one_digest(settings: Settings, run: Run) -> None:
    """Table by table the digest of the running worker is that of the driver over the same events."""
    with run.deployment(settings) as deployment:
        assert run.through(deployment) == week_digest()


@pytest.mark.campaign
def test_one_second_on_one_known_time_shows(settings: Settings) -> None:
    """Positive control: one event of 12,158 known one second later has another digest, and one event more another."""
    late = week()[4711]

    def shift(event: FlightEvent) -> int:
        return 1000 if (event.source, event.id) == (late.source, late.id) else 0

    run = Run(seed=30, repeats=0.0)
    with run.deployment(settings) as deployment:
        found = run.through(deployment, shift)
        assert found == driver_digest(week(), shift)
        assert {"seen", "total"} <= {name for name in found if found[name] != week_digest()[name]}
        deployment.send([listed("ZZ", "An airline that nobody knows")])
        deployment.settle()
        more = deployment.digest()
        assert {name for name in more if more[name] != found[name]} == {"seen", "keys", "edges", "total"}
