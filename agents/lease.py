"""Lease: whether this worker may still believe that its partitions are its own.

    heartbeat sent at t, answered with yes  ->  nobody else is given our partitions before t + session time-out

The broker gives a silent member's partitions away after the session time-out.  A worker that was stopped for longer and
goes on knows nothing of that: what it holds looks open.  So every answer is preceded and followed by a look at the
lease, on a clock that goes on while the machine sleeps.  Writing needs no lease: the changelog's proof fences it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

MARGIN_S: Final = 0.5
"""How much earlier than at the broker the lease ends here, seconds."""


def since_boot() -> float:
    """Seconds on a clock that never steps and goes on while the machine is suspended."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class Lease:
    """See the module.  Renewed from the consumer's thread, read from the worker's loop: each step is one assignment."""

    def __init__(self, session_s: float, clock: Callable[[], float] = since_boot) -> None:
        self._length_s = session_s - MARGIN_S
        self._clock = clock
        self._renewed_at: float | None = None
        self._asked_at = clock()
        self._watched: Any = None

    @property
    def held(self) -> bool:
        return self._renewed_at is not None and self._clock() < self._renewed_at + self._length_s

    @property
    def age_ms(self) -> int | None:
        """How long ago the worker was surely a member; None: never."""
        return None if self._renewed_at is None else max(0, int((self._clock() - self._renewed_at) * 1000))

    def joining(self) -> None:
        """The worker is about to ask for partitions."""
        self._asked_at = self._clock()

    def joined(self) -> None:
        """It was given some: the broker has counted from some moment behind its asking."""
        self.renewed(self._asked_at)

    def renewed(self, sent_at: float) -> None:
        """What was sent at `sent_at` was answered with yes."""
        if self._renewed_at is None or sent_at > self._renewed_at:
            self._renewed_at = sent_at

    def watch(self, coordinator: Any) -> None:
        """Be renewed by the heartbeats of aiokafka's coordinator.  A second call with the same one does nothing."""
        if coordinator is None or coordinator is self._watched:
            return
        beat: Callable[[], Awaitable[bool]] = coordinator._do_heartbeat

        async def noted() -> bool:
            sent_at = self._clock()
            yes = await beat()
            if yes:
                self.renewed(sent_at)
            return yes

        coordinator._do_heartbeat = noted
        self._watched = coordinator
