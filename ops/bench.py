"""Bench: three figures, each from a deployment of its own in a folder that is deleted afterwards.

    job    400,000 events of about 330 bytes lie in the log; a worker starts and takes them: four rules, cells of two
           dimensions (the total, each dimension, the pair: four a signal)
    demo   the flights of the demo, imported and processed beside each other, events a second
    value  the demo's worker is asked for `value` one question after another: p50, p99 in ms, as the client sees them

The broker runs beside it on the same machine, with the flags of a long-lived one.  Ratios matter, not absolutes.
"""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import orjson

from milepost.ops import demo
from milepost.ops.apply import apply_bundle
from milepost.ops.broker import Say
from milepost.ops.client import Client
from milepost.ops.flights import read_flights, rfc3339
from milepost.ops.processes import free_ports, taken
from milepost.ops.reader import topic_ends
from milepost.ops.sender import Sender
from milepost.ops.settings import Settings
from milepost.ops.supervise import Supervisor, stopping_on_signals
from milepost.schemas.errors import StoreError
from milepost.schemas.keys import raw_place

EVENTS: Final = 400_000
COMPANIES: Final = 1_000
USERS: Final = 50_000
QUESTIONS: Final = 2_000
JOB_S_MAX: Final = 900.0
BEGIN_MS: Final = 1_735_689_600_000
"""2025-01-01T00:00Z: the first event; the others follow at 10 ms, so that all lie in five panes."""

STEP_MS: Final = 10
TYPES: Final = ("login", "page_view", "invoice_paid", "ticket_opened", "feature_used")
PLANS: Final = ("free", "pro", "ent")
COUNTRIES: Final = ("US", "DE", "FR", "JP")
ORG: Final = "acme"

BUNDLE: Final = """\
sources:
  app:
    owner: bench@example.org
    types:
      login: {schema: Activity}
      page_view: {schema: Activity}
      invoice_paid: {schema: Activity}
      ticket_opened: {schema: Activity}
      feature_used: {schema: Activity}
    identities:
      - {entity: company, key: crm_id, from: data.company, required: true}
      - {entity: person, key: email, from: data.user}
    pii: []
signals:
  login: {on: login, fields: FIELDS}
  ticket: {on: ticket_opened, fields: FIELDS}
  paid: {on: invoice_paid, when: data.amount > 10.0, fields: FIELDS}
  used: {on: feature_used, when: data.plan != "free", fields: FIELDS}
metrics:
  logins: {from: login, aggregate: [sum(amount), avg(amount)], dimensions: [plan, country], unit: events}
  tickets: {from: ticket, aggregate: [sum(amount), avg(amount)], dimensions: [plan, country], unit: events}
  invoices: {from: paid, aggregate: [sum(amount), avg(amount)], dimensions: [plan, country], unit: events}
  features: {from: used, aggregate: [sum(amount), avg(amount)], dimensions: [plan, country], unit: events}
""".replace("FIELDS", "{amount: data.amount, plan: data.plan, country: data.country}")

