"""A whole deployment for tests: topics in a namespace of its own, definitions, events, and real worker processes.

    Deployment -> provision -> apply -> send flights -> start (FAULT_AT) -> kill -> start -> settle -> digest, values
                                                         start(name="worker-2") beside it, with a home of its own

A worker is `python -m milepost.agents` as users run it.  Every process is ended by its id.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition

from milepost.ops.apply import apply_bundle, demo_bundle
from milepost.ops.client import Client
from milepost.ops.flights import ORG, FlightEvent, Flights, read_flights
from milepost.ops.processes import free_ports
from milepost.ops.provision import admin_client, provision
from milepost.ops.reader import plain_consumer, read_to_end, topic_ends
from milepost.ops.sender import Sender
from milepost.ops.settings import Settings
from milepost.schemas import stamps
from milepost.schemas.errors import MilepostError
from milepost.schemas.keys import checked_secret, org_key, raw_place
from milepost.schemas.stamps import Stamp
from milepost.topology import line

ROOT: Final = Path(__file__).resolve().parents[2]
SRC: Final = Path(os.environ.get("MUTANT_SRC") or ROOT / "src")
"""Where worker processes import the engine from: a mutant's copy of it, when one is tried (tests/support/mutants.py)."""
SECRET: Final = "a secret that only tests use"
"""The secret of the fixture `settings`: leaves, and so digests, depend on it."""
AT: Final = "2014-01-05T00:00:00Z"
BASES: Final = ("latest", "corrected", "as_shown")
Shift = Callable[[FlightEvent], int]
"""How much later, in ms, the log is told to have learned of an event."""
LEGS: Final[Mapping[str, str]] = {leg.name: leg.reads for leg in line.LEGS}
"""Leg -> the topic that it reads, each behind those that write it."""
SIGNAL_KEY_BYTES: Final = 32
COMING_BACK: Final = frozenset(
    (KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR)
)
"""What a broker that was restarted says of a group for a while."""
"""Leaf and event; ticks have shorter keys."""
_OPEN: Final = re.compile(rf"({'|'.join(LEGS)})/(\d+): open at (\d+)")


@cache
def week() -> Flights:
    """The first week of the demo's data: 6,099 rows, 12,158 events with the airlines."""
    return read_flights(week=True)


class Worker:
    """One life of a worker process.  `log` is what this life has written.

    mutant:   Python that runs before the worker does, to break it on purpose
    expected: whether its end was asked for (or waited for); another end fails whatever waits for the deployment
    """

    def __init__(self, settings: Settings, mutant: str = "") -> None:
        self.settings = settings
        self.expected = False
        settings.home.mkdir(parents=True, exist_ok=True)
        self.log_file = settings.home / f"{settings.worker}.log"
        self._from = self.log_file.stat().st_size if self.log_file.exists() else 0
        env = {name: value for name, value in os.environ.items() if not name.startswith("MILEPOST_")}
        env |= {**settings.environment(), "PYTHONPATH": str(SRC), "PYTHONHASHSEED": "random"}
        with self.log_file.open("ab") as out:
            broken = ["-c", f"{mutant}\nfrom milepost.agents.__main__ import main\nmain()"]
            command = [sys.executable, *(broken if mutant else ["-m", "milepost.agents"])]
            self.process = subprocess.Popen(
                command, cwd=settings.home, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )

    @property
    def name(self) -> str:
        return self.settings.worker

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def log(self) -> str:
        with self.log_file.open("rb") as file:
            file.seek(self._from)
            return file.read().decode(errors="replace")

    def client(self, patience_s: float = 60.0) -> Client:
        return Client(self.settings.url, patience_s=patience_s)

    def status(self) -> dict[str, Any]:
        """What the worker says of itself now; {} when it does not answer."""
        with contextlib.suppress(MilepostError), self.client(patience_s=0.0) as client:
            found: dict[str, Any] = client.get("/v1/status")
            return found
        return {}

    def opened(self) -> dict[tuple[str, int], int]:
        """(leg, partition) -> the offset at which this life began to fold, for those that were opened."""
        return {(leg, int(number)): int(at) for leg, number, at in _OPEN.findall(self.log)}

    def wait_end(self, seconds: float = 60.0) -> int:
        """The exit code; -9 after kill -9."""
        self.expected = True
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker did not end in {seconds:.0f} s:\n{self.told()}") from None

    def kill(self) -> None:
        """kill -9, at once."""
        self.expected = True
        if self.alive:
            self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """An orderly end; killed when it takes too long."""
        self.expected = True
        if self.alive:
            self.process.send_signal(signal.SIGTERM)
            try:
                return self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.returncode

    def told(self) -> str:
        """The end of the log, for a failed assertion."""
        return self.log[-3000:]


