"""Rates: what holds beside a steady load: how fresh answers are, how fast they come.

    pacer (5,000 events/s) -> raw log -> worker -> `value`
    prober: 20 marked events a second, each noted when sent and when an answer first has it

If the worker cannot keep up with the asked rate, lower ones are tried, and the highest that held is reported: the
backlog at the end of the load is at most what comes in a second.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from milepost.ops import processes
from milepost.ops.apply import apply_bundle
from milepost.ops.bench import job
from milepost.ops.bench.ours import Fleet
from milepost.ops.bench.stage import Stage
from milepost.ops.client import Client, Refused
from milepost.ops.provision import provision
from milepost.ops.reader import topic_ends
from milepost.ops.sender import Sender
from milepost.ops.settings import Settings
from milepost.schemas.errors import StoreError

RATES: Final = (5_000, 4_000, 3_000, 2_000, 1_000, 500, 200)
"""The asked rate of events a second, then those that are tried when it does not hold."""

QUESTIONS_A_S: Final = 300
PROBES_A_S: Final = 20
WARM_S: Final = 5.0
BACKLOG_S_MAX: Final = 1.0
LATE_S_MAX: Final = 30.0
"""A marked event that no answer has so long after the load has ended is lost."""


@contextmanager
def living(stage: Stage, name: str, files: Mapping[str, bytes] | None = None) -> Iterator[Fleet]:
    """One worker with the job's definitions (or `files`) and 20,000 events of history."""
    settings = stage.deployment(name)
    provision(settings)
    apply_bundle(settings, files or job.bundle(), job.ORG)
    history = job.messages(20_000, settings.partitions, seed=11)
    job.fill(settings.bootstrap, settings.topic("raw-events"), history)
    with Fleet(settings, 1, say=stage.say) as fleet:
        caught_up(settings, patience_s=300.0)
        yield fleet


@contextmanager
def paced(settings: Settings, log: Path, *, rate: int, seconds: float, seed: int) -> Iterator[subprocess.Popen[bytes]]:
    """A pacer that has begun; it is stopped at the end of the block."""
    given = {
        "bootstrap": settings.bootstrap,
        "topic": settings.topic("raw-events"),
        "partitions": settings.partitions,
        "rate": rate,
        "seconds": seconds,
        "seed": seed,
    }
    process = start("milepost.ops.bench.pacer", given, log)
    try:
        until = time.monotonic() + 120
        while b"begun" not in log.read_bytes():
            if process.poll() is not None or time.monotonic() > until:
                raise StoreError(f"the pacer did not begin; it said\n{processes.last_lines(log)}")
            time.sleep(0.02)
        yield process
    finally:
        processes.stop(process, patience_s=2.0)


def start(module: str, given: Mapping[str, object], log: Path) -> subprocess.Popen[bytes]:
    """A module of ours as a process, with key=value arguments."""
    return processes.spawn([sys.executable, "-m", module, *(f"{k}={v}" for k, v in given.items())], log=log)


def backlog(settings: Settings) -> int:
    """Events of the raw log that the worker has not taken, at this moment."""
    ends = topic_ends(settings, "raw-events")
    with Client(settings.url) as client:
        at = client.get("/v1/status")["legs"]["ingest"]["next_offset"]
    return sum(max(0, end - int(at.get(str(number), 0))) for number, end in ends.items())


def caught_up(settings: Settings, *, patience_s: float) -> None:
    """Wait until the worker has taken what lies in the raw log; ticks come all the while."""
    until = time.monotonic() + patience_s
    while backlog(settings) > 2 * settings.partitions:
        if time.monotonic() > until:
            raise StoreError(f"the worker did not catch up in {patience_s:.0f} s")
        time.sleep(0.2)


def measure_freshness(stage: Stage, *, seconds: float, rates: Sequence[int] = RATES) -> dict[str, Any]:
    """Milliseconds from the call of produce to the first answer that has the event."""
    with living(stage, "freshness") as fleet:
        settings = fleet.members[0]
        prober = Prober(settings)
        tried = []
        for number, rate in enumerate(rates):
            log = settings.home / f"pacer-{rate}.log"
            with paced(settings, log, rate=rate, seconds=WARM_S + seconds, seed=100 + number) as pacer:
                prober.probe(WARM_S, record=False)
                prober.probe(seconds, until=pacer)
                left = backlog(settings)
            held = left <= BACKLOG_S_MAX * rate
            prober.drain()
            tried.append({"rate": rate, "backlog": left, "held": held, **prober.figures()})
            stage.say(f"at {rate:,} events/s: p99 {tried[-1]['p99_ms']:.0f} ms, {left:,} waiting at the end")
            if held:
                break
            caught_up(settings, patience_s=300.0)
        return {"asked_rate": rates[0], "seconds": seconds, **tried[-1], "tried": tried}


