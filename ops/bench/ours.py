"""Milepost as a contestant: workers of a deployment of its own take the filled log, then are asked for every cell.

    topics, bundle -> workers share the partitions -> they are held (SIGSTOP) while the log is filled -> they go on,
    timed from there -> status sampled until both legs are at their ends -> cells by HTTP

Held, because two workers that start on a full log would be timed while one of them still starts; the session time-out
is long enough for it.  The cells are had as a user has them: `breakdown` by company for each rule, pane, plan and
country.  Of several workers all but the first are stopped before the questions, so that one holds everything.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from milepost.ops import processes
from milepost.ops.apply import apply_bundle
from milepost.ops.bench import job, machine
from milepost.ops.bench.stage import Run, Stage, second_half
from milepost.ops.bench.work import FOUR, NOT_ASKED, PANE_MS, Cell, Key, Work, differences
from milepost.ops.broker import Say
from milepost.ops.client import Client
from milepost.ops.flights import rfc3339
from milepost.ops.provision import provision
from milepost.ops.reader import topic_ends
from milepost.ops.settings import Settings
from milepost.ops.supervise import Supervisor
from milepost.schemas.errors import StoreError

JOB_S_MAX: Final = 900.0
SAMPLE_S: Final = 0.5
LAST_SAMPLE_S: Final = 0.05
"""The same once everything is read: the end is found at most so late."""

HELD_S_MAX: Final = 30
"""The session time-out of the workers in seconds: filling the log takes less, and Faust takes at most 40."""

DOES: Final = (
    "contract checked; dedupe with body hash; persons and companies as leaves; rules; signals with origin and prev; "
    "facts; 4 cells a signal with known-time buckets, day rows too; one acknowledged batch a checkpoint, upto"
)
LEAVES_OUT: Final = "nothing"


class Fleet:
    """Workers of one deployment on a broker that runs already, a context manager; entering returns when all are ready.

    settings: of the deployment; worker n gets the name worker-n, a port and a home of its own
    """

    def __init__(self, settings: Settings, workers: int, *, say: Say) -> None:
        self.members = [settings, *(member(settings, number) for number in range(2, workers + 1))]
        self.say = say
        self.running: list[Supervisor] = []
        self._gone = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Fleet:
        try:
            for one in self.members:
                self.running.append(self._stack.enter_context(Supervisor(one, say=self.say)))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def check(self) -> None:
        """Raise what ended a worker for good."""
        for one in self.running:
            if one.failure is not None:
                raise one.failure

    def keep_first(self) -> None:
        """Stop all workers but the first; it takes over."""
        for one in self.running[1:]:
            one.stop()
            self._gone += one.restarts
        del self.running[1:]

    def shared(self, *, patience_s: float = 60.0) -> None:
        """Wait until the workers have divided all partitions of both legs among them, none without any."""
        until = time.monotonic() + patience_s
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Client(one.url)) for one in self.members]
            while time.monotonic() < until:
                self.check()
                legs = [client.get("/v1/status")["legs"] for client in clients]
                open_ = [[set(worker[leg]["open"]) for worker in legs] for leg in ("ingest", "measure")]
                if all(_divided(parts, self.members[0].partitions) for parts in open_):
                    return
                time.sleep(SAMPLE_S)
        raise StoreError(f"{len(self.members)} workers did not divide the partitions in {patience_s:.0f} s")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """The workers do nothing meanwhile."""
        pids = [one.worker.pid for one in self.running if one.worker is not None]
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    @property
    def url(self) -> str:
        return self.members[0].url

    def cpu_s(self) -> float:
        """Processor time of the workers so far; 0 where it cannot be read."""
        pids = [one.worker.pid for one in self.running if one.worker is not None]
        return sum(map(machine.cpu_s, pids)) if machine.measurable() else 0.0

    def peak_mb(self) -> float:
        """The greatest resident memory that any worker has had, MB; 0.0 where it cannot be measured."""
        pids = [one.worker.pid for one in self.running if one.worker is not None]
        return max(map(machine.peak_mb, pids), default=0.0) if machine.measurable() else 0.0

    @property
    def restarts(self) -> int:
        """How often a worker was started again: 0 in an undisturbed run."""
        return self._gone + sum(one.restarts for one in self.running)


def _divided(parts: Sequence[set[int]], partitions: int) -> bool:
    """Whether each worker has a share and together they have everything once."""
    return all(parts) and sum(map(len, parts)) == partitions and set().union(*parts) == set(range(partitions))


def member(settings: Settings, number: int) -> Settings:
    """The settings of another worker of the deployment."""
    home = settings.home.with_name(f"{settings.home.name}-worker-{number}")
    return replace(settings, home=home, worker=f"worker-{number}", port=processes.free_ports(1)[0])


def prepared(stage: Stage, name: str) -> Settings:
    """A deployment with the job's definitions, its log empty."""
    settings = replace(stage.deployment(name), session_timeout_s=HELD_S_MAX)
    provision(settings)
    apply_bundle(settings, job.bundle(), job.ORG)
    return settings


