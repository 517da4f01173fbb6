"""Process: one life of a worker: the real runtime and legs on a loop of its own, with simulated hands.

group -> revoked: release · assigned: take_over, read the changelog, open, place        as Faust does it
logs -> stream -> LegRuntime.run -> Holding -> outputs, changelog (wires), disk
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from faust.types import TP

from milepost.agents.bindings import Runtime
from milepost.agents.changelog import Zombie
from milepost.agents.leg_runtime import LegRuntime
from milepost.agents.store import Stamp
from milepost.topology import line
from milepost.topology.decisions import Decisions
from milepost.topology.following import add_definition, add_link
from milepost.topology.ingest import Ingest
from milepost.topology.measure import MeasureLeg
from milepost.topology.recognitions import Told
from milepost.topology.records import RecordLeg
from tests.support.simulator.achieving import SimAchieve
from tests.support.simulator.clients import Outputs, Stream, Writer, resolve
from tests.support.simulator.loop import Killed, ProcessLoop
from tests.support.simulator.wires import Wire

if TYPE_CHECKING:
    from tests.support.simulator.disk import Disk
    from tests.support.simulator.group import Place
    from tests.support.simulator.world import World

CLUSTER: Final = "cluster"
NO_MEMORY: Final = "simulated: no memory for this fold"


class Node:
    """A machine: a disk, and at most one process.  sick: it loses its state now and then."""

    def __init__(self, name: str, disk: Disk) -> None:
        self.name = name
        self.disk = disk
        self.process: Process | None = None
        self.wanted = True


class Process:
    """One incarnation.

    point_at, point_left: it dies at that passage of a crash point, or is stopped there (`stops`)
    point_leg:            only this leg's passages count; "": everybody's
    io_left, io_only:     it dies when it has touched the outside world so often, or this part of it
    """

    def __init__(self, world: World, node: Node, number: int) -> None:
        self.world = world
        self.node = node
        self.number = number
        self.loop = ProcessLoop(world)
        self.wires: dict[tuple[str, str, int], Wire] = {}
        self.generation = 0
        self.point_at = self.point_leg = ""
        self.point_left = 0
        self.io_left = 0
        self.io_only = ""
        self.stops = False
        self.ended: tuple[int, str] | None = None
        self._notices: deque[tuple[int, list[Place] | None]] = deque()
        self._noticed: asyncio.Future[Any] | None = None
        self.placed: dict[Place, int] = {}
        self.runtime = SimRuntime(self)
        self.streams = {name: Stream(self, name) for name in self.runtime.legs}
        node.process = self

    def __repr__(self) -> str:
        return f"{self.node.name}.{self.number}"

    # -- the outside world

    def alive(self) -> None:
        """Raises Killed in what is left of a dead process."""
        if self.loop.dead:
            raise Killed

    def post(self, call: Callable[..., None], *args: Any) -> None:
        """Something has come for the process; it sees it when it runs."""
        self.loop.call_soon(call, *args)

    def io(self, what: str) -> None:
        """The process touches the outside world; it may die here."""
        self.alive()
        if self.io_left and self.io_only in ("", what):
            self.io_left -= 1
            if self.io_left == 0:
                self.world.count(f"killed at an {what}")
                self.world.kill(self, f"io {what}")
                raise Killed

    def point(self, name: str, leg: str) -> None:
        """A crash point is passed."""
        self.alive()
        if name == self.point_at and self.point_left and self.point_leg in ("", leg):
            self.point_left -= 1
            if self.point_left == 0 and self.stops:
                self.world.count(f"stopped at {name}")
                self.world.stop(self)
            elif self.point_left == 0:
                self.world.count(f"killed at {name}")
                self.world.count(f"killed by {leg}")
                self.world.kill(self, name)
                raise Killed

    def fold(self, real: Callable[..., Any], at: Any, records: Any) -> Any:
        """A leg's fold, which the machine may let down: then nothing may be acknowledged."""
        self.alive()
        if self.world.chance(self.world.plan.no_memory):
            self.world.count("a fold without memory")
            raise MemoryError(NO_MEMORY)
        return real(at, records)

    async def pause(self) -> None:
        """A turn of the network."""
        done = self.loop.create_future()
        self.world.at(self.world.now + self.world.latency(), self.post, resolve, done)
        await done

    def wire(self, client: str, topic: str, partition: int) -> Wire:
        """One of a client's connections; those of two clients or partitions overtake each other."""
        key = (client, topic, partition)
        wire = self.wires.get(key)
        if wire is None:
            log = self.world.log(topic, partition)
            wire = self.wires[key] = Wire(self, log, resends=client == "changelog")
        return wire

    # -- a member of the group

    def start(self) -> None:
        self.loop.call_soon(self._spawn)

    def _spawn(self) -> None:
        self.loop.create_task(self._member())
        for name in self.runtime.followed:
            self.loop.create_task(self.runtime.follow_to(name))

    def revoked(self, generation: int) -> None:
        self._notice((generation, None))

    def assigned(self, generation: int, places: list[Place]) -> None:
        self._notice((generation, places))

    def _notice(self, notice: tuple[int, list[Place] | None]) -> None:
        self._notices.append(notice)
        if self._noticed is not None:
            resolve(self._noticed)

    async def _member(self) -> None:
        await self.guarded(self.runtime.start())
        if self.runtime.achieve is not None:
            self.runtime.achieve.start()
        for name, leg in self.runtime.legs.items():
            self.loop.create_task(leg.run(self.streams[name]))
        group = self.world.group
        group.join(self)
        while True:
            while not self._notices:
                self._noticed = self.loop.create_future()
                await self._noticed
            generation, places = self._notices.popleft()
            if places is None:
                self.generation = generation
                self.placed.clear()
                await self.guarded(self.runtime.park())
                if self.node.wanted:
                    group.rejoin(self, generation)
                    continue
                await self.guarded(self.runtime.stop())
                self.world.left(self)
                return
            elif generation == group.generation or group.static:
                self.generation = generation
                self.placed.clear()  # the consumer's flow stands still until it was placed again
                for name, leg in self.runtime.legs.items():
                    await self.guarded(leg.take_over({number for one, number in places if one == name}))
                self.loop.create_task(self.guarded(self._recover(generation, places)))

    async def guarded(self, step: Any) -> None:
        """As the table does it: an error of the life cycle ends the process."""
        try:
            await step
        except Zombie as error:
            self.world.end(self, f"another worker has the partition: {error}", 75)
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends the process
            self.world.end(self, f"cannot take its partitions: {error!r}", 70, error)

    async def _recover(self, generation: int, places: list[Place]) -> None:
        """Read the changelogs, open the legs, and begin to read their topics where the marks say."""
        world, legs = self.world, self.runtime.legs
        for name, leg in legs.items():
            await leg.open({number for one, number in places if one == name})
        for name, number in places:
            if self.generation != generation:
                return
            offset = self.runtime.next_offset(TP(legs[name].source, number))
            if offset is not None:
                world.placed(self, legs[name].source, number, offset)
                self.streams[name].begins((name, number), offset)
        for stream in self.streams.values():
            stream.wake()


