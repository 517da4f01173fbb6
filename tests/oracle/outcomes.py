"""The oracle's milestones: a walk over every pane end, each asked anew of all events.

No step, span or running total: at each quarter of an hour each condition is the metric's value over its window.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tests.oracle import clock
from tests.oracle.oracle import Oracle, _counts

COMPARE = {
    "<": operator.lt, "<=": operator.le, "==": operator.eq, "!=": operator.ne, ">=": operator.ge, ">": operator.gt,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """state, when it was achieved (ms), how often it was lost, and each action's value at the end.

    Of an action that people tick: (whether it is done, since when (ms), who ticked it last)."""

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


def ticked(
    oracle: Oracle, of: tuple[str, str, str], company: str, end_ms: int, asked: Mapping[str, Any]
) -> tuple[int, bool, str | None] | None:
    """(when, whether done, by whom) of the last tick of (plan, milestone, action) before `end_ms`."""
    _, frame = oracle._asked(min(oracle.bundles[oracle.reading.applied[oracle._org(None)][0][1]].metrics), company, asked["at"], asked["basis"], None, asked["now"], None)  # fmt: skip
    frame = replace(frame, start_ms=None, end_ms=end_ms)
    found = []
    for event in oracle.reading.events:
        if event.type == "milepost.action" and event.leaf in (frame.leaves or ()):
            for one in event.signals:
                action = one.fields["plan"], one.fields["milestone"], one.fields["action"]
                if action == of and _counts(event, one, frame):
                    found.append((event.t_ms, event.key, one.fields["done"], one.fields["by"]))
    return None if not found else (max(found)[0], max(found)[2], max(found)[3])


def complete(
    oracle: Oracle, milestone: Mapping[str, Any], asked: Mapping[str, Any], seen_ms: int, at: int
) -> int | None:
    """Up to when the sources behind a milestone's actions are complete (ms): the latest event of each, or what was said
    of it before `seen_ms`, the last tick.  As shown: of what had come by the bucket that ends at `at`."""
    reading, shown = oracle.reading, asked["basis"] == "as_shown"
    org, found = oracle._org(None), []
    for action in milestone["actions"].values():
        if not action.get("affects", True):
            continue
        if "manual" in action:
            found.append(at if shown else seen_ms)
            continue
        metric, frame = oracle._asked(action["metric"], None, asked["at"], asked["basis"], None, asked["now"], None)
        types = {frame.known.rules[one.rule or ""].on for one in oracle._below(metric, frame)}
        for name in [name for name, source in frame.known.sources.items() if types & set(source.types)]:
            sent = [
                event.t_ms
                for event in reading.events
                if (event.org, event.source) == (org, name) and not (shown and event.k_ms >= at)
            ]
            sent += [
                one.until_ms
                for one in reading.completions
                if (one.org, one.source) == (org, name) and one.k_ms < (at if shown else seen_ms)
            ]
            found.append(max(sent, default=None))
    known = None if not found or None in found else min(one for one in found if one is not None)
    return clock.floor(known) if shown and known is not None else known


def outcome(
    oracle: Oracle,
    milestone: Mapping[str, Any],
    company: str,
    asked: Mapping[str, Any],
    *,
    tz: str,
    upto: int | None = None,
    seen_ms: int | None = None,
) -> Outcome:
    """How a milestone stands; `milestone` is its text with `start`, `deadline`, `grace` and `sustain` in ms, and its
    `name` as (plan, milestone) where people tick.  upto: how it stood at an earlier pane end, by what is known at the
    moment asked for.  seen_ms: how far the raw log was seen."""
    at = clock.floor(asked["now"] if asked["at"] is None else asked["at"])
    if upto is not None:
        at = upto
    known_ms = complete(oracle, milestone, asked, asked["now"] if seen_ms is None else seen_ms, at)
    complete_ms = -1 if known_ms is None else known_ms
    clock_ms = at if asked["basis"] == "as_shown" else clock.floor(asked["now"])
    until = min(at, milestone["deadline"])
    manual = {name: (*milestone["name"], name) for name, one in milestone["actions"].items() if "manual" in one}
    done = {name: _done(oracle, of, company, min(at, milestone["start"]), until, asked) for name, of in manual.items()}
    if at < milestone["start"]:
        values = {name: done.get(name) for name in milestone["actions"]}
        return Outcome(state="pending", achieved_ms=None, lapses=0, values=values)
    met: list[int] = []
    values = {}
    for end in range(milestone["start"], until + 1, clock.QUARTER):
        holds = {}
        for name, action in milestone["actions"].items():
            if name in manual:
                last = ticked(oracle, manual[name], company, end, asked)
                holds[name], values[name] = last is not None and last[1], done[name]
                continue
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


def _done(
    oracle: Oracle, of: tuple[str, str, str], company: str, first: int, until: int, asked: Mapping[str, Any]
) -> tuple[bool, int | None, str | None]:
    """Whether an action that people tick is done at `until`; since when, as far back as `first`, or by a tick before."""
    last = ticked(oracle, of, company, until, asked)
    if last is None or not last[1]:
        return False, None, None if last is None else last[2]
    since = until
    while since > first and (before := ticked(oracle, of, company, since - clock.QUARTER, asked)) and before[1]:
        since -= clock.QUARTER
    return True, min(since, clock.floor(last[0]) + clock.QUARTER), last[2]
