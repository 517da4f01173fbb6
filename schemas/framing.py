"""Framing: Avro as schema registries frame it (00, an id of four bytes, the body), and what the ids mean.

    registry ──apply──▶ Registered (in `definitions`) ──marker in each raw partition──▶ Table ──▶ 00 id body is read

An id means nothing by itself: a registry gave it, and may be down, or another one, when the record is read again.  So
what it said stands in the log, as a table of all ids so far, and a record is read by the table in force where it lies.
What is read is turned into single-object encoding, which needs no table: only what a source sent itself is framed.

A schema of a table stands for an event when its fields hold those of RawEvent; more fields may stand beside them.
These are of simple types: a list of a million nothings takes no bytes, and a reader that believes its length no end.

Source: Confluent's wire format; Avro 1.12 specification, "Schema Resolution".
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import fastavro
import orjson

from milepost.schemas.errors import ContractError
from milepost.schemas.serde import MAGIC, wire

FRAME: Final = b"\0"
PREFIX_BYTES: Final = 5
TABLE_BYTES: Final = 8
SCHEMAS_MAX: Final = 1000
"""Ids that a table holds."""
TEXT_BYTES_MAX: Final = 1024 * 1024
"""Of all its schemas together: a table is one message."""
MORE_FIELDS_MAX: Final = 100
_SIMPLE: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "string", "bytes"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredSchema:
    """A schema that a registry holds: its id, for good, and where it stands there."""

    id: int
    subject: str
    version: int
    text: str

    def as_fields(self) -> dict[str, Any]:
        """For the contract `Registered`."""
        return {"id": self.id, "subject": self.subject, "version": self.version, "text": self.text}


class Table:
    """What ids mean: all that the log knows, or those of one moment.

    id:      names the table: hash of what it holds
    schemas: id -> schema
    headers: id -> the header of single-object encoding under the same schema; not of what cannot be read as Avro
    """

    def __init__(self, schemas: Sequence[RegisteredSchema]) -> None:
        self.schemas: Mapping[int, RegisteredSchema] = {one.id: one for one in sorted(schemas, key=lambda one: one.id)}
        self.id = table_id(self.schemas.values())
        self.headers: dict[int, bytes] = {}
        self._writers: dict[int, Any] = {}
        raw = wire("RawEvent")
        for one in self.schemas.values():
            header = header_of(one.text)
            if header is None:
                continue
            self.headers[one.id] = header
            if header != raw.header and not event_fault(one.text):
                self._writers[one.id] = fastavro.parse_schema(json.loads(one.text))

    def plain(self, value: bytes) -> bytes:
        """A framed event in single-object encoding.  ContractError: `unknown_schema` for an id that is not here or is
        no event's, `not_decodable` for a broken frame or body."""
        if len(value) < PREFIX_BYTES:
            raise ContractError(
                "not_decodable", f"a frame of {PREFIX_BYTES} bytes stands before the body, {len(value)} bytes came"
            )
        number = int.from_bytes(value[1:PREFIX_BYTES], "big")
        raw = wire("RawEvent")
        if self.headers.get(number) == raw.header:
            return raw.header + value[PREFIX_BYTES:]
        writer = self._writers.get(number)
        if writer is not None:
            return raw.encode(_resolved(writer, value))
        known = self.schemas.get(number)
        if known is None:
            raise ContractError("unknown_schema", f"schema {number} is none of those that the log knows here")
        raise ContractError("unknown_schema", f"schema {number} ({known.subject}) holds no RawEvent")

    def unframed(self, value: bytes) -> bytes | None:
        """A framed message of any schema in single-object encoding; None where the id is unknown."""
        header = self.headers.get(int.from_bytes(value[1:PREFIX_BYTES], "big"))
        return None if header is None or len(value) < PREFIX_BYTES else header + value[PREFIX_BYTES:]

    def joined(self, more: Sequence[RegisteredSchema]) -> Table:
        """This table and more.  ContractError (`unknown_schema`) where an id would mean something else than here, or
        where the bounds are passed."""
        found = dict(self.schemas)
        for one in more:
            here = found.setdefault(one.id, one)
            if here is not one and _meaning(here.text) != _meaning(one.text):
                raise ContractError(
                    "unknown_schema",
                    f"schema {one.id} is {one.subject} version {one.version} in the registry; "
                    f"the log knows {here.subject} version {here.version} by that id",
                )
        size = sum(len(one.text.encode()) for one in found.values())
        if len(found) > SCHEMAS_MAX or size > TEXT_BYTES_MAX:
            raise ContractError(
                "unknown_schema",
                f"{len(found)} schemas of {size} bytes; a table has at most {SCHEMAS_MAX} of {TEXT_BYTES_MAX} together",
            )
        return Table(tuple(found.values()))


