"""The bench: its job is the one it says, its expected work is right, and a contestant that did other work is found."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from milepost.ops.apply import demo_bundle
from milepost.ops.bench import PARTS, contestants, history, job, kills, rates, report, rules, streams
from milepost.ops.bench.peer import run_program
from milepost.ops.bench.run import Plan, measure, run
from milepost.ops.bench.stage import second_half
from milepost.ops.bench.work import FOUR, NOT_ASKED, THREE, Cell, Key, amount_to, differences, read_cells, rule_of
from milepost.ops.settings import read_settings
from milepost.schemas.errors import DeclarationError, StoreError
from milepost.topology.catalog import load_bundle
from milepost.topology.driver import Driver
from milepost.topology.packed import load_packed
from tests.support.broker import shared_jars


def test_the_job_is_what_it_says() -> None:
    """Four rules over five types, one measure of two dimensions each; every different event is accepted once."""
    catalog = load_bundle(job.bundle())
    assert len(catalog.rules) == 4
    assert {len(measures) for measures in catalog.measures_by_rule.values()} == {1}
    assert {measure.dimensions for measure in catalog.measures} == {("plan", "country")}
    driver = Driver(b"a secret of the bench's test", partitions=2)
    now_ms = 1_760_000_000_000
    driver.apply(job.ORG, job.bundle(), now_ms)
    records = job.messages(2_000, 2)
    assert records == job.messages(2_000, 2)
    assert len(records) == 2_020
    assert 300 < sum(len(one.value) for one in records) / len(records) < 345
    for one in records:
        driver.produce(orjson.loads(one.value), now_ms)
    driver.run()
    fates = driver.fates["ingest"]
    assert (fates["accepted"], fates["duplicate"]) == (2_000, 20)
    assert driver.dead_letters == []
    assert fates["signal"] == sum(amount_to(job.generate(2_000)).signals.values())


def _right() -> tuple[Any, dict[Key, Cell]]:
    work = amount_to(job.generate(300))
    return work, {key: (count, millionths / 1e6) for key, (count, millionths) in work.cells.items()}


def test_the_right_cells_are_accepted() -> None:
    """All four kinds, or the three that peers keep, compare equal to the expected work."""
    work, cells = _right()
    assert differences(work, cells, FOUR) == []
    three = {key: cell for key, cell in cells.items() if not (key[3] == "" and key[4] != "")}
    assert differences(work, three, THREE) == []


@pytest.mark.parametrize("fault", ["missing", "count", "sum", "surplus"])
def test_other_work_is_found(fault: str) -> None:
    """A missing cell, a count too high, a sum that is a little off and a cell too many are each reported."""
    work, cells = _right()
    key = next(iter(cells))
    count, total = cells[key]
    if fault == "missing":
        del cells[key]
    elif fault == "count":
        cells[key] = count + 1, total
    elif fault == "sum":
        cells[key] = count, total + 0.001
    else:
        cells[(*key[:2], key[2] + 1000, "", "")] = 1, 1.0
    assert len(differences(work, cells, FOUR)) == 1


def test_a_sum_alone_is_compared_too() -> None:
    """A cell whose count was not asked for is right by its sum, and wrong by it."""
    work, cells = _right()
    key = next(iter(cells))
    cells[key] = NOT_ASKED, cells[key][1]
    assert differences(work, cells, FOUR) == []
    cells[key] = NOT_ASKED, cells[key][1] + 1
    assert len(differences(work, cells, FOUR)) == 1


def test_a_dump_is_read_as_it_was_written(tmp_path: Path) -> None:
    """A peer's line becomes a cell; companies lose the prefix that the events bear."""
    dump = tmp_path / "cells.tsv"
    dump.write_text("login\tcrm:7\t12\tfree\t\t3\t1.5\n")
    assert read_cells(dump) == {("login", "7", 12, "free", ""): (3, 1.5)}


def test_the_second_half_is_measured_from_samples_behind_the_middle() -> None:
    """Start-up and warm-up do not count in it; without two samples there is no figure."""
    samples = [(0.0, 0), (10.0, 400), (11.0, 500), (13.0, 1_000)]
    assert second_half(samples, 1_000) == 250.0
    assert second_half(samples[:3], 1_000) == 0.0


