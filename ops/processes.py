"""Child processes that do not outlive us: own process group, a death signal, a polite stop, then a hard one.

A group of its own keeps Ctrl-C from reaching the broker before the worker that still talks to it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from milepost.schemas.errors import StoreError

_PR_SET_PDEATHSIG = 1
PORTS: Final = (10_000, 32_000)
"""Below the ports that Linux (from 32,768), macOS and Windows (from 49,152) give to connections."""
_TRIES_MAX: Final = 1_000
_chance: Final = random.SystemRandom()
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def spawn(command: Sequence[str], *, log: Path | None, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own; its output goes to `log` (made anew, the last one kept as `.1`).

    Without a log it writes where we write.  On Linux the kernel sends SIGTERM to the child when the *thread* that
    called this ends, so call it from a thread that lives as long as the child shall.
    """
    if log is None:
        return subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, env=env, start_new_session=True, preexec_fn=_die_with_parent
        )
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_name(log.name + ".1"))
    with log.open("wb") as file:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )


def stop(process: subprocess.Popen[bytes], *, patience_s: float) -> int:
    """SIGTERM, `patience_s` seconds, then SIGKILL to what is left of the group.  Returns the exit code."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        # Also when the leader has ended: a child of its own may have stayed behind.
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def taken(port: int, host: str = "127.0.0.1") -> bool:
    """Whether someone already listens on the port, or we may not bind to it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a socket in TIME_WAIT is no occupant
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def free_ports(count: int) -> list[int]:
    """`count` different ports that nobody listens on at this moment, of those that no system gives to a connection on
    its way out: else any program could take one before it is used."""
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        for _ in range(_TRIES_MAX):
            if len(found) == count:
                return found
            probe, port = stack.enter_context(socket.socket()), _chance.randrange(*PORTS)
            with contextlib.suppress(OSError):  # taken: another one
                probe.bind(("127.0.0.1", port))
                found.append(port)
    raise StoreError(f"no {count} free ports from {PORTS[0]} to {PORTS[1]}; fix: end what has taken them")


def answers(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a TCP connection to the port is accepted."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def runs(pid: int, argument: str) -> bool:
    """Whether process `pid` runs and has `argument` on its command line (a number is given again to others)."""
    if pid <= 0:
        return False
    if Path("/proc/self").exists():
        try:
            return argument.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")  # empty for a zombie
        except (FileNotFoundError, ProcessLookupError):
            return False
    command = ["ps", "-ww", "-o", "stat=,args=", "-p", str(pid)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return argument in done.stdout and not done.stdout.startswith("Z")


def last_lines(log: Path, count: int = 12) -> str:
    """The end of a log file, for the message that says why a process stopped."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16_384))
        lines = file.read().decode(errors="replace").splitlines()
    told = [line for line in lines if not line.startswith("\tat ")]  # the reason, not Java's stack below it
    return "\n".join(f"    {line}" for line in told[-count:])


def _die_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
