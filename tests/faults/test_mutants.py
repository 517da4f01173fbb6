"""Mutants: patches that each leave one rule out of the engine; the suite that each names must notice.

In `make test` the quickest of each kind run, in the campaign all.  A survivor fails, and so does a patch that has gone
stale: then it no longer says anything.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.support import mutants
from tests.support.mutants import Mutant, Stale
from tests.support.report import mutant as tell

ALL: Final = mutants.mutants()
QUICK: Final = (
    "batch-before-outputs", "origin-dropped", "algorithms-too-wide",
)  # fmt: skip
"""One of the steps, one of the signals, one of the doors."""

WANTED: Final = (
    "no-guard-by-upto", "commit-before-batch", "batch-before-outputs", "local-write-before-batch", "no-own",
    "no-contiguity-check", "prev-ignored", "goes-on-at-committed", "acknowledged-on-exception",
    "dedupe-in-another-batch", "wall-clock-in-a-stage", "random-signal-id", "revision-missing-from-the-id",
    "place-instead-of-first-position", "origin-dropped", "partition-count-not-compared", "signals-keyed-by-grouping",
    "damage-swallowed", "late-event-dropped", "dead-letter-not-awaited", "organisation-missing-from-a-cache-key",
    "completion-known-before-it-was", "completion-shown-before-it-was", "missed-without-completeness", "heard-ignored",
    "recognised-by-what-came-later", "tick-void-ignored", "amended-tick-counts-twice", "unlink-leaves-the-edge-open",
    "membership-has-no-end", "edition-by-place", "definitions-of-now-shown", "algorithms-too-wide",
    "stream-checked-at-connect-only", "host-not-checked", "origin-not-checked", "role-not-checked",
    "another-organisation-reached", "revocation-not-looked-up", "seal-of-a-token-not-checked", "change-before-its-line",
)  # fmt: skip
"""The rules of log, state and signals, of what was known when, and of the doors: none may be without its mutant."""


def test_every_rule_has_its_mutant() -> None:
    """The rules that are wanted each have a patch, and the quick ones are among them."""
    assert set(WANTED) | set(QUICK) <= {one.name for one in ALL}


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_a_mutant_applies(one: Mutant, tmp_path: Path) -> None:
    """Each patch fits the code as it is: one that does not is stale and must be made anew."""
    mutants.apply(one, mutants.copy_of_the_rooms(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_a_mutant_is_killed(one: Mutant, tmp_path: Path, sized: Callable[[int, int], int]) -> None:
    """The suite that the patch names fails on the engine that it breaks."""
    if one.name not in QUICK and not sized(1, 0):
        pytest.skip("in the campaign")
    killed, said = mutants.run(one, tmp_path)
    tell(one.name, killed_by=" ".join(one.killed_by) if killed else "")
    assert killed, f"{one.name} lives ({one.rule}):\n{said}"


def test_an_unchanged_copy_survives(tmp_path: Path) -> None:
    """Negative control: what kills a mutant is its patch, not the copy."""
    unchanged = Mutant(name="unchanged", rule="none", killed_by=("simulator", "15"), hunks=())
    killed, said = mutants.run(unchanged, tmp_path)
    assert not killed, said


def test_a_stale_patch_says_so(tmp_path: Path) -> None:
    """A patch whose lines are not in the code is refused with the words to make it anew."""
    (tmp_path / "old.patch").write_text("rule: r\nkilled by: simulator 1\n--- a/topology/panes.py\n@@\n-no such line\n")
    old = mutants.read(tmp_path / "old.patch")
    with pytest.raises(Stale, match="make the patch anew"):
        mutants.apply(old, mutants.copy_of_the_rooms(tmp_path))
