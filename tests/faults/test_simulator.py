"""F1: seeded histories of the whole line over the real engine (tests/support/simulator), and that a seed is a history."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Final

import pytest

from milepost.agents.faults import POINTS
from tests.support.mutants import ROOT
from tests.support.report import fault
from tests.support.simulator.history import histories, in_parallel

Sized = Callable[[int, int], int]

KINDS: Final = (
    "answer lost", "compact", "ended with 75", "evict", "kill", "killed behind a late batch", "late batch",
    "late bytes of a dead sender", "late bytes of a stopped sender", "leave", "left out of a rebalance", "lose",
    "lose running", "old copy", "rebalance", "records cleaned", "records processed again", "redelivered",
    "static member came back", "stop", "taken again", "torn outputs", "replayed", "asked beside the oracle",
    "full disk", "refused by a full disk", "rebuilt", "a fold without memory", "recognised",
)  # fmt: skip
"""What must have happened at least once in any two hundred histories, or they proved less than they say."""

SOAK: Final = int(os.environ.get("MILEPOST_SIMULATED", "0"))
"""So many histories instead, for a soak."""


def test_no_history_ends_wrong(sized: Sized) -> None:
    """Whatever crashes, stops, lands late or is lost: live, restored and replayed tables are an undisturbed run's."""
    count = SOAK or sized(2000, 200)
    total: Counter[str] = Counter()
    wrong: dict[int, list[str]] = {}
    with fault("F1", "simulated histories") as told:
        for one in in_parallel(count, os.cpu_count() or 1) if count > 500 else histories(range(count)):
            total.update(one.stats)
            if one.wrong:
                wrong[one.seed] = one.wrong
                told.seeds.append(one.seed)
        told.count = count
        told.processed_again = total["records processed again"]
        told.rebalances = total["rebalance"]
        for point in POINTS:
            told.fired(point, total[f"killed at {point}"])
        told.note(f"{total['lives']} lives, {total['late batch']} late batches, {total['compact']} cleanings")
        told.holds("I2", [f"seed {seed}: {found}" for seed, found in wrong.items()])
        told.holds("I5", [f"seed {seed}: {one}" for seed, found in wrong.items() for one in found if "rest" in one])
        told.holds("I14", [f"never met: {kind}" for kind in KINDS if not total[kind]])
        told.holds("I14", ["too many records condemned"] if total["condemned"] > count / 20 else [])
        told.holds("I14", [f"nobody died at {point}" for point in POINTS if not total[f"killed at {point}"]])


@pytest.mark.campaign
def test_a_seed_is_a_history() -> None:
    """The same seed gives the same history, event by event, also in another process with other hashes."""
    first = [one.trace for one in histories(range(20))]
    assert first == [one.trace for one in histories(range(20))]
    assert len(set(first)) == 20
    traces = []
    for hashes in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.simulator", "0", "20"], cwd=ROOT, capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": hashes, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))},
        )  # fmt: skip
        traces.append(json.loads(done.stdout.splitlines()[-1])["trace"])
    assert traces[0] == traces[1]
