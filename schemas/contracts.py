"""Contracts: an Avro record schema compiled into a fast check of JSON `data`.

A contract says what `data` of one event type is.  `compile_contract` reads the schema once and writes a Python function
for it, because the check runs for every event: it returns a new dict with every declared field, in the schema's order,
defaults filled in, numbers in the schema's kind.  Equal data gives equal dicts, whatever the wire form was (2 and 2.0
for a double).

What JSON cannot say for certain is settled here:
* a nullable field that is absent is null; undeclared fields are ignored (they stay in the raw log);
* a whole number where a double is expected must be exact as a double; 2.0 where a long is expected is 2;
* NaN and infinities are refused; `bytes`, `fixed` and recursive types are refused in the schema, for JSON has none.

Source: Avro 1.12 specification, "Schema Declaration".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, NoReturn, cast

import fastavro
import fastavro.schema

from milepost.schemas.contract_writer import DEPTH_MAX, Check, Writer, said
from milepost.schemas.field_types import FieldType, SchemaFault, field_at, paths_of

SCHEMA_BYTES_MAX: Final = 256 * 1024

__all__ = ["Check", "Contract", "FieldType", "SchemaFault", "compile_contract", "field_at", "paths_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """The contract of one event type.

    check:     `data` as decoded from JSON -> a new dict with every declared field; raises ContractError
               (`contract_violation`), naming the field and never its value
    type:      the record's type, for rules
    canonical: the schema without what does not change its meaning (doc, order, aliases), as text: rules' versions
               depend on it
    """

    schema_name: str
    check: Check
    type: FieldType
    canonical: str


def compile_contract(schema_name: str, text: bytes) -> Contract:
    """The contract that an `.avsc` file declares.  Raises SchemaFault."""
    schema = _read(text)
    writer = Writer()
    known = writer.type_of(schema, ())
    if known.type.kind != "record" or known.type.nullable:
        raise SchemaFault(f"a contract is one record, not {said(schema)}")
    try:
        fastavro.parse_schema(cast(dict[str, Any], schema))
    except Exception as error:  # fastavro raises half a dozen unrelated classes for a schema it does not accept
        raise SchemaFault(f"not an Avro schema: {error}") from error
    return Contract(
        schema_name=schema_name,
        check=writer.build(known.call),
        type=known.type,
        canonical=json.dumps(known.canonical, sort_keys=True, separators=(",", ":"), ensure_ascii=False),
    )


def _read(text: bytes) -> object:
    if len(text) > SCHEMA_BYTES_MAX:
        raise SchemaFault(f"a schema has at most {SCHEMA_BYTES_MAX} bytes, this one {len(text)}")
    try:
        return json.loads(text.decode(), object_pairs_hook=_no_repeats, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise SchemaFault(f"not JSON: {error.msg}", (), error.lineno, error.colno) from error
    except UnicodeDecodeError as error:
        raise SchemaFault("not UTF-8") from error
    except RecursionError as error:
        raise SchemaFault(f"nested deeper than {DEPTH_MAX}") from error


def _no_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    known = dict(pairs)
    if len(known) != len(pairs):
        names = [name for name, _ in pairs]
        raise SchemaFault(f"the key {next(n for n in names if names.count(n) > 1)!r} stands twice in one object")
    return known


def _no_constant(name: str) -> NoReturn:
    raise SchemaFault(f"{name} is not JSON")
