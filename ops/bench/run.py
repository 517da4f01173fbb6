"""Run: the parts of a bench in order, each guarded, so that one that cannot run leaves the others their turn."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from milepost import __version__
from milepost.ops import demo
from milepost.ops.bench import (
    PARTS,
    contestants,
    flame,
    history,
    job,
    kills,
    machine,
    meaning,
    ours,
    rates,
    report,
    rules,
    standing,
    streams,
)
from milepost.ops.bench.stage import Run, Stage
from milepost.ops.bench.work import Work, amount_to
from milepost.ops.settings import Settings
from milepost.ops.supervise import stopping_on_signals
from milepost.schemas.errors import DeclarationError, MilepostError, StoreError

QUICK_EVENTS: Final = 2_000
FAUST_EVENTS: Final = 20_000
QUIX_EVENTS: Final = 100_000
"""So many events at most for the slower frameworks: events a second is what counts, and the table says how many."""

BASE_EVENTS: Final = 100_000
"""What the cells are made of that the restore and the large store copy."""

RESTORED_CELLS: Final = 2_000_000
LARGE_CELLS: Final = 10_000_000
LARGE_SEEN: Final = 50_000_000
KILLS: Final = 10
TURNS: Final = 3
"""How often Milepost and its peer run again, one after the other: the goal's ratio is the median of theirs."""
MERGES: Final = 50
IDLE_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run does.

    events: different events of the job;  only: names of parts, empty: all;  quick: a small run that reaches the code
    of every part that can run here;  cells, seen: what the large store holds;  out: where bench.json, bench.md and
    flame.svg go
    """

    events: int = job.EVENTS
    only: Collection[str] = ()
    quick: bool = False
    cells: int = LARGE_CELLS
    seen: int = LARGE_SEEN
    out: Path = field(default_factory=Path.cwd)

    def wants(self, part: str) -> bool:
        return not self.only or part in self.only


def run(settings: Settings, plan: Plan, *, json_: bool = False) -> int:
    """Measure, write bench.json and bench.md, print one of them; returns the exit code.

    0: what could run did the same work.  1: a contestant did other work, or a part broke.  Raises DeclarationError for
    an unknown part; `Stopped` on a signal.
    """
    unknown = sorted(set(plan.only) - PARTS.keys())
    if unknown:
        raise DeclarationError(f"--only {unknown[0]}: there is no such part; known are {', '.join(PARTS)}")
    with stopping_on_signals():
        figures = measure(settings, plan, say=demo.Progress().say)
    print(json.dumps(figures) if json_ else report.table(figures), flush=True)
    demo.Progress().say(f"written: {plan.out / 'bench.json'}, {plan.out / 'bench.md'}")
    return 1 if figures["broken"] or any(not one["same_work"] for one in figures["contestants"]) else 0


def measure(settings: Settings, plan: Plan, *, say: Callable[[str], None]) -> dict[str, Any]:
    """All figures of a run, as a JSON object."""
    events = QUICK_EVENTS if plan.quick else plan.events
    bench = _Bench(plan=plan, events=events, figures=_head(settings, events, plan))
    with Stage(settings=settings, say=say) as stage:
        for part in PARTS:
            if plan.wants(part):
                say(f"{part}: {PARTS[part]}")
                bench.part(stage, part)
                _write(plan.out, bench.figures)
    return bench.figures


def _write(out: Path, figures: dict[str, Any]) -> None:
    """What is measured so far: a run of an hour that is broken off has been of use."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "bench.json").write_text(json.dumps(figures, indent=1) + "\n")
    (out / "bench.md").write_text(report.table(figures))


