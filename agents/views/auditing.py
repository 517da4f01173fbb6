"""Auditing: who asked for a change, written before it is done, and what came of it, written after.

    a call that needs `operate` -> asked, acknowledged -> the handler -> done: status, receipt -> the answer

A change whose first line is not in the log is not begun, so there is none without its line; a worker that dies in
between leaves a line that says "asked" alone.  A line holds no body, no query and no token, only its public part.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any, Final

import orjson
from aiohttp import web

from milepost.agents.views.asking import Asking, Doors
from milepost.agents.views.openapi import Route
from milepost.agents.views.problems import from_exception
from milepost.agents.views.services import SendFailed
from milepost.ops.access import OPEN, Role

log = logging.getLogger(__name__)

CALL_MAX: Final = 512
BODY_MAX: Final = 64 * 1024
"""In answers longer than this no receipt is looked for, bytes."""


def is_change(route: Route, asking: Asking) -> bool:
    return route.method != "GET" and route.role in (None, Role.OPERATE) and asking.text("dry_run") != "true"


async def audited(doors: Doors, asking: Asking, route: Route) -> web.StreamResponse:
    """The handler's answer, between its two lines.  Raises SendFailed when the first cannot be written."""
    services, who = doors.services, asking.who or OPEN
    line: dict[str, Any] = {
        "id": os.urandom(16), "who": who.name, "token": who.token, "org": who.org,
        "call": f"{route.method} {asking.request.rel_url.raw_path}"[:CALL_MAX], "worker": services.settings.worker,
    }  # fmt: skip
    await services.note({**line, "what": "asked", "at_ms": _now_ms(), "status": 0, "receipt": ""})
    status, receipt = 500, ""
    try:
        response = await route.answers(doors, asking)
        status, receipt = response.status, _receipt(response)
        return response
    except Exception as error:
        status = from_exception(error).status
        raise
    finally:
        try:
            await services.note({**line, "what": "done", "at_ms": _now_ms(), "status": status, "receipt": receipt})
        except SendFailed as error:
            log.warning("the audit does not say what came of %s: %s", line["call"], error)


def _receipt(response: web.StreamResponse) -> str:
    """Where the change lies in the log, as its answer says: a receipt, or a bundle."""
    body = response.body if isinstance(response, web.Response) else None
    if not isinstance(body, bytes) or len(body) > BODY_MAX or response.content_type != "application/json":
        return ""
    told = orjson.loads(body)
    found = told.get("receipt") or told.get("bundle") if isinstance(told, dict) else None
    return found if isinstance(found, str) else ""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
