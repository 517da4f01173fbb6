"""Milestones: when outcomes are reached, as a pure function of when conditions hold (semantics S6).

    metric over a window  ─▶ steps (value from T on)  ─▶ spans in which it holds  ─▶ sustain ─┐
    ticks of a person     ─▶ spans                                                            ├─▶ need ─▶ state at T
                                                                                              ┘
All times are *pane ends*, in quarter hours since the epoch: a window at T ends at T, so the first moment at which
something can hold is the end of a pane.  Spans are half-open, [from, to), ascending and apart.  Nothing here knows in
which order events came, so a history does not either.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from milepost.topology.definitions import CLOSE, Action, Milestone, Operator, State
from milepost.topology.panes import PANE_MS

Number = int | float
Span = tuple[int, int]
Step = tuple[int, Number | None]
"""(T, the value from T on until the next step); None: there is none."""

COMPARE: Final[Mapping[Operator, Callable[[Number, Number], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """A milestone's time in a zone: start and deadline as pane ends, and the end of its grace."""

    start: int
    deadline: int
    final: int

    @classmethod
    def of(cls, milestone: Milestone, tz: str) -> Course:
        start, deadline = milestone.start.ms(tz) // PANE_MS, milestone.deadline.ms(tz) // PANE_MS
        return cls(start=start, deadline=deadline, final=deadline + -(-milestone.grace_ms // PANE_MS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a milestone stands at a moment.

    achieved_at: the first pane end at which the need was met (achieve), or since which it is (maintain); else None
    lapses:      of a maintained one: the pane ends at which it was lost, until now
    """

    state: State
    achieved_at: int | None
    lapses: tuple[int, ...] = ()


def holding(steps: Iterable[Step], op: Operator, value: Number, until: int, sustain: int = 0) -> list[Span]:
    """The spans before `until` + 1 in which a value compares as asked, for `sustain` pane ends without a break.

    No value compares with nothing.  A sustained condition holds from the moment at which it has held so long.
    """
    holds = COMPARE[op]
    found: list[Span] = []
    for (start, one), (stop, _) in pairwise([*steps, (until + 1, None)]):
        if start >= stop or one is None or not holds(one, value):
            continue
        if found and found[-1][1] == start:
            found[-1] = found[-1][0], stop
        else:
            found.append((start, stop))
    return [(start + sustain, stop) for start, stop in found if stop - start > sustain]


def needed(milestone: Milestone, held: Mapping[str, Sequence[Span]]) -> list[Span]:
    """The spans in which the milestone's need is met.  `held`: of each action that affects it."""
    actions = [action for action in milestone.actions.values() if action.affects]
    turns: dict[int, list[tuple[Action, int]]] = {}
    for action in actions:
        for start, stop in held[action.name]:
            turns.setdefault(start, []).append((action, 1))
            turns.setdefault(stop, []).append((action, -1))
    count, on = 0, dict.fromkeys((action.name for action in actions), 0)
    found: list[Span] = []
    since: int | None = None
    for at in sorted(turns):
        for action, sign in turns[at]:
            on[action.name] += sign
            count += sign
        met = _met(milestone, actions, on, count)
        if met and since is None:
            since = at
        elif not met and since is not None:
            found.append((since, at))
            since = None
    assert since is None, "every span ends"
    return found


def _met(milestone: Milestone, actions: Sequence[Action], on: Mapping[str, int], count: int) -> bool:
    need = milestone.need
    match need.of:
        case "all":
            return count == len(actions)
        case "at_least":
            return count >= need.amount
        case "weight":
            # Added up in one order, so that the sum is one whatever began first.
            return sum(action.weight for action in actions if on[action.name]) >= need.amount - CLOSE
    raise AssertionError(need.of)


def standing(
    milestone: Milestone, course: Course, met: Sequence[Span], at: int, complete_to: int | None, clock: int
) -> Standing:
    """How a milestone stands as of the pane end `at`.

    met:         the spans in which its need is met, up to `at`
    complete_to: the pane end up to which every source that it needs is complete; None: not known
    clock:       the pane end that has passed in known time: a verdict of time itself waits for it

    A loss is one once the sources are complete to it.  Until then it may be that they are late: the milestone stands as
    it stood, for as long as its grace; then nobody knows.
    """
    if at < course.start:
        return Standing(state="pending", achieved_at=None)
    until = min(at, course.deadline)
    inside = [(max(a, course.start), min(b, until + 1)) for a, b in met if a <= until and b > course.start]
    over = clock >= course.final and at >= course.deadline
    complete = complete_to is not None and complete_to >= until
    if milestone.kind == "achieve":
        if inside:
            return Standing(state="achieved", achieved_at=inside[0][0])
        if not over:
            return Standing(state="in_progress", achieved_at=None)
        return Standing(state="missed" if complete else "unknown_stale", achieved_at=None)
    lapses = tuple(stop for _, stop in inside if stop <= until)
    if inside:
        since, lost = inside[-1]
        if lost > until:
            return Standing(state="achieved", achieved_at=since, lapses=lapses)
        if complete_to is not None and complete_to >= lost:
            return Standing(state="lapsed", achieved_at=None, lapses=lapses)
        if clock < lost + course.final - course.deadline:
            return Standing(state="achieved", achieved_at=since, lapses=lapses[:-1])
        return Standing(state="unknown_stale", achieved_at=None, lapses=lapses)
    if not over:
        return Standing(state="in_progress", achieved_at=None)
    return Standing(state="missed" if complete else "unknown_stale", achieved_at=None)
