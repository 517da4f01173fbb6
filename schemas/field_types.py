"""Field types: what the values of `data` may be, as contracts declare it and rules are checked against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from milepost.schemas.errors import DeclarationError

Kind = Literal["number", "string", "boolean", "null", "record", "list", "map", "mixed"]


class SchemaFault(DeclarationError):
    """A schema cannot be a contract.  `path` leads to the fault: keys and indexes from the schema's root."""

    def __init__(self, message: str, path: tuple[str | int, ...] = (), line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.message, self.path, self.line, self.column = message, path, line, column


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldType:
    """What a value of `data` may be.

    kind:    as JSON and rules see it
    whole:   a number of the types int or long
    fields:  of a record, by name
    of:      of a list's or map's values
    doc:     what the schema says about it, for people; it makes no difference to anything else
    """

    kind: Kind
    nullable: bool = False
    whole: bool = False
    fields: Mapping[str, FieldType] = field(default_factory=dict)
    of: FieldType | None = None
    doc: str = field(default="", compare=False)


def field_at(of: FieldType, path: tuple[str, ...]) -> FieldType | None:
    """The type at a path of record fields, nullable when any record on the way is; None where there is none."""
    nullable = False
    for name in path:
        if of.kind != "record" or name not in of.fields:
            return None
        of = of.fields[name]
        nullable = nullable or of.nullable
    return of if of.nullable == nullable else or_null(of)


def paths_of(of: FieldType, prefix: str = "data") -> dict[str, FieldType]:
    """Every dotted path of record fields with its type, records included: {"data.a": ..., "data.a.b": ...}."""
    found: dict[str, FieldType] = {}
    for name, inner in of.fields.items():
        inner = or_null(inner) if of.nullable else inner
        found[f"{prefix}.{name}"] = inner
        if inner.kind == "record":
            found.update(paths_of(inner, f"{prefix}.{name}"))
    return found


def or_null(of: FieldType) -> FieldType:
    return replace(of, nullable=True)
