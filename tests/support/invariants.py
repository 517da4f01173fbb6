"""Invariants that hold after every suite: functions over plain dicts, so that any engine and any test can use them.

Each answers a list of faults, empty when the invariant holds; `held` turns faults into an assertion.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


def held(*faults: Iterable[str]) -> None:
    """AssertionError that names the faults, if there are any."""
    found = [fault for some in faults for fault in some]
    shown = "\n".join(found[:20])
    assert not found, f"{len(found)} faults:\n{shown}"


def conservation(counts: Mapping[str, int]) -> list[str]:
    """I1: every record read came to exactly one end, every accepted event's rules too.

    Counts: read, accepted, duplicate, copy, misrouted, `dead:REASON`; of pairs signal, rule_declined,
    `dead_pair:REASON`; `rule_pairs` (how many pairs there were) where it is known.
    """
    faults = []
    dead = sum(n for name, n in counts.items() if name.startswith("dead:"))
    ends = {name: counts.get(name, 0) for name in ("accepted", "duplicate", "copy", "misrouted")} | {"dead": dead}
    if counts.get("read", 0) != sum(ends.values()):
        faults.append(f"I1: {counts.get('read', 0)} records read, {sum(ends.values())} ended: {ends}")
    pairs = sum(n for name, n in counts.items() if name in ("signal", "rule_declined") or name.startswith("dead_pair:"))
    if "rule_pairs" in counts and counts["rule_pairs"] != pairs:
        faults.append(f"I1: {counts['rule_pairs']} pairs of event and rule, {pairs} ended")
    return faults


def same_counts(
    expected: Mapping[str, int], actual: Mapping[str, int], names: Iterable[str] | None = None
) -> list[str]:
    """I1 against the oracle: the same number of records at each end.  Zero and absent are the same."""
    chosen = sorted(set(names) if names is not None else set(expected) | set(actual))
    return [
        f"I1: {name}: expected {expected.get(name, 0)}, came {actual.get(name, 0)}"
        for name in chosen
        if expected.get(name, 0) != actual.get(name, 0)
    ]


def same_number(expected: float | None, actual: float | None, digits: int = 15) -> bool:
    """Whether two answers are one number.

    Sums are exact and every answer is the nearest double, so only formulas may differ, in the last digit.
    """
    if expected is None or actual is None:
        return expected is None and actual is None
    return expected == actual or math.isclose(expected, actual, rel_tol=10.0**-digits)


@dataclass(frozen=True)
class Near:
    """An expected number that an answer may miss by a part of it: a percentile, which a sketch tells to 1 %.

    None is met by None alone, and 0 by 0.
    """

    value: float | None
    part: float = 0.01

    def met(self, actual: float | None) -> bool:
        if self.value is None or actual is None:
            return self.value is None and actual is None
        # A double has 15 digits: the last one of a number that lies on the edge is not held against it.
        return abs(actual - self.value) <= abs(self.value) * self.part * (1 + 1e-9)


def same_answers(expected: Mapping[Any, Any], actual: Mapping[Any, Any]) -> list[str]:
    """I2: answers equal the oracle's.

    Both map a question to a number, None, (number, reason), or a mapping of such; an expected number may be `Near`.
    """
    faults = []
    for question in sorted(set(expected) | set(actual), key=str):
        if question not in expected or question not in actual:
            faults.append(f"I2: {question}: {'not expected' if question not in expected else 'no answer'}")
            continue
        left, right = expected[question], actual[question]
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            faults += [f"I2: {question}: {fault}" for fault in same_answers(left, right)]
        elif not _same(left, right):
            faults.append(f"I2: {question}: expected {left}, came {right}")
    return faults


def unique_signals(messages: Iterable[Mapping[str, Any]], ident: str = "id") -> list[str]:
    """I3: of each signal id there is one content, however often it was sent."""
    seen: dict[Any, Mapping[str, Any]] = {}
    faults = []
    for message in messages:
        first = seen.setdefault(message[ident], message)
        if first != message:
            faults.append(f"I3: {message[ident]!r} has two contents: {first} and {message}")
    return faults


def same_bytes(messages: Iterable[tuple[Any, bytes]]) -> list[str]:
    """I3: what is sent again under a key is the same bytes: one record, one effect, one id."""
    seen: dict[Any, bytes] = {}
    return [f"I3: {key!r} was sent with other bytes" for key, value in messages if seen.setdefault(key, value) != value]


def same_set(what: str, expected: Mapping[Any, Any], actual: Mapping[Any, Any]) -> list[str]:
    """The same keys with the same values; what is missing, what nobody expected, what differs."""
    faults = [f"{what}: {key!r} is missing" for key in expected.keys() - actual.keys()]
    faults += [f"{what}: {key!r} was not expected" for key in actual.keys() - expected.keys()]
    return faults + [
        f"{what}: {key!r} differs" for key in expected.keys() & actual.keys() if expected[key] != actual[key]
    ]


def never_back(what: str, before: Mapping[Any, int], now: Mapping[Any, int]) -> list[str]:
    """I4: no position is lower than it was, and none has vanished."""
    return [f"I4: {what} of {key} was {at}, is {now.get(key)}" for key, at in before.items() if now.get(key, -1) < at]


def slope(samples: Iterable[tuple[float, float]]) -> float:
    """Least squares of (seconds, value): how much the value grows an hour."""
    points = list(samples)
    if len(points) < 2:
        return 0.0
    mean_s = sum(at for at, _ in points) / len(points)
    mean = sum(value for _, value in points) / len(points)
    spread = sum((at - mean_s) ** 2 for at, _ in points)
    return 3600 * sum((at - mean_s) * (value - mean) for at, value in points) / spread if spread else 0.0


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, Near):
        return left.met(right)
    if isinstance(left, tuple) and isinstance(right, tuple):
        return len(left) == len(right) and _same(left[0], right[0]) and left[1:] == right[1:]
    return same_number(left, right)
