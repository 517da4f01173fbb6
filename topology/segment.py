"""Segment: calls of Segment's libraries and webhooks as events of ours.

    {"type": "track", "messageId", "timestamp", "userId", "anonymousId", "event", "properties"}   one call
    {"batch": [call, ...], "sentAt"}                                                              several

    id    messageId; without one a hash of the call, so that the same call is the same event
    type  of what is tracked track.order_completed, else the call's: identify page screen group alias
    time  timestamp, else originalTimestamp, else sentAt, else its arrival
    data  the call in snake_case names: event name user_id anonymous_id group_id previous_id properties traits context

What the contract of a type does not name stays in the raw log.  Source: Segment's specification, "Common fields" and
"HTTP API".
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import orjson

from milepost.topology.bases import written
from milepost.topology.posts import Posted, Refusal, slug

CALLS: Final = ("track", "identify", "page", "screen", "group", "alias")
SHORT: Final[Mapping[str, str]] = {one[0]: one for one in ("track", "identify", "page", "group", "alias")}
"""What libraries in browsers write for short; screen has none."""
_NAMED: Final[Mapping[str, str]] = {
    "event": "event", "name": "name", "category": "category", "userId": "user_id", "anonymousId": "anonymous_id",
    "groupId": "group_id", "previousId": "previous_id", "properties": "properties", "traits": "traits",
    "context": "context",
}  # fmt: skip
_TIMES: Final = ("timestamp", "originalTimestamp", "sentAt")


def events(body: Any, call: str | None, org: str, source: str, now_ms: int) -> list[Posted]:
    """The events of a post, in order, each one or why it is none.

    call: the kind of call that the address names, as libraries do; a call that says its own `type` goes by that
    """
    if not isinstance(body, dict):
        return [Refusal("a call is a JSON object, or one with a batch of them")]
    batch = body.get("batch")
    if batch is None:
        return [_event(body, call, {}, org, source, now_ms)]
    if not isinstance(batch, list):
        return [Refusal("batch is a list of calls")]
    return [_event(one, None, body, org, source, now_ms) for one in batch]


def _event(told: Any, call: str | None, around: Mapping[str, Any], org: str, source: str, now_ms: int) -> Posted:
    if not isinstance(told, dict):
        return Refusal("a call is a JSON object")
    kind = told.get("type", call)
    if kind not in CALLS:
        return Refusal(f"type is {str(kind)[:32]!r}; one of {', '.join(CALLS)} is expected")
    type = str(kind)
    if kind == "track":
        name = told.get("event")
        if not isinstance(name, str) or not slug(name):
            return Refusal("a track call names its event, in letters or digits")
        type = f"track.{slug(name)}"
    id = told.get("messageId")
    if id is None:
        try:
            id = hashlib.blake2b(orjson.dumps(told, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()
        except TypeError:
            return Refusal("it is nested too deep")
    context = told.get("context", around.get("context"))
    data = {ours: told[theirs] for theirs, ours in _NAMED.items() if told.get(theirs) is not None}
    if context is not None:
        data["context"] = context
    times = (told.get(name) or around.get(name) for name in _TIMES)
    time = next((one for one in times if one), written(now_ms))
    return {"org": org, "source": source, "id": id, "type": type, "time": time, "data": data}
