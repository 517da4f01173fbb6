"""Connect: posts in the shapes of Segment and Snowplow, taken as events; the answer is that of `POST /v1/events`.

    POST /v1/connect/segment            a call, or a batch of calls
    POST /v1/connect/segment/{call}     as Segment's libraries post: batch track identify page screen group alias
    POST /v1/connect/snowplow           a payload_data with events

The organisation is the parameter `org`, or the only one there is; the source is `source`, or the system's name.  What
cannot be mapped is rejected in its place, the rest goes on.
"""

from __future__ import annotations

from typing import Any, Final

import orjson
from aiohttp import web

from milepost.agents.views import events
from milepost.agents.views.asking import Asking, Doors, Parameter
from milepost.agents.views.bodies import JSON, whole_body
from milepost.agents.views.openapi import Route
from milepost.agents.views.parameters import ORG, in_path
from milepost.agents.views.problems import Problem
from milepost.ops.access import Role
from milepost.schemas.keys import PART_BYTES_MAX
from milepost.topology import segment, snowplow
from milepost.topology.asked import organisation
from milepost.topology.posts import Posted, Refusal
from milepost.topology.refusals import BadParameter, closest

SOURCE: Final = Parameter(name="source", about="the source that the definitions know; left out: segment or snowplow")
SEGMENT_BODY: Final = "a call (type, messageId, timestamp, userId, event, properties, …), or {batch: [call, …]}"
SNOWPLOW_BODY: Final = "{schema: iglu:…/payload_data/jsonschema/1-0-4, data: [event, …]}"


async def from_segment(doors: Doors, asking: Asking) -> web.Response:
    call = asking.path.get("call")
    if call is not None:
        call = segment.SHORT.get(call, call)
        known = (*segment.CALLS, "batch")
        if call not in known:
            more = {"guess": closest(call, known)}
            raise Problem(404, "there is no such call", call[:64], fix=f"one of {', '.join(known)}", more=more)
    org, source = _whose(doors, asking, "segment")
    body = await _json(asking)
    wanted = None if call == "batch" else call
    return await _take(doors, asking, segment.events(body, wanted, org, source, doors.services.now_ms()))


async def from_snowplow(doors: Doors, asking: Asking) -> web.Response:
    org, source = _whose(doors, asking, "snowplow")
    return await _take(doors, asking, snowplow.events(await _json(asking), org, source))


def _whose(doors: Doors, asking: Asking, system: str) -> tuple[str, str]:
    source = asking.text("source") or system
    if len(source.encode(errors="replace")) > PART_BYTES_MAX:
        raise BadParameter(f"source has 1 to {PART_BYTES_MAX} bytes")
    return organisation(doors.services.reader, asking.text("org")), source


async def _json(asking: Asking) -> Any:
    if asking.request.content_type != JSON:
        raise Problem(415, "the content type is not taken", asking.request.content_type[:100], fix=JSON)
    body = await whole_body(asking.request, events.BODY_BYTES_MAX)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem(400, "the body is not JSON", str(error)[:200]) from error


async def _take(doors: Doors, asking: Asking, found: list[Posted]) -> web.Response:
    if not found:
        raise Problem(422, "there is no event in the body")
    if len(found) > events.ITEMS_MAX:
        said = f"at most {events.ITEMS_MAX}, {len(found)} came"
        raise Problem(413, "too many events in one request", said, fix="send parts")
    return await events.take(doors, asking, [one if isinstance(one, Refusal) else _bytes(one) for one in found])


def _bytes(event: dict[str, Any]) -> bytes | Refusal:
    try:
        return orjson.dumps(event)
    except TypeError:  # what it holds was read as JSON, so only its depth can be the fault
        return Refusal("it is nested too deep")


ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/connect/segment",
        role=Role.WRITE,
        about="Take a call in Segment's shape, or a batch of calls, as events",
        answers=from_segment,
        parameters=(ORG, SOURCE),
        body=SEGMENT_BODY,
        success=202,
    ),
    Route(
        method="POST",
        path="/v1/connect/segment/{call}",
        role=Role.WRITE,
        about="The same at the addresses that Segment's libraries use",
        answers=from_segment,
        parameters=(in_path("call", "batch, track, identify, page, screen, group or alias"), ORG, SOURCE),
        body=SEGMENT_BODY,
        success=202,
    ),
    Route(
        method="POST",
        path="/v1/connect/snowplow",
        role=Role.WRITE,
        about="Take a post of a Snowplow tracker as events",
        answers=from_snowplow,
        parameters=(ORG, SOURCE),
        body=SNOWPLOW_BODY,
        success=202,
    ),
)
"""The calls of this module, for the table."""
