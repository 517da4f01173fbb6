"""Messages: one message of any topic of ours as people and programs read it.

    raw-events          JSON as it came, our contracts, or a tick; the engine's stamp beside it
    signals, milestones, … , dead-letters    Avro single-object encoding: the contract's name and its fields
    *-changelog         own, mark, reset, try; a row: its store, the epoch and offset it was written at, its bytes;
                        a packed record: its rows

Times (`*_ms`) stay numbers.  Leaves and roots are MetaKeys, other bytes are hex, JSON in bytes is JSON.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from milepost.schemas import serde, stamps
from milepost.schemas.errors import ContractError
from milepost.schemas.framing import FRAME, NO_TABLE, PREFIX_BYTES, Table
from milepost.schemas.keys import metakey
from milepost.topology.line import LEGS, LegSpec
from milepost.topology.packed import HEAD_BYTES, load_packed

SHOWN_BYTES: Final = 64
"""So many bytes of what is only bytes are shown; the rest is counted."""
ROWS_SHOWN: Final = 20
LEAVES: Final = frozenset({"leaf", "a", "b", "company", "heir"})
"""Fields whose sixteen bytes are a leaf or a root."""
CONTROL: Final = b"\x00"
"""How keys of a changelog begin that are no rows."""
_two = struct.Struct(">QQ")
_LEGS: Final[Mapping[str, LegSpec]] = {leg.changelog: leg for leg in LEGS}


def decoded(message: Any, topic: str = "", known: Callable[[], Table] = lambda: NO_TABLE) -> dict[str, Any]:
    """One message: position, time, key in hex, what the value says, and the engine's stamp.

    topic: its name in the line, for those whose values say nothing of what they are
    known: what the ids of framed messages mean
    """
    _kind, moment = message.timestamp()
    key, value = _bytes(message.key()), _bytes(message.value())
    line: dict[str, Any] = {
        "at": f"{message.topic()}/{message.partition()}@{message.offset()}",
        "time": datetime.fromtimestamp(moment / 1000, UTC).isoformat(timespec="milliseconds"),
        "key": None if key is None else key[:SHOWN_BYTES].hex(),
        "value": changelog_value(_LEGS[topic], key, value) if key and topic in _LEGS else plain_value(value, known),
    }
    for name, content in message.headers() or ():
        stamp = _bytes(content)
        if name == stamps.HEADER and stamp is not None and len(stamp) == stamps.SIZE:
            line["first"] = _plain(stamps.unpack(stamp))
            if value == b"" and stamp[:1] == stamps.TICK:
                line["value"] = {"control": "tick"}
    return line


def plain_value(value: bytes | None, known: Callable[[], Table] = lambda: NO_TABLE) -> Any:
    """What a value says: by one of our contracts, as JSON, or only its bytes; None for a tombstone."""
    if value is None:
        return None
    if value[:1] == FRAME:
        schema = known().schemas.get(int.from_bytes(value[1:PREFIX_BYTES], "big"))
        if schema is not None and (plain := _unframed(value, known())) is not None:
            return {"schema": schema.id, "subject": schema.subject, **plain_value(plain, known)}
    if value[:2] == serde.MAGIC:
        try:
            contract, fields = serde.decode_any(value)
        except ContractError as error:
            return {"undecodable": str(error), "bytes": len(value)}
        return {"contract": contract, **_plain(fields)}
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return _hex(value)


def _unframed(value: bytes, table: Table) -> bytes | None:
    try:
        return table.plain(value)
    except ContractError:  # no event: what the schema says, if it is one of ours
        return table.unframed(value)


def changelog_value(leg: LegSpec, key: bytes, value: bytes | None) -> Any:
    """What a record of a leg's changelog says: which store's row it is, and when it was written."""
    if key[:1] == CONTROL:
        return {"control": key[1:].decode("ascii", "replace"), "value": plain_value(value)}
    store = next((one for one in leg.stores if one.tag == key[0]), None)
    if store is None:
        return {"undecodable": f"{leg.name} has no store with the tag {key[0]}", **_hex(value or b"")}
    told: dict[str, Any] = {"store": store.name}
    if value is None:
        return {**told, "deleted": True}
    if len(value) < HEAD_BYTES:
        return {**told, "undecodable": f"a row has {HEAD_BYTES} bytes or more, {len(value)} came", **_hex(value)}
    epoch, upto = _two.unpack_from(value)
    told |= {"epoch": epoch, "upto": upto}
    if store.changelog != "packed":
        return {**told, "row": _hex(value[HEAD_BYTES:])}
    try:
        rows = load_packed(value)
    except ContractError as error:
        return {**told, "undecodable": error.detail, "bytes": len(value)}
    shown = [{"key": key.hex(), "row": None if row is None else _hex(row)} for key, row in rows[:ROWS_SHOWN]]
    return {**told, "rows": len(rows), "first": shown}


def _plain(value: Any, name: str = "") -> Any:
    """Anything decoded as what JSON can say."""
    match value:
        case stamps.Stamp():
            return {
                "kind": value.kind.decode("ascii", "replace"),
                "k": value.k_ms,
                "partition": value.partition,
                "offset": value.offset,
                "bundle": value.bundle.hex(),
            }
        case dict():
            texts = name == "files"
            return {str(one): _text(item) if texts else _plain(item, str(one)) for one, item in value.items()}
        case list() | tuple():
            return [_plain(item, name) for item in value]
        case bytes() if name in LEAVES and len(value) == 16:
            return metakey(value)
        case bytes() if value[:1] in (b"{", b"["):
            try:
                return json.loads(value)
            except (ValueError, RecursionError):
                return value.hex() if len(value) <= SHOWN_BYTES else _hex(value)
        case bytes():
            return value.hex() if len(value) <= SHOWN_BYTES else _hex(value)
    return value


def _text(value: Any) -> Any:
    """A file of a bundle as its text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _hex(value: bytes) -> dict[str, Any]:
    return {"hex": value[:SHOWN_BYTES].hex(), "bytes": len(value)}


def _bytes(value: object) -> bytes | None:
    if value is None:
        return None
    return value if isinstance(value, bytes) else str(value).encode()
