"""Problems: every error as RFC 9457 problem details, every answer under the same headers.

    request -> host, origin, token -> handler -> answer
                       \\______________\\____-> problem: {type, title, status, detail, guess?, fix}

What aiohttp itself refuses (no route, method, malformed HTTP) is a problem too.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from faust.web.exceptions import WebError

from milepost.agents import pace, peers
from milepost.agents.views.asking import Late
from milepost.agents.views.services import SendFailed
from milepost.ops import telemetry
from milepost.ops.settings import Settings
from milepost.schemas.errors import BundleError, DeclarationError, StoreError
from milepost.topology.reading import Unavailable
from milepost.topology.refusals import QuestionError

log = logging.getLogger(__name__)

CONTENT_TYPE: Final = "application/problem+json"
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
"""Paths that ask for no token: an orchestrator's probes carry none, and they say nothing."""
WATCHING: Final = OPEN_PATHS | {"/metrics", "/v1/status"}
"""Paths that a supervisor asks for ever: they do not make the fold hurry."""

STREAM: Final = "/v1/stream"
"""It lasts as long as a page is open: a foreign page may not hold one, and its length is no answer's."""
FIXES: Final[Mapping[int, str]] = {
    401: "Authorization: Bearer …, with MILEPOST_TOKEN of the worker",
    403: "send it without a page, as with curl, or from the worker's own",
    404: "GET /openapi.json lists what there is",
    405: "GET /openapi.json lists the methods of each path",
    413: "send it in parts",
    415: "GET /openapi.json lists the content types of each body",
    421: "ask for it by 127.0.0.1, localhost or [::1]",
    500: "ask again; if it fails again, the worker's log says why",
    503: "ask again when Retry-After has passed",
}
"""What helps in general, where a problem does not say what helps in particular."""
USUAL: Final = "GET /openapi.json says what each parameter and body takes"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Problem(Exception):
    """A refusal of the views' own.  `more` goes into the problem as it is."""

    def __init__(
        self,
        status: int,
        title: str,
        detail: str = "",
        *,
        fix: str | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(title)
        self.status, self.title, self.detail, self.fix = status, title, detail, fix
        self.more = more or {}


def problem(status: int, title: str, detail: str = "", *, slug: str = "", **more: Any) -> web.Response:
    """The response: `type` is `about:blank` or `/problems/<slug>`; None is left out, but for `fix`."""
    more["fix"] = more.get("fix") or FIXES.get(status, USUAL)
    body: dict[str, Any] = {
        "type": f"/problems/{slug}" if slug else "about:blank",
        "title": title,
        "status": status,
        "detail": detail or title,
        **{name: value for name, value in more.items() if value is not None},
    }
    response = web.Response(body=orjson.dumps(body, default=str), status=status, content_type=CONTENT_TYPE)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = "1"
    return response


def from_exception(error: Exception) -> web.Response:
    """The problem that an exception of a handler becomes.  What is not known is a 500 without any inner detail."""
    match error:
        case QuestionError():
            return problem(error.status, error.title, error.detail, slug=error.slug, guess=error.guess, fix=error.fix)
        case Problem():
            return problem(error.status, error.title, error.detail, fix=error.fix, **error.more)
        case DeclarationError():
            found = [asdict(one) for one in error.findings] if isinstance(error, BundleError) else []
            fix = next((one["fix"] for one in found if one["fix"]), None)
            guess = next((one["guess"] for one in found if one["guess"]), None)
            title = "the definitions do not hold"
            return problem(422, title, str(error), slug="definitions", guess=guess, fix=fix, findings=found or None)
        case Unavailable():
            return problem(503, "a partition is being restored or handed over", str(error), slug="unavailable")
        case Late():
            return problem(503, "the receipt is not included yet", str(error), slug="late", fix="ask again")
        case StoreError():
            # A partition was closed (handed over) or put aside (damaged) in the middle of the question.
            log.warning("a question met a store that is not open: %s", error)
            return problem(503, "a partition is being restored or handed over", "ask again", slug="unavailable")
        case SendFailed():
            return problem(503, "the broker did not take it", "send it again: ids make that harmless", slug="not-sent")
        case web.HTTPException():
            return _from_http(error)
        case WebError():
            return problem(error.code or 500, error.detail or "the request cannot be answered")
    log.error("a view failed", exc_info=error)
    return problem(500, "the worker failed to answer", "the cause is in the worker's log")


def middleware(settings: Settings, label: Callable[[web.Request], str]) -> Any:
    """The one middleware: checks, problems, headers, telemetry.  `label` names a route, from a closed list."""
    local = _is_loopback(settings.host)

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        began = time.perf_counter()
        if request.path not in WATCHING:
            pace.asked()
        try:
            _check_door(request, settings, local)
            response = await handler(request)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  the boundary: nothing may leave as a bare traceback
            response = from_exception(error)
        if not response.prepared:
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            response.headers.setdefault("Cache-Control", "no-store")
        spent = 0.0 if response.prepared and request.path == STREAM else time.perf_counter() - began
        telemetry.http(label(request), request.method, response.status, spent)
        return response

    return guarded


class ProblemRunner(web.AppRunner):
    """aiohttp's runner, whose refusals of malformed HTTP are problems as well."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        return _ProblemServer(
            server.request_handler, request_factory=server.request_factory, loop=server._loop, **server._kwargs
        )


class _ProblemServer(web.Server):
    def __call__(self) -> RequestHandler:
        return _ProblemProtocol(self, loop=self._loop, **self._kwargs)


class _ProblemProtocol(RequestHandler):
    __slots__ = ()

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


def _check_door(request: web.Request, settings: Settings, local: bool) -> None:
    """Host, Origin and token.  A page elsewhere may reach a loopback address through the reader's browser."""
    host = _host_of(request.headers.get("Host", ""))
    if local and not (host == "localhost" or _is_loopback(host)):
        raise Problem(421, "this host is not served here", "Host must be 127.0.0.1, localhost or [::1]")
    origin = request.headers.get("Origin")
    if origin is not None and (request.method not in ("GET", "HEAD") or request.path == STREAM):
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or parts.netloc.lower() != request.headers.get("Host", "").lower():
            what = "listen" if request.path == STREAM else "write"
            raise Problem(403, f"a foreign page may not {what} here", "Origin must be the worker's own")
    if settings.token and request.path not in OPEN_PATHS | {peers.PATH}:
        given = request.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(errors="replace"), f"Bearer {settings.token}".encode()):
            raise Problem(401, "a token is needed", "Authorization: Bearer …", fix="MILEPOST_TOKEN of the worker")


def _host_of(header: str) -> str:
    """The host of a Host header, without its port."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _from_http(error: web.HTTPException) -> web.Response:
    """aiohttp's own refusals: 404, 405, 413, …"""
    details = {
        404: "GET /openapi.json lists what there is",
        405: "the path exists, the method does not",
        413: "the body is too large",
    }
    response = problem(error.status, HTTPStatus(error.status).phrase, details.get(error.status, ""))
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    if "Location" in error.headers:
        response.headers["Location"] = error.headers["Location"]
    return response
