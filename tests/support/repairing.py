"""Repairing in process: the dead letters of a driver as problems, judged, sent again and noted, without a broker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from milepost.schemas.errors import ContractError
from milepost.topology import problems as telling
from milepost.topology.driver import Driver
from milepost.topology.mapping import read_mapping
from milepost.topology.problems import Problem, Problems, place
from milepost.topology.repairs import Fate, Repairing, repair_id
from milepost.topology.steps import run
from milepost.topology.trial import Trial


def problems_of(driver: Driver) -> Problems:
    """The fold of the driver's `dead-letters`."""
    found = Problems()
    for partition, log in enumerate(driver.topics["dead-letters"]):
        for message in log:
            try:
                found.take(partition, message.value)
            except ContractError:
                continue
    return found


def the_problem(driver: Driver, reason: str = "") -> Problem:
    """The one problem (of a reason)."""
    (one,) = [each for each in problems_of(driver).problems.values() if reason in ("", each.reason)]
    return one


def records_at(driver: Driver, places: Sequence[int]) -> list[tuple[int, bytes | None]]:
    raw = driver.topics["raw-events"]
    found = []
    for packed in places:
        here = place(packed)
        log = raw[here.partition]
        found.append((packed, log[here.offset].value if here.offset < len(log) else None))
    return found


def judged(
    driver: Driver, problem: Problem, mapping: str | Mapping[str, Any], now_ms: int
) -> tuple[Repairing, list[Fate]]:
    """What would become of the open members of a problem."""
    work = Repairing(
        reader=driver.reader, problem=problem, mapping=read_mapping(mapping), trial=Trial(driver.reader), now_ms=now_ms
    )
    still = problems_of(driver).open(problem)[::-1].tolist()
    return work, run(work.judge(records_at(driver, still)))


def effects(driver: Driver, work: Repairing) -> dict[str, tuple[Any, Any]]:
    """Metric -> (value now, value that would be)."""
    rules = sorted(work.trial.gained | work.trial.lost)
    rows = run(work.trial.effects(work.problem.org, rules, work.now_ms))
    return {row["metric"]: (row["before"], row["after"]) for row in rows}


def send(driver: Driver, work: Repairing, fates: Sequence[Fate], now_ms: int, *, noted: bool = True) -> None:
    """Send what passes again, and note it beside the letters (unless it was killed before)."""
    for fate in fates:
        if fate.output is not None:
            driver.append("raw-events", fate.output.partition, fate.output.key, fate.output.value, (), now_ms)
    driver.run()
    if noted:
        done = [fate.place for fate in fates if fate.output is not None]
        settled = [fate.place for fate in fates if fate.what == "settled"]
        id = repair_id(work.problem, work.mapping)
        left = sum(fate.what == "fail" for fate in fates)
        for key, value in (
            telling.begun(work.problem, id, work.mapping.canonical, "", now_ms, replaces=False),
            telling.sent(work.problem, id, now_ms, done, settled),
            telling.ended(work.problem, id, now_ms, left),
        ):
            driver.append("dead-letters", work.problem.partition, key, value, (), now_ms)


def repaired(driver: Driver, problem: Problem, mapping: str | Mapping[str, Any], now_ms: int) -> list[Fate]:
    """A whole repair."""
    work, fates = judged(driver, problem, mapping, now_ms)
    send(driver, work, fates, now_ms)
    return fates
