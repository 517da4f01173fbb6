"""Avro by hand: single-object encoding of flat records, as far as the raw log needs it.

The schema is read from the contract's `.avsc`: a contract is what both sides agree on and no code of the engine.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

MAGIC = b"\xc3\x01"
_EMPTY = 0xC15D213AA4D7A795
_SCHEMAS = Path(__file__).parents[2] / "schemas"


@cache
def schema(name: str) -> Any:
    """A contract of the wire, as read from its file."""
    return json.loads((_SCHEMAS / f"{name}.avsc").read_text())


def fingerprint(of: Any) -> bytes:
    """CRC-64-AVRO of a flat record's parsing canonical form, little-endian."""
    fields = ",".join(f'{{"name":"{one["name"]}","type":"{one["type"]}"}}' for one in of["fields"])
    text = f'{{"name":"{of["namespace"]}.{of["name"]}","type":"record","fields":[{fields}]}}'
    crc = _EMPTY
    for byte in text.encode():
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_EMPTY if crc & 1 else 0)
    return crc.to_bytes(8, "little")


def encode(of: Any, record: dict[str, Any]) -> bytes:
    """A flat record in single-object encoding."""
    parts = [MAGIC, fingerprint(of)]
    for one in of["fields"]:
        value = record.get(one["name"], one.get("default"))
        if one["type"] == "boolean":
            parts.append(bytes((bool(value),)))
        elif one["type"] == "long":
            parts.append(_long(int(value)))
        else:
            data = value if isinstance(value, bytes) else str(value).encode()
            parts.append(_long(len(data)) + data)
    return b"".join(parts)


def decode(of: Any, value: bytes) -> dict[str, Any]:
    """The inverse.  ValueError for bytes that are not exactly one such record, KeyError for another schema."""
    if value[:2] != MAGIC:
        raise ValueError("not single-object encoding")
    if value[2:10] != fingerprint(of):
        raise KeyError("another schema")
    return _fields(of, value, 10)


def framed(table: dict[int, Any], value: bytes) -> dict[str, Any]:
    """An event in a registry's framing, of simple fields.  KeyError for an id that is no event's in this table."""
    if len(value) < 5:
        raise ValueError("the frame ends too early")
    of = table[int.from_bytes(value[1:5], "big")]
    ours = schema("RawEvent")["fields"]
    kinds = {one["name"]: one["type"] for one in of["fields"]}
    needed = {one["name"] for one in ours if "default" not in one}
    if of["name"] != "RawEvent" or needed - kinds.keys() or any(not isinstance(one, str) for one in kinds.values()):
        raise KeyError("another schema")
    record = _fields(of, value, 5)
    return {one["name"]: record.get(one["name"], one.get("default")) for one in ours}


def _fields(of: Any, value: bytes, at: int) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for one in of["fields"]:
        if one["type"] == "boolean":
            record[one["name"]] = value[at] != 0 if at < len(value) else _short()
            at += 1
            continue
        number, at = _read_long(value, at)
        if one["type"] == "long":
            record[one["name"]] = number
            continue
        if number < 0 or at + number > len(value):
            _short()
        data = value[at : at + number]
        record[one["name"]] = data if one["type"] == "bytes" else data.decode()
        at += number
    if at != len(value):
        raise ValueError("bytes behind the record")
    return record


def _long(number: int) -> bytes:
    left = (number << 1) ^ (number >> 63)
    out = bytearray()
    while left > 127:
        out.append(left & 127 | 128)
        left >>= 7
    out.append(left)
    return bytes(out)


def _read_long(value: bytes, at: int) -> tuple[int, int]:
    left = shift = 0
    while True:
        if at >= len(value) or shift > 63:
            _short()
        byte = value[at]
        at += 1
        left |= (byte & 127) << shift
        if byte < 128:
            return (left >> 1) ^ -(left & 1), at
        shift += 7


def _short() -> Any:
    raise ValueError("the record ends too early")