def measure_questions(stage: Stage, *, seconds: float, rates: Sequence[int] = RATES) -> dict[str, Any]:
    """Latencies of `value` over HTTP in an open loop beside the load."""
    with living(stage, "questions") as fleet:
        settings = fleet.members[0]
        tried = []
        for number, rate in enumerate(rates):
            log, answers = settings.home / f"pacer-{rate}.log", settings.home / f"asker-{rate}.log"
            with paced(settings, log, rate=rate, seconds=WARM_S + seconds + 2, seed=200 + number):
                time.sleep(WARM_S)
                given = {"port": settings.port, "rate": QUESTIONS_A_S, "seconds": seconds}
                asker = start("milepost.ops.bench.asker", {**given, "companies": job.COMPANIES, "seed": 3}, answers)
                try:
                    asker.wait(seconds * 10 + 60)
                finally:
                    processes.stop(asker, patience_s=1.0)
                left = backlog(settings)
            found = last_json(answers)
            held = left <= BACKLOG_S_MAX * rate
            tried.append({"rate": rate, "backlog": left, "held": held, **found})
            stage.say(f"beside {rate:,} events/s: p99 {found['p99_ms']:.1f} ms, {left:,} waiting at the end")
            if held:
                break
            caught_up(settings, patience_s=300.0)
        return {"asked_rate": rates[0], "seconds": seconds, **tried[-1], "tried": tried}


def last_json(log: Path) -> dict[str, Any]:
    """The last line of a program's output, which is JSON; StoreError when it is not."""
    lines = log.read_text(errors="replace").splitlines()
    if not lines or not lines[-1].startswith("{"):
        raise StoreError(f"{log.name}: no figures; it said\n{processes.last_lines(log)}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


@dataclass(slots=True)
class Prober:
    """Sends marked events and asks for them.

    A marked event adds 1 to its company's sum, so the sum says how many are visible.  Each raw partition has a company
    of its own, whose events keep their order.
    """

    settings: Settings
    took_ms: list[float] = field(default_factory=list)
    lost: int = 0
    _sent: dict[int, list[float]] = field(default_factory=dict)
    _seen: dict[int, int] = field(default_factory=dict)
    _measured_from: dict[int, int] = field(default_factory=dict)

    def probe(self, seconds: float, *, record: bool = True, until: subprocess.Popen[bytes] | None = None) -> None:
        """Probe for so long (or until the pacer has ended); only with `record` the latencies count."""
        partitions = range(self.settings.partitions)
        for number in partitions:
            self._sent.setdefault(number, [])
            self._seen.setdefault(number, 0)
        if record:
            self.took_ms.clear()
            self._measured_from = {number: len(self._sent[number]) for number in partitions}
        end, due, turn = time.monotonic() + seconds, time.monotonic(), 0
        with Client(self.settings.url) as client, Sender(self.settings.bootstrap, linger_ms=0) as sender:
            while time.monotonic() < end and (until is None or until.poll() is None):
                now = time.monotonic()
                if now >= due:
                    self._send(sender, turn % len(partitions))
                    due, turn = max(due + 1 / PROBES_A_S, now), turn + 1
                self._look(client, turn % len(partitions) if not self._waiting() else self._waiting()[0])
                time.sleep(0.003)

    def drain(self) -> None:
        """Ask on until everything sent is visible; what is not in time is lost."""
        until = time.monotonic() + LATE_S_MAX
        with Client(self.settings.url) as client:
            while self._waiting() and time.monotonic() < until:
                for number in self._waiting():
                    self._look(client, number)
        self.lost = sum(len(sent) - self._seen[number] for number, sent in self._sent.items())

    def figures(self) -> dict[str, Any]:
        """p50, p99 and the greatest latency of what was recorded."""
        if self.lost or len(self.took_ms) < 2:
            raise StoreError(f"{self.lost} marked events never became visible, {len(self.took_ms)} did")
        cuts = statistics.quantiles(self.took_ms, n=100, method="inclusive")
        return {
            "probes": len(self.took_ms),
            "p50_ms": round(cuts[49], 1),
            "p99_ms": round(cuts[98], 1),
            "max_ms": round(max(self.took_ms), 1),
        }

    def _waiting(self) -> list[int]:
        """Partitions with marked events that no answer had yet, the one that was sent to longest ago first."""
        out = [number for number, sent in self._sent.items() if self._seen[number] < len(sent)]
        return sorted(out, key=lambda number: self._sent[number][self._seen[number]])

    def _send(self, sender: Sender, number: int) -> None:
        while True:  # one in `partitions` ids lies where it shall
            body = job.event(
                str(uuid.uuid4()),
                int(time.time() * 1000),
                f"probe-{number}",
                type="login",
                user="email:probe@example.com",
                amount=1.0,
                plan="free",
                country="US",
                session="",
            )
            one = job.message(body, self.settings.partitions)
            if one.partition == number:
                break
        self._sent[number].append(time.monotonic())
        sender.send(self.settings.topic("raw-events"), one.partition, one.key, one.value)

    def _look(self, client: Client, number: int) -> None:
        if not self._sent[number]:
            return
        try:
            answer = client.value("logins_sum", company=f"crm_id:crm:probe-{number}")
        except Refused as refused:
            if refused.status != 404:  # its first event is still on the way
                raise
            return
        now, sum_ = time.monotonic(), int(float(answer["value"] or 0))
        for place in range(self._seen[number], sum_):
            if place >= self._measured_from.get(number, 1 << 60):
                self.took_ms.append((now - self._sent[number][place]) * 1000)
        self._seen[number] = max(self._seen[number], sum_)
