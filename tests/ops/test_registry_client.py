"""The registry client: bounded in time and bytes, whatever answers, and clear about what to do."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from milepost.ops import registry_client
from milepost.ops.processes import free_ports
from milepost.ops.registry_client import Incompatible, RegistryClient
from milepost.schemas.errors import DeclarationError, MilepostError, StoreError

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextlib.contextmanager
def answering(answer: Answer) -> Iterator[tuple[str, list[str]]]:
    """(url, requests so far) of a server that answers so."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with contextlib.suppress(OSError):
                answer(self)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/api", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def said(status: int, body: Any) -> Answer:
    """A whole answer."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    return answer


def drop_by_drop(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "100000")
    request.end_headers()
    for _ in range(400):
        request.wfile.write(b" ")
        request.wfile.flush()
        time.sleep(0.05)


def endless(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    for _ in range(200):
        request.wfile.write(b" " * 65_536)


def silent(_request: http.server.BaseHTTPRequestHandler) -> None:
    time.sleep(20)


def hangs_up(request: http.server.BaseHTTPRequestHandler) -> None:
    request.close_connection = True


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (said(503, {"message": "starting"}), "it answers 503: starting"),
        (said(500, b"<html>oops"), "it answers 500: <html>oops"),
        (hangs_up, "RemoteDisconnected"),
        (silent, "imeout"),
        (drop_by_drop, "the answer does not end"),
        (endless, "more than 4194304 bytes"),
        (said(200, b"<html>a page"), "does not answer as a schema registry: no JSON came"),
        (said(200, {"not": "a list"}), "does not answer as a schema registry: a list of subjects"),
    ],
)  # fmt: skip
def test_what_does_not_answer_as_a_registry_is_said_in_time(
    answer: Answer, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failing, hanging up, silent, dripping, endless or another server altogether: one error of ours, within the time."""
    monkeypatch.setattr(registry_client, "ANSWER_S", 0.5)
    monkeypatch.setattr(registry_client, "PAUSES_S", (0.01,))
    begun = time.monotonic()
    with (
        answering(answer) as (url, _),
        RegistryClient(url, patience_s=1.0) as client,
        pytest.raises(StoreError, match=why),
    ):
        client.subjects()
    assert time.monotonic() - begun < 8


def test_nobody_there_is_said_with_the_fix() -> None:
    """A refused connection names the address and the three things one may do."""
    (port,) = free_ports(1)
    with RegistryClient(f"http://127.0.0.1:{port}", patience_s=0.5) as client, pytest.raises(StoreError) as error:
        client.subjects()
    for part in (str(port), "up --registry", "MILEPOST_REGISTRY", "without a registry"):
        assert part in str(error.value)


def test_a_registry_that_comes_back_is_asked_again() -> None:
    """Two answers of 503, then the right one: nobody notices."""
    answers = iter([said(503, {}), said(503, {}), said(200, ["a"])])
    with answering(lambda request: next(answers)(request)) as (url, asked), RegistryClient(url) as client:
        assert client.subjects() == ["a"]
    assert asked == ["GET /api/subjects"] * 3


def test_what_an_id_means_is_asked_once() -> None:
    """An id never means something else, so the second answer comes from memory; an unknown one is no failure."""
    with answering(said(200, {"schema": "{}"})) as (url, asked), RegistryClient(url) as client:
        assert [client.schema(7) for _ in range(3)] == ["{}"] * 3 and asked == ["GET /api/schemas/ids/7"]
    with answering(said(404, {"message": "none"})) as (url, _), RegistryClient(url) as client:
        assert client.schema(7) is None and client.versions("none") == []


def test_a_refusal_is_the_registrys_own_words() -> None:
    """An incompatible schema names the subject and why; any other refusal its status."""
    verdict = {"is_compatible": False, "messages": ["field x has no default"]}
    with answering(said(200, verdict)) as (url, asked), RegistryClient(url) as client:
        with pytest.raises(Incompatible, match=r"acme/x\.Visit.*field x has no default"):
            client.check("acme/x.Visit", "{}")
        assert asked == ["POST /api/compatibility/subjects/acme%2Fx.Visit/versions?verbose=true"]
    with (
        answering(said(409, {"message": "no"})) as (url, _),
        RegistryClient(url) as client,
        pytest.raises(Incompatible),
    ):
        client.register("acme.Visit", "{}")
    with (
        answering(said(422, {"message": "no Avro"})) as (url, _),
        RegistryClient(url) as client,
        pytest.raises(DeclarationError, match="422, no Avro") as error,
    ):
        client.register("acme.Visit", "{}")
    assert not isinstance(error.value, StoreError) and isinstance(error.value, MilepostError)
