"""By hand: bodies of decisions, and the raw events of ours that they become; what is said of sources.

    body -> checked as ingest will, or refused with a guess -> a raw event of `milepost` -> its receipt

A decision is appended to the raw log like any event; one that does not hold after all becomes a dead letter.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import orjson
from aiohttp import web

from milepost.agents.views.asking import Asking, Doors, answer
from milepost.agents.views.bodies import typed_body
from milepost.schemas.errors import ContractError
from milepost.schemas.keys import PART_BYTES_MAX, raw_place
from milepost.topology import by_hand
from milepost.topology.asked import organisation
from milepost.topology.refusals import BadParameter, closest
from milepost.topology.state import Output

BODY_BYTES_MAX: Final = 1024 * 1024
SKEW_MS: Final = by_hand.SOURCE.future_skew_ms
"""How far ahead of now an event by hand may lie."""
COMPLETE_BODY: Final = '{"until": "2013-03-01T00:00:00Z", "by": "…"}'


class Complete(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a completion."""

    until: str
    by: str | None = None
    org: str | None = None
    id: str | None = None


async def complete(doors: Doors, asking: Asking) -> web.Response:
    told = await body(asking, Complete, COMPLETE_BODY)
    reader, source = doors.services.reader, asking.path["source"]
    org = organisation(reader, told.org)
    catalog = reader.decisions.history[org][-1].catalog
    try:
        by_hand.complete_until(source, told.until, doors.services.now_ms(), catalog)
    except ContractError as error:
        if error.reason == "unknown_source":
            guess, known = closest(source, catalog.sources), ", ".join(catalog.sources)
            raise BadParameter(f"{org} has no source {source[:64]!r}", guess=guess, fix=f"one of {known}") from error
        raise BadParameter(error.detail.removeprefix("data."), fix=COMPLETE_BODY) from error
    data = {"source": source, "until": told.until, "by": told.by}
    return await send(doors, org, "source_complete", data, told.id)


async def body(asking: Asking, kind: Any, example: str) -> Any:
    """The body of a decision.  Raises Problem, BadParameter."""
    told = await typed_body(asking.request, kind, bytes_max=BODY_BYTES_MAX, title="the body does not hold", fix=example)
    if told.id is not None and not 0 < len(told.id.encode(errors="replace")) <= PART_BYTES_MAX:
        raise BadParameter(f"id has 1 to {PART_BYTES_MAX} bytes")
    if len(told.by or "") > by_hand.BY_MAX:
        raise BadParameter(f"by has at most {by_hand.BY_MAX} letters")
    if told.by is None and asking.who is not None and asking.who.kind in ("token", "issuer"):
        told.by = asking.who.name[: by_hand.BY_MAX]
    return told


async def send(
    doors: Doors, org: str, what: str, data: dict[str, Any], id: str | None, at_ms: int | None = None, **more: Any
) -> web.Response:
    """Append the event, of now unless it happened at another time; 202 once the broker has it."""
    when_ms = doors.services.now_ms() if at_ms is None else at_ms
    event = by_hand.event(org, what, data, id or uuid.uuid4().hex, when_ms, more)
    return answer({**await append(doors, event), "type": event["type"]}, status=202)


async def append(doors: Doors, event: Mapping[str, Any]) -> dict[str, Any]:
    """What is answered once the broker has the event: `{status, receipt, id}`."""
    services, revision = doors.services, event.get("revision", 0)
    key, partition = raw_place(event["org"], event["source"], event["id"], revision, 0, services.reader.partitions)
    output = Output(topic="raw-events", partition=partition, key=key, value=orjson.dumps(event))
    (offset,) = await services.send([output])
    return {"status": "accepted", "receipt": f"raw-events/{partition}@{offset}", "id": event["id"]}
