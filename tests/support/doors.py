"""Doors: tokens for tests, and a request of every route of the table, as somebody who wants in would write it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from milepost.agents.views import session
from milepost.agents.views.files import Files
from milepost.agents.views.openapi import Route
from milepost.agents.views.routes import routes
from milepost.ops import access
from milepost.ops.access import Book, Role
from milepost.schemas.serde import wire

DAY_MS: Final = 86_400_000
IN_PATH: Final[Mapping[str, str]] = {
    "position": "0@0", "call": "track", "metric": "departures", "plan": "on_time_2013", "type": "aircraft", "id": "N1",
    "milestone": "punctual_month", "action": "punctual", "dispute": "0" * 32, "source": "flights",
    "metakey": "carrier_code:UA", "path": "main.js",
}  # fmt: skip
"""What stands in an address; another name gets an x."""
IN_QUERY: Final[Mapping[str, str]] = {
    "from": "2013-01-01T00:00:00Z", "to": "2013-01-03T00:00:00Z", "by": "company", "entity": "company",
    "key": "carrier_code", "value": "UA", "company": "carrier_code:UA", "metric": "departures",
}  # fmt: skip


class _Nobody:
    """Stands in for what the table's handlers belong to."""

    def __getattr__(self, name: str) -> Any:
        return None


def table() -> tuple[Route, ...]:
    """Every route of a worker, but for /openapi.json, which describes them."""
    nobody: Any = _Nobody()
    return (*routes(Files(Path("/nowhere")), nobody), *session.routes(lambda: nobody))


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request that its route's checks of form let through, as far as that can be known without the route."""

    method: str
    path: str
    body: bytes | None
    headers: Mapping[str, str]


def call(route: Route, org: str | None = None) -> Call:
    """A request of a route; `org`: about this organisation, wherever the route takes one."""
    path = re.sub(r"\{(\w+)[^}]*\}", lambda found: quote(IN_PATH.get(found[1], "x"), safe=""), route.path)
    known = {one.name for one in route.parameters if one.place == "query"}
    query = {one.name: IN_QUERY.get(one.name, "x") for one in route.parameters if one.place == "query" and one.required}
    if route.path == "/v1/stream":
        query["metric"] = "departures"
    if org is not None and "org" in known:
        query["org"] = org
    target = f"{path}?{urlencode(query)}" if query else path
    if route.method == "GET":
        return Call(method="GET", path=target, body=None, headers={})
    body = json.dumps(_body(route, org)).encode()
    return Call(method=route.method, path=target, body=body, headers={"Content-Type": "application/json"})


def _body(route: Route, org: str | None) -> Any:
    if route.path == "/v1/events":
        return {"org": org or "rival", "source": "flights", "id": "wanted-in", "type": "flight.departed",
                "time": "2013-01-01T05:17:00Z", "data": {}}  # fmt: skip
    if route.path.startswith("/v1/connect/segment"):
        return {"type": "track", "event": "Paid", "messageId": "m", "userId": "u", "timestamp": "2013-01-01T10:00:00Z"}
    if route.path.startswith("/v1/connect"):
        row = {"e": "pv", "eid": "f3a1b6ce-77d4-4a3a-9d4e-2c9a1d0b5f11", "dtm": "1357034400000", "aid": "shop"}
        return {"schema": "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4", "data": [row]}
    told: dict[str, Any] = {}
    for one in msgspec.structs.fields(route.holds) if hasattr(route.holds, "__struct_fields__") else ():
        if one.name == "org":
            told["org"] = org or "rival"
        elif one.required:
            told[one.encode_name] = ["carrier_code:UA"] if "list" in str(one.type) else _text(one.encode_name)
    if "files" in getattr(route.holds, "__struct_fields__", ()):
        told["files"] = {"milepost.yaml": "signals: 7"}
    return told


def _text(name: str) -> str:
    if name in ("at", "until", "from", "to"):
        return "2013-01-05T00:00:00Z"
    return "carrier_code:UA"


def token(
    book: Book, *roles: Role, org: str | None = None, days: int | None = 90, age_days: int = 0, name: str = "one"
) -> str:
    """A token that the book knows.  age_days: how long ago it was made."""
    now_ms = time.time_ns() // 1_000_000 - age_days * DAY_MS
    made, record = access.make(
        book.keys, name=name, roles=frozenset(roles), org=org, days=days, now_ms=now_ms, by="a test"
    )
    book.add(wire("Access").encode(record))
    return made


def revoking(book: Book, text: str) -> bytes:
    """The record that revokes a token."""
    one = book.tokens[text.split("_")[1]]
    now_ms = time.time_ns() // 1_000_000
    return wire("Access").encode(access.revoke(book.keys, one, now_ms=now_ms, by="a test"))