def test_a_packed_record_of_invented_ids_is_one_of_the_engines() -> None:
    """The engine reads the rows that the large store is made of, and a cell moves back by whole days."""
    sample, epoch = b"a row of seen", (7).to_bytes(8, "big")
    key, value = history.packed_record(sample, epoch, 5, 3)
    rows = load_packed(value)
    assert (key[1:9], value[:8]) == (epoch, epoch)
    assert [row for _, row in rows] == [sample] * 3
    assert len({one for one, _ in rows}) == 3
    assert history.moved_back(b"version leaf" + (500).to_bytes(4, "big"), 2)[-4:] == (500 - 192).to_bytes(4, "big")


def test_the_rules_are_measured() -> None:
    """Each of the demo's rules and each typical expression has a figure, and the slowest of the demo's is the goal's."""
    found = rules.measure_rules(quick=True)
    assert set(found["demo_ns"]) == set(load_bundle(demo_bundle()).rules)
    assert set(found["typical_ns"]) == set(rules.TYPICAL)
    assert 0 < max(found["demo_ns"].values()) == found["slowest_ns"]
    for name, text in rules.TYPICAL.items():
        assert name.startswith("by the library") == (rules.expression(text).library != "")
    words, reached = report._rules(found)
    assert "a comparison" in words and reached == (found["slowest_ns"] <= 1_000)


def test_a_restore_is_timed_by_the_workers_log(tmp_path: Path) -> None:
    """From the first partition being restored to the last one open; without them there is no figure."""
    log = tmp_path / "worker.log"
    log.write_text(
        "2026-01-01T00:00:00.000Z INFO a: starting\n"
        "2026-01-01T00:00:01.000Z INFO h: ingest/0: epoch 5, restoring from 0\n"
        "2026-01-01T00:00:02.000Z INFO h: measure/1: epoch 5, restoring from 0\n"
        "2026-01-01T00:00:03.500Z INFO h: ingest/0: open at 7\n"
        "2026-01-01T00:00:04.250Z INFO h: measure/1: open at 9\n"
    )
    assert history.restore_s(log) == 3.25


def test_a_program_must_come_to_its_end(tmp_path: Path) -> None:
    """A peer that ends before its work is done, or with an error, has no figure; one that says so has."""
    line = '{"at_s": 1.0, "read": 10, "signals": 4, "measured": 2%s}'
    last = '{"at_s": 2.0, "read": 10, "signals": 4, "measured": 4, "done": true}'
    halfway = f"print('{line % ''}')"
    with pytest.raises(StoreError, match="ended with code 0"):
        run_program([sys.executable, "-c", halfway], {}, tmp_path)
    with pytest.raises(StoreError, match="ended with code 3"):
        run_program([sys.executable, "-c", f"print('{last}'); raise SystemExit(3)"], {}, tmp_path)
    said = run_program([sys.executable, "-c", f"{halfway}; print('{last}')"], {}, tmp_path)
    assert said.samples() == [(1.0, 5), (2.0, 10)]


def test_the_peers_in_python_have_the_rules_of_the_job() -> None:
    """The programs cannot import the job's rules, so they have their own: the same for every kind of event."""
    folder = Path(contestants._program("common.py"))
    spec = importlib.util.spec_from_file_location("bench_common", folder)
    assert spec is not None and spec.loader is not None
    common = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(common)
    for event in job.generate(500):
        of = event["type"], event["data"]["amount"], event["data"]["plan"]
        assert common.rule_of(*of) == rule_of(*of)


def test_the_worst_of_ten_kills_is_their_95th_percentile() -> None:
    """Of few kills nothing is interpolated in favour of the figure."""
    assert kills._percentiles("x", [1.0] * 9 + [7.0])["x_p95_s"] == 7.0
    assert kills._percentiles("x", [1.0] * 19 + [7.0])["x_p95_s"] == 1.0


