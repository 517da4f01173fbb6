"""The faults' report: rows add up, violations and survivors show, an idle run is void."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.report import Report, fault, percentile


def test_rows_of_one_fault_add_up(tmp_path: Path) -> None:
    """Two blocks of one fault are one row, with counts, recoveries, checks and seeds together."""
    report = Report()
    with fault("F2", "kill -9", seed=1, report=report) as told:
        told.count += 25
        told.recovered(1.0)
        told.holds("I1", [], [])
    with fault("F2", seed=2, report=report) as told:
        told.processed_again += 7
        told.recovered(3.0)
    report.add_mutant("no own", "")
    report.write(tmp_path / "deep" / "report.json")
    data = json.loads((tmp_path / "deep" / "report.json").read_text())
    (row,) = data["faults"]
    assert (row["count"], row["processed_again"], row["seeds"]) == (26, 7, [1, 2])
    assert (row["recovery_p50_s"], row["recovery_p95_s"]) == (1.0, 3.0)
    assert row["checked"] == {"I1": 1} and row["violated"] == {}
    assert data["mutants"] == {"no own": {"killed": False, "by": ""}}
    told_lines = "\n".join(report.table())
    assert "26" in told_lines and "survived: no own" in told_lines


def test_test_processes_report_as_one() -> None:
    """What two processes dealt, sent as JSON, is what one would have: table, totals, points and mutants."""
    parts, whole = [Report(), Report()], Report()
    for number, part in enumerate(parts):
        for report in (part, whole):
            with fault("F2", "kill -9", seed=number, report=report) as told:
                told.recovered(1.0 + number)
                told.holds("I1", [])
                told.fired("batch_sent", 2)
            report.add_mutant(f"m{number}", "a test" if number else "")
    gathered = Report()
    for part in parts:
        gathered.take(json.loads(json.dumps(part.dumped())))
    assert gathered.data() == whole.data() and gathered.table() == whole.table()
    assert gathered.totals().points == {"batch_sent": 4}


def test_a_violation_fails_and_is_kept() -> None:
    """An invariant that does not hold raises with its faults named, and the row says so."""
    report = Report()
    with pytest.raises(AssertionError, match="I3 is violated, 1 faults:\ntwice"), fault("F5", report=report) as told:
        told.holds("I3", ["twice"])
    assert report.faults["F5"].violated == {"I3": 1} and report.faults["F5"].failed == 1


def test_a_run_that_reached_nothing_is_void() -> None:
    """I14: crash points, records processed again and rebalances are each asked for."""
    report = Report()
    points = [f"point_{number}" for number in range(20)]
    with fault("F3", report=report) as told:
        for point in points[:18]:
            told.fired(point)
    assert [why.split(":")[0] for why in report.void(points)] == ["I14"] * 3
    with fault("F3", report=report) as told:
        told.fired(points[18])
        told.processed_again, told.rebalances = 1, 1
    assert report.void(points) == []


def test_percentiles_are_of_the_nearest_rank() -> None:
    """p95 of twenty values is the nineteenth."""
    assert percentile([float(n) for n in range(1, 21)], 0.95) == 19.0
    assert percentile([], 0.5) == 0.0
