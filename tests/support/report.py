"""The report of the faults: what was done to the engine, what it had to do again, how soon it went on, what held.

    with fault("F2", "kill -9 at random", seed=32) as told:     # one row a fault id, added up over tests
        ...
        told.count += 1                        # faults dealt (an untouched count is taken as one)
        told.recovered(seconds)                # kill -> progress
        told.processed_again += n              # records that were folded a second time
        told.rebalances += n
        told.fired("batch_sent")               # a named crash point
        told.holds("I1", conservation(fates))  # counted as checked; AssertionError when a list names faults
    mutant("no guard by upto", killed_by="simulator, seed 7")    # killed_by="" is a survivor

`REPORT` collects for the whole pytest session, of test processes too; tests/faults/conftest.py writes it as JSON and
prints the table.
"""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

SEEDS_SHOWN_MAX: Final = 12
"""Seeds of one fault in the table; the JSON holds all."""


@dataclass(slots=True)
class Told:
    """One row: a kind of fault.  Recovery in seconds; invariants by name -> times checked, times violated."""

    id: str
    what: str
    count: int = 0
    processed_again: int = 0
    rebalances: int = 0
    recovery_s: list[float] = field(default_factory=list)
    checked: Counter[str] = field(default_factory=Counter)
    violated: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    seeds: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failed: int = 0

    def recovered(self, seconds: float) -> None:
        """From the fault to the first progress after it."""
        self.recovery_s.append(seconds)

    def fired(self, point: str, times: int = 1) -> None:
        """A named crash point ended a process."""
        self.points[point] += times

    def note(self, text: str) -> None:
        """A sentence for the report: a figure that has no column."""
        self.notes.append(text)

    def holds(self, invariant: str, *faults: Iterable[str]) -> None:
        """Count a check of `invariant` ("I1"); AssertionError that names the faults, if there are any."""
        found = [fault for some in faults for fault in some]
        self.checked[invariant] += 1
        if found:
            self.violated[invariant] += 1
            shown = "\n".join(found[:20])
            raise AssertionError(f"{self.id}: {invariant} is violated, {len(found)} faults:\n{shown}")

    def take(self, other: Told) -> None:
        """Add another row of the same fault."""
        self.what = self.what or other.what
        self.count += other.count
        self.processed_again += other.processed_again
        self.rebalances += other.rebalances
        self.recovery_s += other.recovery_s
        self.checked += other.checked
        self.violated += other.violated
        self.points += other.points
        self.seeds += other.seeds
        self.notes += other.notes
        self.failed += other.failed

    def dumped(self) -> dict[str, Any]:
        """The row as plain values."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in values.items()}


class Report:
    """Everything that one run has dealt and found."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.faults: dict[str, Told] = {}
        self.mutants: dict[str, str] = {}

    def add(self, told: Told) -> None:
        with self._lock:
            self.faults.setdefault(told.id, Told(id=told.id, what=told.what)).take(told)

    def add_mutant(self, name: str, killed_by: str) -> None:
        with self._lock:
            self.mutants[name] = killed_by

    def dumped(self) -> dict[str, Any]:
        """All of it as plain values, for another process."""
        with self._lock:
            return {"faults": [one.dumped() for one in self.faults.values()], "mutants": dict(self.mutants)}

    def take(self, dumped: Mapping[str, Any]) -> None:
        """Add what another process has dealt and found."""
        for one in dumped["faults"]:
            counters = {name: Counter(one[name]) for name in ("checked", "violated", "points")}
            self.add(Told(**{**one, **counters}))
        for name, killed_by in dumped["mutants"].items():
            self.add_mutant(name, killed_by)

    @property
    def empty(self) -> bool:
        return not self.faults and not self.mutants

    def totals(self) -> Told:
        """All rows in one."""
        total = Told(id="all", what="")
        for one in self.faults.values():
            total.take(one)
        total.what = ""
        return total

    def void(self, points: Sequence[str]) -> list[str]:
        """I14: why the run does not count, if it did not really reach the code; `points` are the named crash points."""
        total = self.totals()
        fired = sum(1 for one in points if total.points[one])
        why = []
        if fired < 0.95 * len(points):
            silent = ", ".join(one for one in points if not total.points[one])
            why.append(f"I14: {fired} of {len(points)} crash points fired; silent: {silent}")
        if total.processed_again == 0:
            why.append("I14: no record was processed again")
        if total.rebalances == 0:
            why.append("I14: no partition changed hands")
        return why

    def data(self) -> dict[str, Any]:
        """The report as JSON holds it.  Recovery in seconds."""
        return {
            "faults": [_data(self.faults[name]) for name in _in_order(self.faults)],
            "total": _data(self.totals()),
            "mutants": {name: {"killed": bool(by), "by": by} for name, by in sorted(self.mutants.items())},
        }

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.data(), indent=1) + "\n")

    def table(self) -> list[str]:
        """Lines of text: a row a fault, the mutants below."""
        head = ("fault", "what", "dealt", "again", "moved", "recovery p50/p95", "checked", "violated", "seeds")
        rows = [head, *(_row(self.faults[name]) for name in _in_order(self.faults)), _row(self.totals())]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines += [f"{name}: {note}" for name in _in_order(self.faults) for note in self.faults[name].notes]
        points = self.totals().points
        if points:
            lines.append("crash points: " + ", ".join(f"{name} {n}" for name, n in sorted(points.items())))
        if self.mutants:
            alive = sorted(name for name, by in self.mutants.items() if not by)
            lines.append(f"mutants killed: {len(self.mutants) - len(alive)} of {len(self.mutants)}")
            lines += [f"  survived: {name}" for name in alive]
        return lines


