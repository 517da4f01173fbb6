"""The demo: real flights, aircraft and weather through the whole line, and the answers of the running worker.

    up (broker, topics, worker) -> definitions -> import -> the worker has read all -> questions over HTTP -> summary

A second start finds the data in the log and imports nothing (see `imports`); the answers are asked anew.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from milepost.ops.access import bearer
from milepost.ops.apply import apply_bundle, demo_bundle
from milepost.ops.broker import Say
from milepost.ops.client import Client, Refused
from milepost.ops.demo_data import COMPLETE_MS, DemoData, read_demo
from milepost.ops.flights import ORG, REPEATS, rfc3339
from milepost.ops.imports import SEED, Imported, import_flights
from milepost.ops.reader import topic_ends
from milepost.ops.reset import reset
from milepost.ops.settings import DEMO_SECRET, Settings
from milepost.ops.supervise import Supervisor
from milepost.schemas.errors import StoreError
from milepost.topology.asked import parts
from milepost.topology.catalog import load_bundle
from milepost.topology.completeness import sources_of
from milepost.topology.protection import COMPANY

AT: Final = rfc3339(COMPLETE_MS)
"""The moment of the demo's questions: even the late news of the last flights is there, and all sources are complete."""

READS: Final[Mapping[str, str]] = {"ingest": "raw-events", "measure": "signals", "record": "record-changes"}
"""Leg -> the topic that it reads."""

LANDING_S: Final = 0.5
"""Longer than a checkpoint may wait: what ingest has folded lies in `signals` by then."""

STILL_S_MAX: Final = 120.0
"""A worker that has taken nothing for so long while there is work has stopped working."""

FOLLOWED_S_MAX: Final = 30.0
"""A worker that has taken everything knows within moments what was said of the sources."""


@dataclass(slots=True, kw_only=True)
class Summary:
    """What the demo prints; every number but those of the import is an answer of the worker.

    totals, by_company: the metrics that airlines have, of all and of each
    by_place:    the others, by the value of their first dimension: the weather by airport
    milestones:  milestone -> airline -> {state, achieved_at, lapsed}
    complete_to: up to when all sources that the totals need are complete;  finality: metric -> how final its total is
    """

    totals: dict[str, float | None]
    by_company: dict[str, dict[str, float | None]]
    events: dict[str, Any]
    seconds: float
    events_per_s: float
    page: str
    digest: str
    names: dict[str, str] = field(default_factory=dict)
    by_place: dict[str, dict[str, float | None]] = field(default_factory=dict)
    milestones: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    complete_to: str | None = None
    finality: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        fields = ("totals", "by_company", "events", "seconds", "events_per_s", "page", "digest")
        later = ("by_place", "milestones", "complete_to", "finality")
        return {name: getattr(self, name) for name in (*fields, *later)}


def run(
    settings: Settings,
    *,
    exit_: bool = False,
    json_: bool = False,
    data: Path | None = None,
    fresh: bool = False,
    week: bool = False,
    seed: int = SEED,
    repeats: float = REPEATS,
) -> int:
    """Run the demo; returns the exit code, 0.  Raises MilepostError; `Stopped` when a signal arrives.

    exit_:   end with the answers; else the worker and the page stay up until Ctrl-C
    json_:   the summary as JSON, alone on stdout; progress goes to stderr in any case
    data:    a folder with flights.csv (or flights.csv.zip), airlines.csv, planes.csv and weather.csv, instead of the
             package
    fresh:   wipe this deployment's log and state first
    week:    only the first week of the data
    seed, repeats: the order of sending, and the share of events that is sent twice
    """
    say = Progress().say
    found = read_demo(data, week=week)
    say(f"{found.flights.rows:,} flights of {len(found.flights.carriers)} airlines, {len(found):,} events in all")
    if fresh:
        gone = reset(settings)
        say(f"wiped: {len(gone)} parts of this deployment's log and state")
    settings = with_demo_secret(settings, say)
    with Supervisor(settings, say=say) as running:
        summary = perform(settings, found, running, seed=seed, repeats=repeats, say=say)
        print(json.dumps(summary.as_json()) if json_ else table(summary), flush=True)
        if not exit_:
            say(f"the page is at {summary.page} (Ctrl-C ends)")
            running.wait()
    return 0


def perform(
    settings: Settings, data: DemoData, running: Supervisor, *, seed: int = SEED, repeats: float = REPEATS, say: Say
) -> Summary:
    """Definitions, import, questions: what the demo does once its parts run."""

    def check() -> None:
        if running.failure is not None:
            raise running.failure

    applied = apply_bundle(settings, demo_bundle(), ORG)
    say(f"bundle {applied.bundle} {'applied' if applied.changed else 'is in force already'}")
    begun = time.monotonic()
    imported = import_flights(settings, data, seed=seed, repeats=repeats, say=say, check=check)
    with Client(settings.url, token=lambda: bearer(settings)) as client:
        status = settle(client, lambda topic: topic_ends(settings, topic), say=say, check=check)
        seconds = time.monotonic() - begun
        follow(client, check=check)
        return ask(client, data, imported, status, seconds=seconds, page=f"{settings.url}/")


