"""Supervision: what ends is started again and said so; whatever ends us leaves no process behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from milepost.ops import processes
from milepost.ops.settings import Settings
from milepost.ops.supervise import EXIT_DECLARATION, Supervisor
from milepost.schemas.errors import DeclarationError, StoreError
from tests.support.broker import broker_ports, shared_jars

READY = """
import http.server, os, sys
class Views(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(os.environ.get("FAULT_AT", "").encode())
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["MILEPOST_PORT"])), Views).serve_forever()
"""


def worker(code: str) -> Sequence[str]:
    return (sys.executable, "-c", textwrap.dedent(code))


def until(check: object, seconds: float = 15) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if check():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


def test_a_killed_worker_is_started_again_and_said_so(settings: Settings) -> None:
    """kill -9 of the worker is named, the next life becomes ready, and crash points fire only in the first."""
    said: list[str] = []
    with Supervisor(replace(settings, fault_at="after_fold:3"), command=worker(READY), say=said.append) as up:
        first = up.worker
        assert first is not None
        first.send_signal(signal.SIGKILL)
        assert until(lambda: any("ready again" in line for line in said)), said
        assert any("was killed by SIGKILL; starting again in 0.5 s" in line for line in said)
        assert up.restarts == 1
        second = up.worker
        assert second is not None and second.pid != first.pid
        assert psutil.Process(second.pid).environ()["FAULT_AT"] == ""
    assert second.poll() is not None
    assert not processes.answers(settings.port)


def test_a_worker_that_declines_is_not_started_again(settings: Settings) -> None:
    """A declaration that does not hold ends the start, with the worker's own words."""
    code = f"import sys; print('partition count is wrong'); sys.exit({EXIT_DECLARATION})"
    with pytest.raises(DeclarationError, match=r"(?s)declines to start.*partition count is wrong"):
        Supervisor(settings, command=worker(code)).start()


def test_a_worker_that_keeps_ending_is_given_up_with_its_log(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four ends before it was ever ready, and starting fails with the end of the worker's log."""
    monkeypatch.setattr("milepost.ops.supervise.PAUSES_S", (0.01,))
    with pytest.raises(StoreError, match=r"(?s)ended with code 3, 4 times in a row.*no such thing"):
        Supervisor(settings, command=worker("import sys; print('no such thing'); sys.exit(3)")).start()


def test_a_taken_page_port_is_refused_with_the_fix(settings: Settings) -> None:
    """A web port that someone listens on is named before anything starts."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", settings.port))
        other.listen()
        with pytest.raises(DeclarationError, match=rf"port {settings.port} is taken.*fix:.*--port"):
            Supervisor(settings, command=worker(READY)).start()


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_us_leaves_no_process(tmp_path: Path, sign: signal.Signals) -> None:
    """Ctrl-C, SIGTERM and kill -9 of `up` end the embedded broker and the worker."""
    broker_port, port = broker_ports()
    code = f"""
        import sys
        from milepost.ops.settings import read_settings
        from milepost.ops.supervise import Stopped, Supervisor, stopping_on_signals
        try:
            with stopping_on_signals(), Supervisor(read_settings(), command=(sys.executable, "-c", {READY!r})) as up:
                print(up.broker.process.pid, up.worker.pid, flush=True)
                up.wait()
        except Stopped:
            sys.exit(0)
    """
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "MILEPOST_HOME": str(tmp_path),
        "MILEPOST_JARS": str(shared_jars()),
        "MILEPOST_BROKER_PORT": str(broker_port),
        "MILEPOST_PORT": str(port),
    }
    parent = subprocess.Popen(worker(code), stdout=subprocess.PIPE, text=True, env=env)
    assert parent.stdout is not None
    children = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
    assert len(children) == 2
    parent.send_signal(sign)
    code_of = parent.wait(40)
    assert code_of == (-9 if sign == signal.SIGKILL else 0)
    gone, alive = psutil.wait_procs(children, timeout=15)
    assert not alive and len(gone) == 2
