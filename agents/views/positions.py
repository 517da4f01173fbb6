"""Positions: the record that lies at a position of the raw log, as it came: where every explanation ends.

position -> the record there -> its text, up to a bound, and when the broker took it

Compaction keeps the first record of an id and revision, not always at the place where it came first: then nothing lies
there any more, which is said.  Bytes that are no event are shown as far as they are text.
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec
from aiohttp import web

from milepost.agents.views.asking import Asking, Doors, answer, hidden
from milepost.agents.views.openapi import Route
from milepost.agents.views.parameters import in_path
from milepost.agents.views.problems import Problem
from milepost.ops.access import Role
from milepost.schemas.framing import FRAME
from milepost.schemas.records import Envelope, Reject
from milepost.schemas.serde import MAGIC
from milepost.topology import bases, decode, receipts
from milepost.topology.state import Record

TEXT_BYTES_MAX: Final = 64 * 1024
"""So much of a record is shown; the rest is said to be cut."""


async def record(doors: Doors, asking: Asking) -> web.Response:
    services = doors.services
    one = receipts.receipt(f"raw-events/{asking.path['position']}", services.reader.partitions)
    found = await services.raw(one.partition, one.offset)
    envelope = (
        None if found is None or found.value is None else decode.read(found.value, services.reader.decisions.table)
    )
    theirs = hidden(asking, envelope.org if isinstance(envelope, Envelope) else None)
    if found is None or found.value is None or envelope is None or theirs:
        raise Problem(
            404,
            "nothing lies there any more",
            f"{one}: there is no record, or compaction has moved it",
            fix=f"GET /v1/events/{one} says what became of it",
        )
    return answer({"position": str(one), **shown(found, envelope)})


def shown(found: Record, envelope: Envelope | Reject) -> dict[str, Any]:
    """`{appended, bytes, form: json | avro | other, text, cut}`.  Of Avro the text is its event as JSON."""
    value = text = found.value or b""
    form = "json" if isinstance(envelope, Envelope) else "other"
    if isinstance(envelope, Envelope) and value.startswith((MAGIC, FRAME)):
        # As ASCII: a text of the event may hold what is no Unicode.
        form, text = "avro", json.dumps(msgspec.to_builtins(envelope)).encode()
    return {
        "appended": bases.written(found.timestamp),
        "bytes": len(value),
        "form": form,
        "text": text[:TEXT_BYTES_MAX].decode(errors="replace"),
        "cut": len(text) > TEXT_BYTES_MAX,
    }


ROUTE: Final = Route(
    path="/v1/events/raw-events/{position}/record",
    role=Role.READ,
    mine=True,
    about="The record at a position of the raw log, as it came",
    answers=record,
    parameters=(in_path("position", "partition@offset"),),
)
