"""Supervision: the broker, the topics and one worker, started in order, watched, and stopped in the other order.

    broker (ours, or outside) -> topics -> registry (if it is ours) -> worker -> /readyz says yes -> the page

A worker or broker that ends is started again with a growing pause, and that is said.  Whatever ends us (Ctrl-C,
SIGTERM, an error, kill -9) leaves no process behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, Self

from milepost.ops import processes
from milepost.ops.broker import EmbeddedBroker, Say, silent
from milepost.ops.provision import provision
from milepost.ops.registry import EmbeddedRegistry
from milepost.ops.registry_keeper import RegistryKeeper
from milepost.ops.settings import EMBEDDED, Settings
from milepost.schemas.errors import DeclarationError, StoreError

WORKER: Final = (sys.executable, "-m", "milepost.agents")

EXIT_DECLARATION: Final = 78
"""A worker's exit code for a DeclarationError (EX_CONFIG): starting it again would change nothing."""

PAUSES_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
STEADY_S: Final = 60.0
"""After so long a life the pauses begin anew."""

STILLBORN_MAX: Final = 4
"""So many ends in a row before it ever answered, and starting is given up."""

UNREADY_MAX: Final = 10
"""The same for a worker that answers and ends before it is ready: six lives find a record that ends the process."""

WORKER_STOP_S_MAX: Final = 20.0
SILENCE_S_MAX: Final = 90.0


class Stopped(BaseException):
    """SIGINT or SIGTERM arrived.  Not an Exception: nothing on the way may take it for a failure and go on."""