@dataclass(slots=True, kw_only=True)
class _Bench:
    plan: Plan
    events: int
    figures: dict[str, Any]
    _work: dict[int, tuple[list[job.Message], Work]] = field(default_factory=dict)

    def part(self, stage: Stage, part: str) -> None:
        """Run one part; what it lacks, or how it broke, becomes a row of the report."""
        try:
            getattr(self, f"_{part}")(stage)
        except DeclarationError as error:
            self.figures["not_run"][part] = str(error)
            stage.say(f"{part}: not run: {error}")
        except (MilepostError, OSError) as error:
            self.figures["broken"][part] = str(error)
            stage.say(f"{part}: broke: {error}")

    def _a(self, stage: Stage) -> None:
        records, work = self._job(stage, self.events)
        for workers in (1,) if self.plan.quick else (1, 2):
            name = f"Milepost, {workers} worker{'s' if workers > 1 else ''}"
            self._add(stage, ours.run_job(stage, name, work, records, workers=workers))
        if not self.plan.quick:
            drawn = flame.Flame(self.plan.out / "flame.svg", stage.say)
            self.figures["flame"] = drawn.draw(stage, records)

    def _b(self, stage: Stage) -> None:
        program = streams.Streams(stage)
        self.figures["versions"]["kafka-streams"] = program.version
        records, work = self._job(stage, self.events)
        raw = stage.raw(records)
        some = ("1 thread, at least once, commit 100 ms",)
        for name, options in streams.VARIANTS.items():
            if not self.plan.quick or name in some:
                self._add(stage, program.job(f"Kafka Streams, {name}", work, raw, len(records), options))

    def _c(self, stage: Stage) -> None:
        records, work = self._job(stage, min(self.events, QUIX_EVENTS))
        self._add(stage, contestants.run_quix(stage, work, stage.raw(records), len(records)))

    def _d(self, stage: Stage) -> None:
        records, work = self._job(stage, min(self.events, FAUST_EVENTS))
        self._add(stage, contestants.run_faust(stage, work, stage.raw(records), len(records)))

    def _e(self, stage: Stage) -> None:
        records, _ = self._job(stage, self.events)
        self._add(stage, contestants.run_loop(stage, stage.raw(records), records))

    def _turns(self, stage: Stage) -> None:
        peer = report.best(self.figures, "Kafka Streams")
        if peer is None:
            raise DeclarationError("there is no run of Kafka Streams to take turns with; run part b, too")
        program = streams.Streams(stage)
        records, work = self._job(stage, self.events)
        raw, options = stage.raw(records), streams.VARIANTS[peer["name"].partition(", ")[2]]
        turns: list[dict[str, float]] = []
        for _ in range(1 if self.plan.quick else TURNS):
            runs = [program.job(peer["name"], work, raw, len(records), options)]
            for workers in (1,) if self.plan.quick else (1, 2):
                name = f"Milepost, {workers} worker{'s' if workers > 1 else ''}"
                runs.append(ours.run_job(stage, name, work, records, workers=workers))
            for run in runs:
                stage.say(f"{run.name}: {run.events_per_s:,.0f} events/s")
                if run.wrong:
                    raise StoreError(f"{run.name} did other work: {run.wrong[0]}")
            turns.append({run.name: round(run.events_per_s, 1) for run in runs})
        self._goal("turns", {"peer": peer["name"], "turns": turns})

    def _rules(self, stage: Stage) -> None:
        self._goal("rules", rules.measure_rules(quick=self.plan.quick))

    def _flights(self, stage: Stage) -> None:
        self._goal("flights", standing.measure_flights(stage, week=self.plan.quick))

    def _freshness(self, stage: Stage) -> None:
        seconds, some = (2.0, (100,)) if self.plan.quick else (30.0, rates.RATES)
        self._goal("freshness", rates.measure_freshness(stage, seconds=seconds, rates=some))

    def _questions(self, stage: Stage) -> None:
        seconds, some = (2.0, (100,)) if self.plan.quick else (20.0, rates.RATES)
        self._goal("questions", rates.measure_questions(stage, seconds=seconds, rates=some))

    def _milestones(self, stage: Stage) -> None:
        seconds, rate = (2.0, 100) if self.plan.quick else (20.0, meaning.RATE)
        self._goal("milestones", meaning.measure_milestones(stage, seconds=seconds, rate=rate))

    def _old(self, stage: Stage) -> None:
        seconds, rate = (2.0, 100) if self.plan.quick else (20.0, meaning.RATE)
        self._goal("old", meaning.measure_old(stage, seconds=seconds, rate=rate))

    def _merges(self, stage: Stage) -> None:
        self._goal("merges", meaning.measure_merges(stage, merges=2 if self.plan.quick else MERGES))

    def _restore(self, stage: Stage) -> None:
        cells, events = (20_000, 2_000) if self.plan.quick else (RESTORED_CELLS, BASE_EVENTS)
        self._goal("restore", history.measure_restore(stage, cells=cells, base_events=events))

    def _kills(self, stage: Stage) -> None:
        self._goal("kills", kills.measure_kills(stage, kills=1 if self.plan.quick else KILLS))

    def _idle(self, stage: Stage) -> None:
        self._goal("idle", standing.measure_idle(stage, seconds=2.0 if self.plan.quick else IDLE_S))

    def _large(self, stage: Stage) -> None:
        records, work = self._job(stage, self.events)
        name = "Milepost, 1 worker"
        empty = next((one for one in self.figures["contestants"] if one["name"] == name), None)
        if empty is None:
            self._add(stage, ours.run_job(stage, name, work, records))
            empty = self.figures["contestants"][-1]
        cells, seen, events = self.plan.cells, self.plan.seen, BASE_EVENTS
        if self.plan.quick:
            cells, seen, events = 20_000, 50_000, 2_000
        run, size = history.measure_large(stage, work, records, cells=cells, seen=seen, base_events=events)
        self._add(stage, run)
        speeds = {"events_per_s": round(run.events_per_s, 1), "empty_events_per_s": empty["events_per_s"]}
        ratio = round(run.events_per_s / empty["events_per_s"], 3)
        self._goal("large", {**size, **speeds, "ratio": ratio})

    def _goal(self, part: str, found: dict[str, Any]) -> None:
        self.figures["goals"][part] = found

    def _job(self, stage: Stage, events: int) -> tuple[list[job.Message], Work]:
        """The records and the work of so many events, made once."""
        if events not in self._work:
            stage.say(f"making {events:,} events and their expected work")
            self._work[events] = job.messages(events, stage.partitions), amount_to(job.generate(events))
        return self._work[events]

    def _add(self, stage: Stage, run: Run) -> None:
        self.figures["contestants"].append(run.as_json())
        verdict = "same work" if not run.wrong else f"OTHER WORK: {run.wrong[0]}"
        stage.say(f"{run.name}: {run.events_per_s:,.0f} events/s, {verdict}")


def _head(settings: Settings, events: int, plan: Plan) -> dict[str, Any]:
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "versions": {
            "milepost": __version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in ("faust-streaming", "confluent-kafka", "rocksdict", "aiokafka")},
        },
        "partitions": settings.partitions,
        "checkpoint_ms": settings.checkpoint_ms,
        "session_timeout_s": settings.session_timeout_s,
        "events": events,
        "quick": plan.quick,
        "contestants": [],
        "goals": {},
        "not_run": {},
        "broken": {},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
