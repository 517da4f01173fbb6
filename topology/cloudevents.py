"""CloudEvents 1.0: the forms in which one may come, and what it must hold to be an event of ours.

    structured   {"specversion": "1.0", "id", "source", "type", "time", "org", "data": {...}}      a record, or a body
    batch        an array of those                                                                  a body
    binary       the attributes in headers `ce-id`, `ce-source`, ..., the data in the body          a request

The attributes are those of our own envelope; `org` is an extension attribute, as are `revision`, `void` and `repair`.
Stricter than the specification in two points: `time` must be there, and `data` is a JSON object.
Source: CloudEvents 1.0.2 (spec.md, formats/json-format.md, bindings/http-protocol-binding.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

import orjson

from milepost.schemas.records import Envelope

STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
VERSION: Final = "1.0"
_NEEDED: Final = ("id", "source", "type", "time", "org")
_WHOLE: Final = ("revision", "repair")


class NoCloudEvent(ValueError):
    """A request that says it holds a CloudEvent and does not: what was expected."""


def fault(found: Envelope) -> str | None:
    """Why an envelope with a `specversion` is no CloudEvent that is taken here."""
    if found.specversion != VERSION:
        return f"specversion is {str(found.specversion)[:16]!r}; CloudEvents {VERSION} is expected"
    kind = found.datacontenttype
    if kind is not None and not (isinstance(kind, str) and is_json(kind)):
        return f"datacontenttype is {str(kind)[:64]!r}; data is JSON here"
    return None


def hint(value: bytes) -> str | None:
    """What a structured CloudEvent lacks that is no envelope of ours; None for what is none."""
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(found, dict) or "specversion" not in found:
        return None
    for name in _NEEDED:
        if not isinstance(found.get(name), str):
            what = "extension attribute" if name == "org" else "attribute"
            return f"the CloudEvent has no {what} {name}, which is text"
    if "data_base64" in found:
        return "the CloudEvent has data_base64; data as a JSON object is expected"
    if not isinstance(found.get("data"), dict):
        return "the data of the CloudEvent is no JSON object"
    return None


def binary(headers: Mapping[str, str], content_type: str, body: bytes) -> bytes:
    """The structured form of a CloudEvent in binary mode.  Raises NoCloudEvent."""
    if not is_json(content_type) and body:
        raise NoCloudEvent(f"the data has the content type {content_type[:64]}; application/json is expected")
    told: dict[str, Any] = {}
    for name, text in headers.items():
        if name.lower().startswith("ce-"):
            told[name.lower()[3:]] = _attribute(name.lower()[3:], text)
    if told.get("specversion") != VERSION:
        raise NoCloudEvent(f"ce-specversion is {str(told.get('specversion'))[:16]!r}; {VERSION} is expected")
    try:
        told["data"] = orjson.loads(body) if body.strip() else {}
    except orjson.JSONDecodeError as error:
        raise NoCloudEvent("the body is not JSON: it is the data of the event") from error
    return orjson.dumps(told)


def is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _attribute(name: str, text: str) -> Any:
    """An attribute out of its header: percent-encoded text; our own numbers and the flag with their types."""
    try:
        value = unquote(text, errors="strict")
        value.encode()
    except UnicodeError as error:
        raise NoCloudEvent(f"ce-{name[:32]} is not percent-encoded UTF-8") from error
    if name in _WHOLE:
        if not (value.isascii() and value.isdigit() and len(value) < 11):
            raise NoCloudEvent(f"ce-{name} is {value[:16]!r}; a whole number is expected")
        return int(value)
    if name == "void":
        if value not in ("true", "false"):
            raise NoCloudEvent(f"ce-void is {value[:16]!r}; true or false is expected")
        return value == "true"
    return value