ACTIVITY: Final = {
    "type": "record",
    "name": "Activity",
    "fields": [
        {"name": "company", "type": "string"},
        {"name": "user", "type": "string"},
        {"name": "amount", "type": "double"},
        {"name": "plan", "type": "string"},
        {"name": "country", "type": "string"},
        {"name": "session", "type": "string", "default": ""},
    ],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The worker's part of the job: it is measured from the first status that shows progress to the end of the log."""

    events: int
    bytes_an_event: float
    seconds: float
    events_per_s: float
    signals: int


def run(settings: Settings, *, json_: bool = False, events: int = EVENTS, week: bool = False) -> int:
    """Measure and print all figures; returns the exit code, 0.  Raises MilepostError; `Stopped` on a signal.

    settings: gives partitions, jars and checkpoints; ports and home are the bench's own
    week:     the demo's part only with the first week of the data
    """
    with stopping_on_signals():
        figures = measure(settings, events=events, week=week, say=demo.Progress().say)
    print(json.dumps(figures) if json_ else json.dumps(figures, indent=2), flush=True)
    return 0


def measure(settings: Settings, *, events: int = EVENTS, week: bool = False, say: Say) -> dict[str, Any]:
    """All figures, as a JSON object."""
    job = measure_job(settings, events=events, say=say)
    flights, value = measure_demo(settings, week=week, say=say)
    return {
        "machine": {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "partitions": settings.partitions,
        "job": {name: getattr(job, name) for name in Job.__slots__},
        "demo": flights,
        "value": value,
    }


def measure_job(settings: Settings, *, events: int = EVENTS, say: Say) -> Job:
    """A log is filled, then a worker takes it."""
    with _home(settings, say) as home, Supervisor(home, broker_only=True, measured=True, say=say):
        apply_bundle(home, bundle(), ORG)
        size = fill(home, events)
        say(f"{events:,} events of {size / events:.0f} bytes lie in the log")
        beside = replace(home, broker=home.bootstrap, replication=1)
        begun = time.monotonic()
        with Supervisor(beside, say=say) as running, Client(beside.url) as client:
            first, last, signals = _watch(client, beside, running, begun, events)
    taken_count = last[1] - first[1]
    seconds = last[0] - first[0]
    return Job(
        events=events,
        bytes_an_event=round(size / events, 1),
        seconds=round(seconds, 3),
        events_per_s=round(taken_count / seconds, 1),
        signals=signals,
    )


def measure_demo(settings: Settings, *, week: bool = False, say: Say) -> tuple[dict[str, Any], dict[str, Any]]:
    """The demo's figures, and those of questions to its worker."""
    flights = read_flights(week=week)
    with (
        _home(settings, say) as home,
        Supervisor(home, measured=True, say=say) as running,
        Client(home.url) as client,
    ):
        summary = demo.perform(home, flights, running, say=say)
        asked = ask_values(client, list(summary.totals), list(summary.by_company))
    done = {"events": summary.events["sent"], "seconds": summary.seconds, "events_per_s": summary.events_per_s}
    return done, asked


def ask_values(
    client: Client, metrics: list[str], carriers: list[str], *, questions: int = QUESTIONS, seed: int = 1
) -> dict[str, Any]:
    """`value` for a random metric, airline and moment of 2013, on one connection; milliseconds."""
    source = random.Random(seed)
    took_ms = []
    for basis in ("corrected", "as_shown"):
        for _ in range(questions // 2):
            at = rfc3339(1_356_998_400_000 + source.randrange(365 * 96) * 900_000)
            question = {"company": f"carrier_code:{source.choice(carriers)}", "at": at, "basis": basis}
            begun = time.perf_counter()
            client.value(source.choice(metrics), window="28d", **question)
            took_ms.append((time.perf_counter() - begun) * 1000)
    cuts = statistics.quantiles(took_ms, n=100, method="inclusive")
    return {"questions": len(took_ms), "p50_ms": round(cuts[49], 3), "p99_ms": round(cuts[98], 3)}


def bundle() -> dict[str, bytes]:
    """The job's definitions."""
    return {"milepost.yaml": BUNDLE.encode(), "schemas/Activity.avsc": orjson.dumps(ACTIVITY)}


def generate(events: int, seed: int = 1) -> Iterator[tuple[str, bytes]]:
    """(id, body) of each event: 1,000 companies, 50,000 persons, five types, three plans, four countries."""
    source = random.Random(seed)
    for i in range(events):
        company, user = source.randrange(COMPANIES), source.randrange(USERS)
        event_id, t_ms = str(uuid.UUID(int=source.getrandbits(128))), BEGIN_MS + i * STEP_MS
        body = {
            "org": ORG,
            "source": "app",
            "id": event_id,
            "type": source.choice(TYPES),
            "time": f"{rfc3339(t_ms)[:17]}{t_ms % 60_000 // 1000:02d}.{t_ms % 1000:03d}Z",
            "revision": 0,
            "void": False,
            "data": {
                "company": f"crm:{company}",
                "user": f"email:u{user}@c{company}.example.com",
                "amount": round(source.random() * 100, 6),
                "plan": source.choice(PLANS),
                "country": source.choice(COUNTRIES),
                "session": f"{source.getrandbits(128):032x}",
            },
        }
        yield event_id, orjson.dumps(body)


def fill(settings: Settings, events: int) -> int:
    """Write the job's events into the raw log; returns their bytes."""
    topic, size = settings.topic("raw-events"), 0
    with Sender(settings.bootstrap, linger_ms=50) as sender:
        for event_id, body in generate(events):
            key, partition = raw_place(ORG, "app", event_id, 0, 0, settings.partitions)
            sender.send(topic, partition, key, body)
            size += len(body)
    return size


def _watch(
    client: Client, settings: Settings, running: Supervisor, begun: float, events: int
) -> tuple[tuple[float, int], tuple[float, int], int]:
    """(first sample with progress, sample at the end, signals); a sample is (monotonic s, events read).

    The end: all events are read, and measure has reached the end of `signals`.  A worker that was done before it could
    be asked twice is measured from its start.
    """
    first: tuple[float, int] | None = None
    while time.monotonic() - begun < JOB_S_MAX:
        if running.failure is not None:
            raise running.failure
        status = client.get("/v1/status")
        fates = status["fates"]["ingest"]
        sample = time.monotonic(), min(events, int(fates.get("read", 0)))
        if sample[1] and first is None:
            first = sample
        if first is not None and sample[1] == events:
            at = status["legs"]["measure"]["next_offset"]
            if all(at.get(str(number), 0) >= end for number, end in topic_ends(settings, "signals").items()):
                return (first if first[1] < events else (begun, 0)), sample, int(fates.get("signal", 0))
        time.sleep(0.1)
    raise StoreError(f"the worker did not finish the job in {JOB_S_MAX:.0f} s")


class _home:  # noqa: N801 -- reads as the function it stands for
    """Settings of a deployment in a folder of its own, with free ports; the folder is deleted at the end."""

    def __init__(self, settings: Settings, say: Say) -> None:
        settings.home.mkdir(parents=True, exist_ok=True)
        self._folder = tempfile.TemporaryDirectory(prefix="bench-", dir=settings.home, ignore_cleanup_errors=True)
        self._settings = replace(
            settings,
            home=Path(self._folder.name),
            jars_folder=settings.jars,
            broker="",
            namespace="",
            replication=1,
            broker_port=_two_ports(),
            port=free_ports(1)[0],
            secret_text="the bench keeps no secrets",
            token="",
            host="127.0.0.1",
        )
        say(f"a deployment for this measurement: {self._folder.name}")

    def __enter__(self) -> Settings:
        return self._settings

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def _two_ports() -> int:
    """A free port whose successor is free too: the controller takes that one."""
    while True:
        port = free_ports(1)[0]
        if port < 65_535 and not taken(port + 1):
            return port
