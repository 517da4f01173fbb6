"""Events: the gateway.  It places events in the raw log and refuses only what cannot be keyed.

    body -> items (one, array, NDJSON, CloudEvents) -> raw key and partition -> append, acknowledged -> receipts

The bytes of an item enter the log as they came; whether they hold under their contract is decided behind the log, so
that nothing is lost: a wrong event is a dead letter that can be repaired, not a request that was once refused.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from aiohttp import web

from milepost.agents.views.asking import Asking, Doors, answer, whose
from milepost.agents.views.bodies import whole_body
from milepost.agents.views.problems import Problem
from milepost.agents.views.services import Services
from milepost.schemas.errors import StoreError
from milepost.schemas.keys import PART_BYTES_MAX, raw_place
from milepost.topology import cloudevents, dedupe
from milepost.topology.parts import SeenRows
from milepost.topology.posts import Refusal
from milepost.topology.reading import Unavailable
from milepost.topology.state import Output

BODY_BYTES_MAX: Final = 16 * 1024 * 1024
ITEM_BYTES_MAX: Final = 1024 * 1024
ITEMS_MAX: Final = 10_000
LOOK_UP_S: Final = 0.5
"""How long an event waits to be told that it was known before, seconds."""
TOPIC: Final = "raw-events"
KEYED: Final = "org, source and id, 1 to 256 bytes each"
FIXES: Final = {
    "too_large": f"at most {ITEM_BYTES_MAX} bytes an event",
    "missing_key": KEYED,
    "not_decodable": "an event is a JSON object",
    "foreign": "a token without --org, or one of that organisation",
    "not_mapped": "as the documentation of the system that posts has it",
}
"""What helps an event that is rejected, by reason."""
NDJSON: Final = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/jsonlines"})
JSON: Final = frozenset(
    {
        "application/json",
        "application/cloudevents+json",
        "application/cloudevents-batch+json",
        "application/octet-stream",
    }
)


class _Identity(msgspec.Struct):
    """What an event is keyed by; the rest of it is not looked at here."""

    org: str
    source: str
    id: str
    revision: int = 0
    repair: int = 0


_identity = msgspec.json.Decoder(_Identity).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


@dataclass(slots=True)
class _Item:
    """One event of a request: what is sent, or why it is not.  `same`: the place of an equal one before it."""

    output: Output | None = None
    reason: str = ""
    detail: str = ""
    same: int | None = None
    known: bool = False


async def accept(doors: Doors, asking: Asking) -> web.Response:
    """202 once every accepted item is acknowledged by the broker; 422 when none could be keyed."""
    return await take(doors, asking, _bodies(asking.request, await whole_body(asking.request, BODY_BYTES_MAX)))


async def take(doors: Doors, asking: Asking, bodies: Sequence[bytes | Refusal]) -> web.Response:
    """Append events, and answer what became of each; a Refusal is what could not be made an event."""
    services = doors.services
    items = _placed(bodies, services.reader.partitions, whose(asking))
    await _look_up(items, services)
    outputs = [item.output for item in items if item.output is not None]
    offsets = iter(await services.send(outputs) if outputs else [])
    receipts: list[str | None] = []
    rows: list[dict[str, Any]] = []
    for item in items:
        if item.same is not None:
            receipts.append(receipts[item.same])
            rows.append({"status": "duplicate", "receipt": receipts[-1]})
        elif item.output is not None:
            receipts.append(f"{TOPIC}/{item.output.partition}@{next(offsets)}")
            rows.append({"status": "duplicate" if item.known else "accepted", "receipt": receipts[-1]})
        else:
            receipts.append(None)
            refused = {"type": "about:blank", "title": item.reason, "status": 422, "detail": item.detail}
            rows.append({"status": "rejected", "receipt": None, "problem": {**refused, "fix": FIXES[item.reason]}})
    counts = {status: sum(row["status"] == status for row in rows) for status in ("accepted", "duplicate", "rejected")}
    if counts["rejected"] == len(rows):
        raise Problem(
            422, "no event could be keyed", rows[0]["problem"]["detail"], fix=rows[0]["problem"]["fix"],
            more={"items": rows, **counts},
        )  # fmt: skip
    return answer({**counts, "items": rows}, status=202)


def _bodies(request: web.Request, body: bytes) -> list[bytes]:
    """The bytes of each event, in whichever form they came: ours, or a CloudEvent's."""
    kind = request.content_type
    if kind not in (cloudevents.STRUCTURED, cloudevents.BATCH):
        if "ce-specversion" not in request.headers:
            return _split(kind, body)
        try:
            return [cloudevents.binary(request.headers, kind, body)]
        except cloudevents.NoCloudEvent as error:
            raise Problem(400, "the request is no CloudEvent", str(error)) from error
    if (body.lstrip()[:1] == b"[") != (kind == cloudevents.BATCH):
        raise Problem(400, "the request is no CloudEvent", f"{kind} is expected to hold an object, a batch an array")
    bodies = _split(kind, body)
    if any(b'"specversion"' not in one for one in bodies):
        raise Problem(400, "the request is no CloudEvent", f"{kind} holds events with a specversion")
    return bodies