def settle(
    client: Client,
    ends: Callable[[str], Mapping[int, int]],
    *,
    say: Say,
    check: Callable[[], None] = lambda: None,
    still_s_max: float = STILL_S_MAX,
) -> Mapping[str, Any]:
    """Wait until the worker has taken everything that the logs hold now; returns its last status.

    ends: the end of each partition of a topic, as the broker knows it.  First ingest must reach the ends of the raw
    log; what it then wrote is acknowledged within a checkpoint, so after a pause all legs must reach their ends.
    Ticks go on all the while: the ends are asked for once a round.  Raises StoreError when nothing moves for
    `still_s_max` seconds.
    """
    legs = _reach(client, {"ingest": ends("raw-events")}, say, check, still_s_max)["legs"]
    time.sleep(LANDING_S)
    return _reach(client, {leg: ends(topic) for leg, topic in READS.items() if leg in legs}, say, check, still_s_max)


def follow(client: Client, *, check: Callable[[], None] = lambda: None) -> None:
    """Wait until the worker's answers know that the sources are complete: what ingest was told of them comes back to it
    by way of `identity-links`.  Raises StoreError."""
    until = time.monotonic() + FOLLOWED_S_MAX
    for metric in (str(one["name"]) for one in client.get("/v1/metrics")["metrics"]):
        while (told := client.value(metric, at=AT, basis="corrected")["complete_to"] or "") < AT:
            check()
            if time.monotonic() > until:
                raise StoreError(
                    f"the sources of {metric} are complete to {AT}, and the worker says {told or 'nothing'}"
                )
            time.sleep(0.1)


def _reach(
    client: Client,
    targets: Mapping[str, Mapping[int, int]],
    say: Say,
    check: Callable[[], None],
    still_s_max: float,
) -> Mapping[str, Any]:
    told, before, moved = time.monotonic(), -1, time.monotonic()
    while True:
        check()
        status: Mapping[str, Any] = client.get("/v1/status")
        at = {name: status["legs"][name]["next_offset"] for name in targets}
        left = sum(
            max(0, end - at[name].get(str(partition), 0))
            for name, wanted in targets.items()
            for partition, end in wanted.items()
        )
        if status["ready"] and not left:
            return status
        now = time.monotonic()
        if left != before:
            before, moved = left, now
        elif now - moved > still_s_max:
            raise StoreError(f"the worker has taken nothing for {still_s_max:.0f} s; {left:,} records are waiting")
        if now - told > 2:
            told = now
            say(f"the worker has {left:,} records to go")
        time.sleep(0.1)


def ask(
    client: Client, data: DemoData, imported: Imported, status: Mapping[str, Any], *, seconds: float, page: str
) -> Summary:
    """Every number by HTTP, basis `corrected` at 2014-01-05T00:00Z."""
    metrics = {str(metric["name"]): metric["dimensions"] for metric in client.get("/v1/metrics")["metrics"]}
    answers = {metric: client.value(metric, at=AT, basis="corrected") for metric in metrics}
    names = dict(data.flights.airlines)
    by_company: dict[str, dict[str, float | None]] = {}
    for carrier in sorted({*names, *data.flights.carriers}):
        own = _of_company(client, list(metrics), f"carrier_code:{carrier}")
        if any(value is not None for value in own.values()):  # listed, and never flown: nothing to say
            by_company[carrier] = own
    nobodys = nobodys_metrics()
    totals = {metric: number(answer) for metric, answer in answers.items() if metric not in nobodys}
    return Summary(
        totals=totals,
        by_company={carrier: {metric: own[metric] for metric in totals} for carrier, own in by_company.items()},
        events=account(imported, status.get("fates", {})),
        seconds=round(seconds, 3),
        events_per_s=round(imported.sent / seconds, 1) if seconds > 0 else 0.0,
        page=page,
        digest=client.digest()["total"],
        names=names,
        by_place=_by_place(client, {name: named[0] for name, named in metrics.items() if named and name in nobodys}),
        milestones=_milestones(client, by_company),
        complete_to=min((str(answers[metric]["complete_to"]) for metric in totals), default=None),
        finality={metric: str(answer["finality"]) for metric, answer in answers.items()},
    )


def nobodys_metrics() -> set[str]:
    """The metrics of the demo's bundle whose events name no company: the weather."""
    catalog = load_bundle(demo_bundle())
    found = set()
    for name, metric in catalog.metrics.items():
        measures = [one.measure for one in parts(catalog, metric) if one.measure is not None]
        sources = [catalog.sources[source] for source in sources_of(catalog, measures)]
        if not any(one.entity == COMPANY for source in sources for one in source.identities):
            found.add(name)
    return found


def _by_place(client: Client, metrics: Mapping[str, str]) -> dict[str, dict[str, float | None]]:
    """Value of a dimension -> what each metric is there.  metrics: metric -> dimension"""
    found: dict[str, dict[str, float | None]] = {}
    for metric, dimension in metrics.items():
        told = client.get(f"/v1/metrics/{metric}/breakdown", by=dimension, at=AT, basis="corrected")
        for row in told["rows"]:
            found.setdefault(str(row["key"]), dict.fromkeys(metrics))[metric] = number(row)
    return dict(sorted(found.items()))


