"""Work: what the job's events amount to, computed from the generator by plain dictionaries, and how answers compare.

It shares nothing with any contestant: no rule engine, no store, amounts in whole millionths.  A contestant hands over
its cells (rule, company, pane, plan, country; an empty plan or country stands for all of them); every cell of a kind
that it keeps must be there, with the same count and sum, and none besides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from milepost.ops.bench.job import BEGIN_MS, STEP_MS

Key = tuple[str, str, int, str, str]
"""(rule, company, pane, plan, country)"""

Cell = tuple[int, float]
"""(count, sum); the count may be NOT_ASKED"""

NOT_ASKED: Final = -1

PANE_MS: Final = 900_000
SHAPES: Final = {"total": (0, 0), "plan": (1, 0), "country": (0, 1), "both": (1, 1)}
"""Kind of a cell -> whether plan and country are given."""

THREE: Final = ("total", "plan", "both")
FOUR: Final = ("total", "plan", "country", "both")
SLACK: Final = 1e-6
"""Sums of doubles in another order differ in their last digits; an amount has six digits behind the point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the job comes to: signals by rule, and every cell of the four kinds."""

    events: int
    signals: Mapping[str, int]
    cells: Mapping[Key, tuple[int, int]]


def rule_of(type: str, amount: float, plan: str) -> str:
    """The rule that an event of the job meets; "" for none."""
    if type == "login":
        return "login"
    if type == "ticket_opened":
        return "ticket"
    if type == "invoice_paid":
        return "paid" if amount > 10.0 else ""
    if type == "feature_used":
        return "used" if plan != "free" else ""
    return ""


def amount_to(bodies: Iterable[Mapping[str, Any]]) -> Work:
    """The work of different events, in the order and at the times that `job.generate` gives them."""
    signals: dict[str, int] = {}
    cells: dict[Key, tuple[int, int]] = {}
    events = 0
    for number, body in enumerate(bodies):
        events += 1
        data = body["data"]
        rule = rule_of(body["type"], data["amount"], data["plan"])
        if not rule:
            continue
        signals[rule] = signals.get(rule, 0) + 1
        pane = (BEGIN_MS + number * STEP_MS) // PANE_MS
        millionths = round(data["amount"] * 1_000_000)
        for plan_too, country_too in SHAPES.values():
            plan, country = data["plan"] if plan_too else "", data["country"] if country_too else ""
            key = rule, data["company"].removeprefix("crm:"), pane, plan, country
            count, total = cells.get(key, (0, 0))
            cells[key] = count + 1, total + millionths
    return Work(events=events, signals=signals, cells=cells)


def differences(expected: Work, found: Mapping[Key, Cell], kinds: Iterable[str], *, shown_max: int = 5) -> list[str]:
    """What is wrong with a contestant's cells of `kinds`; empty when all is right.  At most `shown_max` lines."""
    shapes = {SHAPES[kind] for kind in kinds}
    wanted = {key: cell for key, cell in expected.cells.items() if _shape(key) in shapes}
    out: list[str] = []
    for key, (count, millionths) in wanted.items():
        cell = found.get(key)
        if cell is None:
            out.append(f"{key}: missing, {count} signals expected")
        elif cell[0] not in (count, NOT_ASKED) or abs(cell[1] - millionths / 1e6) > SLACK * max(1.0, millionths / 1e6):
            out.append(f"{key}: {cell[0]} signals of {cell[1]:.6f}, expected {count} of {millionths / 1e6:.6f}")
        if len(out) == shown_max:
            return out
    for key in found:
        if key not in wanted:
            out.append(f"{key}: not expected at all")
            if len(out) == shown_max:
                break
    return out


def read_cells(dump: Path) -> dict[Key, Cell]:
    """A peer's cells: tab-separated rule, company, pane, plan, country, count, sum."""
    return dict(_rows(dump))


def _rows(dump: Path) -> Iterator[tuple[Key, Cell]]:
    with dump.open(encoding="utf-8") as file:
        for line in file:
            rule, company, pane, plan, country, count, total = line.rstrip("\n").split("\t")
            yield (rule, company.removeprefix("crm:"), int(pane), plan, country), (int(count), float(total))


def _shape(key: Key) -> tuple[int, int]:
    return int(key[3] != ""), int(key[4] != "")
