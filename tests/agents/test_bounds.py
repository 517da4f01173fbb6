"""Bounds at the door: connections, heads and bodies that are slow or huge, and questions at once."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from milepost.agents.views import bodies, connections, problems
from milepost.agents.views.streams import CLIENTS_MAX
from milepost.ops.settings import Settings
from tests.agents.test_views import VALUE, Site, Tables, Worker, event, filled, served

HEAD = b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture(scope="module")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from served(Worker(Settings(home=tmp_path_factory.mktemp("home")), Tables(filled().reader)))


@pytest.fixture
def site(_site: Site) -> Site:
    _site.worker.sent.clear()
    return _site


def raw(site: Site) -> socket.socket:
    return socket.create_connection(("127.0.0.1", site.port), timeout=10)


def told(link: socket.socket) -> bytes:
    """Everything until the other side ends the connection."""
    got = b""
    with contextlib.suppress(ConnectionError):
        while piece := link.recv(65536):
            got += piece
    return got


def test_a_slow_head_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that say nothing, or a byte now and then, end within the bound; others are answered meanwhile."""
    monkeypatch.setattr(connections, "HEAD_S", 1.0)
    links = [raw(site) for _ in range(50)]
    began = time.monotonic()
    dripping = links[::2]
    for number in range(6):
        for link in dripping:
            with contextlib.suppress(ConnectionError):
                link.sendall(b"GET / HTTP/1.1\r\n"[number : number + 1])
        assert site.get("/healthz").status == 200
        time.sleep(0.1)
    assert all(told(link) == b"" for link in links) and time.monotonic() - began < 4.0
    for link in links:
        link.close()


def test_a_slow_second_head_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was answered once has no longer for the next head; between requests a connection is kept."""
    monkeypatch.setattr(connections, "HEAD_S", 1.0)
    with raw(site) as link:
        link.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 200 " in link.recv(65536)
        time.sleep(1.5)  # idle, and kept
        link.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 200 " in link.recv(65536)
        began = time.monotonic()
        link.sendall(b"GET /heal")
        assert told(link) == b"" and 0.5 < time.monotonic() - began < 4.0


def test_a_slow_body_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body whose next piece does not come, and one that comes byte by byte, end as 408; nothing is sent."""
    monkeypatch.setattr(bodies, "PIECE_S", 0.5)
    monkeypatch.setattr(bodies, "WHOLE_S", 1.0)
    with raw(site) as link:
        link.sendall(HEAD % 100 + b'{"org"')
        assert b" 408 " in link.recv(65536)
    with raw(site) as link:
        link.sendall(HEAD % 100)
        for _ in range(14):
            with contextlib.suppress(ConnectionError):
                link.sendall(b"{")
            time.sleep(0.1)
        assert b" 408 " in link.recv(65536)
    assert not site.worker.sent


def test_huge_heads_are_refused(site: Site) -> None:
    """A long line, a long header and many headers are problems, and the worker answers on."""
    for head in (
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 9000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X-%d: a\r\n" % n for n in range(500)) + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: " + b"a=b; " * 1700 + b"\r\n\r\n",
    ):
        with raw(site) as link:
            link.sendall(head)
            got = told(link)
        assert b" 400 " in got.split(b"\r\n")[0] and b"application/problem+json" in got
    assert site.get("/healthz").status == 200


def test_huge_bodies_and_limits_are_refused(site: Site) -> None:
    """What says that it is too large is refused before it is read; limits have bounds, whatever they are written with."""
    with raw(site) as link:
        link.sendall(HEAD % 10**12)
        assert b" 413 " in link.recv(65536)
    for wrong in ("0", "1001", "9" * 400, "-1", "1e3", "0x10", "٣", "NaN"):
        assert site.get("/v1/companies", limit=wrong).status == 422
        assert site.get("/v1/companies", limit="1", next=wrong).status in (200, 422)
    assert site.get("/v1/companies", next="9" * 400).status == 422


def test_connections_are_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a connection is told to come back and closed; when others end there is room again."""
    monkeypatch.setattr(connections, "CONNECTIONS_MAX", 5)
    links = [raw(site) for _ in range(5)]
    time.sleep(0.2)
    with raw(site) as link:
        got = told(link)
        assert b" 503 " in got.split(b"\r\n")[0] and b"Retry-After: 1" in got
    for one in links:
        one.close()
    until = time.monotonic() + 5
    while True:
        with contextlib.suppress(OSError, AssertionError):
            assert site.get("/healthz").status == 200
            break
        assert time.monotonic() < until
        time.sleep(0.05)


def test_questions_at_once_are_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a question is told to come back; a supervisor's are answered all the same."""
    monkeypatch.setattr(problems, "ASKED_MAX", 1)
    with raw(site) as link:
        link.sendall(HEAD % 100)  # in hand: its body does not come
        time.sleep(0.2)
        got = site.get(VALUE)
        assert got.status == 503 and got.headers["retry-after"] == "1" and got.json["fix"]
        assert site.get("/healthz").status == site.get("/metrics").status == 200
    until = time.monotonic() + 5
    while site.get(VALUE).status != 200:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert site.post(json.dumps(event()).encode()).status == 202


def test_the_bounds_are_below_what_a_process_has() -> None:
    """Streams are fewer than connections, so that open pages leave room for questions."""
    assert CLIENTS_MAX + problems.ASKED_MAX < connections.CONNECTIONS_MAX


def test_the_page_is_served_while_the_bound_is_tight(tmp_path: Path) -> None:
    """Negative control: within the bounds nothing of this is noticed."""
    for site in served(Worker(Settings(home=tmp_path), Tables(filled().reader))):
        assert [site.get("/").status for _ in range(20)] == [200] * 20
