"""The driver: the whole line in one process, without a broker.  For tests of rules, of the engine, and of ours.

    driver = Driver(secret, partitions=4)
    driver.apply("acme", files, now_ms)
    driver.produce({"org": "acme", ...}, now_ms)
    driver.run()
    driver.reader        # ask it as questions.py asks a worker

Topics are lists, stores are dicts; the legs are the real ones.  `seed` chooses the interleaving of partitions and legs,
`chunk` how many records a fold takes: neither may change a result.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from milepost.schemas import stamps
from milepost.schemas.framing import RegisteredSchema, Table
from milepost.schemas.keys import OrgKeys, raw_place
from milepost.schemas.serde import wire
from milepost.schemas.stamps import Stamp
from milepost.topology import line
from milepost.topology.catalog import Catalog, bundle_id, load_bundle
from milepost.topology.decisions import Decisions
from milepost.topology.following import add_definition, add_link
from milepost.topology.ingest import Ingest
from milepost.topology.lenient import lenient_bundle
from milepost.topology.measure import MeasureLeg, MeasureMark
from milepost.topology.reading import Progress
from milepost.topology.records import RecordLeg
from milepost.topology.state import DictBase, Leg, Output, Partition, Store

TOPIC_OF = {"ingest": "raw-events", "measure": "signals", "record": "record-changes"}


class Message(NamedTuple):
    """A record of a topic in the driver: what aiokafka's ConsumerRecord has."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(slots=True)
class Driver:
    """The line over lists and dicts.  `fates` counts by leg; `dead_letters` holds what went to that topic."""

    secret: bytes
    partitions: int = 4
    chunk: int = 500
    seed: int = 0
    load: Callable[[Mapping[str, bytes]], Catalog] = lenient_bundle
    topics: dict[str, list[list[Message]]] = field(init=False)
    decisions: Decisions = field(init=False)
    org_keys: OrgKeys = field(init=False)
    legs: dict[str, Leg] = field(init=False)
    state: dict[tuple[str, int], Partition] = field(init=False)
    fates: dict[str, dict[str, int]] = field(init=False)
    now_ms: int = 0

    def __post_init__(self) -> None:
        self.topics = {topic.name: [[] for _ in range(topic.partitions or self.partitions)] for topic in line.TOPICS}
        self.decisions = Decisions(self.load)
        self.org_keys = OrgKeys(self.secret)
        self.legs = {
            "ingest": Ingest(self.partitions, self.decisions, self.org_keys),
            "measure": MeasureLeg(self.partitions, self.decisions),
            "record": RecordLeg(),
        }
        self.fates = {name: {} for name in self.legs}
        self.state = {}
        for name, leg in self.legs.items():
            for number in range(self.partitions):
                self.state[name, number] = new_partition(name, leg, number)

    # -- what comes in

    def append(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (), now_ms: int | None = None,
    ) -> int:  # fmt: skip
        """Append a record as a broker would; answers its offset.  `now_ms` is the broker's clock."""
        self.now_ms = self.now_ms if now_ms is None else now_ms
        log = self.topics[topic][partition]
        log.append(Message(len(log), self.now_ms, key, value, tuple(headers)))
        return len(log) - 1

    def produce(self, event: Mapping[str, Any], now_ms: int, *, known_ms: int | None = None) -> tuple[int, int]:
        """Send an event as our producer helper does; answers (partition, offset).  `known_ms` backdates it."""
        key, partition = raw_place(
            event["org"],
            event["source"],
            event["id"],
            event.get("revision", 0),
            event.get("repair", 0),
            self.partitions,
        )
        value = orjson.dumps(event)
        headers: tuple[tuple[str, bytes], ...] = ()
        if known_ms is not None:
            stamp = Stamp(kind=stamps.BACKDATED, k_ms=known_ms)
            headers = (stamps.header(self.org_keys[event["org"]], key, value, stamp),)
        return partition, self.append("raw-events", partition, key, value, headers, now_ms)

    def apply(self, org: str, files: Mapping[str, bytes], now_ms: int, *, k_ms: int = 0, checked: bool = True) -> bytes:
        """Apply a bundle: a record of `definitions`, then a marker in every raw partition.  Answers the bundle id.

        Raises BundleError when it does not hold, unless `checked` is False: so an older release may have applied it."""
        named = load_bundle(files).bundle_id if checked else bundle_id(files)
        attempt = f"{org}-{len(self.topics['definitions'][0])}"
        fields = {"org": org, "bundle": named, "attempt": attempt, "k_ms": k_ms, "files": dict(files)}
        self.append("definitions", 0, attempt.encode(), wire("Bundle").encode(fields), (), now_ms)
        for partition in range(self.partitions):
            key, value = b"marker" + attempt.encode(), named + org.encode()
            header = stamps.header(self.org_keys[""], key, value, Stamp(kind=stamps.MARKER))
            self.append("raw-events", partition, key, value, (header,))
        self.follow()
        return named

    def register(self, schemas: Sequence[RegisteredSchema], now_ms: int) -> Table:
        """What a registry's ids mean, as an apply says it: a record of `definitions`, a marker in every partition."""
        table = self.decisions.table.joined(schemas)
        attempt = f"-{len(self.topics['definitions'][0])}"
        told = [one.as_fields() for one in table.schemas.values()]
        fields = {"table": table.id, "attempt": attempt, "schemas": told}
        self.append("definitions", 0, attempt.encode(), wire("Registered").encode(fields), (), now_ms)
        for partition in range(self.partitions):
            key = b"marker" + attempt.encode()
            header = stamps.header(self.org_keys[""], key, table.id, Stamp(kind=stamps.MARKER))
            self.append("raw-events", partition, key, table.id, (header,))
        self.follow()
        return table

    def tick(self, now_ms: int) -> None:
        """A tick in every raw partition."""
        for partition in range(self.partitions):
            header = stamps.header(self.org_keys[""], b"tick", b"", Stamp(kind=stamps.TICK))
            self.append("raw-events", partition, b"tick", b"", (header,), now_ms)

    # -- the run

    def run(self) -> None:
        """Fold until every leg has reached the end of its topic, owed records appended and read again."""
        chance = random.Random(self.seed)
        while todo := [place for place in self.state if self._behind(place)]:
            self.step(*chance.choice(todo))

    def step(self, name: str, number: int) -> None:
        """One chunk of one leg in one partition, with what it sends."""
        leg, at = self.legs[name], self.state[name, number]
        records = self.topics[TOPIC_OF[name]][number][at.next_offset : at.next_offset + self.chunk]
        ready = leg.ready(records)
        assert ready or not records, f"{name} waits for a bundle that was never applied"
        out = leg.fold(at, records[:ready])
        for fate, count in out.fates.items():
            self.fates[name][fate] = self.fates[name].get(fate, 0) + count
        for output in out.before:
            self._send(output)
        for store in at.stores.values():
            land(store)
        for owed in out.after:
            value = owed.value if owed.value is not None else self.topics["raw-events"][number][owed.at].value
            assert value is not None
            self._send(leg.again(at, owed, value))
        self.follow()

    def _behind(self, place: tuple[str, int]) -> bool:
        return self.state[place].next_offset < len(self.topics[TOPIC_OF[place[0]]][place[1]])

    def _send(self, output: Output) -> None:
        self.append(output.topic, output.partition, output.key, output.value, output.headers)

    def follow(self) -> None:
        """Read the decision topics to their ends."""
        follow(self.decisions, self.topics["definitions"][0], self.topics["identity-links"][0])

    # -- what can be asked

    @property
    def reader(self) -> DriverReader:
        return DriverReader(self)

    @property
    def dead_letters(self) -> list[dict[str, Any]]:
        """Dead letters as their topic holds them after compaction: the last of each key.  (Repairs lie there, too.)"""
        last = {m.key: m.value for log in self.topics["dead-letters"] for m in log}
        letters, header = wire("DeadLetter"), wire("DeadLetter").header
        return [letters.decode(value) for value in last.values() if value is not None and value.startswith(header)]