REPORT: Final = Report()


@contextmanager
def fault(id: str, what: str = "", *, seed: int | None = None, report: Report = REPORT) -> Iterator[Told]:
    """A row for faults of kind `id` ("F2"); added to the report when the block ends, also when it fails."""
    told = Told(id=id, what=what, seeds=[] if seed is None else [seed])
    try:
        yield told
    except BaseException:
        told.failed += 1
        raise
    finally:
        told.count = told.count or 1
        report.add(told)


def mutant(name: str, killed_by: str) -> None:
    """A deliberately broken engine and the suite that caught it; "" when nothing did."""
    REPORT.add_mutant(name, killed_by)


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile; 0.0 of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def _in_order(names: Mapping[str, Any]) -> list[str]:
    def place(name: str) -> tuple[int, str]:
        digits = "".join(one for one in name if one.isdigit())
        return int(digits or 0), name

    return sorted(names, key=place)


def _data(told: Told) -> dict[str, Any]:
    return {
        "id": told.id,
        "what": told.what,
        "count": told.count,
        "processed_again": told.processed_again,
        "rebalances": told.rebalances,
        "recovery_p50_s": round(percentile(told.recovery_s, 0.5), 3),
        "recovery_p95_s": round(percentile(told.recovery_s, 0.95), 3),
        "recovered": len(told.recovery_s),
        "checked": dict(sorted(told.checked.items())),
        "violated": dict(sorted(told.violated.items())),
        "crash_points": dict(sorted(told.points.items())),
        "seeds": told.seeds,
        "notes": told.notes,
        "failed_tests": told.failed,
    }


def _row(told: Told) -> tuple[str, ...]:
    recovery = "-"
    if told.recovery_s:
        recovery = f"{percentile(told.recovery_s, 0.5):.1f} / {percentile(told.recovery_s, 0.95):.1f} s"
    seeds = " ".join(str(one) for one in told.seeds[:SEEDS_SHOWN_MAX]) + (
        " …" if len(told.seeds) > SEEDS_SHOWN_MAX else ""
    )
    checked = f"{sum(told.checked.values())} ({' '.join(_in_order(told.checked))})" if told.checked else "0"
    violated = " ".join(_in_order(told.violated)) if told.violated else "0"
    return (
        told.id,
        told.what,
        str(told.count),
        str(told.processed_again),
        str(told.rebalances),
        recovery,
        checked,
        violated + (f", {told.failed} failed" if told.failed else ""),
        seeds if told.id != "all" else "",
    )