def run_job(stage: Stage, name: str, work: Work, records: Sequence[job.Message], *, workers: int = 1) -> Run:
    """The reference job, compared with the expected work."""
    settings = prepared(stage, f"ours-{workers}")
    with Fleet(settings, workers, say=stage.say) as fleet:
        watch = fill_held(fleet, records)
        watch.until_done(fleet)
        peak_mb = fleet.peak_mb()
        fleet.keep_first()
        with Client(fleet.url) as client:
            settled(client, settings)
            cells = ask_cells(client, work)
        restarts = fleet.restarts
        if restarts:  # a run that was disturbed says by what
            stage.say("\n".join(processes.last_lines(one) for one in settings.home.parent.glob("*/log/*.log.1")))
    forget(stage, fleet)
    return Run(
        name=name,
        events=len(records),
        seconds=watch.seconds,
        second_half=second_half(watch.progress(), len(records)),
        signals=sum(cell[0] for key, cell in cells.items() if key[3:] == ("", "")),
        cpu_s=watch.cpu_s,
        wrong=differences(work, cells, FOUR),
        does=DOES,
        leaves_out=LEAVES_OUT,
        more={"workers": workers, "restarts": restarts, "peak_mb": peak_mb},
    )


def take(stage: Stage, name: str, records: Sequence[job.Message], *, during: Callable[[Fleet], object]) -> None:
    """One worker takes the job, with `during` beside it; nothing is measured or compared."""
    settings = prepared(stage, name)
    with Fleet(settings, 1, say=stage.say) as fleet:
        fill_held(fleet, records)
        during(fleet)
    forget(stage, fleet)


def fill_held(fleet: Fleet, records: Sequence[job.Message]) -> Watch:
    """Fill the log while the workers are held; returns the watch, which begins when they go on."""
    settings = fleet.members[0]
    fleet.shared()
    with fleet.held():
        job.fill(settings.bootstrap, settings.topic("raw-events"), records)
        ends = topic_ends(settings, "raw-events")
    return Watch(settings=settings, ends=ends, begun=time.monotonic(), cpu_before_s=fleet.cpu_s())


