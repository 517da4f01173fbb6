"""O1: two thousand whole logs beside the oracle (tests/support/equality), twenty random questions of each."""

from __future__ import annotations

import os
from typing import Final

import pytest

from tests.support.equality import Total, in_parallel
from tests.support.report import fault

LOGS: Final = 2000
"""`make test` takes a hundred of them: tests/topology/test_equality.py."""


@pytest.mark.campaign
def test_every_answer_is_the_oracles() -> None:
    """Events, amendments, voids, links, unlinks, memberships, ticks, other definitions and completeness in any order:
    whatever is asked of them is answered as by a plain computation over the log, and each hard case is often there."""
    total = Total()
    with fault("O1", "logs beside the oracle") as told:
        for one in in_parallel(LOGS, os.cpu_count() or 1):
            total.add(one)
        told.count, told.seeds = total.logs, sorted(total.wrong)
        for line in total.table():
            told.note(line)
        told.holds("I2", [f"seed {seed}: {one}" for seed, found in total.wrong.items() for one in found])
        told.holds("I14", [f"too seldom: {one}" for one in total.rare()])
