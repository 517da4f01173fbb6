"""Report: the figures of a run as Markdown, with ratios and whether each goal is reached.

    bench.json -> contestants, goals, what was not run -> bench.md

A goal is met, missed, or not measured; a ratio is only formed of figures of one run.  Ratios of contestants are of the
fastest variant on each side whose work was compared and found the same; of Kafka Streams only those at least once.
Where both ran turn by turn, the ratio is the median of the turns': what the machine does meanwhile meets both.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

Figures = Mapping[str, Any]

FASTER: Final = (("Kafka Streams", 2.5), ("Faust", 20.0), ("Quix Streams", 5.0), ("plain loop", 0.5))
"""Peer -> how many times its events a second Milepost shall reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One row of the goals table.  reached: None when it was not measured."""

    what: str
    goal: str
    measured: str
    reached: bool | None
    how: str


def table(figures: Figures) -> str:
    """The whole report as Markdown."""
    return "\n".join(_lines(figures)) + "\n"


def goals(figures: Figures) -> list[Goal]:
    """Every goal, in the order of the table."""
    out = [_faster(figures, peer, ratio) for peer, ratio in FASTER]
    for part, rows in _ROWS.items():
        found = figures["goals"].get(part)
        for row in rows:
            measured, reached = row.read(found) if found else (_why_not(figures, part), None)
            out.append(Goal(what=row.what, goal=row.goal, measured=measured, reached=reached, how=row.how))
    return out


def _lines(figures: Figures) -> Iterator[str]:
    machine = figures["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in figures["versions"].items())
    yield (
        f"Measured {figures['at']} on {machine['cores']} cores ({machine['processor']}), {machine['memory_gb']} GB, "
        f"{machine['system']}; load {machine['load_at_start']} before it began. {versions}. "
        f"{figures['partitions']} partitions, the broker on the same machine, a checkpoint every "
        f"{figures['checkpoint_ms']} ms. Each contestant ran alone, and its cells were compared with a computation of "
        "their own."
    )
    if figures["quick"]:
        yield ""
        yield "**A quick run: it shows that everything works and says nothing about speed.**"
    yield ""
    yield from _contestants(figures)
    yield ""
    yield from _rows(
        ("goal", "asked", "measured", "reached", "how"),
        [(one.what, one.goal, one.measured, _yes(one.reached), one.how) for one in goals(figures)],
    )
    for part, why in (*figures["not_run"].items(), *figures["broken"].items()):
        yield ""
        yield f"Not measured: `{part}`: {why}"
    yield ""
    yield (
        "Not compared: several machines and replicated topics, other codecs than lz4, windows and joins, "
        "and what only one of them does."
    )


def _contestants(figures: Figures) -> Iterator[str]:
    runs = figures["contestants"]
    base = best(figures, "Kafka Streams")
    cells = []
    for one in sorted(runs, key=lambda run: -run["events_per_s"]):
        ratio = f"{one['events_per_s'] / base['events_per_s']:.2f}" if base else "–"
        same = "yes" if one["same_work"] else "**no**"
        speed, half = (
            f"{one['events_per_s']:,.0f}",
            f"{one['second_half_per_s']:,.0f}" if one["second_half_per_s"] else "–",
        )
        peer = " (the peer)" if one is base else ""
        cpu = f"{one['cpu_us_an_event']:.0f}" if one["cpu_us_an_event"] else "–"
        cells.append((f"{one['name']}{peer}", f"{one['events']:,}", speed, half, cpu, ratio, same))
    head = ("contestant", "events", "events/s", "in the second half", "CPU µs an event", "× the peer", "same work")
    yield from _rows(head, cells)
    yield ""
    peaks = [(one["events"], one["workers"], one["peak_mb"]) for one in runs if one.get("peak_mb")]
    if peaks:
        words = "; ".join(f"{mb:,.0f} MB with {count}" for _, count, mb in peaks)
        yield f"Milepost's greatest memory over a backlog of {peaks[0][0]:,} events, a worker: {words} worker(s)."
        yield ""
    told: dict[str, tuple[str, str]] = {}
    for one in runs:
        told.setdefault(one["name"].split(",")[0], (one["does"], one["leaves_out"]))
    yield from _rows(
        ("contestant", "does for each event", "leaves out"), [(name, *words) for name, words in told.items()]
    )


def _faster(figures: Figures, peer: str, ratio: float) -> Goal:
    ours, theirs = best(figures, "Milepost"), best(figures, peer)
    measured, reached = "not measured", None
    if ours and theirs:
        found = ours["events_per_s"] / theirs["events_per_s"]
        measured, reached = f"{found:.2f} × ({ours['name']} against {theirs['name']})", found >= ratio
    how = "events a second from the first record taken to the end of the work, the fastest variant of each"
    turns = figures["goals"].get("turns")
    if turns and turns["peer"].startswith(peer):
        ratios = sorted(_ratio(one, turns["peer"]) for one in turns["turns"])
        found = statistics.median(ratios)
        words = ", ".join(f"{one:.2f}" for one in ratios)
        measured, reached = f"{found:.2f} × (median of {len(ratios)} turns: {words})", found >= ratio
        how = "turn by turn with the fastest at least once, ours with the workers that were faster in the turn"
    return Goal(
        what=f"reference job against {peer}", goal=f"≥ {ratio:g} ×", measured=measured, reached=reached, how=how
    )


def _ratio(turn: Mapping[str, float], peer: str) -> float:
    return max(speed for name, speed in turn.items() if name != peer) / turn[peer]


def best(figures: Figures, peer: str) -> Any:
    """The fastest run of a contestant that did the same work; of Kafka Streams at least once."""
    runs = [one for one in figures["contestants"] if one["name"].startswith(peer) and one["same_work"]]
    runs = [one for one in runs if "large store" not in one["name"]]
    if peer == "Kafka Streams":
        runs = [one for one in runs if "at least once" in one["name"]]
    return max(runs, key=lambda run: run["events_per_s"], default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    what: str
    goal: str
    how: str
    read: Callable[[Figures], tuple[str, bool]]


def _rules(found: Figures) -> tuple[str, bool]:
    typical = "; ".join(f"{name} {ns:,}" for name, ns in found["typical_ns"].items())
    return f"{found['slowest_ns']:,} ns; an expression in ns: {typical}", found["slowest_ns"] <= 1_000


def _flights(found: Figures) -> tuple[str, bool]:
    return f"{found['events_per_s']:,.0f} events/s of {found['events']:,}", found["events_per_s"] >= 25_000


def _freshness(found: Figures) -> tuple[str, bool]:
    at = f"p50 {found['p50_ms']:.0f} ms, p99 {found['p99_ms']:.0f} ms at {found['rate']:,} events/s"
    held = found["rate"] >= found["asked_rate"]
    words = at if held else f"{at}, the highest rate that it held"
    return words, held and found["p50_ms"] <= 120 and found["p99_ms"] <= 250


def _questions(found: Figures) -> tuple[str, bool]:
    at = f"p99 {found['p99_ms']:.1f} ms, p50 {found['p50_ms']:.1f} ms at {found['questions_per_s']:.0f} a second"
    beside = f"beside {found['rate']:,} events/s, {found['failed']} failed"
    held = found["rate"] >= found["asked_rate"] and not found["failed"]
    return f"{at} {beside}", held and found["p99_ms"] <= 15


def _milestones(found: Figures) -> tuple[str, bool]:
    spread = f"p50 {found['p50_ms']:.0f} ms, p99 {found['p99_ms']:.0f} ms"
    return f"{spread} of {found['seen']} beside {found['rate']:,} events/s", found["p99_ms"] <= 250


def _old(found: Figures) -> tuple[str, bool]:
    spread = f"p50 {found['p50_ms']:.0f} ms, at most {found['max_ms']:.0f} ms"
    return f"{spread} of {found['seen']} beside {found['rate']:,} events/s", found["max_ms"] <= 1000


def _merges(found: Figures) -> tuple[str, bool]:
    spread = f"p50 {found['p50_ms']:.0f} ms, at most {found['max_ms']:.0f} ms"
    return f"{spread} of {found['seen']}; the cells' digest is the same", found["max_ms"] <= 1000


def _restored(found: Figures) -> tuple[str, bool]:
    words = f"{found['cells_per_s']:,.0f} cells/s of {found['cells']:,}"
    if found["restarts"]:
        words += f", the worker ended {found['restarts']} times on the way"
    return words, found["cells_per_s"] >= 150_000 and not found["restarts"]


def _restored_against(found: Figures) -> tuple[str, bool]:
    if not found.get("streams_records_per_s"):
        return f"not measured: {found['streams_why']}", False
    ratio = found["cells_per_s"] / found["streams_records_per_s"]
    return f"{ratio:.2f} × (it restored {found['streams_records_per_s']:,.0f} records/s)", ratio >= 2


def _taken_over(found: Figures) -> tuple[str, bool]:
    bound = found["session_timeout_s"] + 3
    spread = f"p50 {found['taken_over_p50_s']:.1f} s, {found['taken_over']} kills"
    return f"p95 {found['taken_over_p95_s']:.1f} s, {spread}", found["taken_over_p95_s"] <= bound


def _restarted(found: Figures) -> tuple[str, bool]:
    spread = f"p50 {found['restarted_p50_s']:.1f} s, {found['restarted']} kills"
    return f"p95 {found['restarted_p95_s']:.1f} s, {spread}", found["restarted_p95_s"] <= 5


def _idle(found: Figures) -> tuple[str, bool]:
    words = f"{found['cpu_percent']:.1f} % CPU, {found['rss_mb']:.0f} MB over {found['seconds']:.0f} s"
    return words, found["cpu_percent"] <= 2 and found["rss_mb"] <= 250


def _large(found: Figures) -> tuple[str, bool]:
    size = f"{found['cells']:,} cells and {found['seen']:,} seen ids"
    return f"{found['ratio']:.2f} × with {size}", found["ratio"] >= 0.7


_ROWS: Final[Mapping[str, Sequence[_Row]]] = {
    "rules": (
        _Row(
            what="an event and a rule: the slowest of the demo's",
            goal="≤ 1 µs",
            how="condition and fields as the line evaluates them; processor time, the best of 60 short rounds",
            read=_rules,
        ),
    ),
    "flights": (
        _Row(
            what="flights demo, shuffled year, whole line",
            goal="≥ 25 k events/s",
            how="from the first event sent to the last one measured; the import runs beside the worker",
            read=_flights,
        ),
    ),
    "freshness": (
        _Row(
            what="freshness at 5 k events/s",
            goal="p50 ≤ 120 ms, p99 ≤ 250 ms",
            how="20 marked events a second among paced ones; from the call of produce to the first answer that has it",
            read=_freshness,
        ),
    ),
    "questions": (
        _Row(
            what="`value` over HTTP at 300 a second beside 5 k events/s",
            goal="p99 ≤ 15 ms",
            how="open loop from a process of its own; timed from when a question was due, not from when it was sent",
            read=_questions,
        ),
    ),
    "milestones": (
        _Row(
            what="a milestone's change at 2 k events/s",
            goal="p99 ≤ 250 ms",
            how="one new company's event after another; from the call of produce to the first answer `achieved`",
            read=_milestones,
        ),
    ),
    "old": (
        _Row(
            what="an event of three years ago in its pane at 2 k events/s",
            goal="≤ 1 s, what was shown stays",
            how="from the call of produce to the first answer of its quarter of an hour that has it",
            read=_old,
        ),
    ),
    "merges": (
        _Row(
            what="a merge by hand in every answer",
            goal="≤ 1 s, cells unchanged",
            how="from the call of link until value, breakdown, companies and milestones take both for one",
            read=_merges,
        ),
    ),
    "restore": (
        _Row(
            what="restore of a lost folder",
            goal="≥ 150 k cells/s",
            how="cells of the changelog over the time from the first partition being restored to ready",
            read=_restored,
        ),
        _Row(
            what="the same against Kafka Streams",
            goal="≥ 2 ×",
            how="Kafka Streams restores a store from a changelog of as many records of the same keys",
            read=_restored_against,
        ),
    ),
    "kills": (
        _Row(
            what="worker kill → progress",
            goal="p95 ≤ session time-out + 3 s",
            how="kill -9 of one of two workers under load; until every partition has taken what came after the kill",
            read=_taken_over,
        ),
        _Row(
            what="of a restarted static member",
            goal="≤ 5 s",
            how="kill -9 of the only worker under load; its supervisor starts it again; until as above",
            read=_restarted,
        ),
    ),
    "idle": (
        _Row(
            what="idle worker",
            goal="≤ 2 % CPU, ≤ 250 MB",
            how="processor time and resident memory from /proc, with definitions applied and nothing asked",
            read=_idle,
        ),
    ),
    "large": (
        _Row(
            what="events/s with a large store",
            goal="≥ 0.7 × of an empty one",
            how="the same job in the same run; history is copied through the changelog in the engine's own format",
            read=_large,
        ),
    ),
}


def _why_not(figures: Figures, part: str) -> str:
    why = figures["not_run"].get(part) or figures["broken"].get(part)
    return "not run" if why is None else "not measured (see below)"


def _yes(reached: bool | None) -> str:
    return "–" if reached is None else "yes" if reached else "**no**"


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def main() -> None:
    """`python -m milepost.ops.bench.report bench.json…`: the table again; of several runs the later parts win."""
    merged: dict[str, Any] = {}
    for path in sys.argv[1:] or sys.exit("which runs? usage: python -m milepost.ops.bench.report bench.json…"):
        try:
            merged = merge(merged, json.loads(Path(path).read_text()))
            made = table(merged)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            sys.exit(f"{path}: a bench.json as `milepost bench` leaves it is expected: {error!r}")
    sys.stdout.write(made)


def merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of two runs on one machine as one; what the second measured takes the place of the first's."""
    if not first:
        return dict(second)
    names = {one["name"] for one in second["contestants"]}
    done = {*second["goals"], *second["not_run"], *second["broken"]}
    out = {**first, **second}
    out["contestants"] = [one for one in first["contestants"] if one["name"] not in names] + second["contestants"]
    out["goals"] = {**{k: v for k, v in first["goals"].items() if k not in done}, **second["goals"]}
    for kind in ("not_run", "broken"):
        out[kind] = {**{part: why for part, why in first[kind].items() if part not in done}, **second[kind]}
    out["versions"] = {**first["versions"], **second["versions"]}
    return out


if __name__ == "__main__":
    main()
