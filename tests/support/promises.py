"""Promises of sources, engine against oracle: a log whose bundles say `expect`, asked at its moments and at its breaches.

    wrong = faults(promising(7), chunk=7)

A breach that the engine tells is held against the oracle at its beginning and its end, and a millisecond before each.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from milepost.topology.bases import instant
from milepost.topology.driver import Driver
from milepost.topology.quality_questions import BACK_MS, QualityQuestion, QualityQuestions
from milepost.topology.steps import run
from tests.oracle import clock
from tests.oracle.oracle import Oracle
from tests.oracle.quality import broken
from tests.support.editions import EDITIONS
from tests.support.events import KINDS, ORG, STARTS, WEIGHTS, Act, Scenario, play
from tests.support.versus import engine_of, oracle_of

SOURCES = ("shop", "till")
PROMISES: tuple[Mapping[str, str], ...] = (
    {"shop": "{freshness: 15m, volume: {per: 1h, min: 2}, unmatched_max: 29%}", "till": "{freshness: 6h}"},
    {"shop": "{freshness: 2h, volume: {per: 6h, min: 3}}", "till": "{volume: {per: 15m, min: 1}, unmatched_max: 5%}"},
    {"shop": "{unmatched_max: 40%}"},
    {"till": "{freshness: 1m}", "shop": "{freshness: 15m, volume: {per: 1d, min: 4}, unmatched_max: 0.5%}"},
)
"""What the sources promise in each edition; in the third one of them promises nothing."""
STEPS = (2, 3, 4, 4, 4, 4, 5, 6, 6, 7, 8, 9)
"""Steps of the clock, as `events` numbers them: mostly minutes, so that windows are neither empty nor full."""
OFTEN: Mapping[str, int] = {
    "visit": 60, "person_only": 30, "device_only": 20, "blocked": 20, "missing_key": 12, "unknown_type": 6, "contract": 6,
    "apply": 4, "backdated": 12, "repaired": 6, "tick": 6, "clock_back": 4,
}  # fmt: skip
"""Kinds of acts that this is about, beside all others."""


def _edition(files: Mapping[str, bytes], promises: Mapping[str, str]) -> Mapping[str, bytes]:
    text = files["milepost.yaml"].decode()
    for source, expect in promises.items():
        text = text.replace(f"    owner: {source}@", f"    expect: {expect}\n    owner: {source}@")
    return {**files, "milepost.yaml": text.encode()}


PROMISED = tuple(_edition(*one) for one in zip(EDITIONS, PROMISES, strict=True))


def promising(seed: int, size: int = 120) -> Scenario:
    """A log chosen by a seed."""
    chance = random.Random(seed)
    weights = {kind: OFTEN.get(kind, WEIGHTS.get(kind, 1)) for kind in KINDS}
    acts = [
        Act(kind=kind, step=chance.choice(STEPS) + 10 * chance.randrange(100), who=chance.randrange(1000), what=chance.randrange(1000))
        for kind in chance.choices(list(weights), list(weights.values()), k=size)
    ]  # fmt: skip
    return play(acts, partitions=chance.choice((3, 2, 4, 1)), start=chance.choice(STARTS), editions=PROMISED)


def faults(scenario: Scenario, *, chunk: int = 7, seed: int = 0, moments: int = 25) -> list[str]:
    """Where the engine says otherwise than the oracle of sources and their breaches."""
    engine, oracle = engine_of(scenario, chunk=chunk, seed=seed), oracle_of(scenario)
    engine.tick(scenario.now_ms)
    engine.run()
    chance, found = random.Random(seed), list[str]()
    found += differing(engine, oracle, scenario, None, "latest")
    for at_ms in chance.sample(scenario.moments, min(moments, len(scenario.moments))):
        found += differing(engine, oracle, scenario, at_ms, chance.choice(("as_shown", "as_shown", "corrected")))
    return found


def differing(engine: Driver, oracle: Oracle, scenario: Scenario, at_ms: int | None, basis: str) -> list[str]:
    """The faults of one answer: of the state at its moment, and of each breach that it lists."""
    question = QualityQuestion(now_ms=scenario.now_ms, org=ORG, at_ms=at_ms, basis=basis)
    answer = run(QualityQuestions(engine.reader).states(question, 0, 100))
    judged_ms, found = instant(answer["judged_to"]), list[str]()
    until_ms = judged_ms + 1 if basis == "latest" else instant(answer["at"])
    for row in answer["sources"]:

        def said(t_ms: int, source: str = row["source"]) -> set[str]:
            return broken(oracle, ORG, source, t_ms, until_ms=until_ms, today=basis == "corrected") or set()

        where = f"{row['source']} {basis} at {answer['at']}"
        if set(row["breaches"]) != said(judged_ms):
            found.append(f"{where}: {row['breaches']}, expected {said(judged_ms)}")
        for one in row["history"]:
            found += [f"{where}: {one} {wrong}" for wrong in _edges(one, said, judged_ms)]
    return found


def _edges(one: Mapping[str, Any], said: Any, judged_ms: int) -> list[str]:
    kind, begin_ms = one["breach"], instant(one["begin"])
    end_ms = None if one["end"] is None else instant(one["end"])
    wrong = []
    if begin_ms > judged_ms - BACK_MS + clock.DAY or kind == "stale":
        if kind not in said(begin_ms):
            wrong.append("has not begun")
        if kind in said(begin_ms - 1):
            wrong.append("began earlier")
    if end_ms is not None and (kind not in said(end_ms - 1) or kind in said(end_ms)):
        wrong.append("ended at another time")
    return wrong
