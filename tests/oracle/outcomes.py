"""The oracle's milestones: a walk over every pane end, each asked anew of all events.

No step, span or running total: at each quarter of an hour each condition is the metric's value over its window.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping
from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from tests.oracle import clock
from tests.oracle.definitions import Metric
from tests.oracle.oracle import Frame, Oracle, _counts, _moment

COMPARE = {
    "<": operator.lt, "<=": operator.le, "==": operator.eq, "!=": operator.ne, ">=": operator.ge, ">": operator.gt,
}  # fmt: skip


CLOSE = 1e-9
Asked = Mapping[str, Any]
"""From when and how it is looked at: `at`, `basis`, `now`, and `org` where there are several."""
Tick = tuple[int, bytes, bool, str | None]
"""(when, which event, whether done, by whom)."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """state, when it was achieved (ms), how often it was lost, and each action's value at the end.

    values: of an action that people tick (whether it is done, since when (ms), who ticked it last)
    held:   of an action of a metric: since when it holds (ms; None: it does not), and when it first did
    """

    state: str
    achieved_ms: int | None
    lapses: int
    values: Mapping[str, Any]
    held: Mapping[str, tuple[int | None, int | None]]


def of_company(oracle: Oracle, company: str | bytes, asked: Asked) -> Oracle:
    """The oracle as if a company's events were all that there is, by what is known at the moment asked for.

    company: a MetaKey, `key:value`, or a leaf, which need not be known"""
    frame = _frame(oracle, asked)
    leaf = company if isinstance(company, bytes) else oracle._leaf(company, frame.org)
    frame = replace(frame, leaves=oracle.component(leaf, frame.c_ms))
    found = copy(oracle)
    events = [
        one for one in oracle.reading.events if one.org == frame.org and one.signals and oracle._whose(one, frame)
    ]
    found.reading = replace(oracle.reading, events=events)
    return found


def _frame(oracle: Oracle, asked: Asked) -> Frame:
    basis, at_ms = _moment(asked["at"], asked["basis"], asked["now"])
    return Frame(org=oracle._org(asked.get("org")), basis=basis, at_ms=at_ms, dims={})


def _metric(oracle: Oracle, name: str, asked: Asked) -> tuple[Metric, Frame]:
    return oracle._asked(name, None, asked["at"], asked["basis"], None, asked["now"], asked.get("org"))


def value(company: Oracle, of: tuple[Metric, Frame], window: str, end_ms: int, tz: str) -> Any:
    """A metric over the window that ends at `end_ms`, as known by the moment asked for."""
    found, frame = of
    answer = company._answer(found, replace(frame, start_ms=clock.window(window, end_ms, tz), end_ms=end_ms)).value
    return 0 if answer is None and found.aggregate in ("count", "sum", "distinct") else answer


def ticks(company: Oracle, of: tuple[str, str, str], asked: Asked) -> list[Tick]:
    """All that is known at the moment of the ticks of (plan, milestone, action), in order."""
    frame, found = _frame(company, asked), []
    for event in company.reading.events:
        for one in event.signals if event.type == "milepost.action" else ():
            action = one.fields["plan"], one.fields["milestone"], one.fields["action"]
            if action == of and _counts(event, one, frame):
                found.append((event.t_ms, event.key, one.fields["done"], one.fields["by"]))
    return sorted(found)


def last(some: list[Tick], end_ms: int) -> Tick | None:
    """The last tick before `end_ms`."""
    before = [one for one in some if one[0] < end_ms]
    return before[-1] if before else None


def complete(oracle: Oracle, milestone: Mapping[str, Any], asked: Asked, seen_ms: int, at: int) -> int | None:
    """Up to when the sources behind a milestone's actions are complete (ms): the latest event of each, or what was said
    of it before `seen_ms`, the last tick.  As shown: of what had come by the bucket that ends at `at`."""
    reading, shown = oracle.reading, asked["basis"] == "as_shown"
    org, found = oracle._org(asked.get("org")), []
    for action in milestone["actions"].values():
        if not action.get("affects", True):
            continue
        if "manual" in action:
            found.append(at if shown else seen_ms)
            continue
        metric, frame = _metric(oracle, action["metric"], asked)
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
    company: str | bytes,
    asked: Asked,
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
    ours = of_company(oracle, company, asked)
    manual = {name: (*milestone["name"], name) for name, one in milestone["actions"].items() if "manual" in one}
    made = {name: ticks(ours, of, asked) for name, of in manual.items()}
    done = {name: _done(some, min(at, milestone["start"]), until) for name, some in made.items()}
    told = {name: action for name, action in milestone["actions"].items() if name not in manual}
    if at < milestone["start"]:
        values = {name: done.get(name) for name in milestone["actions"]}
        return Outcome(
            state="pending", achieved_ms=None, lapses=0, values=values, held=dict.fromkeys(told, (None, None))
        )

    metrics = {name: _metric(oracle, action["metric"], asked) for name, action in told.items()}

    @cache
    def at_end(name: str, end: int) -> Any:
        return value(ours, metrics[name], told[name].get("window", "all"), end, tz)

    ends = range(milestone["start"], until + 1, clock.QUARTER)
    holding: dict[str, dict[int, None]] = {}
    for name, action in milestone["actions"].items():
        if name in manual:
            holding[name] = {end: None for end in ends if (one := last(made[name], end)) is not None and one[2]}
            continue
        compare = COMPARE[action["op"]]
        holding[name] = {
            end: None
            for end in ends
            if all(
                (one := at_end(name, back)) is not None and compare(one, action["value"])
                for back in range(end - action.get("sustain", 0), end + 1, clock.QUARTER)
            )
        }
    values = {name: done[name] if name in manual else at_end(name, until) for name in milestone["actions"]}
    held = {name: (_since(holding[name], until), min(holding[name], default=None)) for name in told}
    met = [end for end in ends if _enough(milestone, {name for name, some in holding.items() if end in some})]

    def stands(state: str, achieved_ms: int | None = None, lapses: int = 0) -> Outcome:
        return Outcome(state=state, achieved_ms=achieved_ms, lapses=lapses, values=values, held=held)

    if milestone["kind"] == "achieve" and met:
        return stands("achieved", met[0])
    lapses = len({end + clock.QUARTER for end in met if end < until} - set(met))
    if met:
        lost = met[-1] + clock.QUARTER
        if lost > until:
            return stands("achieved", _since(met, until), lapses)
        if complete_ms >= lost:
            return stands("lapsed", None, lapses)
        if clock_ms < lost + milestone["grace"]:
            return stands("achieved", _since(met, met[-1]), lapses - 1)
        return stands("unknown_stale", None, lapses)
    over = clock_ms >= milestone["deadline"] + milestone["grace"] and at >= milestone["deadline"]
    return stands("in_progress" if not over else "missed" if complete_ms >= until else "unknown_stale")


def _enough(milestone: Mapping[str, Any], holding: set[str]) -> bool:
    """Whether the actions that hold are what the milestone needs."""
    affecting = {name: one for name, one in milestone["actions"].items() if one.get("affects", True)}
    here, need = [one for name, one in affecting.items() if name in holding], milestone["need"]
    if need == "all":
        return len(here) == len(affecting)
    if "weight" in need:
        return sum(one.get("weight", 1) for one in here) >= need["weight"] - CLOSE
    return len(here) >= need["at_least"]


def _since(ends: Collection[int], until: int) -> int | None:
    """The first of the pane ends without a gap up to `until`; None: it is none of them."""
    if until not in ends:
        return None
    while until - clock.QUARTER in ends:
        until -= clock.QUARTER
    return until


def _done(some: list[Tick], first: int, until: int) -> tuple[bool, int | None, str | None]:
    """Whether an action that people tick is done at `until`; since when, as far back as `first`, or by a tick before."""
    latest = last(some, until)
    if latest is None or not latest[2]:
        return False, None, None if latest is None else latest[3]
    since = until
    while since > first and (before := last(some, since - clock.QUARTER)) and before[2]:
        since -= clock.QUARTER
    return True, min(since, clock.floor(latest[0]) + clock.QUARTER), latest[3]