@dataclass(frozen=True, slots=True)
class DriverReader:
    """topology.reading.Reader over a driver."""

    driver: Driver

    @property
    def partitions(self) -> int:
        return self.driver.partitions

    @property
    def decisions(self) -> Decisions:
        return self.driver.decisions

    @property
    def org_key(self) -> Mapping[str, bytes]:
        return self.driver.org_keys

    def epoch(self, leg: str, partition: int) -> int:
        return 0

    def stores(self, leg: str, partition: int) -> Mapping[str, Store]:
        return self.driver.state[leg, partition].stores

    def reached(self, leg: str, partition: int) -> tuple[int, Mapping[int, int]]:
        return self.driver.state[leg, partition].reached

    def progress(self, partition: int) -> Mapping[int, Progress]:
        mark = self.driver.state["measure", partition].mark
        assert isinstance(mark, MeasureMark)
        return mark.progress


def new_partition(name: str, leg: Leg, number: int) -> Partition:
    stores = {spec.name: Store(spec.name, DictBase(), spec.remember_bytes) for spec in line.leg(name).stores}
    return Partition(number=number, stores=stores, mark=leg.new_mark())


def land(store: Store) -> None:
    """A checkpoint of one store in memory."""
    assert isinstance(store.base, DictBase)
    for key, value in store.take().items():
        if value is None:
            store.base.rows.pop(key, None)
        else:
            store.base.rows[key] = value
    store.landed()


def follow(decisions: Decisions, definitions: Sequence[Message], links: Sequence[Message]) -> None:
    """Bring decisions up to the ends of their topics."""
    for message in definitions[decisions.read.get("definitions", 0) :]:
        add_definition(decisions, message.value, message.timestamp)
    for message in links[decisions.read.get("identity-links", 0) :]:
        add_link(decisions, message.value)
    decisions.read.update({"definitions": len(definitions), "identity-links": len(links)})
