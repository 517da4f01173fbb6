"""Signal message: the contract `Signals` read and written by hand, because it is what the line moves most.

    header(10) | bundle(8) event(16) leaf(16) t k raw_offset prev first_offset (8 each) lane raw first revision repair
    (4 each) | org source id type (text) | members [entity, leaf(16)] | signals [rule, version(8), fields (JSON)] |
    void(1) | earlier [revision, repair, pane]

The bytes are those of the contract's Avro encoding, which the tests hold against fastavro and the avro package; one
`struct` call reads all numbers, where a schema-driven reader takes ten times as long for the whole message.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from milepost.schemas.errors import ContractError
from milepost.schemas.serde import HEADER_BYTES, wire

_HEAD: Final = struct.Struct(">8s16s16sqqqqqiiiii")
_NAMES_AT: Final = HEADER_BYTES + _HEAD.size
_unpack_head, _pack_head = _HEAD.unpack_from, _HEAD.pack
_fields = msgspec.json.Decoder(dict[str, Any]).decode

BUNDLE_END: Final = HEADER_BYTES + 8
"""The first bytes up to here are the header and the bundle."""


class SignalMessage(NamedTuple):
    """A message on `signals`, without the names that only people read.  Times are ms since the epoch.

    event:   raw key of its revision 0
    members: (entity, leaf);  signals: (rule, version, fields)
    earlier: (revision, repair, pane) of the event's revisions that were accepted before
    """

    bundle: bytes
    event: bytes
    leaf: bytes
    t_ms: int
    k_ms: int
    raw_offset: int
    prev: int
    first_offset: int
    lane: int
    raw_partition: int
    first_partition: int
    revision: int
    repair: int
    members: tuple[tuple[str, bytes], ...]
    signals: tuple[tuple[str, bytes, dict[str, Any]], ...]
    void: bool = False
    earlier: tuple[tuple[int, int, int], ...] = ()


def write(
    head: tuple[bytes, bytes, bytes, int, int, int, int, int, int, int, int, int, int],
    names: tuple[str, str, str, str],
    members: Sequence[tuple[str, bytes]],
    signals: Sequence[tuple[str, bytes, bytes]],
    void: bool = False,
    earlier: Sequence[tuple[int, int, int]] = (),
) -> bytes:
    """The bytes of a message.

    head:    the first thirteen fields of `SignalMessage`, in its order
    names:   org, source, id, type
    signals: (rule, version, JSON object of its fields)
    """
    org, source, id, type = names
    name = id.encode()
    parts = [wire("Signals").header, _pack_head(*head), text(org), text(source), _length(len(name)), name, text(type)]
    if members:
        parts.append(_length(len(members)))
        for entity, leaf in members:
            parts += (text(entity), leaf)
    parts.append(b"\0")
    if signals:
        parts.append(_length(len(signals)))
        for rule, version, fields in signals:
            parts += (text(rule), version, _length(len(fields)), fields)
    parts.append(b"\0\1" if void else b"\0\0")
    if earlier:
        parts.append(_length(len(earlier)))
        for revision, repair, pane in earlier:
            parts += (_length(revision), _length(repair), _length(pane))
    parts.append(b"\0")
    return b"".join(parts)


def read(value: bytes) -> SignalMessage | None:
    """The message in `value`, or None when it is none of this contract, or says what ingest could not have said."""
    if value[:HEADER_BYTES] != wire("Signals").header:
        return None
    try:
        found = _read_plain(value)
        return _read_any(value) if found is None else found
    except (ContractError, IndexError, struct.error, ValueError, msgspec.DecodeError, RecursionError):
        return None


def _read_plain(value: bytes) -> SignalMessage | None:
    """As `write` writes most: short names, one block an array, nothing earlier.  Of anything else None."""
    source = _NAMES_AT + 1 + ((org := value[_NAMES_AT]) >> 1)
    id = source + 1 + (value[source] >> 1)
    type = id + 1 + (value[id] >> 1)
    at = type + 1 + (value[type] >> 1)
    if (org | value[source] | value[id] | value[type]) & 0x81 or not value[_NAMES_AT:at].isascii():
        return None
    count = value[at]
    at += 1
    members: tuple[tuple[str, bytes], ...] = ()
    if count:
        if count & 0x81:
            return None
        some = []
        for _ in range(count >> 1):
            size = value[at]
            if size & 0x81:
                return None
            at += 1
            end = at + (size >> 1)
            some.append((value[at:end].decode(), value[end : end + 16]))
            at = end + 16
        members = tuple(some)
        if value[at]:
            return None
        at += 1
    count = value[at]
    at += 1
    signals: tuple[tuple[str, bytes, dict[str, Any]], ...] = ()
    if count:
        if count & 0x81:
            return None
        told = []
        for _ in range(count >> 1):
            size = value[at]
            if size & 0x81:
                return None
            at += 1
            end = at + (size >> 1)
            rule, version = value[at:end].decode(), value[end : end + 8]
            at = end + 8
            size = value[at]
            at += 1
            if size & 0x80:
                low, size = size & 0x7F, value[at]
                if size & 0x80:
                    return None
                at += 1
                size = low | size << 7
            if size & 1:
                return None
            end = at + (size >> 1)
            told.append((rule, version, _fields(value[at:end])))
            at = end
        signals = tuple(told)
        if value[at]:
            return None
        at += 1
    if value[at] > 1 or value[at + 1] or at + 2 != len(value):
        return None
    return SignalMessage._make((*_unpack_head(value, HEADER_BYTES), members, signals, value[at] == 1, ()))


def _read_any(value: bytes) -> SignalMessage:
    """By the schema: slower, and right for every encoding Avro allows."""
    found = wire("Signals").decode(value)
    members = tuple((one["entity"], one["leaf"]) for one in found["members"])
    signals = tuple((one["rule"], one["version"], _fields(one["fields"])) for one in found["signals"])
    earlier = tuple((one["revision"], one["repair"], one["pane"]) for one in found["earlier"])
    head = (found[name] for name in SignalMessage._fields[:13])
    return SignalMessage._make((*head, members, signals, found["void"], earlier))


def _length(number: int) -> bytes:
    """A count or length as Avro writes it: zigzag, seven bits a byte, low bits first."""
    return _LENGTHS[number] if 0 <= number < len(_LENGTHS) else _written(number)


def _written(number: int) -> bytes:
    rest = number << 1
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def _text(value: str) -> bytes:
    data = value.encode()
    return _length(len(data)) + data


text = lru_cache(maxsize=4096)(_text)
"""A name as Avro writes it, remembered: names come again and again."""

_LENGTHS: Final = [_written(number) for number in range(4096)]
