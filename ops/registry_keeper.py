"""Registry keeper: the embedded registry's life: started, watched, started again when it ends.

A thread of its own does it, because the kernel ties a child to the thread that started it, and because nothing else
waits for the registry: while it is away, an apply says so and the line runs on.
"""

from __future__ import annotations

import threading
import time
from typing import Final

from milepost.ops.broker import Say, silent
from milepost.ops.registry import EmbeddedRegistry
from milepost.schemas.errors import MilepostError

PAUSES_S: Final = (0.5, 2.0, 5.0, 15.0, 30.0)
STEADY_S: Final = 60.0
"""After so long a life the pauses begin anew."""


class RegistryKeeper:
    """Keeps one embedded registry running from `start` to `stop`."""

    def __init__(self, registry: EmbeddedRegistry, *, say: Say = silent) -> None:
        self.registry = registry
        self.say = say
        self.restarts = 0
        self._stop = threading.Event()
        self._first = threading.Event()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start it; returns when it answers.  Raises what kept it from starting the first time."""
        self._thread = threading.Thread(target=self._keep, name="registry keeper", daemon=True)
        self._thread.start()
        while not self._first.wait(0.5):  # an interruptible wait: a signal may raise in this thread
            pass
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Stop it; returns when it has ended.  Twice is no error."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _keep(self) -> None:
        deaths = 0
        try:
            while not self._stop.is_set():
                begun = time.monotonic()
                why = self._live()
                if self._failure is not None or self._stop.is_set():
                    return
                deaths = 0 if time.monotonic() - begun > STEADY_S else deaths
                pause_s = PAUSES_S[min(deaths, len(PAUSES_S) - 1)]
                deaths += 1
                self.say(f"{why}; starting it again in {pause_s:g} s; events are taken as before")
                self._stop.wait(pause_s)
                self.restarts += 1
        except Exception as error:  # noqa: BLE001 -- carried to the thread that waits for the first start
            self._failure = error
            self.say(f"the registry is not kept any more: {error!r}")
        finally:
            self.registry.stop()
            self._first.set()

    def _live(self) -> str:
        """One life of the registry; answers how it ended."""
        self.registry.stop()
        try:
            self.registry.start()
        except MilepostError as error:
            if not self._first.is_set():
                self._failure = error
            return f"the registry did not start: {error}"
        self._first.set()
        while self.registry.running and not self._stop.wait(0.2):
            pass
        return "the registry ended"