class SimRuntime(Runtime):
    """The engine's runtime, with simulated hands in place of Kafka's clients."""

    def __init__(self, process: Process) -> None:
        world = process.world
        settings: Any = SimpleNamespace(
            bootstrap="simulated", namespace="", group="group", state=Path("state"), home=Path("home"), host="", port=0,
            worker=process.node.name, partitions=world.partitions, chunk_max=world.plan.chunk_max,
            checkpoint_ms=world.plan.checkpoint_ms, checkpoint_bytes=world.plan.checkpoint_bytes, session_timeout_s=1,
            fault_at="", topic=lambda name: name,
        )  # fmt: skip
        super().__init__(None, settings)  # type: ignore[arg-type]
        self.process = process
        self.incarnation = repr(process)
        self.idle_s = world.plan.idle_s
        self.decisions = Decisions(world.load)
        self.follow("definitions", lambda record: add_definition(self.decisions, record.value, record.timestamp))
        if world.achieves:
            self.follow("identity-links", lambda record: add_link(self.decisions, record.value))
        self.followed = {
            name: SimpleNamespace(topic=name, position=0, caught_up=asyncio.Event()) for name in self._to_follow
        }
        legs: tuple[Any, ...] = (
            Ingest(world.partitions, self.decisions, world.org_keys),
            MeasureLeg(world.partitions, self.decisions, world.org_keys),
            RecordLeg(world.org_keys),
        )
        for leg in legs:
            leg.fold = partial(process.fold, leg.fold)
            self.legs[leg.name] = LegRuntime(self, leg, line.leg(leg.name))
        self.achieve = SimAchieve(self) if world.achieves else None
        if self.achieve is not None:
            self.closing.append(self.achieve.stop)

    @property
    def told(self) -> Mapping[int, Told]:
        """What each partition of `milestones` that is ours is known to have said."""
        return {} if self.achieve is None else self.achieve.told

    @property
    def consumer(self) -> Any:
        return self

    def fed_at(self) -> float:
        return 0.0

    def of_now(self, message: Any) -> bool:
        return bool(message.generation_id == self.process.generation)

    def taken(self, tp: TP, records: Sequence[Any]) -> None:
        self.process.world.stats["records taken"] += len(records)

    def landed(self, tp: TP, next_offset: int) -> None:
        self.process.world.committed(self.process, tp, next_offset)

    async def start(self) -> None:
        if self._writer is None:
            self._writer = Writer(self.process)  # type: ignore[assignment]
            self.followers |= self.followed  # type: ignore[arg-type]
            for name in self.legs:
                self._outputs[name] = Outputs(self.process, name)  # type: ignore[assignment]
            await self.process.pause()

    async def stop(self) -> None:
        """As the runtime's own, whose followers and writer are ours to stop."""
        self.followers.clear()
        await super().stop()

    async def follow_to(self, name: str) -> None:
        """A topic of decisions, later than the records that need them now and then."""
        process = self.process
        log, followed = process.world.log(name, 0), self.followed[name]
        target = log.end
        while True:
            if followed.position >= target:
                followed.caught_up.set()
            if followed.position < log.end:
                await process.pause()
                end = log.end
                for record in log.read(followed.position, end):
                    self._to_follow[name](record)
                followed.position = end
            else:
                await process.world.appended(process, name)

    async def decided_to(self, positions: Mapping[str, int]) -> bool:
        while any(self.followed[name].position < position for name, position in positions.items()):
            await self.process.pause()
        return True

    async def committed(self, tps: set[TP]) -> dict[TP, int]:
        await self.process.pause()
        return {tp: self.process.world.landed(tp.topic, tp.partition) for tp in tps}

    async def stamps(self, leg: LegRuntime, numbers: set[int]) -> dict[int, Stamp]:
        await self.process.pause()
        return {
            number: Stamp(
                cluster=CLUSTER, source_topic=leg.source, changelog_topic=leg.changelog,
                partitions=self.settings.partitions, leg=leg.spec.name, partition=number,
            )
            for number in numbers
        }  # fmt: skip

    async def starts(self, tps: set[TP]) -> dict[TP, int]:
        """No log here is ever cut at its head."""
        await self.process.pause()
        return dict.fromkeys(tps, 0)

    async def ends(self, tps: set[TP]) -> dict[TP, int]:
        await self.process.pause()
        return {tp: self.process.world.log(tp.topic, tp.partition).end for tp in tps}