def _milestones(client: Client, carriers: Iterable[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Milestone -> airline -> how it stands."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for carrier in carriers:
        told = client.get("/v1/milestones", company=f"carrier_code:{carrier}", at=AT, basis="corrected")
        for row in told["milestones"]:
            stands = {name: row[name] for name in ("state", "achieved_at", "lapsed")}
            found.setdefault(str(row["milestone"]), {})[carrier] = stands
    return found


def account(imported: Imported, fates: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """The account of the events: what was sent, and what became of what the worker has read, over both legs.

    fates: leg -> fate -> count, since the worker started
    """
    ingest = fates.get("ingest", {})
    dead = sum(count for leg in fates.values() for fate, count in leg.items() if fate.startswith("dead"))
    drops = {
        fate: ingest[fate] for fate in ("no_rule", "superseded", "misrouted", "foreign_tombstone") if ingest.get(fate)
    }
    return {
        "sent": imported.sent,
        "read": ingest.get("read", 0),
        "accepted": ingest.get("accepted", 0),
        "duplicates": ingest.get("duplicate", 0),
        "dead_letters": dead,
        "drops": drops,
    }


def number(answer: Mapping[str, Any]) -> float | None:
    """The value of an answer; exact decimals may travel as text."""
    value = answer["value"]
    if isinstance(value, str):
        return int(value) if value.lstrip("-").isdigit() else float(value)
    if value is None or isinstance(value, int | float):
        return value
    raise StoreError(f"the worker answered a {type(value).__name__} where a number was expected")


def _of_company(client: Client, metrics: list[str], company: str) -> dict[str, float | None]:
    try:
        return {metric: number(client.value(metric, company=company, at=AT, basis="corrected")) for metric in metrics}
    except Refused as refused:
        if refused.status != 404:
            raise
        return {}


def table(summary: Summary) -> str:
    """The summary for people: totals, airlines, the account, the page's address."""
    return "\n".join(_lines(summary))


def _lines(summary: Summary) -> Iterator[str]:
    width = max(map(len, summary.totals), default=0)
    yield f"Departures from New York, as corrected at {AT}"
    yield ""
    for metric, value in summary.totals.items():
        yield f"  {metric:<{width}}  {_shown(value):>12}"
    yield ""
    shown = [
        name
        for name in ("departures", "cancellations", "on_time_rate", "departure_delay_avg")
        if name in summary.totals
    ]
    yield f"  {'':<2}  {'':<28}" + "".join(f"{metric.replace('departure_', ''):>15}" for metric in shown)
    for carrier, own in summary.by_company.items():
        name = summary.names.get(carrier, "")
        yield f"  {carrier:<2}  {name[:28]:<28}" + "".join(f"{_shown(own.get(metric)):>15}" for metric in shown)
    yield ""
    yield from _places(summary)
    yield from _states(summary)
    events = summary.events
    yield (
        f"  {events['sent']:,} events sent, {events['accepted']:,} accepted, {events['duplicates']:,} repeats, "
        f"{events['dead_letters']:,} dead letters; {summary.seconds:.1f} s, {summary.events_per_s:,.0f} events/s"
    )
    yield f"  digest {summary.digest}"
    yield f"  page   {summary.page}"


def _places(summary: Summary) -> Iterator[str]:
    if not summary.by_place:
        return
    metrics = list(dict.fromkeys(metric for own in summary.by_place.values() for metric in own))
    yield f"  {'':<4}" + "".join(f"{metric:>16}" for metric in metrics)
    for place, own in summary.by_place.items():
        yield f"  {place:<4}" + "".join(f"{_shown(own[metric]):>16}" for metric in metrics)
    yield ""


def _states(summary: Summary) -> Iterator[str]:
    if not summary.milestones:
        return
    for milestone, airlines in summary.milestones.items():
        counted = Counter(one["state"] for one in airlines.values())
        states = ", ".join(f"{state} {count}" for state, count in sorted(counted.items()))
        yield f"  {milestone:<20}  {states}"
    yield f"  complete to {summary.complete_to}"
    yield ""


def _shown(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"


def with_demo_secret(settings: Settings, say: Say) -> Settings:
    """The settings with the demo's secret, which goes into the home so that other commands see the same leaves.

    A secret that is there is kept: what lies in the log is sealed with it.
    """
    path = settings.secret_file
    if settings.secret_text or (path.exists() and path.read_text().strip() != DEMO_SECRET):
        say("this deployment has a secret of its own, and keeps it")
        return settings
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(DEMO_SECRET)
    return replace(settings, secret_text=DEMO_SECRET)


class Progress:
    """Lines of progress on stderr, each with the seconds since the start."""

    def __init__(self) -> None:
        self.begun = time.monotonic()

    def say(self, line: str) -> None:
        print(f"{time.monotonic() - self.begun:7.1f} s  {line}", file=sys.stderr, flush=True)
