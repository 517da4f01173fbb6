"""The oracle's milestones: a walk over every pane end, each asked anew of all events.

No step, span or running total: at each quarter of an hour each condition is the metric's value over its window.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tests.oracle import clock
from tests.oracle.oracle import Oracle

COMPARE = {
    "<": operator.lt, "<=": operator.le, "==": operator.eq, "!=": operator.ne, ">=": operator.ge, ">": operator.gt,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """state, when it was achieved (ms), how often it was lost, and each action's value at the end."""

    state: str
    achieved_ms: int | None
    lapses: int
    values: Mapping[str, Any]


def value(
    oracle: Oracle, action: Mapping[str, Any], company: str, end_ms: int, asked: Mapping[str, Any], tz: str
) -> Any:
    """The metric over the window that ends at `end_ms`, as known by the moment asked for."""
    found, frame = oracle._asked(action["metric"], company, asked["at"], asked["basis"], None, asked["now"], None)
    start = clock.window(action.get("window", "all"), end_ms, tz)
    answer = oracle._answer(found, replace(frame, start_ms=start, end_ms=end_ms)).value
    return 0 if answer is None and found.aggregate in ("count", "sum", "distinct") else answer


def heard(oracle: Oracle, asked: Mapping[str, Any]) -> int:
    """The latest time of an event that had come by the moment, of all sources; -1: none had."""
    at = clock.floor(asked["now"] if asked["at"] is None else asked["at"])
    shown = asked["basis"] == "as_shown"
    return max((one.t_ms for one in oracle.reading.events if not shown or one.k_ms < at), default=-1)


def outcome(
    oracle: Oracle,
    milestone: Mapping[str, Any],
    company: str,
    asked: Mapping[str, Any],
    *,
    tz: str,
    upto: int | None = None,
) -> Outcome:
    """How a milestone of one source stands; `milestone` is its text with `start`, `deadline`, `grace` and `sustain` in
    ms.  upto: how it stood at an earlier pane end, by what is known at the moment asked for."""
    at = clock.floor(asked["now"] if asked["at"] is None else asked["at"])
    if upto is not None:
        at = upto
    complete_ms = clock.floor(heard(oracle, {**asked, "at": at} if upto is not None else asked))
    clock_ms = at if asked["basis"] == "as_shown" else clock.floor(asked["now"])
    until = min(at, milestone["deadline"])
    if at < milestone["start"]:
        return Outcome(state="pending", achieved_ms=None, lapses=0, values={})
    met: list[int] = []
    values: dict[str, Any] = {}
    for end in range(milestone["start"], until + 1, clock.QUARTER):
        holds = {}
        for name, action in milestone["actions"].items():
            back = range(end - action.get("sustain", 0), end + 1, clock.QUARTER)
            seen = [value(oracle, action, company, one, asked, tz) for one in back]
            values[name] = seen[-1]
            holds[name] = all(one is not None and COMPARE[action["op"]](one, action["value"]) for one in seen)
        affecting = [name for name, action in milestone["actions"].items() if action.get("affects", True)]
        count, need = sum(holds[name] for name in affecting), milestone["need"]
        if count >= (len(affecting) if need == "all" else need["at_least"]):
            met.append(end)
    known = complete_ms >= until
    over = clock_ms >= milestone["deadline"] + milestone["grace"] and at >= milestone["deadline"]
    lapses = sum(1 for end in met if end + clock.QUARTER not in met and end + clock.QUARTER <= until)
    if milestone["kind"] == "achieve" and met:
        return Outcome(state="achieved", achieved_ms=met[0], lapses=0, values=values)
    if met:
        begun = met[-1]
        while begun - clock.QUARTER in met:
            begun -= clock.QUARTER
        lost = met[-1] + clock.QUARTER
        if lost > until:
            return Outcome(state="achieved", achieved_ms=begun, lapses=lapses, values=values)
        if complete_ms >= lost:
            return Outcome(state="lapsed", achieved_ms=None, lapses=lapses, values=values)
        if clock_ms < lost + milestone["grace"]:
            return Outcome(state="achieved", achieved_ms=begun, lapses=lapses - 1, values=values)
        return Outcome(state="unknown_stale", achieved_ms=None, lapses=lapses, values=values)
    state = "in_progress" if not over else "missed" if known else "unknown_stale"
    return Outcome(state=state, achieved_ms=None, lapses=0, values=values)
