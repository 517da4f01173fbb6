"""The worker: the line's legs bound to Faust, the decisions it follows, the ticker, the web views.

settings -> org keys, decisions -> ingest, measure, record (bound in the line's order) -> views
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import faust
from faust.types import TP

from milepost import __version__
from milepost.agents import observing, ticker, views
from milepost.agents.bindings import Runtime, engine
from milepost.agents.changelog import read_range
from milepost.agents.doorkeeping import Doorkeeping
from milepost.agents.ending import end
from milepost.agents.gateway import Gateway
from milepost.agents.gathering import Gathering
from milepost.agents.letters import Letters
from milepost.agents.milestone_leg import MilestoneLeg
from milepost.agents.peers import Peers, Refused, Sealer
from milepost.agents.standby import Standbys, chosen
from milepost.agents.store import Stamp, cache_bytes, disk_bytes
from milepost.agents.views.services import Health, SendFailed
from milepost.agents.watching import Watching
from milepost.ops import logs
from milepost.ops.access import Book
from milepost.ops.access_log import AUDIT
from milepost.ops.settings import Settings
from milepost.ops.telemetry import Observed
from milepost.schemas.errors import BundleError, ContractError
from milepost.schemas.keys import OrgKeys
from milepost.schemas.serde import wire
from milepost.topology import describe, line
from milepost.topology.decisions import Decisions
from milepost.topology.following import add_definition, add_link
from milepost.topology.ingest import Ingest
from milepost.topology.ingest_mark import IngestMark
from milepost.topology.lenient import lenient_bundle
from milepost.topology.measure import MeasureLeg, MeasureMark
from milepost.topology.problems import Problems
from milepost.topology.reading import Progress, Reader
from milepost.topology.recognitions import Recognition
from milepost.topology.records import RecordLeg
from milepost.topology.state import Output, Partition, Record, Store
from milepost.topology.steps import Got, Part

log = logging.getLogger("milepost.agents")

PATIENCE_S: Final = 2.0
"""How long a question waits for a partition that is being handed over, seconds."""

PROBLEMS_READ_MAX: Final = 10_000
"""Dead letters read for one answer, the newest of each partition."""


def build(settings: Settings) -> tuple[faust.App, Worker]:
    """The Faust app of one worker, with agents attached in the line's order."""
    keys = OrgKeys(settings.secret())
    decisions = Decisions(lenient_bundle)
    app, runtime = engine(settings)
    runtime.bind(Ingest(settings.partitions, decisions, keys), line.leg("ingest"))
    runtime.bind(MeasureLeg(settings.partitions, decisions, keys), line.leg("measure"))
    runtime.bind(RecordLeg(keys), line.leg("record"))
    worker = Worker(settings, runtime, decisions, keys)
    runtime.follow("definitions", worker.on_definition)
    runtime.follow("identity-links", worker.on_link)
    views.attach(app, worker)
    app.task(worker.start)
    return app, worker


