"""Session: how the page shows a token that it must not keep.

    POST /v1/session      Authorization: Bearer …  ->  who that is, and a cookie (HttpOnly, SameSite=Strict)
    POST /v1/session:end                           ->  the cookie is taken back

An EventSource cannot send a header and a script must not keep a token, so the browser keeps what opens the doors where
no script reads it.  The cookie is sealed and says who came; what an API token may do is looked up each time, so a
revocation ends its sessions as well.  It comes along by itself, which is why admission wants our own page behind it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from milepost.agents.views.admission import Admission
from milepost.agents.views.asking import Asking, Doors, answer
from milepost.agents.views.openapi import EVERYBODY, Route
from milepost.agents.views.problems import Problem
from milepost.ops.access import OPEN, Principal
from milepost.topology import bases


def routes(admission: Callable[[], Admission]) -> tuple[Route, ...]:
    """The two calls.  admission: it needs the table that they stand in."""

    async def begin(doors: Doors, asking: Asking) -> web.Response:
        entry = admission()
        if not entry.shut:
            return answer(_told(OPEN, None))
        if "Authorization" not in asking.request.headers:
            raise Problem(401, "a token is needed", "Authorization: Bearer …, a token that holds")
        who = await entry.known(asking.request)
        cookie, until_ms = doors.services.book.keys.make_session(who, _now_ms())
        response = answer(_told(who, until_ms))
        response.set_cookie(
            entry.cookie, cookie, max_age=max(0, (until_ms - _now_ms()) // 1000), path="/", httponly=True,
            samesite="Strict", secure=asking.request.headers.get("Origin", "").startswith("https:"),
        )  # fmt: skip
        return response

    async def end(doors: Doors, asking: Asking) -> web.Response:
        response = answer({"ended": True})
        response.del_cookie(admission().cookie, path="/", httponly=True, samesite="Strict")
        return response

    return (
        _route("/v1/session", "Sign a page in: the token of the header becomes a cookie that no script reads", begin),
        _route("/v1/session:end", "Sign a page out", end),
    )


def _route(path: str, about: str, answers: Callable[[Doors, Asking], Awaitable[web.StreamResponse]]) -> Route:
    return Route(method="POST", path=path, about=about, answers=answers, role=EVERYBODY)


def _told(who: Principal, until_ms: int | None) -> dict[str, Any]:
    until = None if until_ms is None else bases.written(until_ms // 1000 * 1000)
    return {"name": who.name, "roles": sorted(who.roles), "org": who.org, "until": until}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
