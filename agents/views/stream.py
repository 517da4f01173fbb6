"""Stream: `GET /v1/stream`, answers as they change, and `POST /v1/presence`, who looks at them.

?metric=…&milestone=…&company=…  ->  a question for each metric and milestone of each company  ->  streams.py
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Final

import msgspec
import orjson
from aiohttp import web

from milepost.agents.views import frames
from milepost.agents.views.asking import LIMIT_MAX, Asking, Doors, Query, answer, found
from milepost.agents.views.bodies import typed_body
from milepost.agents.views.clients import Client
from milepost.agents.views.frames import Seen
from milepost.agents.views.presence import FORGOTTEN_S, WHO_MAX, Full, Place, Presence
from milepost.agents.views.problems import HEADERS, Problem
from milepost.agents.views.streams import QUESTIONS_MAX, Streams
from milepost.schemas import keys
from milepost.schemas.errors import StoreError
from milepost.topology import bases
from milepost.topology.asked import organisation
from milepost.topology.reading import Unavailable
from milepost.topology.refusals import BadParameter
from milepost.topology.steps import Steps

log = logging.getLogger(__name__)

PRESENCE_BODY: Final = '{"who": "ann", "company": "mk_… or key:value", "at": "RFC 3339 with zone; absent: live"}'
PRESENCE_BYTES_MAX: Final = 16 * 1024
COMMON: Final = ("org", "at", "basis", "stale_ms")
"""Parameters that values and milestones have in common."""


class Present(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a presence."""

    who: str
    company: str | None = None
    at: str | None = None
    org: str | None = None


class Bridge:
    """What open streams and those who say that they are there share."""

    def __init__(self, doors: Doors) -> None:
        self._presence = Presence()
        self.streams = Streams(doors, self._expire)

    async def stream(self, doors: Doors, asking: Asking) -> web.StreamResponse:
        wanted = _wanted(asking)
        companies = asking.lists.get("company") or [""]
        places = frozenset([await _place(doors, asking, asking.text("org"), one) for one in companies])
        who = asking.who
        seen = Seen.parse(asking.request.headers.get("Last-Event-ID", ""))
        client = Client(seen, places, (lambda: True) if who is None else (lambda: doors.holds(who)))
        await self.streams.open(client, wanted)
        headers = {**HEADERS, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        response = web.StreamResponse(headers=headers)
        response.content_type, response.charset = "text/event-stream", "utf-8"
        try:
            for place in places:
                if self._presence.at(place):
                    self._tell(place, client)
            await response.prepare(asking.request)
            transport = asking.request.transport
            if transport is not None:
                await client.write(response, transport)
        except ConnectionError as error:
            log.debug("a stream's client is gone: %r", error)
        finally:
            self.streams.leave(client)
        return response

    async def present(self, doors: Doors, asking: Asking) -> web.Response:
        body = await typed_body(
            asking.request, Present, bytes_max=PRESENCE_BYTES_MAX, title="the body does not hold", fix=PRESENCE_BODY
        )
        if not 1 <= len(body.who) <= WHO_MAX or not body.who.isprintable():
            raise BadParameter(f"who is a name of 1 to {WHO_MAX} printable characters")
        if body.at is not None:
            bases.instant(body.at, "at")
        place = await found(doors, asking, lambda: _root(doors, body.org, body.company))
        try:
            news = self._presence.put(place, body.who, body.at, time.monotonic())
        except Full:
            raise Problem(
                429, "too many people are there", fix=f"they are forgotten after {FORGOTTEN_S:.0f} s"
            ) from None
        if news:
            self._tell(place)
        if not self.streams.clients:
            self._expire(time.monotonic())
        return answer(self._told(place))

    def _expire(self, now: float) -> None:
        for place in self._presence.expire(now):
            self._tell(place)

    def _tell(self, place: Place, *only: Client) -> None:
        """The newest of a place replaces what a client has not been told; it has no id, since nobody resumes it."""
        data = frames.frame("presence", orjson.dumps(self._told(place)))
        for client in only or self.streams.clients:
            if place in client.companies:
                client.aside(f"presence {place}", data)

    def _told(self, place: Place) -> dict[str, object]:
        org, company = place
        return {"org": org, "company": company, "present": self._presence.at(place)}


def _wanted(asking: Asking) -> list[tuple[str | None, Mapping[str, str]]]:
    """The questions of a stream, each once: (metric, query of value) or (None, query of milestones)."""
    metrics, milestones = asking.lists.get("metric", []), asking.lists.get("milestone", [])
    companies = asking.lists.get("company") or [""]
    if not metrics and not milestones:
        raise BadParameter("neither metric nor milestone is given", fix="metric=…, as often as there are metrics")
    count = (len(metrics) + len(milestones)) * len(companies)
    if count > QUESTIONS_MAX:
        raise BadParameter(f"a stream has at most {QUESTIONS_MAX} questions, {count} came", fix="open several")
    common = {name: one for name in COMMON if (one := asking.text(name)) is not None}
    of_value = {**common, **{name: one for name in ("window", "tz") if (one := asking.text(name)) is not None}}
    of_value |= {f"dim.{name}": one for name, one in asking.dims().items()}
    of_plans = {**common, **({"plan": plan} if (plan := asking.text("plan")) is not None else {})}
    wanted: dict[bytes, tuple[str | None, Mapping[str, str]]] = {}
    for company in companies:
        whose = {"company": company} if company else {}
        for metric in metrics:
            query = {**of_value, **whose}
            wanted[frames.key({**query, "metric": metric})] = metric, query
        for milestone in milestones:
            query = {**of_plans, **whose, "milestone": milestone, "limit": str(LIMIT_MAX)}
            wanted[frames.key(query)] = None, query
    return list(wanted.values())


async def _place(doors: Doors, asking: Query, org: str | None, company: str) -> Place:
    """Where somebody is who asks of a company.  While that cannot be known, what they call it."""
    try:
        return await found(doors, asking, lambda: _root(doors, org, company))
    except (Unavailable, StoreError):
        return organisation(doors.services.reader, org), company or None


def _root(doors: Doors, org: str | None, company: str | None) -> Steps[Place]:
    reader = doors.services.reader
    name = organisation(reader, org)
    if not company:
        return name, None
    components = yield from reader.decisions.components(name, None)
    leaf = yield from doors.questions.companies(name).leaf(company)
    return name, keys.metakey(components.root(leaf))
