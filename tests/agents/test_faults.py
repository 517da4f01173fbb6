"""Crash points."""

from __future__ import annotations

import subprocess
import sys

import pytest

from milepost.agents import faults
from milepost.schemas.errors import DeclarationError


@pytest.mark.parametrize(
    "spec",
    [
        "nowhere",
        "after_fold:0",
        "after_fold:x",
        "after_fold:-1",
        ":3",
        "after_fold:²",
        "nowhere/after_fold",
        "/after_fold",
        "record/nowhere",
    ],
)
def test_a_point_that_does_not_exist_is_refused(spec: str) -> None:
    """A misspelt crash point declines to start, and names the points."""
    with pytest.raises(DeclarationError, match="after_fold"):
        faults.arm(spec)


def test_unarmed_points_do_nothing() -> None:
    """Without FAULT_AT the points are one function that returns."""
    faults.arm("")
    for name in faults.POINTS:
        faults.point(name)
    assert faults.point is faults._nothing


def test_of_one_leg_the_others_passages_do_not_count() -> None:
    """`record/name:2` is kill -9 at the second passage of that name by the leg `record`."""
    code = (
        "from milepost.agents import faults; faults.arm('record/after_fold:2')\n"
        "faults.point('after_fold')\nfaults.point('after_fold', 'measure')\nfaults.point('after_fetch', 'record')\n"
        "for n in range(9):\n    print(n, flush=True); faults.point('after_fold', 'record')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={"PYTHONPATH": "src"}
    )
    assert (done.returncode, done.stdout.split()) == (-9, ["0", "1"])


def test_the_third_passage_kills() -> None:
    """`name:3` is kill -9 at the third passage of that name and of no other."""
    code = (
        "from milepost.agents import faults; faults.arm('after_fold:3')\n"
        "for _ in range(9):\n    faults.point('after_fetch')\n"
        "for n in range(9):\n    print(n, flush=True); faults.point('after_fold')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={"PYTHONPATH": "src"}
    )
    assert (done.returncode, done.stdout.split()) == (-9, ["0", "1", "2"])