def _split(content_type: str, body: bytes) -> list[bytes]:
    """The bytes of each event.  Raises Problem when the body is neither JSON nor NDJSON."""
    if not body.strip():
        raise Problem(400, "the body is empty", "one event, an array of events, or NDJSON")
    if content_type in NDJSON:
        found = [line for line in body.split(b"\n") if line.strip()]
    elif content_type not in JSON:
        raise Problem(
            415, "the content type is not taken", content_type[:100], fix="application/json or application/x-ndjson"
        )
    elif body.lstrip()[:1] != b"[":
        if body.lstrip()[:1] != b"{":
            raise Problem(400, "the body is not JSON", "an event is an object")
        if len(body) > ITEM_BYTES_MAX:
            raise Problem(413, "the event is too large", f"at most {ITEM_BYTES_MAX} bytes")
        found = [body]
    else:
        try:
            found = [bytes(item) for item in _items(body)]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Problem(400, "the body is not JSON", str(error)[:200]) from error
        except RecursionError as error:
            raise Problem(400, "the body is not JSON that can be read", "it is nested too deep") from error
    if not found:
        raise Problem(422, "there is no event in the body")
    if len(found) > ITEMS_MAX:
        raise Problem(
            413, "too many events in one request", f"at most {ITEMS_MAX}, {len(found)} came", fix="send parts"
        )
    return found


def _placed(bodies: Sequence[bytes | Refusal], partitions: int, org: str | None) -> list[_Item]:
    """Every event under its raw key, or why it has none; equal ones behind the first are not sent.

    org: the only organisation that may send here; None: all"""
    items: list[_Item] = []
    first: dict[tuple[bytes, bytes], int] = {}
    for body in bodies:
        if isinstance(body, Refusal):
            items.append(_Item(reason="not_mapped", detail=body.detail))
            continue
        item = _item(body, partitions, org)
        if (output := item.output) is not None:
            again = first.setdefault((output.key, body), len(items))
            if again != len(items):
                item = _Item(same=again)
        items.append(item)
    return items


def _item(body: bytes, partitions: int, org: str | None) -> _Item:
    if len(body) > ITEM_BYTES_MAX:
        return _Item(reason="too_large", detail=f"at most {ITEM_BYTES_MAX} bytes are expected, {len(body)} came")
    try:
        found = _identity(body)
        for name, part in (("org", found.org), ("source", found.source), ("id", found.id)):
            length = len(part.encode())
            if not 0 < length <= PART_BYTES_MAX:
                return _Item(
                    reason="missing_key", detail=f"{name} has {length} bytes; 1 to {PART_BYTES_MAX} are expected"
                )
    except msgspec.ValidationError as error:
        return _Item(reason="missing_key", detail=cloudevents.hint(body) or str(error)[:200])
    except (msgspec.DecodeError, UnicodeError) as error:
        return _Item(reason="not_decodable", detail=str(error)[:200])
    except RecursionError:
        return _Item(reason="not_decodable", detail="nested too deep")
    if not (0 <= found.revision < 2**31 and 0 <= found.repair < 2**31):
        return _Item(reason="missing_key", detail="revision and repair are whole numbers from 0 to 2147483647")
    if org is not None and found.org != org:
        return _Item(reason="foreign", detail=f"the token is for {org}")
    key, partition = raw_place(found.org, found.source, found.id, found.revision, found.repair, partitions)
    return _Item(output=Output(topic=TOPIC, partition=partition, key=key, value=body))


async def _look_up(items: list[_Item], services: Services) -> None:
    """Note which events were taken before.  Best effort: they are sent all the same, and the log decides."""
    sent: dict[int, list[tuple[_Item, Output]]] = {}
    for item in items:
        if item.output is not None:
            sent.setdefault(item.output.partition, []).append((item, item.output))

    async def look(partition: int, some: list[tuple[_Item, Output]]) -> None:
        part = SeenRows(partition=partition, keys=tuple(output.key for _, output in some))
        try:
            (got,) = await asyncio.wait_for(services.gather((part,)), LOOK_UP_S)
        except (Unavailable, StoreError, TimeoutError):
            return
        for (item, output), row in zip(some, got.value, strict=True):
            if row is not None:
                item.known = dedupe.unpack(row).raw == hashlib.blake2b(output.value or b"", digest_size=8).digest()

    await asyncio.gather(*(look(partition, some) for partition, some in sent.items()))