class Worker:
    """The running worker as its views see it: `views.services.Services` and `topology.reading.Reader` in one."""

    def __init__(self, settings: Settings, runtime: Runtime, decisions: Decisions, keys: OrgKeys) -> None:
        self.settings = settings
        self.runtime = runtime
        self.decisions = decisions
        self.org_key = keys
        self.refused = 0  # records of decision topics that could not be taken
        self.peers = Peers(settings.secret())
        self.gathering = Gathering(
            self,
            lambda: getattr(runtime.app.consumer, "lease", None),
            self.peers,
            self._turn,
            self._owner,
            self._others,
            self._standbys() if settings.standby else None,
        )
        runtime.closing.append(self.peers.close)
        self.milestones = MilestoneLeg(runtime, self, self.gather)
        runtime.closing.append(self.milestones.stop)
        self.watching = Watching(self, self.gather, self.send, self._watches, self.milestones.sure)
        self.doors = Doorkeeping(settings)
        runtime.opening.append(self.doors.start)  # who may ask is known while a worker restores or waits for room, too
        runtime.closing.append(self.doors.stop)
        topics = (settings.topic("dead-letters"), settings.topic("raw-events"))
        self._dead = Letters(settings.bootstrap, *topics, self._dead_ends)
        self._gateway: Gateway | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to tick and to accept events; runs when the app has started."""
        self._gateway = Gateway(self.settings.bootstrap, self.settings.namespace)
        outputs = ticker.ticks(self.settings.partitions, self.org_key)
        self._ticker = asyncio.create_task(self._tick(outputs), name="ticker")
        self.milestones.start()
        self._watch = asyncio.create_task(self.watching.run(), name="watch")
        if self.runtime.standbys is not None:
            self.runtime.standbys.start()
        # What is alive by now stays alive: the collector need not look at it again (a tenth of the time otherwise).
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 50, 50)

    async def _tick(self, outputs: Sequence[Output]) -> None:
        async def send(batch: Sequence[Output]) -> None:
            try:
                await self.send(batch)
            except SendFailed as error:
                log.warning("no tick: %s", error)

        try:
            await ticker.run(lambda: 0 in self.runtime.legs["ingest"].partitions, send, outputs)
        except Exception as error:  # noqa: BLE001  whatever it is, a worker without ticks must not go on
            end(f"the ticker stopped: {error}", error=error)

    def _watches(self) -> bool:
        return 0 in self.runtime.legs["measure"].partitions

    # -- decisions

    def on_definition(self, record: Any) -> None:
        """A record of `definitions`.  What is none of ours is refused alike by every worker, and counted."""
        try:
            catalog = add_definition(self.decisions, record.value, record.timestamp)
        except (ContractError, BundleError) as error:
            self.refused += 1
            here = logs.place("definitions", 0, record.offset)
            log.error("a record is not a bundle and is passed over: %s", error, extra=here)
            return
        for part in catalog.left_out if catalog is not None else ():
            here = logs.place("definitions", 0, record.offset)
            log.warning("left out, for this release refuses it: %s", part, extra=here)

    def on_link(self, record: Any) -> None:
        try:
            add_link(self.decisions, record.value)
        except ContractError as error:
            self.refused += 1
            here = logs.place("identity-links", 0, record.offset)
            log.error("a record is not a link and is passed over: %s", error, extra=here)

    # -- topology.reading.Reader

    @property
    def reader(self) -> Reader:
        return self

    @property
    def partitions(self) -> int:
        return self.settings.partitions

    def _at(self, leg: str, partition: int) -> Partition:
        at = self.runtime.legs[leg].asked(partition).partition
        assert at is not None, "a holding that answers is open"
        return at

    def epoch(self, leg: str, partition: int) -> int:
        return self.runtime.legs[leg].asked(partition).epoch

    def stores(self, leg: str, partition: int) -> Mapping[str, Store]:
        return self._at(leg, partition).stores

    def reached(self, leg: str, partition: int) -> tuple[int, Mapping[int, int]]:
        return self._at(leg, partition).reached

    def progress(self, partition: int) -> Mapping[int, Progress]:
        mark = self._at("measure", partition).mark
        assert isinstance(mark, MeasureMark)
        return mark.progress

    def _turn(self, leg: str, partition: int) -> asyncio.Lock | None:
        """Cells are read as of one moment.  What ingest is asked for, keys, only ever comes to be known."""
        return self.runtime.legs[leg].asked(partition).turn if leg == "measure" else None

    # -- who has what

    def _owner(self, leg: str, partition: int) -> str | None:
        """The address of the worker that was given a partition, as told with our last assignment."""
        topic = self.runtime.legs[leg].changelog
        for url, topics in self._given().items():
            if partition in topics.get(topic, ()):
                return None if url == self.settings.peer_url else url
        return None

    def _standbys(self) -> Standbys:
        runtime, settings = self.runtime, self.settings

        async def stamp(leg: str, number: int) -> Stamp:
            return (await runtime.stamps(runtime.legs[leg], {number}))[number]

        made = runtime.standbys = Standbys(
            bootstrap=settings.bootstrap,
            legs=runtime.legs,
            whole=self,
            wanted=self._replicated,
            stamp=stamp,
            folder=settings.state,
            caught_up=runtime.caught_up,
            decided=runtime.decided_to,
            checkpoint_ms=settings.checkpoint_ms,
        )
        runtime.closing.append(made.stop)
        return made

    def _replicated(self) -> set[tuple[str, int]]:
        """What this worker shall hold standbys of: of each partition that others own, the same workers' on all."""
        given, mine = self._given(), self.settings.peer_url
        return {
            (name, number)
            for name, leg in self.runtime.legs.items()
            for url, topics in given.items()
            for number in topics.get(leg.changelog, ())
            if mine in chosen(given, url, number, self.settings.standby) and number not in leg.holdings
        }

    def _others(self) -> list[str]:
        return sorted(url for url in self._given() if url != self.settings.peer_url)

    def _given(self) -> Mapping[str, Mapping[str, Sequence[int]]]:
        """Address -> changelog topic -> partitions."""
        assignor: Any = self.runtime.app.assignor
        given: Mapping[str, Mapping[str, Sequence[int]]] = assignor.changelog_distribution
        return given

    # -- views.services.Services

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def send(self, outputs: Sequence[Output]) -> list[int]:
        if self._gateway is None:
            raise SendFailed("the worker is starting")
        return await self._gateway.send(outputs)

    @property
    def sealer(self) -> Sealer:
        return self.peers.seal

    @property
    def book(self) -> Book:
        return self.doors.book

    async def note(self, change: Mapping[str, Any]) -> None:
        key = change["id"] + change["what"].encode()
        await self.send([Output(topic=AUDIT, partition=0, key=key, value=wire("Change").encode(dict(change)))])

    @property
    def patience_s(self) -> float:
        return PATIENCE_S

    @property
    def landings(self) -> int:
        return self.runtime.landings + self.runtime.decided

    async def gather(self, parts: Sequence[Part], stale_ms: int | None = None) -> Sequence[Got]:
        return await self.gathering.read(parts, stale_ms)

    async def here(self, parts: Sequence[Part], stale_ms: int | None) -> Sequence[Got | Refused]:
        return await self.gathering.here(parts, stale_ms)

    async def raw(self, partition: int, offset: int) -> Record | None:
        topic = self.settings.topic("raw-events")
        async for records in read_range(self.settings.bootstrap, topic, partition, offset, offset + 1):
            for record in records:
                found: Record = record
                return found
        return None

    async def letters(self, partition: int, offset: int) -> Sequence[Mapping[str, Any]]:
        place = ("raw-events", partition, offset)
        return [one for one in await self._letters() if (one["topic"], one["partition"], one["offset"]) == place]

    async def _letters(self) -> Sequence[dict[str, Any]]:
        """The dead letters: of each partition the newest 10,000 are read."""
        topic = self.settings.topic("dead-letters")
        last: dict[bytes, dict[str, Any]] = {}
        ends = await self.runtime.ends({TP(topic, partition) for partition in range(self.partitions)})
        for partition in range(self.partitions):
            end_offset = ends[TP(topic, partition)]
            start = max(0, end_offset - PROBLEMS_READ_MAX)
            async for records in read_range(self.settings.bootstrap, topic, partition, start, end_offset):
                for record in records:
                    try:
                        last[record.key or b""] = wire("DeadLetter").decode(record.value or b"")
                    except ContractError:
                        continue  # not ours: nothing of it can be said
        return list(last.values())

    async def problems(self) -> Problems:
        return await self._dead.problems()

    async def raw_records(self, places: Sequence[int]) -> Sequence[tuple[int, bytes | None]]:
        return await self._dead.records(places)

    async def _dead_ends(self) -> Mapping[int, int]:
        topic = self.settings.topic("dead-letters")
        ends = await self.runtime.ends({TP(topic, partition) for partition in range(self.partitions)})
        return {tp.partition: end for tp, end in sorted(ends.items())}

    async def recognitions(self, companies: Collection[bytes]) -> Sequence[Recognition]:
        return await self.milestones.recognitions(companies)

    def topology(self) -> Mapping[str, Any]:
        wanted = describe.data(self.partitions)
        app = self.runtime.app
        return {
            "namespace": self.settings.namespace,
            "partitions": self.partitions,
            "legs": describe.legs(),
            "topics": wanted["topics"],
            "agents": {agent.name: agent.channel.get_topic_name() for agent in app.agents.values()},
            "changelogs": {name: table.changelog_topic.get_topic_name() for name, table in app.tables.items()},
        }

    def _ingest_lag_ms(self) -> int | None:
        """How far ingest is behind: now less the last known time taken, where records wait; None: not open yet."""
        ingest = self.runtime.legs["ingest"]
        lags = ingest.lag()
        if not lags:
            return None
        marks = {number: at.mark for number, at in ingest.partitions.items() if lags.get(number)}
        now = self.now_ms()
        return max(
            (now - mark.k_ms for mark in marks.values() if isinstance(mark, IngestMark) and mark.k_ms), default=0
        )

    def status(self) -> Mapping[str, Any]:
        legs: dict[str, dict[str, Any]] = {}
        for name, leg in self.runtime.legs.items():
            legs[name] = {
                "open": sorted(leg.partitions),
                "restoring": sorted(leg.restoring),
                "next_offset": {str(number): at.next_offset for number, at in sorted(leg.partitions.items())},
                "lag": {str(number): lag for number, lag in sorted(leg.lag().items())},
                "bytes": {
                    str(number): disk_bytes(self.settings.state / f"{name}-{number}")
                    for number in sorted(leg.partitions)
                },
                "stalled": leg.stalled,
                "fates": dict(sorted(leg.fates.items())),
            }
        return {
            "worker": self.settings.worker,
            "version": __version__,
            "ready": self.runtime.ready,
            "lag": {name: sum(leg["lag"].values()) for name, leg in legs.items()},
            "fates": {name: leg["fates"] for name, leg in legs.items()},
            "legs": legs,
            "memory": {
                "memtables": sum(leg.memtable_bytes for leg in self.runtime.legs.values()),
                "block_cache": cache_bytes(),
            },
            "standby": {} if self.runtime.standbys is None else self.runtime.standbys.status(),
            "milestones": self.milestones.status(),
            "refused_decisions": self.refused,
        }

    def observed(self) -> Observed:
        return observing.observed(
            self.runtime,
            self.decisions,
            self.status(),
            ingest_lag_ms=self._ingest_lag_ms(),
            recognised_ms=self.milestones.recognised_ms,
            lasting=self.watching.lasting,
            now_ms=self.now_ms(),
        )

    def health(self) -> Health:
        legs = self.runtime.legs
        restoring = [f"{name}/{number}" for name, leg in legs.items() for number in sorted(leg.restoring)]
        if not self.runtime.assigned or self.runtime.app.rebalancing:
            restoring.append("assignment")
        decided = bool(self.runtime.followers) and all(
            one.caught_up.is_set() for one in self.runtime.followers.values()
        )
        stalled = [f"{name}/{number}: {why}" for name, leg in legs.items() for number, why in leg.stalled.items()]
        left_out = [f"{org}: {one}" for org, found in self.decisions.left_out().items() for one in found]
        return Health(
            restoring=restoring, decisions=decided and self.book.ready, stalled=stalled,
            ingest_lag_ms=self._ingest_lag_ms(), left_out=left_out,
        )  # fmt: skip