class Supervisor:
    """Everything of one deployment on this machine, a context manager.

    broker_only: start the broker and make the topics, without a worker
    properties:  more lines for the embedded broker's configuration
    measured:    the embedded broker with a benchmark's JVM flags
    command:     what runs as the worker (tests put theirs here)
    say:         takes lines of progress

    Entering returns when /readyz says yes.  Raises DeclarationError (a taken port, a topic that differs, a worker that
    declines to start) or StoreError (a broker that does not answer, a worker that keeps ending), nothing left running.
    Enter it from a thread that outlives it: the kernel ties the children to the thread that started them.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        broker_only: bool = False,
        properties: dict[str, str] | None = None,
        measured: bool = False,
        command: Sequence[str] = WORKER,
        say: Say = silent,
    ) -> None:
        self.settings = settings
        self.broker_only = broker_only
        self.command = tuple(command)
        self.say = say
        self.broker: EmbeddedBroker | None = None
        if settings.embedded:
            self.broker = EmbeddedBroker(
                settings.home,
                settings.broker_port,
                jars=settings.jars,
                properties=properties,
                measured=measured,
                say=say,
            )
        self.registry: RegistryKeeper | None = None
        if settings.registry == EMBEDDED:
            registry = EmbeddedRegistry(settings.home, settings.registry_port, jars=settings.jars, say=say)
            self.registry = RegistryKeeper(registry, say=say)
        self.worker: subprocess.Popen[bytes] | None = None
        self.restarts = 0
        """How often the worker was started again."""
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._answered = False
        self._failure: BaseException | None = None
        self._watcher: threading.Thread | None = None

    @property
    def log(self) -> Path:
        """What the worker writes."""
        return self.settings.home / "log" / f"{self.settings.worker}.log"

    @property
    def failure(self) -> BaseException | None:
        """What ended the watch for good, if anything did."""
        return self._failure

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start all parts; returns when they are ready."""
        settings = self.settings
        if not self.broker_only and processes.taken(settings.port, settings.host):
            raise DeclarationError(_occupied(settings))
        try:
            if self.broker is not None:
                self.broker.start()
            made = provision(settings)
            self.say(f"{len(made)} topics made" if made else "topics are as the line wants them")
            settings.secret()
            if self.registry is not None:
                self.registry.start()
            self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)
            self._watcher.start()
            while not self._ready.wait(0.2):
                if self._failure is not None:
                    raise self._failure
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the worker, the registry, then the broker; returns when all have ended.  Twice is no error."""
        with _undisturbed():
            self._stop.set()
            if self._watcher is not None:
                self._watcher.join()
                self._watcher = None
            if self.registry is not None:
                self.registry.stop()
            if self.broker is not None:
                self.broker.stop()

    def told(self) -> tuple[dict[str, str | int], str]:
        """Where everything answers: for programs, and for people."""
        settings, page = self.settings, "" if self.broker_only else f"{self.settings.url}/"
        data: dict[str, str | int] = {"broker": settings.bootstrap, "page": page, "home": str(settings.home)}
        data["pid"] = os.getpid()
        lines = [f"broker {settings.bootstrap}", *([f"page   {page}"] if page else [])]
        if settings.registry:
            data["registry"] = settings.registry_url
            lines.append(f"export MILEPOST_REGISTRY={settings.registry_url}")
        return data, "\n".join(lines)

    def wait(self) -> None:
        """Block until the watch ends for good (raises its failure) or a signal arrives (raises Stopped)."""
        while not self._stop.wait(0.5):
            if self._failure is not None:
                raise self._failure

    def _watch(self) -> None:
        """The watcher's life: one worker after another, and the broker under them."""
        try:
            if self.broker_only:
                self._ready.set()
            self._keep()
        except Exception as error:  # noqa: BLE001 -- carried to the thread that waits, which raises it
            self._failure = error
        finally:
            if self.worker is not None:
                processes.stop(self.worker, patience_s=WORKER_STOP_S_MAX)

    def _keep(self) -> None:
        deaths, stillborn = 0, 0
        settings = self.settings
        while not self._stop.is_set():
            begun = time.monotonic()
            if self.broker_only:
                ended = self._until_broker_ends()
            else:
                self.worker = self._spawn(settings)
                ready = self._until_ready(self.worker, begun)
                ended = self._until_end(self.worker) if ready else self._how_it_ended(self.worker)
                stillborn = 0 if ready else stillborn + 1
            if self._stop.is_set():
                return
            most = UNREADY_MAX if self._answered else STILLBORN_MAX
            if stillborn >= most and not self._ready.is_set():
                raise StoreError(f"{ended}, {stillborn} times in a row; {self.log} ends with\n{self._told()}")
            deaths = 0 if time.monotonic() - begun > STEADY_S else deaths
            pause = PAUSES_S[min(deaths, len(PAUSES_S) - 1)]
            deaths += 1
            self.say(f"{ended}; starting again in {pause:g} s")
            if self._stop.wait(pause):
                return
            self._revive_broker()
            if not self.broker_only:
                self.restarts += 1
                settings = replace(settings, fault_at="")  # a crash point is for the first life only

    def _spawn(self, settings: Settings) -> subprocess.Popen[bytes]:
        return processes.spawn(self.command, log=self.log, env={**os.environ, **settings.environment()})

    def _until_ready(self, worker: subprocess.Popen[bytes], begun: float) -> bool:
        """Wait for /readyz.  False: the worker ended before, or we stop."""
        heard, told = begun, begun
        while worker.poll() is None and not self._stop.is_set():
            now = time.monotonic()
            state = probe(self.settings, "/readyz")
            if state == 200:
                again = "again " if self._ready.is_set() else ""
                self.say(f"{self.settings.worker} is ready {again}after {now - begun:.1f} s")
                self._ready.set()
                return True
            if state:
                heard, self._answered = now, True
            if now - heard > SILENCE_S_MAX:
                self.say(f"{self.settings.worker} has not answered for {SILENCE_S_MAX:.0f} s and is stopped")
                processes.stop(worker, patience_s=WORKER_STOP_S_MAX)
                return False
            if now - told > 5:
                told = now
                self.say(f"{self.settings.worker} {'is restoring' if state else 'is starting'}, {now - begun:.0f} s")
            self._stop.wait(0.1)
        return False

    def _until_end(self, worker: subprocess.Popen[bytes]) -> str:
        while worker.poll() is None and not self._stop.wait(0.1):
            if self.broker is not None and not self.broker.running:
                self._revive_broker()  # the worker lives on: its clients connect again
        return self._how_it_ended(worker)

    def _until_broker_ends(self) -> str:
        while not self._stop.wait(0.2):
            if self.broker is not None and not self.broker.running:
                return "the broker ended"
        return ""

    def _revive_broker(self) -> None:
        if self.broker is None or self.broker.running or self._stop.is_set():
            return
        self.say("the broker ended; starting it again")
        self.broker.stop()
        self.broker.start()

    def _how_it_ended(self, worker: subprocess.Popen[bytes]) -> str:
        if self._stop.is_set():
            return ""
        code = worker.wait()
        if code == EXIT_DECLARATION:
            raise DeclarationError(f"{self.settings.worker} declines to start:\n{self._told()}")
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return f"{self.settings.worker} {how}"

    def _told(self) -> str:
        return processes.last_lines(self.log)


def _occupied(settings: Settings) -> str:
    """That the page's port is taken, and by whom: most often by an `up` that was forgotten."""
    if probe(settings, "/readyz") in (200, 503):
        return (
            f"a worker of Milepost answers at {settings.url} already; fix: use it, or stop it where it was started "
            "(Ctrl-C), or start another beside it with MILEPOST_HOME, --port and --broker-port of its own"
        )
    return (
        f"port {settings.port} is taken, the page and the web views need it; "
        "fix: stop what listens there, or choose another port (--port, MILEPOST_PORT)"
    )


def probe(settings: Settings, path: str) -> int:
    """The status code of GET `path` at the worker; 0 when nothing answers within two seconds."""
    request = urllib.request.Request(settings.url + path)
    try:
        with _direct().open(request, timeout=2) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


@contextlib.contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Within the block SIGINT and SIGTERM raise Stopped in the main thread, also where SIGINT came in ignored."""

    def raise_stopped(number: int, _frame: FrameType | None) -> None:
        raise Stopped(signal.Signals(number).name)

    before = {sign: signal.signal(sign, raise_stopped) for sign in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold signals back while parts are being stopped: an impatient second Ctrl-C must not leave one running."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held = {signal.SIGINT, signal.SIGTERM}
    before = {sign: signal.signal(sign, signal.SIG_IGN) for sign in held}
    try:
        yield
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)


def _direct() -> urllib.request.OpenerDirector:
    """An opener that ignores proxies: the worker is on this machine or named by its address."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))
