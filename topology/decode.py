"""Decode: bytes to an event under its source's contract, else a reason.

    value ──envelope──▶ Envelope ──place──▶ (raw key, partition) ──event──▶ Event

Three steps, because a record must be placed (it may lie in the wrong partition) before its contract is asked: the
contract in force is that of its first position, which another partition may know.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import orjson

from milepost.schemas.errors import ContractError
from milepost.schemas.framing import FRAME, Table
from milepost.schemas.keys import PART_BYTES_MAX
from milepost.schemas.records import Envelope, Event, Reject
from milepost.schemas.serde import HEADER_BYTES, MAGIC, wire
from milepost.schemas.times import time_ms
from milepost.topology import by_hand, cloudevents
from milepost.topology.catalog import Catalog, Contract, Source

VALUE_BYTES_MAX: Final = 1024 * 1024
DEPTH_MAX: Final = 32
_decode_json = msgspec.json.Decoder(Envelope).decode
_NOT_JSON: Final = Reject("not_decodable", "neither JSON nor Avro single-object encoding")
_TOO_DEEP: Final = Reject("not_decodable", "nested deeper than the decoder goes")
_decode_data = msgspec.json.Decoder(dict[str, Any]).decode


class _Named(msgspec.Struct, frozen=True):
    """What names an event, whatever else is wrong with it."""

    org: Any = ""
    source: Any = ""
    type: Any = ""


_decode_names = msgspec.json.Decoder(_Named).decode


def envelope(value: bytes) -> Envelope | Reject:
    """The envelope of a record on `raw-events`: JSON (ours, or a structured CloudEvent, which says `specversion`), or
    Avro single-object encoding of RawEvent."""
    if len(value) > VALUE_BYTES_MAX:
        return Reject("too_large", f"at most {VALUE_BYTES_MAX} bytes are expected, {len(value)} came")
    try:
        found = _from_avro(value) if value[:2] == MAGIC else _decode_json(value)
    except ContractError as error:
        return Reject(error.reason, error.detail)
    except msgspec.ValidationError as error:
        # The typed decoder stops at the first wrong type; whether the bytes are JSON at all is another question.
        if not _is_json(value):
            return _NOT_JSON
        return Reject("contract_violation", cloudevents.hint(value) or f"the envelope does not hold: {error}")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Reject("not_decodable", f"neither JSON nor Avro single-object encoding: {_plain(error)}")
    except RecursionError:
        return _TOO_DEEP
    if found.specversion is not None and (detail := cloudevents.fault(found)) is not None:
        return Reject("contract_violation", detail)
    org, source, id, type = found.org, found.source, found.id, found.type
    if not (
        0 < len(org) <= PART_BYTES_MAX
        and 0 < len(source) <= PART_BYTES_MAX
        and 0 < len(id) <= PART_BYTES_MAX
        and 0 < len(type) <= PART_BYTES_MAX
        and org.isascii()
        and source.isascii()
        and id.isascii()
        and type.isascii()
    ):
        fault = _parts_fault(found)
        if fault is not None:
            return fault
    if not (0 <= found.revision < 2**31 and 0 <= found.repair < 2**31):
        return Reject("contract_violation", "revision and repair are whole numbers from 0 to 2147483647")
    # What is nested deeper has as many opening brackets; few values have, and only those are looked through.
    if value.count(b"{") + value.count(b"[") > DEPTH_MAX and _deeper(found.data, DEPTH_MAX):
        return Reject("contract_violation", f"data is nested deeper than {DEPTH_MAX}")
    return found


def framed(value: bytes, table: Table) -> tuple[Envelope | Reject, bytes | None]:
    """(envelope, the same in single-object encoding) of a framed event, by what its id means in `table`."""
    if len(value) > VALUE_BYTES_MAX:
        return Reject("too_large", f"at most {VALUE_BYTES_MAX} bytes are expected, {len(value)} came"), None
    try:
        plain = table.plain(value)
    except ContractError as error:
        return Reject(error.reason, error.detail), None
    return envelope(plain), plain


def read(value: bytes, table: Table) -> Envelope | Reject:
    """The envelope of a record, framed or not."""
    return framed(value, table)[0] if value[:1] == FRAME and table.schemas else envelope(value)


def _parts_fault(found: Envelope) -> Reject | None:
    for name, part in (("org", found.org), ("source", found.source), ("id", found.id), ("type", found.type)):
        try:
            length = len(part.encode())
        except UnicodeEncodeError:
            return Reject("contract_violation", f"{name} holds a lone surrogate; valid Unicode is expected")
        if not 0 < length <= PART_BYTES_MAX:
            return Reject("contract_violation", f"{name} has {length} bytes; 1 to {PART_BYTES_MAX} are expected")
    return None


def named(envelope: Envelope | None, value: bytes | None) -> tuple[str, str, str]:
    """(organisation, source, type) for a dead letter: of an envelope, or of one in `value` that does not hold; empty
    what cannot be read."""
    if envelope is not None:
        return envelope.org, envelope.source, envelope.type
    if value is None or len(value) > VALUE_BYTES_MAX or value[:2] == MAGIC:
        return "", "", ""
    try:
        found = _decode_names(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", "", ""
    org, source, type_ = (_part(one) for one in (found.org, found.source, found.type))
    return org, source, type_


def _part(value: object) -> str:
    """A name, where it is one; a lone surrogate has no bytes."""
    whole = isinstance(value, str) and len(value.encode(errors="replace")) <= PART_BYTES_MAX
    return value.encode(errors="replace").decode() if whole and isinstance(value, str) else ""


def contract(found: Envelope, catalog: Catalog | None) -> tuple[Source, Contract] | Reject:
    """The contract of an event's source and type."""
    source = catalog.sources.get(found.source) if catalog is not None else None
    if source is None and catalog is not None and found.source == by_hand.NAME:
        source = by_hand.SOURCE
    if source is None:
        return Reject("unknown_source", "the definitions in force know no such source")
    under = source.types.get(found.type)
    if under is None:
        return Reject("unknown_type", f"source {source.name} has no contract for this type")
    return source, under