def test_a_marked_event_counts_from_its_sending_to_the_first_answer_that_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Three events of one company, seen one and then two at a time, give three latencies; warm-up gives none."""
    clock = [10.0]
    monkeypatch.setattr(rates.time, "monotonic", lambda: clock[0])
    answers = iter(["1", "1", "3", "4"])
    client: Any = SimpleNamespace(value=lambda *_, **__: {"value": next(answers)})
    prober = rates.Prober(read_settings({"MILEPOST_HOME": str(tmp_path)}))
    prober._sent, prober._seen, prober._measured_from = {0: [9.0, 9.5, 9.75, 9.9]}, {0: 0}, {0: 1}
    for now in (10.0, 10.5, 11.0, 12.0):
        clock[0] = now
        prober._look(client, 0)
    assert prober.took_ms == [1500.0, 1250.0, pytest.approx(2100.0)]
    assert prober._waiting() == []


def test_an_unknown_part_is_refused() -> None:
    """A part that does not exist is named, with the parts that do."""
    with pytest.raises(DeclarationError, match="nonsense"):
        run(read_settings({}), Plan(only=["nonsense"]))
    assert set(PARTS) >= {"a", "b", "c", "d", "e", "flights", "freshness", "restore"}


def test_what_is_missing_is_said_with_its_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a JDK or Quix Streams the reason says how to get it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(DeclarationError, match=r"JDK.*fix: install one"):
        streams.javac()
    monkeypatch.setattr(contestants, "_imports", lambda python, module: False)
    with pytest.raises(DeclarationError, match="Quix Streams is not installed; fix:"):
        contestants.quix_python()


@pytest.mark.campaign
@pytest.mark.broker
def test_every_contestant_that_is_here_does_the_same_work(tmp_path: Path) -> None:
    """A quick run on a real broker: each contestant's cells are the expected ones; what cannot run says why."""
    environ = {"MILEPOST_HOME": str(tmp_path), "MILEPOST_JARS": str(shared_jars())}
    plan = Plan(only=["a", "b", "c", "d", "e", "turns"], quick=True, out=tmp_path)
    found = measure(read_settings(environ), plan, say=lambda line: None)
    assert found["broken"] == {}
    assert set(found["not_run"]) <= {"b", "c", "turns"}, found["not_run"]
    assert all("fix: " in why for why in found["not_run"].values())
    assert [one["name"] for one in found["contestants"] if one["wrong"]] == []
    assert len(found["contestants"]) == 5 - len({"b", "c"} & set(found["not_run"]))
    if "b" not in found["not_run"]:
        assert [len(one) for one in found["goals"]["turns"]["turns"]] == [2]
    assert all(one["events"] == 2_020 and one["events_per_s"] > 0 for one in found["contestants"])
    assert "| Milepost, 1 worker |" in report.table(found)


def run_of(name: str, speed: float, *, same: bool = True) -> dict[str, Any]:
    """A contestant's figures."""
    return {
        "name": name,
        "events": 1000,
        "events_per_s": speed,
        "second_half_per_s": 0.0,
        "cpu_us_an_event": 0.0,
        "same_work": same,
        "does": "it",
        "leaves_out": "nothing",
    }


