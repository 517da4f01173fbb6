"""The network between a worker and its broker, broken in six ways (F11), while another worker can reach it.

A cut longer than the session makes the worker a zombie: the other takes over, and what the first had on its way lands
when the network heals, or never.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from milepost.ops.settings import Settings
from tests.support.checks import Kept, Progress, Watch, free_port, full, quick
from tests.support.hostile import Feed
from tests.support.own_broker import OwnBroker
from tests.support.proxy import FAULTS, Mode, Proxy
from tests.support.report import fault
from tests.support.workers import Deployment

BROKEN_S = 9.0
"""Longer than the session's time-out of 6 s."""


@pytest.mark.broker
@pytest.mark.slow
def test_a_network_that_breaks_loses_nothing(fragile: OwnBroker, fragile_settings: Settings, campaign: bool) -> None:
    """Refused, silent, half open, reset, slow, answers lost: each heals by itself, and nothing is lost or doubled."""
    modes: tuple[Mode, ...] = FAULTS if campaign else ("answer_lost",)
    with (
        fault("F11", "network broken between worker and broker", seed=111) as told,
        Kept(fragile_settings) as deployment,
        Watch(deployment) as watch,
    ):
        deployment.apply()
        progress = Progress()
        feed = Feed(deployment, seed=111, rate=300, events=0 if campaign else 3000)
        feed.start()
        deployment.keep("worker-1")
        deployment.keep("worker-2", broker=fragile.proxy.address)
        for mode in modes:
            deployment.wait(lambda: shared(deployment), "both workers have partitions")
            cut = fragile.proxy.cut
            fragile.proxy.set(mode)
            deployment.pause(BROKEN_S)
            fragile.proxy.set("open")
            began = time.monotonic()
            deployment.wait(lambda: shared(deployment), f"the cut worker is not back after {mode}")
            told.recovered(time.monotonic() - began)
            assert mode == "slow" or fragile.proxy.cut > cut, f"{mode} has cut no connection"
            told.count += 1
            quick(deployment, told, watch, progress)
        feed.finish()
        deployment.only("worker-1")
        full(deployment, told, watch, feed, restore=campaign)
        assert told.rebalances > 0


def shared(deployment: Deployment) -> bool:
    """Whether both workers run, are ready and have partitions."""
    told = [worker.status() for worker in deployment.running]
    return len(told) == 2 and all(one.get("ready") and one["legs"]["ingest"]["open"] for one in told)


# -- the proxy itself


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that answers each piece with itself; a new connection is greeted by nothing."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                while piece := connection.recv(65536):
                    connection.sendall(piece)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield server.getsockname()[1]
    server.close()


def _asked(connection: socket.socket, text: bytes, seconds: float = 2.0) -> bytes | None:
    """The echo; None: silence;  b"": the connection has ended."""
    connection.settimeout(seconds)
    try:
        connection.sendall(text)
        return connection.recv(100)
    except TimeoutError:
        return None
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("mode", "old", "new", "later"),
    [
        ("refused", b"", "refused", b""),
        ("black_hole", None, None, b""),
        ("half_open", None, None, b""),
        ("reset", b"", b"new", b""),
        ("slow", b"two", b"new", b"three"),
        ("answer_lost", b"", b"", b""),
    ],
)
def test_the_proxy_breaks_the_network_as_it_says(
    echo: int, mode: Mode, old: bytes | None, new: bytes | str | None, later: bytes
) -> None:
    """What a connection that is there sees, what a new one sees, and what the old one sees once it is healed."""
    with Proxy(echo, free_port()) as proxy, socket.create_connection(("127.0.0.1", proxy.port)) as there:
        assert _asked(there, b"one") == b"one"
        proxy.set(mode)
        begun = time.monotonic()
        assert _asked(there, b"two") == old
        if mode == "slow":
            assert time.monotonic() - begun > 0.4, "200 ms each way"
        try:
            with socket.create_connection(("127.0.0.1", proxy.port), timeout=2) as fresh:
                assert _asked(fresh, b"new") == new
        except ConnectionRefusedError:
            assert new == "refused"
        proxy.set("open")
        assert _asked(there, b"three", 1.0) == later
        with socket.create_connection(("127.0.0.1", proxy.port)) as healthy:
            assert _asked(healthy, b"four") == b"four"
