"""Bindings: legs (topology) get a running body (Faust).

    engine(settings) -> app, runtime          runtime.bind(leg, spec) -> table + agent on the leg's source topic

    stream of chunks -> [ready?] -> fold in slices -> checkpoint          one Holding a leg and partition

An exception in an agent ends the process: it never acknowledges (design §7.8).  Agents are attached here, explicitly:
autodiscovery swallows import errors and starts without them.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, cast

import faust
from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient
from faust.types import TP

from milepost.agents import faults
from milepost.agents.changelog import ChangelogWriter
from milepost.agents.decisions import Follower
from milepost.agents.ending import STUCK, end
from milepost.agents.holding import Holding
from milepost.agents.landing import IDLE_S, Place
from milepost.agents.leg_runtime import LegRuntime
from milepost.agents.lookups import asker, committed, describe, end_offsets, start_offsets
from milepost.agents.producer import LegProducer
from milepost.agents.standby import DECIDED_S, Standbys
from milepost.agents.store import Stamp
from milepost.agents.table import LegTable, LegTableManager
from milepost.agents.transport import ChunkConsumer, ChunkSchema, ChunkTransport
from milepost.schemas.errors import DeclarationError
from milepost.topology.line import LegSpec
from milepost.topology.state import Leg

log = logging.getLogger("milepost.agents")

AWAY_S: Final = 60.0
"""A checkpoint that is away for so long, in seconds, ends the process if the broker answers: a client has lost it."""

STUCK_S: Final = 30.0
"""A restore without progress for so many seconds ends the process: stock recovery can wait for ever."""


class EngineSettings(Protocol):
    """What the engine reads of `ops.settings.Settings`."""

    @property
    def bootstrap(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def state(self) -> Path: ...
    @property
    def home(self) -> Path: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def peer_url(self) -> str: ...
    @property
    def worker(self) -> str: ...
    @property
    def partitions(self) -> int: ...
    @property
    def chunk_max(self) -> int: ...
    @property
    def checkpoint_ms(self) -> int: ...
    @property
    def checkpoint_bytes(self) -> int: ...
    @property
    def session_timeout_s(self) -> int: ...
    @property
    def fault_at(self) -> str: ...
    def topic(self, name: str) -> str: ...


def engine(settings: EngineSettings, **options: Any) -> tuple[faust.App, Runtime]:
    """A Faust app on our organs, and the runtime that binds legs to it.  `options` go to the app as they are."""
    faults.arm(settings.fault_at)
    logging.getLogger("aiokafka").setLevel(logging.WARNING)  # a line a reader and a topic is no news
    folder = settings.home / "faust" / settings.worker
    folder.mkdir(parents=True, exist_ok=True)  # Faust makes only the last part of it
    app = faust.App(
        settings.group,
        **{
            "broker": f"aiokafka://{settings.bootstrap.replace(',', ';')}",
            "datadir": str(folder),
            "store": "memory://",  # never used: LegTable makes its own
            "Table": LegTable,
            "TableManager": LegTableManager,
            "topic_partitions": settings.partitions,
            "topic_allow_declare": False,
            "topic_disable_leader": True,
            "table_standby_replicas": 0,
            "consumer_auto_offset_reset": "earliest",
            "consumer_max_fetch_size": 8 * 1024 * 1024,
            # With the port: a static member that comes back gets its old assignment, which names its old address, and
            # stock Faust's assertion about that address ends the coordinator without a word to anyone.
            "consumer_group_instance_id": f"{settings.group}.{settings.worker}.{settings.port}",
            "broker_max_poll_records": max(4 * settings.chunk_max, 500),
            "broker_session_timeout": float(settings.session_timeout_s),
            # Short: it is how long the others wait for us when somebody comes or goes.
            "broker_heartbeat_interval": min(0.5, settings.session_timeout_s / 4),
            "broker_commit_interval": 1.0,
            # Faust declines to start with a session time-out beyond it.
            "broker_request_timeout": max(40.0, settings.session_timeout_s + 10.0),
            "stream_wait_empty": False,
            "stream_recovery_delay": 0.0,
            "stream_buffer_maxsize": 16,
            "web_host": settings.host,
            "web_bind": settings.host,
            "web_port": settings.port,
            "canonical_url": settings.peer_url,  # goes to all workers with the assignment: who is to be asked for what
            **options,
        },
    )
    transport = ChunkTransport(app.conf.broker_consumer, app)
    app.transport = transport
    runtime = Runtime(app, settings)
    transport.hooks = runtime
    return app, runtime


class Runtime:
    """The running line: legs, followers, producers.  Readable by the web views; the transport's `Hooks`."""

    def __init__(self, app: faust.App, settings: EngineSettings) -> None:
        self.app = app
        self.settings = settings
        self.legs: dict[str, LegRuntime] = {}
        self.followers: dict[str, Follower] = {}
        self.incarnation = uuid.uuid4().hex
        self.idle_s = IDLE_S
        self.assigned = False  # whether partitions were given out since the start; there may be none for us
        self.landings = 0  # checkpoints that have landed, of all legs
        self._decided = 0
        self._writer: ChangelogWriter | None = None
        self._outputs: dict[str, LegProducer] = {}
        self._admin: AdminClient | None = None
        self._asker: Consumer | None = None  # made when somebody asks
        self._starting = asyncio.Lock()
        self._watchdog: asyncio.Task[None] | None = None
        self._answered_since = time.monotonic()
        self.standbys: Standbys | None = None
        self.opening: list[Callable[[], Awaitable[None]]] = []
        """Run before anything is restored, which may take long."""
        self.closing: list[Callable[[], Awaitable[None]]] = []
        self._to_follow: dict[str, Callable[[Any], None]] = {}

    # -- declaring

    def bind(self, leg: Leg, spec: LegSpec) -> LegRuntime:
        """Give `leg` a table and an agent on its source topic."""
        assert leg.name == spec.name, (leg.name, spec.name)
        bound = LegRuntime(self, leg, spec)
        self.legs[spec.name] = bound
        self.app.Table(spec.name, holder=bound, schema=ChunkSchema(), partitions=self.settings.partitions)
        # acks=False: nothing of Faust's acknowledgement runs, so nothing of it can be wrong.
        topic = self.app.topic(bound.source, schema=ChunkSchema(), acks=False)
        self.app.agent(topic, name=spec.name)(bound.run)
        return bound

    def follow(self, name: str, on_record: Callable[[Any], None]) -> None:
        """Follow the decision topic `name` (the line's) with `on_record`, from the moment the legs start."""

        def decided(record: Any) -> None:
            on_record(record)
            self._decided += 1

        self._to_follow[name] = decided

    # -- reading

    @property
    def consumer(self) -> ChunkConsumer:
        return cast(ChunkConsumer, self.app.consumer)

    @property
    def ready(self) -> bool:
        """Whether every partition that is ours can be asked, and every follower has caught up."""
        return (
            self.assigned
            and not any(one.restoring for one in self.legs.values())
            and all(one.caught_up.is_set() for one in self.followers.values())
            and not self.app.rebalancing
        )

    def highwater(self, tp: TP) -> int | None:
        """The end of a source partition as last fetched, or None."""
        try:
            end_offset = self.consumer.highwater(tp)
        except Exception as error:  # noqa: BLE001 - not assigned or not fetched yet: a question is no reason to fail
            log.debug("no high-water mark of %s: %r", tp, error)
            return None
        return None if end_offset is None else int(end_offset)

    # -- what the transport asks

    @property
    def chunk_max(self) -> int:
        return self.settings.chunk_max

    def next_offset(self, tp: TP) -> int | None:
        for leg in self.legs.values():
            if leg.source == tp.topic:
                at = leg.partitions.get(tp.partition)
                return None if at is None else at.next_offset
        return None

    def pressing(self) -> set[TP]:
        found = ((leg.source, leg.holdings) for leg in self.legs.values())
        return {TP(source, number) for source, some in found for number, one in some.items() if one.presses}

    def fed_at(self) -> float:
        """Since when records come (monotonic); now while they do not, because partitions are being opened."""
        return self.consumer.placed_at if self.app.flow_control.is_active() else time.monotonic()

    @property
    def pressed(self) -> bool:
        """Whether a chunk of a partition that presses waits, in any leg."""
        return any(leg.pressed for leg in self.legs.values())

    def of_now(self, message: Any) -> bool:
        """Whether a message is of the assignment that holds now; what was fetched before comes again."""
        return self.app.flow_control.is_active() and message.generation_id == self.app.consumer_generation_id

    async def park(self) -> None:
        await self._give_back(LegRuntime.park)

    async def release(self) -> None:
        await self._give_back(LegRuntime.release)

    async def _give_back(self, step: Callable[[LegRuntime], Awaitable[None]]) -> None:
        try:
            await asyncio.gather(*(step(leg) for leg in self.legs.values()))
        except Exception as error:  # noqa: BLE001 - a checkpoint that failed must not be followed by a commit
            end(f"the partitions could not be given back: {error}", error=error)

    # -- what the legs ask

    @property
    def decided(self) -> int:
        """How many decisions have been taken so far."""
        return self._decided

    async def wait_for_decision(self, seen: int, timeout_s: float) -> bool:
        """Wait until more than `seen` decisions are taken; False when time ran out first."""
        until = time.monotonic() + timeout_s
        while self._decided <= seen:
            if time.monotonic() >= until:
                return False
            await asyncio.sleep(0.02)
        return True

    async def caught_up(self) -> None:
        """Wait until every follower has read what its topic held when it began."""
        for follower in self.followers.values():
            await follower.caught_up.wait()

    async def start(self) -> None:
        """Start producers, followers and the watchdog.  A second call does nothing."""
        async with self._starting:
            if self._writer is not None:
                return
            bootstrap = self.settings.bootstrap
            self._admin = AdminClient({"bootstrap.servers": bootstrap, "client.id": "milepost-admin"})
            writer = ChangelogWriter(bootstrap)
            await writer.start()
            for name in self.legs:
                self._outputs[name] = LegProducer(bootstrap, name, namespace=self.settings.namespace)
            for name, on_record in self._to_follow.items():
                self.followers[name] = Follower(bootstrap, self.settings.topic(name), on_record)
                await self.followers[name].start()
            for begin in self.opening:
                await begin()
            self._watchdog = asyncio.create_task(self._watch(), name="restore watchdog")
            self._writer = writer

    async def stop(self) -> None:
        """Give everything back; for an orderly end.  A second call does nothing."""
        await self.release()
        if self._watchdog is not None:
            self._watchdog.cancel()
        for follower in self.followers.values():
            await follower.stop()
        for close in self.closing:
            await close()
        outputs, self._outputs = self._outputs, {}
        for producer in outputs.values():
            await producer.stop()
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.stop()
        consumer, self._asker = self._asker, None
        if consumer is not None:
            await asyncio.to_thread(consumer.close)

    def holding(self, leg: LegRuntime, number: int, stamp: Stamp) -> Holding:
        assert self._writer is not None
        settings = self.settings
        source = TP(leg.source, number)
        return Holding(
            leg=leg.leg,
            spec=leg.spec,
            number=number,
            place=Place(
                bootstrap=settings.bootstrap,
                source=leg.source,
                changelog=leg.changelog,
                folder=settings.state,
                worker=settings.worker,
                incarnation=self.incarnation,
                checkpoint_ms=settings.checkpoint_ms,
                checkpoint_bytes=settings.checkpoint_bytes,
                idle_s=self.idle_s,
            ),
            stamp=stamp,
            writer=self._writer,
            outputs=self._outputs[leg.spec.name],
            decisions=lambda: {name: one.position for name, one in self.followers.items()},
            landed=partial(self._on_landed, source),
            fed=self.fed_at,
        )

    def _on_landed(self, source: TP, next_offset: int) -> None:
        self.landings += 1
        self.consumer.landed(source, next_offset)

    async def standbys_give_up(self, leg: str, numbers: Sequence[int]) -> None:
        """Partitions become ours: their folders must be free."""
        if self.standbys is not None:
            await self.standbys.give_up([(leg, number) for number in numbers])

    async def decided_to(self, positions: Mapping[str, int]) -> bool:
        """Wait until the decision topics are read as far as `positions`; False when that takes too long."""
        for name, position in positions.items():
            if name in self.followers and not await self.followers[name].wait_beyond(position - 1, DECIDED_S):
                return False
        return True

    async def stamps(self, leg: LegRuntime, numbers: set[int]) -> dict[int, Stamp]:
        """What each partition's store must belong to, asked of the broker now: a topic may have been made anew."""
        assert self._admin is not None
        cluster, topics = await asyncio.to_thread(describe, self._admin, (leg.source, leg.changelog))
        (source, source_count), (changelog, changelog_count) = topics[leg.source], topics[leg.changelog]
        if source_count != changelog_count:
            raise DeclarationError(
                f"{leg.source} has {source_count} partitions, {leg.changelog} {changelog_count}: "
                f"they are read together; fix: make them equal, or start over in another namespace"
            )
        if source_count != self.settings.partitions:
            raise DeclarationError(
                f"{leg.source} has {source_count} partitions, MILEPOST_PARTITIONS is {self.settings.partitions}; "
                f"fix: set it to {source_count} if they were meant, or start over in another namespace"
            )
        return {
            number: Stamp(
                cluster=cluster, source_topic=f"{source}/{source_count}", changelog_topic=changelog,
                partitions=source_count, leg=leg.spec.name, partition=number,
            )
            for number in numbers
        }  # fmt: skip

    async def ends(self, tps: set[TP]) -> dict[TP, int]:
        """Where source partitions end now."""
        if not tps:
            return {}
        assert self._admin is not None
        # Not through the consumer: its connection may be held by a fetch that waits for records.
        return await asyncio.to_thread(end_offsets, self._admin, tps)

    async def starts(self, tps: set[TP]) -> dict[TP, int]:
        """Where partitions begin."""
        assert self._admin is not None
        return await asyncio.to_thread(start_offsets, self._admin, tps) if tps else {}

    async def committed(self, tps: set[TP]) -> dict[TP, int]:
        """How far source partitions are committed: what was to be sent of what lies before is acknowledged."""
        if self._asker is None:
            self._asker = asker(self.settings.bootstrap, self.settings.group)
        return await asyncio.to_thread(committed, self._asker, tps)

    async def _look_at_checkpoints(self) -> None:
        """A client that waits for what never comes looks like one whose broker is away; but the broker can be asked."""
        now = time.monotonic()
        holdings = [one for leg in self.legs.values() for one in leg.holdings.values()]
        since = [one.away_since for one in holdings if not one.room.full]  # without room it is tried again for ever
        longest = max((now - one for one in since if one is not None), default=0.0)
        if longest < AWAY_S / 4:
            self._answered_since = now
            return
        assert self._admin is not None
        try:
            await asyncio.to_thread(self._admin.list_topics, timeout=2.0)
        except KafkaException as error:
            log.info("a checkpoint is away for %.0f s, and the broker does not answer: %s", longest, error)
            self._answered_since = time.monotonic()
            return
        if min(longest, now - self._answered_since) > AWAY_S:
            end(f"a checkpoint is away for {longest:.0f} s, and the broker answers", STUCK)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            await self._look_at_checkpoints()
            now = time.monotonic()
            for leg in self.legs.values():
                for one in leg.holdings.values():
                    one.look()
                waiting = [one for one in leg.holdings.values() if one.state in ("restoring", "opening")]
                # One partition waits while another is read: the leg stands still only when all do.
                if waiting and now - max(one.moved_at for one in waiting) > STUCK_S:
                    end(f"{waiting}: no progress in {STUCK_S:.0f} s of restoring", STUCK)