def figures(*runs: Mapping[str, Any], **goals: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of a run as bench.json holds them."""
    machine = {"cores": 2, "processor": "p", "memory_gb": 1.0, "system": "s", "load_at_start": 0.0}
    return {
        "at": "2025-01-01T00:00:00+00:00",
        "machine": machine,
        "versions": {},
        "partitions": 4,
        "checkpoint_ms": 100,
        "quick": False,
        "contestants": list(runs),
        "goals": goals,
        "not_run": {},
        "broken": {},
    }


def test_the_peer_is_the_fastest_that_did_the_work_at_least_once() -> None:
    """Neither an exactly-once variant nor one that did other work is what a ratio is formed with."""
    found = figures(
        run_of("Milepost, 1 worker", 50.0),
        run_of("Milepost, 2 workers", 60.0),
        run_of("Kafka Streams, 1 thread, at least once, commit 1 s", 20.0),
        run_of("Kafka Streams, 2 threads, at least once, commit 1 s", 30.0, same=False),
        run_of("Kafka Streams, 1 thread, exactly once, commit 1 s", 25.0),
    )
    first = report.goals(found)[0]
    assert (first.reached, first.measured.split(" ×")[0]) == (True, "3.00")
    assert "1 thread, at least once, commit 1 s (the peer)" in report.table(found)


def test_where_both_took_turns_the_ratio_is_the_median_of_them() -> None:
    """A machine that is slow for a while makes both slow, and no ratio of it alone is believed."""
    peer = "Kafka Streams, 1 thread, at least once, commit 1 s"
    turns = [{peer: 10.0, "Milepost, 1 worker": a, "Milepost, 2 workers": b} for a, b in ((20, 26), (40, 1), (27, 3))]
    runs = run_of("Milepost, 1 worker", 50.0), run_of(peer, 20.0)
    found = report.goals(figures(*runs, turns={"peer": peer, "turns": turns}))
    assert (found[0].measured, found[0].reached) == ("2.70 × (median of 3 turns: 2.60, 2.70, 4.00)", True)
    assert found[1].measured == "not measured"


def test_a_goal_is_reached_missed_or_not_measured() -> None:
    """Each row says which of the three it is; nothing that was not measured counts as reached."""
    idle = {"cpu_percent": 3.0, "rss_mb": 100.0, "seconds": 60.0}
    flights = {"events": 10, "events_per_s": 26_000.0}
    by_name = {one.what: one.reached for one in report.goals(figures(idle=idle, flights=flights))}
    assert by_name["idle worker"] is False
    assert by_name["flights demo, shuffled year, whole line"] is True
    assert [what for what, reached in by_name.items() if reached is None] == [
        what for what in by_name if what not in ("idle worker", "flights demo, shuffled year, whole line")
    ]


def test_a_slow_rate_does_not_reach_a_goal_of_a_fast_one() -> None:
    """Good latencies at a lower rate than asked are shown with that rate, and the goal is missed."""
    fresh = {"rate": 3_000, "asked_rate": 5_000, "p50_ms": 50.0, "p99_ms": 90.0}
    row = next(one for one in report.goals(figures(freshness=fresh)) if one.what.startswith("freshness"))
    assert row.reached is False
    assert "3,000 events/s, the highest rate that it held" in row.measured


@pytest.mark.parametrize(("max_ms", "reached"), [(1000.0, True), (1001.0, False)])
def test_an_old_event_lands_within_a_second(max_ms: float, reached: bool) -> None:
    """A three-year-old event lands in its pane within a second: one that takes longer misses the goal."""
    old = {"rate": 2_000, "seen": 50, "p50_ms": 30.0, "p99_ms": 900.0, "max_ms": max_ms}
    (row,) = [one for one in report.goals(figures(old=old)) if "three years ago" in one.what]
    assert row.reached is reached and "of 50 beside 2,000 events/s" in row.measured


def test_what_a_later_run_measured_replaces_the_earlier() -> None:
    """Two runs become one table: the later figures of a contestant or a goal win, the others stay."""
    first = figures(run_of("A", 1.0), run_of("B", 2.0), idle={"cpu_percent": 9.0})
    second = figures(run_of("B", 3.0), large={"ratio": 1.0})
    merged = report.merge(first, second)
    assert {one["name"]: one["events_per_s"] for one in merged["contestants"]} == {"A": 1.0, "B": 3.0}
    assert set(merged["goals"]) == {"idle", "large"}


@pytest.mark.parametrize("content", [None, "# Milepost", '{"a": 1}', "[]", '{"contestants": 3}'])
def test_what_is_no_run_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None) -> None:
    """A file that is not there, or holds something else, is said with its name and what was expected."""
    path = tmp_path / "bench.json"
    if content is not None:
        path.write_text(content)
    monkeypatch.setattr(sys, "argv", ["report", str(path)])
    with pytest.raises(SystemExit, match=r"bench.json: a bench.json as `milepost bench` leaves it is expected: "):
        report.main()
    monkeypatch.setattr(sys, "argv", ["report"])
    with pytest.raises(SystemExit, match="which runs"):
        report.main()