@dataclass(slots=True, kw_only=True)
class Watch:
    """How far the workers of a deployment are, from the moment they go on over a filled log.

    ends:    the ends of the filled raw partitions
    samples: (monotonic seconds, signals measured)
    """

    settings: Settings
    ends: dict[int, int]
    begun: float
    cpu_before_s: float
    cpu_s: float = 0.0
    samples: list[tuple[float, int]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.samples[-1][0] - self.begun

    def progress(self) -> list[tuple[float, int]]:
        """(seconds, events): so many of the events as the share of the signals log that is measured."""
        events, signals = sum(self.ends.values()), max(1, self.samples[-1][1])
        return [(at - self.begun, events * measured // signals) for at, measured in self.samples]

    def until_done(self, fleet: Fleet) -> None:
        """Sample until ingest has passed the ends of the filled log and measure those of `signals`."""
        total = sum(self.ends.values())
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Client(one.url)) for one in fleet.members]
            while time.monotonic() - self.begun < JOB_S_MAX:
                fleet.check()
                at = [client.get("/v1/status")["legs"] for client in clients]
                now, used_s = time.monotonic(), fleet.cpu_s()
                signals = topic_ends(self.settings, "signals")
                measured = _reached(at, "measure", signals)
                self.samples.append((now, measured))
                read = _reached(at, "ingest", self.ends)
                if read == total and measured == sum(signals.values()):
                    self.cpu_s = used_s - self.cpu_before_s
                    return
                time.sleep(SAMPLE_S if read < total else LAST_SAMPLE_S)
        raise StoreError(f"the workers did not finish the job in {JOB_S_MAX:.0f} s")


def _reached(at: Sequence[dict[str, Any]], leg: str, ends: dict[int, int]) -> int:
    """Records taken of each partition up to its end, over all workers."""
    reached: dict[int, int] = {}
    for worker in at:
        for number, offset in worker[leg]["next_offset"].items():
            reached[int(number)] = max(reached.get(int(number), 0), offset)
    return sum(min(end, reached.get(number, 0)) for number, end in ends.items())


def settled(client: Client, settings: Settings, *, patience_s: float = 120.0) -> None:
    """Wait until one worker holds all partitions and has read all that lies in them."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        status = client.get("/v1/status")
        legs = status["legs"]
        whole = all(len(leg["open"]) == settings.partitions for leg in legs.values())
        signals = topic_ends(settings, "signals")
        if status["ready"] and whole and _reached([legs], "measure", signals) == sum(signals.values()):
            return
        time.sleep(SAMPLE_S)
    raise StoreError(f"{settings.worker} did not take over in {patience_s:.0f} s")


def ask_cells(client: Client, work: Work) -> dict[Key, Cell]:
    """Every cell's sum, as answers over HTTP; of the totals the average too, which gives the count."""
    panes = sorted({key[2] for key in work.cells})
    out: dict[Key, Cell] = {}
    for rule, metric in job.METRICS.items():
        for pane in panes:
            for plan in ("", *job.PLANS):
                for country in ("", *job.COUNTRIES):
                    question = _question(pane, plan, country)
                    sums = _by_company(client, f"{metric}_sum", question)
                    averages = {} if plan or country else _by_company(client, f"{metric}_avg", question)
                    for company, total in sums.items():
                        average = averages.get(company)
                        count = round(total / average) if average else NOT_ASKED
                        out[(rule, company, pane, plan, country)] = count, total
    return out


def _question(pane: int, plan: str, country: str) -> dict[str, str]:
    out = {"by": "company", "window": "15m", "at": rfc3339((pane + 1) * PANE_MS), "basis": "corrected"}
    if plan:
        out["dim.plan"] = plan
    if country:
        out["dim.country"] = country
    return out


def _by_company(client: Client, metric: str, question: dict[str, str]) -> dict[str, float]:
    rows: Iterator[dict[str, Any]] = client.pages(f"/v1/metrics/{metric}/breakdown", "rows", **question)
    return {str(row["label"]).removeprefix("crm:"): float(row["value"]) for row in rows if row["value"] is not None}


def forget(stage: Stage, fleet: Fleet) -> None:
    """Delete a finished deployment: its files and topics are no load for what comes next."""
    for one in fleet.members:
        forget_deployment(stage, one)


def forget_deployment(stage: Stage, settings: Settings) -> None:
    """The same of one worker's settings."""
    stage.drop(settings.home)
    prefix = settings.topic("")
    stage.drop_topics(lambda name: name.startswith(prefix))