def table_of(fields: Mapping[str, Any]) -> Table:
    """The table of a `Registered` record.  ContractError where it passes the bounds."""
    return Table(()).joined([RegisteredSchema(**one) for one in fields["schemas"]])


def table_id(schemas: Any) -> bytes:
    """BLAKE2b-64 of what a table holds."""
    text = orjson.dumps([one.as_fields() for one in schemas])
    return hashlib.blake2b(text, digest_size=TABLE_BYTES).digest()


def header_of(text: str) -> bytes | None:
    """The header of single-object encoding under a schema; None for what is no Avro schema."""
    try:
        canonical = fastavro.schema.to_parsing_canonical_form(json.loads(text))
        return MAGIC + bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))
    except Exception:  # noqa: BLE001 -- fastavro raises half a dozen unrelated classes; what it cannot read has no header
        return None


def event_fault(text: str) -> str:
    """Why a registered schema does not stand for an event, "" when it does."""
    ours = {one["name"]: one for one in wire("RawEvent").json["fields"]}
    try:
        schema = json.loads(text)
        fastavro.parse_schema(json.loads(text))
    except Exception as error:  # noqa: BLE001 -- as above
        return f"not an Avro schema: {type(error).__name__}"
    if not isinstance(schema, dict) or schema.get("type") != "record":
        return "not a record"
    if schema["name"].rpartition(".")[2] != "RawEvent":
        return f"the record is named {schema['name']}, RawEvent is expected"
    fields = {one["name"]: _bare(one["type"]) for one in schema["fields"]}
    for name, one in ours.items():
        if name not in fields and "default" not in one:
            return f"the field {name} is missing"
        if name in fields and fields[name] != one["type"]:
            return f"the field {name} is not of the type {one['type']}"
    more = [name for name in fields if name not in ours]
    if len(more) > MORE_FIELDS_MAX:
        return f"it has {len(more)} more fields; at most {MORE_FIELDS_MAX} are read"
    for name in more:
        kinds = fields[name] if isinstance(fields[name], list) else [fields[name]]
        if not all(isinstance(_bare(kind), str) and _bare(kind) in _SIMPLE for kind in kinds):
            return f"the field {name} is not of a simple type"
    return ""


def _bare(kind: Any) -> Any:
    """A simple type without the remarks that some serializers add to it."""
    if isinstance(kind, dict) and kind.get("type") in _SIMPLE and "logicalType" not in kind:
        return kind["type"]
    return kind


def _resolved(writer: Any, value: bytes) -> dict[str, Any]:
    stream = io.BytesIO(value)
    stream.seek(PREFIX_BYTES)
    try:
        fields = fastavro.schemaless_reader(stream, writer, wire("RawEvent").schema)
    except Exception as error:  # fastavro raises many kinds on broken bytes: each is the author's fault
        raise ContractError("not_decodable", f"the body is not what its schema says: {type(error).__name__}") from error
    if stream.tell() != len(value):
        raise ContractError("not_decodable", f"{len(value) - stream.tell()} bytes after the body")
    return fields  # type: ignore[return-value]


def _meaning(text: str) -> Any:
    """A schema's text without spelling: registries answer with spaces and escapes of their own."""
    try:
        return json.loads(text)
    except ValueError:
        return text


NO_TABLE: Final = Table(())
"""Where nothing is registered."""