class Deployment:
    """A deployment on a running broker.  As a context manager it ends its workers.

    lives: the worker processes so far, of all names, in the order of their starts
    """

    def __init__(self, settings: Settings, **changes: Any) -> None:
        self.settings = replace(settings, port=free_ports(1)[0], **changes)
        self.lives: list[Worker] = []
        self._ports: dict[str, int] = {self.settings.worker: self.settings.port}
        self._sealing = org_key(checked_secret(self.settings.secret()), ORG)
        provision(self.settings)

    def __enter__(self) -> Deployment:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.lives:
            one.kill()

    # -- what goes in

    def apply(self, files: Mapping[str, bytes] | None = None) -> None:
        """Put the demo's definitions (or `files`) in force."""
        apply_bundle(self.settings, files if files is not None else demo_bundle(), ORG)

    def send(self, events: Iterable[FlightEvent], *, shift: Shift = lambda _: 0) -> None:
        """Append events in this order, backdated as the importer does, `shift` ms later; acknowledged on return."""
        with self.sending(shift=shift) as send:
            send(events)

    @contextlib.contextmanager
    def sending(self, *, shift: Shift = lambda _: 0) -> Iterator[Callable[[Iterable[FlightEvent]], None]]:
        """The same for many calls: each hands its events over, all are acknowledged when the context ends."""
        topic = self.settings.topic("raw-events")
        with Sender(self.settings.bootstrap, linger_ms=5) as sender:

            def send(events: Iterable[FlightEvent]) -> None:
                for event in events:
                    sender.send(topic, *self.record_of(event, shift=shift))

            yield send

    def record_of(
        self, event: FlightEvent, *, shift: Shift = lambda _: 0
    ) -> tuple[int, bytes, bytes, tuple[tuple[str, bytes], ...]]:
        """An event as the importer sends it: partition, key, value, headers."""
        key, partition = raw_place(ORG, event.source, event.id, 0, 0, self.settings.partitions)
        value = event.body()
        stamp = Stamp(kind=stamps.BACKDATED, k_ms=event.k_ms + shift(event))
        return partition, key, value, (stamps.header(self._sealing, key, value, stamp),)

    def put(
        self,
        topic: str,
        records: Iterable[tuple[int, bytes | None, bytes | None]],
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Append (partition, key, value) to a topic of the line as any client may; acknowledged on return."""
        producer = Producer(
            {
                "bootstrap.servers": self.settings.bootstrap,
                "linger.ms": 5,
                "log_level": 2,
                "compression.type": "lz4",  # the broker's limit holds for the batch as it comes
                "message.max.bytes": 16 * 1024 * 1024,
            }
        )
        refused: list[str] = []

        def delivered(error: Any, _: Any) -> None:
            if error is not None:
                refused.append(str(error))

        name = self.settings.topic(topic)
        for partition, key, value in records:
            producer.produce(name, value, key, partition, headers=list(headers) or None, on_delivery=delivered)
        assert producer.flush(60) == 0 and not refused, f"{topic}: not acknowledged: {refused[:3]}"

    # -- the worker

    @property
    def worker(self) -> Worker:
        """The life that was started last."""
        return self.lives[-1]

    @property
    def workers(self) -> dict[str, Worker]:
        """Name -> its newest life, running or not."""
        return {one.name: one for one in self.lives}

    @property
    def running(self) -> list[Worker]:
        return [one for one in self.workers.values() if one.alive]

    def start(
        self, fault_at: str = "", *, ready: bool = True, mutant: str = "", name: str = "", **changes: Any
    ) -> Worker:
        """A new life of a worker; unless `ready` is False, returns when it can be asked.

        name: default the deployment's own (worker-1), whose settings `changes` alter for later lives too.  Another has
            a home of its own below the deployment's, keeps its port from life to life, and shares everything else.
        """
        name = name or self.settings.worker
        before = self.workers.get(name)
        assert before is None or not before.alive, f"one {name} at a time"
        if name == self.settings.worker:
            settings = self.settings = replace(self.settings, fault_at=fault_at, **changes)
        else:
            port = self._ports.get(name) or self._ports.setdefault(name, free_ports(1)[0])
            settings = replace(self.settings, worker=name, home=self.settings.home / name, port=port)
            settings = replace(settings, fault_at=fault_at, **changes)
        worker = Worker(settings, mutant)
        self.lives.append(worker)
        if ready:
            self.wait(lambda: bool(worker.status().get("ready")), f"{name} is not ready")
        return worker

    def kill(self, name: str = "") -> dict[str, Any]:
        """The worker's last status, then kill -9.  Without a name the one that was started last."""
        worker = self.workers[name] if name else self.worker
        status = worker.status()
        worker.kill()
        return status

    def lose_state(self, name: str = "") -> None:
        """Delete every state folder of a worker, which must not be running."""
        worker = self.workers[name] if name else self.worker
        assert not worker.alive
        shutil.rmtree(worker.settings.state)

    def status(self) -> dict[str, Any]:
        """What the running workers say, as one: `ready` when all are, positions and lag of all, fates summed.

        {} when none answers; one that does not answer makes it not ready."""
        heard = [one.status() for one in self.running]
        told = [one for one in heard if one]
        if not told:
            return {}
        if len(heard) == 1:
            return told[0]
        legs: dict[str, Any] = {}
        said: dict[str, Any] = {}
        for status in told:
            for number, at in status["milestones"].items():
                said[number] = max(said.get(number) or "", at or "") or None
            for leg, found in status["legs"].items():
                into = legs.setdefault(leg, {"open": [], "restoring": [], "next_offset": {}, "lag": {}, "fates": {}})
                into["open"] = sorted({*into["open"], *found["open"]})
                into["restoring"] = sorted({*into["restoring"], *found["restoring"]})
                into["next_offset"] |= found["next_offset"]
                into["lag"] |= found["lag"]
                into["fates"] = dict(Counter(into["fates"]) + Counter(found["fates"]))
        return {
            "ready": len(told) == len(heard) and all(one.get("ready") for one in told),
            "lag": {name: sum(leg["lag"].values()) for name, leg in legs.items()},
            "fates": {name: leg["fates"] for name, leg in legs.items()},
            "legs": legs,
            "milestones": said,
        }

    def wait(self, true: Callable[[], bool], what: str, seconds: float = 90.0, pause_s: float = 0.05) -> None:
        """Wait until `true`; AssertionError with the worker's log when it does not come, or a worker ends unasked."""
        until = time.monotonic() + seconds
        while not true():
            for one in self.workers.values():
                assert one.alive or one.expected, (
                    f"{what}: {one.name} ended with {one.process.returncode}:\n{one.told()}"
                )
            assert not self.lives or self.running, f"{what}: no worker runs"
            assert time.monotonic() < until, f"{what} after {seconds:.0f} s:\n" + "\n".join(
                f"{one.name}:\n{one.told()}" for one in self.running
            )
            time.sleep(pause_s)

    def ends(self, topic: str) -> dict[int, int]:
        return topic_ends(self.settings, topic)

    def committed(self, topic: str) -> dict[int, int]:
        """What the group has committed: behind it every checkpoint has landed, and its outputs before it."""
        admin = admin_client(self.settings)
        wanted = [TopicPartition(self.settings.topic(topic), number) for number in range(self.settings.partitions)]
        until = time.monotonic() + 30
        while True:
            asked = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(self.settings.group, wanted)])
            try:
                found = asked[self.settings.group].result(timeout=30).topic_partitions or []
            except KafkaException as error:
                # A broker that came back reads its groups first.
                if error.args[0].code() not in COMING_BACK or time.monotonic() > until:
                    raise
                time.sleep(0.2)
                continue
            return {one.partition: one.offset for one in found}

    def folded(self, leg: str) -> int:
        """Records that the leg has folded, over all partitions and lives; 0 while no worker answers."""
        return sum(at for (name, _), at in positions(self.status()).items() if name == leg)

    def landed(self, leg: str) -> int:
        """Records of the leg's topic that are below the committed offsets, over all partitions."""
        return sum(max(0, offset) for offset in self.committed(LEGS[leg]).values())

    def at_work(self) -> list[str]:
        """The legs whose topics hold anything: without records in the definitions there are no changes of any."""
        return [leg for leg, topic in LEGS.items() if any(self.ends(topic).values())]

    def settle(self, seconds: float = 120.0) -> dict[str, Any]:
        """Wait until each leg has folded and committed what its topic held now; returns the status.

        Ingest first: a commit follows the acknowledgement of its outputs, so what the others read is complete when its
        end is asked for.
        """
        for leg, topic in LEGS.items():
            ends = {number: end for number, end in self.ends(topic).items() if end}

            def reached(leg: str = leg, topic: str = topic, ends: Mapping[int, int] = ends) -> bool:
                status = self.status()
                at = status.get("legs", {}).get(leg, {}).get("next_offset", {})
                if not status.get("ready") or any(at.get(str(n), 0) < end for n, end in ends.items()):
                    return False
                done = self.committed(topic)
                return all(done.get(n, 0) >= end for n, end in ends.items())

            self.wait(reached, f"{leg} has not taken all of {topic} up to {ends}", seconds, pause_s=0.15)
        return self.status()

    # -- what comes out

    def asked(self) -> Worker:
        """The worker that questions go to: the first that runs."""
        return self.running[0]

    def digest(self) -> dict[str, str]:
        """Table -> digest, and `total`."""
        with self.asked().client() as client:
            return client.digest()

    def answers(self) -> dict[tuple[str, str, str], Any]:
        """(metric, basis, company or "") -> value, over everything and of each airline that has flown."""
        found: dict[tuple[str, str, str], Any] = {}
        with self.asked().client() as client:
            metrics = [one["name"] for one in client.get("/v1/metrics")["metrics"]]
            companies = [one["metakey"] for one in client.get("/v1/companies")["companies"]]
            for metric in metrics:
                for basis in BASES:
                    at = None if basis == "latest" else AT  # it is what is known now
                    found[metric, basis, ""] = client.value(metric, at=at, basis=basis)["value"]
                for company in companies:
                    answer = client.value(metric, at=AT, basis="corrected", company=company)
                    found[metric, "corrected", company] = answer["value"]
        return found

    def problems(self) -> list[dict[str, Any]]:
        """The problems that dead letters tell of."""
        with self.asked().client() as client:
            found: list[dict[str, Any]] = client.get("/v1/dead-letters")["problems"]
        return found

    def dead(self) -> Counter[tuple[str, str]]:
        """(stage, reason) -> dead letters."""
        counted: Counter[tuple[str, str]] = Counter()
        for one in self.problems():
            counted[one["stage"], one["reason"]] += one["count"]
        return counted

    def processed_again(self) -> int:
        """Messages on `signals` that repeat one before: what ingest had sent, and folded again after a kill."""
        keys = [message.key() for message in self.read("signals") if len(message.key() or b"") == SIGNAL_KEY_BYTES]
        return len(keys) - len(set(keys))

    def read(self, topic: str) -> list[Any]:
        """All messages of a topic, in order within each partition."""
        consumer = plain_consumer(self.settings.bootstrap)
        try:
            count = len(self.ends(topic))
            return list(read_to_end(consumer, self.settings.topic(topic), count))
        finally:
            consumer.close()


def positions(status: Mapping[str, Any]) -> dict[tuple[str, int], int]:
    """(leg, partition) -> next offset, of a status."""
    return {
        (leg, int(number)): at
        for leg, told in status.get("legs", {}).items()
        for number, at in told["next_offset"].items()
    }
