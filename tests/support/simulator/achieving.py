"""Achieving: the leg `achieve` of a simulated process: the real leg, its questions answered by whoever holds a partition.

Achieving -> read -> the member that was given the partition, if it runs, is open, and is where its predecessor was
          -> outputs (a wire, as the other legs have)          milestones -> what was said
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from milepost.agents.milestone_leg import MilestoneLeg
from milepost.topology.behind import Behind
from milepost.topology.decisions import Decisions
from milepost.topology.panes import PANE_MS
from milepost.topology.reading import Progress, Unavailable
from milepost.topology.recognitions import Told
from milepost.topology.state import Store
from milepost.topology.steps import Got, Part, run
from tests.support.simulator.clients import Outputs

if TYPE_CHECKING:
    from milepost.agents.holding import Holding
    from tests.support.simulator.process import Process, SimRuntime
    from tests.support.simulator.world import World


@dataclass(frozen=True, slots=True)
class Held:
    """`topology.reading.Reader` over what one process holds."""

    runtime: SimRuntime

    @property
    def partitions(self) -> int:
        return self.runtime.process.world.partitions

    @property
    def decisions(self) -> Decisions:
        return self.runtime.decisions

    @property
    def org_key(self) -> Mapping[str, bytes]:
        return self.runtime.process.world.org_keys

    def _held(self, leg: str, partition: int) -> Holding:
        process = self.runtime.process
        if process.world.owner(leg, partition) is not process:
            raise Unavailable(leg, partition, "not with this worker")  # the lease says as much
        return self.runtime.legs[leg].asked(partition)

    def epoch(self, leg: str, partition: int) -> int:
        return self._held(leg, partition).epoch

    def stores(self, leg: str, partition: int) -> Mapping[str, Store]:
        at = self._held(leg, partition).partition
        assert at is not None
        return at.stores

    def reached(self, leg: str, partition: int) -> tuple[int, Mapping[int, int]]:
        at = self._held(leg, partition).partition
        assert at is not None
        return at.reached

    def progress(self, partition: int) -> Mapping[int, Progress]:
        at: Any = self._held("measure", partition).partition
        progress: Mapping[int, Progress] = at.mark.progress
        return progress


class SimAchieve(MilestoneLeg):
    """The leg with a simulated producer."""

    def __init__(self, runtime: SimRuntime) -> None:
        super().__init__(runtime, Held(runtime), self._gather)
        self._process: Process = runtime.process

    @property
    def told(self) -> Mapping[int, Told]:
        return {} if self._achieving is None else self._achieving.told

    def _sending(self) -> Any:
        if self._producer is None:
            self._producer = Outputs(self._process, "achieve")  # type: ignore[assignment]
        return self._producer

    async def _gather(self, parts: Sequence[Part]) -> list[Got]:
        """Each part from the one who answers for it now."""
        world = self._process.world
        await self._process.pause()
        found = []
        for part in parts:
            owner = world.owner(part.leg, part.partition)
            if owner is None:
                raise Unavailable(part.leg, part.partition, "nobody answers for it")
            reader = Held(owner.runtime)
            found.append(Got(reader.epoch(part.leg, part.partition), run(part.read(reader))))
        return found


def passed_by(progresses: Sequence[Mapping[int, Progress]], partitions: int) -> int | None:
    """The last bucket end that lies before all that may still come; None: some raw partition was never heard of."""
    if any(len(one) < partitions for one in progresses):
        return None
    return (min(one.k_ms for progress in progresses for one in progress.values()) - 1) // PANE_MS


def unsaid(world: World) -> list[str]:
    """Partitions of `milestones` in which not all is said that the ticks allow, or what came behind is not looked at."""
    if not world.achieves:
        return []
    try:
        behind = tuple(_behind(world, number) for number in range(world.partitions))
    except Unavailable as error:
        return [str(error)]
    owners = {number: at for (name, number), (at,) in world.owners().items() if name == "measure"}
    passed = passed_by([at.mark.progress for at in owners.values()], world.partitions)
    told = {
        number: one.mark.k if one.mark is not None and one.mark.behind == behind else None
        for process in world.processes()
        if not process.loop.dead
        for number, one in process.runtime.told.items()
        if number in process.runtime.legs["measure"].partitions
    }
    return [f"achieve/{n}: {told.get(n)} of {passed}" for n in owners if passed and (told.get(n) or 0) < passed]


def _behind(world: World, number: int) -> int:
    """The last raw offset of a partition that brought something behind what has passed; -1: none did."""
    owner = world.owner("ingest", number)
    if owner is None:
        raise Unavailable("ingest", number, "nobody answers for it")
    return run(Behind(partition=number, since=-1).read(Held(owner.runtime)))[1]
