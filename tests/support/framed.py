"""Events as registries frame them: schemas with ids, good frames, and thirty that are not as they should be."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import fastavro
import orjson

from milepost.schemas.framing import RegisteredSchema
from milepost.schemas.serde import wire

ID, WIDER, TICK, LIST, NARROW = 7, 8, 9, 10, 11
UNKNOWN: Final = 41


def schema(*more: Mapping[str, Any], without: str = "") -> dict[str, Any]:
    """RawEvent with more fields at its end."""
    found = copy.deepcopy(wire("RawEvent").json)
    found["fields"] = [one for one in found["fields"] if one["name"] != without] + [dict(one) for one in more]
    return found


SCHEMAS: Final[Mapping[int, dict[str, Any]]] = {
    ID: schema(),
    WIDER: schema({"name": "trace", "type": "string", "default": ""}, {"name": "hops", "type": "long", "default": 0}),
    TICK: dict(wire("Tick").json),
    LIST: schema({"name": "nothings", "type": {"type": "array", "items": "null"}, "default": []}),
    NARROW: schema(without="time"),
}
"""Two are events; one is another record of ours, one could be endless, one lacks what an event needs."""


def registered(*ids: int) -> list[RegisteredSchema]:
    return [RegisteredSchema(id=id, subject="raw-events-value", version=id, text=json.dumps(SCHEMAS[id])) for id in ids]


def avro(event: Mapping[str, Any], id: int = ID, **more: Any) -> bytes:
    """The body of an event under a schema."""
    fields = {"revision": 0, "void": False, "repair": 0, **event, "data": orjson.dumps(event["data"]), **more}
    names = {one["name"] for one in SCHEMAS[id]["fields"]}
    out = io.BytesIO()
    fastavro.schemaless_writer(
        out, fastavro.parse_schema(copy.deepcopy(SCHEMAS[id])), {k: v for k, v in fields.items() if k in names}
    )
    return out.getvalue()


def frame(event: Mapping[str, Any], id: int = ID, **more: Any) -> bytes:
    return b"\0" + id.to_bytes(4, "big") + avro(event, id, **more)


def plain(event: Mapping[str, Any]) -> bytes:
    """The same event in single-object encoding."""
    return wire("RawEvent").header + avro(event)


def bad(event: Mapping[str, Any]) -> Iterator[tuple[str, bytes, str]]:
    """(name, bytes, reason) of frames that are no event, where SCHEMAS are known."""
    body, good = avro(event), frame(event)
    for length in range(1, 5):
        yield f"{length} bytes", good[:length], "not_decodable"
    yield "no body", good[:5], "not_decodable"
    yield "half a body", good[: len(good) // 2], "not_decodable"
    yield "a byte less", good[:-1], "not_decodable"
    yield "a byte more", good + b"\0", "not_decodable"
    yield "twice", good + good, "not_decodable"
    yield "two frames", good[:5] + good, "not_decodable"
    for id in (0, 1, UNKNOWN, ID << 8, 2**31, 2**32 - 1):
        yield f"id {id}", b"\0" + id.to_bytes(4, "big") + body, "unknown_schema"
    yield "id, little-endian", b"\0" + ID.to_bytes(4, "little") + body, "unknown_schema"
    yield "id of eight bytes", b"\0" + ID.to_bytes(8, "big") + body, "unknown_schema"
    yield "another record of ours", b"\0" + TICK.to_bytes(4, "big") + body, "unknown_schema"
    yield "a list that never ends", b"\0" + LIST.to_bytes(4, "big") + body + b"\xfe\xff\xff\xff\x0f", "unknown_schema"
    yield "no time", b"\0" + NARROW.to_bytes(4, "big") + body, "unknown_schema"
    yield "magic 1", b"\1" + good[1:], "not_decodable"
    yield "header only", good[:5] + wire("RawEvent").header, "not_decodable"
    yield "single-object behind a frame", good[:5] + wire("RawEvent").header + body, "not_decodable"
    yield "JSON behind a frame", good[:5] + orjson.dumps(dict(event)), "not_decodable"
    yield "a huge length", good[:5] + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f" + body[1:], "not_decodable"
    yield "a negative length", good[:5] + b"\x01" + body[1:], "not_decodable"
    yield "text that is no UTF-8", good[:6] + b"\xff" + good[7:], "not_decodable"
    yield "data that is no JSON", good[:-2] + b"!!", "not_decodable"
    yield "data that is a list", frame({**event, "data": []}), "contract_violation"
    yield "an empty organisation", frame({**event, "org": ""}), "contract_violation"
    yield "a revision below 0", frame(event, revision=-1), "contract_violation"
    yield "a wider body under the narrower id", b"\0" + ID.to_bytes(4, "big") + avro(event, WIDER), "not_decodable"
    yield "the narrower body under the wider id", b"\0" + WIDER.to_bytes(4, "big") + body, "not_decodable"
    yield "zeros", bytes(64), "unknown_schema"
