"""Checks of a running deployment: the invariants of `invariants.py`, with what they need read from broker and workers.

    watch = Watch(deployment)             a thread that asks every worker all the time:   I12, I13
    quick(deployment, told, watch)        after each fault:                               I1, I4, I11, I12, I13
    full(deployment, told, watch, feed)   at the end:                                     I1 to I5 against the pure driver

`Kept` is a deployment whose workers are started again when they end by themselves, as the supervisor does.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from types import TracebackType
from typing import Any, Final, Self

import psutil

from milepost.agents.changelog import MARK_KEY, OWN_KEY, load_mark
from milepost.schemas.serde import wire
from milepost.topology.digest import digest
from milepost.topology.driver import Driver, follow
from milepost.topology.line import LEGS
from tests.support import flights_expected as other
from tests.support.hostile import Feed, content, undisturbed
from tests.support.invariants import conservation, never_back, same_answers, same_bytes, same_set
from tests.support.report import Told, fault
from tests.support.workers import SECRET, SIGNAL_KEY_BYTES, Deployment, Worker

HEALED_S: Final = 90.0
"""A deadline for healing, generous because machines are shared; what it took is in the report."""

LAG_S_MAX: Final = 1.0
RSS_MAX: Final = 700 * 1024 * 1024
FILES_MAX: Final = 600
THREADS_MAX: Final = 100
LINES_A_SECOND_MAX: Final = 20
LINES_FREE: Final = 3000
REVIVED_MAX: Final = 30
DECLINED: Final = 78
"""A worker that declines to start says that an operator is needed."""


class Kept(Deployment):
    """Workers that end by themselves are started again half a second later; `ended` holds the code of each and why."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ended: list[tuple[int, str]] = []
        self._kept: dict[str, dict[str, Any]] = {}
        self._due: dict[str, float] = {}

    def keep(self, name: str = "", *, ready: bool = True, **changes: Any) -> Worker:
        """Start a worker and keep it running."""
        name = name or self.settings.worker
        # A crash point is for the first life only, as with the supervisor.
        self._kept[name] = {key: value for key, value in changes.items() if key != "fault_at"}
        worker = self.start(name=name, ready=False, **changes)
        worker.expected = True
        if ready:
            self.wait(lambda: bool(self.workers[name].status().get("ready")), f"{name} is not ready", HEALED_S)
        return worker

    def let_go(self, name: str) -> dict[str, Any]:
        """The worker's next end is final.  Returns what it was started with."""
        self._due.pop(name, None)
        return self._kept.pop(name, {})

    def revive(self) -> None:
        """Start again what has ended; AssertionError when a worker declines to start, or ends for ever."""
        for name in list(self._kept):
            worker = self.workers[name]
            if worker.alive:
                continue
            if name not in self._due:
                code = worker.process.returncode
                self.ended.append((code, last_words(worker)))
                assert code != DECLINED, f"{name} declines to start:\n{worker.told()}"
                assert len(self.ended) <= REVIVED_MAX, f"workers end again and again: {self.ended}\n{worker.told()}"
                self._due[name] = time.monotonic() + 0.5
            elif time.monotonic() >= self._due[name]:
                del self._due[name]
                self.start(name=name, ready=False, **self._kept[name]).expected = True

    def wait(self, true: Callable[[], bool], what: str, seconds: float = HEALED_S, pause_s: float = 0.05) -> None:
        """Wait until `true`, reviving; AssertionError with every worker's last words when it does not come."""
        until = time.monotonic() + seconds
        while not true():
            self.revive()
            for one in self.workers.values():
                assert one.alive or one.expected, f"{what}: {one.name} ended:\n{one.told()}"
            if time.monotonic() >= until:
                self.ask_for_stacks()
            assert time.monotonic() < until, f"{what} after {seconds:.0f} s:\n" + "\n".join(
                f"{one.name} ({one.process.poll()}):\n{one.told()}" for one in self.workers.values()
            )
            time.sleep(pause_s)

    def ask_for_stacks(self) -> None:
        """Have each running worker write the stacks of its threads and tasks to its log (Faust does so on SIGUSR1).

        One whose loop stands still writes nothing, which tells as much."""
        for worker in self.running:
            with contextlib.suppress(ProcessLookupError):
                worker.process.send_signal(signal.SIGUSR1)
        time.sleep(2.0)

    def pause(self, seconds: float) -> None:
        """Let time pass, reviving."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.revive()
            time.sleep(min(0.05, max(0.0, until - time.monotonic())))

    def only(self, name: str) -> None:
        """Stop every worker but `name`, which is kept."""
        for one in list(self._kept):
            if one != name:
                self.let_go(one)
        for worker in self.running:
            if worker.name != name:
                worker.stop()
        if name not in self._kept:
            self._kept[name] = {}
            self.workers[name].expected = True


def last_words(worker: Worker) -> str:
    """Why a worker says it has ended: its last line of that weight, at most 300 characters."""
    lines = [line for line in worker.log.splitlines() if "CRITICAL" in line or "ERROR" in line or "Error" in line]
    return (lines or worker.log.splitlines() or ["it wrote nothing"])[-1].strip()[:300]


class Watch:
    """Asks every running worker all the time and measures its process.  A context manager around a thread.

    statuses: HTTP status -> answers (0: no connection, which a dead or stopped worker may give)
    own:      (seconds, resident bytes without what the stores keep, which grows slowly up to a bound that it has)
    """

    def __init__(self, deployment: Deployment, pause_s: float = 0.2) -> None:
        self.statuses: Counter[int] = Counter()
        self.rss_max = self.files_max = self.threads_max = 0
        self.own: list[tuple[float, int]] = []
        self.wrong: list[str] = []
        self.begun = time.monotonic()
        self._deployment = deployment
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(20)

    def _run(self) -> None:
        chance = random.Random(0)
        while not self._stop.wait(self._pause_s):
            for worker in self._deployment.running:
                rss = self._measure(worker)
                path = chance.choice(("/readyz", "/v1/status", "/v1/metrics/departures/value", "/healthz"))
                answered = self._ask(worker, path)
                if path == "/v1/status" and answered and rss:
                    self.own.append((time.monotonic(), rss - sum(json.loads(answered)["memory"].values())))

    def _measure(self, worker: Worker) -> int:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(worker.process.pid)
            with process.oneshot():
                rss = int(process.memory_info().rss)
                self.files_max = max(self.files_max, process.num_fds())
                self.threads_max = max(self.threads_max, process.num_threads())
            self.rss_max = max(self.rss_max, rss)
            return rss
        return 0

    def _ask(self, worker: Worker, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", worker.settings.port, timeout=2)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read(100_000)
            self.statuses[answer.status] += 1
            if answer.status >= 500 and answer.status not in (503, 507):
                self.wrong.append(f"I13: {answer.status} for {path} of {worker.name}: {body[:300]!r}")
            return body if answer.status == 200 else b""
        except (OSError, http.client.HTTPException):
            self.statuses[0] += 1
            return b""
        finally:
            connection.close()

    def answers(self) -> list[str]:
        """I13: no 5xx but 503 and 507."""
        return list(self.wrong)

    def caps(self) -> list[str]:
        """I12: memory, files, threads and log lines of every worker stay within their caps."""
        faults = [
            f"I12: {name} reached {value}, cap {cap}"
            for name, value, cap in (
                ("memory", self.rss_max, RSS_MAX),
                ("open files", self.files_max, FILES_MAX),
                ("threads", self.threads_max, THREADS_MAX),
            )
            if value > cap
        ]
        cap = LINES_FREE + LINES_A_SECOND_MAX * (time.monotonic() - self.begun)
        for worker in self._deployment.workers.values():
            lines = worker.log.count("\n")
            if lines > cap:
                faults.append(f"I12: {worker.name} has logged {lines} lines, cap {cap:.0f}")
        return faults


def healed(deployment: Deployment, told: Told, seconds: float = HEALED_S) -> float:
    """I11: ready, and what lies in the log now is folded within a second; returns how long it took to get there."""
    begun = time.monotonic()
    last = {"lag": "not measured"}

    def well() -> bool:
        if not deployment.status().get("ready"):
            return False
        ends = {leg.name: deployment.ends(leg.reads) for leg in LEGS}
        asked = time.monotonic()
        while (passed := time.monotonic() - asked) <= LAG_S_MAX:
            status = deployment.status().get("legs", {})
            at = {name: status.get(name, {}).get("next_offset", {}) for name in ends}
            behind = {
                name: sum(max(0, end - at[name].get(str(number), 0)) for number, end in found.items())
                for name, found in ends.items()
            }
            if not any(behind.values()):
                return True
            time.sleep(0.05)
        last["lag"] = f"{behind} records after {passed:.1f} s"
        return False

    try:
        deployment.wait(well, "not healed", seconds, pause_s=0.1)
    except AssertionError as error:
        told.holds("I11", [f"I11: {error}; last lag: {last['lag']}"])
    told.holds("I11")
    return time.monotonic() - begun


class Progress:
    """What must never go back, remembered from check to check."""

    def __init__(self) -> None:
        self.committed: dict[tuple[str, int], int] = {}

    def commits(self, deployment: Deployment) -> list[str]:
        """I4: committed offsets."""
        now = {
            (leg.reads, number): offset
            for leg in LEGS
            for number, offset in deployment.committed(leg.reads).items()
            if offset >= 0
        }
        faults = never_back("committed offset", self.committed, now)
        self.committed = now
        return faults


def quick(deployment: Deployment, told: Told, watch: Watch, progress: Progress) -> None:
    """After each fault: healed, within caps, nothing went back, every record a life has read came to one end."""
    healed(deployment, told)
    for worker in deployment.running:
        fates = worker.status().get("fates", {}).get("ingest")
        if fates:
            told.holds("I1", conservation(fates))
    told.holds("I4", progress.commits(deployment))
    told.holds("I12", watch.caps())
    told.holds("I13", watch.answers())


def full(deployment: Kept, told: Told, watch: Watch, feed: Feed, *, restore: bool = True) -> None:
    """The feed has finished, one worker runs: everything it holds and has sent is what a run without faults gives."""
    wanted = undisturbed(feed.events)
    with fault("F12", "each event 1 to 5 times, shuffled, late, future", seed=feed.seed) as row:
        row.note(f"seed {feed.seed}: {feed.sent} records of {feed.events} events, and {feed.future} of the future")
    deployment.settle(HEALED_S)
    told.holds("I2", same_set("digest", wanted.digest, deployment.digest()))
    answers = deployment.answers()
    if feed.events == len(_first_week()):
        expected = week_totals()
        told.holds("I2", same_answers(expected, {name: answers[name, "latest", ""] for name in expected}))
    signals = [m for m in deployment.read("signals") if len(m.key() or b"") == SIGNAL_KEY_BYTES]
    told.holds("I3", same_bytes((m.key(), m.value()) for m in signals))
    last = {m.key(): content(m.value()) for m in signals}
    told.holds("I1", same_set("signals", wanted.signals, last))
    again = rebuilt(deployment)
    dead = [wire("DeadLetter").decode(m.value()) for m in deployment.read("dead-letters") if m.value()]
    told.holds("I1", same_set("dead letters", letters(again.dead_letters), letters(dead)))
    assert set(letters(dead).values()) == {"future_event"} and len(letters(dead)) == feed.future
    told.processed_again += len(signals) - len(last)
    for leg in LEGS:
        messages = deployment.read(leg.changelog)
        faults, hands = owners(messages)
        told.holds("I4", faults)
        told.rebalances += hands
    told.holds("I5", same_set("digest of the raw log", digest(again.reader), deployment.digest()))
    told.holds("I12", watch.caps())
    told.holds("I13", watch.answers())
    if restore:
        restored(deployment, told, feed)
    if deployment.ended:
        codes = Counter(code for code, _ in deployment.ended)
        told.note(f"workers that ended by themselves and were started again, by exit code: {dict(codes)}")
        for why in sorted({why for _, why in deployment.ended}):
            told.note(f"  {why}")


def restored(deployment: Kept, told: Told, feed: Feed) -> None:
    """I5: kill the one worker, delete its state, start it again: what it restores is what an undisturbed run holds."""
    answers = deployment.answers()
    name = deployment.running[0].name
    changes = deployment.let_go(name)
    deployment.kill(name)
    deployment.lose_state(name)
    deployment.keep(name, **changes)
    deployment.settle(HEALED_S)
    told.holds("I5", same_set("digest from the changelogs", undisturbed(feed.events).digest, deployment.digest()))
    told.holds("I5", same_set("answers from the changelogs", answers, deployment.answers()))


def owners(messages: Iterable[Any]) -> tuple[list[str], int]:
    """I4 of a changelog: an owner's marks never go back, nor does one owner's X behind its predecessor's.

    Returns the faults, and how often a partition went to another worker.
    """
    faults: list[str] = []
    last: dict[int, tuple[int, str]] = {}
    reached: dict[int, int] = {}
    hands = 0
    for message in messages:
        number = message.partition()
        if message.key() == OWN_KEY and message.value() is not None:
            worker = wire("Own").decode(message.value())["worker"]
            if number in last and last[number][1] != worker:
                hands += 1
            last[number] = (message.offset(), worker)
        elif message.key() == MARK_KEY:
            mark = load_mark(_Row(message))
            if mark is None or number not in last or mark.epoch != last[number][0]:
                continue  # a dead owner's late bytes, which a restore ignores
            if mark.x < reached.get(number, -1):
                faults.append(f"I4: {message.topic()}/{number}@{message.offset()}: X {mark.x} after {reached[number]}")
            reached[number] = max(mark.x, reached.get(number, -1))
    return faults, hands


class _Row:
    """A confluent message as aiokafka shows one."""

    def __init__(self, message: Any) -> None:
        self.offset, self.value, self.headers = message.offset(), message.value(), message.headers() or []


def rebuilt(deployment: Deployment, chunk: int = 4000, seed: int = 0) -> Driver:
    """The pure driver over the raw log and the definitions as they lie at the broker."""
    settings = deployment.settings
    driver = Driver(SECRET.encode(), partitions=settings.partitions, chunk=chunk, seed=seed)
    for message in deployment.read("definitions"):
        driver.append("definitions", 0, message.key(), message.value(), (), message.timestamp()[1])
    follow(driver.decisions, driver.topics["definitions"][0], [])
    for message in deployment.read("raw-events"):
        headers = tuple(message.headers() or ())
        driver.append(
            "raw-events", message.partition(), message.key(), message.value(), headers, message.timestamp()[1]
        )
    driver.run()
    return driver


def letters(messages: Iterable[Any]) -> dict[Any, str]:
    """Position and stage -> reason, of dead letters decoded; one letter has one key, however often it was sent."""
    return {(m["topic"], m["partition"], m["offset"], m["stage"], m["rule"]): m["reason"] for m in messages}


def _first_week() -> Any:
    from tests.support.workers import week

    return week()


@cache
def week_totals() -> dict[str, Any]:
    """What the first week's metrics must be, computed by another library."""
    return other.expected(other.first_week(other.read_csv())).totals


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
