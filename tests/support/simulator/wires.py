"""Wires: bytes on their way from one process to one partition of the broker.

First in, first out on each wire; wires know nothing of each other.  What was handed to the kernel may land although its
sender is dead or stopped, and late; what was not is lost with it, or waits until the sender goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from tests.support.simulator.kafka import Log, Message

if TYPE_CHECKING:
    from tests.support.simulator.process import Process

AIR_S: Final = 0.25
"""How late bytes of a dead or stopped sender may land, in seconds."""

RESEND_S: Final = 0.06
"""After so long without an answer a batch is sent again, in seconds."""

Acked = Callable[[int], None]


class Wire:
    """See the module.  `resends`: an answer may be lost, and the batch is then sent again (a producer that is not
    idempotent)."""

    def __init__(self, process: Process, log: Log, *, resends: bool) -> None:
        self.process = process
        self.world = process.world
        self.log = log
        self.resends = resends
        self._items: deque[tuple[Sequence[Message], Acked]] = deque()
        self._held = 0  # items at the end that a stopped sender has not handed over
        self._turn = 0  # arrivals of an earlier turn were planned anew
        self._last = 0.0

    def send(self, batch: Sequence[Message], acked: Acked) -> None:
        """Put `batch` on its way; `acked(base offset)` is called in the process when the answer has come."""
        self._items.append((batch, acked))
        if self.process.loop.stopped:  # the last step of a process that is being stopped
            self._held += 1
        else:
            self._plan(self.world.latency() * self.world.plan.slow)

    def _plan(self, delay: float) -> None:
        self._last = max(self._last, self.world.now + delay)
        self.world.at(self._last, self._arrive, self._turn)

    def _arrive(self, turn: int) -> None:
        if turn != self._turn or len(self._items) <= self._held:
            return
        batch, acked = self._items.popleft()
        world, process = self.world, self.process
        base = world.append(self.log, batch)
        if self.resends and not world.group.holds(process):
            world.late(self.log)
        if process.loop.dead:
            world.count("late bytes of a dead sender")
            return
        if process.loop.stopped:
            world.count("late bytes of a stopped sender")
        if self.resends and world.chance(world.plan.lost_answers):
            world.count("answer lost")
            world.at(world.now + RESEND_S, process.post, self.send, batch, acked)
        else:
            world.at(world.now + world.latency(), process.post, acked, base)

    def stop(self) -> None:
        """The sender is stopped: a first part of what is on the wire may still land."""
        if self._items:
            self._held = len(self._items) - self.world.random.randint(0, len(self._items))
            self._again(len(self._items) - self._held)

    def resume(self) -> None:
        self._held = 0
        if self._items:
            self._again(len(self._items))

    def kill(self, *, torn: bool) -> None:
        """The sender is dead: a first part of what is on the wire may still land.

        torn: any part of it, in order, as when the partition's leader changes under a producer that cannot go on.
        """
        items = list(self._items)
        if torn:
            items = [one for one in items if self.world.chance(0.5)]
        else:
            items = items[: self.world.random.randint(0, len(items))]
        self._items = deque(items)
        self._held = 0
        if items:
            self._again(len(items))

    def _again(self, count: int) -> None:
        self._turn += 1
        self._last = self.world.now
        late = self.world.random.random() * AIR_S
        for _ in range(count):
            self._plan(late)
