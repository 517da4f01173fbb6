"""Connections: bounds on those who hold one open and say little, and problems for what is not HTTP.

    connect -> beyond CONNECTIONS_MAX: 503, closed -> a request's head within HEAD_S -> bodies.py bounds the body
                                                      idle between requests: IDLE_S

aiohttp bounds the length of lines and the number of headers (8,190 bytes, 128); for the head of a request it waits an
hour.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from milepost.agents.views.problems import HEADERS, problem

CONNECTIONS_MAX: Final = 2_000
HEAD_S: Final = 10.0
"""How long the head of a request may take from the connection's begin, or from its first byte, seconds."""
IDLE_S: Final = 75.0
"""How long a connection is kept between requests, seconds: a little longer than proxies do."""
FULL: Final = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class ProblemRunner(web.AppRunner):
    """aiohttp's runner with these bounds, whose refusals of malformed HTTP are problems as well."""

    def __init__(self, app: web.Application) -> None:
        super().__init__(app, access_log=None, keepalive_timeout=IDLE_S)

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        return _Server(
            server.request_handler, request_factory=server.request_factory, loop=server._loop, **server._kwargs
        )


class _Server(web.Server):
    held = 0

    def __call__(self) -> RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)


class _Protocol(RequestHandler):
    __slots__ = ("_late", "_server")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._late: asyncio.TimerHandle | None = self._loop.call_later(HEAD_S, self._give_up)
        assert isinstance(self._manager, _Server)
        self._server = self._manager
        self._server.held += 1
        if self._server.held > CONNECTIONS_MAX:
            assert isinstance(transport, asyncio.Transport)
            transport.write(FULL)
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._server.held -= 1
        self._in_time()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages or self._current_request is not None:
            self._in_time()
        elif self._late is None and self._waits:
            self._late = self._loop.call_later(HEAD_S, self._give_up)

    @property
    def _waits(self) -> bool:
        """Whether no whole head has come since the last request."""
        return self._waiter is not None and not self._waiter.done()

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        if self._waits:
            self.force_close()

    def handle_error(
        self,
        request: Any,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500:
            super().handle_error(request, status, exc, message)  # logs it
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had begun; the connection is closed")
        response = problem(status, HTTPStatus(status).phrase, "the request is not valid HTTP")
        response.headers.update(HEADERS)
        response.force_close()
        return response
