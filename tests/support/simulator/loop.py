"""Loop: an event loop for one simulated process.  It runs what is ready in order; time and timers are the world's.

A process is stopped by not draining its loop and killed by closing it: whatever its coroutines wait for never comes.
"""

from __future__ import annotations

import asyncio
import inspect
from asyncio import events
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

TURNS_MAX: Final = 200_000
"""Callbacks that one drain may run: more is a process that never waits."""


class Killed(BaseException):
    """The process is gone: raised out of whatever it was doing."""


class Clock(Protocol):
    """What a loop needs of the world."""

    now: float

    def at(self, when: float, call: Callable[..., None], *args: Any) -> None: ...

    def runnable(self, loop: ProcessLoop) -> None: ...

    def unexpected(self, loop: ProcessLoop, context: dict[str, Any]) -> None: ...


class Handle:
    """A callback that may be cancelled; asyncio's futures and timers want no more of it."""

    __slots__ = ("args", "call", "gone", "when_")

    def __init__(self, call: Callable[..., Any], args: tuple[Any, ...], when: float) -> None:
        self.call = call
        self.args = args
        self.when_ = when
        self.gone = False

    def cancel(self) -> None:
        self.gone = True

    def cancelled(self) -> bool:
        return self.gone

    def when(self) -> float:
        return self.when_


class ProcessLoop(asyncio.AbstractEventLoop):
    """See the module.  `stopped`: SIGSTOP; `closed`: dead."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.stopped = False
        self.dead = False
        self.ready: deque[Handle] = deque()
        self._tasks: list[asyncio.Task[Any]] = []

    def time(self) -> float:
        return self.clock.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self.dead

    def is_closed(self) -> bool:
        return self.dead

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> Handle:  # type: ignore[override]
        handle = Handle(callback, args, 0.0)
        self._due(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Handle:  # type: ignore[override]
        return self.call_at(self.clock.now + delay, callback, *args)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Handle:  # type: ignore[override]
        handle = Handle(callback, args, when)
        self.clock.at(when, self._due, handle)
        return handle

    def _due(self, handle: Handle) -> None:
        if not self.dead and not handle.gone:
            self.ready.append(handle)
            self.clock.runnable(self)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> asyncio.Task[Any]:  # type: ignore[override]
        task = asyncio.Task(coro, loop=self, name=name)
        self._tasks.append(task)
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """A thread's work is done at the loop's next turn: what a thread may do beside the loop, it does between."""
        future = self.create_future()

        def work() -> None:
            if not future.cancelled():
                try:
                    future.set_result(func(*args))
                except Exception as error:  # noqa: BLE001 - the waiter gets it, whatever it is
                    future.set_exception(error)

        self.call_soon(work)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.dead:
            self.clock.unexpected(self, context)

    def kill(self) -> None:
        self.dead = True
        self.ready.clear()
        for task in self._tasks:
            coro: Any = task.get_coro()
            if inspect.getcoroutinestate(coro) == inspect.CORO_CREATED:
                coro.close()  # it never began: else Python says so
        self._tasks.clear()

    def drain(self) -> None:
        """Run until nothing is ready, or the process is stopped or dead."""
        ready = self.ready
        before = events._get_running_loop()
        events._set_running_loop(self)
        turns = 0
        try:
            while ready and not self.stopped:
                handle = ready.popleft()
                if not handle.gone:
                    handle.call(*handle.args)
                turns += 1
                assert turns < TURNS_MAX, "a process that never waits"
        except Killed:
            pass
        finally:
            events._set_running_loop(before)
