"""Embedded: a server of ours beside the worker: one a folder, looked after by one process; its data stays.

start: claim the folder -> end what a killed run left -> (the server's own) -> note its pid
stop:  end it -> take the note away -> give the folder back
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar, Self

from milepost.ops import processes
from milepost.schemas.errors import DeclarationError


class Embedded:
    """What the embedded broker and the embedded registry have in common: a context manager that starts and stops.

    name:   what it is, in messages: "broker";  stop_s: how long its orderly end may take, seconds
    folder: holds its data, log and notes;  say: takes lines of progress
    """

    name: ClassVar[str]
    stop_s: ClassVar[float]

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.say = say
        self.process: subprocess.Popen[bytes] | None = None
        self._guard: IO[str] | None = None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start and return when it answers.  Raises DeclarationError, with the fix; then nothing of it is left."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._claim()
        try:
            self._end_leftover()
            self._run()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop it and wait for its end.  Data stays.  Stopping twice is no error."""
        if self.process is not None:
            processes.stop(self.process, patience_s=self.stop_s)
            self.process = None
            (self.folder / "pid").unlink(missing_ok=True)
        if self._guard is not None:
            self._guard.close()
            self._guard = None

    def _run(self) -> None:
        """Spawn it and wait until it answers."""
        raise NotImplementedError

    def _sign(self) -> str:
        """What of its command line tells it from any other process."""
        raise NotImplementedError

    def _spawn(self, command: list[str], log: Path) -> None:
        self.process = processes.spawn(command, log=log)
        (self.folder / "pid").write_text(str(self.process.pid))

    def _claim(self) -> None:
        guard = (self.folder / "lock").open("w")
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            guard.close()
            raise DeclarationError(
                f"another milepost already runs a {self.name} in {self.folder}; "
                "fix: stop it, or set another MILEPOST_HOME"
            ) from error
        self._guard = guard

    def _end_leftover(self) -> None:
        """Stop one whose parent was killed: we hold the lock, so nobody else looks after it."""
        note = self.folder / "pid"
        if not note.exists():
            return
        pid, sign = int(note.read_text() or 0), self._sign()
        if processes.runs(pid, sign):
            self.say(f"stopping the {self.name} that a killed run left behind (process {pid})")
        for signal_, patience_s in ((signal.SIGTERM, self.stop_s), (signal.SIGKILL, 5.0)):
            if not processes.runs(pid, sign):  # asked anew: another process may have its number by now
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal_)
            end = time.monotonic() + patience_s
            while time.monotonic() < end and processes.runs(pid, sign):
                time.sleep(0.05)
        note.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """One process at a time: two that start together fetch once."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
