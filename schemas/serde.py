"""Serde: Avro single-object encoding (C3 01, fingerprint, body), which needs no registry.

The fingerprint is CRC-64-AVRO of the schema's canonical form, little-endian (Avro 1.11, "Single-object encoding").
fastavro writes the bytes; the tests hold them against the `avro` package.
"""

from __future__ import annotations

import importlib.resources
import io
from functools import cache
from typing import Any, Final

import fastavro
import fastavro.read
import fastavro.write
import orjson

from milepost.schemas.errors import ContractError

MAGIC: Final = b"\xc3\x01"
HEADER_BYTES: Final = 10


def _from_fixed(data: bytes, _writer: Any = None, _reader: Any = None) -> int:
    return int.from_bytes(data, "big", signed=True)


def _to_fixed(number: int, schema: Any) -> bytes:
    return number.to_bytes(schema["size"], "big", signed=True)


# A number of fixed size, big-endian: a logical type of ours, so that every reader here sees a number.
fastavro.read.LOGICAL_READERS["fixed-big-endian"] = _from_fixed
fastavro.write.LOGICAL_WRITERS["fixed-big-endian"] = _to_fixed


class Wire:
    """One contract of ours: `encode` a dict of its fields, `decode` bytes that carry its fingerprint."""

    def __init__(self, name: str) -> None:
        text = importlib.resources.files("milepost.schemas").joinpath(f"{name}.avsc").read_bytes()
        self.name = name
        self.json: dict[str, Any] = orjson.loads(text)
        self.schema = fastavro.parse_schema(orjson.loads(text))
        canonical = fastavro.schema.to_parsing_canonical_form(orjson.loads(text))
        self.header = MAGIC + bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))

    def encode(self, fields: dict[str, Any]) -> bytes:
        out = io.BytesIO()
        out.write(self.header)
        fastavro.schemaless_writer(out, self.schema, fields)
        return out.getvalue()

    def decode(self, data: bytes) -> dict[str, Any]:
        """The fields; ContractError `unknown_schema` for another fingerprint, `not_decodable` for a broken body."""
        if data[:HEADER_BYTES] != self.header:
            raise ContractError(
                "unknown_schema", f"expected {self.name} ({self.header.hex()}), came {data[:HEADER_BYTES].hex()}"
            )
        return _body(self.schema, data, self.name)


def _body(schema: Any, data: bytes, name: str) -> dict[str, Any]:
    stream = io.BytesIO(data)
    stream.seek(HEADER_BYTES)
    try:
        fields = fastavro.schemaless_reader(stream, schema, None)
    except Exception as error:  # fastavro raises many kinds on broken bytes: each is the author's fault
        raise ContractError("not_decodable", f"the body is not a {name}: {type(error).__name__}") from error
    if stream.tell() != len(data):
        raise ContractError("not_decodable", f"{len(data) - stream.tell()} bytes after the body of a {name}")
    return fields  # type: ignore[return-value]


@cache
def wire(name: str) -> Wire:
    """The contract by name; read and parsed once."""
    return Wire(name)


NAMES: Final = (
    "RawEvent",
    "Signals",
    "Tick",
    "Link",
    "Decision",
    "Completion",
    "Acceptance",
    "Bundle",
    "DeadLetter",
    "Repair",
    "Own",
    "Mark",
    "Verdict",
    "Trying",
    "RecordChange",
    "Recognition",
    "Recognised",
    "Access",
    "Change",
    "Registered",
)


@cache
def _by_header() -> dict[bytes, Wire]:
    return {wire(name).header: wire(name) for name in NAMES}


def decode_any(data: bytes) -> tuple[str, dict[str, Any]]:
    """(contract's name, fields) of any message of ours; ContractError when the fingerprint is not ours."""
    found = _by_header().get(data[:HEADER_BYTES])
    if found is None:
        raise ContractError("unknown_schema", f"no contract of ours has the fingerprint {data[:HEADER_BYTES].hex()}")
    return found.name, found.decode(data)