def event(found: Envelope, k_ms: int, source: Source, contract: Contract) -> Event | Reject:
    """The event under its contract, as of known time `k_ms`."""
    try:
        t_ms = time_ms(found.time)
        data = contract.check(found.data)
        body = _body(found, t_ms, data, source)
    except ContractError as error:
        return Reject(error.reason, error.detail)
    if t_ms > k_ms + source.future_skew_ms:
        return Reject(
            "future_event",
            f"the time lies {t_ms - k_ms} ms ahead of its arrival; {source.future_skew_ms} ms are allowed",
        )
    return Event(
        org=found.org,
        source=found.source,
        id=found.id,
        type=found.type,
        time=found.time,
        t_ms=t_ms,
        data=data,
        body=body,
        revision=found.revision,
        repair=found.repair,
        void=found.void,
    )


def _is_json(value: bytes) -> bool:
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError:
        return False
    return True


def _from_avro(value: bytes) -> Envelope:
    raw = wire("RawEvent")
    fields = raw.decode(value) if value[:HEADER_BYTES] == raw.header else _unknown(value)
    try:
        fields["data"] = _decode_data(fields["data"])
    except msgspec.ValidationError as error:
        raise ContractError("contract_violation", "data is not a JSON object") from error
    return Envelope(**fields)


def _unknown(value: bytes) -> dict[str, Any]:
    raise ContractError("unknown_schema", f"no schema with the fingerprint {value[2:HEADER_BYTES].hex()} is known")


def _body(found: Envelope, t_ms: int, data: Mapping[str, Any], source: Source) -> bytes:
    """Hash of the canonical form: type, time, void and data without the contract's volatile fields, keys sorted."""
    if source.volatile:
        data = _without(data, source.volatile)
    try:
        canonical = orjson.dumps((found.type, t_ms, found.void, data), option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise ContractError("contract_violation", f"data has no canonical form: {_plain(error)}") from error
    return hashlib.blake2b(canonical, digest_size=8).digest()


def _without(data: Mapping[str, Any], paths: tuple[tuple[str, ...], ...]) -> dict[str, Any]:
    kept = dict(data)
    for path in paths:
        at: dict[str, Any] = kept
        for name in path[:-1]:
            inner = at.get(name)
            if not isinstance(inner, dict):
                break
            at[name] = inner = dict(inner)
            at = inner
        else:
            at.pop(path[-1], None)
    return kept


def _deeper(value: Any, depth: int) -> bool:
    if isinstance(value, dict):
        return depth == 0 or any(_deeper(v, depth - 1) for v in value.values() if isinstance(v, dict | list))
    if isinstance(value, list):
        return depth == 0 or any(_deeper(v, depth - 1) for v in value if isinstance(v, dict | list))
    return False


def _plain(error: Exception) -> str:
    """An error's kind and place, without the bytes it quotes."""
    return str(error).split(":", 1)[0][:120]
