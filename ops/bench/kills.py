"""Kills: how long a killed worker's partitions stand still.

    pacer (500 events/s) -> raw log -> workers;  kill -9;  until every partition has taken an event from after the kill

Once with two workers, where the other one takes over when the session has timed out; once with one, which is started
again under its name half a second later, as its supervisor does the first time.
"""

from __future__ import annotations

import contextlib
import math
import os
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from milepost.ops import processes
from milepost.ops.apply import apply_bundle
from milepost.ops.bench import job
from milepost.ops.bench.ours import forget_deployment, member
from milepost.ops.bench.rates import paced
from milepost.ops.bench.stage import Stage
from milepost.ops.client import Client
from milepost.ops.provision import provision
from milepost.ops.reader import topic_ends
from milepost.ops.settings import Settings
from milepost.ops.supervise import PAUSES_S, WORKER
from milepost.schemas.errors import MilepostError, StoreError

RATE: Final = 500
LOOK_S: Final = 0.05
PROGRESS_S_MAX: Final = 90.0
STEADY_S: Final = 2.0
"""Between two kills, once everything is as it was."""


def measure_kills(stage: Stage, *, kills: int) -> dict[str, Any]:
    """Seconds from kill -9 to progress in every partition: of a hand-over, and of a restarted member."""
    over = _percentiles("taken_over", _rounds(stage, workers=2, kills=kills))
    again = _percentiles("restarted", _rounds(stage, workers=1, kills=kills))
    return {"session_timeout_s": stage.settings.session_timeout_s, "rate": RATE, **over, **again}


def _percentiles(name: str, took_s: Sequence[float]) -> dict[str, Any]:
    """With few kills the 95th percentile is the nearest rank, for ten the worst of them: nothing is interpolated."""
    ordered = sorted(took_s)
    return {
        name: len(ordered),
        f"{name}_p50_s": round(statistics.median(ordered), 3),
        f"{name}_p95_s": round(ordered[math.ceil(0.95 * len(ordered)) - 1], 3),
        f"{name}_all_s": [round(one, 3) for one in took_s],
    }


def _rounds(stage: Stage, *, workers: int, kills: int) -> list[float]:
    settings = stage.deployment(f"kills-{workers}")
    provision(settings)
    apply_bundle(settings, job.bundle(), job.ORG)
    members = [settings, *(member(settings, number) for number in range(2, workers + 1))]
    log = settings.home / "pacer.log"
    settings.home.mkdir(parents=True, exist_ok=True)
    load = paced(settings, log, rate=RATE, seconds=kills * 2 * PROGRESS_S_MAX, seed=300 + workers)
    took_s: list[float] = []
    with Members(members) as running, load:
        running.steady()
        for number in range(kills):
            victim = number % workers
            running.kill(victim)
            killed, ends = time.monotonic(), topic_ends(settings, "raw-events")
            if workers == 1:
                time.sleep(max(0.0, killed + PAUSES_S[0] - time.monotonic()))
                running.start(victim)
            running.until_past(ends)
            took_s.append(time.monotonic() - killed)
            stage.say(f"kill {number + 1} of {kills}: {took_s[-1]:.1f} s")
            if workers > 1:
                running.start(victim)
            running.steady()
            time.sleep(STEADY_S)
    for one in members:
        forget_deployment(stage, one)
    return took_s


class Members:
    """Workers without a supervisor: killed and started by hand."""

    def __init__(self, members: Sequence[Settings]) -> None:
        self.members = members
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Members:
        for number in range(len(self.members)):
            self.start(number)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            processes.stop(process, patience_s=10.0)

    def start(self, number: int) -> None:
        settings = self.members[number]
        log = settings.home / "log" / f"{settings.worker}.log"
        self.processes[number] = processes.spawn(WORKER, log=log, env={**os.environ, **settings.environment()})

    def kill(self, number: int) -> None:
        process = self.processes.pop(number)
        process.kill()
        process.wait()

    def steady(self) -> None:
        """Wait until each living worker has a share, and together they have every partition of both legs open."""
        until = time.monotonic() + PROGRESS_S_MAX
        while time.monotonic() < until:
            legs = list(self._legs())
            shares = [[set(one[leg]["open"]) for one in legs] for leg in ("ingest", "measure")]
            wanted = set(range(self.members[0].partitions))
            if len(legs) == len(self.members) and all(
                all(share) and sum(map(len, share)) == len(wanted) and set().union(*share) == wanted for share in shares
            ):
                return
            time.sleep(LOOK_S)
        raise StoreError(f"the workers were not steady in {PROGRESS_S_MAX:.0f} s")

    def until_past(self, ends: dict[int, int]) -> None:
        """Wait until each raw partition is read beyond `ends`, and each signals partition is open."""
        until = time.monotonic() + PROGRESS_S_MAX
        while time.monotonic() < until:
            legs = list(self._legs())
            at: dict[int, int] = {}
            for one in legs:
                for number, offset in one["ingest"]["next_offset"].items():
                    at[int(number)] = max(at.get(int(number), 0), offset)
            measured = set().union(*(set(one["measure"]["open"]) for one in legs))
            if measured == set(ends) and all(at.get(number, 0) > end for number, end in ends.items()):
                return
            time.sleep(LOOK_S)
        raise StoreError(f"no progress in every partition in {PROGRESS_S_MAX:.0f} s after a kill")

    def _legs(self) -> Iterator[dict[str, Any]]:
        """The legs of each living worker that answers."""
        for number, process in list(self.processes.items()):
            if process.poll() is not None:
                self.start(number)  # it ended by itself: what started it would start it again
                continue
            with contextlib.suppress(MilepostError), Client(self.members[number].url, patience_s=0.0) as client:
                yield client.get("/v1/status")["legs"]
