"""Stage: the one broker of a run, and a place of its own for each contestant and each goal.

broker (measured flags) <- topics of the peers, named by contestant
                        <- deployments of ours, told apart by namespace, each with a home and free ports
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from milepost.ops import processes
from milepost.ops.bench.job import Message, fill
from milepost.ops.broker import EmbeddedBroker, Say
from milepost.ops.settings import Settings
from milepost.schemas.errors import StoreError
from milepost.topology.line import all_topics

PATIENCE_S: Final = 30.0
RAW: Final = "job.raw-events"
"""The peers' input; ours lies in each deployment's own raw log, with the same bytes in the same partitions."""


@dataclass(kw_only=True)
class Stage:
    """What a run works with: the broker, a folder that is deleted at the end, and the settings it was started with."""

    settings: Settings
    say: Say
    broker: EmbeddedBroker = field(init=False)
    folder: Path = field(init=False)
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, init=False)
    _filled: set[str] = field(default_factory=set, init=False)
    _numbers: dict[str, int] = field(default_factory=dict, init=False)

    def __enter__(self) -> Self:
        self.settings.home.mkdir(parents=True, exist_ok=True)
        holder = tempfile.TemporaryDirectory(prefix="bench-", dir=self.settings.home, ignore_cleanup_errors=True)
        self.folder = Path(self._stack.enter_context(holder))
        self.broker = EmbeddedBroker(self.folder, jars=self.settings.jars, measured=True, say=self.say)
        self._stack.enter_context(self.broker)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    @property
    def bootstrap(self) -> str:
        return self.broker.bootstrap

    @property
    def partitions(self) -> int:
        return self.settings.partitions

    def deployment(self, name: str) -> Settings:
        """Settings of a deployment of ours on the stage's broker: a namespace, a home, a free port."""
        return replace(
            self.settings,
            home=self.place(name),
            jars_folder=self.settings.jars,
            broker=self.bootstrap,
            namespace=self._unique(name),
            replication=1,
            host="127.0.0.1",
            port=processes.free_ports(1)[0],
            secret_text="the bench keeps no secrets",
            token="",
        )

    def place(self, name: str) -> Path:
        """A new folder."""
        folder = self.folder / self._unique(f"place-{name}")
        folder.mkdir()
        return folder

    def drop(self, folder: Path) -> None:
        """Delete a place before the end of the run: state of one contestant is no load for the next."""
        shutil.rmtree(folder, ignore_errors=True)

    def topic(self, name: str) -> str:
        """Make a topic under a name that was not used yet; returns it."""
        return self.named_topic(self._unique(name), {})

    def named_topic(self, name: str, config: Mapping[str, str]) -> str:
        """Make a topic whose name is given by others (a changelog of Kafka Streams)."""
        self._make(name, config)
        return name

    def drop_topics(self, chosen: Callable[[str], bool]) -> None:
        """Delete the topics whose names are chosen; the broker removes their files in its own time."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        names = [name for name in admin.list_topics(timeout=PATIENCE_S).topics if chosen(name)]
        for future in admin.delete_topics(names).values() if names else ():
            with contextlib.suppress(KafkaException):  # already gone: what we want
                future.result(PATIENCE_S)

    def raw(self, records: Sequence[Message]) -> str:
        """The peers' raw topic of so many records, filled once: compacted like ours, at the broker's time."""
        name = f"{RAW}-{len(records)}"
        if name not in self._filled:
            config = next(dict(topic.config) for topic in all_topics() if topic.name == "raw-events")
            self._make(name, config)
            fill(self.bootstrap, name, records)
            self._filled.add(name)
        return name

    def _make(self, name: str, config: Mapping[str, str]) -> None:
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        new = NewTopic(name, num_partitions=self.partitions, replication_factor=1, config=dict(config))
        admin.create_topics([new], operation_timeout=PATIENCE_S)[name].result(PATIENCE_S)
        until = time.monotonic() + PATIENCE_S
        while name not in admin.list_topics(timeout=PATIENCE_S).topics:
            if time.monotonic() > until:
                raise StoreError(f"the topic {name} did not appear in {PATIENCE_S:.0f} s")
            time.sleep(0.05)

    def _unique(self, name: str) -> str:
        number = self._numbers[name] = self._numbers.get(name, 0) + 1
        return name if number == 1 else f"{name}-{number}"


@dataclass(slots=True, kw_only=True)
class Run:
    """What one contestant did.

    seconds:        from the first record taken to the end of the work
    second_half:    events a second over the second half of the work: what start-up and warm-up leave
    cpu_s:          processor time of the contestant's processes meanwhile, without the broker's
    wrong:          differences from the expected work; empty: the same work was done
    does, leaves_out: what this contestant does per event, and what of the job it does not do
    """

    name: str
    events: int
    seconds: float
    second_half: float
    signals: int
    cpu_s: float
    wrong: list[str]
    does: str
    leaves_out: str
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def events_per_s(self) -> float:
        return self.events / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "events": self.events,
            "seconds": round(self.seconds, 3),
            "events_per_s": round(self.events_per_s, 1),
            "second_half_per_s": round(self.second_half, 1),
            "signals": self.signals,
            "cpu_us_an_event": round(self.cpu_s / self.events * 1e6, 1) if self.events else 0.0,
            "same_work": not self.wrong,
            "wrong": self.wrong,
            "does": self.does,
            "leaves_out": self.leaves_out,
            **self.more,
        }


def second_half(samples: Sequence[tuple[float, int]], events: int) -> float:
    """Events a second from the first sample behind half of the events to the last one; 0 when there is none."""
    behind = [sample for sample in samples if sample[1] >= events / 2]
    if len(behind) < 2 or behind[-1][0] <= behind[0][0]:
        return 0.0
    return (behind[-1][1] - behind[0][1]) / (behind[-1][0] - behind[0][0])
