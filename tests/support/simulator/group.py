"""Group: the consumer group: who holds which partitions, how the others learn of it, and how late.

A member that is silent for longer than the session is put out and learns of it when it is heard again: until then it is
a zombie that goes on.  A static member that comes back in time is given what it had, without a word to the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.support.simulator.process import Process
    from tests.support.simulator.world import World

SESSION_S: Final = 0.15
REBALANCE_S: Final = 0.12
HEARTBEAT_S: Final = 0.03

Place = tuple[str, int]
"""A leg's name and a partition."""


class Group:
    """One group over all legs and partitions."""

    def __init__(self, world: World, places: list[Place], *, static: bool) -> None:
        self.world = world
        self.places = places
        self.static = static
        self.generation = 0
        self.members: dict[str, Process] = {}
        self.assigned: dict[str, list[Place]] = {}
        self._joined: dict[str, Process] | None = None  # None: no rebalance is going on

    def join(self, process: Process) -> None:
        """A process asks to be a member."""
        name = process.node.name
        held = self.members.get(name)
        if self.static and held is not None and held is not process and self._joined is None and name in self.assigned:
            self.members[name] = process
            self.world.count("static member came back")
            process.post(process.assigned, self.generation, self.assigned[name])
            return
        self.members[name] = process
        self._begin()
        self._rejoin(process)

    def rejoin(self, process: Process, generation: int) -> None:
        """A member has given its partitions back."""
        if not self.holds(process):
            self.join(process)
        elif self._joined is None:
            self._begin()
            self._rejoin(process)
        else:
            self._rejoin(process)

    def _rejoin(self, process: Process) -> None:
        assert self._joined is not None
        self._joined[process.node.name] = process
        if all(self._joined.get(name) is one for name, one in self.members.items()):
            self._complete(self.generation)

    def holds(self, process: Process) -> bool:
        """Whether the process is a member."""
        return self.members.get(process.node.name) is process

    def leave(self, process: Process) -> None:
        """An orderly end."""
        if self.holds(process):
            del self.members[process.node.name]
            self._begin()

    def evict(self, process: Process) -> None:
        """The process was not heard of for a session; it is told when it is heard again."""
        if not self.holds(process):
            return
        del self.members[process.node.name]
        self.world.count("evicted")
        self.world.at(self.world.now + self._heartbeat(), process.post, process.revoked, -1)
        self._begin()

    def rebalance(self) -> None:
        """For no reason that a member could see."""
        if self.members and self._joined is None:
            self._begin()

    def _begin(self) -> None:
        self.generation += 1
        self._joined = {}
        self.world.count("rebalance")
        for member in self.members.values():
            self.world.at(self.world.now + self._heartbeat(), self._tell, member, self.generation)
        self.world.at(self.world.now + REBALANCE_S, self._complete, self.generation)

    def _tell(self, member: Process, generation: int) -> None:
        """A member's heartbeat is answered: a rebalance is going on; who has joined it knows."""
        joined = self._joined
        if generation == self.generation and joined is not None and joined.get(member.node.name) is not member:
            member.post(member.revoked, generation)

    def _complete(self, generation: int) -> None:
        if generation != self.generation or self._joined is None:
            return
        joined, self._joined = self._joined, None
        for name, one in list(self.members.items()):
            if joined.get(name) is not one:
                del self.members[name]
                self.world.count("left out of a rebalance")
        before = {place: name for name, places in self.assigned.items() for place in places}
        self.assigned = {name: [] for name in self.members}
        names = sorted(self.members)
        random = self.world.random
        for place in self.places if names else ():
            stays = before.get(place)
            name = stays if stays in self.members and random.random() < 0.5 else random.choice(names)
            self.assigned[str(name)].append(place)
        for name, one in self.members.items():
            self.world.at(self.world.now + 0.001, one.post, one.assigned, generation, self.assigned[name])

    def abandon(self) -> None:
        """Forget all: every process ended at once."""
        self.members.clear()
        self.assigned.clear()
        self._joined = None

    def _heartbeat(self) -> float:
        return float(self.world.random.random() * HEARTBEAT_S)
