"""A worker kept by the real supervisor: what ends is started again, and nothing is done by hand.

with kept(deployment, mutant) as worker: ...      the deployment's methods work on it as on any worker
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, ParamSpec

import psutil

from milepost.ops import supervise
from milepost.ops.flights import FlightEvent
from milepost.ops.supervise import Supervisor
from tests.support.report import fault, mutant
from tests.support.workers import ROOT, Deployment, Worker, week

PAUSE_S: Final = 0.3


def firsts(count: int) -> list[FlightEvent]:
    """The first events of the week."""
    return [week()[number] for number in range(count)]


class Kept(Worker):
    """The lives of one supervised worker as if they were one."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.settings = supervisor.settings
        self.log_file = supervisor.log
        self._from = 0
        self.supervisor = supervisor
        self._stopped = False

    @property
    def alive(self) -> bool:
        """Whether the supervisor still keeps it."""
        return self.supervisor.failure is None and not self._stopped

    @property
    def pid(self) -> int:
        """The process of this moment."""
        assert self.supervisor.worker is not None
        return self.supervisor.worker.pid

    def shoot(self) -> None:
        """kill -9 of the process of this moment; the supervisor starts another."""
        os.kill(self.pid, signal.SIGKILL)

    def kill(self) -> None:
        """End it for good, in order."""
        self._stopped = True
        self.supervisor.stop()

    def memory_bytes(self) -> int:
        return int(psutil.Process(self.pid).memory_info().rss)


P = ParamSpec("P")


def dealt(
    id: str, what: str, count: int = 1, reduced: int = 0, *, tables: bool = True
) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """A test that is a row of the report of the faults: `count` of kind `id` are dealt when it passes.

    reduced: how many where the test takes its size from the fixture `sized` and is not the campaign's
    tables: whether it holds the tables against those of an undisturbed run (I2)
    """

    def wrap(test: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(test)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            with fault(id, what) as told:
                test(*args, **kwargs)
                sized: Any = kwargs.get("sized")
                told.count = sized(count, reduced) if sized is not None else count
                if tables:
                    told.holds("I2", [])

        return run

    return wrap


def control(mutant_name: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """A test that passes when it catches a broken engine: the report lists the mutant."""

    def wrap(test: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(test)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                test(*args, **kwargs)
            except BaseException:
                mutant(mutant_name, killed_by="")
                raise
            mutant(mutant_name, killed_by=test.__module__.rpartition(".")[2])

        return run

    return wrap


@contextmanager
def kept(deployment: Deployment, mutant: str = "") -> Iterator[Kept]:
    """Supervise a worker of `deployment` until the block ends, with short pauses between its lives.

    mutant: Python that runs before each life
    """
    pauses, supervise.PAUSES_S = supervise.PAUSES_S, (PAUSE_S,)  # type: ignore[misc]
    path = str(ROOT / "src")
    code = f"import sys\nsys.path.insert(0, {path!r})\n{mutant}\nfrom milepost.agents.__main__ import main\nmain()"
    supervisor = Supervisor(deployment.settings, command=(sys.executable, "-c", code))
    worker = Kept(supervisor)
    deployment.lives.append(worker)
    try:
        supervisor.start()
        yield worker
    finally:
        worker.kill()
        supervise.PAUSES_S = pauses  # type: ignore[misc]
