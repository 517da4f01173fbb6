"""A broker that a test may kill, stop and restart, with a second listener behind a proxy.

worker ──────────────────────▶ port          advertised as itself
worker ──▶ proxy ──▶ hidden port             advertised as the proxy's
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from milepost.ops.broker import EmbeddedBroker
from milepost.ops.processes import free_ports, taken
from tests.support.broker import IMPATIENT, shared_jars
from tests.support.proxy import Proxy, listeners


@dataclass(frozen=True, slots=True)
class OwnBroker:
    """The broker and the proxy before its second listener."""

    broker: EmbeddedBroker
    proxy: Proxy

    @property
    def bootstrap(self) -> str:
        return self.broker.bootstrap

    def kill(self, down_s: float) -> None:
        """kill -9, `down_s` seconds without a broker, and a start that returns when it answers."""
        assert self.broker.process is not None
        self.broker.process.kill()
        self.broker.process.wait()
        self.broker.stop()
        time.sleep(down_s)
        self.broker.start()

    def restart(self) -> None:
        """An orderly stop and a start."""
        self.broker.stop()
        self.broker.start()

    def freeze(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after `seconds`."""
        assert self.broker.process is not None
        os.kill(self.broker.process.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(self.broker.process.pid, signal.SIGCONT)


@contextlib.contextmanager
def own_broker() -> Iterator[OwnBroker]:
    """For as long as the block lasts; the data is deleted afterwards."""
    port = _pair()
    hidden, proxied = free_ports(2)
    properties = {**IMPATIENT, **listeners(port, port + 1, hidden, proxied)}
    with (
        tempfile.TemporaryDirectory(prefix="milepost-test-", ignore_cleanup_errors=True) as home,
        EmbeddedBroker(Path(home), port=port, jars=shared_jars(), properties=properties) as broker,
        Proxy(hidden, proxied) as proxy,
    ):
        yield OwnBroker(broker, proxy)


def _pair() -> int:
    """A free port whose successor is free too: the controller takes it."""
    for port in free_ports(50):
        if not taken(port + 1):
            return port
    raise AssertionError("no two free ports in a row")
