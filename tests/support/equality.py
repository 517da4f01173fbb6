"""Equality: whole logs through the driver and through the oracle, and twenty random questions of each to both.

    python -m tests.support.equality 461             # one seed again: what is in it, and what is wrong

    total = Total(); total.add(equality(7)); total.rare(), total.wrong

One seed is one log, the questions and how the engine reads it: its chunks and the order of its legs.
"""

from __future__ import annotations

import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from multiprocessing import get_context

from milepost.topology.catalog import Catalog, load_bundle
from milepost.topology.driver import Driver
from tests.oracle.oracle import Oracle
from tests.support.asking import KINDS, STANDINGS, asking, differences
from tests.support.events import Scenario
from tests.support.invariants import conservation, same_counts
from tests.support.planned import HARD, planned
from tests.support.versus import REFUSED, counts_of, engine_of, oracle_of

QUESTIONS = 20
BLOCK = 50
"""Seeds that a process takes at a time."""
SHARE = 0.05
"""A case is to be in so many of the logs."""
STATES = ("pending", "in_progress", "achieved", "lapsed", "missed", "unknown_stale")
COPIES = {"copy", "read"}
"""Fates the oracle has no word for: the engine reads its own copies again, and counts them as read."""


@dataclass(kw_only=True)
class Equality:
    """What came of a seed.  labels: the cases in its log;  asked: questions by kind, and milestones by state"""

    seed: int
    records: int = 0
    cpu_s: float = 0.0
    wrong: list[str] = field(default_factory=list)
    labels: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)


@dataclass(kw_only=True)
class Total:
    """What many seeds add up to.  cases: in how many logs each is"""

    logs: int = 0
    records: int = 0
    cpu_s: float = 0.0
    wrong: dict[int, list[str]] = field(default_factory=dict)
    cases: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)

    def add(self, one: Equality) -> None:
        self.logs, self.records, self.cpu_s = self.logs + 1, self.records + one.records, self.cpu_s + one.cpu_s
        self.cases.update(one.labels.keys())
        self.asked += one.asked
        if one.wrong:
            self.wrong[one.seed] = one.wrong

    def rare(self) -> list[str]:
        """What was there too seldom for the comparison to say much: cases, kinds of questions, states of milestones."""
        few = [
            f"{name}: in {self.cases[name]} of {self.logs} logs"
            for name in HARD
            if self.cases[name] < self.logs * SHARE
        ]
        return few + [
            f"{name}: {self.asked[name]} times" for name in (*KINDS, *STATES) if self.asked[name] < self.logs * SHARE
        ]

    def table(self) -> list[str]:
        """Lines for a report."""
        cases = [f"{name} {100 * self.cases[name] / max(1, self.logs):.0f}" for name in HARD]
        lines = [f"cases, % of logs: {', '.join(cases[at : at + 8])}" for at in range(0, len(cases), 8)]
        for what, names in (("questions", KINDS), ("milestones that stood", STATES)):
            lines.append(f"{what}: " + ", ".join(f"{name} {self.asked[name]}" for name in names))
        each = 1000 * self.cpu_s / max(1, self.logs)
        return [
            *lines,
            f"{self.logs} logs, {self.records} records, {self.cpu_s:.0f} s of CPU time, {each:.0f} ms a log",
        ]


def equality(seed: int, questions: int = QUESTIONS) -> Equality:
    """One log through both."""
    begun, found = time.process_time(), Equality(seed=seed)
    try:
        _compare(found, planned(seed), random.Random(seed), questions)
    except Exception:  # noqa: BLE001 - an engine may fail at anything: the seed must be told
        found.wrong.append(f"I2: question {sum(found.asked[kind] for kind in KINDS)}: {traceback.format_exc(limit=-3)}")
    found.cpu_s = time.process_time() - begun
    return found


def _compare(found: Equality, scenario: Scenario, chance: random.Random, questions: int) -> None:
    engine, oracle = read(scenario, chance.choice((1, 7, 500)), found.seed)
    found.records, found.labels = scenario.size, scenario.labels
    counts = {name: n for name, n in counts_of(engine).items() if name not in COPIES}
    wanted = {name: n for name, n in oracle.counts.items() if name not in COPIES}
    found.wrong += conservation(counts_of(engine))
    found.wrong += same_counts(wanted, counts) if scenario.settled else []
    told_to_the_end(engine, scenario)
    for _ in range(questions):
        one = asking(scenario, chance)
        found.asked[one.kind] += 1
        answer, faults = differences(oracle, engine, scenario, one)
        found.wrong += faults
        if answer == REFUSED:
            found.asked[REFUSED] += 1
        elif one.kind in STANDINGS:
            found.asked.update(row[1] for row in answer.values())


def read(scenario: Scenario, chunk: int, seed: int) -> tuple[Driver, Oracle]:
    """The engine and the oracle behind a log."""
    return engine_of(scenario, chunk=chunk, seed=seed, driver=partial(Driver, load=_load)), oracle_of(scenario)


def told_to_the_end(engine: Driver, scenario: Scenario) -> None:
    """The last ticks: they tell how far each source has sent."""
    engine.tick(scenario.now_ms)
    engine.run()


def in_parallel(count: int, processes: int) -> Iterator[Equality]:
    """What comes of the seeds below `count`, in order, a block of them to a process."""
    blocks = [range(start, min(count, start + BLOCK)) for start in range(0, count, BLOCK)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for some in pool.map(_some, blocks):
            yield from some


def _some(seeds: range) -> list[Equality]:
    return [equality(seed) for seed in seeds]


def _load(files: Mapping[str, bytes]) -> Catalog:
    return _loaded(tuple(sorted(files.items())))


@lru_cache(maxsize=64)  # the same few bundles are applied in thousands of logs
def _loaded(files: tuple[tuple[str, bytes], ...]) -> Catalog:
    return load_bundle(dict(files))


def main(seeds: list[int]) -> int:
    """Say what is in some logs, and what is wrong."""
    total = Total()
    for seed in seeds:
        total.add(equality(seed))
        for wrong in total.wrong.get(seed, ()):
            print(f"seed {seed}: {wrong}")
    print("\n".join(total.table()))
    return bool(total.wrong)


if __name__ == "__main__":
    sys.exit(main([int(one) for one in sys.argv[1:]]))
