"""Problems: every error as RFC 9457 problem details, every answer under the same headers.

    request -> admission -> handler -> answer
                     \\__________\\____-> problem: {type, title, status, detail, guess?, fix}

What aiohttp itself refuses (no route, method, malformed HTTP) is a problem too (connections.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Any, Final

import orjson
from aiohttp import web
from faust.web.exceptions import WebError

from milepost.agents import pace, peers
from milepost.agents.views.asking import Late
from milepost.agents.views.services import SendFailed
from milepost.ops import telemetry
from milepost.ops.access import Foreign
from milepost.schemas.errors import BundleError, DeclarationError, StoreError
from milepost.topology.reading import Unavailable
from milepost.topology.refusals import QuestionError

log = logging.getLogger(__name__)

CONTENT_TYPE: Final = "application/problem+json"
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; "
        "manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
WATCHING: Final = frozenset({"/healthz", "/readyz", "/metrics", "/v1/status"})
"""Paths that a supervisor asks for ever: they do not make the fold hurry."""

STREAM: Final = "/v1/stream"
"""It lasts as long as a page is open: a foreign page may not hold one, and its length is no answer's."""
UNCOUNTED: Final = WATCHING | {STREAM, peers.PATH}
"""Paths beside the bound on questions at once: supervisors', streams, which have their own, and other workers'."""
ASKED_MAX: Final = 512
"""Requests in hand at once at most, beside streams; further ones are told to come back.  A supervisor's always pass."""
FIXES: Final[Mapping[int, str]] = {
    401: "Authorization: Bearer …, with a token of `milepost tokens create`, or one of the issuer's",
    403: "send it without a page, as with curl, or from the worker's own",
    404: "GET /openapi.json lists what there is",
    405: "GET /openapi.json lists the methods of each path",
    408: "send it faster, or in parts",
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
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        response.headers["Retry-After"] = "1"
    if status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = 'Bearer realm="milepost"'
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
        case Foreign():
            return problem(
                403, "this belongs to another organisation", str(error), fix="leave org out, or ask for yours"
            )
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


def middleware(admit: Callable[[web.Request], Awaitable[None]], label: Callable[[web.Request], str]) -> Any:
    """The one middleware: admission, problems, headers, telemetry.  `label` names a route, from a closed list."""
    asked = 0

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal asked
        began = time.perf_counter()
        counted = request.path not in UNCOUNTED
        asked += counted
        try:
            if counted and asked > ASKED_MAX:
                raise Problem(503, "too many questions at once", f"the worker has {ASKED_MAX} in hand")
            await admit(request)
            if request.path not in WATCHING:
                pace.asked()
            response = await handler(request)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  the boundary: nothing may leave as a bare traceback
            response = from_exception(error)
        finally:
            asked -= counted
        if not response.prepared:
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            response.headers.setdefault("Cache-Control", "no-store")
        spent = 0.0 if response.prepared and request.path == STREAM else time.perf_counter() - began
        telemetry.http(label(request), request.method, response.status, spent)
        return response

    return guarded


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
